"""`ToolRunner`: the contract of what carries out tools' code, and what it may raise beside what the tool does."""

from __future__ import annotations

from typing import Any, Protocol

from airside.stack.values import SandboxLevel
from airside.tools.runners.jobs import ToolCall


class ToolRunner(Protocol):
    """One way in which a tool's code runs: in a thread, on an event loop, in a process.

    The dispatcher has validated what it hands over: the grant, its key's claim, the arguments' schema.  A runner knows
    of none of that.  It guarantees:

    1. `job.begin()` is called where nothing can come between it and the start.  What it raises is raised, and then
       nothing was started.
    2. `job.over()` is called when the job's code is done or will never begin.  That may be later than `run` ends, of
       code that cannot be stopped.
    3. A caller that is cancelled (at the deadline, or because the run is over) has the code stopped, if it can be, and
       the cancellation is raised once it is, or one of the errors that say why not.
    4. What is returned is plain: an output went through `job.finish` where the tool's own methods may run.
    5. While it waits for a place, it is within what `job.waiting()` makes; tenants take turns.

    It raises what the job's code does, as `ToolError` (nothing was changed), `InDoubt`, or of anything else an error
    that holds its text alone; and what `airside.tools.runners.outcomes` has.
    """

    on_timeout: str
    """What is said, after that it did not answer, of a call whose time is over; "" if nothing is known."""

    @property
    def level(self) -> SandboxLevel | None:
        """The level of sandboxes it reaches, once that is known; None of one that makes none."""

    async def ready(self) -> None:
        """Be able to start a job: what that takes is not the job's time.  Never raises; `run` says what is wrong."""

    async def run(self, job: ToolCall) -> Any:
        """Carry out one job, and return what it finished with."""

    def close(self) -> None:
        """End what it holds, and what runs there as far as that can be ended."""
