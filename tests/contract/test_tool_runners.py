"""What the dispatcher may rely on, whatever carries a call out: inline, a thread, a loop, a process, a sandbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.stack.ids import EffectKey, PrincipalId, RunId, TenantId
from airside.stack.reasons import ReasonCode
from airside.stack.values import ToolResult
from airside.tools.runners.fair_slots import FairSlots
from airside.tools.runners.inline import InlineRunner
from airside.tools.runners.jobs import Reconciliation, ToolCall
from airside.tools.runners.outcomes import InvalidArguments, InvalidOutput
from airside.tools.runners.processes import ProcessRunner
from airside.tools.runners.runner import ToolRunner
from airside.tools.runners.running import Runners
from airside.tools.runners.sandbox import SandboxRunner
from airside.tools.runners.threads import ThreadRunner
from airside.tools.runners.tool_loops import ToolLoops
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.tool import NOT_DONE, InDoubt, Tool, ToolContext, ToolError, tool

WAYS = {
    "inline": InlineRunner,
    "thread": ThreadRunner,
    "loop": ToolLoops,
    "process": ProcessRunner,
    "sandbox": SandboxRunner,
}


def behave(how: str, place: str, number: int = 7) -> Any:
    """Leave a mark, and do what is asked."""
    (Path(place) / f"{how}-{os.getpid()}").touch()
    match how:
        case "answer":
            return {"number": number}
        case "refuse":
            raise ToolError("nothing was changed")
        case "busy":
            raise ToolError("come back later", retry_after_s=2.5)
        case "doubt":
            raise InDoubt("it may have happened")
        case "break":
            raise KeyError("broken")
        case "not json":
            return {1, 2}
    raise AssertionError(how)


async def behave_later(how: str, place: str, number: int = 7) -> Any:
    """Do the same after a turn of the loop, or never end."""
    await asyncio.sleep(0)
    if how == "hang":
        (Path(place) / f"hang-{os.getpid()}").touch()
        await asyncio.Event().wait()
    return behave(how, place, number)


def nothing_known(context: ToolContext) -> Any:
    """Answer what became of a key."""
    return NOT_DONE if context.attempt == 2 else "it was done"


class Bench:
    """One runner with a tool for it; `over` counts how often a call's code was said to be done."""

    def __init__(self, way: str, place: Path) -> None:
        self.place, self._shown = place, str(place)
        options: dict[str, Any] = {"process": True} if way == "process" else {}
        if way == "sandbox":  # the tenant's folder is where it may leave a mark
            options["sandbox"] = SandboxLimits(workspace=str(place), access="write")
            self.place, self._shown = place / "acme", "/workspace"
            self.place.mkdir()
        coroutine = way in ("inline", "loop")
        wrap = tool(effect="write", name="behave", reconcile=nothing_known, **options)
        self.tool: Tool = wrap(behave_later if coroutine else behave)
        self.runners = Runners({"behave": self.tool}, in_threads=way != "inline")
        self.runner: ToolRunner = self.runners.of(self.tool)
        self.slots: FairSlots = self.runners.slots
        self.over = asyncio.Event()

    def call(self, how: str, *, kind: type[ToolCall] = ToolCall, attempt: int = 1, **fields: Any) -> ToolCall:
        """Return a call of the tool."""
        context = ToolContext(
            tenant=TenantId("acme"),
            principal=PrincipalId("ann"),
            run_id=RunId("run_1"),
            step=1,
            attempt=attempt,
            idempotency_key=EffectKey("run_1:1"),
            approval_id="",
            deadline_s=30.0,
        )
        given = {
            "name": self.tool.name,
            "tenant": context.tenant,
            "run_id": context.run_id,
            "function": self.tool.function,
            "over": self.over.set,
            "tool": self.tool,
            "context": context,
            "arguments": msgspec.json.encode({"how": how, "place": self._shown}),
        }
        return kind(**(given | fields))

    async def run(self, how: str, **fields: Any) -> Any:
        """Carry out a call."""
        await self.runner.ready()
        return await self.runner.run(self.call(how, **fields))

    async def was_over(self) -> bool:
        """Whether the call's code is known to be done, at last."""
        async with asyncio.timeout(30):
            await self.over.wait()
        return True


