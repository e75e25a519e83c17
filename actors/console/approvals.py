"""Approvals: the inbox, one call as a person must see it, and votes, of one or several."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import get_args

import msgspec
from msgspec import Raw

from airside.actors.api.messages import Listing
from airside.actors.client.display.drawing import brief
from airside.actors.console.edits import as_json, changes_of, fields_of, read_edit
from airside.actors.console.news import path_of
from airside.actors.console.visits import Elsewhere, Shown, Visit
from airside.actors.console.waiting import ORDERS, ORIGINS, Order, Waiting, in_order, waiting_of
from airside.stack.approvals.book import Verdict
from airside.stack.approvals.joint import MAX_JOINT
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput, Refused
from airside.stack.ids import parse_approval, parse_run
from airside.stack.operations.questions import MOST_LISTED, Approvals, OneApproval, ToolForm
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES

MAX_LISTED = 200
"""Calls of one page: more nobody weighs at one sitting, and what waits longest or is most urgent comes first."""

MAX_NOTE_CHARS = 1_000

_DONE = {"approve": "approved", "reject": "rejected", "edit": "approved with other arguments", "answer": "answered"}


async def inbox(visit: Visit) -> Shown:
    """Show what waits for people."""
    order = _order(visit.query.get("order"))
    news = await path_of(visit, 2)
    page = await visit.look("approvals", Listing[Raw], Approvals(limit=MOST_LISTED))
    waiting = in_order(_read(page.items), order)
    if visit.is_part:
        return _news(visit, waiting)
    shown = waiting[:MAX_LISTED]
    context = {
        "waiting": shown,
        "more": len(waiting) - len(shown),
        "is_all": not page.next,
        "order": order,
        "orders": ORDERS,
        "seen": fingerprint(waiting),
        "can_vote": visit.may("vote"),
        "live_path": "/approvals",
        "news": news,
        "now_us": visit.now_us,
    }
    return Shown("approvals.html", context, part="approvals_news.html")


def _news(visit: Visit, waiting: Sequence[Waiting]) -> Shown:
    """Say whether what waits is another than on the page: a list that moved by itself would move under a finger."""
    seen = set(visit.query.get("seen").split(".")) - {""}
    there = set(fingerprint(waiting).split(".")) - {""}
    context = {"new": len(there - seen), "gone": len(seen - there), "order": _order(visit.query.get("order"))}
    return Shown("", context, part="approvals_news.html")


def fingerprint(waiting: Iterable[Waiting]) -> str:
    """Return what says which calls are on a page, short enough for an address."""
    ids = sorted(each.id for each in waiting)[:MAX_LISTED]
    return ".".join(hashlib.sha256(each.encode()).hexdigest()[:8] for each in ids)


async def one(visit: Visit) -> Shown:
    """Show one call: in words, each argument with where it comes from, and how to vote."""
    it = await _find(visit, visit.path["approval_id"])
    beside = await _beside(visit, it)
    context = {
        "it": it,
        "beside": beside,
        "origins": ORIGINS,
        "now_us": visit.now_us,
        "may_vote": visit.may("vote") and not it.outcome and it.call.tenant == visit.session.who.tenant,
        "is_own": (it.call.tenant, it.call.requester) == (visit.session.who.tenant, visit.session.who.principal),
        "has_run": visit.may("view:run"),
    }
    return Shown("approval.html", context)


async def _find(visit: Visit, approval_id: str) -> Waiting:
    """Return an approval as it stands, whether it waits or not; raise `Refused` if there is none."""
    page = await visit.look("approvals", Listing[Raw], Approvals(approval_id=approval_id))
    it = next((each for each in _read(page.items) if each.id == approval_id), None)
    if it is None:
        raise Refused(f"there is no approval {approval_id}", reason="unknown")
    return it


async def _beside(visit: Visit, it: Waiting) -> list[Waiting]:
    """Return what waits of the question that a call is put in with others."""
    if it.outcome or not it.call.group.startswith(f"grp_{it.call.run_id}_"):
        return []
    try:
        page = await visit.look("approvals", Listing[Raw], Approvals(approval_id=it.call.group))
    except Refused as refusal:
        if refusal.reason == "unknown":
            return []
        raise
    return [each for each in _read(page.items) if each.id != it.id and not each.outcome]


def _read(items: Iterable[Raw]) -> list[Waiting]:
    return [waiting_of(item) for item in items]


async def vote(visit: Visit) -> Elsewhere:
    """Give a vote on one call, and say what became of it."""
    approval_id, verdict = visit.path["approval_id"], _verdict(visit.form.get("verdict"))
    arguments = b""
    if verdict == "answer":
        arguments = msgspec.json.encode(visit.form.get("answer"))
    elif verdict == "edit":
        arguments = visit.form.get("arguments").encode()
        parse_bounded(arguments, max_bytes=MAX_ARGUMENT_BYTES, where="arguments")
    reply = await visit.vote(approval_id, verdict, _note(visit), arguments)
    if not reply.ok:
        if reply.code.startswith("auth_"):
            raise Refused(reply.message, reason=reply.code)
        visit.session.say("bad", f"It does not count: {reply.message}")
        return Elsewhere(f"/approvals/{approval_id}")
    outcome = "; more people have to vote before it is decided" if not reply.outcome else ""
    visit.session.say("good", f"You have {_DONE[verdict]} this{outcome}: {brief(visit.form.get('words'), 160)}")
    run = visit.form.get("run")
    return Elsewhere(f"/runs/{parse_run(run)}" if run else "/approvals")


async def edit(visit: Visit) -> Shown:
    """Show a form of a call's arguments, or what one that was sent changes."""
    it = await _find(visit, visit.path["approval_id"])
    if it.outcome:
        raise Refused(f"it is decided: {it.outcome}", reason="already_decided")
    if it.call.is_question:
        raise Refused("a question is answered, and has no arguments to edit", reason="invalid")
    form = await _form_of(visit, it)
    fields = fields_of(it.call.arguments, form.parameters if form is not None else {})
    context = {"it": it, "fields": fields, "form": form, "given": {}, "problem": "", "now_us": visit.now_us}
    if visit.form.get("csrf"):
        try:
            after = read_edit(visit.form, fields)
        except InvalidInput as error:
            given = visit.form.within("value:")
            return Shown("edit.html", {**context, "given": given, "problem": error.message}, status=422)
        changes = changes_of(it.call.arguments, after)
        if not changes:
            return Shown("edit.html", {**context, "problem": "Nothing is changed: approve it as it is."}, status=422)
        return Shown("edit_confirm.html", {**context, "changes": changes, "arguments": as_json(after)})
    return Shown("edit.html", context)


