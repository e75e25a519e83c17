"""A run told as lines a person can read: what happened, why, and what asked for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from airside.stack.run import events as ev
from airside.stack.run.rejections import refused_as_repeats
from airside.stack.run.topology import Done, FanOut, GiveUp, Visit
from airside.stack.text.entities import visible
from airside.stack.values import Action, Finish, Outcome

_WIDTH = 160
_SHOWN = 3
"""Resources of one call that its line names."""


def story_lines(events: Sequence[ev.Event], beside: Sequence[tuple[int, str]] = ()) -> str:
    """Return one line an event: number, time since the start, what happened, and the cause's number.

    `beside` is what other streams have of the run, as `(at_us, text)` in order: told where it happened, with a `~`.
    """
    if not events:
        return "(nothing happened)"
    start = events[0].at_us
    began = datetime.fromtimestamp(start / 1e6, tz=UTC).isoformat(timespec="milliseconds")
    lines = [f"{getattr(events[0], 'run_id', 'run')} began {began}"]
    waiting, now_us = deque(beside), start
    refused, left = refused_as_repeats(events), never_gated(events)
    for number, event in enumerate(events):
        now_us = max(now_us, event.at_us)  # the run's own order holds, whatever its clocks say
        while waiting and waiting[0][0] < now_us:
            lines.append(_line("~", start, *waiting.popleft()))
        cause = f"  <- #{event.cause}" if event.cause != ev.OUTSIDE else ""
        more = (refused[number],) if number in refused else ()
        if left and isinstance(event, ev.RunEnded):
            more = ("; never gated: " + ", ".join(f"step {step} {call.tool}" for step, call in left.items()),)
        lines.append(_line(f"#{number}", start, event.at_us, _LINES[type(event)](event, *more)) + cause)
        if isinstance(event, ev.StepDecided) and event.later:
            lines += [_line("", start, event.at_us, f"  step {n}: {_called(call)}") for n, call in event.calls.items()]
    lines += [_line("~", start, *each) for each in waiting]
    return "\n".join(lines)


def event_line(number: int, event: ev.Event) -> str:
    """Return what one event says happened, by itself."""
    return f"#{number} {_LINES[type(event)](event)}"


def never_gated(events: Sequence[ev.Event]) -> dict[int, Action]:
    """Return, by step, the calls of an ended run that were proposed together with others and not come to."""
    if not isinstance(events[-1], ev.RunEnded):
        return {}
    calls: dict[int, Action] = {}
    for event in events:
        if isinstance(event, ev.StepDecided):
            calls = event.calls if event.later else {}
        elif isinstance(event, ev.ActionGated):
            calls.pop(event.step, None)
    return calls


def _line(mark: str, start_us: int, at_us: int, text: str) -> str:
    return f"{mark:<4} +{(at_us - start_us) / 1e6:8.3f}s  {_cut(printable(text), _WIDTH)}"


def _cut(text: str, most: int) -> str:
    """Return at most so many characters of a text, and dots where there were more."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def printable(text: str) -> str:
    """Return a text as one line that does nothing to a terminal and hides nothing."""
    line = visible(" ".join(text.split()))
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in line)


def _submitted(e: ev.RunSubmitted) -> str:
    who = f"{e.identity.principal}@{e.identity.tenant}"
    return f"submitted by {who}, route {e.request.route}: {_cut(repr(e.request.text), 80)}"


def _planned(e: ev.RoutePlanned) -> str:
    match e.route:
        case Visit():
            return f"step {e.step} plan: {e.route.agent} is next"
        case FanOut():
            return f"step {e.step} plan: fan out into {[b.route for b in e.route.branches]}"
        case Done():
            return f"step {e.step} plan: done"
        case GiveUp():
            return f"step {e.step} plan: give up, {e.route.detail}"


def _asked(e: ev.SpendAsked) -> str:
    price = f"{e.price.cost_microusd} micro-USD, {e.price.tokens} tokens" if e.price else "no price is named"
    return f"step {e.step} asks for a decision: {price}"


def _decided(e: ev.StepDecided) -> str:
    p = e.proposal
    cost = f" (cost {p.spend.cost_microusd} micro-USD, {p.spend.tokens} tokens)" if p.spend.cost_microusd else ""
    if e.later:
        how = "to read at once" if e.reads else "in this order"
        return f"step {e.step} {e.agent} proposes {len(e.later) + 1} calls {how}{cost}"
    if isinstance(p, Action):
        return f"step {e.step} {e.agent} proposes {_called(p)}{cost}"
    if isinstance(p, Finish):
        return f"step {e.step} {e.agent} finishes: {_cut(repr(p.answer), 80)}{cost}"
    return f"step {e.step} {e.agent} hands over to {p.agent}{cost}"


