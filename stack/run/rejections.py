"""What people rejected in one run: nobody is asked again about a call that somebody said no to.  Pure.

A call is its tool and the canonical form of its arguments, whoever proposes it, at whatever step; what a tool asks is
the tool and the question.  A rejection holds for the rest of its run, and against the call only where the call needs an
approval again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from airside.stack.canonical import canonical, digest
from airside.stack.run import events as ev
from airside.stack.values import Action, Value

_NOTE = 300
"""Characters of a note that are told to whoever is asked about another call."""

CallId = tuple[str, str]
"""A tool, and the digest of the arguments."""


class Rejection(Value):
    """Who rejected a call, and why; `holds` = nobody is asked about that call again in its run."""

    by: str
    note: str
    holds: bool


@dataclass(slots=True)
class Rejections:
    """The calls of one run that people rejected, in the order in which they did."""

    _known: dict[CallId, Rejection] = field(default_factory=dict)

    def take(self, gated: ev.ActionGated, action: Action | None, decided: ev.ApprovalDecided) -> None:
        """Take in that people decided about a call."""
        if decided.outcome != "rejected":
            return
        call = _call_id(gated, action)
        self._known.pop(call, None)  # the last one is told
        # What was journaled before there was this rule was asked about again, and is replayed as it went.
        self._known[call] = Rejection(by=", ".join(decided.by), note=decided.note, holds=decided.apart)

    def against(self, gated: ev.ActionGated, action: Action | None) -> str:
        """Return why nobody is asked about a call that needs an approval; empty if somebody is to be."""
        if gated.decision.outcome != "require_approval" or not self._known:
            return ""
        found = self._known.get(_call_id(gated, action))
        return f"was rejected before by {found.by}" if found is not None and found.holds else ""

    def summary(self, tool: str) -> str:
        """Return what whoever is asked about a call of a tool must know of those before it; empty if there are none."""
        found = [rejection for (name, _), rejection in self._known.items() if name == tool]
        if not found:
            return ""
        last = found[-1]
        note = f": {last.note:.{_NOTE}}" if last.note else ""
        if len(found) == 1:
            return f"1 call of this tool was rejected in this run, by {last.by}{note}"
        return f"{len(found)} calls of this tool were rejected in this run, the last by {last.by}{note}"


def _call_id(gated: ev.ActionGated, action: Action | None) -> CallId:
    if gated.asks_for_tool:
        return gated.tool, digest(bytes(gated.question))
    arguments = gated.digest or digest(canonical(action.arguments if action is not None else {}))
    return gated.tool, arguments


def refused_as_repeats(events: Sequence[ev.Event]) -> dict[int, str]:
    """Return, by their place among a run's events, the gate's decisions that nobody was asked about, and why."""
    known, refused = Rejections(), {}
    actions: dict[int, Action] = {}
    gated: ev.ActionGated | None = None
    for place, event in enumerate(events):
        if isinstance(event, ev.StepDecided):
            actions = event.calls
        elif isinstance(event, ev.ActionGated):
            gated = event
            if why := known.against(event, actions.get(event.step)):
                refused[place] = why
        elif isinstance(event, ev.ApprovalDecided) and gated is not None and event.approval_id == gated.approval_id:
            known.take(gated, actions.get(event.step), event)
    return refused
