"""The routes of the API, in one table: what is served, documented and tested is made of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from airside.actors.api import agui, approvals, audit, events, health, memory, operations, runs
from airside.actors.api import messages as m
from airside.actors.api.agui_protocol import RunAgentInput
from airside.actors.api.call import JSON, Call
from airside.actors.journal.batches import BatchSummary
from airside.memory.storage.erasure_plan import ErasureReceipt
from airside.stack.errors import InvalidId
from airside.stack.ids import parse_approval, parse_run
from airside.stack.operations import questions as q
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.recovery.spend_in_doubt import SpendInDoubt
from airside.stack.security.access import ACCESS, Rule
from airside.stack.values import BATCH_PATTERN, Value

Handler = Callable[[Call], Awaitable[Any]]

OPEN = ""
"""The access of a route that asks for no credential."""


class PathId(NamedTuple):
    """What may stand in a path: what reads it, and its form for the reference."""

    parse: Callable[[str], str]
    form: str


def _name(kind: str, pattern: str) -> PathId:
    whole = re.compile(pattern, re.ASCII)

    def parse(text: str) -> str:
        if len(text) > 64 or whole.fullmatch(text) is None:
            raise InvalidId(f"{text!r:.80} is no name of a {kind}")
        return text

    return PathId(parse, pattern)


PATH_IDS: dict[str, PathId] = {
    "run_id": PathId(parse_run, r"^run_[0-9a-f]{24}(\.[0-9]{1,4}-[0-9]{1,4}){0,8}$"),
    "approval_id": PathId(
        parse_approval, r"^apr_run_[0-9a-f]{24}(\.[0-9]{1,4}-[0-9]{1,4}){0,8}_[0-9]{1,9}_[0-9a-f]{12}$"
    ),
    "batch": _name("batch", BATCH_PATTERN),
    "query": _name("query", "^[a-z][a-z0-9_]*$"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route.  What it does is its handler's docstring; who may is its row of `ACCESS`.

    `reply` is the type of a reply of this `status` in JSON; one of another `media` has none.
    """

    method: Literal["GET", "POST"]
    path: str
    handle: Handler
    access: str
    query: type[Value] | None = None
    body: type[Value] | None = None
    reply: Any = None
    status: int = 200
    media: str = JSON

    @property
    def name(self) -> str:
        """What the route is called: its handler's name."""
        return getattr(self.handle, "__name__", "")

    @property
    def says(self) -> str:
        """What it does, in the words of its handler."""
        return " ".join((self.handle.__doc__ or "").split())

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of what stands in its path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def rule(self) -> Rule | None:
        """Who may; None for whoever asks."""
        return None if self.access == OPEN else ACCESS[self.access]


def _get(path: str, handle: Handler, access: str, **more: Any) -> Route:
    return Route(method="GET", path=path, handle=handle, access=access, **more)


def _post(path: str, handle: Handler, access: str, **more: Any) -> Route:
    return Route(method="POST", path=path, handle=handle, access=access, **more)


_RUN = "/v1/runs/{run_id}"
_APPROVAL = "/v1/approvals/{approval_id}"
_BATCH = "/v1/batches/{batch}"


