"""A run's time by phase, from its events."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from airside.actors.client.display.timeline import PHASES, phases_of, timeline_of
from airside.stack.run import events as ev
from tests.unit.actors.client.display.samples import APPROVED, DENIED, WAITING, played

SECOND = 1_000_000


@pytest.mark.parametrize("commands", [APPROVED, DENIED])
def test_the_phases_of_a_run_are_all_its_time(commands: str) -> None:
    """One after the other, from its admission to its end."""
    events = played(commands)
    spans = phases_of(events)
    assert spans[0].since_us == events[0].at_us and spans[-1].until_us == events[-1].at_us
    assert all(a.until_us == b.since_us for a, b in itertools.pairwise(spans))
    assert {each.phase for each in spans} <= set(PHASES)


def test_a_wait_for_people_is_told_from_work() -> None:
    """And what was waited for is said."""
    (wait,) = [each for each in phases_of(played(APPROVED)) if each.phase == "wait for people"]
    assert wait.length_us > 2 * SECOND and wait.label == "step 2 wait for people wipe"


def test_a_run_that_waits_still_does() -> None:
    """Until now, whenever that is."""
    events = played(WAITING)
    events = events[: next(i for i, e in enumerate(events) if isinstance(e, ev.ActionGated) and e.approval_id) + 1]
    last = phases_of(events, now_us=events[-1].at_us + 60 * SECOND)[-1]
    assert last.phase == "wait for people" and last.length_us == 60 * SECOND
    assert phases_of(events, now_us=0)[-1].length_us == 0


def test_a_long_wait_leaves_room_for_the_work() -> None:
    """It is drawn no longer than all the work, and the drawing says so."""
    timeline = timeline_of(played(APPROVED))
    assert timeline is not None and timeline.note
    lanes = {lane.phase: lane for lane in timeline.lanes}
    (wait,) = lanes["wait for people"].pieces
    assert wait.is_shortened and wait.end - wait.start < 0.5 and lanes["wait for people"].took.startswith("2.")
    assert all(0 <= piece.start <= piece.end <= 1 for lane in timeline.lanes for piece in lane.pieces)


def test_a_run_of_thousands_of_steps_has_a_bounded_timeline() -> None:
    """Pieces that no eye can tell apart are one."""
    events = played(APPROVED)
    first, activated, planned = events[0], events[1], events[2]
    many = [first, activated]
    for n in range(4_000):
        many.append(msgspec.structs.replace(planned, at_us=activated.at_us + 2 * n * SECOND))
        many.append(ev.RunSuspended(at_us=activated.at_us + (2 * n + 1) * SECOND, why="x"))
    timeline = timeline_of(many, now_us=many[-1].at_us)
    assert timeline is None or sum(len(lane.pieces) for lane in timeline.lanes) < 1_000


def test_events_that_are_none_of_this_version_end_the_timeline() -> None:
    """What is before them is drawn."""
    events = played(APPROVED)
    broken = [*events[:4], events[-3], *events[4:]]
    assert phases_of(broken)[-1].until_us <= broken[4].at_us
    assert phases_of(events[1:]) == [] and timeline_of([]) is None


def test_a_clock_that_was_put_back_makes_no_negative_time() -> None:
    events = played(APPROVED)
    events[5] = msgspec.structs.replace(events[5], at_us=events[0].at_us - SECOND)
    assert all(each.length_us >= 0 for each in phases_of(events))
