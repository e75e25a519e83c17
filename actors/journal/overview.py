"""Runs as operators ask for them, from the journal, whoever reads that: the stack's actor, or the file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from airside.actors.journal.story import ReadableJournal
from airside.stack.errors import InvalidInput
from airside.stack.ids import parse_principal, parse_run, parse_tenant
from airside.stack.operations.overview import ACTIVE, RunDetail, RunSummary, detail_of, run_status
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run.events import decode_event

MAX_LISTED = 1000
"""Runs one listing has at most: those that are active are folded from their events, which takes the time it takes."""


def list_runs(
    journal: ReadableJournal,
    *,
    tenant: str = "",
    status: str = "",
    reason: str = "",
    since: datetime | timedelta | None = None,
    branches: bool = False,
    limit: int = 100,
    principal: str = "",
    batch: str = "",
    before: tuple[int, str] | None = None,
) -> list[RunSummary]:
    """Return runs, newest first; raise `InvalidInput` for a filter that can match nothing.

    With `before`, the time and the id of one, they are those that follow it in the list.
    """
    if principal:
        parse_principal(principal)
    if tenant:
        parse_tenant(tenant)
    if status and status not in (statuses := [ACTIVE, *map(str, RunStatus)]):
        raise InvalidInput(f"runs: there is no status {status!r:.60}; there are {', '.join(statuses)}")
    if reason and reason not in (reasons := sorted(map(str, ReasonCode))):
        raise InvalidInput(f"runs: there is no reason {reason!r:.60}; there are {', '.join(reasons)}")
    if type(limit) is not int or not 1 <= limit <= MAX_LISTED:
        raise InvalidInput(f"runs: the limit {limit!r:.40} is not a whole number from 1 to {MAX_LISTED}")
    last = before or (0, "")
    filters = (tenant, status, reason, _since_us(since), branches)
    rows = journal.read("listed", *filters, limit, principal, batch, *last)
    found = [msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), RunSummary) for row in rows]
    open_runs = [run.run_id for run in found if run.status == ACTIVE]
    bodies = journal.bodies(open_runs) if open_runs else {}
    return [
        msgspec.structs.replace(run, phase=run_status([decode_event(body) for body in bodies[run.run_id]])[0])
        if bodies.get(run.run_id)
        else run
        for run in found
    ]


_COLUMNS = (
    *("run_id", "tenant", "principal", "job_id", "route", "parent", "submitted_us", "status", "reason_code"),
    *("ended_us", "steps", "tool_calls", "tokens", "cost_microusd", "active_us"),
)


def _since_us(since: datetime | timedelta | None) -> int:
    """Return a time, or that long before now, in UTC microseconds."""
    if since is None:
        return 0
    if isinstance(since, timedelta):
        try:
            since = datetime.now(UTC) - since
        except OverflowError:
            return 0
    if not isinstance(since, datetime):
        raise InvalidInput(f"runs: since {since!r:.60} is neither a datetime nor a timedelta")
    return int((since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def show_run(journal: ReadableJournal, run_id: str) -> RunDetail:
    """Return one run, step by step; raise `InvalidInput` if the journal has no such run."""
    run = parse_run(run_id)
    bodies = journal.bodies([run])[run]
    if not bodies:
        raise InvalidInput(f"the journal has no run {run}")
    return detail_of([decode_event(body) for body in bodies])
