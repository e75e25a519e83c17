"""What a run was shown of memory, and where the values of its calls come from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from airside.stack.contracts.memory import Recalled, RecallReply, RecallRequest, Warrant, labels_of
from airside.stack.errors import LayerUnavailable
from airside.stack.ports import Memory
from airside.stack.provenance.tracer import Tracer
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import StepRecord
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Action, ValueOrigin


class RunTracer:
    """One activation's.  `recalled` = the records that the present decision is made with."""

    __slots__ = (
        "_machine",
        "_memory",
        "_now_us",
        "_present",
        "_recalled_for",
        "_remembered",
        "_specs",
        "_turn",
        "_warrant",
        "recalled",
    )

    def __init__(
        self,
        memory: Memory | None,
        machine: RunMachine,
        specs: Sequence[ToolSpec],
        warrant: Warrant,
        now_us: Callable[[], int],
    ) -> None:
        self.recalled: tuple[Recalled, ...] = ()
        self._memory = memory
        self._machine = machine
        self._specs = specs
        self._warrant = warrant
        self._now_us = now_us
        self._remembered: tuple[Recalled, ...] = ()
        self._recalled_for = 0
        self._present: Tracer | None = None
        self._turn: asyncio.Lock | None = None

    async def recall(self, i: do.Recall) -> ev.Event:
        """Retrieve what is relevant to a step."""
        reply = await self._retrieved(i.query)
        now = self._now_us()
        if reply.error:
            return ev.RecallFailed(step=i.step, error=reply.error, at_us=now, cause=i.cause)
        self.recalled, self._recalled_for = reply.records, i.step
        self._remember(reply.records)
        return ev.MemoryRecalled(
            step=i.step,
            records=tuple((r.record_id, round(r.score, 4)) for r in reply.records),
            labels=labels_of(reply.records),
            met=tuple(r.met for r in reply.records),
            at_us=now,
            cause=i.cause,
        )

    async def origins(self, action: Action, ahead: Sequence[StepRecord] = ()) -> tuple[ValueOrigin, ...]:
        """Trace the values of a call; of calls side by side one after the other, and others have their turn between."""
        if self._turn is None:
            return await self._traced(action, ahead)
        async with self._turn:
            origins = await self._traced(action, ahead)
            await asyncio.sleep(0)
        return origins

    async def _traced(self, action: Action, ahead: Sequence[StepRecord]) -> tuple[ValueOrigin, ...]:
        await self._remember_again()
        if self._present is None:
            self._present = Tracer(self._machine.state.submitted, self._specs)
            if self._remembered:
                self._present.remember(self._remembered)
        return self._present.trace(action.tool, action.arguments, self._machine.state, ahead)

    def begin_side_by_side(self) -> None:
        """Take in that several calls are under way at once."""
        self._turn = asyncio.Lock()

    def end_side_by_side(self) -> None:
        """Take in that they are no more."""
        self._turn = None

    def rest(self) -> None:
        """Hold no texts in pieces: whoever the run waits for may take days, and none is needed to be made again."""
        self._present = None

    async def _retrieved(self, query: str) -> RecallReply:
        """Return what memory answers, which is why it does not if it is away."""
        identity = self._machine.state.submitted.identity
        assert self._memory is not None
        request = RecallRequest(
            tenant=identity.tenant, query=query, clearance=identity.clearance, warrant=self._warrant
        )
        try:
            return await self._memory.retrieve(request)
        except LayerUnavailable as failure:
            return RecallReply(error=failure.message or "memory is away")

    def _remember(self, records: tuple[Recalled, ...]) -> None:
        """Have values traced to records that the agent is shown, or was."""
        if records:
            self._remembered += records
            if self._present is not None:
                self._present.remember(records)

    async def _remember_again(self) -> None:
        """Retrieve what the present decision was made with, if an earlier activation recalled it.

        Only records that the run was shown then: what came to be since, or is not found any more, vouches for nothing.
        """
        s = self._machine.state
        if self._recalled_for == s.base or self._memory is None:
            return
        shown: set[str] = set()
        for event in reversed(self._machine.events):
            if isinstance(event, ev.MemoryRecalled) and event.step == s.base:
                shown = {record_id for record_id, _ in event.records}
            if isinstance(event, ev.MemoryRecalled | ev.RoutePlanned) and event.step <= s.base:
                break
        if shown and s.visit is not None and s.visit.query is not None:
            reply = await self._retrieved(s.visit.query)
            if reply.error:
                return  # what cannot be traced is asked about
            self._remember(tuple(each for each in reply.records if each.record_id in shown))
        self._recalled_for = s.base
