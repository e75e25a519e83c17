"""The part of a run's machine that is about one call: gate, approval, execution, doubt.

A call that was sent and not answered may have happened.  A tool that can be asked again under the same key is
(`resuming`), unless it held the event loop it ran on; any other goes to `in_doubt`, and is never sent twice.  One that
did not happen, and may go well later, is gated and sent again after a while, if its tool declares retries.
"""

from __future__ import annotations

import msgspec

from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.instructions import Instructions
from airside.stack.run.machine_base import MachineBase
from airside.stack.run.state import Phase
from airside.stack.values import UNTRUSTED, Action, Decision, ToolResult

MAX_SENDS = 4
"""How often one call is sent: first, and again after an executor died, or when its tool asks for it.  More would hide a
call that kills executors."""

NOT_STARTED = frozenset(
    {ReasonCode.SWITCHED_OFF, ReasonCode.GRANT_INVALID, ReasonCode.GRANT_STALE, ReasonCode.TOOL_UNAVAILABLE}
)
MAX_ROUNDS = 4
"""How often a tool may ask people before it completes one call: a form that is longer belongs into its arguments."""

OWN_BUDGET = frozenset({ReasonCode.MAX_COST, ReasonCode.MAX_TOOL_CALLS})
UNKNOWN_OUTCOMES = frozenset({ReasonCode.TOOL_TIMEOUT, ReasonCode.TOOL_IN_DOUBT})
"""A call that changes something and came to this may have happened."""


def reason_to_report(decision: Decision) -> str:
    """Return what an agent is told of a denial."""
    return decision.detail or decision.code or decision.rule


