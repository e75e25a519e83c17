"""`ReplayAgent.from_run`: what a run on record proposed is proposed again."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from airside.stack.errors import InvalidInput
from airside.stack.ids import child_run
from airside.stack.run import events as ev
from airside.stack.run.agents import FunctionAgent, ReplayAgent, View
from airside.stack.run.recorded_run import recorded_decisions
from airside.stack.run.state import Phase
from airside.stack.run.topology import FanOutFanIn
from airside.stack.values import Action, Finish, Spend
from tests.helpers import RUN
from tests.recorded import Queried
from tests.unit.stack.cycle.test_cycle import World


def pay(amount: int) -> Action:
    return Action(tool="pay", arguments={"amount": amount}, spend=Spend(tokens=7))


class Pays:
    """Pays one amount, then two together, then ends."""

    price = Spend(tokens=14)

    async def decide(self, view: View) -> Any:
        decisions: dict[int, Any] = {0: pay(1), 1: [pay(2), pay(3)], 3: Finish(answer="paid", spend=Spend(tokens=2))}
        return decisions[len(view.history)]


async def played(agent: Any) -> World:
    world = World(agent)
    await world.run()
    return world


async def test_a_replayed_run_proposes_the_same_and_costs_nothing() -> None:
    first = await played(Pays())
    agent = pickle.loads(pickle.dumps(ReplayAgent.from_run(Queried(first.journal), RUN)))
    second = await played(agent)
    assert second.phase is Phase.COMPLETED and second.paid == first.paid == [1, 2, 3]
    assert second.cycle.machine.state.outcome == first.cycle.machine.state.outcome
    used = second.cycle.machine.usage()
    assert used.tokens == 0 and used.steps == first.cycle.machine.usage().steps


async def test_after_the_last_recorded_decision_it_finishes() -> None:
    """A run that was refused has no end on record that an agent proposed."""

    def denied(view: View) -> Any:
        return Action(tool="pay", arguments={"amount": 1}) if not view.history else Action(tool="nothing")

    first = await played(FunctionAgent(denied))
    assert first.phase is Phase.REFUSED
    decisions = recorded_decisions(Queried(first.journal), RUN)[""]
    second = World(ReplayAgent.from_run(Queried(first.journal), RUN, answer=lambda view: len(view.history)))
    await second.run()
    assert len(decisions) == 2 and second.cycle.machine.state.outcome == first.cycle.machine.state.outcome


async def test_a_step_that_the_record_has_no_decision_of_is_said() -> None:
    """The run took another way: what comes later on record is not an answer to what is asked now."""
    first = await played(Pays())
    agent = ReplayAgent.from_run(Queried(first.journal), RUN)
    second = await played(FunctionAgent(lambda view: agent.decide(replace(view, step=3))))
    failed = next(event for event in second.cycle.machine.events if isinstance(event, ev.DecideFailed))
    assert "decided nothing at step 3" in failed.error


async def test_branches_are_replayed_with_their_root() -> None:
    """Each branch by its place below it, whatever the new run is called."""
    parent = World(Pays(), FanOutFanIn(branches=("x", "x")))
    await parent.run()
    bodies = parent.journal.streams
    first = await played(Pays())
    bodies[child_run(RUN, 1, 1)] = first.journal.streams[RUN]
    found = recorded_decisions(Queried(parent.journal), RUN)
    assert set(found) == {"", ".1-1"} and len(found[".1-1"]) == 3 and not found[""]
    with pytest.raises(InvalidInput, match=f"name the run that it is one of, {RUN}"):
        recorded_decisions(Queried(parent.journal), child_run(RUN, 1, 1))


async def test_a_run_that_is_not_on_record_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the journal has no run"):
        ReplayAgent.from_run(Queried(World(Pays()).journal), RUN)
