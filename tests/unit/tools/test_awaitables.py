"""A plain function that gives something to await is awaited; what an agent proposes is bounded before it is kept."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from airside.actors.app import App
from airside.stack.canonical import digest
from airside.stack.cycle.agent_call import validate_proposal
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.ids import effect_key, undo_key
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.run.topology import Done
from airside.stack.schema.toolspec import MAX_OUTPUT_BYTES
from airside.stack.values import Action, Finish, Handoff
from airside.tools.tool import NOT_DONE, ToolContext, Toolset, tool
from tests.helpers import RUN, spec
from tests.unit.stack.cycle.test_cycle import World
from tests.unit.tools.test_dispatch import granted, made, run, tool_that


async def _soon(answer: Any) -> Any:
    await asyncio.sleep(0)
    return answer


def decorated(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return a plain function round an async one, as many decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        return function(*args, **kwargs)

    return wrapper


async def answers() -> str:
    """Answer."""
    return str(await _soon("done"))


class Client:
    """A callable object."""

    async def __call__(self) -> str:
        """Answer."""
        return str(await _soon("done"))


FORMS = [answers, decorated(answers), lambda: _soon("done"), Client(), functools.partial(_soon, "done")]


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("function", FORMS)
async def test_a_tool_that_gives_something_to_await_is_awaited(function: Any, in_threads: bool) -> None:
    """In every form that people write, for a call that changes something too."""
    tool = tool_that(function, effect="write")
    result = await run(made(tool, in_threads=in_threads), granted(tool.spec))
    assert result.ok and result.value() == "done"


async def test_the_deadline_holds_for_what_a_thread_gave_to_await() -> None:
    over: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            over.append("cancelled")

    tool = tool_that(lambda: waits())
    dispatcher = made(tool, in_threads=True)
    result = await run(dispatcher, granted(tool.spec, timeout_ms=300))
    assert result.reason_code == "tool_timeout" and over == ["cancelled"] and dispatcher.stats()["active"] == 0


@pytest.mark.parametrize(
    "agent", [decorated(lambda view: _soon(Finish(answer=1))), lambda view: _soon(Finish(answer=1))]
)
async def test_an_agent_that_gives_something_to_await_is_awaited(agent: Callable[[View], Any]) -> None:
    world = World(FunctionAgent(agent))
    await world.run()
    assert world.phase == "completed"


class PlainlyDeciding:
    """An agent whose `decide` is a plain method."""

    def decide(self, view: View) -> Finish:
        """Finish."""
        return Finish(answer=view.agent)


async def test_an_object_may_decide_by_a_plain_method() -> None:
    world = World(PlainlyDeciding())
    await world.run()
    assert world.phase == "completed"
    checked_app(agents={"a": PlainlyDeciding()})


@pytest.mark.parametrize(
    "proposal",
    [
        Finish(answer="x" * MAX_OUTPUT_BYTES),
        Handoff(agent="a", message="x" * MAX_OUTPUT_BYTES),
        Action(tool="pay", arguments={"note": "x" * MAX_OUTPUT_BYTES}),
        Action(tool="x" * MAX_OUTPUT_BYTES, arguments={}),
    ],
)
async def test_a_proposal_is_bounded_like_an_output(proposal: Any) -> None:
    with pytest.raises(InvalidInput, match=r"1,048,\d+ bytes are over the bound of 1,048,576"):
        validate_proposal(proposal)
    world = World(FunctionAgent(lambda view: proposal))
    await world.run()
    assert world.phase == "failed"
    assert sum(len(body) for bodies in [world.journal.bodies_of(world.cycle.run_id)] for body in bodies) < 20_000


def test_a_tool_that_takes_longer_arguments_gets_them() -> None:
    proposal = Action(tool="pay", arguments={"note": "x" * MAX_OUTPUT_BYTES})
    assert validate_proposal(proposal, [spec(max_argument_bytes=2 * MAX_OUTPUT_BYTES)]) == proposal


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("function", [*FORMS, lambda: "done"])
async def test_a_reconcile_that_gives_something_to_await_is_awaited(function: Any, in_threads: bool) -> None:
    """What it comes to is the call's result, and the tool is not called again."""
    called: list[int] = []
    tool = tool_that(lambda: called.append(1), effect="write", reconcile=lambda context: function())
    result = await run(made(tool, in_threads=in_threads), granted(tool.spec, attempt=2))
    assert result.ok and result.value() == "done" and called == []


