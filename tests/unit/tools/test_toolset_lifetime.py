"""Toolsets that outlive runs: a tenant's connection or server, and tools that are not the app's to say."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.ids import RunId
from airside.stack.values import EffectClass, ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.runners import toolset_states
from airside.tools.tool import Tool, ToolContext, Toolset, flatten, tool
from tests.apps import tool_server
from tests.helpers import EXECUTOR, KEY, RUN, SECOND, granted

OTHER = RunId("run_" + "1" * 24)


class Shared:
    """A toolset with the executor's lifetime, whose states are numbered; `now` is what it offers."""

    def __init__(self, *, in_threads: bool = False, effect: EffectClass = "read") -> None:
        self.opened: list[str] = []
        self.closed: list[int] = []
        self.going = asyncio.Event()
        self.going.set()
        self.broken = False

        def opening(context: ToolContext) -> int:
            self.opened.append(context.tenant)
            return len(self.opened)

        async def use(context: ToolContext) -> int:
            await self.going.wait()
            return int(context.state)

        def offers(state: int) -> Iterable[Tool]:
            if self.broken:
                raise ConnectionError("gone")
            return self.now

        self.use = tool(effect=effect)(use)
        self.now: list[Tool] = [self.use]
        self.toolset = Toolset("shared", (self.use,), opening, self.closed.append, lifetime="executor", offers=offers)
        self.dispatcher = Dispatcher(
            [self.toolset], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 10 * SECOND, in_threads=in_threads
        )

    async def run(self, **fields: Any) -> ToolResult:
        """Have the tool called."""
        return await call(self.dispatcher, self.use, **fields)


async def call(dispatcher: Dispatcher, found: Tool, arguments: Any = None, **fields: Any) -> ToolResult:
    """Have a tool called under a grant and a key of its own."""
    given = {"nonce": os.urandom(12), "key": os.urandom(4).hex()} | fields
    return (await dispatcher.execute(granted(found.spec, json.dumps(arguments or {}).encode(), **given))).result


async def test_a_tenants_runs_share_a_state_that_no_other_tenant_meets() -> None:
    shared = Shared()
    found = [
        (await shared.run(tenant=tenant, run_id=run_id)).value()
        for tenant, run_id in [("acme", RUN), ("acme", OTHER), ("globex", RUN)]
    ]
    assert found == [1, 1, 2] and shared.opened == ["acme", "globex"]


async def test_the_end_of_a_run_leaves_a_shared_state_open() -> None:
    shared = Shared()
    await shared.run()
    await shared.dispatcher.release(RUN)
    assert (await shared.run(run_id=OTHER)).value() == 1 and not shared.closed


async def test_a_shared_state_is_closed_once_it_was_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while a call uses it, however long that takes; the next call opens another."""
    shared, states = Shared(), None
    await shared.run()
    states = shared.dispatcher._states
    states._close_idle()
    assert len(states) == 1, "it was used a moment ago"
    monkeypatch.setattr(toolset_states, "IDLE_S", 0.0)
    shared.going.clear()
    using = asyncio.ensure_future(shared.run())
    await asyncio.sleep(0)
    states._close_idle()
    assert len(states) == 1, "a call uses it"
    shared.going.set()
    assert (await using).value() == 1
    states._close_idle()
    await asyncio.gather(*states._closing)
    assert shared.closed == [1] and len(states) == 0
    assert (await shared.run()).value() == 2
    shared.dispatcher.close()


def changed(parameter: str) -> Tool:
    """Return the shared toolset's tool with another parameter."""
    schema = {"type": "object", "properties": {parameter: {"type": "string"}}}
    return Tool.from_schema("use", schema, lambda **_: None, effect="read")


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize(("now", "said"), [([], "offers use no more"), ([changed("x")], "use in another form than")])
async def test_a_tool_that_is_offered_otherwise_than_policy_was_checked_with_is_not_begun(
    now: list[Tool], said: str, in_threads: bool
) -> None:
    """And is called again once it is what it was."""
    shared = Shared(in_threads=in_threads)
    assert (await shared.run()).ok
    shared.now = now
    result = await shared.run()
    assert result.reason_code == "tool_changed" and said in result.error
    shared.now = [shared.use]
    assert (await shared.run()).value() == 1
    shared.dispatcher.close()


