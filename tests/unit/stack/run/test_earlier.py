"""`earlier_decisions`: what an agent decided since it was given control."""

from __future__ import annotations

from msgspec import Raw

from airside.stack.run import events as ev
from airside.stack.run.earlier import EarlierDecision, earlier_decisions, nothing_earlier
from airside.stack.run.topology import Branch, FanOut
from airside.stack.values import Action, Finish
from tests.helpers import Driven


def earlier(driven: Driven, agent: str = "a") -> tuple[EarlierDecision, ...]:
    """Return an agent's earlier decisions."""
    return earlier_decisions(driven.machine.events, driven.state.history, agent)


def paid(driven: Driven, amount: int) -> None:
    """Have the agent pay."""
    driven.propose(amount=amount)
    driven.gate(arguments=Raw(b'{"amount":%d,"currency":"eur"}' % amount), digest="d")
    driven.executed()


async def test_a_first_decision_has_none_before_it() -> None:
    driven = Driven()
    driven.activate()
    assert earlier(driven) == () == await nothing_earlier()


def test_a_call_is_told_as_it_was_proposed_and_as_it_was_carried_out() -> None:
    driven = Driven()
    driven.activate()
    paid(driven, 3)
    paid(driven, 4)
    assert [decision.step for decision in earlier(driven)] == [1, 2]
    (call,) = earlier(driven)[0].calls
    assert call.proposed.arguments == {"amount": 3} and not call.is_edited
    assert call.record.arguments == {"amount": 3, "currency": "eur"} and call.record.result.value() == "fine"


def test_calls_that_were_proposed_together_are_one_decision() -> None:
    driven = Driven()
    driven.activate()
    driven.propose_all(3)
    for _ in range(3):
        driven.gate()
        driven.executed()
    (decision,) = earlier(driven)
    assert [call.proposed.arguments["n"] for call in decision.calls] == [0, 1, 2]
    assert [call.record.step for call in decision.calls] == [1, 2, 3]


def test_what_a_person_changed_is_told_apart() -> None:
    driven = Driven()
    driven.activate()
    driven.propose(amount=3)
    driven.gate("require_approval")
    driven.approval("edited", arguments=Raw(b'{"amount":2}'), receipt="r")
    driven.gate(arguments=Raw(b'{"amount":2}'), digest="d")
    driven.executed()
    (call,) = earlier(driven)[0].calls
    assert call.is_edited and call.proposed.arguments == {"amount": 3} and call.record.arguments == {"amount": 2}


def test_an_agent_that_is_given_control_again_begins_anew() -> None:
    driven = Driven()
    driven.activate()
    paid(driven, 3)
    driven.visit()
    driven.decide(Finish(answer=1))
    assert earlier(driven) == ()
    paid(driven, 4)
    assert [call.proposed.arguments for decision in earlier(driven) for call in decision.calls] == [{"amount": 4}]


def test_an_agent_is_not_told_of_anothers_decisions() -> None:
    driven = Driven()
    driven.activate()
    paid(driven, 3)
    assert earlier(driven, "b") == ()


def test_what_was_decided_before_branches_is_of_another_visit() -> None:
    driven = Driven()
    driven.activate()
    paid(driven, 3)
    driven.send(ev.RoutePlanned, route=FanOut(branches=(Branch(route="b", text="t"),)))
    driven.child_ended(0)
    assert earlier(driven) == ()
    driven.visit()
    driven.decide(Action(tool="pay", arguments={"amount": 5}))
    driven.gate()
    driven.executed()
    assert [decision.calls[0].proposed.arguments for decision in earlier(driven)] == [{"amount": 5}]