@pytest.mark.parametrize("in_threads", [False, True])
async def test_a_reconcile_that_comes_to_not_done_has_the_tool_called(in_threads: bool) -> None:
    """Awaited, not taken for an answer."""

    async def nothing(context: ToolContext) -> Any:
        return await _soon(NOT_DONE)

    for reconcile in (nothing, decorated(nothing), lambda context: nothing(context), functools.partial(nothing)):
        tool = tool_that(lambda: "called", effect="write", reconcile=reconcile)
        result = await run(made(tool, in_threads=in_threads), granted(tool.spec, attempt=2))
        assert result.ok and result.value() == "called"


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("function", [*FORMS, lambda: "done"])
async def test_an_undo_that_gives_something_to_await_is_awaited(function: Any, in_threads: bool) -> None:
    """It is over when that is."""
    tool = tool_that(lambda: 7, effect="write", undo=lambda context, arguments, output: function())
    request = granted(tool.spec, undo=True, output_sha256=digest(b"7"), key=undo_key(effect_key(RUN, 1)))
    result = await run(made(tool, in_threads=in_threads), msgspec.structs.replace(request, output=b"7"))
    assert result.ok and result.value() == "done", result


@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("function", [*FORMS, lambda: "done"])
async def test_a_toolset_whose_open_and_close_give_something_to_await_has_them_awaited(
    function: Any, in_threads: bool
) -> None:
    """The state is what `open` comes to, and the run is let go when `close` is done."""
    closed: list[Any] = []

    async def noted(state: Any) -> None:
        await _soon(None)
        closed.append(state)

    @tool(effect="read")
    def look(context: ToolContext) -> str:
        return str(context.state)

    for close in (noted, decorated(noted), lambda state: noted(state), functools.partial(noted)):
        closed.clear()
        session = Toolset("session", (look,), open=lambda context: function(), close=close)
        dispatcher = made(session, in_threads=in_threads)
        result = await run(dispatcher, granted(look.spec))
        await dispatcher.release(RUN)
        assert result.ok and result.value() == "done" and closed == ["done"]


def yields(*given: Any, **named: Any) -> Any:
    """Yield."""
    yield 1


async def yields_later(*given: Any, **named: Any) -> Any:
    """Yield, asynchronously."""
    yield 1


class Yields:
    """An object whose methods yield."""

    def __call__(self, *given: Any) -> Any:
        """Yield."""
        yield 1

    def decide(self, view: View) -> Any:
        """Yield."""
        yield Finish()

    def next_step(self, state: Any) -> Any:
        """Yield."""
        yield Done()

    def agents(self) -> tuple[str, ...]:
        """Visit nobody."""
        return ()


async def waits(state: Any) -> list[Any]:
    """Say what there is, later."""
    return []


class Waits:
    """A topology that waits."""

    agents = Yields.agents

    async def next_step(self, state: Any) -> Any:
        """Wait."""
        return await _soon(Done())


@tool(effect="read")
def look() -> int:
    """Look."""
    return 1


GENERATORS = [yields, yields_later, functools.partial(yields), Yields().__call__]


def checked_app(**parts: Any) -> None:
    """Check an app that is whole but for these parts."""
    whole: dict[str, Any] = {
        "agents": {"a": FunctionAgent(lambda view: Finish())},
        "tools": [look],
        "policy": "version: v1\nrules: [{id: all, outcome: allow}]\n",
        "directory": "tenants: {acme: {principals: {ann: {}}}}",
    }
    App(**(whole | parts)).checked()


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("agent a", lambda g: {"agents": {"a": g}}),
        ("agent a", lambda g: {"agents": {"a": FunctionAgent(g)}}),
        ("toolset s: open", lambda g: {"tools": [Toolset("s", (look,), open=g)]}),
        ("toolset s: close", lambda g: {"tools": [Toolset("s", (look,), open=print, close=g)]}),
        ("toolset s: offers", lambda g: {"tools": [Toolset("s", (look,), open=print, offers=g)]}),
        ("embedder", lambda g: {"embedder": g}),
        ("on_approval", lambda g: {"on_approval": g}),
        ("tool t", lambda g: {"tools": [tool_that(g)]}),
        ("tool t: reconcile", lambda g: {"tools": [tool_that(print, "write", reconcile=g)]}),
    ],
)
def test_a_generator_is_refused_wherever_code_is_taken(generator: Any, where: str, parts: Callable[..., Any]) -> None:
    """Nobody would take what it yields: it is said when the app is checked, and where."""
    with pytest.raises(InvalidConfig, match=rf"^{where}: .*generator"):
        checked_app(**parts(generator))


