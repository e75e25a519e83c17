"""What a topology returns is bounded before it is journaled, and what it raises ends its own run alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from airside.stack.cycle.routing import MAX_BRANCHES, MAX_FAN_OUT_BYTES
from airside.stack.run import events as ev
from airside.stack.run.agents import FunctionAgent, ReplayAgent
from airside.stack.run.machine import RunMachine
from airside.stack.run.topology import Branch, Done, FanOut, GiveUp, SingleAgent, Visit
from airside.stack.schema.toolspec import MAX_OUTPUT_BYTES
from airside.stack.values import MAX_REQUEST_BYTES, MAX_REQUEST_CHARS, Finish
from tests.helpers import RUN
from tests.unit.stack.cycle.test_cycle import World

HUGE = "x" * 3_000_000


class Says:
    """A topology that says one thing."""

    def __init__(self, say: Callable[[], Any]) -> None:
        self._say = say

    def next_step(self, state: Any) -> Any:
        """Say it."""
        return self._say()

    def agents(self) -> tuple[str, ...]:
        """Visit nobody."""
        return ()


async def played(say: Callable[[], Any]) -> tuple[RunMachine, int]:
    """Return a run whose topology says this, as the journal gives it back, and how many bytes it has there."""
    world = World(FunctionAgent(lambda view: Finish()), Says(say))
    await world.run()
    await world.cycle.log.durable()
    bodies = world.journal.bodies_of(RUN)
    return RunMachine.replay(ev.decode_event(body) for body in bodies), sum(map(len, bodies))


def branches(count: int, **fields: Any) -> FanOut:
    """Return a fan-out into so many branches."""
    return FanOut(branches=(Branch(route="x", **{"text": "go", **fields}),) * count)


@pytest.mark.parametrize(
    ("route", "says"),
    [
        (Done(answer=HUGE), f"bytes are over the bound of {MAX_OUTPUT_BYTES:,}"),
        (Done(answer={"a": [HUGE]}), f"bytes are over the bound of {MAX_OUTPUT_BYTES:,}"),
        (GiveUp(detail=HUGE), f"GiveUp: detail: 3,000,000 characters are over the bound of {MAX_REQUEST_CHARS:,}"),
        (
            Visit(agent="a", query=HUGE),
            f"Visit: query: 3,000,000 characters are over the bound of {MAX_REQUEST_CHARS:,}",
        ),
        (branches(2, text=HUGE), f"branch 0: text: 3,000,000 characters are over the bound of {MAX_REQUEST_CHARS:,}"),
        (branches(1, text="x" * (MAX_REQUEST_CHARS + 1)), "65,537 characters are over the bound of 65,536"),
        (branches(1, inputs=Raw(b'{"a":"' + HUGE.encode() + b'"}')), f"are over the bound of {MAX_REQUEST_BYTES:,}"),
        (branches(5, inputs=Raw(b'{"a":"' + b"x" * 2_000_000 + b'"}')), f"over the bound of {MAX_FAN_OUT_BYTES:,}"),
        (branches(MAX_BRANCHES + 1), "FanOut: 1,001 branches are over the bound of 1,000"),
        (branches(1, inputs=Raw(b"[1]")), "branch 0: inputs must be an object"),
        (branches(1, inputs=Raw(b'{"a":NaN}')), "NaN"),
        (branches(1, text="a\x00b"), "branch 0: text: control character U+0000"),
        (branches(1, text="a\ud800b"), "a lone surrogate is not text"),
        (branches(1, text=5), "str"),
        (branches(1, text=None), "str"),
        (FanOut(branches=[5]), "int"),  # type: ignore[arg-type]
        (FanOut(branches=5), "branches must be a tuple, not int"),  # type: ignore[arg-type]
        (Visit(agent="a", query="a\ud800b"), "a lone surrogate is not text"),
        (Visit(agent="a", query=5), "str"),  # type: ignore[arg-type]
        (GiveUp(detail="\x07"), "control character U+0007"),
        (Done(answer=float("nan")), "not a finite number"),
        (Done(answer={1, 2}), "set is not a JSON type"),
        (None, "a topology returns Visit, FanOut, Done or GiveUp, not NoneType"),
        ({"agent": "a"}, "not dict"),
        (Finish(answer=1), "not Finish"),
    ],
)
async def test_what_is_no_route_or_over_its_bound_fails_the_run_before_it_is_journaled(route: Any, says: str) -> None:
    """The reason says what, how large and how large it may be; the journal gives the run back."""
    machine, size = await played(lambda: route)
    assert machine.state.outcome is not None
    assert (machine.state.outcome.reason_code, machine.is_over) == ("internal_error", True)
    assert says in machine.state.outcome.detail and size < 20_000


@pytest.mark.parametrize(
    "route",
    [
        branches(2, text="x" * MAX_REQUEST_CHARS),
        branches(2, inputs=Raw(b'{"a":"' + b"x" * 1_000_000 + b'"}')),
        branches(MAX_BRANCHES),
        Done(answer="x" * (MAX_OUTPUT_BYTES - 100)),
        GiveUp(detail="x" * MAX_REQUEST_CHARS),
    ],
)
async def test_what_is_within_its_bound_is_journaled_as_it_is(route: Any) -> None:
    """To the last character."""
    machine, _ = await played(lambda: route)
    planned = [event.route for event in machine.events if isinstance(event, ev.RoutePlanned)]
    assert planned == [route]


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise SystemExit(4)


def raises(error: BaseException) -> Callable[[], Any]:
    """Return a function that raises."""

    def say() -> Any:
        raise error

    return say


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseException("odd"),
        Unspeakable(),
        ValueError("x" * 5_000_000),
        ValueError("\ud800"),
        RecursionError("deep"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_topology_raises_fails_its_own_run_alone(error: BaseException) -> None:
    """The loop, which is other runs' as well, goes on; the reason names the error."""
    neighbour = World(ReplayAgent())
    (machine, size), _ = await asyncio.gather(played(raises(error)), neighbour.run())
    assert machine.state.outcome is not None and machine.state.outcome.reason_code == "internal_error"
    assert type(error).__name__ in machine.state.outcome.detail and size < 20_000
    assert neighbour.paid == [3]


async def test_a_name_that_does_not_exist_is_said_in_brief() -> None:
    """However long it is."""
    machine, size = await played(raises(LookupError(HUGE)))
    assert machine.state.outcome is not None
    assert machine.state.outcome.reason_code == "unknown_route_mode" and size < 20_000


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("waits", [True, False])
async def test_whatever_an_agent_raises_fails_its_own_run_alone(error: BaseException, waits: bool) -> None:
    """An agent that is a plain function, too, cannot cancel the loop's task: its run ends, and says so."""

    def plain(view: Any) -> Any:
        raise error

    async def waiting(view: Any) -> Any:
        await asyncio.sleep(0)
        raise error

    world = World(FunctionAgent(waiting if waits else plain), SingleAgent("a"))
    await world.run()
    outcome = world.cycle.machine.state.outcome
    assert outcome is not None and outcome.reason_code == "agent_error"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_answer_is_journaled_or_refused_and_the_run_replays(answer: Any) -> None:
    """Never is anything journaled that cannot be read back."""
    machine, _ = asyncio.run(played(lambda: Done(answer=answer)))
    assert machine.is_over
