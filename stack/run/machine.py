"""`RunMachine`: one run as a table of phase x event -> handler.  Pure: no clock, no randomness, no I/O.

    queued -> planning -> recalling -> deciding -> gating -> executing -> planning ... -> concluding
                 |                                  |  ^         |
                 v                                  v  |         v (outcome unknown)
          awaiting_children             awaiting_approval    resuming -> executing
                                      (approved, edited)         |
                                                                 v
                                                              in_doubt

A decision that costs something comes after `asking` and `reserving`.  One that proposes several calls has a step for
each; they are gated one after the other, whatever became of those before, or all at once (`reading`) if they only
read, and the agent is asked again when each has its result.  The rules:
 * `handle(event)` returns the instructions the shell must carry out, and the shell feeds back what happened.  An
   event the present phase has no row for is `IllegalTransition`, and leaves the state as it was.
 * A run is the fold of its events.  After a crash the journal's events are handled again (instructions dropped), and
   `RunActivated` asks again for whatever is outstanding.
 * Limits are checked before the step that would cross them.
 * The decision that allows a call is the intent to send it: durable first, if the call changes something.  In a journal
   of before format 2 the intent is an event of its own, for which a run waits in `intending`.
 * A call that was sent and not answered may have happened.  A tool that can be asked again under the same key is
   (`resuming`: there a refusal does not mean that nothing happened); any other goes to `in_doubt`, never twice.
 * Every run ends through `_conclude`, once.  One that is done may be looked at by an extractor first (`ending`).

Invariants, checked by `check()` after every event in tests:
 1. What the run has used never exceeds its limits by more than the one decision that was already paid for.
 2. A call is in `executing` only if the latest decision about this very step and attempt allows it.
 3. The key of a call that changes something is unsettled only between its intent and its result, and no run completes
    with one.
 4. Labels only grow, and so do the epoch and the step; no count in `usage` is below zero.
 5. Exactly the phases from `concluding` on have an outcome, and the outcome never changes.
 6. The history's steps rise strictly.
 7. Nobody is asked about a call that somebody rejected in this run.
 8. Calls that are under way at once are allowed reads; there are some exactly in `reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from airside.stack.canonical import canonical, digest
from airside.stack.contracts.budget import exceeds_price
from airside.stack.errors import IllegalTransition
from airside.stack.reasons import ReasonCode, RunStatus, status_of
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.extraction import grounded, noted, seen
from airside.stack.run.instructions import Instructions
from airside.stack.run.invariants import check_invariants
from airside.stack.run.reads import ReadHandlers
from airside.stack.run.state import OVER, TIMED, OpenCall, Phase
from airside.stack.run.story import story_lines
from airside.stack.run.topology import BranchEnd, Done, FanOut, GiveUp, StageEnd
from airside.stack.values import FREE, Action, Finish, Handoff, Limits, Spend


class RunMachine(ReadHandlers):
    """One run.  Built from its `RunSubmitted`; everything after goes through `handle`."""

    __slots__ = ()

    @classmethod
    def replay(cls, events: Iterable[ev.Event]) -> RunMachine:
        """Fold a run's events, oldest first, into the machine they add up to."""
        stream = iter(events)
        first = next(stream)
        if not isinstance(first, ev.RunSubmitted):
            raise IllegalTransition(f"a run begins with RunSubmitted, not {type(first).__name__}")
        machine = cls(first)
        for event in stream:
            machine.handle(event)
        return machine

    def handle(self, event: ev.Event) -> Instructions:
        """Take in what happened and return what to do next; raise `IllegalTransition` for what cannot happen."""
        state = self.state
        handler = _TABLE.get((state.phase, type(event)))
        step = getattr(event, "step", None)
        if handler is None or ((state.reading or step != state.step) and not self._is_due(event, step)):
            raise IllegalTransition(
                f"{type(event).__name__}(step={step}) in phase {state.phase} at step {state.step}\n{self.story()}"
            )
        waits = state.batched and state.phase is Phase.DECIDING
        if state.phase in TIMED and not waits and not isinstance(event, ev.RunActivated):
            state.usage.active_us += max(0, event.at_us - state.last_us)
        state.last_us = max(state.last_us, event.at_us)
        self.events.append(event)
        instructions: Instructions = handler(self, event)
        if self._overtime() and self._may_stop(event):
            return self._stop_unsent(ReasonCode.MAX_SECONDS, f"{state.usage.active_us // 1_000_000} s used")
        return instructions

    def accepts(self, event: ev.Event) -> bool:
        """Whether `event`, which comes from outside the run, means anything in the present phase."""
        return self._is_due(event, getattr(event, "step", None)) and (self.state.phase, type(event)) in _TABLE

    def _is_due(self, event: ev.Event, step: int | None) -> bool:
        if step is None:
            return True
        return self._reads(event, step) if self.state.reading else step == self.state.step

    def story(self) -> str:
        """Return the run as lines of text, each with the event that caused it."""
        return story_lines(self.events)

    def check(self) -> None:
        """Raise `InvariantBroken` if a numbered invariant does not hold."""
        check_invariants(self.state)

    # Handlers, in the order of the cycle.

    def _queued_activated(self, event: ev.RunActivated) -> Instructions:
        self.state.epoch = event.epoch
        return self._plan()

    def _planning_planned(self, event: ev.RoutePlanned) -> Instructions:
        s, route = self.state, event.route
        if isinstance(route, Done):
            return self._complete(route)
        s.ending = event.ending
        if isinstance(route, GiveUp):
            return self._conclude(ReasonCode.CHILD_FAILED, route.detail)
        if s.usage.steps >= self.limits.max_steps:
            return self._conclude(ReasonCode.MAX_STEPS, f"{s.usage.steps} steps used")
        if isinstance(route, FanOut):
            return self._fan_out(route)
        s.visit, s.metered, s.price, s.batched = route, event.metered, event.price, event.batched
        return self._recall()

    def _complete(self, done: Done) -> Instructions:
        """End with an answer, and offer memory what was learned."""
        learn = do.Learn(step=self.state.step, cause=self._cause(), text=_text(done.answer), kind="answer")
        facts = self._learn_facts()
        return [learn, *facts, *super()._conclude(ReasonCode.COMPLETED, answer=done.answer)]

    def _learn_facts(self) -> Instructions:
        return [
            do.Learn(
                step=self.state.step,
                cause=self._cause(),
                text=each.fact.text,
                kind=each.fact.kind,
                subject=each.fact.subject,
                confidence=each.fact.confidence,
                source_step=each.step,
                durable_first=True,
            )
            for each in self.state.facts
        ]

    def _conclude(self, reason: ReasonCode, detail: str = "", answer: Any = None) -> Instructions:
        """End the run; one that was done ends with its answer, whatever became of its extractor.

        Unless somebody ends it: what was not over is what they stop.
        """
        ending = self.state.ending
        if ending is None or status_of(reason) in (RunStatus.CANCELLED, RunStatus.KILLED):
            return super()._conclude(reason, detail, answer)
        return self._complete(ending)

    def _recall(self) -> Instructions:
        s = self.state
        assert s.visit is not None
        if s.visit.query is None:
            return self._decide()
        recall = do.Recall(step=s.step, cause=self._cause(), query=s.visit.query)
        return self._become(Phase.RECALLING, recall)

    def _decide(self) -> Instructions:
        s = self.state
        assert s.visit is not None
        if s.metered and s.reserved is None:
            return self._ask_spend(s.price or FREE)
        return self._become(Phase.DECIDING, do.Decide(step=s.step, cause=self._cause(), agent=s.visit.agent))

    def _ask_spend(self, price: Spend) -> Instructions:
        s = self.state
        if s.usage.tokens + price.tokens > self.limits.max_tokens:
            text = f"{s.usage.tokens} tokens used, and a decision may take {price.tokens}"
            return self._conclude(ReasonCode.MAX_TOKENS, text)
        if s.usage.cost_microusd + price.cost_microusd > self.limits.max_cost_microusd:
            text = f"{s.usage.cost_microusd} micro-USD spent, and a decision may cost {price.cost_microusd}"
            return self._conclude(ReasonCode.MAX_COST, text)
        return self._become(Phase.ASKING, do.AskSpend(step=s.step, cause=self._cause(), price=s.price))

    def _asking_asked(self, event: ev.SpendAsked) -> Instructions:
        s = self.state
        s.reserved, s.reserved_epoch = event.price or FREE, event.epoch
        reserve = do.Reserve(
            step=s.step, cause=self._cause(), price=event.price, wall_ms=event.wall_ms, durable_first=True
        )
        return self._become(Phase.RESERVING, reserve)

    def _reserving_reserved(self, event: ev.SpendReserved) -> Instructions:
        return self._decide()

    def _reserving_refused(self, event: ev.SpendRefused) -> Instructions:
        self.state.reserved = None
        return self._conclude(event.reason_code, event.detail)

    def _fan_out(self, route: FanOut) -> Instructions:
        s = self.state
        if s.submitted.depth + 1 > self.limits.max_depth:
            return self._conclude(ReasonCode.MAX_DEPTH, f"depth {s.submitted.depth + 1}")
        self._use(steps=1)
        s.fan_out, s.children = route, {}
        return self._become(Phase.AWAITING_CHILDREN, self.children())

    def children(self) -> do.SpawnChildren:
        """Return the instruction for the branches of the present fan-out."""
        s = self.state
        assert s.fan_out is not None
        return do.SpawnChildren(
            step=s.step,
            cause=self._cause(),
            branches=s.fan_out.branches,
            limits=_share(self.remaining(), len(s.fan_out.branches)),
            durable_first=True,
        )

    def _children_ended(self, event: ev.ChildEnded) -> Instructions:
        s = self.state
        assert s.fan_out is not None
        if event.branch in s.children or not 0 <= event.branch < len(s.fan_out.branches):
            return []
        s.children[event.branch] = event
        s.labels |= frozenset(event.outcome.labels)
        self._show(event.outcome.shown)
        u = event.usage
        self._use(steps=u.steps, tool_calls=u.tool_calls, tokens=u.tokens, cost_microusd=u.cost_microusd)
        self._use(output_bytes=u.output_bytes)
        over = self._overspent()
        if over is not None:
            return self._conclude(*over)
        if len(s.children) < len(s.fan_out.branches):
            return []
        s.branches = tuple(_branch_end(s.fan_out, s.children[i]) for i in range(len(s.fan_out.branches)))
        return self._plan()

    def _planning_failed(self, event: ev.RouteFailed) -> Instructions:
        return self._conclude(event.reason_code, event.error)

    def _recalling_recalled(self, event: ev.MemoryRecalled) -> Instructions:
        self.state.labels |= frozenset(event.labels)
        self._show(record_id for record_id, _ in event.records)
        return self._decide()

    def _recalling_failed(self, event: ev.RecallFailed) -> Instructions:
        return self._conclude(ReasonCode.MEMORY_UNAVAILABLE, event.error)

    def _deciding_decided(self, event: ev.StepDecided) -> Instructions:
        s, proposal = self.state, event.proposal
        s.reserved = None
        self._use(steps=1, tokens=proposal.spend.tokens, cost_microusd=proposal.spend.cost_microusd)
        over = self._overspent() or self._mispriced(event)
        if over is not None:
            return self._conclude(*over)
        if s.ending is not None:
            answer = proposal.answer if isinstance(proposal, Finish) else None  # it takes no part in the run
            s.facts = grounded(noted(answer), seen(s.submitted.request, s.history))
            return self._complete(s.ending)
        if isinstance(proposal, Finish):
            s.finished += (StageEnd(agent=event.agent, answer=proposal.answer),)
            return self._plan(proposal.spend)
        if isinstance(proposal, Handoff):
            return self._hand_over(proposal)
        return self._propose(event)

    def _overspent(self) -> tuple[ReasonCode, str] | None:
        """Return the limit a decision (or a branch's last one) that was already paid for went over."""
        used = self.state.usage
        if used.tokens > self.limits.max_tokens:
            return ReasonCode.MAX_TOKENS, f"{used.tokens} tokens used"
        if used.cost_microusd > self.limits.max_cost_microusd:
            return ReasonCode.MAX_COST, f"{used.cost_microusd} micro-USD spent"
        if used.output_bytes > self.limits.max_output_bytes:
            return ReasonCode.MAX_OUTPUT, f"{used.output_bytes} bytes returned"
        return None

    def _mispriced(self, event: ev.StepDecided) -> tuple[ReasonCode, str] | None:
        """Return what is wrong with a decision that cost more than was set aside for it."""
        price, spend = self.state.price, event.proposal.spend
        if not exceeds_price(price, spend):
            return None
        spent = f"{event.agent} spent {spend.tokens} tokens and {spend.cost_microusd} micro-USD"
        if price is None:
            return ReasonCode.PRICE_UNKNOWN, f"{spent}, and names no price: decorate it with @priced(...)"
        return ReasonCode.PRICE_EXCEEDED, f"{spent}; its price is {price.tokens} and {price.cost_microusd}"

    def _hand_over(self, handoff: Handoff) -> Instructions:
        self._use(handoffs=1)
        if self.state.usage.handoffs > self.limits.max_handoffs:
            return self._conclude(ReasonCode.MAX_HANDOFFS, f"handoff to {handoff.agent}")
        self.state.holder, self.state.message = handoff.agent, handoff.message
        return self._plan(handoff.spend)

    def _propose(self, event: ev.StepDecided) -> Instructions:
        s = self.state
        assert isinstance(event.proposal, Action)
        calls = event.calls if event.later else {s.step: event.proposal}
        s.base, s.last, s.seen = s.step, s.step + len(calls) - 1, s.labels
        for action in calls.values():
            same = digest(canonical([event.agent, action.tool, action.arguments]))
            s.repeats[same] = s.repeats.get(same, 0) + 1
            if s.repeats[same] > self.limits.max_repeats:
                return self._conclude(ReasonCode.LOOP_DETECTED, f"{action.tool} came {s.repeats[same]} times")
        if s.usage.tool_calls + len(calls) > self.limits.max_tool_calls:
            more = f", and {len(calls)} are proposed" if len(calls) > 1 else ""
            return self._conclude(ReasonCode.MAX_TOOL_CALLS, f"{s.usage.tool_calls} calls used{more}")
        if len(calls) == 1:
            s.action = calls[s.step]
            return self._gate()
        s.later = [OpenCall(step=step, action=action) for step, action in calls.items()]
        if not event.reads:
            return self._next()
        reads, s.later = s.later, []
        return self._read_all(reads)

    def _deciding_failed(self, event: ev.DecideFailed) -> Instructions:
        return self._conclude(event.reason_code, event.error)

    # From outside, in any live phase.

    def _cancelled(self, event: ev.CancelRequested) -> Instructions:
        return self._conclude(ReasonCode.CANCELLED, f"by {event.by}: {event.why}")

    def _killed(self, event: ev.KillRequested) -> Instructions:
        return self._conclude(event.reason_code, f"by {event.by}: {event.why}")

    def _layer_failed(self, event: ev.LayerFailed) -> Instructions:
        return self._conclude(ReasonCode.INTERNAL_ERROR, event.error)

    def _suspended(self, event: ev.RunSuspended) -> Instructions:
        self.state.resume_to = self.state.phase
        return self._become(Phase.SUSPENDED)

    def _reactivated(self, event: ev.RunActivated) -> Instructions:
        """Ask again for whatever is outstanding."""
        s = self.state
        s.epoch = max(s.epoch, event.epoch)
        if not (s.batched and s.phase in (Phase.RECALLING, Phase.DECIDING)):  # its questions are out: they are answered
            self._take_reserved()
        if s.phase is Phase.SUSPENDED:
            s.phase = s.resume_to
        return _OUTSTANDING[s.phase](self)

    def _ask_again(self) -> Instructions:
        gated = self.state.gated
        assert gated is not None
        return [do.AskApproval(step=self.state.step, cause=self._cause(), gated=gated, durable_first=True)]

    def _gate_again(self) -> Instructions:
        return self._gate(phase=Phase.RESUMING if self.state.ambiguous else Phase.GATING)

    def _spawn_again(self) -> Instructions:
        return [self.children()]

    def _plan_again(self) -> Instructions:
        return [do.PlanRoute(step=self.state.step, cause=self._cause())]

    def _conclude_again(self) -> Instructions:
        outcome = self.state.outcome
        assert outcome is not None
        return [
            *self._learn_facts(),
            do.Conclude(step=self.state.step, cause=self._cause(), outcome=outcome, durable_first=True),
        ]

    def _ended(self, event: ev.RunEnded) -> Instructions:
        self.state.outcome = event.outcome
        return self._become(_LAST_PHASE[RunStatus(event.outcome.status)])

    def outstanding(self) -> Instructions:
        """Return what is to be done at the end, again."""
        return self._conclude_again()

    def _note(self, event: ev.Event) -> Instructions:
        """Keep as part of the story; nothing follows from it."""
        return []


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else canonical(answer).decode()


