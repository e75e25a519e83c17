"""Now: what an operator who has just come sees first."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence

from msgspec import Raw

from airside.actors.api.messages import Listing
from airside.actors.console.news import path_of
from airside.actors.console.visits import Shown, Visit
from airside.actors.console.waiting import in_order, waiting_of
from airside.stack.operations.overview import ACTIVE
from airside.stack.operations.questions import MOST_LISTED, Approvals, BudgetLine, Counts, LayerHealth, RunCount
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.recovery.in_doubt import InDoubtCall

SINCE_S = 86_400
"""Runs that ended longer ago are not counted here."""

FIRST = 5

_GAP_S = 5
"""Between two looks: what they count is of all runs."""


async def now(visit: Visit) -> Shown:
    """Show what runs, what waits for people, what is off or down, and what is spent."""
    news = await path_of(visit, _GAP_S)
    counts, health, waiting, off, doubt, budgets = await asyncio.gather(
        visit.look_if("counts", Listing[RunCount], Counts(since=visit.ago(SINCE_S))),
        visit.look_if("health", Listing[LayerHealth]),
        visit.look_if("approvals", Listing[Raw], Approvals(limit=MOST_LISTED)),
        visit.look_if("switches", Listing[KillSwitchChanged]),
        visit.look_if("in_doubt", Listing[InDoubtCall]),
        visit.look_if("budgets", Listing[BudgetLine]),
    )
    rows = [] if counts is None else counts.items
    layers = None if health is None else health.items
    calls = [] if waiting is None else [waiting_of(item) for item in waiting.items]
    context = {
        "tenants": by_tenant(rows),
        "outcomes": by_outcome(rows),
        "active": sum(each.runs for each in rows if each.status == ACTIVE),
        "ended": sum(each.runs for each in rows if each.status != ACTIVE),
        "has_counts": counts is not None,
        "layers": layers,
        "down": [each.layer for each in layers or () if not (each.up and each.ready)],
        "waiting": None if waiting is None else len(calls),
        "urgent": in_order(calls, "risk")[:FIRST],
        "switches": None if off is None else off.items,
        "in_doubt": None if doubt is None else len(doubt.items),
        "lines": [] if budgets is None else budgets.items,
        "live_path": "/now",
        "news": news,
        "now_us": visit.now_us,
    }
    return Shown("now.html", context, part="now_live.html")


def by_tenant(rows: Sequence[RunCount]) -> list[tuple[str, dict[str, int]]]:
    """Return each tenant's runs: active ones, those that completed, and those that did not; busiest first."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in rows:
        state = each.status if each.status in (ACTIVE, "completed") else "other"
        found[each.tenant][state] += each.runs
    return sorted(
        ((name, dict(counts)) for name, counts in found.items()), key=lambda row: (-sum(row[1].values()), row[0])
    )


def by_outcome(rows: Sequence[RunCount]) -> list[tuple[str, str, int]]:
    """Return how many runs ended in each way, or have not, most first."""
    found: Counter[tuple[str, str]] = Counter()
    for each in rows:
        found[each.status, each.reason_code] += each.runs
    return sorted(
        ((status, reason, runs) for (status, reason), runs in found.items()), key=lambda row: (-row[2], row[:2])
    )
