"""What of an app cannot be sent to another process is said before anything starts, by the variable's name."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import airside
from airside.stack.errors import InvalidConfig

POLICY = "version: v1\nrules: [{id: all, outcome: allow}]\n"
DIRECTORY = "tenants: {acme: {principals: {ana: {}}}}\n"


@airside.tool(effect="read")
def look() -> str:
    """Look."""
    return ""


def finish(view: airside.View) -> airside.Finish:
    """Finish at once."""
    return airside.Finish(answer=1)


def app(agent: Any = finish, tools: Any = (look,), **fields: Any) -> airside.App:
    """Return an app of one agent."""
    return airside.App(agents={"clerk": agent}, tools=list(tools), policy=POLICY, directory=DIRECTORY, **fields)


def agent_with(lock: Any) -> Any:
    """Return a function that reaches a lock through another one."""

    def inner() -> bool:
        return bool(lock.acquire())

    def agent(view: airside.View) -> airside.Finish:
        return airside.Finish(answer=inner())

    return agent


class Holder:
    """An agent with a connection of its own."""

    def __init__(self) -> None:
        self.connection = threading.Lock()

    async def decide(self, view: airside.View) -> airside.Finish:
        """Finish."""
        return airside.Finish(answer=1)

    def call(self, view: airside.View) -> airside.Finish:
        """Finish."""
        return airside.Finish(answer=1)


def tool_with(lock: Any) -> Any:
    """Return a tool that uses a lock."""

    @airside.tool(effect="read")
    def count() -> int:
        """Count."""
        return int(lock.locked())

    return count


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"agent": agent_with(threading.Lock())}, "agent clerk .* inner.lock .lock."),
        ({"agent": Holder()}, "agent clerk .* connection .lock."),
        ({"agent": Holder().call}, "agent clerk .* connection .lock."),
        ({"tools": (look, tool_with(threading.Lock()))}, "tool count .* lock .lock."),
        ({"on_approval": agent_with(threading.Lock())}, "on_approval .* inner.lock .lock."),
    ],
)
def test_the_variable_that_cannot_be_pickled_is_named_in_a_line(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says) as caught:
        app(**fields).checked()
    assert "\n" not in caught.value.message and len(caught.value.message) < 500


def test_what_can_be_pickled_is_taken() -> None:
    assert app(agent=agent_with("text"), tools=(look, tool_with("text"))).checked()
