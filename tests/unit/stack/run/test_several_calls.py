"""A decision that proposes several calls: each is governed by itself, and the agent hears of all of them at once."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from airside.stack.cycle.agent_call import only_reads, several
from airside.stack.errors import IllegalTransition, InvalidInput
from airside.stack.ids import effect_key
from airside.stack.operations.overview import detail_of
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.calls import MAX_SENDS
from airside.stack.run.rejections import refused_as_repeats
from airside.stack.run.spans import spans_of
from airside.stack.values import MAX_CALLS, Action, Finish, Limits, Spend, ToolResult
from tests.helpers import RUN, Driven, concluded, decision, only, spec

R = ReasonCode
COSTLY = Spend(tokens=3, cost_microusd=5)


def started(**limits: int) -> Driven:
    """Return an activated run that asks for its first plan."""
    run = Driven(Limits(**limits))
    run.activate()
    return run


def steps_of(run: Driven) -> list[int]:
    """Return the steps of the history."""
    return [record.step for record in run.state.history]


def call(run: Driven, **gate: Any) -> Any:
    """Bring the present call to its result."""
    run.gate(**gate)
    return run.executed()


# What an agent may return.


def test_several_actions_are_one_decision_paid_for_together() -> None:
    """A list or a tuple, whose costs are added up on the first call."""
    proposed = [Action(tool="a", spend=Spend(tokens=1)), Action(tool="b", spend=Spend(tokens=2, cost_microusd=9))]
    first, later = several(tuple(proposed))
    assert first == Action(tool="a", spend=Spend(tokens=3, cost_microusd=9))
    assert [each.tool for each in later] == ["b"]
    assert several(proposed[:1]) == (proposed[0], ())


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ([], "returned 0 calls"),
        ([Action(tool="a")] * (MAX_CALLS + 1), f"give 1 to {MAX_CALLS}"),
        ([Action(tool="a"), Finish()], "one of them is Finish"),
        ([Action(tool="a"), Action(tool=3)], "tool must be text"),  # type: ignore[arg-type]
        ([Action(tool="a", arguments={"x": "y" * 600_000})] * 2, "over the bound"),
    ],
)
def test_what_is_no_list_of_calls_is_refused_with_what_to_do(answer: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        several(answer)


def test_calls_are_counted_one_by_one_whatever_their_list_says() -> None:
    class Short(list[Action]):
        def __len__(self) -> int:
            return 2

    with pytest.raises(InvalidInput, match=f"give 1 to {MAX_CALLS}"):
        several(Short([Action(tool="a")] * 1000))


def test_calls_are_made_at_once_only_if_every_tool_is_declared_to_read() -> None:
    tools = [spec("look", effect="read"), spec("peek", effect="read"), spec("pay", effect="write")]

    def reads(*names: str) -> bool:
        first, later = several([Action(tool=name) for name in names])
        return only_reads((first, *later), tools)

    assert reads("look", "peek")
    assert not reads("look", "pay") and not reads("look", "unknown")


# One after the other.


def test_calls_come_one_after_the_other_under_steps_of_their_own() -> None:
    run = started()
    first = only(run.propose_all(3), do.GateCall)
    assert (first.step, first.action.arguments) == (1, {"n": 0})
    second = only(call(run), do.GateCall)
    assert (second.step, second.action.arguments, second.attempt) == (2, {"n": 1}, 1)
    only(call(run), do.GateCall)
    assert only(call(run), do.PlanRoute).step == 4
    assert steps_of(run) == [1, 2, 3] and (run.state.usage.steps, run.state.usage.tool_calls) == (1, 3)


@pytest.mark.parametrize("ending", ["denied", "rejected", "expired", "failed", "settled"])
def test_a_call_that_comes_to_nothing_does_not_stop_the_next_one(ending: str) -> None:
    """Every call gets its own result."""
    run = started(max_refusals=5)
    run.propose_all(2)
    if ending == "denied":
        following = run.gate("deny")
    elif ending in ("rejected", "expired"):
        run.gate("require_approval")
        following = run.approval(ending)
    elif ending == "failed":
        run.gate()
        following = run.failed(R.TOOL_FAILED)
    else:
        run.gate()
        run.lost(started=True)
        following = run.send(ev.InDoubtResolved, by="bob", happened=False)
    assert only(following, do.GateCall).step == 2
    only(call(run), do.PlanRoute)
    assert [record.result.ok for record in run.state.history] == [False, True]


def test_what_ends_the_run_ends_it_with_the_later_calls_never_gated() -> None:
    run = started(max_refusals=0)
    run.propose_all(3)
    assert concluded(run.gate("deny")).reason_code == R.POLICY_DENIED
    run.end()
    assert "never gated: step 2 pay, step 3 pay" in run.machine.story().splitlines()[-1]


@pytest.mark.parametrize(("most", "reason"), [("max_tool_calls", R.MAX_TOOL_CALLS), ("max_repeats", R.LOOP_DETECTED)])
@pytest.mark.parametrize("reads", [True, False])
def test_calls_and_repeats_are_counted_before_the_first_is_gated(most: str, reason: ReasonCode, reads: bool) -> None:
    run = started(**{most: 2})
    run.visit()
    outcome = concluded(run.decide(*[Action(tool="pay", arguments={"n": 1})] * 3, reads=reads))
    assert outcome.reason_code == reason and run.state.usage.tool_calls == 0


@pytest.mark.parametrize("reads", [True, False])
def test_what_a_decision_cost_is_durable_before_its_first_call_is_gated(reads: bool) -> None:
    run = started()
    asked = run.propose_all(2, reads=reads, spend=COSTLY)
    assert all(isinstance(each, do.GateCall) and each.durable_first for each in asked)
    assert len(asked) == (2 if reads else 1)


@pytest.mark.parametrize("reads", [True, False])
def test_all_calls_are_decided_about_by_the_labels_the_agent_had(reads: bool) -> None:
    """What the first of them returns was written after the others were proposed."""
    run = started()
    run.propose_all(2, reads=reads)
    if reads:
        run.send_read(2)
        run.read(2)
    else:
        call(run)
    assert run.state.labels == {"untrusted"} and run.state.seen == set()


def test_a_crash_between_two_calls_goes_on_with_the_second() -> None:
    run = started()
    run.propose_all(2)
    call(run)
    again = only(run.activate(), do.GateCall)
    assert again.step == 2 and steps_of(run) == [1]


def test_a_rejection_holds_against_a_later_call_of_the_same_decision() -> None:
    run = started()
    run.visit()
    run.decide(*[Action(tool="pay", arguments={"n": 1})] * 2)
    run.gate("require_approval", approval_id="apr_1")
    run.approval("rejected")
    only(run.gate("require_approval", approval_id="apr_2"), do.PlanRoute)
    assert [record.result.reason_code for record in run.state.history] == [R.APPROVAL_REJECTED] * 2
    assert list(refused_as_repeats(run.machine.events).values()) == ["was rejected before by bob"]


# At once.


def test_reads_are_gated_together_and_told_together_in_the_order_of_their_steps() -> None:
    run = started()
    assert [each.step for each in run.propose_all(3, reads=True)] == [1, 2, 3]
    for step in (2, 3, 1):
        execute = only(run.send_read(step, counted=step == 3), do.Execute)
        assert execute.key == effect_key(RUN, step) and execute.durable_first is (step == 3)
    assert run.read(3) == [] and run.read(1) == []
    assert run.phase == "reading"
    assert only(run.read(2), do.PlanRoute).step == 4
    assert steps_of(run) == [1, 2, 3] and (run.state.usage.steps, run.state.usage.tool_calls) == (1, 3)


def test_a_denied_read_is_recorded_and_stops_no_other() -> None:
    run = started(max_refusals=1)
    run.propose_all(2, reads=True)
    assert run.gate_read(1, "deny") == []
    run.send_read(2)
    only(run.read(2), do.PlanRoute)
    assert [record.result.reason_code for record in run.state.history] == [R.POLICY_DENIED, R.COMPLETED]


@pytest.mark.parametrize("way", ["approval", "not started", "lost", "no read", "too dear"])
def test_what_is_not_plain_comes_in_its_turn_when_the_others_are_back(way: str) -> None:
    run = started(max_cost_microusd=10)
    run.propose_all(3, reads=True)
    run.send_read(1, cost_microusd=6)
    if way == "approval":
        run.gate_read(2, "require_approval")
    elif way == "no read":
        run.gate_read(2, effect="write")
    elif way == "too dear":
        run.gate_read(2, cost_microusd=6)
    else:
        run.send_read(2)
        if way == "lost":
            run.lose_read(2)
        else:
            run.read(2, ToolResult(ok=False, error="old", reason_code=R.GRANT_STALE))
    assert run.phase == "reading" and run.state.usage.tool_calls == 1
    run.read(1)
    run.send_read(3)
    again = only(run.read(3), do.GateCall)
    assert (again.step, again.attempt, run.phase) == (2, 2, "gating")
    only(call(run), do.PlanRoute)
    assert steps_of(run) == [1, 2, 3] and run.state.usage.tool_calls == 3


@pytest.mark.parametrize("reason", [R.MAX_COST, R.MAX_TOOL_CALLS])
def test_a_run_without_budget_ends_whatever_its_other_reads_do(reason: ReasonCode) -> None:
    run = started()
    run.propose_all(2, reads=True)
    run.send_read(1)
    outcome = concluded(run.gate_read(2, decision=decision("deny", reason=reason)))
    assert outcome.reason_code == reason and run.state.reading == {}


def test_reads_that_return_too_much_end_the_run() -> None:
    run = started(max_output_bytes=10)
    run.propose_all(2, reads=True)
    run.send_read(1)
    outcome = concluded(run.read(1, ToolResult(ok=True, output=Raw(b'"%s"' % (b"x" * 20)))))
    assert outcome.reason_code == R.MAX_OUTPUT


@pytest.mark.parametrize("kind", [ev.KillRequested, ev.CancelRequested])
def test_a_stop_leaves_no_read_in_doubt(kind: Any) -> None:
    run = started()
    run.propose_all(2, reads=True)
    run.send_read(1)
    fields = {"by": "ann", "why": "x"}
    assert concluded(run.send(kind, **fields)).in_doubt == ()


def test_a_crash_asks_again_for_the_reads_that_are_not_back_and_for_no_other() -> None:
    run = started()
    run.propose_all(4, reads=True)
    run.send_read(1)
    run.send_read(2)
    run.read(2)
    run.gate_read(3)
    again = run.activate()
    assert [(each.step, each.attempt) for each in again] == [(1, 2), (3, 2), (4, 2)]  # type: ignore[attr-defined]
    assert run.state.usage.tool_calls == 1
    for step in (1, 3, 4):
        run.send_read(step)
        last = run.read(step)
    only(last, do.PlanRoute)
    assert steps_of(run) == [1, 2, 3, 4] and run.state.usage.tool_calls == 4


def test_a_read_that_kills_every_process_ends_its_run() -> None:
    run = started()
    run.propose_all(2, reads=True)
    for _ in range(MAX_SENDS - 1):
        run.send_read(1)
        run.activate()
    run.send_read(1)
    assert concluded(run.activate()).reason_code == R.TOOL_UNAVAILABLE


def test_time_that_is_used_up_stops_reads_that_are_under_way() -> None:
    run = started(max_seconds=1)
    run.propose_all(2, reads=True)
    assert concluded(run.gate_read(1, after_us=3_000_000)).reason_code == R.MAX_SECONDS


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_event_that_a_read_does_not_wait_for_is_illegal(step: int) -> None:
    """It is back, its decision is not there yet, or there is no such read."""
    run = started()
    run.propose_all(2, reads=True)
    run.send_read(1)
    run.read(1)
    event = ev.ToolExecuted(step=step, attempt=1, result=ToolResult(ok=True), at_us=run.now_us)
    assert not run.machine.accepts(event)
    with pytest.raises(IllegalTransition):
        run.machine.handle(event)


# What is told of it.


def test_each_call_is_a_step_of_the_overview_and_one_that_was_not_come_to_says_so() -> None:
    run = started(max_refusals=0)
    run.propose_all(3)
    call(run, tool="pay")
    run.gate("deny")
    run.end()
    first, second, third = detail_of(run.machine.events).steps
    assert [(each.step, each.agent, each.action) for each in (first, second, third)] == [
        (1, "a", "pay"),
        (2, "a", "pay"),
        (3, "a", "pay"),
    ]
    assert (first.outcome, second.outcome, third.outcome) == ("ok", "policy_denied", "")
    assert third.arguments == {"n": 2} and third.detail.startswith("never gated")


@pytest.mark.parametrize(("reads", "how"), [(True, "to read at once"), (False, "in this order")])
def test_the_story_has_all_calls_of_a_decision(reads: bool, how: str) -> None:
    run = started()
    run.propose_all(20, reads=reads)
    story = run.machine.story()
    assert f"proposes 20 calls {how}" in story
    assert all(f"step {n + 1}: pay(n={n})" in story for n in range(20))


def test_the_span_of_a_decision_names_all_its_tools_and_each_call_has_its_own() -> None:
    run = started()
    run.propose_all(2, reads=True)
    for step in (1, 2):
        run.send_read(step)
        run.read(step)
    run.send(ev.KillRequested, by="op", why="x")
    run.end()
    spans = spans_of(run.machine.events)
    (decided,) = [span for span in spans if span.name == "decide"]
    assert decided.attributes["airside.tools"] == ["pay", "pay"]
    assert [span.attributes["airside.step"] for span in spans if span.name == "execute_tool pay"] == [1, 2]