ROUTES: tuple[Route, ...] = (
    _post("/v1/runs", runs.submit, "submit", body=m.RunRequest, reply=m.RunAccepted, status=202),
    _get("/v1/runs", runs.runs, "view:runs", query=q.Runs, reply=m.Listing[RunSummary]),
    _get(_RUN, runs.run, "view:run", reply=RunDetail),
    _get(f"{_RUN}/result", runs.result, "view:run", query=m.WaitQuery, reply=m.RunResult),
    _get(f"{_RUN}/events", events.events, "view:events", media=events.MEDIA_TYPE),
    _get(f"{_RUN}/agui", agui.agui, "view:events", query=m.ThreadQuery, media=events.MEDIA_TYPE),
    _get(f"{_RUN}/history", runs.history, "view:events", query=m.HistoryQuery, reply=q.EventsPage),
    _get(f"{_RUN}/story", runs.story, "view:story", reply=m.Story),
    _post(f"{_RUN}/cancel", runs.cancel, "order:cancel", body=m.Reason, reply=m.Ordered),
    _post(f"{_RUN}/kill", runs.kill, "order:kill", body=m.Reason, reply=m.Ordered),
    _post(f"{_RUN}/rollback", runs.rollback, "order:rollback", body=m.Reason, reply=RollbackReport),
    _post("/v1/agui", agui.agui_submit, "submit", body=RunAgentInput, media=events.MEDIA_TYPE),
    _get(
        "/v1/approvals", approvals.approvals, "view:approvals", query=q.Approvals, reply=m.Listing[m.ApprovalStanding]
    ),
    _post("/v1/approvals/votes", approvals.votes, "vote", body=m.JointVote, reply=m.VotesCounted),
    _get(_APPROVAL, approvals.approval, "view:approvals", reply=m.ApprovalStanding),
    _post(f"{_APPROVAL}/approve", approvals.approve, "vote", body=m.Vote, reply=m.VoteCounted),
    _post(f"{_APPROVAL}/reject", approvals.reject, "vote", body=m.Vote, reply=m.VoteCounted),
    _post(f"{_APPROVAL}/edit", approvals.edit, "vote", body=m.Edit, reply=m.VoteCounted),
    _post(f"{_APPROVAL}/answer", approvals.answer, "vote", body=m.Answer, reply=m.VoteCounted),
    _post("/v1/kills", operations.kill_all, "order:kill", body=m.KillRequest, reply=m.Ordered),
    _get("/v1/switches", operations.switches, "view:switches", query=q.Switches, reply=m.Listing[KillSwitchChanged]),
    _post("/v1/switches", operations.switch, "order:switch_off", body=m.SwitchRequest, reply=m.Ordered),
    _get("/v1/budgets", operations.budgets, "view:budgets", query=q.OfTenant, reply=m.Listing[q.BudgetLine]),
    _get("/v1/tenants", operations.tenants, "view:tenants", query=q.OfTenant, reply=m.Listing[q.TenantStanding]),
    _get("/v1/policy", operations.policy, "view:policy", query=q.PolicyUse, reply=q.PolicyStanding),
    _get("/v1/in-doubt", operations.in_doubt, "view:in_doubt", query=q.InDoubt, reply=m.Listing[InDoubtCall]),
    _post("/v1/in-doubt/resolve", operations.resolve, "order:settle", body=m.InDoubtResolution, reply=m.Ordered),
    _get(
        "/v1/in-doubt/spend",
        operations.spend_in_doubt,
        "view:spend_in_doubt",
        query=q.InDoubt,
        reply=m.Listing[SpendInDoubt],
    ),
    _post(
        "/v1/in-doubt/spend/resolve",
        operations.resolve_spend,
        "order:resolve_spend",
        body=m.SpendResolution,
        reply=m.Ordered,
    ),
    _get("/v1/batches", operations.batches, "view:batches", query=q.Batches, reply=m.Listing[BatchSummary]),
    _get(_BATCH, operations.batch, "view:batch", reply=BatchSummary),
    _post(f"{_BATCH}/pause", operations.pause, "order:batch", body=m.Reason, reply=m.Ordered),
    _post(f"{_BATCH}/resume", operations.resume, "order:batch", body=m.Reason, reply=m.Ordered),
    _post(f"{_BATCH}/cancel", operations.cancel_batch, "order:batch", body=m.Reason, reply=m.Ordered),
    _post(f"{_BATCH}/retune", operations.retune, "order:batch", body=m.BatchTuning, reply=m.Ordered),
    _post(f"{_BATCH}/requeue", operations.requeue, "order:batch", body=m.BatchRequeue, reply=m.Ordered),
    _post("/v1/memory/search", memory.search, "view:memory", body=q.MemorySearch, reply=m.Listing[dict[str, Any]]),
    _post("/v1/memory/erase", memory.erase, "keep", body=m.MemoryErasure, reply=ErasureReceipt),
    _post("/v1/memory/pin", memory.pin, "keep", body=m.MemoryPin, reply=m.MemoryPinned),
    _get("/v1/audit/queries", audit.queries, "view:queries", reply=m.Listing[q.AuditQuery]),
    _post("/v1/audit/queries/{query}", audit.query, "view:sql", body=m.QueryParameters, reply=m.Table),
    _post("/v1/audit/sql", audit.sql, "view:sql", body=m.SqlQuery, reply=m.Table),
    _get("/v1/audit/search", audit.search_entries, "view:search", query=q.AuditSearch, reply=q.FoundEntries),
    _get("/v1/audit/chain", audit.chain, "view:chain", query=q.OfTenant, reply=m.Listing[q.ChainStanding]),
    _post(
        "/v1/audit/chain/check",
        audit.check_chain,
        "view:chain",
        body=m.ChainCheckRequest,
        reply=m.Listing[q.ChainStanding],
    ),
    _get("/v1/audit/entries", audit.entries, "follow", query=m.FeedQuery, reply=m.FeedItems),
    _get("/v1/me", health.me, "view:me", reply=q.WhoAsks),
    _get("/v1/health", health.health, "view:health", reply=m.Listing[q.LayerHealth]),
    _get("/v1/health/live", health.live, OPEN, reply=m.Alive),
    _get("/v1/health/ready", health.ready, OPEN, reply=m.Alive),
    _get("/v1/metrics", health.metrics, "view:health", media=health.METRICS_TYPE),
    _get("/v1/openapi.json", health.document, OPEN, reply=dict[str, Any]),
)
"""Every route; a path that has no braces stands before one that has them in its place."""
