"""Orders by credential: read, found to be about something within reach, sealed, and passed on as any operator's are.

What the driver carries out are orders under the stack's seal, whoever gave them; this makes the ones of who holds a
credential.  What is not within reach is answered as what does not exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import get_args

import msgspec

from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import PresentedOrder
from airside.actors.rpc.stubs import encode
from airside.actors.run_owners import RunOwners
from airside.stack.canonical import as_text
from airside.stack.directory import Directory
from airside.stack.errors import InvalidInput, Refused
from airside.stack.ids import PrincipalId, TenantId, parse_principal, parse_run, parse_tenant
from airside.stack.operations.batches import BatchChange
from airside.stack.operations.messages import ORDER_PURPOSE, Order
from airside.stack.policy.kill_switches import SwitchScope
from airside.stack.recovery.spend_in_doubt import parse_spend_key
from airside.stack.security.access import TENANTS_SCOPES, Caller, Reach, is_within
from airside.stack.security.seals import wrap
from airside.stack.values import MAX_REQUEST_BYTES, MOST

MAX_WHY_CHARS = 1_000
"""Of a reason: it is journaled, and shown in a line."""

_STOPPED = ("run", "tenant", "all")
SCOPES: Mapping[str, tuple[str, ...]] = {
    "kill": _STOPPED,
    "cancel": _STOPPED,
    "settle": ("run",),
    "rollback": ("run",),
    "resolve_spend": ("run",),
    "switch_off": get_args(SwitchScope),
    "switch_on": get_args(SwitchScope),
    "batch": ("all",),
}
"""What the target of an order by credential may be, by its action.  A batch is named by itself."""

BATCH_ACTIONS = frozenset({"pause", "resume", "retune", "requeue", "cancel"})
"""What may be ordered of a batch; the rest is said by the process that runs it."""

BatchTenant = Callable[[str], Awaitable[str | None]]
"""Whose a batch of this name is, empty if it is the house's; None if there is none."""


def order_of(given: PresentedOrder, caller: Caller, far: Reach) -> Order:
    """Return the order that is meant, in the name of its giver; raise `InvalidInput` for one that can mean nothing."""
    scopes = SCOPES[given.action]
    if given.scope not in scopes:
        raise InvalidInput(f"{given.action}: the scope {given.scope!r:.40} is none of {', '.join(scopes)}")
    if len(given.why) > MAX_WHY_CHARS:
        raise InvalidInput(f"{given.action}: a reason has at most {MAX_WHY_CHARS:,} characters")
    if len(given.output) > MAX_REQUEST_BYTES:
        raise InvalidInput(f"{given.action}: the output is over {MAX_REQUEST_BYTES:,} bytes")
    for name in ("until_us", "tokens", "cost_microusd"):
        amount = getattr(given, name)
        if amount is not None and not 0 <= amount <= MOST:
            raise InvalidInput(f"{given.action}: {name}={amount!r:.40} is not a whole number of at least 0")
    order = Order(
        action=given.action,  # type: ignore[arg-type]
        scope=given.scope,  # type: ignore[arg-type]
        target=as_text(given.target),
        by=str(caller),
        why=as_text(given.why),
        at_us=now_us(),
        happened=given.happened,
        output=given.output,
        until_us=given.until_us,
        tokens=given.tokens,
        cost_microusd=given.cost_microusd,
        tenant="" if far == "all" else caller.identity.tenant,
    )
    if order.action == "batch":
        _check_change(order.output)
    return order


def _check_change(output: bytes) -> None:
    try:
        change = msgspec.json.decode(output, type=BatchChange)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f"batch: {error}") from None
    if change.action not in BATCH_ACTIONS:
        raise InvalidInput(f"batch: {change.action} is no order: give one of {', '.join(sorted(BATCH_ACTIONS))}")


def sealed(key: bytes, order: Order) -> bytes:
    """Return an order as the driver takes it."""
    return wrap(key, ORDER_PURPOSE, encode(order))


class Targets:
    """Finds what orders are about, and whose that is."""

    def __init__(self, directory: Directory, owners: RunOwners, batch_tenant: BatchTenant) -> None:
        self._directory = directory
        self._owners = owners
        self._batch_tenant = batch_tenant

    async def check(self, order: Order, caller: Caller, far: Reach) -> None:
        """Return if an order's target is within its giver's reach.

        Raises `Refused` with a code, which is `unknown` for what is not there and for what is another's; and
        `InvalidInput` for what names nothing.
        """
        if order.action == "batch":
            await self._check_batch(order.target, caller, far)
            return
        if far == "own" and order.scope != "run":
            raise Refused(f"{order.action}: {caller} may do so with single runs of its own", reason="wrong_role")
        if far != "all" and order.scope not in TENANTS_SCOPES:
            raise Refused(f"{order.action}: the scope {order.scope} is the house's", reason="wrong_role")
        match order.scope:
            case "run":
                await self._check_run(order, caller, far)
            case "tenant":
                self._check_tenant(order.target, caller, far)
            case "principal":
                tenant, slash, principal = order.target.partition("/")
                if not slash:
                    raise InvalidInput(f"{order.action}: a principal is TENANT/PRINCIPAL, not {order.target!r:.80}")
                parse_principal(principal)
                self._check_tenant(tenant, caller, far)
            case "all":
                if order.target:
                    raise InvalidInput(f"{order.action}: all has no target, and this one {order.target!r:.80}")

    async def _check_run(self, order: Order, caller: Caller, far: Reach) -> None:
        if order.action == "resolve_spend":
            run_id = parse_spend_key(order.target).run_id
        else:
            run_id = parse_run(order.target.partition(":")[0] if order.action == "settle" else order.target)
        if not is_within(await self._owners.of(run_id), caller, far):
            raise Refused(f"there is no run {run_id}", reason="unknown")

    def _check_tenant(self, name: str, caller: Caller, far: Reach) -> None:
        parse_tenant(name)
        there = (TenantId(name), PrincipalId("")) if name in self._directory.tenants else None
        if not is_within(there, caller, far):
            raise Refused(f"there is no tenant {name}", reason="unknown")

    async def _check_batch(self, batch: str, caller: Caller, far: Reach) -> None:
        """A batch is of the tenant that its first entry names, or the house's."""
        if far != "all" and await self._batch_tenant(batch) != caller.identity.tenant:
            raise Refused(f"batch {batch!r:.80}: there is none of this name", reason="unknown")
