"""Spend in doubt: listed from the journal, and put on record when somebody has found out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from airside.actors.journal.story import ReadableJournal
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.stubs import RemoteJournal
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import TenantId
from airside.stack.journal.stream import read_stream
from airside.stack.models.events import read_events
from airside.stack.models.spans import run_of_stream
from airside.stack.operations.messages import Order
from airside.stack.recovery.spend_in_doubt import (
    Attempt,
    SpendInDoubt,
    counted_at,
    open_spend,
    parse_spend_key,
    resolved_spend,
    seal_spend,
    spend_append,
    spend_in_doubt,
    spend_stream,
)
from airside.stack.run.events import RunSubmitted, decode_event
from airside.stack.values import Spend


class _Decision(NamedTuple):
    """Whose a decision's questions are."""

    attempt: Attempt
    tenant: TenantId


def list_spend_in_doubt(journal: ReadableJournal, tenant: str | None) -> list[SpendInDoubt]:
    """Return the attempts of which nobody knows what they cost, of one tenant or of all, oldest first."""
    decisions = [_decision(stream, whose) for stream, whose in journal.read("spend_doubtful", tenant or "")]
    bodies = journal.bodies([each.attempt.stream for each in decisions])
    now = now_us()
    found = [
        doubt
        for each in decisions
        for doubt in spend_in_doubt(each.attempt, each.tenant, read_events(bodies[each.attempt.stream]), now_us=now)
    ]
    resolved = journal.bodies([spend_stream(doubt.key) for doubt in found])
    return sorted((d for d in found if not resolved[spend_stream(d.key)]), key=lambda d: (d.since_us, d.key))


def _decision(stream: str, tenant: str) -> _Decision:
    step = int(stream.rpartition(":")[2])
    return _Decision(Attempt(run_of_stream(stream), step, 0), TenantId(tenant))


class SpendResolver:
    """Puts on record what attempts cost, for the driver; `recount` has the gate take it in."""

    def __init__(self, journal: RemoteJournal, seal_key: bytes, recount: Callable[[], Awaitable[None]]) -> None:
        self._journal = journal
        self._seal_key = seal_key
        self._recount = recount

    async def resolve(self, order: Order) -> int:
        """Say what an attempt cost; return 1 once it is durable and the gate counts so.

        Raises `InvalidInput` if nothing is in doubt there, its run has not ended, or somebody else said it before; and
        `LayerUnavailable` if the gate could not be told: it counts so from its next start.
        """
        attempt = parse_spend_key(order.target)
        events = [decode_event(body) for body in await read_stream(self._journal, attempt.run_id)]
        if not events or not isinstance(events[0], RunSubmitted):
            raise InvalidInput(f"the journal has no run {attempt.run_id}")
        tenant = events[0].identity.tenant
        asked = read_events(await read_stream(self._journal, attempt.stream))
        doubts = spend_in_doubt(attempt, tenant, asked, now_us=now_us())
        doubt = next((each for each in doubts if each.attempt == attempt.number), None)
        if doubt is None:
            raise InvalidInput(f"{order.target}: nothing of what it cost is in doubt")
        tokens = doubt.reserved.tokens if order.tokens is None else order.tokens
        resolved = resolved_spend(
            doubt,
            Spend(tokens=tokens, cost_microusd=order.cost_microusd),
            by=order.by,
            at_us=order.at_us,
            counted_us=counted_at(events, doubt),
            note=order.why,
        )
        reply = await self._journal.append(spend_append(seal_spend(self._seal_key, resolved, tenant), tenant))
        if reply.verdict == "error":
            raise InvalidInput(f"what {doubt.key} cost {reply.detail}")
        if reply.verdict != "ok":
            (body, *_) = await read_stream(self._journal, spend_stream(doubt.key))
            before = open_spend(self._seal_key, body, tenant)
            if before is None:
                text = "what is on record there is not sealed by the driver, so it counts for nothing"
                raise InvalidInput(f"{doubt.key}: {text}")
            raise InvalidInput(f"{before}; what is on record stays")
        try:
            await self._recount()
        except LayerUnavailable as error:
            text = f"{doubt.key}: on record, so it counts from the gate's next start; but the gate was not told"
            raise LayerUnavailable(f"{text}: {error.message}") from None
        return 1
