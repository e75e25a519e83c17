"""Which rows `--retry-failed` runs again: what may pass, but for what changed something and was not taken back."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from airside.actors.client.client import Stack
from airside.actors.journal.named_sql import load_sql
from airside.batches.manifest import Manifest
from airside.batches.parts import read_parts
from airside.batches.row_states import RowStates
from airside.stack.ids import RunId
from airside.stack.recovery.rollback import RollbackBook, calls_of, is_over, rollback_stream
from airside.stack.run import events as ev

QUERIES = load_sql("queries.sql", "airside.batches")


def rows_to_retry(stack: Stack, manifest: Manifest, states: RowStates, place: Path | str) -> tuple[frozenset[int], int]:
    """Return the rows to run again that may pass, and how many are left out because their run changed something.

    Run again from its beginning, such a run would do again what it did: its effects have other keys.  One whose
    rollback is complete has changed nothing.
    """
    any_may = manifest.answer_schema is not None
    changed = set(stack.query(QUERIES["changed"], [manifest.batch, any_may]).column(0).to_pylist())
    rows, left_out = set(states.that_may_pass()), set[int]()
    rolled_back = set(stack.query(QUERIES["rolled_back"], [manifest.batch]).column(0).to_pylist()) if changed else set()
    for batch in read_parts(place, ("row", "attempt", "run_id")):
        for row, attempt, run in zip(*(batch.column(n).to_pylist() for n in batch.schema.names), strict=True):
            if run not in changed or row not in rows or attempt != states.attempts(row):
                continue
            if run not in rolled_back or not _is_taken_back(stack, run):
                left_out.add(row)
    return frozenset(rows - left_out), len(left_out)


def _is_taken_back(stack: Stack, run: RunId) -> bool:
    """Whether all that a run and its branches changed was undone; what has no undo, or is in doubt, was not."""
    bodies = defaultdict[str, list[str]](list)
    for each in stack.query(QUERIES["story"], [rollback_stream(run), run, f"{run}."]).to_pylist():
        bodies[each["stream"]].append(each["body"])
    book = RollbackBook(bodies.pop(rollback_stream(run), []))
    runs = [[ev.decode_event(body) for body in story] for story in bodies.values()]
    ends = [book.ended(call) for events in runs if is_over(events) for call in calls_of(events, {})]
    return all(map(is_over, runs)) and all(end is not None and end.outcome == "undone" for end in ends)
