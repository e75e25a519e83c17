"""`ToolsetStates`: the states of toolsets, opened at the first call.

A run's are closed when it is over.  Those that have the executor's lifetime are a tenant's, so that no tenant meets
what another one left there; they are closed when they were idle for long: a tenant that comes no more holds nothing.

A state belongs to the loop it was opened on, or where a coroutine of its tools first ran.  If that loop is lost so is
the state: the next call opens another, and the old one is closed where it is, if its loop turns again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from airside.stack.ids import RunId, TenantId
from airside.tools.runners.jobs import ToolJob
from airside.tools.runners.outcomes import NotStarted, ToolChanged, ToolQuarantined
from airside.tools.runners.running import Runners
from airside.tools.runners.tenant_secrets import TenantSecrets
from airside.tools.runners.tool_loop import Place
from airside.tools.secrets.redaction import Redactor
from airside.tools.tool import Tool, ToolContext, Toolset

CLOSE_S = 10.0
"""How long closing a state may take before it is no longer waited for."""

IDLE_S = 300.0
"""After so long without a call a state that outlives runs is closed: about what a server keeps a connection for."""

_Key = tuple[str, TenantId, RunId | None]


@dataclass(eq=False, slots=True, kw_only=True)
class ToolsetState(Place):
    """One state of a toolset, and how many calls use it; a broken one gets no more, and is closed after the last."""

    toolset: Toolset
    key: _Key
    value: Any = None
    calls: int = 0
    idle_since_s: float = 0.0
    is_broken: bool = False
    is_closed: bool = False

    def check_offer(self, found: Tool, redactor: Callable[[], Redactor]) -> None:
        """Raise `ToolChanged` unless the toolset offers this very tool at present, `NotStarted` if it does not say.

        Runs the tools' own code, which may raise `ToolQuarantined` itself.
        """
        try:
            offers = self.toolset.offers
            now = None if offers is None else {each.name: each.spec.version for each in offers(self.value)}
        except ToolQuarantined as error:
            self.is_broken = True
            broken: ToolQuarantined | NotStarted = ToolQuarantined(error.message)
        except BaseException as error:
            self.is_broken = True
            broken = NotStarted(
                f"toolset {self.toolset.name} does not say which tools it offers: {redactor().error(error)}"
            )
        else:
            if now is None or now.get(found.name) == found.spec.version:
                return
            how = "in another form than policy was checked with" if found.name in now else "no more"
            advice = "read what it offers, and start the stack with that"
            raise ToolChanged(f"toolset {self.toolset.name} offers {found.name} {how}: {advice}")
        raise broken  # outside, so that it does not hold on to the tools' error


class ToolsetStates:
    """The states an executor holds."""

    def __init__(self, toolsets: Mapping[str, Toolset], runners: Runners, secrets: TenantSecrets) -> None:
        self._toolsets = toolsets
        self._secrets = secrets
        self._runners = runners
        self._states: dict[_Key, ToolsetState] = {}
        self._opening: dict[_Key, asyncio.Lock] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._states)

    async def enter(self, name: str, context: ToolContext) -> ToolsetState:
        """Return the state of a toolset for a call, which leaves it; opens it if need be, and raises what that does."""
        toolset = self._toolsets[name]
        key = (name, context.tenant, context.run_id if toolset.lifetime == "run" else None)
        if self._present(key) is None:
            async with self._opening.setdefault(key, asyncio.Lock()):
                if self._present(key) is None:
                    self._states[key] = await self._open(toolset, key, context)
            self._opening.pop(key, None)
        state = self._states[key]
        state.calls += 1
        return state

    def leave(self, state: ToolsetState) -> None:
        """Know a call that used a state as over."""
        state.calls -= 1
        if state.is_broken and state.calls == 0:
            self._close_later(state)
        elif state.toolset.lifetime == "executor":
            state.idle_since_s = asyncio.get_running_loop().time()
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        """Close what outlives runs and was idle for long; look again as long as there is any."""
        now_s, left = asyncio.get_running_loop().time(), False
        for state in [state for key, state in self._states.items() if key[2] is None]:
            if state.calls == 0 and now_s - state.idle_since_s >= IDLE_S:
                self._close_later(state)
            else:
                left = True
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._close_idle) if left else None

    def close(self) -> None:
        """Look for idle states no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _present(self, key: _Key) -> ToolsetState | None:
        state = self._states.get(key)
        if state is not None and state.is_lost:
            self._close_later(state)
        elif state is None or not state.is_broken:
            return state
        return None

    async def _open(self, toolset: Toolset, key: _Key, context: ToolContext) -> ToolsetState:
        state = ToolsetState(toolset=toolset, key=key)
        given = await self._secrets.of(context.tenant, toolset.secrets, context.deadline_s)
        context = replace(context, secrets=given)
        job = ToolJob(
            redactor=self._secrets.redactor_of(context.tenant),
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
        for key in [key for key, lock in self._opening.items() if key[2] == run_id and not lock.locked()]:
            del self._opening[key]
        for state in [state for key, state in self._states.items() if key[2] == run_id]:
            if state.loop is not None and state.loop.is_held:
                self._close_later(state)
            else:
                self._forget(state)
                await self._close(state, CLOSE_S)

    def _forget(self, state: ToolsetState) -> None:
        if self._states.get(state.key) is state:
            del self._states[state.key]

    def _close_later(self, state: ToolsetState) -> None:
        self._forget(state)
        task = asyncio.ensure_future(self._close(state, None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, state: ToolsetState, seconds: float | None) -> None:
        if state.is_closed:
            return
        state.is_closed = True
        name, tenant, run_id = state.key
        job = ToolJob(
            name=f"close of toolset {name}",
            tenant=tenant,
            run_id=run_id or RunId("no run"),
            function=partial(state.toolset.close, state.value),
            place=state,
        )
        # A state that cannot be closed is the toolset's problem, not the finished run's.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(seconds):
                await self._runners.shared(job.function).run(job)
        state.bind(None)
