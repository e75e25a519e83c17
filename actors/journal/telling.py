"""A run's story from the journal, whoever reads that: the stack's actor, or the file where no stack runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from airside.stack.errors import InvalidInput
from airside.stack.ids import parse_run, root_of
from airside.stack.recovery.beside import Beside, told_beside
from airside.stack.run.events import decode_event
from airside.stack.run.story import tell


class Journaled(Protocol):
    """What can be read of a journal."""

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first."""

    def read(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a named query."""


def story_of(journal: Journaled, run_id: str) -> str:
    """Tell a run, with what other streams have of it; raise `InvalidInput` if the journal has no such run."""
    run = parse_run(run_id)
    bodies = journal.bodies([run])[run]
    if not bodies:
        raise InvalidInput(f"the journal has no run {run}")
    events = [decode_event(body) for body in bodies]
    rows = journal.read("beside", run, root_of(run))
    return tell(events, told_beside(events, (Beside(at_us=at, stream=s, type=t, body=b) for at, s, t, b in rows)))
