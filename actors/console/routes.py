"""The pages of the console, in one table."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from airside.actors.console import approvals, audit, batches, news, now, operations, orders, policy, runs, tenants
from airside.actors.console.visits import Visit
from airside.stack.errors import InvalidId
from airside.stack.ids import parse_approval, parse_run, parse_tenant
from airside.stack.operations.questions import WhoAsks
from airside.stack.values import BATCH_PATTERN

_BATCH = re.compile(BATCH_PATTERN, re.ASCII)


def _batch_name(text: str) -> str:
    if len(text) > 200 or _BATCH.fullmatch(text) is None:
        raise InvalidId(f"{text!r:.80} is no name of a batch")
    return text


PATH_IDS: dict[str, Callable[[str], str]] = {
    "run_id": parse_run,
    "approval_id": parse_approval,
    "batch": _batch_name,
    "tenant": parse_tenant,
}
"""What reads the ids of a path; it raises `InvalidId` for what is none."""

Handler = Callable[[Visit], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class PageRoute:
    """One page.  A `title` stands in the head of every page, for who may by this row of the table of access."""

    method: Literal["GET", "POST"]
    path: str
    handle: Handler
    title: str = ""
    access: str = ""


ROUTES: tuple[PageRoute, ...] = (
    PageRoute("GET", "/now", now.now, "Now"),
    PageRoute("GET", "/news", news.stream),
    PageRoute("GET", "/approvals", approvals.inbox, "Approvals", "view:approvals"),
    PageRoute("POST", "/approvals/together", approvals.together),
    PageRoute("GET", "/approvals/{approval_id}", approvals.one),
    PageRoute("POST", "/approvals/{approval_id}/vote", approvals.vote),
    PageRoute("GET", "/approvals/{approval_id}/edit", approvals.edit),
    PageRoute("POST", "/approvals/{approval_id}/edit", approvals.edit),
    PageRoute("GET", "/runs", runs.listed, "Runs", "view:runs"),
    PageRoute("GET", "/runs/{run_id}", runs.one),
    PageRoute("GET", "/batches", batches.listed, "Batches", "view:batches"),
    PageRoute("GET", "/batches/{batch}", batches.one),
    PageRoute("GET", "/tenants", tenants.listed, "Tenants", "view:tenants"),
    PageRoute("GET", "/tenants/{tenant}", tenants.one),
    PageRoute("GET", "/in-doubt", operations.in_doubt, "In doubt", "view:in_doubt"),
    PageRoute("GET", "/switches", operations.switches, "Switches", "view:switches"),
    PageRoute("GET", "/audit", audit.page, "Audit", "view:sql"),
    PageRoute("POST", "/audit", audit.ask),
    PageRoute("GET", "/audit/entries", audit.entries),
    PageRoute("GET", "/audit/export", audit.export),
    PageRoute("POST", "/audit/chain", audit.check_chain),
    PageRoute("GET", "/policy", policy.page, "Policy", "view:policy"),
    PageRoute("GET", "/orders", orders.confirm),
    PageRoute("POST", "/orders", orders.perform),
)
"""Every page; a path that has no braces stands before one that has them in its place."""


def sections(who: WhoAsks) -> list[tuple[str, str]]:
    """Return the pages that stand in the head for somebody: path and title."""
    return [(each.path, each.title) for each in ROUTES if each.title and (not each.access or each.access in who.may)]
