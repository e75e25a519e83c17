"""Batches as operators ask for them, from the journal, whoever reads that: the stack's actor, or the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from airside.actors.journal.story import ReadableJournal
from airside.stack.calling import explain_absent
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


@explain_absent(batch="id", name="id", status="phase")
class BatchSummary(Value):
    """A batch as the journal has it: how it stands, by whose last order, and its runs by how they ended.

    A job that is run again is several runs.  `manifest` says what it is of (`airside.batches.manifest`).  It is a
    `tenant`'s, and a `principal`'s of it, or the house's where these are empty; `opened_by` is who began it.
    """

    id: str
    phase: BatchPhase
    opened_us: int
    owner: str
    settings: BatchSettings
    last_order: str
    manifest: dict[str, Any]
    outcomes: tuple[BatchOutcome, ...]
    tenant: str = ""
    principal: str = ""
    opened_by: str = ""


def list_batches(
    journal: ReadableJournal, limit: int = 100, *, tenant: str = "", before: tuple[int, str] = (0, "")
) -> list[BatchSummary]:
    """Return batches, newest first; those of a tenant, and of each what its own runs did.

    `before` = those that follow one, by when it was opened and its name.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_LISTED:
        raise InvalidInput(f"batches: the limit {limit!r:.40} is not a whole number from 1 to {MAX_LISTED}")
    opened_us, name = before
    rows = journal.read("batches", tenant, opened_us, stream_of(name) if name else "", limit)
    return _shown(journal, [stream.removeprefix("batch:") for (stream,) in rows], tenant)


def show_batch(journal: ReadableJournal, batch: str, *, tenant: str = "") -> BatchSummary:
    """Return one batch, of a tenant's runs alone if one is given; raise `InvalidInput` if there is none of this name.

    With a `tenant` there is none that is not its own.
    """
    shown = _shown(journal, [batch], tenant)
    if not shown:
        raise InvalidInput(
            f"batch {batch!r:.80}: there is none of this name; `stack.batches()`, or `airside batch list`, shows "
            "those there are"
        )
    return shown[0]


def _shown(journal: ReadableJournal, names: Sequence[str], tenant: str) -> list[BatchSummary]:
    """Return the batches of these names that there are, by two questions however many they are."""
    if not names:
        return []
    bodies = journal.bodies([stream_of(name) for name in names])
    outcomes: dict[str, list[BatchOutcome]] = {}
    fields = BatchOutcome.__struct_fields__
    for batch, *row in journal.read("batch_outcomes", list(names), tenant):
        outcome = msgspec.convert(dict(zip(fields, row, strict=True)), BatchOutcome)
        outcomes.setdefault(batch, []).append(outcome)
    states = [(name, BatchState(bodies[stream_of(name)])) for name in names]
    return [
        _summary(name, state, outcomes.get(name, ()))
        for name, state in states
        if state.length and tenant in ("", state.tenant)
    ]


def _summary(batch: str, state: BatchState, outcomes: Sequence[BatchOutcome]) -> BatchSummary:
    last = state.last
    return BatchSummary(
        id=batch,
        phase=state.phase,
        opened_us=state.opened_us,
        owner=state.owner,
        settings=state.settings,
        last_order=f"{last.change.action} by {last.by}{f': {last.why}' if last.why else ''}" if last else "",
        manifest=msgspec.json.decode(state.manifest) or {},
        outcomes=tuple(outcomes),
        tenant=state.tenant,
        principal=state.principal,
        opened_by=state.opened_by,
    )


def read_batch(journal: ReadableJournal, batch: str) -> BatchState:
    """Return how a batch stands by its events, of which there may be none."""
    stream = stream_of(batch)
    return BatchState(journal.bodies([stream])[stream])
