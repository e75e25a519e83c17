"""What the driver notes about a run, and a few readings of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from airside.actors.rpc.layer import logger, steady_us
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.flag import Flag
from airside.stack.ids import RunId, TenantId, run_of
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.operations.messages import ORDER_PURPOSE, Admit, Order, Ticket
from airside.stack.ports import Journal
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.security.identity import IdentityChecker, run_subject
from airside.stack.security.sealing import unwrap
from airside.stack.values import Request

ORDER_LIFE_US = 60 * 1_000_000
"""An operator's order is for now."""

SUSPECT_AFTER = 3
"""Deaths of the processes a run worked in after which the runs that were there are suspected, and kept apart.

Only those count that nobody gave the order for and no lost lease or node explains: a run is not to blame for its
neighbours, for an operator, or for a machine.
"""

END_AFTER = 3
"""Deaths of processes of its own, where nobody else can be to blame, after which a run is ended."""

HELD_AFTER = 2
"""Layers that a run's requests held after which it is ended: once may be chance, and the request is sent again."""

BROKEN_AFTER = 6
"""Activations that broke off for an error of the run's own after which it is ended."""

APPEND_AGAIN_S = 0.5
"""Between attempts to make one admission durable, if the journal answers that it cannot."""

RESULTS_KEPT = 20_000
"""Ended runs whose result is answered from memory; older ones are read from the journal."""


@dataclass(slots=True)
class Placed:
    """A run the driver has on its books.

    `events` are those to hand to a runtime (read from the journal again where empty); `durable` is set once its
    admission is, or has its `refusal`; `over` is set at its end; `condemned` = it is to end so: no runtime takes it up
    any more; `asked` = it or a child may have waited for approval.  `losses` = processes that died under it and others,
    `deaths` = those that were its alone, `broken` = activations that failed by themselves, `held` = layers that its
    requests held.
    """

    tenant: TenantId
    epoch: int
    events: list[bytes] = field(default_factory=list)
    seat: str = ""
    parked: bool = False
    in_doubt: bool = False
    asked: bool = False
    losses: int = 0
    deaths: int = 0
    broken: int = 0
    held: int = 0
    placing: asyncio.Lock = field(default_factory=asyncio.Lock)
    condemned: ev.KillRequested | ev.CancelRequested | None = None
    durable: Flag = field(default_factory=Flag)
    over: Flag = field(default_factory=Flag)
    refusal: Ticket | None = None


async def made_durable(journal: Journal, append: Append) -> AppendReply:
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


def judge(admit: Admit, identities: IdentityChecker, routes: frozenset[str], version: str) -> ev.RunSubmitted | Ticket:
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


def not_admitted(_: object, why: str) -> Ticket:
    """Return the refusal of a request that went wrong."""
    return Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message=f"it may have been admitted: {why}")


def is_meant(order: Order, run_id: RunId, tenant: TenantId) -> bool:
    """Whether an operator\'s order is for this run."""
    if order.scope == "all":
        return True
    return order.target == (run_id if order.scope == "run" else tenant)


def latest_epoch(bodies: Sequence[bytes]) -> int:
    """Return the epoch of a run\'s latest activation, 0 if it has none."""
    events = (ev.decode_event(body) for body in bodies)
    return max((event.epoch for event in events if isinstance(event, ev.RunActivated)), default=0)


def open_order(key: bytes, sealed: bytes, at_us: int) -> tuple[Order | None, str]:
    """Return an operator's order, or why it is none."""
    body = unwrap(key, ORDER_PURPOSE, sealed)
    if body is None:
        return None, "the order's seal does not hold: only who holds the stack's keys may give orders"
    order = msgspec.msgpack.decode(body, type=Order)
    if abs(at_us - order.at_us) > ORDER_LIFE_US:
        return None, "the order is too old"
    return order, ""
