"""How the driver reads what it is sent: requests to admit and operators' orders; and makes an admission durable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from airside.actors.rpc.layer import logger, steady_us
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import RunId, TenantId, run_of
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.operations.messages import ORDER_PURPOSE, Admit, Order, Ticket
from airside.stack.ports import Journal
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.security.identity import IdentityChecker, run_subject
from airside.stack.security.seals import unwrap
from airside.stack.values import Request

ORDER_LIFE_US = 60 * 1_000_000
"""An operator's order is for now."""

APPEND_AGAIN_S = 0.5
"""Between attempts to make one admission durable, if the journal answers that it cannot."""

RESULTS_KEPT = 20_000
"""Ended runs whose result is answered from memory; older ones are read from the journal."""


async def append_until_durable(journal: Journal, append: Append) -> AppendReply:
    """Make an admission durable, however long the journal is away.

    It may be durable though no answer came: nobody is told anything until that is known.
    """
    while True:
        try:
            return await journal.append(append)
        except LayerUnavailable:
            run_id = append.stream
            logger.warning("the admission of %s waits for the journal", run_id, extra={"action": "admission_waits"})
            await asyncio.sleep(APPEND_AGAIN_S)


def validate_admission(
    admit: Admit, identities: IdentityChecker, routes: frozenset[str], version: str
) -> ev.RunSubmitted | Ticket:
    """Return the run a request becomes, or the refusal."""
    request = msgspec.json.decode(admit.request, type=Request)
    identity = identities.check(admit.identity, admit.proof, run_subject(run_of(request.request_id)))
    if identity is None:
        return Ticket(reason_code=ReasonCode.AUTH_FAILED, message="the identity's seal does not hold for this request")
    if request.route not in routes:
        message = f"no route {request.route!r:.80}; there are {sorted(routes)}"
        return Ticket(reason_code=ReasonCode.UNKNOWN_ROUTE_MODE, message=message)
    try:
        limits = identity.limits.lowered(request.limits)
    except InvalidInput as error:
        return Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=error.message)
    return ev.RunSubmitted(
        run_id=run_of(request.request_id),
        identity=identity,
        sealed=admit.proof,
        request=request,
        limits=limits,
        app_version=version,
        at_us=steady_us(),
    )


def is_same_request(there: Request, given: Request) -> bool:
    """Whether two requests ask for the same, whatever their priority and their bounds: these may be changed."""
    return _asked(there) == _asked(given)


def _asked(request: Request) -> Request:
    batch = msgspec.structs.replace(request.batch, priority=0) if request.batch else request.batch
    return msgspec.structs.replace(request, batch=batch, limits={})


def priority_of(events: Sequence[bytes]) -> int:
    """Return the priority that a run's first event says it was submitted with; 0 without one.

    Also for an event that is none: the driver has to come up, and the run ends when it is looked at.
    """
    first = None
    with contextlib.suppress(ValueError):
        first = ev.decode_event(events[0]) if events else None
    batch = first.request.batch if isinstance(first, ev.RunSubmitted) else None
    return batch.priority if batch else 0


def admission_failed(_: object, why: str) -> Ticket:
    """Return the refusal of a request that went wrong."""
    return Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message=f"it may have been admitted: {why}")


def is_order_for(order: Order, run_id: RunId, tenant: TenantId) -> bool:
    """Whether an operator\'s order is for this run."""
    if order.scope == "all":
        return True
    return order.target == (run_id if order.scope == "run" else tenant)


def open_operator_order(key: bytes, sealed: bytes, at_us: int) -> tuple[Order | None, str]:
    """Return an operator's order, or why it is none."""
    body = unwrap(key, ORDER_PURPOSE, sealed)
    if body is None:
        return None, "the order's seal does not hold: only who holds the stack's keys may give orders"
    order = msgspec.msgpack.decode(body, type=Order)
    if abs(at_us - order.at_us) > ORDER_LIFE_US:
        return None, "the order is too old"
    return order, ""