def _share(left: Limits, parts: int) -> Limits:
    """Divide what is consumed evenly; time, repeats and deadlines are each child's own."""
    return msgspec.structs.replace(
        left,
        max_steps=left.max_steps // parts,
        max_tool_calls=left.max_tool_calls // parts,
        max_tokens=left.max_tokens // parts,
        max_cost_microusd=left.max_cost_microusd // parts,
        max_output_bytes=left.max_output_bytes // parts,
    )


def _branch_end(fan_out: FanOut, child: ev.ChildEnded) -> BranchEnd:
    outcome = child.outcome
    return BranchEnd(
        route=fan_out.branches[child.branch].route,
        ok=outcome.status == RunStatus.COMPLETED,
        reason_code=outcome.reason_code,
        answer=msgspec.json.decode(outcome.answer),
    )


_Handler = Callable[[RunMachine, Any], Instructions]

_TABLE: dict[tuple[Phase, type[ev.Event]], _Handler] = {
    (Phase.QUEUED, ev.RunActivated): RunMachine._queued_activated,
    (Phase.PLANNING, ev.RoutePlanned): RunMachine._planning_planned,
    (Phase.PLANNING, ev.RouteFailed): RunMachine._planning_failed,
    (Phase.RECALLING, ev.MemoryRecalled): RunMachine._recalling_recalled,
    (Phase.RECALLING, ev.RecallFailed): RunMachine._recalling_failed,
    (Phase.ASKING, ev.SpendAsked): RunMachine._asking_asked,
    (Phase.RESERVING, ev.SpendReserved): RunMachine._reserving_reserved,
    (Phase.RESERVING, ev.SpendRefused): RunMachine._reserving_refused,
    (Phase.DECIDING, ev.StepDecided): RunMachine._deciding_decided,
    (Phase.DECIDING, ev.DecideFailed): RunMachine._deciding_failed,
    (Phase.GATING, ev.ActionGated): RunMachine._gating_gated,
    (Phase.RESUMING, ev.ActionGated): RunMachine._resuming_gated,
    (Phase.READING, ev.ActionGated): RunMachine._reading_gated,
    (Phase.READING, ev.ToolExecuted): RunMachine._reading_executed,
    (Phase.READING, ev.ExecutionLost): RunMachine._reading_lost,
    (Phase.AWAITING_APPROVAL, ev.ApprovalDecided): RunMachine._approval_decided,
    (Phase.INTENDING, ev.EffectIntended): RunMachine._intending_intended,
    (Phase.EXECUTING, ev.ToolExecuted): RunMachine._executing_executed,
    (Phase.EXECUTING, ev.ExecutionLost): RunMachine._executing_lost,
    (Phase.AWAITING_CHILDREN, ev.ChildEnded): RunMachine._children_ended,
    (Phase.IN_DOUBT, ev.InDoubtResolved): RunMachine._in_doubt_resolved,
    (Phase.IN_DOUBT, ev.InDoubtExpired): RunMachine._in_doubt_expired,
    (Phase.AWAITING_APPROVAL, ev.RunSuspended): RunMachine._suspended,
    (Phase.IN_DOUBT, ev.RunSuspended): RunMachine._suspended,
    (Phase.CONCLUDING, ev.MemoryLearned): RunMachine._note,
    (Phase.CONCLUDING, ev.RunEnded): RunMachine._ended,
    **{(phase, ev.CancelRequested): RunMachine._cancelled for phase in Phase if phase not in OVER},
    **{(phase, ev.KillRequested): RunMachine._killed for phase in Phase if phase not in OVER},
    **{(phase, ev.LayerFailed): RunMachine._layer_failed for phase in Phase if phase not in OVER},
    **{(phase, ev.RunActivated): RunMachine._reactivated for phase in Phase if phase not in OVER | {Phase.QUEUED}},
    (Phase.CONCLUDING, ev.CancelRequested): RunMachine._note,
    (Phase.CONCLUDING, ev.KillRequested): RunMachine._note,
    (Phase.CONCLUDING, ev.LayerFailed): RunMachine._note,
}

