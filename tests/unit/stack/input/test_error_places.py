"""An error of people's code names their function and line, whoever's code they had called when it was raised."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airside.stack.input import error_places
from airside.stack.input.error_places import describe_error
from airside.stack.run.agents import FunctionAgent
from airside.stack.run.topology import SingleAgent
from airside.stack.values import Action
from tests.unit.stack.cycle.test_cycle import World

HERE = __file__


def line_of(function: Callable[..., Any], text: str) -> int:
    """Return the line of a function that has this text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(index for index, line in enumerate(lines) if text in line)


def own(view: Any) -> Any:
    return 1 / 0  # its own


def of_airside(view: Any) -> Any:
    return view.answer_of(1, 2, 3)  # airside's


def of_python(view: Any) -> Any:
    return json.loads("{")  # python's


def wrong(view: Any) -> Any:
    return "an answer"


def deeper(view: Any) -> Any:
    return own(view)


async def waiting(view: Any) -> Any:
    return json.loads("{")  # python's


def leaving(view: Any) -> Any:
    raise SystemExit(3)  # leaves


def unfit() -> Any:
    return None


class Clerk:
    """An agent that is an object."""

    async def decide(self, view: Any) -> Any:
        """Fail."""
        return Action(tool="pay", arguments={}, colour=1)  # type: ignore[call-arg]


class Says:
    """A function that is an object."""

    def __call__(self, view: Any) -> Any:
        """Return what is none."""
        return 5


async def detail(agent: Any) -> str:
    """Return why a run of the agent failed."""
    world = World(agent if hasattr(agent, "decide") else FunctionAgent(agent), SingleAgent("a"))
    await world.run()
    outcome = world.cycle.machine.state.outcome
    assert outcome is not None and outcome.reason_code in ("agent_error", "agent_invalid_action")
    return outcome.detail


@pytest.mark.parametrize(
    ("agent", "code", "text", "name"),
    [
        (own, own, "its own", "own"),
        (deeper, own, "its own", "own"),
        (of_airside, of_airside, "airside's", "of_airside"),
        (of_python, of_python, "python's", "of_python"),
        (waiting, waiting, "python's", "waiting"),
        (leaving, leaving, "leaves", "leaving"),
        (wrong, wrong, "def wrong", "wrong"),
        (unfit, unfit, "def unfit", "unfit"),
        (functools.partial(wrong), wrong, "def wrong", "wrong"),
        (Says(), Says.__call__, "def __call__", "__call__"),
        (Clerk(), Clerk.decide, "colour=1", "decide"),
    ],
)
async def test_an_agents_error_names_its_own_function_and_line(agent: Any, code: Any, text: str, name: str) -> None:
    """Also where Airside or a library raised it, and where it was called or answered wrongly."""
    said = await detail(agent)
    assert f"({HERE}:{line_of(code, text)} in {name}" in said, said
    assert said.count(" in ") < 5 and "asking.py" not in said and "agents.py" not in said


async def test_what_a_library_raised_is_named_after_it() -> None:
    """Where somebody goes on looking."""
    said = await detail(of_python)
    assert "; raised at " in said and "decoder.py:" in said


def test_nobody_knows_a_place_without_one() -> None:
    """What has no code, and what raises when it is looked at, has none; looking does not raise."""

    class Odd:
        """Raises at every look."""

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("no")

    for code in (None, 5, len, Odd(), functools.partial(len)):  # Ray puts a function of its own in place of `print`
        assert error_places.definition_place(code) == ""
        assert describe_error(ValueError("x"), code) == "ValueError: x"


def test_apps_that_ship_are_peoples_code_too() -> None:
    """The demo's agents are found, and Airside's own code is not."""
    from airside.demo import app

    for module, is_ours in ((app, False), (error_places, True)):
        frame: Any = type("Frame", (), {"f_globals": {"__name__": module.__name__}})
        assert error_places._is_ours(frame) is is_ours
    assert Path(error_places.__file__).name in error_places.definition_place(error_places.definition_place)
