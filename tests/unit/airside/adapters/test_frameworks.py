"""The agents of three frameworks under the same governance: one table of what becomes of the same task."""

from __future__ import annotations

import pytest

from airside.adapters.foreign import ForeignAgent
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.values import Limits
from tests.unit.airside.adapters.frameworks import ASK, DENY, FRAMEWORKS, REFUND, World, says


@pytest.fixture(params=sorted(FRAMEWORKS))
def agent(request: pytest.FixtureRequest) -> ForeignAgent:
    """Return each framework's agent."""
    made = FRAMEWORKS[request.param]()
    assert isinstance(made, ForeignAgent)
    return made


async def test_what_policy_allows_is_carried_out_once_and_the_answer_is_the_agents(agent: ForeignAgent) -> None:
    world = World(agent)
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED, outcome
    assert bytes(outcome.answer) == b'"You get your money back."'
    assert list(world.effects.values()) == [REFUND] and world.found == ["o-7"]
    assert len(world.model.prompts) == 3


async def test_a_call_that_policy_denies_ends_the_run_and_has_no_effect(agent: ForeignAgent) -> None:
    world = World(agent, policy=DENY)
    outcome = await world.run()
    assert outcome.reason_code == ReasonCode.POLICY_DENIED and not world.effects
    assert len(world.model.prompts) == 2


async def test_the_loop_is_told_of_a_denial_where_the_run_may_be_told_of_some(agent: ForeignAgent) -> None:
    world = World(agent, policy=DENY, limits=Limits(max_refusals=1))
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED and not world.effects
    assert "policy_denied" in world.model.told()[-1] and len(world.model.prompts) == 3


async def test_what_people_change_is_what_is_carried_out_and_the_loop_is_told_so(agent: ForeignAgent) -> None:
    world = World(agent, policy=ASK, edit={"order_id": "o-7", "cents": 1000})
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED and world.activations == 2
    assert list(world.effects.values()) == [{"order_id": "o-7", "cents": 1000}]
    told = world.model.told()[-1]
    assert "a person changed the arguments" in told and '"cents":1000' in told.replace(" ", "")
    assert len(world.model.prompts) == 3


async def test_a_budget_stops_the_loop_before_the_next_question(agent: ForeignAgent) -> None:
    price = agent.priced_by({"house": World(agent).model.rates}).price
    assert price is not None
    world = World(agent, limits=Limits(max_tokens=price.tokens + 49))
    outcome = await world.run()
    assert outcome.reason_code == ReasonCode.MAX_TOKENS and outcome.status == RunStatus.STOPPED
    assert len(world.model.prompts) == 1 and world.found == ["o-7"] and not world.effects


async def test_calls_that_a_model_asks_for_at_once_are_one_decision(agent: ForeignAgent) -> None:
    both = says(find_order={"order_id": "o-7"}, find_order_2={"order_id": "o-8"})
    world = World(agent, [both, says("Both are lost.")])
    outcome = await world.run()
    assert outcome.status == RunStatus.COMPLETED and sorted(world.found) == ["o-7", "o-8"]
    assert world.machine.state.usage.steps == 2 and len(world.model.prompts) == 2


async def test_wherever_its_process_dies_nothing_is_done_twice_and_no_model_asked_again(agent: ForeignAgent) -> None:
    """At each append, before it and after it; while a model answers; while a tool is at work."""
    limits = Limits(max_tokens=10**6, max_cost_microusd=10**7)  # a decision that is lost counts in full
    quiet = World(agent, policy=ASK, limits=limits)
    await quiet.run()
    assert quiet.points > 20
    for point in range(1, quiet.points + 1):
        world = World(agent, policy=ASK, limits=limits, crashes=frozenset({point}))
        outcome = await world.run()
        story = f"died at {point} of {quiet.points}\n{world.machine.story()}"
        assert outcome.status == RunStatus.COMPLETED, story
        assert bytes(outcome.answer) == b'"You get your money back."', story
        assert list(world.effects.values()) == [REFUND], story
        assert len(world.model.prompts) == 3, story
        assert world.journal.dead_epoch, story
