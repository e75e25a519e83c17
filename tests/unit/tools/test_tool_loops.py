"""A tool's coroutine that holds its event loop takes nobody along, is named with its line, and is not sent again."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from airside.stack.contracts.memory import Candidate, LearnReply
from airside.stack.cycle.output_source import current_source
from airside.stack.ids import TenantId
from airside.stack.policy.kill_switches import KillSwitchChanged, KillSwitches
from airside.stack.reasons import MemoryCode
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.runners import tool_loop, tool_loops, toolset_states
from airside.tools.runners.jobs import ToolJob
from airside.tools.tool import NOT_DONE, Tool, ToolContext, Toolset, tool
from tests.helpers import EXECUTOR, KEY, RUN, SECOND, granted

OTHER = TenantId("globex")


class Bench:
    """A dispatcher with loops, and a tool that blocks in `async def` until the test lets it go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.calls: list[str] = []
        self._made: list[Dispatcher] = []
        self._nonce = 0
        self.hold = self.tool(self.block)

    def block(self) -> str:
        """Block the thread it is called in, in whatever code that is."""
        self.calls.append("hold")
        self.entered.release()
        self.go_on.wait()
        return "held"

    def tool(self, plain: Callable[[], Any], name: str = "hold", effect: str = "write", **options: Any) -> Tool:
        """Return a coroutine tool that does what `plain` does."""

        async def coroutine() -> Any:
            return plain()

        return Tool.from_schema(name, {"type": "object"}, coroutine, effect=effect, **options)  # type: ignore[arg-type]

    def made(self, *tools: Tool | Toolset, **options: Any) -> Dispatcher:
        """Return a dispatcher, which is closed at the end."""
        made = Dispatcher(tools, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: SECOND, in_threads=True, **options)
        self._made.append(made)
        return made

    def run(self, dispatcher: Dispatcher, what: Tool, **fields: Any) -> asyncio.Task[ToolResult]:
        """Begin a call."""
        self._nonce += 1
        given = {"nonce": self._nonce.to_bytes(12, "big"), "key": f"k{self._nonce}", "timeout_ms": 60_000} | fields

        async def result() -> ToolResult:
            return (await dispatcher.execute(granted(what.spec, **given))).result

        return asyncio.ensure_future(result())

    async def held(self, dispatcher: Dispatcher, what: Tool | None = None, **fields: Any) -> asyncio.Task[ToolResult]:
        """Begin a call that holds its loop, and return when it does."""
        call = self.run(dispatcher, what or self.hold, **fields)
        await asyncio.to_thread(self.entered.acquire)
        return call

    def end(self, dispatcher: Dispatcher) -> None:
        """Have the time of the call that began first be over, whatever the clock says."""
        first = next(iter(dispatcher._deadlines[RUN]))
        first.reschedule(asyncio.get_running_loop().time())

    async def overdue(self, dispatcher: Dispatcher, what: Tool | None = None, **fields: Any) -> ToolResult:
        """Return the result of a call that holds its loop until its time is over."""
        call = await self.held(dispatcher, what, **fields)
        self.end(dispatcher)
        return await call

    async def close(self) -> None:
        """Let everything go."""
        self.go_on.set()
        for made in self._made:
            threads = [loop.thread for loop in made._runners.loops._all]
            made.close()
            for thread in threads:
                await asyncio.to_thread(thread.join)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A bench whose loops are looked at often."""
    monkeypatch.setattr(tool_loops, "WATCH_S", 0.05)
    made = Bench()
    yield made
    await made.close()


def noting(bench: Bench, name: str = "note", effect: str = "write") -> Tool:
    """Return a coroutine tool that ends at once."""
    return bench.tool(lambda: bench.calls.append(name), name, effect)


# Who suffers.


def in_a_coroutine(bench: Bench) -> list[Tool | Toolset]:
    """Block as people do: a driver, `requests`, `time.sleep`."""
    return [bench.hold]


def behind_a_plain_function(bench: Bench) -> list[Tool | Toolset]:
    """Block in a coroutine that a plain function gave."""
    return [Tool.from_schema("hold", {"type": "object"}, lambda: bench.hold.function(), effect="write")]


def in_a_task(bench: Bench) -> list[Tool | Toolset]:
    """Block in a task that the tool made."""

    async def hold() -> Any:
        return await asyncio.gather(asyncio.create_task(bench.hold.function()))

    return [tool(effect="write")(hold)]


def in_a_callback(bench: Bench) -> list[Tool | Toolset]:
    """Block in a callback that the tool had called."""

    async def hold() -> None:
        asyncio.get_running_loop().call_soon(bench.block)
        await asyncio.Event().wait()

    return [tool(effect="write")(hold)]


def in_the_text_of_an_error(bench: Bench) -> list[Tool | Toolset]:
    """Block where an error is made a text."""

    class Slow(Exception):
        def __str__(self) -> str:
            return bench.block()

    async def hold() -> None:
        raise Slow

    return [tool(effect="write")(hold)]


def in_the_output(bench: Bench) -> list[Tool | Toolset]:
    """Block where an output is looked through."""

    class Slow:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            bench.block()
            return dict

    return [bench.tool(lambda: [Slow()])]


def in_a_conversion(bench: Bench) -> list[Tool | Toolset]:
    """Block where arguments are converted."""

    async def hold() -> None: ...

    made = tool(effect="write")(hold)
    return [replace(made, convert=lambda arguments: bench.block() and arguments)]


def in_opening_a_toolset(bench: Bench) -> list[Tool | Toolset]:
    """Block where a toolset is opened."""

    async def opening(context: ToolContext) -> None:
        bench.block()

    return [Toolset("set", (noting(bench, "hold"),), opening)]


def in_reconcile(bench: Bench) -> list[Tool | Toolset]:
    """Block where a tool is asked what became of a key."""

    async def ask(context: ToolContext) -> Any:
        bench.block()
        return NOT_DONE

    return [bench.tool(lambda: None, reconcile=ask)]


WAYS = [
    in_a_coroutine,
    behind_a_plain_function,
    in_a_task,
    in_a_callback,
    in_the_text_of_an_error,
    in_the_output,
    in_a_conversion,
    in_opening_a_toolset,
    in_reconcile,
]


@pytest.mark.parametrize("way", WAYS)
async def test_wherever_a_tool_blocks_the_calls_of_others_go_on(bench: Bench, way: Any) -> None:
    """And the call that does ends at its deadline, with its tool and the line."""
    tools, note = way(bench), noting(bench)
    dispatcher = bench.made(*tools, note)
    hold = dispatcher._tools["hold"]
    call = await bench.held(dispatcher, hold, attempt=2)
    assert [(await bench.run(dispatcher, note, tenant=OTHER)).ok for _ in range(3)] == [True] * 3
    assert bench.calls.count("note") == 3 and not call.done()
    bench.end(dispatcher)
    result = await call
    assert (result.ok, result.reason_code) == (False, "tool_timeout")
    assert "hold" in result.error and "test_tool_loops.py:" in result.error
    assert result.held or way is in_a_callback


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_the_call_that_held_its_loop_is_named_with_its_line_and_marked(bench: Bench, effect: str) -> None:
    hold = bench.tool(bench.block, effect=effect)
    result = await bench.overdue(bench.made(hold), hold)
    line = inspect.getsourcelines(Bench.block)[1] + 4
    assert f"hold held its event loop at {__file__}:{line} in block: make it a plain def" in result.error
    assert (result.reason_code, result.held) == ("tool_timeout", True)


async def test_a_call_that_blocks_and_returns_in_its_time_has_succeeded(bench: Bench) -> None:
    dispatcher = bench.made(bench.hold)
    call = await bench.held(dispatcher)
    await until(lambda: dispatcher.stats()["held_loops"] == 1)
    bench.go_on.set()
    assert (await call).value() == "held"
    await until(lambda: dispatcher.stats()["held_loops"] == 0)


BOUND_S = 60.0
"""Longest wait for anything; several times what it takes on a busy machine."""


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds, and fail if it does not."""
    async with asyncio.timeout(BOUND_S):
        while not holds():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)


