"""Batches as operators ask for them, from the journal, whoever reads that: the stack's actor, or the file."""

from __future__ import annotations

from typing import Any

import msgspec

from airside.actors.journal.story import ReadableJournal
from airside.stack.errors import InvalidInput
from airside.stack.operations.batches import BatchPhase, BatchSettings, BatchState, stream_of
from airside.stack.values import Value

MAX_LISTED = 1000


class BatchOutcome(Value):
    """How many runs of a batch ended in one way, and what they used; `active` is not ended."""

    status: str
    reason_code: str
    runs: int
    steps: int
    tokens: int
    cost_microusd: int


class BatchSummary(Value):
    """A batch as the journal has it: how it stands, by whose last order, and its runs by how they ended.

    A job that is run again is several runs.  `manifest` says what it is of (`airside.batches.manifest`).
    """

    id: str
    phase: BatchPhase
    opened_us: int
    owner: str
    settings: BatchSettings
    last_order: str
    manifest: dict[str, Any]
    outcomes: tuple[BatchOutcome, ...]


def list_batches(journal: ReadableJournal, limit: int = 100, *, tenant: str = "") -> list[BatchSummary]:
    """Return batches, newest first; of a tenant, those of which all runs are its."""
    if type(limit) is not int or not 1 <= limit <= MAX_LISTED:
        raise InvalidInput(f"batches: the limit {limit!r:.40} is not a whole number from 1 to {MAX_LISTED}")
    if tenant:
        named = journal.read("batches_of", tenant, limit)
        return [show_batch(journal, name) for (name,) in named if read_batch(journal, name).length]
    names = [stream.removeprefix("batch:") for (stream,) in journal.read("batches", limit)]
    return [show_batch(journal, name) for name in names]


def show_batch(journal: ReadableJournal, batch: str) -> BatchSummary:
    """Return one batch; raise `InvalidInput` if the journal has none of this name."""
    state = read_batch(journal, batch)
    if not state.length:
        raise InvalidInput(
            f"batch {batch!r:.80}: there is none of this name; `airside batch list` shows those there are"
        )
    rows = journal.read("batch_outcomes", batch)
    names = BatchOutcome.__struct_fields__
    last = state.last
    return BatchSummary(
        id=batch,
        phase=state.phase,
        opened_us=state.opened_us,
        owner=state.owner,
        settings=state.settings,
        last_order=f"{last.change.action} by {last.by}{f': {last.why}' if last.why else ''}" if last else "",
        manifest=msgspec.json.decode(state.manifest) or {},
        outcomes=tuple(msgspec.convert(dict(zip(names, row, strict=True)), BatchOutcome) for row in rows),
    )


def read_batch(journal: ReadableJournal, batch: str) -> BatchState:
    """Return how a batch stands by its events, of which there may be none."""
    stream = stream_of(batch)
    return BatchState(journal.bodies([stream])[stream])