_OUTSTANDING: dict[Phase, Callable[[RunMachine], Instructions]] = {
    Phase.PLANNING: RunMachine._plan_again,
    Phase.RECALLING: RunMachine._recall,
    Phase.ASKING: RunMachine._recall,
    Phase.RESERVING: RunMachine._recall,
    Phase.DECIDING: RunMachine._recall,
    Phase.GATING: RunMachine._gate_again,
    Phase.READING: RunMachine._read_again,
    Phase.INTENDING: RunMachine._gate_again,
    Phase.EXECUTING: RunMachine._recover,
    Phase.RESUMING: RunMachine._gate_again,
    Phase.AWAITING_APPROVAL: RunMachine._ask_again,
    Phase.AWAITING_CHILDREN: RunMachine._spawn_again,
    Phase.IN_DOUBT: RunMachine._doubt,
    Phase.CONCLUDING: RunMachine._conclude_again,
}

_LAST_PHASE: dict[RunStatus, Phase] = {
    RunStatus.COMPLETED: Phase.COMPLETED,
    RunStatus.REFUSED: Phase.REFUSED,
    RunStatus.STOPPED: Phase.STOPPED,
    RunStatus.FAILED: Phase.FAILED,
    RunStatus.CANCELLED: Phase.CANCELLED,
    RunStatus.KILLED: Phase.KILLED,
    RunStatus.IN_DOUBT: Phase.ENDED_IN_DOUBT,
}