async def test_a_tenants_own_calls_that_have_not_begun_go_to_another_loop(bench: Bench) -> None:
    note = noting(bench)
    dispatcher = bench.made(bench.hold, note)
    call = await bench.held(dispatcher)
    assert [(await bench.run(dispatcher, note)).ok for _ in range(3)] == [True] * 3
    assert dispatcher.stats()["held_loops"] == 1 and not call.done()
    bench.go_on.set()
    assert (await call).ok and bench.calls.count("note") == 3


async def test_a_neighbour_that_was_under_way_ends_when_the_loop_turns_again(bench: Bench) -> None:
    begun = threading.Event()

    async def waits() -> str:
        begun.set()
        await asyncio.sleep(0)
        return "done"

    neighbour = tool(effect="write")(waits)
    dispatcher = bench.made(bench.hold, neighbour)
    calls = [bench.run(dispatcher, neighbour), bench.run(dispatcher, bench.hold)]
    await asyncio.to_thread(bench.entered.acquire)
    await asyncio.to_thread(begun.wait)
    await until(lambda: dispatcher.stats()["held_loops"] == 1)
    bench.go_on.set()
    assert [(await call).value() for call in calls] == ["done", "held"]


async def test_a_neighbour_under_way_whose_time_is_over_says_who_held_its_loop(bench: Bench) -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    neighbour = tool(effect="write")(waits)
    dispatcher = bench.made(bench.hold, neighbour)
    call = bench.run(dispatcher, neighbour)
    holding = await bench.held(dispatcher, run_id="run_" + "7" * 24)
    bench.end(dispatcher)
    result = await call
    assert (result.reason_code, result.held) == ("tool_timeout", False)
    assert "waits did not answer in its time: its event loop was held by hold of run_777" in result.error
    assert not holding.done()