def test_an_undo_that_yields_is_refused() -> None:
    """As every other code is."""

    def undo(context: Any, arguments: Any, output: Any) -> Any:
        yield 1

    with pytest.raises(InvalidConfig, match=r"^tool t: undo: .*generator"):
        tool_that(print, "write", undo=undo)


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("agent a: .*generator", {"agents": {"a": Yields()}}),
        ("route default: .*generator", {"routes": {"default": Yields()}}),
        ("route default: .*async", {"routes": {"default": Waits()}}),
        ("on_approval: .*generator", {"on_approval": Yields()}),
        ("toolset s: offers: .*async", {"tools": [Toolset("s", (look,), open=print, offers=waits)]}),
    ],
)
def test_so_is_an_object_whose_methods_yield_or_wait_where_nobody_waits(where: str, parts: dict[str, Any]) -> None:
    """A topology is asked on the loop that other runs share, and answers at once."""
    with pytest.raises(InvalidConfig, match=rf"^{where}"):
        checked_app(**parts)


def test_what_only_looks_like_a_generator_is_taken() -> None:
    """A function that returns one it has used up, a class, a method."""

    def sums(view: View) -> Finish:
        return Finish(answer=sum(n for n in (1, 2)))

    checked_app(agents={"a": sums}, tools=[Toolset("s", (look,), open=dict, close=print)])


class NoView:
    """An agent that decides on nothing."""

    async def decide(self) -> Finish:
        """Finish."""
        return Finish()


class Misfit:
    """A topology that takes no state."""

    def next_step(self) -> Any:
        """Do nothing."""

    def agents(self) -> tuple[str, ...]:
        """Visit a."""
        return ("a",)


def nothing() -> Any:
    """Take nothing."""


def two(one: Any, other: Any) -> Any:
    """Take two."""


def by_name(*, view: Any) -> Any:
    """Take it by its name."""


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        (r"agent a: it takes \(\) -> 'Any', and is called with \(view\)", {"agents": {"a": nothing}}),
        (r"agent a: it takes \(one", {"agents": {"a": two}}),
        (r"agent a: it takes \(\*, view", {"agents": {"a": by_name}}),
        (r"agent a: it takes \(one", {"agents": {"a": FunctionAgent(two)}}),
        (r"agent a: it takes \(\)", {"agents": {"a": NoView()}}),
        (r"agent a: NoView is a class: give an object of it", {"agents": {"a": NoView}}),
        (r"route default: next_step: .*\(state\)", {"routes": {"default": Misfit()}}),
        (r"route default: Misfit is a class", {"routes": {"default": Misfit}}),
        (r"toolset s: open: .*\(context\)", {"tools": [Toolset("s", (look,), open=nothing)]}),
        (r"toolset s: close: .*\(state\)", {"tools": [Toolset("s", (look,), open=dict, close=nothing)]}),
        (r"toolset s: offers: .*\(state\)", {"tools": [Toolset("s", (look,), open=dict, offers=nothing)]}),
        (r"tool t: reconcile: .*\(context\)", {"tools": [tool_that(print, "write", reconcile=two)]}),
        (r"embedder: .*called with \(\)", {"embedder": two}),
        (r"on_approval: .*\(notice\)", {"on_approval": nothing}),
    ],
)
def test_what_does_not_take_what_it_is_called_with_is_refused(where: str, parts: dict[str, Any]) -> None:
    """Before anything starts, and wherever code is taken: the first call would have failed."""
    with pytest.raises(InvalidConfig, match=rf"^{where}"):
        checked_app(**parts)


def test_what_takes_it_in_any_way_is_taken() -> None:
    """With defaults, with any arguments, bound beforehand, as a method."""
    for agent in (
        lambda view, more=1: Finish(),
        lambda *given: Finish(),
        functools.partial(two, 1),
        FunctionAgent(lambda view: Finish()).decide,
    ):
        checked_app(agents={"a": agent})
