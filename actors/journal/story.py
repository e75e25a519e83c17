"""A run's story from the journal, whoever reads that: the stack's actor, or the file where no stack runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from airside.stack.errors import InvalidInput
from airside.stack.ids import parse_run, root_of
from airside.stack.recovery.related_entries import RelatedEntry, describe_related
from airside.stack.run.events import Event, decode_event
from airside.stack.run.story import story_lines


class ReadableJournal(Protocol):
    """What can be read of a journal."""

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first."""

    def read(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a named query."""


def story_of(journal: ReadableJournal, run_id: str) -> str:
    """Tell a run, with what other streams have of it; raise `InvalidInput` if the journal has no such run."""
    text, _ = read_story(journal, run_id)
    return text


def read_story(journal: ReadableJournal, run_id: str) -> tuple[str, list[Event]]:
    """Return a run's story and its events; as `story_of`."""
    run = parse_run(run_id)
    bodies = journal.bodies([run])[run]
    if not bodies:
        raise InvalidInput(f"the journal has no run {run}")
    events = [decode_event(body) for body in bodies]
    rows = journal.read("beside", run, root_of(run))
    related = (RelatedEntry(at_us=at, stream=s, type=t, body=b) for at, s, t, b in rows)
    return story_lines(events, describe_related(events, related)), events