# What becomes of a held loop.


async def test_after_some_held_loops_a_tenants_coroutines_are_refused_until_one_returns(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_loops, "MAX_HELD", 2)
    note, plain = noting(bench), Tool.from_schema("plain", {"type": "object"}, lambda: 1, effect="write")
    dispatcher = bench.made(bench.hold, note, plain)
    for _ in range(2):
        assert (await bench.overdue(dispatcher)).held
    refused = await bench.run(dispatcher, note)
    assert refused.reason_code == "tool_unavailable" and "2 event loops are held by calls of acme" in refused.error
    assert (await bench.run(dispatcher, plain)).ok and (await bench.run(dispatcher, note, tenant=OTHER)).ok
    bench.go_on.set()
    await until(lambda: dispatcher.stats()["held_loops"] == 0)
    assert (await bench.run(dispatcher, note)).ok


async def test_a_loop_that_nobody_uses_is_ended_and_those_used_last_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_loops, "KEPT_IDLE", 1)
    note = noting(bench)
    dispatcher = bench.made(note)
    made = dispatcher._runners.loops
    for tenant in ("acme", OTHER):
        assert (await bench.run(dispatcher, note, tenant=tenant)).ok
    first, last = made._all
    made._look()
    assert made.stats()["loops"] == 2
    monkeypatch.setattr(tool_loops, "IDLE_S", 0.0)
    made._look()
    assert made._all == [last]
    await asyncio.to_thread(first.thread.join)
    assert (await bench.run(dispatcher, note)).ok and made.stats()["loops"] == 2


async def test_a_loop_with_a_state_is_not_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_loops, "KEPT_IDLE", 0)
    monkeypatch.setattr(tool_loops, "IDLE_S", 0.0)
    session = Session(bench)
    dispatcher = bench.made(session.toolset)
    assert (await bench.run(dispatcher, session.use)).ok
    dispatcher._runners.loops._look()
    assert dispatcher.stats()["loops"] == 1
    await dispatcher.release(RUN)
    dispatcher._runners.loops._look()
    assert dispatcher.stats()["loops"] == 0 and session.log == ["open", "use 1", "close 1"]


