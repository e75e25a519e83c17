"""The calls of a run by its events: which were sent, how often, and what came of each."""

from __future__ import annotations

from msgspec import Raw

from airside.stack.ids import effect_key
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.intents import call_history
from airside.stack.values import Limits, ToolResult
from tests.helpers import RUN, Driven


def begun(limits: Limits | None = None) -> Driven:
    """Return an activated run."""
    run = Driven(limits)
    run.activate()
    return run


def test_a_call_that_was_denied_or_not_yet_approved_was_not_sent() -> None:
    run = begun(Limits(max_refusals=3))
    run.propose(n=1)
    run.gate("deny")
    run.propose(n=2)
    run.gate("require_approval")
    assert call_history(run.machine.events) == []


def test_a_call_has_its_latest_decision_its_attempts_and_its_result() -> None:
    run = begun()
    run.propose(n=1)
    run.gate(repeatable=True)
    first_us = run.now_us
    run.lost(started=True)
    (call,) = call_history(run.machine.events)
    assert call.result is None and call.first is call.latest and call.first.at_us == first_us
    run.gate(repeatable=True)
    sent_us = run.now_us
    run.executed()
    (call,) = call_history(run.machine.events)
    assert (call.first.at_us, call.latest.at_us, call.answered_us) == (first_us, sent_us, run.now_us)
    assert call.first.key == call.latest.key == effect_key(RUN, 1) and call.gate.at_us == sent_us
    assert call.result is not None and call.result.output == Raw(b'"fine"')


def test_calls_stand_by_their_steps_whichever_is_answered_first() -> None:
    run = begun()
    run.propose_all(3, reads=True)
    for step in (3, 1, 2):
        run.send_read(step)
    for step in (2, 3):
        run.read(step)
    assert [(call.latest.step, call.result is not None) for call in call_history(run.machine.events)] == [
        (1, False),
        (2, True),
        (3, True),
    ]


def test_what_a_person_found_out_is_its_result() -> None:
    run = begun(Limits(doubt_wait_s=60))
    run.propose(n=1)
    run.gate()
    run.executed(ToolResult(ok=False, error="late", reason_code=ReasonCode.TOOL_TIMEOUT))
    assert run.phase == "in_doubt"
    run.send(ev.InDoubtResolved, by="op", happened=True, output=Raw(b"7"))
    (call,) = call_history(run.machine.events)
    assert call.result is not None and call.result.ok and call.result.output == Raw(b"7")
    assert call.answered_us == run.now_us
