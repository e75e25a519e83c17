"""What the projection's tables of runs and outcomes have of an event."""

from __future__ import annotations

from collections.abc import Callable

from airside.stack.events import RunEnded, RunSubmitted, decode_event

TableRow = dict[str, str | int]


def table_row(kind: str, tenant: str, stream: str, body: str) -> TableRow:
    """Return the row of an event of a kind in `TABLES`; raise `ValueError` if the body is no such event."""
    event = decode_event(body.encode())
    if type(event).__name__ != kind:
        raise ValueError(f"what is called {kind} is another event: {type(event).__name__}")
    return TABLES[kind](event, tenant, stream, body)


def _run(event: RunSubmitted, tenant: str, stream: str, body: str) -> TableRow:
    return {
        "run_id": event.run_id,
        "tenant": event.identity.tenant,
        "principal": event.identity.principal,
        "parent": event.parent or "",
        "job_id": event.request.job_id,
        "route": event.request.route,
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
