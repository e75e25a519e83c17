"""What a run offers memory.  Nobody waits for the answers before the run concludes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec import Raw

from airside.stack.contracts.memory import Candidate, Warrant, sensitivity_of
from airside.stack.ports import Memory
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.state import RunState
from airside.stack.values import UNTRUSTED, Trust


class MemoryWriter:
    """One activation's candidates that are under way."""

    def __init__(self, memory: Memory | None, state: RunState, warrant: Warrant, now_us: Callable[[], int]) -> None:
        self._memory = memory
        self._state = state
        self._warrant = warrant
        self._now_us = now_us
        self._under_way: list[asyncio.Task[ev.MemoryLearned]] = []

    def begin(self, i: do.Learn, *, from_outside: bool = False) -> None:
        """Offer a candidate; one from outside, or of a run that read what an outsider wrote, is trusted little."""
        if self._memory is not None and i.text:
            trust: Trust = "low" if from_outside or UNTRUSTED in self._state.labels else "medium"
            self._under_way.append(asyncio.ensure_future(self._learned(self._memory, i, trust)))

    async def next_learned(self) -> ev.MemoryLearned | None:
        """Wait for the oldest answer that is due, None if none is; a wait that is cancelled ends no learning."""
        if not self._under_way:
            return None
        learned = await asyncio.shield(self._under_way[0])
        self._under_way.pop(0)
        return learned

    async def _learned(self, memory: Memory, i: do.Learn, trust: Trust) -> ev.MemoryLearned:
        submitted = self._state.submitted
        candidate = Candidate(
            tenant=submitted.identity.tenant,
            text=i.text,
            kind=i.kind,
            source=f"{submitted.run_id}#{i.step if i.source_step is None else i.source_step}",
            sensitivity=sensitivity_of(self._state.labels),
            trust=trust,
            subject=i.subject,
            confidence=i.confidence,
            warrant=self._warrant,
            shown=self._state.shown,
        )
        try:
            reply = await memory.write_if_useful(candidate)
            code, record_id = reply.code, reply.record_id
        except Exception:
            # The run is over and its answer stands; what memory could not take is in the journal as such.
            code, record_id = ReasonCode.MEMORY_UNAVAILABLE, ""
        return ev.MemoryLearned(step=i.step, record_id=record_id, code=code, at_us=self._now_us(), cause=i.cause)


def as_text(output: Raw) -> str:
    """Return a tool's output as the text memory is offered: a string as it is, anything else as its JSON."""
    value = msgspec.json.decode(output)
    return value if isinstance(value, str) else bytes(output).decode()
