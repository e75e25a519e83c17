"""The `Tools` port, in one process."""

from __future__ import annotations

from collections.abc import Callable

from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.ids import ExecutorId, RunId
from airside.tools.dispatch import Dispatcher


class InMemoryTools:
    """One dispatcher, which `restart` replaces by another incarnation."""

    def __init__(self, make: Callable[[], Dispatcher]) -> None:
        self._make = make
        self.dispatcher = make()

    def restart(self) -> None:
        """Lose the present incarnation, as a crash does: its grants are void from here."""
        self.dispatcher = self._make()

    async def executor_for(self, run_id: RunId) -> ExecutorId:
        """Return the present incarnation."""
        return self.dispatcher.grants.executor_id

    async def execute(self, run_id: RunId, request: ExecuteRequest) -> ExecuteReply:
        """Carry out a call."""
        return await self.dispatcher.execute(request)

    async def answer_of(self, run_id: RunId, grant: bytes) -> ExecuteReply | None:
        """Return what a call came to."""
        return await self.dispatcher.answer_of(grant)

    async def release(self, run_id: RunId) -> None:
        """Close what the run holds."""
        await self.dispatcher.release(run_id)
