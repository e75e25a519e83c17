"""What operators ask of runs: a line of a list, and one run step by step.  Both are folds of its events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from airside.stack.calling import explain_absent
from airside.stack.errors import AirsideError
from airside.stack.ids import PrincipalId, RunId, TenantId, effect_key
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.machine import RunMachine
from airside.stack.run.rejections import refused_as_repeats
from airside.stack.run.state import Phase
from airside.stack.run.story import never_gated
from airside.stack.run.topology import Done, FanOut, GiveUp, Visit
from airside.stack.values import Action, Finish, Value

ACTIVE = "active"
"""The status of a run that has not ended; `phase` says where it stands."""


@explain_absent(id="run_id")
class RunSummary(Value):
    """A run as one line.  `status` is a `RunStatus`, or `active`; times are UTC microseconds, 0 for not yet."""

    run_id: RunId
    tenant: TenantId
    principal: PrincipalId
    job_id: str
    route: str
    parent: str
    submitted_us: int
    status: str = ACTIVE
    reason_code: str = ""
    phase: str = ""
    ended_us: int = 0
    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost_microusd: int = 0
    active_us: int = 0


class RunStep(Value):
    """One step: what the agent proposed, what the gate said of it, and what came of it.

    `action` is the tool's name, or `finish`, `handoff`, `fan out`; `arguments` are what the gate decided on, else what
    was proposed.  `decision` and `rule` are the gate's latest.  `outcome` is `ok`, `settled` or a reason code, empty
    while there is none; `detail` says more.  `took_us` is the call's own time, `decided_us` the agent's.  `key` is the
    idempotency key of a call that was about to change something.
    """

    step: int
    agent: str = ""
    action: str = ""
    arguments: Any = None
    decision: str = ""
    rule: str = ""
    code: str = ""
    outcome: str = ""
    detail: str = ""
    attempts: int = 0
    began_us: int = 0
    decided_us: int = 0
    took_us: int = 0
    cost_microusd: int = 0
    tokens: int = 0
    key: str = ""


class ShownRecord(Value):
    """A record of memory that a run was shown, by its id: what it says stays in memory, where it can be erased."""

    step: int
    record_id: str
    score: float


class Wait(Value):
    """A time in which a run waited.  `until_us` is 0 while it does; `what` says for what."""

    kind: Literal["queue", "approval", "doubt", "branches"]
    since_us: int
    until_us: int = 0
    what: str = ""


@explain_absent(id="run.run_id", run_id="run.run_id", status="run.status")
class RunDetail(Value):
    """One run: its line, what was asked, what came of it, its steps, its waits, and what memory it was shown."""

    run: RunSummary
    request: str
    labels: tuple[str, ...] = ()
    answer: Any = None
    detail: str = ""
    in_doubt: tuple[str, ...] = ()
    steps: tuple[RunStep, ...] = ()
    waits: tuple[Wait, ...] = ()
    memory: tuple[ShownRecord, ...] = ()


_WAITS: dict[Phase, Literal["queue", "approval", "doubt", "branches"]] = {
    Phase.QUEUED: "queue",
    Phase.AWAITING_APPROVAL: "approval",
    Phase.IN_DOUBT: "doubt",
    Phase.AWAITING_CHILDREN: "branches",
}


def run_status(events: Sequence[ev.Event]) -> tuple[str, list[Wait]]:
    """Return where a run stands by its events, and its waits, oldest first; the last one may still be open.

    `unknown` is the phase of a run whose events this version's machine does not take.
    """
    first = events[0]
    assert isinstance(first, ev.RunSubmitted)
    machine = RunMachine(first)
    waits = [Wait(kind="queue", since_us=first.at_us)]
    try:
        for event in events[1:]:
            machine.handle(event)
            phase = machine.state.phase
            if phase is Phase.SUSPENDED:
                continue  # its process was let go; it waits for what it waited for
            kind = _WAITS.get(phase)
            if not waits[-1].until_us and waits[-1].kind != kind:
                waits[-1] = msgspec.structs.replace(waits[-1], until_us=event.at_us)
            if kind is not None and waits[-1].until_us:
                waits.append(Wait(kind=kind, since_us=event.at_us, what=_what(event)))
    except AirsideError:
        return "unknown", waits
    return str(machine.state.phase), waits


def _what(event: ev.Event) -> str:
    """Return what the wait that an event begins is for."""
    match event:
        case ev.ActionGated():
            approval = event.decision.approval
            return f"{event.approval_id}" + (f" ({approval.quorum} of {', '.join(approval.roles)})" if approval else "")
        case ev.RoutePlanned(route=FanOut() as route):
            return ", ".join(branch.route for branch in route.branches)
        case ev.ToolExecuted():
            return event.result.error
        case ev.ExecutionLost():
            return event.error
    return ""


def detail_of(events: Sequence[ev.Event]) -> RunDetail:
    """Return a run with its steps and waits."""
    first, last = events[0], events[-1]
    phase, waits = run_status(events)
    assert isinstance(first, ev.RunSubmitted)
    run = RunSummary(
        run_id=first.run_id,
        tenant=first.identity.tenant,
        principal=first.identity.principal,
        job_id=first.request.job_id,
        route=first.request.route,
        parent=first.parent or "",
        submitted_us=first.at_us,
        phase=phase,
    )
    detail = RunDetail(run=run, request=first.request.text, labels=first.request.labels)
    if isinstance(last, ev.RunEnded):
        detail = _ended(detail, last)
    steps = tuple(_Steps(first.run_id, events).steps())
    return msgspec.structs.replace(detail, steps=steps, waits=tuple(waits), memory=tuple(_shown(events)))


def _shown(events: Sequence[ev.Event]) -> Iterator[ShownRecord]:
    for event in events:
        if isinstance(event, ev.MemoryRecalled):
            for record_id, score in event.records:
                yield ShownRecord(step=event.step, record_id=record_id, score=score)


def _ended(detail: RunDetail, ended: ev.RunEnded) -> RunDetail:
    outcome, usage = ended.outcome, ended.usage
    run = msgspec.structs.replace(
        detail.run,
        phase="",
        status=str(outcome.status),
        reason_code=str(outcome.reason_code),
        ended_us=ended.at_us,
        steps=usage.steps,
        tool_calls=usage.tool_calls,
        tokens=usage.tokens,
        cost_microusd=usage.cost_microusd,
        active_us=usage.active_us,
    )
    return msgspec.structs.replace(
        detail,
        run=run,
        labels=outcome.labels or detail.labels,
        answer=msgspec.json.decode(outcome.answer),
        detail=outcome.detail or outcome.reason_code.sentence,
        in_doubt=outcome.in_doubt,
    )


class _Steps:
    """Folds a run's events into its steps."""

    def __init__(self, run_id: RunId, events: Sequence[ev.Event]) -> None:
        self._run_id = run_id
        self._steps: dict[int, dict[str, Any]] = {}
        self._asked_us: dict[int, int] = {}
        self._refused = refused_as_repeats(events)
        self._left = never_gated(events)
        for self._place, event in enumerate(events):
            step = getattr(event, "step", 0)
            take = _TAKE.get(type(event))
            if take is not None and step:
                found = self._steps.setdefault(step, {"step": step, "began_us": event.at_us})
                take(self, found, event)

    def steps(self) -> Iterator[RunStep]:
        """Yield the steps in order; the one that only found the run to be done is none."""
        for _, found in sorted(self._steps.items()):
            if found.get("action") != "done":
                yield RunStep(**found)

    def asked(self, found: dict[str, Any], event: Any) -> None:
        """The agent is asked from here, as far as the journal says."""
        self._asked_us[found["step"]] = event.at_us
        route = getattr(event, "route", None)
        match route:
            case Visit():
                found["agent"] = route.agent
            case FanOut():
                found |= {"action": "fan out", "arguments": [branch.route for branch in route.branches]}
            case Done():
                found["action"] = "done"
            case GiveUp():
                found |= {"action": "give up", "detail": route.detail}

    def decided(self, found: dict[str, Any], event: ev.StepDecided) -> None:
        """The agent proposed."""
        proposal = event.proposal
        found |= {"agent": event.agent, "decided_us": max(0, event.at_us - self._asked_us.get(event.step, event.at_us))}
        found |= {"cost_microusd": proposal.spend.cost_microusd, "tokens": proposal.spend.tokens}
        for step, call in event.calls.items():
            its = self._steps.setdefault(step, {"step": step, "began_us": event.at_us, "agent": event.agent})
            its |= {"action": call.tool, "arguments": call.arguments}
            if step in self._left:
                its["detail"] = "never gated: the run ended before it was its turn"
        if isinstance(proposal, Action):
            return
        if isinstance(proposal, Finish):
            found |= {"action": "finish", "arguments": proposal.answer, "outcome": "ok"}
        else:
            found |= {"action": "handoff", "arguments": proposal.agent, "outcome": "ok"}

    def gated(self, found: dict[str, Any], event: ev.ActionGated) -> None:
        """The gate decided."""
        decision = event.decision
        found |= {"action": event.tool, "decision": decision.outcome, "rule": decision.rule, "code": decision.code}
        if bytes(event.arguments) != b"null":  # of no such tool, or invalid, it says nothing of what was proposed
            found["arguments"] = msgspec.json.decode(event.arguments)
        if decision.outcome == "deny":
            found |= {"outcome": str(decision.reason_code), "detail": decision.detail}
        if why := self._refused.get(self._place):
            found |= {"outcome": str(ReasonCode.APPROVAL_REJECTED), "detail": why}
        if event.intent:
            self.intended(found, event)

    def approved(self, found: dict[str, Any], event: ev.ApprovalDecided) -> None:
        """People decided."""
        by = ", ".join(event.by) or "nobody"
        found["detail"] = f"{event.outcome} by {by}" + (f": {event.note}" if event.note else "")
        if event.outcome in ("rejected", "expired"):
            found["outcome"] = f"approval_{event.outcome}"

    def intended(self, found: dict[str, Any], event: ev.ActionGated | ev.EffectIntended) -> None:
        """The call is sent; every attempt of it is paid for once."""
        found |= {"attempts": found.get("attempts", 0) + 1, "key": effect_key(self._run_id, event.step)}
        if found["attempts"] == 1:
            found["cost_microusd"] = found.get("cost_microusd", 0) + event.cost_microusd

    def executed(self, found: dict[str, Any], event: ev.ToolExecuted) -> None:
        """The call answered."""
        result = event.result
        found |= {"outcome": "ok" if result.ok else str(result.reason_code), "took_us": result.duration_us}
        if not result.ok:
            found["detail"] = result.error

    def lost(self, found: dict[str, Any], event: ev.ExecutionLost) -> None:
        """The answer is lost."""
        found |= {"outcome": "lost" if event.started else "not started", "detail": event.error}

    def resolved(self, found: dict[str, Any], event: ev.InDoubtResolved) -> None:
        """A person found out."""
        happened = "happened" if event.happened else "did not happen"
        found |= {"outcome": "settled", "detail": f"{event.by}: it {happened}"}

    def expired(self, found: dict[str, Any], event: ev.InDoubtExpired) -> None:
        """Nobody found out; why it is in doubt stays said."""
        found["outcome"] = str(ReasonCode.TOOL_IN_DOUBT)

    def failed(self, found: dict[str, Any], event: Any) -> None:
        """Something went wrong."""
        reason = getattr(event, "reason_code", "failed")
        found |= {"outcome": str(reason), "detail": getattr(event, "error", "") or getattr(event, "detail", "")}
        found["agent"] = getattr(event, "agent", found.get("agent", ""))

    def child(self, found: dict[str, Any], event: ev.ChildEnded) -> None:
        """A branch ended."""
        line = f"{event.run_id}: {event.outcome.status} [{event.outcome.reason_code}]"
        found["detail"] = "; ".join(filter(None, (found.get("detail", ""), line)))


_TAKE: dict[type[ev.Event], Any] = {
    ev.RoutePlanned: _Steps.asked,
    ev.MemoryRecalled: _Steps.asked,
    ev.SpendReserved: _Steps.asked,
    ev.StepDecided: _Steps.decided,
    ev.ActionGated: _Steps.gated,
    ev.ApprovalDecided: _Steps.approved,
    ev.EffectIntended: _Steps.intended,
    ev.ToolExecuted: _Steps.executed,
    ev.ExecutionLost: _Steps.lost,
    ev.InDoubtResolved: _Steps.resolved,
    ev.ChildEnded: _Steps.child,
    ev.RouteFailed: _Steps.failed,
    ev.RecallFailed: _Steps.failed,
    ev.SpendRefused: _Steps.failed,
    ev.DecideFailed: _Steps.failed,
    ev.InDoubtExpired: _Steps.expired,
    ev.LayerFailed: _Steps.failed,
}
