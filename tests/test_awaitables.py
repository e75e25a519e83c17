"""A plain function that gives something to await is awaited; what an agent proposes is bounded before it is kept."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airside.stack.agents import FunctionAgent, View
from airside.stack.asking import checked
from airside.stack.errors import InvalidInput
from airside.stack.toolspec import MAX_OUTPUT_BYTES
from airside.stack.values import Action, Finish, Handoff
from tests.helpers import spec
from tests.test_cycle import World
from tests.test_dispatch import granted, made, run, tool_that


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
        checked(proposal)
    world = World(FunctionAgent(lambda view: proposal))
    await world.run()
    assert world.phase == "failed"
    assert sum(len(body) for bodies in [world.journal.bodies(world.cycle.run_id)] for body in bodies) < 20_000


def test_a_tool_that_takes_longer_arguments_gets_them() -> None:
    proposal = Action(tool="pay", arguments={"note": "x" * MAX_OUTPUT_BYTES})
    assert checked(proposal, [spec(max_argument_bytes=2 * MAX_OUTPUT_BYTES)]) == proposal
