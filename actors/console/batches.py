"""Batches: how each stands, and one with its failures by reason."""

from __future__ import annotations

from typing import Any

import msgspec

from airside.actors.api.messages import Listing
from airside.actors.client.display.batches import draw_summary
from airside.actors.console.news import path_of
from airside.actors.console.visits import Shown, Visit
from airside.actors.journal.batches import BatchSummary
from airside.stack.operations.overview import ACTIVE
from airside.stack.operations.questions import Batches, OneBatch

MAX_LISTED = 200
_ORDERS = {
    "running": ("pause_batch", "retune_batch", "cancel_batch"),
    "paused": ("resume_batch", "retune_batch", "cancel_batch"),
    "stopped": ("retune_batch", "cancel_batch"),
    "cancelled": ("resume_batch",),
}
"""What may be ordered of a batch as it stands."""


async def listed(visit: Visit) -> Shown:
    """List batches, newest first."""
    asked = Batches(limit=MAX_LISTED, cursor=visit.query.get("cursor"))
    page = await visit.look("batches", Listing[BatchSummary], asked)
    rows = [(each, counts_of(each), draw_summary(each)) for each in page.items]
    return Shown("batches.html", {"rows": rows, "next": page.next, "now_us": visit.now_us})


async def one(visit: Visit) -> Shown:
    """Show one batch: progress, outcomes, failures by reason, and what may be ordered of it."""
    news = await path_of(visit, 2)
    batch = await visit.look("batch", BatchSummary, OneBatch(batch=visit.path["batch"]))
    context = {
        "batch": batch,
        "counts": counts_of(batch),
        "drawing": draw_summary(batch),
        "failures": [each for each in batch.outcomes if each.status not in (ACTIVE, "completed")],
        "settings": {name: value for name, value in _settings(batch).items() if value is not None},
        "actions": _ORDERS.get(batch.phase, ()) if visit.may("order:batch") else (),
        "live_path": f"/batches/{batch.id}",
        "news": news,
        "now_us": visit.now_us,
    }
    return Shown("batch.html", context, part="batch_live.html")


def _settings(batch: BatchSummary) -> dict[str, Any]:
    return msgspec.structs.asdict(batch.settings)


def counts_of(batch: BatchSummary) -> dict[str, int]:
    """Return how many runs of a batch ended, and how, and what they used."""
    active = sum(each.runs for each in batch.outcomes if each.status == ACTIVE)
    completed = sum(each.runs for each in batch.outcomes if each.status == "completed")
    runs = sum(each.runs for each in batch.outcomes)
    return {
        "runs": runs,
        "active": active,
        "ended": runs - active,
        "completed": completed,
        "failed": runs - active - completed,
        "tokens": sum(each.tokens for each in batch.outcomes),
        "cost_microusd": sum(each.cost_microusd for each in batch.outcomes),
    }
