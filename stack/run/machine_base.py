"""What a run's machine is made of: its state, what others may look at, and the only writers of phase and usage."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import Any

import msgspec

from airside.stack.canonical import canonical
from airside.stack.contracts.memory import MAX_SHOWN
from airside.stack.ids import EffectKey, effect_key
from airside.stack.reasons import ReasonCode, status_of
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.instructions import Instructions
from airside.stack.run.state import OVER, PARKED, TIMED, Phase, RunState, StepRecord
from airside.stack.run.topology import TopologyState
from airside.stack.values import FREE, NULL, Action, Limits, Outcome, Spend, ToolResult, Usage


class MachineBase:
    """State and helpers; the handlers are in `calls` and `machine`.  `limits` are the run's."""

    __slots__ = ("events", "limits", "state")

    def __init__(self, submitted: ev.RunSubmitted) -> None:
        labels = frozenset(submitted.request.labels)
        self.state = RunState(submitted=submitted, labels=labels, shown=submitted.shown, last_us=submitted.at_us)
        self.events: list[ev.Event] = [submitted]
        self.limits = submitted.limits

    # What the shell and agents may look at.

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.state.phase in OVER

    @property
    def is_parked(self) -> bool:
        """Whether the run waits for a person."""
        return self.state.phase in PARKED

    def topology_state(self) -> TopologyState:
        """Return what the topology may look at."""
        s = self.state
        return TopologyState(request=s.submitted.request, finished=s.finished, holder=s.holder, branches=s.branches)

    def usage(self) -> Usage:
        """Return a copy of what the run has used so far."""
        return msgspec.structs.replace(self.state.usage)

    def remaining(self) -> Limits:
        """Return what the run may still use: its limits less its usage, never below zero.

        A call that is gated again, and is counted already, does not use up what it is decided by.
        """
        limits, s = self.limits, self.state
        used, own = s.usage, s.charged if s.phase in (Phase.GATING, Phase.RESUMING) else None
        return msgspec.structs.replace(
            limits,
            max_steps=max(0, limits.max_steps - used.steps),
            max_seconds=max(0, limits.max_seconds - used.active_us // 1_000_000),
            max_tool_calls=max(0, limits.max_tool_calls - used.tool_calls + (own is not None)),
            max_tokens=max(0, limits.max_tokens - used.tokens),
            max_cost_microusd=max(0, limits.max_cost_microusd - used.cost_microusd + (own or 0)),
            max_output_bytes=max(0, limits.max_output_bytes - used.output_bytes),
            max_handoffs=max(0, limits.max_handoffs - used.handoffs),
            max_rejections=max(0, limits.rejections - used.rejections),
        )

    # Helpers: the only writers of phase, usage and outcome.

    def _cause(self) -> int:
        return len(self.events) - 1

    def _use(self, **more: int) -> None:
        used = self.state.usage
        for name, amount in more.items():
            setattr(used, name, getattr(used, name) + amount)

    def _overtime(self) -> bool:
        return self.state.usage.active_us > self.limits.max_seconds * 1_000_000

    def _may_stop(self, event: ev.Event) -> bool:
        """Whether nothing is in flight whose outcome would be lost by stopping here."""
        s = self.state
        if s.phase is Phase.EXECUTING:
            return isinstance(event, ev.ActionGated | ev.EffectIntended) and not s.ambiguous
        return s.phase in TIMED and not s.ambiguous

    def _become(self, phase: Phase, *instructions: do.Instruction) -> Instructions:
        self.state.phase = phase
        return list(instructions)

    def _plan(self, paid: Spend = FREE) -> Instructions:
        """Begin the next step; what was just paid for is durable first, so that a crash never pays twice."""
        s = self.state
        s.step = max(s.step, s.last) + 1
        self._clear_call()
        return self._become(Phase.PLANNING, do.PlanRoute(step=s.step, cause=self._cause(), durable_first=paid != FREE))

    def _clear_call(self) -> None:
        s = self.state
        s.action, s.gated, s.allowed, s.receipt = None, None, None, ""
        s.attempt, s.sends, s.ambiguous, s.charged = 0, 0, False, None
        s.asked, s.rounds, s.answered, s.declined = "", 0, "", ""

    def _next(self) -> Instructions:
        """Begin the decision's next call, or the next step if there is none."""
        s = self.state
        if not s.later:
            return self._plan()
        call = s.later.pop(0)
        self._clear_call()
        s.step, s.action, s.attempt, s.sends = call.step, call.action, call.attempt, call.sends
        return self._gate(after_ms=call.after_ms)

    def _gate(self, *, phase: Phase = Phase.GATING, after_ms: int = 0) -> Instructions:
        s = self.state
        assert s.action is not None
        s.attempt += 1
        gate = do.GateCall(
            step=s.step,
            cause=self._cause(),
            action=s.action,
            attempt=s.attempt,
            sends=s.sends,
            receipt=s.receipt,
            durable_first=s.action.spend != FREE,
            after_ms=after_ms,
            asked=s.asked,
            answered=s.answered,
            declined=s.declined,
        )
        return self._become(phase, gate)

    def _show(self, record_ids: Iterable[str]) -> None:
        """Take in which records of memory the run was shown; one more than may be says that there were too many."""
        s = self.state
        s.shown = tuple(dict.fromkeys((*s.shown, *record_ids)))[: MAX_SHOWN + 1]

    def _take_reserved(self) -> None:
        """Count as spent what is set aside for a decision that nobody has any more."""
        reserved, self.state.reserved = self.state.reserved, None
        if reserved is not None:
            self._use(tokens=reserved.tokens, cost_microusd=reserved.cost_microusd)

    def _conclude(self, reason: ReasonCode, detail: str = "", answer: Any = None) -> Instructions:
        s = self.state
        self._take_reserved()
        s.reading = {}
        s.outcome = Outcome(
            status=status_of(reason),
            reason_code=reason,
            answer=NULL if answer is None else msgspec.Raw(canonical(answer)),
            detail=detail[:2000],
            in_doubt=tuple(s.in_doubt_keys),
            labels=tuple(sorted(s.labels)),
            shown=s.shown,
        )
        conclude = do.Conclude(step=s.step, cause=self._cause(), outcome=s.outcome, durable_first=True)
        return self._become(Phase.CONCLUDING, conclude)

    def _stop_unsent(self, reason: ReasonCode, detail: str = "") -> Instructions:
        """Conclude before the present call is sent: what was just allowed has certainly not happened."""
        self.state.in_doubt_keys.pop(effect_key(self.state.submitted.run_id, self.state.step), None)
        return self._conclude(reason, detail)

    def _record(self, result: ToolResult) -> None:
        s = self.state
        assert s.action is not None
        self._keep(s.step, s.action, s.gated, result)

    def _keep(self, step: int, action: Action, gated: ev.ActionGated | None, result: ToolResult) -> None:
        """Put a call's result into the history, at its step's place."""
        s = self.state
        assert s.visit is not None
        arguments = msgspec.json.decode(gated.arguments) if gated and gated.digest else action.arguments
        record = StepRecord(step=step, agent=s.visit.agent, tool=action.tool, arguments=arguments or {}, result=result)
        if s.history and s.history[-1].step > step:  # reads that were under way at once come back in any order
            insort(s.history, record, key=lambda each: each.step)
        else:
            s.history.append(record)

    def _refuse(self, reason: ReasonCode, detail: str, *, apart: bool = False) -> Instructions:
        """Tell the agent about a refusal, or end the run if it has been told often enough.

        `apart` = it is a rejection, which is counted by itself.
        """
        detail = self._after_rounds(detail)
        if self._is_refused_too_often(apart=apart):
            return self._conclude(reason, detail)
        self._record(ToolResult(ok=False, error=detail, reason_code=reason))
        return self._next()

    def _after_rounds(self, why: str) -> str:
        """Return why a call ends here; of one that its tool began before it asked something, that it did."""
        begun = "; it was sent before, and its tool still waits for what it asked people"
        return f"{why}{begun}" if self.state.rounds else why

    def _is_refused_too_often(self, *, apart: bool) -> bool:
        """Count a refusal, and say whether the agent has been told of enough of them."""
        used = self.state.usage
        self._use(**{"rejections" if apart else "refusals": 1})
        return used.rejections > self.limits.rejections if apart else used.refusals > self.limits.max_refusals

    def _key(self, step: int = 0) -> EffectKey:
        return effect_key(self.state.submitted.run_id, step or self.state.step)