async def test_tenants_beyond_the_bound_share_loops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_loops, "MAX_LOOPS", 3)
    note = noting(bench)
    dispatcher = bench.made(note)
    for turn in range(2):
        results = await asyncio.gather(*[bench.run(dispatcher, note, tenant=f"t{n}") for n in range(9)])
        assert all(result.ok for result in results), turn
    assert dispatcher.stats()["loops"] == 3


# Toolsets.


class Session:
    """A toolset whose state is of the loop that it was opened on; with a tool that blocks."""

    def __init__(self, bench: Bench) -> None:
        self.log: list[str] = []
        self.closed = threading.Event()
        self._opened = 0

        async def opening(context: ToolContext) -> tuple[int, asyncio.AbstractEventLoop]:
            self.log.append("open")
            self._opened += 1
            return self._opened, asyncio.get_running_loop()

        async def closing(state: tuple[int, asyncio.AbstractEventLoop]) -> None:
            assert asyncio.get_running_loop() is state[1]
            self.log.append(f"close {state[0]}")
            self.closed.set()

        async def use(context: ToolContext) -> int:
            assert asyncio.get_running_loop() is context.state[1]
            self.log.append(f"use {context.state[0]}")
            return int(context.state[0])

        async def block(context: ToolContext) -> None:
            bench.block()

        self.use, self.block = tool(effect="read")(use), tool(effect="read")(block)
        self.toolset = Toolset("session", (self.use, self.block), opening, closing)


async def test_a_state_stays_on_its_loop_and_is_opened_anew_once_that_is_lost(bench: Bench) -> None:
    session = Session(bench)
    dispatcher = bench.made(session.toolset)
    assert [(await bench.run(dispatcher, session.use)).value() for _ in range(2)] == [1, 1]
    result = await bench.overdue(dispatcher, session.block)
    assert result.held and "block" in result.error
    assert (await bench.run(dispatcher, session.use)).value() == 2
    bench.go_on.set()
    await asyncio.to_thread(session.closed.wait)
    assert session.log == ["open", "use 1", "use 1", "open", "use 2", "close 1"]
    await dispatcher.release(RUN)
    assert session.log[-1] == "close 2"


async def test_a_state_serves_on_after_a_call_that_blocked_and_returned_in_its_time(bench: Bench) -> None:
    session, note = Session(bench), noting(bench)
    dispatcher = bench.made(session.toolset, note)
    holding = await bench.held(dispatcher, session.block)
    assert (await bench.run(dispatcher, note, run_id="run_" + "7" * 24)).ok
    later = bench.run(dispatcher, session.use)
    bench.go_on.set()
    assert (await holding).ok and (await later).value() == 1


async def test_a_call_that_waits_for_its_state_was_not_begun_when_the_loop_is_lost(bench: Bench) -> None:
    session = Session(bench)
    dispatcher = bench.made(session.toolset)
    assert (await bench.run(dispatcher, session.use)).ok
    holding = await bench.held(dispatcher, session.block)
    waiting = bench.run(dispatcher, session.use)
    await until(lambda: len(dispatcher._runners.loops._all[0].works) == 2)
    bench.end(dispatcher)
    assert (await holding).held
    result = await waiting
    assert result.reason_code == "tool_unavailable" and "its event loop was held by block of run_" in result.error


async def test_a_close_that_does_not_end_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolset_states, "CLOSE_S", 0.05)

    async def closing(state: Any) -> None:
        bench.block()

    note = noting(bench)
    dispatcher = bench.made(Toolset("set", (note,), lambda context: None, closing))
    assert (await bench.run(dispatcher, note)).ok
    await dispatcher.release(RUN)
    assert bench.calls == ["note", "hold"] and dispatcher.stats()["states"] == 0


# Stopping.