@pytest.fixture(params=list(WAYS))
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Each way of carrying a call out."""
    made = Bench(request.param, tmp_path)
    assert type(made.runner) is WAYS[request.param]
    yield made
    made.runners.close()


async def test_an_output_comes_back_as_a_result_and_the_call_is_known_to_be_over(bench: Bench) -> None:
    result = await bench.run("answer")
    assert isinstance(result, ToolResult) and (result.ok, result.value()) == (True, {"number": 7})
    assert await bench.was_over()


async def test_what_may_not_begin_starts_nothing(bench: Bench) -> None:
    """What `begin` raises is raised as it is, and the call is over."""

    class Stopped(Exception):
        pass

    def begin() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        await bench.run("answer", begin=begin)
    assert await bench.was_over() and not list(bench.place.iterdir())


@pytest.mark.parametrize(("how", "raised"), [("refuse", ToolError), ("doubt", InDoubt), ("break", Exception)])
async def test_what_a_tool_raises_says_what_it_did(bench: Bench, how: str, raised: type[Exception]) -> None:
    """Only its own two kinds say more than that nothing is known."""
    with pytest.raises(raised) as caught:
        await bench.run(how)
    assert how != "break" or not isinstance(caught.value, ToolError | InDoubt | KeyError | InvalidArguments)
    assert await bench.was_over()


async def test_when_a_call_may_go_well_is_not_lost_on_the_way(bench: Bench) -> None:
    for how, seconds in (("busy", 2.5), ("refuse", None)):
        with pytest.raises(ToolError) as caught:
            await bench.run(how)
        assert caught.value.retry_after_s == seconds
        assert caught.value.message == ("come back later" if seconds else "nothing was changed")


async def test_arguments_the_tools_types_do_not_take_start_nothing(bench: Bench) -> None:
    arguments = msgspec.json.encode({"how": "answer", "place": str(bench.place), "number": "many"})
    with pytest.raises(InvalidArguments):
        await bench.run("answer", arguments=arguments)
    assert await bench.was_over() and not list(bench.place.iterdir())


async def test_an_output_that_is_no_json_is_the_tools_failure(bench: Bench) -> None:
    """It happened: that is told as a result, or raised as what has one."""
    try:
        result = await bench.run("not json")
    except InvalidOutput:
        return
    assert result.reason_code is ReasonCode.TOOL_OUTPUT_INVALID


@pytest.mark.parametrize(("attempt", "known"), [(2, None), (3, "it was done")])
async def test_a_tool_says_what_became_of_a_key(bench: Bench, attempt: int, known: str | None) -> None:
    question = bench.call("answer", kind=Reconciliation, attempt=attempt)
    question.function = lambda: nothing_known(question.context)
    answer = await bench.runners.asking(bench.tool).run(question)
    assert (None if answer is None else answer.value()) == known and not list(bench.place.iterdir())


@pytest.mark.parametrize("bench", ["inline", "loop"], indirect=True)
async def test_a_caller_that_is_cancelled_has_a_coroutine_ended(bench: Bench) -> None:
    calling = asyncio.ensure_future(bench.run("hang"))
    await _until(lambda: bool(list(bench.place.glob("hang-*"))))
    assert not bench.over.is_set()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await bench.was_over()


@pytest.mark.parametrize("bench", ["thread", "process", "sandbox"], indirect=True)
async def test_a_call_that_gets_no_place_is_over_when_nobody_waits_for_it(bench: Bench) -> None:
    """Nothing was started, and its place is nobody's."""
    tenant, most = TenantId("acme"), bench.slots._most
    for _ in range(most):
        await bench.slots.take(tenant)
    calling = asyncio.ensure_future(bench.run("answer"))
    await _until(lambda: bench.slots.waiting == 1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await bench.was_over() and not list(bench.place.iterdir()) and bench.slots.waiting == 0
    for _ in range(most):
        bench.slots.give_back(tenant)
    assert (await bench.run("answer")).ok


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what it waits for is another process's or thread's, and has no event
            await asyncio.sleep(0.01)
