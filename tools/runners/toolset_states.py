"""`ToolsetStates`: the states of toolsets, one for each run: opened at its first call, closed when the run is over.

A state belongs to the loop it was opened on, or where a coroutine of its tools first ran.  If that loop is lost so is
the state: the next call opens another, and the old one is closed where it is, if its loop turns again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from airside.stack.ids import RunId, TenantId
from airside.tools.runners.jobs import ToolJob
from airside.tools.runners.running import Runners
from airside.tools.runners.tool_loop import Place
from airside.tools.tool import ToolContext, Toolset

CLOSE_S = 10.0
"""How long closing a state may take before it is no longer waited for."""


@dataclass(eq=False, slots=True, kw_only=True)
class ToolsetState(Place):
    """A run's state of a toolset."""

    tenant: TenantId
    value: Any = None


class ToolsetStates:
    """The states an executor holds."""

    def __init__(self, toolsets: Mapping[str, Toolset], runners: Runners) -> None:
        self._toolsets = toolsets
        self._runners = runners
        self._states: dict[tuple[str, RunId], ToolsetState] = {}
        self._opening: dict[tuple[str, RunId], asyncio.Lock] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._states)

    async def of(self, name: str, context: ToolContext) -> ToolsetState:
        """Return a run's state of a toolset; opens it if need be, and raises what that does."""
        key = (name, context.run_id)
        if self._present(key) is None:
            async with self._opening.setdefault(key, asyncio.Lock()):
                if self._present(key) is None:
                    self._states[key] = await self._open(self._toolsets[name], context)
            self._opening.pop(key, None)
        return self._states[key]

    def _present(self, key: tuple[str, RunId]) -> ToolsetState | None:
        state = self._states.get(key)
        if state is None or not state.is_lost:
            return state
        self._close_later(key)
        return None

    async def _open(self, toolset: Toolset, context: ToolContext) -> ToolsetState:
        state = ToolsetState(tenant=context.tenant)
        job = ToolJob(
            name=f"open of toolset {toolset.name}",
            tenant=context.tenant,
            run_id=context.run_id,
            function=partial(toolset.open, context),
            place=state,
        )
        try:
            state.value = await self._runners.shared(job.function).run(job)
        except BaseException:
            state.bind(None)
            raise
        return state

    async def release(self, run_id: RunId) -> None:
        """Close the states of a run that is over; one whose loop is held is closed when that turns."""
        for key in [key for key, lock in self._opening.items() if key[1] == run_id and not lock.locked()]:
            del self._opening[key]
        for key in [key for key in self._states if key[1] == run_id]:
            loop = self._states[key].loop
            if loop is not None and loop.is_held:
                self._close_later(key)
            else:
                await self._close(key, self._states.pop(key), CLOSE_S)

    def _close_later(self, key: tuple[str, RunId]) -> None:
        task = asyncio.ensure_future(self._close(key, self._states.pop(key), None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, key: tuple[str, RunId], state: ToolsetState, seconds: float | None) -> None:
        name, run_id = key
        job = ToolJob(
            name=f"close of toolset {name}",
            tenant=state.tenant,
            run_id=run_id,
            function=partial(self._toolsets[name].close, state.value),
            place=state,
        )
        # A state that cannot be closed is the toolset's problem, not the finished run's.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(seconds):
                await self._runners.shared(job.function).run(job)
        state.bind(None)
