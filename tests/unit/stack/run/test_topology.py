"""The four topologies: where a run goes from each state, and that going there is pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import InvalidConfig
from airside.stack.run.topology import (
    BranchEnd,
    Done,
    FanOut,
    FanOutFanIn,
    GiveUp,
    Handoffs,
    Pipeline,
    SingleAgent,
    StageEnd,
    Topology,
    TopologyState,
    Visit,
)
from airside.stack.values import Request


def state(*answers: Any, **fields: Any) -> TopologyState:
    """Return the state after stages with these answers."""
    finished = tuple(StageEnd(agent=f"s{n}", answer=answer) for n, answer in enumerate(answers))
    return TopologyState(**({"request": Request(text="what?"), "finished": finished} | fields))


def end(route: str, answer: Any = None, *, ok: bool = True) -> BranchEnd:
    """Return the end of a branch."""
    return BranchEnd(route=route, ok=ok, reason_code="completed" if ok else "max_cost", answer=answer)


def test_a_single_agent_is_visited_until_it_finishes_and_its_answer_is_the_runs() -> None:
    assert SingleAgent("a").next_step(state()) == Visit(agent="a", query="what?")
    assert SingleAgent("a").next_step(state({"x": 1})) == Done(answer={"x": 1})


@given(stages=st.lists(st.text("abc", min_size=1), min_size=1, max_size=6))
def test_a_pipeline_visits_each_stage_once_in_order_and_answers_with_the_last(stages: list[str]) -> None:
    pipeline, visited, answers = Pipeline(*stages), [], []
    while isinstance(route := pipeline.next_step(state(*answers)), Visit):
        visited.append(route.agent)
        answers.append(len(visited))
    assert visited == stages and route == Done(answer=len(stages))


def test_control_goes_from_the_entry_to_whoever_it_was_handed_to() -> None:
    desk = Handoffs("desk", ("pay", "ship"))
    assert desk.next_step(state()) == Visit(agent="desk", query="what?")
    assert desk.next_step(state(holder="ship")) == Visit(agent="ship", query="what?")
    assert desk.next_step(state("sent", holder="ship")) == Done(answer="sent")
    assert desk.agents() == ("desk", "pay", "ship") and Handoffs("a", ("a", "b", "b")).agents() == ("a", "b")


def test_a_handoff_to_a_stranger_is_an_unknown_route() -> None:
    with pytest.raises(LookupError, match="'mallory'"):
        Handoffs("desk", ("pay",)).next_step(state(holder="mallory"))


def test_a_fan_out_starts_its_branches_with_the_requests_text() -> None:
    route = FanOutFanIn(("x", "y")).next_step(state())
    assert isinstance(route, FanOut)
    assert [(b.route, b.text, bytes(b.inputs)) for b in route.branches] == [
        ("x", "what?", b"null"),
        ("y", "what?", b"null"),
    ]


def test_without_a_join_the_answers_are_listed_in_the_order_of_the_branches() -> None:
    assert FanOutFanIn(("x", "y")).next_step(state(branches=(end("x", 1), end("y", 2)))) == Done(answer=[1, 2])


def test_without_a_join_a_failed_branch_fails_the_run_and_is_named() -> None:
    route = FanOutFanIn(("x", "y")).next_step(state(branches=(end("x", 1), end("y", ok=False))))
    assert route == GiveUp(detail="y: max_cost")


def test_a_join_sees_failed_branches_too_and_its_answer_is_the_runs() -> None:
    joined = FanOutFanIn(("x",), join="j")
    branches = (end("x", ok=False),)
    assert joined.next_step(state(branches=branches)) == Visit(agent="j", query="what?")
    assert joined.next_step(state("sum", branches=branches)) == Done(answer="sum")
    assert joined.agents() == ("j",) and FanOutFanIn(("x",)).agents() == ()


@pytest.mark.parametrize("make", [lambda: Pipeline(), lambda: FanOutFanIn(())])
def test_a_topology_of_nothing_is_refused(make: Any) -> None:
    with pytest.raises(InvalidConfig, match="at least one"):
        make()


@pytest.mark.parametrize(
    "topology", [SingleAgent("a"), Pipeline("a", "b"), Handoffs("a", ("b",)), FanOutFanIn(("x",), "j")]
)
def test_the_same_state_gives_the_same_route_however_often_it_is_asked(topology: Topology) -> None:
    states = [state(), state(1), state(holder="b"), state(branches=(end("x", 1),)), state(1, branches=(end("x", 1),))]
    first = [topology.next_step(s) for s in states]
    assert [topology.next_step(s) for s in reversed(states)] == first[::-1]
    visited = {route.agent for route in first if isinstance(route, Visit)}
    assert visited <= set(topology.agents()), "`agents` names whoever it may visit"