class CallHandlers(MachineBase):
    """Handlers `_<phase>_<event>` of the phases of a call."""

    __slots__ = ()

    def _gating_gated(self, event: ev.ActionGated) -> Instructions:
        s, decision = self.state, event.decision
        s.gated = event
        if decision.reason_code in OWN_BUDGET:
            return self._conclude(decision.reason_code, self._after_rounds(decision.detail))
        if decision.outcome == "deny":
            return self._refuse(decision.reason_code, reason_to_report(decision), apart=decision.steered)
        if why := s.rejected.against(event, s.action):
            return self._refuse(ReasonCode.APPROVAL_REJECTED, why, apart=True)
        new = event.cost_microusd if s.charged is None else 0  # of a later round it is paid
        if s.usage.cost_microusd + new > self.limits.max_cost_microusd:
            return self._conclude(ReasonCode.MAX_COST, f"{event.tool} costs {event.cost_microusd} micro-USD")
        if decision.outcome == "require_approval":
            ask = do.AskApproval(step=s.step, cause=self._cause(), gated=event, durable_first=True)
            return self._become(Phase.AWAITING_APPROVAL, ask)
        return self._send(event)

    def _resuming_gated(self, event: ev.ActionGated) -> Instructions:
        if self._key() not in self.state.in_doubt_keys:
            # Nothing can be in doubt about a read: it is a first call again, and counted and paid for as one.
            self._refund()
            self.state.ambiguous = False
            return self._gating_gated(event)
        if event.decision.outcome != "allow":
            return self._doubt()
        self.state.gated = event
        return self._send(event)

    def _send(self, gated: ev.ActionGated) -> Instructions:
        """Have an allowed call carried out; one that a journal of before format 2 allows waits for its intent there."""
        s = self.state
        s.allowed = (s.step, gated.attempt)
        if gated.approval_id is not None:
            s.approved[s.step] = gated
        return self._sent() if gated.intent else self._become(Phase.INTENDING)

    def _intending_intended(self, event: ev.EffectIntended) -> Instructions:
        return self._sent()

    def _sent(self) -> Instructions:
        s, key = self.state, self._key()
        assert s.gated is not None
        if s.gated.effect != "read":
            s.in_doubt_keys[key] = s.step
        s.sends, s.why = s.sends + 1, ""
        if s.charged is None:
            s.charged = s.gated.cost_microusd
            self._use(tool_calls=1, cost_microusd=s.charged)
        execute = do.Execute(
            step=s.step,
            cause=self._cause(),
            gated=s.gated,
            key=key,
            attempt=s.gated.attempt,
            durable_first=s.gated.effect != "read" or s.gated.counted,
            round=s.rounds,
            asked=s.asked,
        )
        return self._become(Phase.EXECUTING, execute)

    def _approval_decided(self, event: ev.ApprovalDecided) -> Instructions:
        s = self.state
        assert s.action is not None and s.gated is not None
        if event.approval_id != s.gated.approval_id:
            return []
        s.rejected.take(s.gated, s.action, event)
        if s.gated.asks_for_tool:
            return self._answered(event)
        who = ", ".join(event.by)
        if event.outcome == "rejected":
            told = f"rejected by {who}: {event.note}" if event.note else f"rejected by {who}"
            return self._refuse(ReasonCode.APPROVAL_REJECTED, told, apart=event.apart)
        if event.outcome == "expired":
            terms = s.gated.decision.approval
            if terms is not None and terms.answer:  # nobody said no to anything
                return self._refuse(ReasonCode.APPROVAL_EXPIRED, "nobody answered in time", apart=True)
            return self._refuse(ReasonCode.APPROVAL_EXPIRED, "nobody decided in time")
        s.receipt = event.receipt
        if bytes(event.arguments) != b"null":
            edited = msgspec.json.decode(event.arguments)
            s.action = Action(tool=s.action.tool, arguments=edited, spend=s.action.spend)
        return self._gate()

    def _executing_executed(self, event: ev.ToolExecuted) -> Instructions:
        s, result = self.state, event.result
        assert s.gated is not None
        if result.reason_code in NOT_STARTED:
            return self._not_started(result.error)
        if result.reason_code in UNKNOWN_OUTCOMES and s.gated.effect != "read":
            s.ambiguous, s.why = True, result.error
            return self._doubt() if result.held else self._recover()
        if result.retry_after_ms is not None and s.sends < MAX_SENDS:
            return self._try_again(result.retry_after_ms)
        s.in_doubt_keys.pop(self._key(), None)
        if result.asked and s.rounds < MAX_ROUNDS:
            return self._begin_round(result)
        self._record_result(result)
        self._use(output_bytes=len(bytes(result.output)))
        if s.usage.output_bytes > self.limits.max_output_bytes:
            return self._conclude(ReasonCode.MAX_OUTPUT, f"{s.usage.output_bytes} bytes returned")
        return self._next()

    def _begin_round(self, result: ToolResult) -> Instructions:
        """Gate a call anew whose tool asks people something before it completes it; it is counted and paid for once."""
        s = self.state
        s.asked, s.answered, s.declined = result.asked, "", ""
        s.rounds, s.sends, s.ambiguous = s.rounds + 1, 0, False
        return self._gate()

    def _answered(self, event: ev.ApprovalDecided) -> Instructions:
        """Send a tool what a person answered, or that nobody does, which ends a run in which that comes too often."""
        s = self.state
        if event.outcome == "answered":
            s.answered = event.receipt
            return self._gate()
        s.declined = "cancel" if event.outcome == "expired" else "decline"
        if self._is_refused_too_often(apart=True):
            reason = ReasonCode.APPROVAL_EXPIRED if event.outcome == "expired" else ReasonCode.APPROVAL_REJECTED
            return self._conclude(reason, f"{s.gated.tool if s.gated else ''} asked, and nobody answered".strip())
        return self._gate()

    def _try_again(self, after_ms: int) -> Instructions:
        """Gate a call anew that certainly did not happen, by any attempt; it is counted and paid for once."""
        s = self.state
        s.in_doubt_keys.pop(self._key(), None)
        s.ambiguous = False
        self._refund()
        return self._gate(after_ms=after_ms)

    def _record_result(self, result: ToolResult) -> None:
        """Record what a tool returned; an outsider may have written it, unless the tool says otherwise."""
        self._mark(self.state.gated)
        self._record(result)

    def _mark(self, gated: ev.ActionGated | None) -> None:
        if gated is None or not gated.trusted_output:
            self.state.labels |= {UNTRUSTED}

    def _executing_lost(self, event: ev.ExecutionLost) -> Instructions:
        self.state.why = event.error
        return self._recover() if event.started else self._not_started(event.error)

    def _not_started(self, error: str) -> Instructions:
        s = self.state
        assert s.gated is not None
        if not s.ambiguous:
            s.in_doubt_keys.pop(self._key(), None)
            self._refund()
        if s.sends < MAX_SENDS:
            return self._gate(phase=Phase.RESUMING if s.ambiguous else Phase.GATING)
        return self._doubt() if s.ambiguous else self._conclude(ReasonCode.TOOL_UNAVAILABLE, error)

    def _refund(self) -> None:
        """Take back what a call that certainly did not happen was counted as."""
        if self.state.charged is not None:
            self._use(tool_calls=-1, cost_microusd=-self.state.charged)
            self.state.charged = None

    def _recover(self) -> Instructions:
        """Find out what became of a call that was sent and not answered."""
        s = self.state
        assert s.gated is not None
        s.ambiguous = True
        only_read = self._key() not in s.in_doubt_keys
        if s.sends < MAX_SENDS and (s.gated.repeatable or only_read):
            return self._gate(phase=Phase.RESUMING)
        if only_read:
            return self._stop_unsent(ReasonCode.TOOL_UNAVAILABLE, "the executor died every time")
        return self._doubt()

    def _doubt(self) -> Instructions:
        s = self.state
        wait = do.AwaitResolution(
            step=s.step, cause=self._cause(), seconds=self.limits.doubt_wait_s, durable_first=True
        )
        return self._become(Phase.IN_DOUBT, wait)

    def _in_doubt_resolved(self, event: ev.InDoubtResolved) -> Instructions:
        self.state.in_doubt_keys.pop(self._key(), None)
        if event.happened:
            self._record_result(ToolResult(ok=True, output=event.output))
        else:
            error = f"{event.by} found that it did not happen"
            self._record(ToolResult(ok=False, error=error, reason_code=ReasonCode.TOOL_FAILED))
        return self._next()

    def _in_doubt_expired(self, event: ev.InDoubtExpired) -> Instructions:
        why = f" ({self.state.why})" if self.state.why else ""
        return self._conclude(ReasonCode.TOOL_IN_DOUBT, f"{', '.join(self.state.in_doubt_keys)}: nobody could say{why}")
