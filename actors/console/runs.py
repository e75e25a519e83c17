"""Runs: a list of them, and one by its time, its steps and its story."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from airside.actors.api.messages import Listing, Story
from airside.actors.client.display.drawing import Drawing
from airside.actors.client.display.timeline import timeline_of
from airside.actors.console.approvals import waiting_call
from airside.actors.console.news import path_of
from airside.actors.console.order_kinds import ORDERS
from airside.actors.console.visits import Shown, Visit
from airside.actors.console.waiting import ORIGINS
from airside.stack.errors import InvalidId, InvalidInput
from airside.stack.ids import parse_run
from airside.stack.operations.overview import ACTIVE, RunDetail, RunSummary
from airside.stack.operations.questions import EventsPage, OneRun, RunEvents, Runs
from airside.stack.reasons import RunStatus
from airside.stack.run.events import Event, decode_event
from airside.stack.run.story import event_line

PAGE = 50
MAX_EVENTS = 1_000
"""Of a run, on its page: the journal has them all."""

SINCE = {"": 0, "1h": 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}
_STATUSES = (ACTIVE, *map(str, RunStatus))
_FILTERS = ("status", "reason", "tenant", "principal", "batch", "since")


async def listed(visit: Visit) -> Shown:
    """List runs, newest first, page by page."""
    given = {name: visit.query.get(name).strip()[:100] for name in _FILTERS}
    wanted = visit.query.get("run").strip()
    problem = ""
    page = Listing[RunSummary](items=[])
    try:
        if wanted:
            detail = await visit.look("run", RunDetail, OneRun(run_id=parse_run(wanted)))
            page = Listing(items=[detail.run])
        else:
            page = await visit.look("runs", Listing[RunSummary], _asked(given, visit.query.get("cursor")))
    except (InvalidId, InvalidInput) as error:
        problem = error.message
    context = {
        "runs": page.items,
        "next": page.next,
        "given": given,
        "wanted": wanted,
        "problem": problem,
        "statuses": _STATUSES,
        "spans": list(SINCE),
        "reaches_all": visit.session.reaches_all,
        "now_us": visit.now_us,
    }
    return Shown("runs.html", context)


def _asked(given: dict[str, str], cursor: str) -> Runs:
    found = {name: text for name, text in given.items() if name != "since"}
    seconds = SINCE.get(given["since"], 0)
    since = datetime.now(UTC) - timedelta(seconds=seconds) if seconds else None
    return msgspec.structs.replace(Runs(since=since, limit=PAGE, cursor=cursor), **found)


async def one(visit: Visit) -> Shown:
    """Show one run: how it stands, its time by phase, its steps, its events and its story."""
    run_id = visit.path["run_id"]
    news = await path_of(visit, 1, run_id)
    detail = await visit.look("run", RunDetail, OneRun(run_id=run_id))
    page = await visit.look_if("events", EventsPage, RunEvents(run_id=run_id, limit=MAX_EVENTS))
    story = await visit.look_if("story", Story, OneRun(run_id=run_id))
    bodies = [] if page is None else page.events
    events = [decode_event(bytes(body)) for body in bodies]
    is_active = detail.run.status == ACTIVE
    timeline = timeline_of(events, now_us=visit.now_us if is_active else 0)
    approval_id = _approval_of(detail)
    it = None if visit.is_part or not approval_id else await waiting_call(visit, approval_id)
    actions = actions_on(visit, detail)
    context = {
        "it": it,
        "origins": ORIGINS,
        "may_vote": visit.may("vote") and detail.run.tenant == visit.session.who.tenant,
        "here_orders": [(name, ORDERS[name]) for name in actions if not ORDERS[name].inputs],
        "effects": [step for step in detail.steps if step.key],
        "detail": detail,
        "run": detail.run,
        "is_active": is_active,
        "timeline": None if timeline is None else Drawing(title="", parts=(timeline,)),
        "events": _lines(events),
        "has_more": page is not None and not page.ended and len(events) == MAX_EVENTS,
        "story": "" if story is None else story.text,
        "approval_id": approval_id,
        "actions": actions,
        "live_path": f"/runs/{run_id}",
        "news": news,
        "now_us": visit.now_us,
    }
    return Shown("run.html", context, part="run_live.html")


def _lines(events: Sequence[Event]) -> list[tuple[int, str]]:
    return [(event.at_us, event_line(number, event)) for number, event in enumerate(events)]


def _approval_of(detail: RunDetail) -> str:
    """Return the approval that a run waits for, if it does."""
    open_waits = [wait for wait in detail.waits if wait.kind == "approval" and not wait.until_us]
    return open_waits[-1].what.partition(" ")[0] if open_waits else ""


def actions_on(visit: Visit, detail: RunDetail) -> list[str]:
    """Return what somebody may have done to a run as it stands, as orders are called."""
    is_active = detail.run.status == ACTIVE
    wanted = ("cancel_run", "kill_run", "switch_off_run") if is_active else ("roll_back_run",)
    access = {
        "cancel_run": "order:cancel",
        "kill_run": "order:kill",
        "switch_off_run": "order:switch_off",
        "roll_back_run": "order:rollback",
    }
    who = visit.session.who
    is_own = (detail.run.tenant, detail.run.principal) == (who.tenant, who.principal)
    return [name for name in wanted if visit.may(access[name]) and (is_own or who.may[access[name]] != "own")]
