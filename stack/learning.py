"""What a run offers memory.  Nobody waits for the answers before the run concludes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from airside.stack import events as ev
from airside.stack import instructions as do
from airside.stack.ports import Candidate, Memory
from airside.stack.reasons import ReasonCode
from airside.stack.state import RunState
from airside.stack.values import CLEARANCES, Clearance


class Learning:
    """One activation's candidates that are under way."""

    def __init__(self, memory: Memory | None, state: RunState, now_us: Callable[[], int]) -> None:
        self._memory = memory
        self._state = state
        self._now_us = now_us
        self._under_way: list[asyncio.Task[ev.MemoryLearned]] = []

    def begin(self, i: do.Learn) -> None:
        """Offer a candidate."""
        if self._memory is not None and i.text:
            self._under_way.append(asyncio.ensure_future(self._learned(self._memory, i)))

    async def next_learned(self) -> ev.MemoryLearned | None:
        """Wait for the oldest answer that is due, None if none is; a wait that is cancelled ends no learning."""
        if not self._under_way:
            return None
        learned = await asyncio.shield(self._under_way[0])
        self._under_way.pop(0)
        return learned

    async def _learned(self, memory: Memory, i: do.Learn) -> ev.MemoryLearned:
        submitted = self._state.submitted
        candidate = Candidate(
            tenant=submitted.identity.tenant,
            text=i.text,
            kind=i.kind,
            source=f"{submitted.run_id}#{i.step}",
            sensitivity=self._sensitivity(),
        )
        try:
            reply = await memory.write_if_useful(candidate)
            code, record_id = reply.code, reply.record_id
        except Exception:
            # The run is over and its answer stands; what memory could not take is in the journal as such.
            code, record_id = ReasonCode.MEMORY_UNAVAILABLE, ""
        return ev.MemoryLearned(step=i.step, record_id=record_id, code=code, at_us=self._now_us(), cause=i.cause)

    def _sensitivity(self) -> Clearance:
        """Return the highest sensitivity the run has read: what it learned is as sensitive as that."""
        return next((level for level in reversed(CLEARANCES) if level in self._state.labels), "internal")
