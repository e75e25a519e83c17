"""What is on record about a run in streams other than its own, as lines for its story.

Approvals, claims of keys, resolutions, rollbacks, refused grants and kill switches each have streams of their own; in
a story they stand where they happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from airside.stack.approvals.book import ApprovalExpired, ApprovalRequested, ApprovalVoted
from airside.stack.ids import root_of
from airside.stack.journal.effect_claims import AttemptWithdrawn, EffectClaimed
from airside.stack.policy.kill_switches import KillSwitchChanged, KillSwitches
from airside.stack.recovery.in_doubt import EffectResolved
from airside.stack.recovery.rollback import RollbackOrdered, UndoEnded, UndoIntended
from airside.stack.recovery.spend_in_doubt import SpendResolved
from airside.stack.run import events as ev
from airside.stack.security.grants import GrantRefused
from airside.stack.values import Value, tag_of

_NOTE = 80


class RelatedEntry(Value, array_like=True):
    """One entry of another stream: when, which stream, what kind, and its JSON."""

    at_us: int
    stream: str
    type: str
    body: str


def _requested(e: ApprovalRequested, _: RelatedEntry) -> str:
    asked = f"needs {e.terms.quorum} of {', '.join(e.terms.roles)}"
    before, group = _note(e.rejected_before), f", in {e.group}" if e.group else ""
    return f"step {e.step} approval asked: {e.tool}({_json(e.arguments)}), rule {e.rule}, {asked}{group}{before}"


def _voted(e: ApprovalVoted, entry: RelatedEntry) -> str:
    said = {
        "approve": "approves",
        "reject": "rejects",
        "edit": f"edits to {_json(e.arguments)}",
        "answer": f"answers {_json(e.arguments)}",
    }[e.verdict]
    return f"vote: {e.by} ({', '.join(e.roles)}) {said}{_note(e.note)}  ({entry.stream})"


def _claimed(e: EffectClaimed, entry: RelatedEntry) -> str:
    return f"claimed: {e.executor} may start {e.tool}, key {entry.stream.removeprefix('claim/')}"


def _resolved(e: EffectResolved, _: RelatedEntry) -> str:
    what = "undo" if "/undo" in e.key else "call"
    result = f" with {_json(e.output)}" if e.happened else ""
    happened = "happened" if e.happened else "did not happen"
    return f"step {e.step} resolved by {e.by}: {what} {e.key} {happened}{result}{_note(e.note)}"


def _undo_intended(e: UndoIntended, _: RelatedEntry) -> str:
    return f"step {e.step} undo intended: {e.tool}, key {e.key}, attempt {e.attempt}"


def _undo_ended(e: UndoEnded, _: RelatedEntry) -> str:
    return f"step {e.step} undo {e.key}: {e.outcome}{_note(e.detail)}"


def _refused(e: GrantRefused, _: RelatedEntry) -> str:
    return f"step {e.step} grant refused by {e.executor}: {e.tool} [{e.reason_code}] {e.detail}"


def _switch_changed(e: KillSwitchChanged, _: RelatedEntry) -> str:
    what = f"{e.scope} {e.target}".strip()
    return f"switch: {what} {'off' if e.off else 'on'} by {e.by}{_note(e.why)}"


def _spend_resolved(e: SpendResolved, _: RelatedEntry) -> str:
    cost = f"{e.spent.tokens} tokens, {e.spent.cost_microusd} micro-USD"
    return f"step {e.step} spend resolved by {e.by}: attempt {e.attempt} cost {cost}{_note(e.note)}"


def _expired(e: ApprovalExpired, _: RelatedEntry) -> str:
    return f"approval over: nobody decides it any more  ({e.approval_id})"


_DESCRIBERS: dict[str, tuple[type, Callable[[Any, RelatedEntry], str]]] = {
    tag_of(ApprovalRequested): (ApprovalRequested, _requested),
    tag_of(ApprovalVoted): (ApprovalVoted, _voted),
    tag_of(ApprovalExpired): (ApprovalExpired, _expired),
    tag_of(EffectClaimed): (EffectClaimed, _claimed),
    tag_of(AttemptWithdrawn): (
        AttemptWithdrawn,
        lambda e, entry: f"attempt {e.attempt} of {entry.stream[6:]} was never sent",
    ),
    tag_of(EffectResolved): (EffectResolved, _resolved),
    tag_of(RollbackOrdered): (RollbackOrdered, lambda e, _: f"rollback ordered by {e.by}{_note(e.why)}"),
    tag_of(UndoIntended): (UndoIntended, _undo_intended),
    tag_of(UndoEnded): (UndoEnded, _undo_ended),
    tag_of(GrantRefused): (GrantRefused, _refused),
    tag_of(KillSwitchChanged): (KillSwitchChanged, _switch_changed),
    tag_of(SpendResolved): (SpendResolved, _spend_resolved),
}


def describe_related(events: Sequence[ev.Event], entries: Iterable[RelatedEntry]) -> list[tuple[int, str]]:
    """Return `(at_us, text)` of the entries that are about a run, in order; switches only if they could touch it."""
    first = events[0]
    assert isinstance(first, ev.RunSubmitted)
    ours, changes = [], []
    for entry in entries:
        if entry.type == tag_of(KillSwitchChanged):
            changes.append(entry)
        elif entry.stream != f"rollback/{root_of(first.run_id)}" or _is_of(entry, first):
            ours.append(entry)
    ours += _touching(events, first, changes)
    return [(entry.at_us, _describe(entry)) for entry in sorted(ours, key=lambda entry: entry.at_us)]


def _describe(entry: RelatedEntry) -> str:
    known = _DESCRIBERS.get(entry.type)
    if known is None:
        return f"{entry.type}  ({entry.stream})"
    kind, tell = known
    try:
        return tell(msgspec.json.decode(entry.body, type=kind), entry)
    except msgspec.MsgspecError:
        return f"{entry.type}, which cannot be read  ({entry.stream})"


def _is_of(entry: RelatedEntry, run: ev.RunSubmitted) -> bool:
    """Whether an entry of the rollback of a root concerns this run: of the root all, of a branch its own undos."""
    return run.run_id == root_of(run.run_id) or f'"run_id":"{run.run_id}"' in entry.body


def _touching(
    events: Sequence[ev.Event], run: ev.RunSubmitted, entries: Sequence[RelatedEntry]
) -> Iterator[RelatedEntry]:
    """Yield the switches that cover the run, or a tool it proposed, and were off at some time while it lived."""
    who, root = run.identity, root_of(run.run_id)
    tools = {call.tool for event in events if isinstance(event, ev.StepDecided) for call in event.calls.values()}
    places = {("all", ""), ("tenant", who.tenant), ("principal", f"{who.tenant}/{who.principal}"), ("run", root)}
    places |= {("version", run.app_version), *(("tool", tool) for tool in tools)}
    ended_us = events[-1].at_us if isinstance(events[-1], ev.RunEnded) else None
    before: dict[tuple[str, str], RelatedEntry] = {}
    for entry in entries:
        change = msgspec.json.decode(entry.body, type=KillSwitchChanged)
        place = (change.scope, change.target)
        if place not in places or (ended_us is not None and change.at_us > ended_us):
            continue
        if change.at_us >= run.at_us:
            yield from [entry] if place not in before else [before.pop(place), entry]
        elif KillSwitches([entry.body]).off(run.at_us):
            before[place] = entry
        else:
            before.pop(place, None)
    yield from before.values()


def _json(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode(errors="replace")
    return text if len(text) <= _NOTE else text[: _NOTE - 3] + "..."


def _note(text: str) -> str:
    return f": {text}" if text else ""
