"""The part of a run's machine that is about several reads of one decision, under way at once.

Each is gated, granted and journaled by itself, under its own step.  What is not plain (a person is to be asked, it did
not start, its answer is lost, it may go well later, it is no read after all) is put off: it comes in its turn, alone,
when the others are back.  Whatever ends the run ends all of them, and nothing is lost by that: a read changes nothing.
"""

from __future__ import annotations

from bisect import insort

from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.calls import MAX_SENDS, NOT_STARTED, OWN_BUDGET, CallHandlers, reason_to_report
from airside.stack.run.instructions import Instructions
from airside.stack.run.state import OpenCall, Phase
from airside.stack.values import FREE, ToolResult


class ReadHandlers(CallHandlers):
    """Handlers `_reading_<event>` of the phase `reading`."""

    __slots__ = ()

    def _reads(self, event: ev.Event, step: int) -> bool:
        """Whether an event is what the read of that step waits for."""
        call = self.state.reading.get(step)
        if call is None or isinstance(event, ev.LayerFailed):
            return call is not None
        return isinstance(event, ev.ActionGated) is (call.gated is None)

    def _read_all(self, calls: list[OpenCall]) -> Instructions:
        self.state.reading = {call.step: call for call in calls}
        paid = calls[0].action.spend != FREE
        return self._become(Phase.READING, *[self._gate_read(call, paid=paid) for call in calls])

    def _gate_read(self, call: OpenCall, *, paid: bool = False) -> do.GateCall:
        call.attempt += 1
        return do.GateCall(
            step=call.step,
            cause=self._cause(),
            action=call.action,
            attempt=call.attempt,
            sends=call.sends,
            durable_first=paid,
        )

    def _reading_gated(self, event: ev.ActionGated) -> Instructions:
        s, decision = self.state, event.decision
        call = s.reading[event.step]
        if decision.reason_code in OWN_BUDGET:
            return self._conclude(decision.reason_code, decision.detail)
        if decision.outcome == "deny":
            told = reason_to_report(decision)
            if self._is_refused_too_often(apart=decision.steered):
                return self._conclude(decision.reason_code, told)
            self._keep(
                call.step, call.action, event, ToolResult(ok=False, error=told, reason_code=decision.reason_code)
            )
            return self._is_back(call)
        dear = s.usage.cost_microusd + event.cost_microusd > self.limits.max_cost_microusd
        if decision.outcome != "allow" or event.effect != "read" or dear:
            return self._put_off(call)
        call.gated = event
        self._use(tool_calls=1, cost_microusd=event.cost_microusd)
        call.sends += 1
        execute = do.Execute(
            step=call.step,
            cause=self._cause(),
            gated=event,
            key=self._key(call.step),
            attempt=event.attempt,
            durable_first=event.counted,
        )
        return [execute]

    def _reading_executed(self, event: ev.ToolExecuted) -> Instructions:
        s, result = self.state, event.result
        call = s.reading[event.step]
        if result.reason_code in NOT_STARTED or result.asked:
            return self._put_off(call)
        if result.retry_after_ms is not None and call.sends < MAX_SENDS:
            call.after_ms = result.retry_after_ms
            return self._put_off(call)
        self._mark(call.gated)
        self._use(output_bytes=len(bytes(result.output)))
        if s.usage.output_bytes > self.limits.max_output_bytes:
            return self._conclude(ReasonCode.MAX_OUTPUT, f"{s.usage.output_bytes} bytes returned")
        self._keep(call.step, call.action, call.gated, result)
        return self._is_back(call)

    def _reading_lost(self, event: ev.ExecutionLost) -> Instructions:
        return self._put_off(self.state.reading[event.step])

    def _put_off(self, call: OpenCall) -> Instructions:
        """Have a call come in its turn, counted and paid for then."""
        self._take_back(call)
        insort(self.state.later, call, key=lambda each: each.step)
        return self._is_back(call)

    def _take_back(self, call: OpenCall) -> None:
        if call.gated is not None:
            self._use(tool_calls=-1, cost_microusd=-call.gated.cost_microusd)
        call.gated = None

    def _is_back(self, call: OpenCall) -> Instructions:
        del self.state.reading[call.step]
        return [] if self.state.reading else self._next()

    def _read_again(self) -> Instructions:
        """Gate what is still under way anew: nothing can be in doubt about a read."""
        calls = list(self.state.reading.values())
        if any(call.sends >= MAX_SENDS for call in calls):
            return self._conclude(ReasonCode.TOOL_UNAVAILABLE, "the executor died every time")
        for call in calls:
            self._take_back(call)
        return [self._gate_read(call) for call in calls]
