"""Batches by their events: how one stands, and which changes mean nothing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import InvalidInput
from airside.stack.ids import PrincipalId
from airside.stack.operations.batches import BatchAction, BatchChange, BatchChanged, BatchSettings, BatchState

ACTIONS: list[BatchAction] = ["open", "take_up", "leave", "pause", "resume", "retune", "requeue", "cancel"]


def body(change: BatchChange) -> bytes:
    """Return an event as the journal has it."""
    return msgspec.json.encode(BatchChanged(at_us=1, by=PrincipalId("op"), change=change))


def state(*changes: BatchChange) -> BatchState:
    """Return a batch after some changes."""
    return BatchState([body(change) for change in changes])


OPEN = BatchChange(action="open", manifest=msgspec.Raw(b'{"id":"b"}'))
TAKEN = BatchChange(action="take_up", owner="one")


def test_a_batch_stands_as_its_last_orders_say() -> None:
    assert state(OPEN).phase == "stopped" and state(OPEN, TAKEN).phase == "running"
    paused = state(OPEN, TAKEN, BatchChange(action="pause"))
    assert paused.phase == "paused" and paused.last is not None and paused.last.by == "op"
    assert state(OPEN, TAKEN, BatchChange(action="pause"), BatchChange(action="resume")).phase == "running"
    assert state(OPEN, TAKEN, BatchChange(action="leave", owner="one", state="finished")).phase == "finished"
    assert state(OPEN, TAKEN, BatchChange(action="cancel")).phase == "cancelled"


def test_who_was_taken_over_from_leaves_without_a_trace() -> None:
    other = BatchChange(action="take_up", owner="two")
    found = state(OPEN, TAKEN, other, BatchChange(action="leave", owner="one", state="finished"))
    assert (found.owner, found.phase) == ("two", "running")


def test_settings_are_put_over_those_before() -> None:
    first = BatchChange(action="retune", settings=BatchSettings(concurrency=5, priority=3))
    second = BatchChange(action="retune", settings=BatchSettings(concurrency=7))
    assert state(OPEN, first, second).settings == BatchSettings(concurrency=7, priority=3)


@pytest.mark.parametrize(
    ("before", "change", "said"),
    [
        ([], BatchChange(action="pause"), "none of this name"),
        ([OPEN], OPEN, "already"),
        ([OPEN], BatchChange(action="pause"), "it is stopped"),
        ([OPEN, TAKEN], BatchChange(action="resume"), "--resume"),
        ([OPEN, TAKEN], BatchChange(action="retune"), "what is to be changed"),
        ([OPEN, TAKEN], BatchChange(action="requeue"), "name 1 to"),
        ([OPEN, TAKEN, BatchChange(action="cancel")], BatchChange(action="cancel"), "cancelled already"),
        ([OPEN, TAKEN, BatchChange(action="cancel")], BatchChange(action="requeue", job_ids=("a",)), "--rerun"),
    ],
)
def test_a_change_that_means_nothing_is_refused(before: list[BatchChange], change: BatchChange, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        state(*before).check("b", change)


@given(st.lists(st.sampled_from(ACTIONS), max_size=12))
def test_whatever_was_accepted_can_be_read_again(actions: list[BatchAction]) -> None:
    found, bodies = BatchState(), list[bytes]()
    for action in actions:
        change = BatchChange(action=action, owner="one", settings=BatchSettings(concurrency=1), job_ids=("a",))
        try:
            found.check("b", change)
        except InvalidInput:
            continue
        bodies.append(body(change))
        found.apply(msgspec.json.decode(bodies[-1], type=BatchChanged))
    again = BatchState(bodies)
    assert (again.phase, again.length, again.requeued) == (found.phase, len(bodies), found.requeued)
    assert not bodies or b'"open"' in bodies[0], "nothing is before the beginning"
