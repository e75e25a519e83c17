"""Where a run goes next: the contract every topology keeps, and the four that ship.

`next_step(state) -> Route` is pure: the same state gives the same route.  A route is a visit to an agent (with the
query memory is asked), a fan-out into child runs, or the end.  A topology names agents; whether they exist is the
runtime's to check, and a name that does not exist ends the run with `unknown_route_mode`.
What a route holds is bounded before it is journaled (`stack/cycle/routing.py`).
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Raw

from airside.stack.calling import explain_misuse
from airside.stack.errors import InvalidConfig
from airside.stack.values import NULL, Request, Spoken, Value


class Visit(Spoken, tag="visit"):
    """Let `agent` decide the next step; `query` is what memory is asked first, None to leave memory alone."""

    agent: str
    query: str | None = None


class Branch(Spoken):
    """One child of a fan-out: a route of the app, a text, and inputs (the parent's when None)."""

    route: str
    text: str
    inputs: Raw = NULL


class FanOut(Spoken, tag="fan_out"):
    """Start these branches as runs of their own; each gets an equal share of what the parent has left."""

    branches: tuple[Branch, ...]


class Done(Spoken, tag="done"):
    """The run is finished with this answer."""

    answer: Any = None


class GiveUp(Spoken, tag="give_up"):
    """The run cannot go on because a branch failed."""

    detail: str = ""


Route = Visit | FanOut | Done | GiveUp


class StageEnd(Value):
    """An agent finished its part."""

    agent: str
    answer: Any = None


class BranchEnd(Value):
    """A branch of the latest fan-out ended; `answer` is None unless it completed."""

    route: str
    ok: bool
    reason_code: str
    answer: Any = None


class TopologyState(Value):
    """What a topology may look at."""

    request: Request
    finished: tuple[StageEnd, ...] = ()
    holder: str | None = None
    branches: tuple[BranchEnd, ...] | None = None


class Topology(Protocol):
    """Says where a run goes next.  Pure; raising is a `RouteFailed`, which ends the run."""

    def next_step(self, state: TopologyState) -> Route:
        """Return the next route for `state`."""

    def agents(self) -> tuple[str, ...]:
        """Return the names of the agents it may visit, so that a missing one is found at start."""


@explain_misuse()
class SingleAgent:
    """One agent until it finishes."""

    def __init__(self, agent: str) -> None:
        self.agent = agent

    def next_step(self, state: TopologyState) -> Route:
        """Visit the agent, then end with its answer."""
        if state.finished:
            return Done(answer=state.finished[-1].answer)
        return Visit(agent=self.agent, query=state.request.text)

    def agents(self) -> tuple[str, ...]:
        """Return the agent's name."""
        return (self.agent,)


@explain_misuse(how="Pipeline('first agent', 'second agent')")
class Pipeline:
    """Agents one after the other; each sees the answers of those before it.  The last one's answer is the run's."""

    def __init__(self, *stages: str) -> None:
        if not stages:
            raise InvalidConfig("Pipeline: give at least one stage, the name of an agent")
        self.stages = stages

    def next_step(self, state: TopologyState) -> Route:
        """Visit the first stage that has not finished."""
        done = len(state.finished)
        if done >= len(self.stages):
            return Done(answer=state.finished[-1].answer)
        return Visit(agent=self.stages[done], query=state.request.text)

    def agents(self) -> tuple[str, ...]:
        """Return the stages' names."""
        return self.stages


@explain_misuse()
class Handoffs:
    """Control starts at `entry` and goes where the holder hands it (at most `Limits.max_handoffs` times).

    `members` are the agents that may hold it; a handoff to anybody else is an unknown route.
    """

    def __init__(self, entry: str, members: tuple[str, ...] = ()) -> None:
        self.entry = entry
        self.members = tuple(dict.fromkeys((entry, *members)))

    def next_step(self, state: TopologyState) -> Route:
        """Visit whoever holds control, until somebody finishes."""
        if state.finished:
            return Done(answer=state.finished[-1].answer)
        holder = state.holder or self.entry
        if holder not in self.members:
            raise LookupError(f"{holder!r} is not one of {list(self.members)}")
        return Visit(agent=holder, query=state.request.text)

    def agents(self) -> tuple[str, ...]:
        """Return the members' names."""
        return self.members


@explain_misuse()
class FanOutFanIn:
    """Branches run side by side as runs of their own; then `join`, if given, makes one answer of theirs.

    Without `join` the answer is the list of the branches' answers, and a branch that failed fails the run.
    """

    def __init__(self, branches: tuple[str, ...], join: str | None = None) -> None:
        if not branches:
            raise InvalidConfig("FanOutFanIn: give at least one branch, the name of a route")
        self.branches = branches
        self.join = join

    def next_step(self, state: TopologyState) -> Route:
        """Fan out, then join."""
        if state.branches is None:
            text = state.request.text
            return FanOut(branches=tuple(Branch(route=name, text=text) for name in self.branches))
        if state.finished:
            return Done(answer=state.finished[-1].answer)
        if self.join is not None:
            return Visit(agent=self.join, query=state.request.text)
        failed = [f"{branch.route}: {branch.reason_code}" for branch in state.branches if not branch.ok]
        if failed:
            return GiveUp(detail="; ".join(failed))
        return Done(answer=[branch.answer for branch in state.branches])

    def agents(self) -> tuple[str, ...]:
        """Return the joining agent's name, if there is one."""
        return (self.join,) if self.join else ()
