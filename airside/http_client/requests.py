"""What each method of a client sends, and the type of what it is answered: written once for both clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from airside.actors.api.messages import (
    ApprovalStanding,
    Listing,
    MemoryPinned,
    Ordered,
    RunAccepted,
    RunResult,
    Story,
    Table,
    VoteCounted,
    VotesCounted,
)
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.operations.questions import BudgetLine, WhoAsks
from airside.stack.policy.kill_switches import KillSwitchChanged, SwitchScope
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest(Generic[Reply]):
    """One request, and the type of its reply."""

    path: str
    reply: type[Reply]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The method: what has a body is posted."""
        return "GET" if self.body is None else "POST"


def _get(path: str, reply: type[Reply], **query: Any) -> HttpRequest[Reply]:
    given = {name: _text(value) for name, value in query.items() if value not in (None, "", False)}
    return HttpRequest(path=path, reply=reply, query=given)


def _text(value: Any) -> str:
    return "true" if value is True else value.isoformat() if hasattr(value, "isoformat") else str(value)


def _post(path: str, reply: type[Reply], **body: Any) -> HttpRequest[Reply]:
    return HttpRequest(path=path, reply=reply, body=body)


def _of_run(run: str, what: str = "") -> str:
    return f"/v1/runs/{quote(run, safe='')}{what}"


def _of_approval(approval: str, what: str = "") -> str:
    return f"/v1/approvals/{quote(approval, safe='')}{what}"


def submit(request: str, key: str, fields: Mapping[str, Any]) -> HttpRequest[RunAccepted]:
    """Submit a job, under an idempotency key."""
    return HttpRequest(
        path="/v1/runs", reply=RunAccepted, body={"request": request, **fields}, headers={"Idempotency-Key": key}
    )


def runs(filters: Mapping[str, Any]) -> HttpRequest[Listing[RunSummary]]:
    """List runs."""
    return _get("/v1/runs", Listing[RunSummary], **filters)


def inspect(run: str) -> HttpRequest[RunDetail]:
    """Show a run."""
    return _get(_of_run(run), RunDetail)


def result(run: str, wait_s: float) -> HttpRequest[RunResult]:
    """Wait for a run's end."""
    return _get(_of_run(run, "/result"), RunResult, wait_s=wait_s)


def story(run: str) -> HttpRequest[Story]:
    """Tell a run."""
    return _get(_of_run(run, "/story"), Story)


def end(action: Literal["cancel", "kill"], run: str, why: str) -> HttpRequest[Ordered]:
    """Withdraw or end a run."""
    return _post(_of_run(run, f"/{action}"), Ordered, why=why)


def rollback(run: str, why: str) -> HttpRequest[RollbackReport]:
    """Take back what a run did."""
    return _post(_of_run(run, "/rollback"), RollbackReport, why=why)


def approvals(tenant: str, limit: int, cursor: str) -> HttpRequest[Listing[ApprovalStanding]]:
    """List what waits for people."""
    return _get("/v1/approvals", Listing[ApprovalStanding], tenant=tenant, limit=limit, cursor=cursor)


def vote(approval: str, verdict: str, note: str, more: Mapping[str, Any]) -> HttpRequest[VoteCounted]:
    """Vote."""
    return _post(_of_approval(approval, f"/{verdict}"), VoteCounted, note=note, **more)


def vote_on_all(approvals: Sequence[str], verdict: str, note: str) -> HttpRequest[VotesCounted]:
    """Vote on several at once."""
    ids = list(approvals)
    return _post("/v1/approvals/votes", VotesCounted, approval_ids=ids, verdict=verdict, note=note)


def switch(scope: SwitchScope, target: str, *, off: bool, for_s: float, why: str) -> HttpRequest[Ordered]:
    """Set a kill switch, or take it back."""
    return _post("/v1/switches", Ordered, scope=scope, target=target, off=off, for_s=for_s, why=why)


def switches(cursor: str) -> HttpRequest[Listing[KillSwitchChanged]]:
    """List what is switched off."""
    return _get("/v1/switches", Listing[KillSwitchChanged], cursor=cursor)


def budgets(tenant: str) -> HttpRequest[Listing[BudgetLine]]:
    """Show budgets."""
    return _get("/v1/budgets", Listing[BudgetLine], tenant=tenant)


def in_doubt(tenant: str, cursor: str) -> HttpRequest[Listing[InDoubtCall]]:
    """List calls in doubt."""
    return _get("/v1/in-doubt", Listing[InDoubtCall], tenant=tenant, cursor=cursor)


def pin(record: str, tenant: str, *, pinned: bool) -> HttpRequest[MemoryPinned]:
    """Pin a record of memory, or pin it no more."""
    return _post("/v1/memory/pin", MemoryPinned, record=record, tenant=tenant, pinned=pinned)


def resolve(target: str, *, happened: bool, output: Any, why: str) -> HttpRequest[Ordered]:
    """Say what became of a call in doubt."""
    return _post("/v1/in-doubt/resolve", Ordered, target=target, happened=happened, output=output, why=why)


def query(sql: str, parameters: Sequence[Any]) -> HttpRequest[Table]:
    """Answer a SELECT."""
    return _post("/v1/audit/sql", Table, sql=sql, parameters=list(parameters))


def me() -> HttpRequest[WhoAsks]:
    """Say who asks."""
    return _get("/v1/me", WhoAsks)


def watch(run: str, seen: int) -> HttpRequest[None]:
    """Stream a run's events after those that were seen."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seen)} if seen else {})
    return HttpRequest(path=_of_run(run, "/events"), reply=type(None), headers=headers)
