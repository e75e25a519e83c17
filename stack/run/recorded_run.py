"""What a run on record proposed, and its branches, to be proposed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from airside.stack.errors import InvalidInput
from airside.stack.ids import RunId, child_run, parse_run
from airside.stack.run.events import Event, RoutePlanned, RunSubmitted, StepDecided, decode_event
from airside.stack.run.topology import FanOut
from airside.stack.values import FREE, Action, Proposal

Decisions = Mapping[int, Proposal | list[Action]]
"""What was decided, by the step of the decision."""

_EVENTS = "SELECT body FROM events WHERE stream = ? ORDER BY seq"


class RecordedRuns(Protocol):
    """A journal that can be asked: what `open_audit` yields, or a stack."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Answer one SELECT as an Arrow table."""


def events_of(journal: RecordedRuns, run_id: str) -> list[Event]:
    """Return the events of a run or branch; raise `InvalidInput` if the journal has none, or they are incomplete."""
    run = parse_run(run_id)
    found = [decode_event(row["body"]) for row in journal.query(_EVENTS, [run]).to_pylist()]
    if not found or not isinstance(found[0], RunSubmitted):
        raise InvalidInput(f"the journal has no run {run}")
    return found


def below_root(run_id: str) -> str:
    """Return where a run stands below its root: nothing of a root, `.STEP-BRANCH` for each fan-out down to a branch."""
    return run_id[len(run_id.partition(".")[0]) :]


def recorded_decisions(journal: RecordedRuns, run_id: str) -> dict[str, Decisions]:
    """Return what a run and its branches decided, by where each stands below the root.

    They are free: nobody is asked again.  Raises `InvalidInput` if the journal has no such run, and for a branch,
    which is replayed with its root.
    """
    if below_root(parse_run(run_id)):
        raise InvalidInput(f"{run_id} is a branch: name the run that it is one of, {run_id.partition('.')[0]}")
    found: dict[str, Decisions] = {}
    todo = [parse_run(run_id)]
    while todo:
        run = todo.pop()
        events = events_of(journal, run)
        found[below_root(run)] = {event.step: _decided(event) for event in events if isinstance(event, StepDecided)}
        todo += _branches(journal, run, events)
    return found


def _branches(journal: RecordedRuns, run: RunId, events: Sequence[Event]) -> list[RunId]:
    """Return the branches that a run began; one that it did not come to is not on record."""
    named = [
        child_run(run, event.step, number)
        for event in events
        if isinstance(event, RoutePlanned) and isinstance(event.route, FanOut)
        for number in range(len(event.route.branches))
    ]
    return [branch for branch in named if journal.query(_EVENTS, [branch]).num_rows]


def _decided(event: StepDecided) -> Proposal | list[Action]:
    if event.later:
        return [msgspec.structs.replace(call, spend=FREE) for call in event.calls.values()]
    return msgspec.structs.replace(event.proposal, spend=FREE)
