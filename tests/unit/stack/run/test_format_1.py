"""Journals of before format 2, whose intents are events of their own: read as the version that wrote them read them.

`journal_format_1.json.gz` has what that version wrote (24 simulated runs with every event in every phase), where its
machine stood after each event, what it asked for when it was activated there, and what it told of each run.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from airside.stack.approvals.book import ApprovalBook, decode_approval_event
from airside.stack.budget.recorded_usage import recorded_usage
from airside.stack.operations.overview import detail_of
from airside.stack.recovery.in_doubt import in_doubt_calls
from airside.stack.recovery.rollback import calls_of
from airside.stack.run import events as ev
from airside.stack.run.machine import RunMachine
from airside.stack.run.spans import spans_of

WRITTEN = json.loads(gzip.decompress(Path(__file__).with_name("journal_format_1.json.gz").read_bytes()))
RUNS: list[dict[str, Any]] = WRITTEN["runs"]

NAMED = {"PlanRoute": "Plan", "GateCall": "Gate", "AwaitResolution": "AwaitDoubt"}
"""What instructions were called then."""


def events_of(run: dict[str, Any]) -> list[ev.Event]:
    """Return a run's events."""
    return [ev.decode_event(body) for body in run["events"]]


def stands(machine: RunMachine) -> list[Any]:
    """Return what was written of a machine's state."""
    s = machine.state
    counts = [s.usage.tool_calls, s.usage.cost_microusd, s.attempt, s.sends, len(s.history)]
    return [str(s.phase), s.step, sorted(s.in_doubt_keys), *counts]


@pytest.mark.parametrize("run", RUNS, ids=range(len(RUNS)))
def test_an_old_journal_replays_event_by_event_as_it_went(run: dict[str, Any]) -> None:
    first, *rest = events_of(run)
    assert isinstance(first, ev.RunSubmitted)
    machine = RunMachine(first)
    assert stands(machine) == run["after"][0]
    for event, after in zip(rest, run["after"][1:], strict=True):
        machine.handle(event)
        machine.check()
        assert stands(machine) == after


@pytest.mark.parametrize("run", RUNS, ids=range(len(RUNS)))
def test_an_old_run_is_taken_up_wherever_it_was_left(run: dict[str, Any]) -> None:
    """It asks for what it would have asked for, and goes on in the present format."""
    events = events_of(run)
    for count, asked in enumerate(run["again"], 1):
        machine = RunMachine.replay(events[:count])
        if machine.is_over:
            continue
        activated = ev.RunActivated(epoch=machine.state.epoch + 1, at_us=machine.state.last_us)
        todo = machine.handle(activated)
        assert [NAMED.get(name := type(each).__name__, name) for each in todo] + [str(machine.state.phase)] == asked
        machine.handle(ev.KillRequested(at_us=machine.state.last_us, by="op", why="x"))
        machine.check()


@pytest.mark.parametrize("run", RUNS, ids=range(len(RUNS)))
def test_what_is_told_of_an_old_run_is_what_was(run: dict[str, Any]) -> None:
    """What it spent, is in doubt about, changed and did, step by step and span by span."""
    events, told = events_of(run), run["told"]
    first, is_over = events[0], isinstance(events[-1], ev.RunEnded)
    assert isinstance(first, ev.RunSubmitted)
    assert [list(each) for each in recorded_usage(first.identity.tenant, events, is_over=is_over)] == told["spent"]
    assert [doubt.key for doubt in in_doubt_calls(events)] == told["doubts"]
    calls = calls_of(events, {}) if is_over else []
    assert [[call.key, call.tool, call.in_doubt, call.at_us] for call in calls] == told["calls"]
    steps = detail_of(events).steps
    for step in told["steps"]:
        if step[2] == "failed" and f"{first.run_id}:{step[0]}" in told["doubts"]:  # as that version called it
            step[2] = "tool_in_doubt"
    assert [[s.step, s.action, s.outcome, s.attempts, s.cost_microusd] for s in steps] == told["steps"]
    assert [[span.name, span.start_us] for span in spans_of(events)] == told["spans"]


def test_old_journals_have_every_event_that_a_run_meets_in_the_simulator() -> None:
    kinds = {type(event).__name__ for run in RUNS for event in events_of(run)}
    assert len(kinds) == 23 and "EffectIntended" in kinds
    assert all(b'"intent"' not in body.encode() for run in RUNS for body in run["events"])


def test_an_approval_of_an_old_journal_is_read_with_what_a_runtime_claimed() -> None:
    bodies = [body for _, body in WRITTEN["approval"]]
    assert '"binding":"' in bodies[0]
    book = ApprovalBook(map(decode_approval_event, bodies))
    assert len(book.pending()) + len(book.decided()) == 1
