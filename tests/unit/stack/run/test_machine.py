"""`RunMachine`: examples of every rule, and random legal walks that check every invariant after every event."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from airside.stack.contracts.memory import MAX_SHOWN
from airside.stack.errors import IllegalTransition, InvariantBroken
from airside.stack.ids import ApprovalId, EffectKey, PrincipalId, RunId, effect_key
from airside.stack.reasons import ReasonCode, RunStatus, status_of
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.calls import MAX_SENDS
from airside.stack.run.invariants import check_growth
from airside.stack.run.machine import _OUTSTANDING, _TABLE, RunMachine
from airside.stack.run.state import OVER, OpenCall, Phase, RunState
from airside.stack.run.topology import Branch, Done, FanOut, GiveUp, Visit
from airside.stack.values import (
    FREE,
    NULL,
    Action,
    Finish,
    Handoff,
    Limits,
    Outcome,
    Spend,
    ToolCall,
    ToolResult,
    Usage,
)
from tests.helpers import RUN, Driven, concluded, decision, only, submitted, through_journal

R = ReasonCode
OK = Outcome(status="completed", reason_code=R.COMPLETED)


def started(**limits: int) -> Driven:
    """Return an activated run that asks for its first plan."""
    run = Driven(Limits(**limits))
    only(run.activate(), do.PlanRoute)
    return run


# The cycle.


def test_a_run_goes_through_the_phases_in_the_order_of_the_diagram() -> None:
    run = Driven()
    seen = [run.phase]
    run.activate()
    for go in (
        lambda: run.visit(query="q"),
        lambda: run.send(ev.MemoryRecalled, records=(("mem_1", 0.5),)),
        lambda: run.decide(Action(tool="pay", arguments={"n": 1})),
        run.gate,
        run.executed,
    ):
        seen.append(run.phase)
        go()
    assert seen == ["queued", "planning", "recalling", "deciding", "gating", "executing"]
    assert run.phase == "planning" and run.state.step == 2
    run.finish({"done": True})
    learn, conclude = run.send(ev.RoutePlanned, route=Done(answer={"done": True}))
    assert isinstance(learn, do.Learn) and learn.text == '{"done":true}'
    assert isinstance(conclude, do.Conclude) and bytes(conclude.outcome.answer) == b'{"done":true}'
    run.send(ev.MemoryLearned, record_id="mem_2", code="stored")
    run.end()
    assert run.phase == "completed" and run.machine.is_over


def test_a_visit_without_a_query_leaves_memory_alone() -> None:
    run = started()
    assert only(run.visit(agent="x"), do.Decide).agent == "x"


def test_labels_of_recalled_records_stay_with_the_run() -> None:
    run = started()
    run.visit(query="q")
    run.send(ev.MemoryRecalled, labels=("restricted",))
    run.decide(Finish())
    run.visit(query="q")
    run.send(ev.MemoryRecalled, labels=())
    assert run.state.labels == {"restricted"}


def test_a_run_knows_all_records_it_was_shown_and_its_branches_were_each_once() -> None:
    """One that begins with what its parent was shown says so too, and so does its outcome."""
    first = msgspec.structs.replace(submitted(), shown=("mem_0",))
    run = started()
    run.machine = RunMachine(first)
    run.activate()
    for ids in (("mem_1", "mem_2"), ("mem_2", "mem_3")):
        run.visit(query="q")
        run.send(ev.MemoryRecalled, records=tuple((each, 0.5) for each in ids))
        run.decide(Finish())
    assert run.state.shown == ("mem_0", "mem_1", "mem_2", "mem_3")
    run.fan_out(1)
    ended = msgspec.structs.replace(OK, shown=("mem_4", "mem_1"))
    run.send(ev.ChildEnded, branch=0, run_id=RunId("r"), outcome=ended, usage=Usage())
    _, conclude = run.send(ev.RoutePlanned, route=Done(answer="x"))
    assert isinstance(conclude, do.Conclude) and conclude.outcome.shown == tuple(f"mem_{n}" for n in range(5))


def test_a_run_that_was_shown_too_many_records_keeps_one_more_than_may_be() -> None:
    run = started()
    run.visit(query="q")
    run.send(ev.MemoryRecalled, records=tuple((f"mem_{number}", 0.5) for number in range(MAX_SHOWN + 9)))
    assert len(run.state.shown) == MAX_SHOWN + 1


def test_every_instruction_names_the_event_that_caused_it() -> None:
    run = started()
    assert only(run.visit(), do.Decide).cause == len(run.machine.events) - 1


def test_a_write_is_sent_only_after_its_intent_is_durable_and_a_read_overlaps() -> None:
    assert only(started().sent(effect="write"), do.Execute).durable_first
    assert only(started().sent(effect="irreversible"), do.Execute).durable_first
    assert not only(started().sent(effect="read"), do.Execute).durable_first


def test_a_decision_that_was_paid_for_is_durable_before_the_gate_uses_it() -> None:
    assert only(started().propose(spend=Spend(tokens=1)), do.GateCall).durable_first
    assert only(started().propose(spend=Spend(cost_microusd=1)), do.GateCall).durable_first
    assert not only(started().propose(), do.GateCall).durable_first


def test_the_history_holds_the_arguments_that_were_executed() -> None:
    run = started()
    run.propose(amount=1)
    run.gate(arguments=Raw(b'{"amount":1,"currency":"eur"}'), digest="d")
    run.executed()
    (record,) = run.state.history
    assert record.arguments == {"amount": 1, "currency": "eur"} and record.result.value() == "fine"


def test_a_plan_that_fails_ends_the_run_with_its_reason() -> None:
    run = started()
    assert concluded(run.send(ev.RouteFailed, reason_code=R.UNKNOWN_ROUTE_MODE, error="no x")).status == "refused"


def test_giving_up_ends_the_run_as_child_failed() -> None:
    run = started()
    assert concluded(run.send(ev.RoutePlanned, route=GiveUp(detail="b"))).reason_code == R.CHILD_FAILED


def test_a_memory_that_does_not_answer_ends_the_run() -> None:
    run = started()
    run.visit(query="q")
    assert concluded(run.send(ev.RecallFailed, error="down")).reason_code == R.MEMORY_UNAVAILABLE


@pytest.mark.parametrize("reason", [R.AGENT_ERROR, R.AGENT_TIMEOUT, R.AGENT_INVALID_ACTION])
def test_an_agent_that_cannot_decide_ends_the_run_as_failed(reason: ReasonCode) -> None:
    run = started()
    run.visit()
    outcome = concluded(run.send(ev.DecideFailed, agent="a", reason_code=reason, error="x"))
    assert (outcome.status, outcome.reason_code) == ("failed", reason)


# Limits.


def test_max_steps_stops_before_the_step_that_would_cross_it() -> None:
    run = started(max_steps=2)
    run.finish()
    run.finish()
    assert concluded(run.visit()).reason_code == R.MAX_STEPS
    assert run.state.usage.steps == 2


def test_a_run_that_used_its_last_step_may_still_finish() -> None:
    run = started(max_steps=1)
    run.finish(1)
    assert run.send(ev.RoutePlanned, route=Done(answer=1))[-1].outcome.reason_code == R.COMPLETED


def test_max_seconds_counts_active_time_and_stops_between_phases() -> None:
    run = started(max_seconds=2)
    run.visit()
    assert only(run.send(ev.StepDecided, agent="a", proposal=Finish(), after_us=1_997_000), do.PlanRoute)
    run.visit(agent="x")
    assert concluded(run.send(ev.StepDecided, agent="a", proposal=Finish(), after_us=500_000)).reason_code == (
        R.MAX_SECONDS
    )


def test_time_spent_waiting_for_a_person_is_not_active() -> None:
    run = started(max_seconds=2)
    run.propose()
    run.gate("require_approval")
    only(run.approval("approved", after_us=10**9), do.GateCall)
    assert run.state.usage.active_us < 100_000


def test_time_between_a_crash_and_the_next_activation_is_not_active() -> None:
    run = started(max_seconds=2)
    run.visit()
    only(run.send(ev.RunActivated, epoch=2, after_us=10**9), do.Decide)


def test_overtime_does_not_stop_a_call_that_was_sent_before_its_answer_is_in() -> None:
    run = started(max_seconds=1)
    run.sent()
    outcome = concluded(run.executed(after_us=5_000_000))
    assert outcome.reason_code == R.MAX_SECONDS and outcome.in_doubt == ()
    assert run.state.history[0].result.ok


def test_overtime_when_a_call_is_allowed_stops_before_sending_and_leaves_nothing_in_doubt() -> None:
    run = started(max_seconds=1)
    run.propose()
    outcome = concluded(run.gate(after_us=5_000_000))
    assert outcome.reason_code == R.MAX_SECONDS and outcome.in_doubt == ()


def test_a_call_that_people_approved_was_not_sent_before() -> None:
    """What a tool says of its first sending holds, however often the gate was asked before."""
    run = started()
    assert only(run.propose(), do.GateCall).sends == 0
    run.gate("require_approval")
    again = only(run.approval("approved"), do.GateCall)
    assert (again.attempt, again.sends) == (2, 0)
    run.gate(repeatable=True)
    assert only(run.lost(started=True), do.GateCall).sends == 1


def test_a_call_whose_tool_asks_something_is_paid_for_once() -> None:
    run = started(max_cost_microusd=5)
    run.sent(cost_microusd=5)
    asks = ToolResult(ok=False, reason_code=R.TOOL_ASKS, asked="sealed")
    assert only(run.executed(asks), do.GateCall).sends == 0, "what it asked before is no sending of this round"
    assert run.machine.remaining().max_cost_microusd == 5, "a rule on what remains does not see the call's own use"
    only(run.gate(cost_microusd=5), do.Execute)
    only(run.executed(), do.PlanRoute)
    assert run.state.usage.cost_microusd == 5 and run.machine.remaining().max_cost_microusd == 0


@pytest.mark.parametrize("ends", ["denied", "rejected", "expired"])
def test_a_call_that_is_refused_after_its_tool_asked_something_is_told_to_have_been_sent(ends: str) -> None:
    run = started(max_refusals=5)
    run.sent()
    run.executed(ToolResult(ok=False, reason_code=R.TOOL_ASKS, asked="sealed"))
    if ends == "denied":
        only(run.gate("deny"), do.PlanRoute)
    else:
        run.gate("require_approval")
        only(run.approval(ends), do.PlanRoute)
    assert "it was sent before" in run.state.history[0].result.error
    run.propose()
    only(run.gate("deny"), do.PlanRoute)
    assert "sent" not in run.state.history[1].result.error


def test_overtime_does_not_stop_a_call_whose_fate_is_being_asked_for() -> None:
    run = started(max_seconds=1)
    run.sent(repeatable=True)
    only(run.send(ev.ExecutionLost, attempt=1, started=True, error="x", after_us=5_000_000), do.GateCall)
    assert run.phase == "resuming"
    only(run.gate(repeatable=True), do.Execute)
    assert concluded(run.executed()).reason_code == R.MAX_SECONDS


@pytest.mark.parametrize(
    ("limit", "spend", "reason"),
    [
        ({"max_tokens": 9}, Spend(tokens=10), R.MAX_TOKENS),
        ({"max_cost_microusd": 9}, Spend(cost_microusd=10), R.MAX_COST),
    ],
)
def test_a_decision_dearer_than_what_is_left_is_not_bought(limit: Any, spend: Spend, reason: ReasonCode) -> None:
    run = started(**limit)
    assert concluded(run.propose(spend=spend)).reason_code == reason
    assert (run.state.usage.tokens, run.state.usage.cost_microusd) == (0, 0)
    unpriced = started(**limit)
    assert concluded(unpriced.propose(spend=spend, priced=False)).reason_code == reason


def test_a_decision_that_costs_something_is_bought_only_once_that_is_set_aside_and_durable() -> None:
    run = started()
    only(run.visit(price=Spend(tokens=7)), do.AskSpend)
    reserve = only(run.ask_spend(), do.Reserve)
    assert reserve.price == Spend(tokens=7) and reserve.durable_first
    only(run.send(ev.SpendReserved), do.Decide)
    other = started()
    other.visit(price=Spend(tokens=7))
    other.ask_spend()
    refused = other.send(ev.SpendRefused, reason_code=R.BUDGET_EXHAUSTED, detail="none left")
    assert concluded(refused).reason_code == R.BUDGET_EXHAUSTED and other.state.usage.tokens == 0


def test_a_decision_that_costs_more_than_its_price_is_paid_for_and_is_the_last() -> None:
    for price, reason in ((Spend(tokens=5), R.PRICE_EXCEEDED), (Spend(), R.PRICE_EXCEEDED), (None, R.PRICE_UNKNOWN)):
        run = started()
        run.visit(price=price)
        if price is not None:
            run.reserve()
        outcome = concluded(run.decide(Finish(spend=Spend(tokens=6))))
        assert outcome.reason_code == reason and run.state.usage.tokens == 6
        assert "a spent 6 tokens" in outcome.detail


@pytest.mark.parametrize("how", ["crash", "kill", "failure"])
def test_what_was_set_aside_for_a_decision_that_is_lost_counts_as_spent(how: str) -> None:
    run = started(max_tokens=12)
    run.visit(price=Spend(tokens=7))
    run.reserve()
    if how == "crash":
        assert concluded(run.activate()).reason_code == R.MAX_TOKENS  # it cannot be bought a second time
    elif how == "kill":
        run.send(ev.KillRequested, by="op", why="x")
    else:
        run.send(ev.DecideFailed, agent="a", reason_code=R.AGENT_ERROR, error="x")
    assert run.state.usage.tokens == 7 and run.state.reserved is None


@pytest.mark.parametrize("limit", [{"max_tokens": 10}, {"max_cost_microusd": 10}])
def test_a_decision_that_uses_a_budget_up_exactly_is_within_it(limit: dict[str, int]) -> None:
    only(started(**limit).propose(spend=Spend(tokens=10, cost_microusd=10)), do.GateCall)


def test_max_tool_calls_stops_before_the_call_that_would_cross_it() -> None:
    run = started(max_tool_calls=1)
    run.sent()
    run.executed()
    assert concluded(run.propose(n=2)).reason_code == R.MAX_TOOL_CALLS
    assert run.state.usage.tool_calls == 1


def test_max_cost_stops_before_a_tool_that_would_cross_it() -> None:
    run = started(max_cost_microusd=10)
    run.propose(spend=Spend(cost_microusd=6))
    assert concluded(run.gate(cost_microusd=5)).reason_code == R.MAX_COST
    other = started(max_cost_microusd=10)
    other.propose(spend=Spend(cost_microusd=6))
    only(other.gate(cost_microusd=4), do.Execute)


def test_nobody_is_asked_about_a_tool_that_would_cross_max_cost() -> None:
    run = started(max_cost_microusd=10)
    run.propose(spend=Spend(cost_microusd=6))
    assert concluded(run.gate("require_approval", cost_microusd=5)).reason_code == R.MAX_COST


def test_max_output_ends_the_run_once_its_tools_returned_too_much() -> None:
    run = started(max_output_bytes=10)
    run.sent()
    only(run.executed(ToolResult(ok=True, output=Raw(b'"12345678"'))), do.PlanRoute)
    run.sent()
    assert concluded(run.executed(ToolResult(ok=True, output=Raw(b"1")))).reason_code == R.MAX_OUTPUT


def test_max_handoffs_ends_the_run_at_the_one_too_many() -> None:
    run = started(max_handoffs=1)
    run.visit()
    only(run.decide(Handoff(agent="b", message="hello")), do.PlanRoute)
    assert (run.state.holder, run.state.message) == ("b", "hello")
    run.visit(agent="b")
    assert concluded(run.decide(Handoff(agent="c"))).reason_code == R.MAX_HANDOFFS


def test_max_depth_stops_a_fan_out_below_it() -> None:
    deep = Driven(Limits(max_depth=2), depth=2)
    deep.activate()
    assert concluded(deep.fan_out(1)).reason_code == R.MAX_DEPTH
    fits = Driven(Limits(max_depth=2), depth=1)
    fits.activate()
    only(fits.fan_out(1), do.SpawnChildren)


def test_the_same_call_more_than_max_repeats_times_is_a_loop() -> None:
    run = started(max_repeats=2, max_refusals=9)
    for _ in range(2):
        run.propose(n=1)
        run.gate("deny")
    assert concluded(run.propose(n=1)).reason_code == R.LOOP_DETECTED


def test_the_order_of_arguments_does_not_hide_a_loop_and_other_arguments_are_no_loop() -> None:
    run = started(max_repeats=1, max_refusals=9)
    run.propose(a=1, b=2)
    run.gate("deny")
    run.propose(a=1, b=3)
    run.gate("deny")
    assert concluded(run.propose(b=2, a=1)).reason_code == R.LOOP_DETECTED


def test_a_refusal_ends_the_run_with_its_own_reason_when_none_is_allowed() -> None:
    run = started(max_refusals=0)
    run.propose()
    denied = decision("deny", reason=R.TOOL_UNKNOWN)
    assert concluded(run.gate(decision=denied)).reason_code == R.TOOL_UNKNOWN


def test_the_agent_is_told_of_max_refusals_refusals_and_the_next_ends_the_run() -> None:
    run = started(max_refusals=2)
    for n in range(2):
        run.propose(n=n)
        only(run.gate(decision=decision("deny", detail="closed")), do.PlanRoute)
    assert [(r.result.ok, r.result.reason_code, r.result.error) for r in run.state.history] == [
        (False, R.POLICY_DENIED, "closed")
    ] * 2
    run.propose(n=2)
    assert concluded(run.gate("deny")).status == "refused"


def test_remaining_is_the_limits_less_the_usage_and_never_below_zero() -> None:
    run = started(max_tokens=10, max_cost_microusd=100, max_steps=5)
    run.propose(spend=Spend(tokens=15, cost_microusd=30), priced=False)
    left = run.machine.remaining()
    assert (left.max_tokens, left.max_cost_microusd, left.max_steps) == (0, 70, 4)


# Approvals.


def waiting() -> Driven:
    """Return a run that waits for people."""
    run = started(max_refusals=1)
    run.propose(amount=5)
    ask = only(run.gate("require_approval", arguments=Raw(b'{"amount":5}'), digest="d"), do.AskApproval)
    assert ask.durable_first and run.machine.is_parked
    return run


def test_an_approved_call_is_gated_again_with_the_receipt() -> None:
    run = waiting()
    gate = only(run.approval("approved", receipt="sealed"), do.GateCall)
    assert (gate.receipt, gate.action.arguments, gate.attempt) == ("sealed", {"amount": 5}, 2)
    only(run.gate(), do.Execute)


def test_an_edited_call_is_gated_again_with_the_new_arguments() -> None:
    run = waiting()
    gate = only(run.approval("edited", receipt="sealed", arguments=Raw(b'{"amount":4}')), do.GateCall)
    assert gate.action.arguments == {"amount": 4} and gate.action.tool == "pay"


def test_an_expired_call_is_a_refusal_the_agent_is_told_of() -> None:
    run = waiting()
    only(run.approval("expired"), do.PlanRoute)
    assert run.state.history[0].result.reason_code == R.APPROVAL_EXPIRED and run.state.usage.refusals == 1


def test_the_decision_of_another_approval_changes_nothing() -> None:
    run = waiting()
    assert run.approval("approved", approval_id=ApprovalId("apr_other")) == []
    assert run.phase == "awaiting_approval"


def test_a_receipt_does_not_outlive_its_step() -> None:
    run = waiting()
    run.approval("approved", receipt="sealed")
    run.gate()
    run.executed()
    assert only(run.propose(amount=6), do.GateCall).receipt == ""


def test_a_suspended_run_asks_for_its_approval_again_when_activated() -> None:
    run = waiting()
    assert run.send(ev.RunSuspended, why="idle") == []
    assert run.phase == "suspended" and run.machine.is_parked
    ask = only(run.activate(), do.AskApproval)
    assert run.phase == "awaiting_approval" and ask.gated.approval_id == run.state.gated.approval_id


# Fan-out.


def test_each_branch_gets_an_equal_share_of_what_is_left() -> None:
    run = started(max_steps=10, max_tool_calls=9, max_tokens=100, max_cost_microusd=50, max_output_bytes=31)
    run.propose(spend=Spend(tokens=1, cost_microusd=2))
    run.gate(decision=decision("allow"))
    run.executed(ToolResult(ok=True, output=Raw(b"1")))
    spawn = only(run.fan_out(3), do.SpawnChildren)
    share = spawn.limits
    assert spawn.durable_first and len(spawn.branches) == 3
    assert (share.max_steps, share.max_tool_calls, share.max_tokens) == (2, 2, 33)
    assert (share.max_cost_microusd, share.max_output_bytes) == (16, 10)


@given(left=st.integers(0, 1000), parts=st.integers(1, 12))
def test_shares_never_add_up_to_more_than_what_is_left(left: int, parts: int) -> None:
    run = started(max_steps=left + 1, max_tokens=left, max_cost_microusd=left, max_tool_calls=left)
    share = only(run.fan_out(parts), do.SpawnChildren).limits
    assert all(
        given_each * parts <= left
        for given_each in (share.max_steps, share.max_tokens, share.max_cost_microusd, share.max_tool_calls)
    )


@given(order=st.permutations(range(4)))
def test_branches_end_in_any_order_and_are_joined_in_their_own(order: list[int]) -> None:
    run = started()
    run.fan_out(4)
    for branch in order[:-1]:
        assert run.child_ended(branch, usage={"tokens": 10}) == []
    only(run.child_ended(order[-1], usage={"tokens": 10, "steps": 2, "output_bytes": 5}), do.PlanRoute)
    assert [end.answer for end in run.machine.topology_state().branches or ()] == [0, 1, 2, 3]
    assert (run.state.usage.tokens, run.state.usage.steps, run.state.usage.output_bytes) == (40, 3, 5)


def test_a_branch_that_ends_twice_is_counted_once() -> None:
    run = started()
    run.fan_out(2)
    run.child_ended(0, usage={"tokens": 10})
    assert run.child_ended(0, usage={"tokens": 10}) == []
    assert run.state.usage.tokens == 10 and run.phase == "awaiting_children"


def test_a_failed_branch_is_shown_to_the_topology_as_such() -> None:
    run = started()
    run.fan_out(1)
    run.child_ended(0, reason=R.MAX_COST)
    (end,) = run.machine.topology_state().branches or ()
    assert (end.ok, end.reason_code, end.answer) == (False, R.MAX_COST, None)


@pytest.mark.parametrize(
    ("used", "reason"), [("tokens", R.MAX_TOKENS), ("cost_microusd", R.MAX_COST), ("output_bytes", R.MAX_OUTPUT)]
)
def test_branches_that_together_overspend_stop_the_parent(used: str, reason: ReasonCode) -> None:
    run = started(max_tokens=100, max_cost_microusd=100, max_output_bytes=100)
    run.fan_out(2)
    assert run.child_ended(0, usage={used: 50}) == []
    assert concluded(run.child_ended(1, usage={used: 51})).reason_code == reason


@pytest.mark.parametrize("used", ["tokens", "cost_microusd", "output_bytes"])
def test_branches_that_use_a_budget_up_exactly_are_within_it(used: str) -> None:
    run = started(max_tokens=100, max_cost_microusd=100, max_output_bytes=100)
    run.fan_out(2)
    run.child_ended(0, usage={used: 50})
    only(run.child_ended(1, usage={used: 50}), do.PlanRoute)


def test_a_branch_that_overspends_stops_the_parent_before_the_others_end() -> None:
    run = started(max_tokens=100)
    run.fan_out(3)
    assert concluded(run.child_ended(1, usage={"tokens": 101})).reason_code == R.MAX_TOKENS


def test_the_late_end_of_an_earlier_fan_out_does_not_count_for_the_next() -> None:
    run = started()
    run.fan_out(1)
    first = run.state.step
    run.child_ended(0)
    run.fan_out(1)
    late = ev.ChildEnded(
        at_us=run.now_us, step=first, branch=0, run_id=RunId("r"), outcome=OK, usage=Usage(tokens=10, steps=1)
    )
    assert not run.machine.accepts(late)
    assert_illegal(run.machine, late)
    only(run.child_ended(0), do.PlanRoute)


def test_a_branch_the_fan_out_does_not_have_is_not_counted() -> None:
    run = started()
    run.fan_out(1)
    assert run.child_ended(7) == []


# Recovery.


def one_of_two_reads(run: Driven) -> None:
    """Bring a run to where the second of two reads is back."""
    run.propose_all(2, reads=True)
    second = run.state.step + 1
    run.send_read(second)
    run.read(second)


OUTSTANDING = {
    "planning": (lambda run: None, do.PlanRoute),
    "recalling": (lambda run: run.visit(query="q"), do.Recall),
    "asking": (lambda run: run.visit(price=Spend(tokens=1)), do.AskSpend),
    "reserving": (lambda run: (run.visit(price=Spend(tokens=1)), run.ask_spend()), do.AskSpend),
    "deciding": (lambda run: run.visit(), do.Decide),
    "gating": (lambda run: run.propose(), do.GateCall),
    "reading": (lambda run: one_of_two_reads(run), do.GateCall),
    "intending": (lambda run: (run.propose(), run.gate(intent=False)), do.GateCall),
    "resuming": (lambda run: (run.sent(repeatable=True), run.lost(started=True)), do.GateCall),
    "awaiting_approval": (lambda run: (run.propose(), run.gate("require_approval")), do.AskApproval),
    "awaiting_children": (lambda run: run.fan_out(2), do.SpawnChildren),
    "in_doubt": (lambda run: (run.sent(), run.lost(started=True)), do.AwaitResolution),
    "concluding": (lambda run: run.send(ev.CancelRequested, by=PrincipalId("ann")), do.Conclude),
}


@pytest.mark.parametrize("phase", OUTSTANDING)
def test_activation_asks_again_for_whatever_is_outstanding(phase: str) -> None:
    run = started()
    reach, kind = OUTSTANDING[phase]
    reach(run)
    assert run.phase == phase
    again = only(run.activate(), kind)
    assert again.step == run.state.step and run.state.epoch == 2


def test_an_activation_under_an_older_epoch_never_lowers_the_epoch() -> None:
    run = started()
    run.send(ev.RunActivated, epoch=7)
    run.send(ev.RunActivated, epoch=3)
    assert run.state.epoch == 7


def test_every_live_phase_knows_what_is_outstanding() -> None:
    assert set(_OUTSTANDING) == set(Phase) - OVER - {Phase.QUEUED, Phase.SUSPENDED}


def test_a_run_that_recalled_recalls_again_because_the_journal_holds_no_texts() -> None:
    run = started()
    run.visit(query="q")
    run.send(ev.MemoryRecalled)
    only(run.activate(), do.Recall)


def test_a_repeatable_call_in_flight_at_a_crash_is_sent_again_under_the_same_key() -> None:
    run = started()
    first = only(run.sent(repeatable=True, cost_microusd=7), do.Execute)
    only(run.activate(), do.GateCall)
    assert run.phase == "resuming"
    second = only(run.gate(repeatable=True, cost_microusd=7), do.Execute)
    assert second.key == first.key and second.attempt == first.attempt + 1
    assert (run.state.usage.tool_calls, run.state.usage.cost_microusd) == (1, 7)
    run.executed()
    assert run.state.in_doubt_keys == {} and len(run.state.history) == 1


def test_a_call_in_flight_that_cannot_be_repeated_is_never_sent_again() -> None:
    run = started()
    run.sent(repeatable=False)
    wait = only(run.activate(), do.AwaitResolution)
    assert run.phase == "in_doubt" and wait.durable_first


@pytest.mark.parametrize("reason", [R.TOOL_TIMEOUT, R.TOOL_IN_DOUBT])
def test_a_write_that_timed_out_or_does_not_know_is_in_doubt_and_a_read_has_just_failed(reason: ReasonCode) -> None:
    run = started()
    run.sent(effect="write")
    only(run.failed(reason), do.AwaitResolution)
    other = started()
    other.sent(effect="read")
    only(other.failed(reason), do.PlanRoute)
    assert other.state.history[0].result.reason_code == reason


def test_a_call_that_held_its_event_loop_is_not_sent_again_though_its_tool_could_be() -> None:
    run = started()
    run.sent(repeatable=True)
    held = ToolResult(ok=False, error="pay held its event loop at x.py:1", reason_code=R.TOOL_TIMEOUT, held=True)
    assert only(run.executed(held), do.AwaitResolution)
    assert run.phase == "in_doubt" and run.state.sends == 1
    assert "nobody could say (pay held its event loop at x.py:1)" in concluded(run.send(ev.InDoubtExpired)).detail


@pytest.mark.parametrize("outcome", ["deny", "require_approval"])
def test_a_refusal_while_resuming_means_in_doubt_and_not_that_nothing_happened(outcome: str) -> None:
    run = started(max_refusals=5)
    run.sent(repeatable=True)
    run.activate()
    only(run.gate(outcome), do.AwaitResolution)
    assert list(run.state.in_doubt_keys) == [run.key] and run.state.usage.refusals == 0


def test_a_read_is_never_in_doubt() -> None:
    run = started(max_refusals=5)
    run.sent(effect="read")
    only(run.activate(), do.GateCall)
    only(run.gate("deny", effect="read"), do.PlanRoute)
    assert run.state.in_doubt_keys == {} and run.state.history[0].result.reason_code == R.POLICY_DENIED


def test_a_read_that_is_resumed_may_still_need_an_approval() -> None:
    run = started()
    run.sent(effect="read")
    run.activate()
    only(run.gate("require_approval", effect="read"), do.AskApproval)
    only(run.approval("approved", receipt="r"), do.GateCall)
    assert run.phase == "gating" and run.state.in_doubt_keys == {}


@pytest.mark.parametrize("crashes", [1, 2])
def test_a_read_that_is_sent_again_is_counted_and_paid_for_once(crashes: int) -> None:
    run = started(max_tool_calls=1, max_cost_microusd=7)
    run.sent(effect="read", cost_microusd=7)
    for _ in range(crashes):
        only(run.activate(), do.GateCall)
        only(run.gate(effect="read", cost_microusd=7), do.Execute)
    assert (run.state.usage.tool_calls, run.state.usage.cost_microusd) == (1, 7)
    only(run.executed(), do.PlanRoute)


@pytest.mark.parametrize("reason", [R.COMPLETED, R.TOOL_FAILED, R.TOOL_TIMEOUT, R.TOOL_IN_DOUBT, R.GRANT_STALE])
def test_a_read_never_leaves_a_key_unsettled(reason: ReasonCode) -> None:
    run = started()
    run.sent(effect="read")
    assert run.state.in_doubt_keys == {}
    run.executed(ToolResult(ok=reason is R.COMPLETED, output=Raw(b"1"), reason_code=reason))
    assert run.state.in_doubt_keys == {}


@pytest.mark.parametrize("lose", [lambda run: run.lost(started=True), lambda run: run.activate()])
def test_a_read_that_is_lost_never_leaves_a_key_unsettled(lose: Any) -> None:
    run = started()
    run.sent(effect="read")
    lose(run)
    assert run.phase == "resuming" and run.state.in_doubt_keys == {}
    assert concluded(run.send(ev.LayerFailed, error="x")).in_doubt == ()


def test_killing_a_run_that_reads_leaves_nothing_in_doubt() -> None:
    run = started()
    run.sent(effect="read")
    assert concluded(run.send(ev.KillRequested, by="op", why="x")).in_doubt == ()


@pytest.mark.parametrize("reason", [R.GRANT_INVALID, R.GRANT_STALE, R.TOOL_UNAVAILABLE])
def test_a_call_the_executor_refused_is_gated_again_and_its_price_given_back(reason: ReasonCode) -> None:
    run = started()
    run.sent(cost_microusd=7)
    only(run.failed(reason), do.GateCall)
    assert run.phase == "gating" and run.state.in_doubt_keys == {}
    assert (run.state.usage.tool_calls, run.state.usage.cost_microusd) == (0, 0)


def test_a_call_that_never_starts_is_sent_max_sends_times_and_then_fails() -> None:
    run = started()
    run.propose()
    for _ in range(MAX_SENDS - 1):
        run.gate()
        only(run.lost(started=False), do.GateCall)
    run.gate()
    outcome = concluded(run.lost(started=False))
    assert outcome.reason_code == R.TOOL_UNAVAILABLE and outcome.in_doubt == ()


@pytest.mark.parametrize("effect", ["write", "read"])
def test_a_call_that_kills_its_executor_is_sent_max_sends_times(effect: str) -> None:
    run = started()
    run.propose()
    for _ in range(MAX_SENDS - 1):
        run.gate(effect=effect, repeatable=True)
        only(run.lost(started=True), do.GateCall)
    run.gate(effect=effect, repeatable=True)
    last = run.lost(started=True)
    if effect == "write":
        only(last, do.AwaitResolution)
    else:
        assert concluded(last).reason_code == R.TOOL_UNAVAILABLE


def test_a_resent_call_that_was_refused_before_it_started_stays_ambiguous() -> None:
    run = started()
    run.sent(repeatable=True)
    run.lost(started=True)
    run.gate(repeatable=True)
    only(run.lost(started=False), do.GateCall)
    assert run.phase == "resuming" and run.state.in_doubt_keys


def test_a_person_can_say_that_it_happened_or_that_it_did_not() -> None:
    for happened in (True, False):
        run = started(doubt_wait_s=60)
        run.sent()
        assert only(run.lost(started=True), do.AwaitResolution).seconds == 60
        only(run.send(ev.InDoubtResolved, by=PrincipalId("bob"), happened=happened, output=Raw(b"7")), do.PlanRoute)
        (record,) = run.state.history
        assert record.result.ok is happened and run.state.in_doubt_keys == {}


def test_a_doubt_nobody_settles_ends_the_run_naming_the_key() -> None:
    run = started()
    run.sent()
    key = run.key
    run.lost(started=True)
    outcome = concluded(run.send(ev.InDoubtExpired))
    assert (outcome.status, outcome.in_doubt) == ("in_doubt", (key,))
    run.end()
    assert run.phase == "ended_in_doubt"


def test_the_expiry_of_an_earlier_doubt_does_not_end_the_present_one() -> None:
    run = started(doubt_wait_s=60)
    run.sent()
    run.lost(started=True)
    earlier = run.state.step
    run.send(ev.InDoubtResolved, by=PrincipalId("bob"), happened=True)
    run.sent()
    run.lost(started=True)
    late = ev.InDoubtExpired(at_us=run.now_us, step=earlier)
    assert not run.machine.accepts(late)
    assert_illegal(run.machine, late)
    assert run.phase == "in_doubt"


# From outside.


def test_a_kill_during_a_write_says_that_it_is_in_doubt() -> None:
    run = started()
    run.sent()
    key = run.key
    outcome = concluded(run.send(ev.KillRequested, by="op", why="stuck"))
    assert (outcome.status, outcome.in_doubt) == ("killed", (key,))


@pytest.mark.parametrize("phase", OUTSTANDING)
def test_a_run_can_be_killed_and_cancelled_in_every_phase(phase: str) -> None:
    for kind, fields, reason in (
        (ev.KillRequested, {"by": "op", "why": "x"}, R.KILLED_BY_OPERATOR),
        (ev.KillRequested, {"by": "driver", "why": "x", "reason_code": R.KILLED_RUNAWAY}, R.KILLED_RUNAWAY),
        (ev.CancelRequested, {"by": PrincipalId("ann")}, R.CANCELLED),
        (ev.LayerFailed, {"error": "x"}, R.INTERNAL_ERROR),
    ):
        run = started()
        OUTSTANDING[phase][0](run)
        answer = run.send(kind, **fields)
        if phase == "concluding":
            assert answer == [] and run.outcome.reason_code == R.CANCELLED
        else:
            assert concluded(answer).reason_code == reason


def test_a_run_that_waits_in_the_queue_can_be_killed() -> None:
    assert concluded(Driven().send(ev.KillRequested, by="op", why="x")).status == "killed"


ENDINGS = {
    Phase.COMPLETED: lambda run: run.send(ev.RoutePlanned, route=Done(answer=1)),
    Phase.REFUSED: lambda run: (run.propose(), run.gate("deny")),
    Phase.STOPPED: lambda run: (run.visit(), run.decide(Finish(spend=Spend(tokens=10**9)))),
    Phase.FAILED: lambda run: run.send(ev.LayerFailed, error="x"),
    Phase.CANCELLED: lambda run: run.send(ev.CancelRequested, by=PrincipalId("ann")),
    Phase.KILLED: lambda run: run.send(ev.KillRequested, by="op", why="x"),
    Phase.ENDED_IN_DOUBT: lambda run: (run.sent(), run.lost(started=True), run.send(ev.InDoubtExpired)),
}


@pytest.mark.parametrize("phase", sorted(OVER))
def test_every_terminal_phase_is_reached_and_takes_nothing_more(phase: Phase) -> None:
    run = started()
    ENDINGS[phase](run)
    run.end()
    assert run.state.phase is phase
    for event in samples(run.state):
        assert not run.machine.accepts(event)
        with pytest.raises(IllegalTransition):
            run.machine.handle(event)


def test_every_status_has_a_terminal_phase_and_every_reason_a_status() -> None:
    assert {status_of(reason) for reason in ReasonCode} == set(RunStatus)


# Illegal events.


def samples(state: RunState) -> list[ev.Event]:
    """Return one event of every kind, at the present step."""
    at, step = state.last_us, state.step
    ended = Outcome(status="completed", reason_code=R.COMPLETED)
    gated: dict[str, Any] = {"tool": "pay", "decision": decision()}
    return [
        submitted(),
        ev.RunActivated(at_us=at, epoch=9),
        ev.RoutePlanned(at_us=at, step=step, route=Visit(agent="a")),
        ev.RouteFailed(at_us=at, step=step, reason_code=R.UNKNOWN_ROUTE_MODE, error="x"),
        ev.MemoryRecalled(at_us=at, step=step),
        ev.RecallFailed(at_us=at, step=step, error="x"),
        ev.SpendAsked(at_us=at, step=step, epoch=1, price=None, wall_ms=1),
        ev.SpendReserved(at_us=at, step=step),
        ev.SpendRefused(at_us=at, step=step, reason_code=R.BUDGET_EXHAUSTED, detail="x"),
        ev.StepDecided(at_us=at, step=step, agent="a", proposal=Finish()),
        ev.DecideFailed(at_us=at, step=step, agent="a", reason_code=R.AGENT_ERROR, error="x"),
        ev.ActionGated(at_us=at, step=step, attempt=1, **gated),
        ev.ApprovalDecided(at_us=at, step=step, approval_id=ApprovalId("x"), outcome="approved"),
        ev.EffectIntended(at_us=at, step=step, attempt=1, key=EffectKey("k"), tool="t", digest=""),
        ev.ToolExecuted(at_us=at, step=step, attempt=1, result=ToolResult(ok=True)),
        ev.ExecutionLost(at_us=at, step=step, attempt=1, started=True, error="x"),
        ev.InDoubtResolved(at_us=at, step=step, by=PrincipalId("bob"), happened=True),
        ev.InDoubtExpired(at_us=at, step=step),
        ev.MemoryLearned(at_us=at, step=step, record_id="m", code="stored"),
        ev.ChildEnded(at_us=at, step=step, branch=0, run_id=RunId("r"), outcome=ended, usage=Usage()),
        ev.CancelRequested(at_us=at, by=PrincipalId("ann")),
        ev.KillRequested(at_us=at, by="op", why="x"),
        ev.RunSuspended(at_us=at, why="x"),
        ev.LayerFailed(at_us=at, step=step, error="x"),
        ev.RunEnded(at_us=at, outcome=ended, usage=Usage()),
    ]


def snapshot(state: RunState) -> RunState:
    """Return a copy that later changes of `state` do not reach."""
    return dataclasses.replace(
        state,
        history=list(state.history),
        repeats=dict(state.repeats),
        in_doubt_keys=dict(state.in_doubt_keys),
        children=dict(state.children),
        later=list(map(dataclasses.replace, state.later)),
        reading={step: dataclasses.replace(call) for step, call in state.reading.items()},
    )


def assert_illegal(machine: RunMachine, event: ev.Event) -> None:
    """Assert that `event` is refused with the story, and changes nothing."""
    before, count = snapshot(machine.state), len(machine.events)
    with pytest.raises(IllegalTransition) as caught:
        machine.handle(event)
    assert machine.state == before and len(machine.events) == count
    text = caught.value.message
    assert type(event).__name__ in text and f"phase {machine.state.phase}" in text and machine.story() in text


@pytest.mark.parametrize("phase", OUTSTANDING)
def test_an_event_the_phase_has_no_row_for_is_illegal_and_changes_nothing(phase: str) -> None:
    run = started()
    OUTSTANDING[phase][0](run)
    refused = [event for event in samples(run.state) if (run.state.phase, type(event)) not in _TABLE]
    assert len(refused) > 10
    for event in refused:
        assert_illegal(run.machine, event)


@pytest.mark.parametrize("away", [-1, 1, 5])
@pytest.mark.parametrize("phase", [*OUTSTANDING, "executing"])
def test_an_event_of_another_step_is_illegal_and_not_accepted(phase: str, away: int) -> None:
    run = started()
    run.finish()
    (run.sent if phase == "executing" else lambda: OUTSTANDING[phase][0](run))()
    assert run.phase == phase and run.state.step >= 2
    rows = [e for e in samples(run.state) if (run.state.phase, type(e)) in _TABLE and hasattr(e, "step")]
    if phase == "reading":  # of its rows, a read waits for one at a time
        rows = [event for event in rows if isinstance(event, ev.ActionGated | ev.LayerFailed)]
    assert rows
    for event in rows:
        assert run.machine.accepts(event)
        other = msgspec.structs.replace(event, step=run.state.step + away)
        assert not run.machine.accepts(other)
        assert_illegal(run.machine, other)


def test_what_comes_from_outside_belongs_to_no_step() -> None:
    run = started()
    for event in (ev.KillRequested(at_us=0, by="op", why=""), ev.CancelRequested(at_us=0, by=PrincipalId("ann"))):
        assert run.machine.accepts(event)


def test_the_claim_of_an_activation_changes_nothing_but_its_bytes() -> None:
    one, other = (ev.RunActivated(at_us=5, epoch=1, claim=claim) for claim in ("a", "b"))
    assert ev.encode_event(one) != ev.encode_event(other)
    assert ev.decode_event(ev.encode_event(one)) == one
    runs = [RunMachine.replay([submitted(), event]) for event in (one, other, ev.RunActivated(at_us=5, epoch=1))]
    assert runs[0].state == runs[1].state == runs[2].state


def test_replay_of_a_stream_that_does_not_begin_with_a_submission_is_illegal() -> None:
    with pytest.raises(IllegalTransition, match="begins with RunSubmitted"):
        RunMachine.replay([ev.RunActivated(at_us=0, epoch=1)])


def test_the_story_tells_every_event_with_its_cause() -> None:
    run = started()
    run.propose(amount=5)
    run.gate("deny")
    lines = run.machine.story().splitlines()
    assert len(lines) == len(run.machine.events) + 1
    assert "submitted by ann@acme" in lines[1] and "proposes pay(amount=5)" in lines[4]


@pytest.mark.parametrize("proposal", [Action(tool="pay", arguments={"n": 2**70}), Finish(answer=2**70)])
def test_a_number_wider_than_64_bits_does_not_break_the_machine(proposal: Any) -> None:
    from airside.stack.cycle.agent_call import validate_proposal
    from airside.stack.errors import InvalidInput

    run = started()
    run.visit()
    with pytest.raises(InvalidInput):
        validate_proposal(proposal)


# Invariants.


def test_check_finds_each_kind_of_broken_state() -> None:
    def broken(change: Any) -> str:
        run = started()
        run.sent()
        change(run.state)
        with pytest.raises(InvariantBroken) as caught:
            run.machine.check()
        return caught.value.message.split(": ")[1]

    assert broken(lambda s: setattr(s, "usage", Usage(steps=99))) == "1"
    assert broken(lambda s: setattr(s, "usage", Usage(tool_calls=99))) == "1"
    assert broken(lambda s: setattr(s, "allowed", None)) == "2"
    assert broken(lambda s: setattr(s, "in_doubt_keys", {})) == "3"
    assert broken(lambda s: s.in_doubt_keys.update(other=1)) == "3"
    assert broken(lambda s: setattr(s, "usage", Usage(tokens=-1))) == "4"
    assert broken(lambda s: setattr(s, "outcome", Outcome(status="x", reason_code=R.COMPLETED))) == "5"
    assert broken(lambda s: s.reading.update({1: OpenCall(step=1, action=Action(tool="pay"))})) == "8"


@pytest.mark.parametrize("before", [(frozenset({"x"}), 0, 0), (frozenset(), 5, 0), (frozenset(), 0, 5)])
def test_check_growth_finds_what_shrank(before: Any) -> None:
    with pytest.raises(InvariantBroken):
        check_growth(before, started().state)


# Random walks.
#
# Hypothesis gives the seed and `random` the steps: drawn one by one, steps stay near the simplest and reach a third of
# the table's rows.  `test_the_walks_reach_every_row_of_the_table` holds that these reach all.

seeds = st.integers(0, 2**32)


def some_limits(luck: random.Random) -> Limits:
    """Return limits, every second time too wide to matter."""
    if luck.random() < 0.5:
        return Limits(max_seconds=10_000, max_refusals=50, max_repeats=1000, max_depth=8, doubt_wait_s=5)
    return Limits(
        max_steps=luck.randint(0, 12),
        max_seconds=luck.randint(1, 20),
        max_tool_calls=luck.randint(0, 6),
        max_tokens=luck.randint(0, 60),
        max_cost_microusd=luck.randint(0, 60),
        max_output_bytes=luck.randint(0, 60),
        max_repeats=luck.randint(1, 4),
        max_refusals=luck.randint(0, 3),
        max_rejections=luck.randint(0, 3),
        max_handoffs=luck.randint(0, 3),
        max_depth=luck.randint(0, 2),
    )


class Walk:
    """Answers the outstanding instruction with a random legal event, and lets things happen from outside.

    One that `is_old` journals its intents apart, as was done before format 2.
    """

    def __init__(self, seed: int) -> None:
        self.luck = random.Random(seed)
        self.run = Driven(some_limits(self.luck), depth=self.luck.randint(0, 1))
        self.is_old = self.luck.random() < 0.2
        self.todo: list[do.Instruction] = []
        self.seen: set[tuple[Phase, type[ev.Event]]] = set()

    def steps(self, most: int) -> None:
        """Let up to `most` things happen; stop when the run is over."""
        for _ in range(self.luck.randint(1, most)):
            if not self.run.machine.is_over:
                self.step()

    def step(self) -> None:
        """Let one thing happen."""
        phase, before = self.run.state.phase, len(self.run.machine.events)
        happens = self.luck.random()
        if happens < 0.03:
            self.from_outside()
        elif self.run.phase in ("awaiting_approval", "in_doubt") and happens < 0.12:
            self.run.send(ev.RunSuspended, why="idle")
            if self.luck.random() < 0.8:
                self.todo = self.run.activate()
            else:
                self.from_outside()
        elif phase is Phase.QUEUED or happens < 0.15:
            self.todo = self.run.activate()
            assert self.todo
        elif phase is Phase.INTENDING:
            gated = self.run.state.gated
            fields = {"attempt": gated.attempt, "key": self.run.key, "tool": gated.tool, "digest": gated.digest}
            self.todo = self.run.send(ev.EffectIntended, **fields)
        else:
            self.answer(self.luck.choice(self.todo) if self.run.phase == "reading" else self.todo[0])
        self.seen.add((phase, type(self.run.machine.events[before])))
        if len(self.run.machine.events) > before + 1:
            self.seen.add((Phase.SUSPENDED, type(self.run.machine.events[before + 1])))

    def from_outside(self) -> None:
        """Kill, cancel, or have a layer fail."""
        kind, fields = self.luck.choice(
            [
                (ev.KillRequested, {"by": "op", "why": ""}),
                (ev.CancelRequested, {"by": PrincipalId("ann")}),
                (ev.LayerFailed, {"error": "x", "step": min(self.run.state.reading, default=self.run.state.step)}),
            ]
        )
        self.todo = self.run.send(kind, **fields) or self.todo

    def answer(self, instruction: do.Instruction) -> None:
        """Answer an instruction; one that is still waited for stays outstanding."""
        after = self.luck.choice([0, 1000, 1000, 400_000, 3_000_000])
        new = getattr(self, "on_" + type(instruction).__name__.lower())(instruction, after)
        if self.run.phase == "reading":
            self.todo = [*(each for each in self.todo if each is not instruction), *new]
        else:
            self.todo = [*self.todo[1:], *new] if isinstance(instruction, do.Learn) else (new or self.todo)

    def rarely(self) -> bool:
        return self.luck.random() < 0.04

    def on_planroute(self, i: do.PlanRoute, after: int) -> Any:
        if self.rarely():
            return self.run.send(ev.RouteFailed, reason_code=R.UNKNOWN_ROUTE_MODE, error="x", after_us=after)
        visit = Visit(agent="a", query=self.luck.choice([None, "q"]))
        fan_out = FanOut(branches=(Branch(route="b", text="t"),) * self.luck.randint(1, 3))
        route = self.luck.choices([visit, fan_out, Done(answer=1), GiveUp()], weights=[16, 2, 1, 1])[0]
        price = Spend(tokens=self.luck.randint(0, 20), cost_microusd=self.luck.randint(0, 20))
        terms = {"metered": True, "price": self.luck.choice([None, price, price])} if self.luck.random() < 0.7 else {}
        return self.run.send(ev.RoutePlanned, route=route, after_us=after, **terms)

    def on_askspend(self, i: do.AskSpend, after: int) -> Any:
        wall_ms = self.luck.randint(0, 9)
        return self.run.send(ev.SpendAsked, epoch=self.run.state.epoch, price=i.price, wall_ms=wall_ms, after_us=after)

    def on_reserve(self, i: do.Reserve, after: int) -> Any:
        assert i.durable_first
        if self.rarely():
            return self.run.send(ev.SpendRefused, reason_code=R.BUDGET_EXHAUSTED, detail="x", after_us=after)
        return self.run.send(ev.SpendReserved, after_us=after)

    def on_recall(self, i: do.Recall, after: int) -> Any:
        if self.rarely():
            return self.run.send(ev.RecallFailed, error="x", after_us=after)
        labels = self.luck.choice([(), ("restricted",)])
        return self.run.send(ev.MemoryRecalled, labels=labels, after_us=after)

    def on_decide(self, i: do.Decide, after: int) -> Any:
        if self.rarely():
            return self.run.send(ev.DecideFailed, agent="a", reason_code=R.AGENT_ERROR, error="x", after_us=after)
        price = self.run.state.price or FREE
        spend = Spend(tokens=self.luck.randint(0, price.tokens), cost_microusd=price.cost_microusd)
        if self.rarely():
            spend = Spend(tokens=price.tokens + 1)
        action = Action(tool="pay", arguments={"a": self.luck.randint(0, 9)}, spend=spend)
        finish = Finish(answer=self.luck.choice([None, "x", {"a": [1.5]}]), spend=spend)
        handoff = Handoff(agent=self.luck.choice("ab"), spend=spend)
        proposal = self.luck.choices([action, finish, handoff], weights=[8, 1, 1])[0]
        later: tuple[ToolCall, ...] = ()
        if proposal is action and self.luck.random() < 0.5:
            arguments = [{"a": self.luck.randint(0, 9)} for _ in range(self.luck.randint(1, 4))]
            later = tuple(ToolCall(tool="pay", arguments=each) for each in arguments)
        reads = bool(later) and self.luck.random() < 0.6
        fields = {"agent": "a", "proposal": proposal, "later": later, "reads": reads}
        return self.run.send(ev.StepDecided, **fields, after_us=after)

    def on_gatecall(self, i: do.GateCall, after: int) -> Any:
        decided = decision(self.luck.choice(["allow"] * 6 + ["deny", "require_approval", "require_approval"]))
        if decided.outcome == "deny":
            decided = msgspec.structs.replace(decided, steered=self.luck.random() < 0.3)
        is_old = self.is_old and self.run.phase != "reading"
        effects = ["read"] * (8 if self.run.phase == "reading" else 1) + ["write", "irreversible"]
        return self.run.gate(
            decided.outcome,
            decision=decided,
            step=i.step,
            attempt=i.attempt,
            effect=self.luck.choice(effects),
            intent=decided.outcome == "allow" and not is_old,
            repeatable=self.luck.random() < 0.5,
            cost_microusd=self.luck.randint(0, 10),
            after_us=after,
        )

    def on_askapproval(self, i: do.AskApproval, after: int) -> Any:
        outcome = self.luck.choice(["approved", "edited", "rejected", "expired", "stale"])
        if outcome == "stale":
            assert self.run.approval("approved", approval_id=ApprovalId("apr_stale"), after_us=after) == []
            return []
        edited = Raw(b'{"a":0}') if outcome == "edited" else NULL
        return self.run.approval(outcome, arguments=edited, receipt="r", after_us=after)

    def on_execute(self, i: do.Execute, after: int) -> Any:
        assert i.gated.decision.outcome == "allow" and i.key == effect_key(RUN, i.step)
        of_call = {"step": i.step, "attempt": i.attempt, "after_us": after}
        if self.luck.random() < 0.25:
            return self.run.send(ev.ExecutionLost, started=self.luck.random() < 0.7, error="died", **of_call)
        reason = self.luck.choice(
            [R.COMPLETED] * 4 + [R.TOOL_FAILED, R.TOOL_TIMEOUT, R.TOOL_IN_DOUBT, R.GRANT_STALE, R.TOOL_UNAVAILABLE]
        )
        result = ToolResult(ok=reason is R.COMPLETED, output=Raw(b'{"a":1}'), reason_code=reason)
        return self.run.send(ev.ToolExecuted, result=result, **of_call)

    def on_spawnchildren(self, i: do.SpawnChildren, after: int) -> Any:
        branch = self.luck.randint(0, len(i.branches) - 1)
        names = {"steps": "max_steps", "tokens": "max_tokens", "cost_microusd": "max_cost_microusd"}
        usage = {name: self.luck.randint(0, getattr(i.limits, limit)) for name, limit in names.items()}
        reason = self.luck.choice([R.COMPLETED, R.MAX_STEPS])
        again = branch in self.run.state.children
        new = self.run.child_ended(branch, reason=reason, usage=usage, after_us=0 if again else after)
        assert not (again and new), "a branch that ends twice is counted once"
        return new

    def on_awaitresolution(self, i: do.AwaitResolution, after: int) -> Any:
        if self.luck.random() < 0.5:
            return self.run.send(ev.InDoubtExpired, after_us=after)
        happened = self.luck.random() < 0.5
        return self.run.send(ev.InDoubtResolved, by=PrincipalId("bob"), happened=happened, after_us=after)

    def on_learn(self, i: do.Learn, after: int) -> Any:
        return self.run.send(ev.MemoryLearned, record_id="m", code="stored", after_us=after)

    def on_conclude(self, i: do.Conclude, after: int) -> Any:
        return self.run.send(ev.RunEnded, outcome=i.outcome, usage=self.run.state.usage, after_us=after)


def assert_same(one: RunMachine, other: RunMachine) -> None:
    """Assert that two machines are in the same state, whatever types JSON made of tuples."""
    a, b = one.state, other.state
    assert (a.price, a.reserved) == (b.price, b.reserved)
    names = ("phase", "epoch", "step", "usage", "labels", "outcome", "in_doubt_keys", "repeats", "attempt", "sends")
    names += ("base", "last", "seen", "later", "reading")
    for name in (*names, "ambiguous", "holder", "allowed", "receipt", "resume_to"):
        assert getattr(a, name) == getattr(b, name), name
    assert [(r.step, r.result.ok, r.arguments) for r in a.history] == [
        (r.step, r.result.ok, r.arguments) for r in b.history
    ]


@settings(max_examples=300, deadline=None)
@given(seed=seeds)
def test_random_legal_walks_keep_every_invariant_and_replay_to_the_same_state(seed: int) -> None:
    walk = Walk(seed)
    machine = walk.run.machine
    keys: set[str] = set()
    outcome = None
    for _ in range(walk.luck.randint(1, 60)):
        if machine.is_over:
            break
        walk.step()
        assert outcome is None or machine.state.outcome == outcome, "5: the outcome never changes"
        outcome = machine.state.outcome
        keys |= machine.state.in_doubt_keys.keys()
    replayed = RunMachine.replay(through_journal(event) for event in machine.events)
    replayed.check()
    assert_same(machine, replayed)
    # Whatever happened before, the run can be ended, and only once.
    if not machine.is_over:
        walk.run.send(ev.KillRequested, by="op", why="end")
        walk.run.end()
    assert machine.is_over and not any(machine.accepts(event) for event in samples(machine.state))
    assert set(machine.state.outcome.in_doubt) <= keys  # type: ignore[union-attr]


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_an_illegal_event_anywhere_in_a_walk_changes_nothing(seed: int) -> None:
    walk = Walk(seed)
    walk.steps(40)
    machine = walk.run.machine
    for event in samples(machine.state):
        if (machine.state.phase, type(event)) not in _TABLE:
            assert_illegal(machine, event)


@settings(max_examples=200, deadline=None)
@given(seed=seeds)
def test_a_crash_after_any_event_resumes_from_what_is_durable(seed: int) -> None:
    walk = Walk(seed)
    walk.steps(50)
    events = walk.run.machine.events[: walk.luck.randint(1, len(walk.run.machine.events))]
    machine = RunMachine.replay(events)
    if machine.is_over:
        return
    sent, gated = machine.state.phase is Phase.EXECUTING, machine.state.gated
    instructions = machine.handle(ev.RunActivated(at_us=machine.state.last_us, epoch=machine.state.epoch + 1))
    machine.check()
    assert instructions
    assert not any(isinstance(i, do.Execute) for i in instructions), "an effect is gated and intended anew"
    if sent and gated is not None and not gated.repeatable and gated.effect != "read":
        assert machine.state.phase is Phase.IN_DOUBT


def test_the_walks_reach_every_row_of_the_table() -> None:
    seen: set[tuple[Phase, type[ev.Event]]] = set()
    for seed in range(6000):
        if set(_TABLE) <= seen:
            break
        walk = Walk(seed)
        walk.steps(60)
        seen |= walk.seen
    assert not set(_TABLE) - seen


# A decision that waits for a provider's batch.


def batched() -> Driven:
    """Return a run whose agent is asked for a decision that waits for a batch."""
    run, price = Driven(Limits(max_seconds=60)), Spend(tokens=100, cost_microusd=50)
    only(run.activate(), do.PlanRoute)
    run.send(ev.RoutePlanned, route=Visit(agent="a", query="q"), metered=True, price=price, batched=True)
    run.send(ev.MemoryRecalled, records=())
    run.send(ev.SpendAsked, epoch=run.state.epoch, price=price, wall_ms=0)
    only(run.send(ev.SpendReserved), do.Decide)
    return run


def test_waiting_for_a_batch_is_no_active_time() -> None:
    """A day in which the provider works is none of the run's seconds."""
    run = batched()
    before = run.machine.usage().active_us
    run.send(ev.StepDecided, agent="a", proposal=Finish(answer=1), after_us=86_400_000_000)
    assert run.phase == Phase.PLANNING and run.machine.usage().active_us == before


def test_a_decision_that_waits_for_a_batch_goes_on_with_what_is_reserved() -> None:
    """The death of its process costs nothing, however often, and it is known by the epoch it was begun under."""
    run = batched()
    first = run.state.epoch
    for _ in range(2):
        only(run.activate(), do.Recall)
    only(run.send(ev.MemoryRecalled, records=()), do.Decide)
    assert run.state.epoch > first and run.state.decision_epoch == first
    assert run.state.reserved == Spend(tokens=100, cost_microusd=50) and run.machine.usage().cost_microusd == 0
    run.send(ev.StepDecided, agent="a", proposal=Finish(answer=1, spend=Spend(tokens=9, cost_microusd=5)))
    assert run.machine.usage().cost_microusd == 5 and run.state.decision_epoch == run.state.epoch
