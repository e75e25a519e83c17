"""Calls in doubt: listed from the journal; resolved through the run that waits, or on record if it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from airside.actors.journal.story import ReadableJournal
from airside.actors.rpc.layer import steady_us
from airside.actors.rpc.stubs import RemoteJournal
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId, parse_run, root_of
from airside.stack.journal.stream import read_stream
from airside.stack.operations.messages import Delivery, Order
from airside.stack.recovery.in_doubt import (
    EffectResolved,
    InDoubtCall,
    decode_resolution,
    in_doubt_calls,
    resolution_append,
    resolution_stream,
)
from airside.stack.recovery.rollback import RollbackBook, rollback_stream
from airside.stack.run import events as ev
from airside.stack.values import MAX_REQUEST_BYTES

_ACCEPTED_S = 10.0
"""How long a run may take to put on record what it was told; it writes what is new within half a second."""

_LOOK_S = 0.1
MAX_NOTE_CHARS = 1_000


def list_in_doubt(journal: ReadableJournal, tenant: str | None) -> list[InDoubtCall]:
    """Return what is in doubt and not resolved, of one tenant or of all, oldest first."""
    runs = [row[0] for row in journal.read("doubtful", tenant or "")]
    undone = journal.read("doubtful_rollbacks", tenant or "")
    bodies = journal.bodies([*runs, *(rollback_stream(run) for _, run in undone)])
    found = [doubt for run in runs for doubt in in_doubt_calls(_events(bodies[run]))]
    for whose, run in undone:
        found += RollbackBook(bodies[rollback_stream(run)]).in_doubt_calls(whose, run)
    resolved = journal.bodies([resolution_stream(doubt.key) for doubt in found])
    return sorted((d for d in found if not resolved[resolution_stream(d.key)]), key=lambda d: d.since_us)


def _events(bodies: Sequence[str]) -> list[ev.Event]:
    return [ev.decode_event(body) for body in bodies]


class InDoubtResolver:
    """Resolves calls in doubt, for the driver."""

    def __init__(self, journal: RemoteJournal, bring: Callable[[Delivery], Awaitable[None]]) -> None:
        self._journal = journal
        self._bring = bring

    async def resolve(self, order: Order) -> int:
        """Say what became of a run's call in doubt, or of its undo; return 1 once it is durable.

        Raises `InvalidInput` if the run is in doubt about nothing (or about another call than the one that is named, or
        that it was in doubt about when this began), or was resolved before, and `LayerUnavailable` if nobody took it
        in: then it may be ordered again.
        """
        run_id = parse_run(order.target.partition(":")[0])
        parse_bounded(order.output, max_bytes=MAX_REQUEST_BYTES, where="output")
        meant = order.target
        until = asyncio.get_running_loop().time() + _ACCEPTED_S
        while asyncio.get_running_loop().time() < until:
            events = _events(await self._bodies(run_id))
            if any(isinstance(e, ev.InDoubtResolved) and _is_of(e, order) for e in events):
                return 1
            doubts = in_doubt_calls(events) if events else []
            if not doubts or doubts[0].until_us == 0:
                return await self._record(order, await self._chosen(order, run_id, doubts))
            if meant not in (run_id, doubts[0].key):
                raise InvalidInput(f"{run_id} is in doubt about {doubts[0].key}, not {meant}")
            meant = doubts[0].key  # somebody else may be faster, and the run go on to be in doubt about the next
            await self._bring(Delivery(run_id=run_id, event=ev.encode_event(_resolution(order, doubts[0].step))))
            await asyncio.sleep(_LOOK_S)
        raise LayerUnavailable(f"{run_id} did not take it in within {_ACCEPTED_S:.0f} s: resolve it again")

    async def _chosen(self, order: Order, run_id: RunId, doubts: list[InDoubtCall]) -> InDoubtCall:
        """Return the doubt of an ended run that an order is about: one of its calls, or one of their undos."""
        events = _events(await self._bodies(run_id))
        tenant = events[0].identity.tenant if events and isinstance(events[0], ev.RunSubmitted) else TenantId("")
        root = root_of(run_id)  # whose rollback has the undos of its branches too
        doubts = doubts + RollbackBook(await self._bodies(rollback_stream(root))).in_doubt_calls(tenant, root)
        meant = [doubt for doubt in doubts if order.target in (doubt.run_id, doubt.key)]
        if not meant:
            raise InvalidInput(f"{order.target} is in doubt about nothing")
        unresolved = [doubt for doubt in meant if not await self._bodies(resolution_stream(doubt.key))]
        if len(unresolved) > 1:
            keys = ", ".join(doubt.key for doubt in unresolved)
            raise InvalidInput(f"{run_id} is in doubt about several calls: say which of {keys}")
        return (unresolved or meant)[0]

    async def _bodies(self, stream: str) -> list[str]:
        return await read_stream(self._journal, stream)

    async def _record(self, order: Order, doubt: InDoubtCall) -> int:
        """Put on record what became of a call whose run has ended."""
        resolved = EffectResolved(
            at_us=order.at_us,
            run_id=doubt.run_id,
            step=doubt.step,
            key=doubt.key,
            by=PrincipalId(order.by),
            happened=order.happened,
            output=msgspec.Raw(order.output),
            note=order.why[:MAX_NOTE_CHARS],
        )
        reply = await self._journal.append(resolution_append(resolved, doubt.tenant))
        if reply.verdict == "error":
            raise InvalidInput(f"the resolution of {doubt.key} {reply.detail}")
        if reply.verdict != "ok":
            before = decode_resolution((await self._bodies(resolution_stream(doubt.key)))[0])
            raise InvalidInput(f"{before}; what is on record stays")
        return 1


def _resolution(order: Order, step: int) -> ev.InDoubtResolved:
    return ev.InDoubtResolved(
        step=step,
        by=PrincipalId(order.by),
        happened=order.happened,
        output=msgspec.Raw(order.output),
        ordered_us=order.at_us,
        note=order.why[:MAX_NOTE_CHARS],
        at_us=steady_us(),
    )


def _is_of(event: ev.InDoubtResolved, order: Order) -> bool:
    """Whether an event is what an order came to; those from before orders were named have its time as their own."""
    return (event.by, event.ordered_us or event.at_us) == (order.by, order.at_us)