def _called(call: Action) -> str:
    return f"{call.tool}({', '.join(f'{name}={_cut(repr(value), 40)}' for name, value in call.arguments.items())})"


def _gated(e: ev.ActionGated, refused: str = "") -> str:
    d = e.decision
    why = f" because {d.detail}" if d.detail else ""
    code = d.code or (d.reason_code if d.outcome == "deny" else "")
    code = f" [{code}]" if code else ""
    again = f", which {refused}: nobody is asked" if refused else ""
    again = again or (", for the tool asks" if e.asks_for_tool else "")
    return f"step {e.step} gate: {d.outcome} by rule {d.rule} of {d.policy_version}{code}{again}{_about(e)}{why}"


def _about(e: ev.ActionGated) -> str:
    shown = [each.brief() for each in e.resources[:_SHOWN]]
    more = [f"{len(e.resources) - _SHOWN} more"] if len(e.resources) > _SHOWN else []
    return f", about {', '.join([*shown, *more])}" if shown else ""


def _approval(e: ev.ApprovalDecided) -> str:
    note = f": {e.note}" if e.note else ""
    return f"step {e.step} approval: {e.outcome} by {', '.join(e.by) or 'nobody'}{note}"


def _executed(e: ev.ToolExecuted) -> str:
    r = e.result
    what = f"ok, {_cut(bytes(r.output).decode(), 80)}" if r.ok else f"[{r.reason_code}] {r.error}"
    where = "" if r.sandbox is None else f" in a sandbox ({r.sandbox})"
    return f"step {e.step} result after {r.duration_us / 1000:.1f} ms{where}: {what}"


def _lost(e: ev.ExecutionLost) -> str:
    return f"step {e.step} answer lost ({'it may have run' if e.started else 'it never ran'}): {e.error}"


def _settled(e: ev.InDoubtResolved) -> str:
    note = f": {e.note}" if e.note else ""
    return f"step {e.step} doubt resolved by {e.by}: it {'happened' if e.happened else 'did not happen'}{note}"


def _outcome(o: Outcome) -> str:
    doubt = f"; in doubt: {', '.join(o.in_doubt)}" if o.in_doubt else ""
    return f"{o.status} [{o.reason_code}] {o.detail or o.reason_code.sentence}{doubt}"


_LINES: dict[type[ev.Event], Callable[..., str]] = {
    ev.RunSubmitted: _submitted,
    ev.RunActivated: lambda e: f"activated, epoch {e.epoch}",
    ev.RoutePlanned: _planned,
    ev.RouteFailed: lambda e: f"step {e.step} plan failed: [{e.reason_code}] {e.error}",
    ev.MemoryRecalled: lambda e: f"step {e.step} recall: {len(e.records)} records",
    ev.RecallFailed: lambda e: f"step {e.step} recall failed: {e.error}",
    ev.SpendAsked: _asked,
    ev.SpendReserved: lambda e: f"step {e.step} set aside",
    ev.SpendRefused: lambda e: f"step {e.step} spend refused: [{e.reason_code}] {e.detail}",
    ev.StepDecided: _decided,
    ev.DecideFailed: lambda e: f"step {e.step} {e.agent} failed to decide: [{e.reason_code}] {e.error}",
    ev.ActionGated: _gated,
    ev.ApprovalDecided: _approval,
    ev.EffectIntended: lambda e: f"step {e.step} intends {e.tool}, key {e.key}",
    ev.ToolExecuted: _executed,
    ev.ExecutionLost: _lost,
    ev.InDoubtResolved: _settled,
    ev.InDoubtExpired: lambda e: f"step {e.step} doubt expired",
    ev.MemoryLearned: lambda e: f"step {e.step} learn: {e.code} {e.record_id}",
    ev.ChildEnded: lambda e: f"step {e.step} branch {e.branch} ({e.run_id}): {_outcome(e.outcome)}",
    ev.CancelRequested: lambda e: f"cancelled by {e.by}: {e.why}",
    ev.KillRequested: lambda e: f"killed by {e.by}: {e.why} [{e.reason_code}]",
    ev.RunSuspended: lambda e: f"suspended: {e.why}",
    ev.LayerFailed: lambda e: f"step {e.step} a layer failed: {e.error}",
    ev.RunEnded: lambda e, left="": f"ended: {_outcome(e.outcome)}{left}",
}
