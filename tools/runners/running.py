"""`Runners`: the ways in which an executor runs tools' code, and which of them is a tool's.

The declaration picks: `sandbox=True` a sandbox, `process=True` a process of its own, `async def` an event loop, and
anything else a thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from airside.tools.runners.fair_slots import FairSlots
from airside.tools.runners.inline import InlineRunner
from airside.tools.runners.processes import ProcessRunner
from airside.tools.runners.runner import ToolRunner
from airside.tools.runners.sandbox import SandboxRunner
from airside.tools.runners.threads import ThreadRunner
from airside.tools.runners.tool_loops import ToolLoops
from airside.tools.tool import Tool

PLACES = 32
"""Calls at work in threads and in processes of their own, together: enough that a slow one does not hold up the others.
Tenants take turns (`FairSlots`)."""

Shared = InlineRunner | ThreadRunner | ToolLoops
"""What runs code in the executor's process: that of toolsets, too."""


class Runners:
    """The runners of one executor; without threads all but processes are where they are called."""

    def __init__(self, tools: Mapping[str, Tool], *, in_threads: bool) -> None:
        self.slots = FairSlots(PLACES)
        self.loops = ToolLoops()
        self._processes = ProcessRunner(tools, self.slots)
        self._sandboxes = SandboxRunner(tools, self.slots)
        self._plain: Shared = ThreadRunner(self.slots, PLACES, self.loops) if in_threads else InlineRunner()
        self._coroutines: Shared = self.loops if in_threads else self._plain

    def of(self, tool: Tool) -> ToolRunner:
        """Return what carries out a tool's calls."""
        return self._apart(tool) or self.shared(tool.function)

    def asking(self, tool: Tool) -> ToolRunner:
        """Return what asks a tool what became of a key, which may be another kind of function."""
        return self._apart(tool) or self.shared(tool.reconcile or tool.function)

    def _apart(self, tool: Tool) -> ToolRunner | None:
        """Return what runs a tool's code outside the executor's process, None if it does not."""
        if tool.sandbox is not None:
            return self._sandboxes
        return None if tool.process is None else self._processes

    def shared(self, function: Callable[..., Any]) -> Shared:
        """Return what runs a function in the executor's process."""
        return self._coroutines if inspect.iscoroutinefunction(function) else self._plain

    def close(self) -> None:
        """End the processes and event loops of tools."""
        for runner in (self._sandboxes, self._processes, self._plain, self.loops):
            runner.close()