@pytest.mark.parametrize(("effect", "reason"), [("read", "tool_changed"), ("write", "tool_unavailable")])
async def test_of_a_later_attempt_of_a_changed_tool_that_changes_something_nothing_is_certain(
    effect: EffectClass, reason: str
) -> None:
    """The run is told only that this attempt did not begin: an earlier one may have."""
    shared = Shared(effect=effect)
    shared.now = []
    assert (await shared.run()).reason_code == "tool_changed"
    assert (await shared.run(attempt=2)).reason_code == reason


async def test_a_toolset_that_does_not_say_what_it_offers_is_opened_anew() -> None:
    """Its state is closed when the last call that uses it is over."""
    shared = Shared()
    shared.going.clear()
    using = asyncio.ensure_future(shared.run())
    await asyncio.sleep(0)
    shared.broken = True
    result = await shared.run()
    assert result.reason_code == "tool_unavailable" and "which tools it offers: ConnectionError: gone" in result.error
    shared.broken = False
    shared.going.set()
    assert (await shared.run(run_id=OTHER)).value() == 2
    assert (await using).value() == 1
    await asyncio.gather(*shared.dispatcher._states._closing)
    assert shared.closed == [1]


async def test_a_lifetime_is_a_runs_or_the_executors() -> None:
    with pytest.raises(InvalidConfig, match=r"toolset s: lifetime 'ever' is not 'run' or 'executor'"):
        flatten([Toolset("s", (changed("x"),), print, lifetime="ever")])  # type: ignore[arg-type]


# A server of tools: a process of its own, which may change what it offers, and die.


class Served:
    """An executor with the tools of `tests/apps/tool_server.py`."""

    def __init__(self) -> None:
        toolset = tool_server.served()
        self.tools = {each.name: each for each in toolset.tools}
        self.dispatcher = Dispatcher([toolset], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 10 * SECOND)

    async def run(self, name: str, *, tenant: str = "acme", run_id: str = RUN, **arguments: Any) -> ToolResult:
        """Have a tool of the server called."""
        return await call(self.dispatcher, self.tools[name], arguments, tenant=tenant, run_id=run_id)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Such an executor, whose servers end with the test."""
    made = Served()
    yield made
    states = list(made.dispatcher._states._states.values())
    for state in states:
        made.dispatcher._states._close_later(state)
    await asyncio.gather(*made.dispatcher._states._closing)
    made.dispatcher.close()


async def test_a_tenants_calls_reach_one_server_over_all_its_runs(served: Served) -> None:
    assert [(await served.run("add", number=n, run_id=run)).value() for n, run in [(2, RUN), (3, OTHER)]] == [2, 5]
    await served.dispatcher.release(RUN)
    (ours, process), (theirs, other) = [
        (await served.run("who", run_id=OTHER, tenant=t)).value() for t in ("acme", "globex")
    ]
    assert (ours, theirs) == ("acme", "globex") and process != other
    assert (await served.run("add", number=1, run_id=OTHER, tenant="globex")).value() == 1


async def test_a_tool_that_a_server_changed_is_not_called_and_its_others_are(served: Served) -> None:
    assert (await served.run("add", number=2)).ok
    assert (await served.run("change", tool="add", argument="send_to")).ok
    result = await served.run("add", number=3)
    assert result.reason_code == "tool_changed"
    assert "toolset server offers add in another form than policy was checked with" in result.error
    assert (await served.run("who")).ok
    assert (await served.run("change", tool="new", argument="x")).ok, (
        "what nobody declared is there, and called by none"
    )


async def test_a_server_that_died_is_started_anew_by_a_later_call(served: Served) -> None:
    (_, before) = (await served.run("who")).value()
    assert (await served.run("die")).reason_code == "tool_failed"
    assert (await served.run("who")).reason_code == "tool_unavailable"
    (_, after) = (await served.run("who")).value()
    assert after != before
