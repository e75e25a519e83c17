"""What an entry's body must be, and what the projection's tables of runs and outcomes have of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from airside.stack.approvals.book import ApprovalExpired, ApprovalRequested, ApprovalVoted, decode_approval_event
from airside.stack.journal.journaling import Append
from airside.stack.policy import kill_switches
from airside.stack.run.events import (
    ActionGated,
    ApprovalDecided,
    EffectIntended,
    RunEnded,
    RunSubmitted,
    SpendAsked,
    StepDecided,
    ToolExecuted,
    decode_event,
    encode_event,
)
from airside.stack.security.grants import GrantRefused
from airside.stack.values import tag_of

TableRow = dict[str, str | int]

_RUNS = (RunSubmitted, SpendAsked, StepDecided, ActionGated, ApprovalDecided, EffectIntended, ToolExecuted, RunEnded)
_APPROVALS = (ApprovalRequested, ApprovalVoted, ApprovalExpired)

LOOKED_INTO: dict[str, Callable[[bytes], Any]] = {
    **{tag_of(kind): decode_event for kind in _RUNS},
    **{tag_of(kind): decode_approval_event for kind in _APPROVALS},
    tag_of(GrantRefused): msgspec.json.Decoder(GrantRefused).decode,
    tag_of(kill_switches.KillSwitchChanged): kill_switches.decode_change,
}
"""The kinds of events whose bodies the named queries look into, or whole layers begin with, and how they are read.

What is journaled cannot be taken back: one that is not what it is called would keep a layer from ever starting again.
"""


def event_of(kind: str, stream: str, body: bytes) -> Any:
    """Return the event of an entry of a kind in `LOOKED_INTO`; raise `ValueError` if it is none, or not there."""
    event = LOOKED_INTO[kind](body)
    if tag_of(event) != kind:
        raise ValueError(f"what is called {kind} is another event: {tag_of(event)}")
    if isinstance(event, _APPROVALS) and event.approval_id != stream:
        raise ValueError(f"it is about the approval {event.approval_id}")
    return event


def check_entry(append: Append, index: int, body: str) -> TableRow:
    """Raise `ValueError` if an entry is not what it is called; return the row that is made of it, if any is."""
    entry, tenant, stream = append.entries[index], append.tenant, append.stream
    kind = entry.type
    if stream == kill_switches.STREAM and kind != tag_of(kill_switches.KillSwitchChanged):
        raise ValueError(f"the stream {stream} is of {tag_of(kill_switches.KillSwitchChanged)} alone, not of {kind}")
    if kind not in LOOKED_INTO:
        return {}
    event = event_of(kind, stream, entry.body)
    if kind not in TABLES:
        return {}
    row = TABLES[kind](event, tenant, stream, body)
    if kind == tag_of(RunSubmitted) and append.first_seq + index:
        raise ValueError("a run is submitted once, at the start of its stream")
    if kind == tag_of(RunEnded) and index != len(append.entries) - 1:
        raise ValueError("nothing comes after a run's end")
    # Checking compares the row with the entry, and reads the body with another program.
    if (event.at_us, row["run_id"], row["tenant"]) != (entry.at_us, stream, tenant):
        raise ValueError("its time, run or tenant is not the one that it is journaled under")
    if encode_event(event) != entry.body:
        raise ValueError("it is not written as events are")
    return row


def table_row(kind: str, tenant: str, stream: str, body: str) -> TableRow:
    """Return the row of an event of a kind in `TABLES`; raise `ValueError` if the body is no such event."""
    return TABLES[kind](event_of(kind, stream, body.encode()), tenant, stream, body)


def _run(event: RunSubmitted, tenant: str, stream: str, body: str) -> TableRow:
    return {
        "run_id": event.run_id,
        "tenant": event.identity.tenant,
        "principal": event.identity.principal,
        "parent": event.parent or "",
        "job_id": event.request.job_id,
        "route": event.request.route,
        "batch": event.request.batch.id if event.request.batch else "",
        "attempt": event.request.batch.attempt if event.request.batch else 1,
        "submitted_us": event.at_us,
    }


def _outcome(event: RunEnded, tenant: str, stream: str, body: str) -> TableRow:
    usage = event.usage
    return {
        "run_id": stream,
        "tenant": tenant,
        "status": str(event.outcome.status),
        "reason_code": str(event.outcome.reason_code),
        "ended_us": event.at_us,
        "steps": usage.steps,
        "tool_calls": usage.tool_calls,
        "tokens": usage.tokens,
        "cost_microusd": usage.cost_microusd,
        "active_us": usage.active_us,
        "body": body,
    }


TABLES: dict[str, Callable[..., TableRow]] = {"RunSubmitted": _run, "RunEnded": _outcome}
"""The kinds of events of which the projection reads more than the columns."""
