"""`BudgetClient`: what a run used reaches the gate, though the gate was away when it was first told."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from airside.stack.budget.ledger import Cap, Ledger
from airside.stack.contracts.budget import Settlement, SpendReply, SpendRequest, decision_key
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.cycle.budget_client import BudgetClient
from airside.stack.errors import InvalidConfig, InvalidInput, LayerUnavailable
from airside.stack.models.agent import ModelAgent
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import price_of
from airside.stack.values import Finish, Spend
from tests.helpers import RUN, submitted


class Policy:
    """A gate that is away for some requests, and notes what the others settle."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.settled: list[Settlement] = []

    async def decide(self, request: GateRequest) -> GateReply:
        """Nobody asks."""
        raise NotImplementedError

    async def spend(self, request: SpendRequest) -> SpendReply:
        """Answer, if it is there."""
        if self.away:
            self.away -= 1
            raise LayerUnavailable("policy is down")
        self.settled += request.settled
        return SpendReply()


def test_what_a_gate_was_told_while_it_was_away_is_told_again_and_then_no_more() -> None:
    """Otherwise the whole price stays held until the run has ended, and counts in full."""
    policy = Policy(away=1)
    account = BudgetClient(policy, submitted(), b"", 1, metered=True)
    price = Spend(tokens=60)
    account.ask(do.AskSpend(step=0, cause=0, price=price), wall_ms=1, now_us=1)
    account.decided(ev.StepDecided(step=0, agent="a", proposal=Finish(spend=Spend(tokens=10)), at_us=2, cause=0), 1)

    async def tell() -> None:
        reserve = do.Reserve(step=1, cause=0, price=price, wall_ms=1)
        refused = await account.reserve(reserve, now_us=lambda: 3)
        assert isinstance(refused, ev.SpendRefused) and refused.reason_code is ReasonCode.POLICY_ERROR
        await account.flush()
        await account.flush()

    asyncio.run(tell())
    assert [each.key for each in policy.settled] == [decision_key(RUN, 0, 1)]
    assert policy.settled[0].used["tokens"] == 10


@pytest.mark.parametrize("amount", [-1, True, 1.5, float("nan"), 2**53 + 1])
@pytest.mark.parametrize("unit", ["tokens", "cost_microusd"])
def test_a_price_that_is_no_count_is_refused_before_anything_is_recorded(unit: str, amount: int) -> None:
    """The journal could not decode the event that names it, and the gate not the batch it came in."""

    class Agent:
        price = Spend(**{unit: amount})

    with pytest.raises(InvalidConfig, match=f"its price: {unit}="):
        price_of(Agent())


def test_every_cap_of_a_unit_is_checked() -> None:
    caps = [Cap(unit="tokens", limit=-1, per="minute"), Cap(unit="tokens", limit=5)]
    with pytest.raises(InvalidInput, match="whole number"):
        Ledger().open("org", caps)


def test_in_the_lane_of_batches_a_model_agent_has_its_other_price_and_is_always_reserved() -> None:
    """What other agents decide is as ever."""
    agent = ModelAgent("openai:gpt-4o", "be brief")
    agent.price, agent.batch_price = Spend(cost_microusd=10), Spend(cost_microusd=5)
    first = submitted()
    batched = msgspec.structs.replace(first, request=msgspec.structs.replace(first.request, lane="provider_batch"))
    direct, lane = (BudgetClient(Policy(0), each, b"", 1, metered=False) for each in (first, batched))
    assert direct.terms(agent) == (True, Spend(cost_microusd=10), False)
    assert lane.terms(agent) == (True, Spend(cost_microusd=5), True)
    assert lane.terms(object()) == direct.terms(object()) == (False, None, False)


def test_a_decision_that_waited_for_a_batch_is_settled_under_the_epoch_it_was_begun_in_and_for_no_time() -> None:
    """Its process may have died since, and its time is the provider's."""
    policy = Policy(away=0)
    account = BudgetClient(policy, submitted(), b"", 7, metered=True)
    decided = ev.StepDecided(step=3, agent="a", proposal=Finish(spend=Spend(tokens=10)), at_us=10**12, cause=0)
    account.ask(do.AskSpend(step=3, cause=0, price=Spend(tokens=60)), wall_ms=0, now_us=1)
    account.decided(decided, 2, is_timed=False)
    asyncio.run(account.flush())
    assert [each.key for each in policy.settled] == [decision_key(RUN, 3, 2)]
    assert policy.settled[0].used == {"steps": 1, "tokens": 10, "cost_microusd": 0, "wall_ms": 0}