async def _form_of(visit: Visit, it: Waiting) -> ToolForm | None:
    """Return what the call's tool takes, None if the app has it no more."""
    try:
        return await visit.look_if("approval_form", ToolForm, OneApproval(approval_id=it.id))
    except Refused as refusal:
        if refusal.reason == "unknown":
            return None
        raise


async def together(visit: Visit) -> Shown | Elsewhere:
    """Show several calls before one vote on all of them, or give it: it counts on all, or on none."""
    verdict = _verdict(visit.form.get("verdict"))
    ids = list(dict.fromkeys(visit.form.all("approval")))
    if verdict not in ("approve", "reject"):
        raise InvalidInput("several calls are approved or rejected")
    if not 0 < len(ids) <= MAX_JOINT:
        visit.session.say("bad", f"Choose 1 to {MAX_JOINT} calls: {len(ids)} are chosen.")
        return Elsewhere("/approvals")
    for each in ids:
        parse_approval(each)
    if visit.form.get("confirmed") == "yes":
        await _vote_on_all(visit, verdict, ids)
        return Elsewhere("/approvals")
    listed = await visit.look("approvals", Listing[Raw], Approvals(limit=MOST_LISTED))
    there = {each.id: each for each in _read(listed.items)}
    found = [there[each] if each in there else await _find_waiting(visit, each) for each in ids]
    found = [None if each is None or each.outcome or each.call.is_question else each for each in found]
    gone = [each for each, it in zip(ids, found, strict=True) if it is None]
    if gone:
        text = f"No vote was given: {len(gone)} of the {len(ids)} calls wait no more."
        visit.session.say("bad", f"{text} Look at what is left, and choose again.")
        return Elsewhere("/approvals")
    calls = [each for each in found if each is not None]
    return Shown("together.html", {"calls": in_order(calls, "risk"), "verdict": verdict, "now_us": visit.now_us})


async def waiting_call(visit: Visit, approval_id: str) -> Waiting | None:
    """Return a call that waits for votes, None if it does not, or is not for this person to see."""
    it = await _find_waiting(visit, approval_id) if visit.may("view:approvals") else None
    return None if it is None or it.outcome or it.call.is_question else it


async def _find_waiting(visit: Visit, approval_id: str) -> Waiting | None:
    """Return a call, None if there is none."""
    try:
        return await _find(visit, approval_id)
    except Refused as refusal:
        if refusal.reason == "unknown":
            return None
        raise


async def _vote_on_all(visit: Visit, verdict: Verdict, ids: Sequence[str]) -> None:
    """Give the vote, and say what became of it."""
    reply = await visit.vote_on_all(ids, verdict, _note(visit))
    if reply.ok:
        waiting = sum(not outcome for outcome in reply.outcomes)
        more = f"; {waiting} of them need more votes before they are decided" if waiting else ""
        visit.session.say("good", f"You have {_DONE[verdict]} {len(ids)} calls{more}.")
        return
    if reply.code.startswith("auth_"):
        raise Refused(reply.message, reason=reply.code)
    visit.session.say("bad", f"{reply.message[:1].upper()}{reply.message[1:]}.")


def _verdict(text: str) -> Verdict:
    if text not in get_args(Verdict):
        raise InvalidInput(f"{text!a:.40} is no vote")
    return text  # type: ignore[return-value]


def _note(visit: Visit) -> str:
    note = visit.form.get("note").strip()
    if len(note) > MAX_NOTE_CHARS:
        raise InvalidInput(f"the note has {len(note):,} characters; at most {MAX_NOTE_CHARS:,} are taken")
    return note


def _order(text: str) -> Order:
    return next((each for each in ORDERS if each == text), "risk")