async def test_the_release_of_a_run_that_holds_its_loop_returns(bench: Bench) -> None:
    note = noting(bench)
    dispatcher = bench.made(bench.hold, note)
    call = await bench.held(dispatcher)
    waiting = bench.run(dispatcher, note)
    await asyncio.sleep(0)
    await dispatcher.release(RUN)
    assert (await call).held and (await waiting).reason_code in ("tool_unavailable", "grant_stale")
    bench.go_on.set()
    assert (await bench.run(dispatcher, note, run_id="run_" + "7" * 24)).ok and bench.calls == ["hold", "note"]


async def test_a_call_whose_own_caller_is_cancelled_is_cancelled_though_its_loop_is_held(bench: Bench) -> None:
    dispatcher = bench.made(bench.hold)
    call = await bench.held(dispatcher)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert dispatcher.stats()["active"] == 0


async def test_a_coroutine_that_does_not_heed_its_end_is_over_and_its_key_is_at_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_loops, "STOP_LOOKS", 2)
    heard, go_on = threading.Event(), asyncio.Event()

    async def deaf(context: ToolContext) -> int:
        bench.calls.append(f"attempt {context.attempt}")
        while not go_on.is_set():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.set()
                await go_on.wait()
                bench.calls.append("over")
        return 1

    slow = tool(effect="write")(deaf)
    dispatcher = bench.made(slow)
    call = bench.run(dispatcher, slow, key="k")
    await until(lambda: bool(bench.calls))
    bench.end(dispatcher)
    result = await call
    assert (result.reason_code, result.held) == ("tool_timeout", False) and heard.is_set()
    again = bench.run(dispatcher, slow, key="k", attempt=2)
    loop = dispatcher._runners.loops._all[0]._loop
    loop.call_soon_threadsafe(go_on.set)
    assert (await again).ok and bench.calls == ["attempt 1", "over", "attempt 2"]


async def test_a_tool_that_cancels_itself_or_times_out_by_itself_was_not_stopped(bench: Bench) -> None:
    async def cancels() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def times_out() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async def bears_it() -> str:
        try:
            await times_out()
        except TimeoutError:
            return "fine"
        return "?"

    tools = [tool(effect="read")(each) for each in (cancels, times_out, bears_it)]
    dispatcher = bench.made(*tools)
    first, second, third = [await bench.run(dispatcher, each) for each in tools]
    assert (first.reason_code, first.error) == ("tool_failed", "the tool cancelled itself")
    assert second.reason_code == "tool_failed" and second.error.startswith("TimeoutError")
    assert third.value() == "fine"


async def test_a_tool_that_exits_or_stops_its_loop_ends_neither_the_loop_nor_the_executor(bench: Bench) -> None:
    async def exits() -> None:
        async def leave() -> None:
            raise SystemExit(1)

        background = asyncio.create_task(leave())
        await asyncio.sleep(0)
        asyncio.get_running_loop().stop()
        assert background is not None
        raise SystemExit(2)

    leaves, note = tool(effect="read")(exits), noting(bench)
    dispatcher = bench.made(leaves, note)
    assert (await bench.run(dispatcher, leaves)).reason_code == "tool_failed"
    assert (await bench.run(dispatcher, note)).ok and dispatcher.stats()["loops"] == 1


async def test_a_call_that_waits_for_a_busy_loop_does_not_start_once_it_is_switched_off(bench: Bench) -> None:
    note = noting(bench)
    dispatcher = bench.made(bench.hold, note)
    holding = await bench.held(dispatcher)
    waiting = bench.run(dispatcher, note)
    await asyncio.sleep(0)
    off = KillSwitchChanged(at_us=0, scope="all", target="", off=True, by="op", why="")  # type: ignore[arg-type]
    dispatcher.grants.switches = KillSwitches()
    dispatcher.grants.switches.apply(off)
    bench.go_on.set()
    assert (await waiting).reason_code == "switched_off" and (await holding).ok and bench.calls == ["hold"]


# What a coroutine has around it.


async def test_a_coroutine_has_its_calls_context_and_reaches_memory_on_the_executors_loop(bench: Bench) -> None:
    seen: dict[str, Any] = {}

    class Memory:
        async def write_if_useful(self, candidate: Candidate) -> LearnReply:
            seen["memory"] = threading.get_ident()
            return LearnReply(code=MemoryCode.STORED, record_id="m1")

    async def keeps(context: ToolContext) -> str:
        seen["tool"], seen["speaker"] = threading.get_ident(), current_source()
        assert context.keep is not None
        return (await context.keep(Candidate(tenant=context.tenant, text="a fact", kind="fact", source="x"))).record_id

    keep = tool(effect="write")(keeps)
    dispatcher = bench.made(keep, memory=Memory())
    assert (await bench.run(dispatcher, keep)).value() == "m1"
    assert seen["memory"] == threading.get_ident() != seen["tool"] and seen["speaker"] == ("keeps", "acme", RUN)


async def test_a_client_of_another_loop_says_where_clients_are_made(bench: Bench) -> None:
    lock = asyncio.Lock()

    async def shares() -> None:
        async with lock:
            await asyncio.sleep(0)
            await asyncio.gather(*[asyncio.create_task(contends()) for _ in range(2)])

    async def contends() -> None:
        async with asyncio.timeout(0.01), lock:
            pass

    shared = tool(effect="read")(shares)
    dispatcher = bench.made(shared)
    await bench.run(dispatcher, shared)
    result = await bench.run(dispatcher, shared, tenant=OTHER)
    assert "is bound to a different event loop" in result.error and "in a Toolset's open" in result.error


async def test_what_is_handed_over_in_one_turn_wakes_the_loop_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[int] = []
    wake = tool_loop.ToolLoop.wake
    monkeypatch.setattr(tool_loop.ToolLoop, "wake", lambda loop: (wakes.append(len(loop._inbox)), wake(loop)))
    note = noting(bench)
    dispatcher = bench.made(note)
    assert all(result.ok for result in await asyncio.gather(*[bench.run(dispatcher, note) for _ in range(20)]))
    assert wakes == [20]


async def test_no_more_loops_than_the_bound_are_held_by_all_tenants_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_loops, "MAX_LOOPS", 2)
    dispatcher = bench.made(bench.hold)
    for tenant in ("t1", "t2"):
        assert (await bench.overdue(dispatcher, tenant=tenant)).held
    refused = await bench.run(dispatcher, bench.hold, tenant="t3")
    assert refused.reason_code == "tool_unavailable" and "t3 gets one when one returns" in refused.error
    assert dispatcher.is_exhausted, "another executor is to take this one's place"
    bench.go_on.set()
    await until(lambda: not dispatcher.is_exhausted)


async def test_loops_that_were_never_used_cost_nothing(bench: Bench) -> None:
    plain = Tool.from_schema("plain", {"type": "object"}, lambda: 1, effect="read")
    dispatcher, before = bench.made(Toolset("set", (plain,), lambda context: None)), set(threading.enumerate())
    assert (await bench.run(dispatcher, plain)).ok
    assert dispatcher.stats()["loops"] == 0
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("tools-")]


_MADE = tool_loop.Work | ToolJob | ToolContext


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_call_was_made_of_goes_with_it(bench: Bench, fails: bool, plain: bool) -> None:
    """Nothing of it is left for the garbage collector, which would take a fifth of an executor's time."""

    def does() -> Any:
        return 1 / 0 if fails else 1

    note = Tool.from_schema("note", {"type": "object"}, does, effect="read") if plain else bench.tool(does, "note")
    dispatcher = bench.made(note)
    await bench.run(dispatcher, note)
    gc.collect()
    kept = [each for each in gc.get_objects() if isinstance(each, _MADE)]  # a call that an earlier test left stuck
    theirs = set(map(id, kept))
    gc.disable()
    try:
        results = await asyncio.gather(*[bench.run(dispatcher, note) for _ in range(20)])
        assert {result.ok for result in results} == {not fails}
        # A thread lets go of what it did once the call is over.
        await until(lambda: not any(isinstance(each, _MADE) and id(each) not in theirs for each in gc.get_objects()))
    finally:
        gc.enable()
