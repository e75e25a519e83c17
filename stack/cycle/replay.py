"""Asking another agent what it would have proposed at each decision of a run on record.

Nothing is executed, and nothing is granted, reserved or written down: the agent is shown what the recorded one was,
models are really asked, within a price for all of it, and policy says what it would of each call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from airside.stack.canonical import canonical
from airside.stack.contracts.budget import decision_key
from airside.stack.contracts.gate import GateRequest
from airside.stack.contracts.memory import Recalled
from airside.stack.contracts.models import RecordedAnswer, ReservedQuestion, ReservedReply
from airside.stack.cycle.agent_call import UNWATCHED, NoProposal, proposal_of
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.cycle.views import RecordedDecision, first_decisions, recorded_views, view_of
from airside.stack.errors import InvalidInput
from airside.stack.ids import ExecutorId, TenantId
from airside.stack.models.access import Asker, DecisionModels, ModelsOfView
from airside.stack.models.calls import ModelCalls
from airside.stack.models.provider import ModelPort
from airside.stack.policy.bundle import Bundle
from airside.stack.policy.gate import Gate
from airside.stack.provenance.tracer import Tracer
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.agents import Agent, price_of
from airside.stack.run.earlier import EarlierDecision, earlier_decisions
from airside.stack.run.machine import RunMachine
from airside.stack.run.spans import decision_traceparent
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import (
    FREE,
    MOST,
    Action,
    Decision,
    Finish,
    Handoff,
    Proposal,
    Spend,
    Value,
    at_least,
    less,
    plus,
)

UNKNOWN = "unknown"
"""What policy says of a call whose rules ask about resources: nobody looks these up for a replay."""


class ReplayedCall(Value):
    """A call, and what policy says of it: `allow`, `deny`, `require_approval`, or `unknown`.

    `on_record` is what policy said when the run took place, empty for a call that it never came to or did not make.
    """

    tool: str
    arguments: dict[str, Any]
    outcome: str
    rule: str
    reason_code: str
    on_record: str = ""


class ReplayedProposal(Value):
    """What an agent proposed: calls, an end, or a handoff; or why nothing."""

    calls: tuple[ReplayedCall, ...] = ()
    finish: Finish | None = None
    handoff: Handoff | None = None
    error: str = ""

    @property
    def essence(self) -> tuple[Any, ...]:
        """What two proposals have in common that come to the same."""
        calls = [(call.tool, canonical(call.arguments)) for call in self.calls]
        end = None if self.finish is None else canonical(self.finish.answer)
        to = None if self.handoff is None else (self.handoff.agent, canonical(self.handoff.message))
        return calls, end, to, bool(self.error)


class ReplayedStep(Value):
    """One decision: as it is on record, and what the other agent proposes at it.

    `forgotten` are memory records that the recorded agent was shown and that are gone or were changed since: it was
    not asked with exactly what that one saw.
    """

    step: int
    agent: str
    recorded: ReplayedProposal
    proposed: ReplayedProposal
    same: bool
    tokens: int = 0
    cost_microusd: int = 0
    forgotten: tuple[str, ...] = ()


class Clocks(NamedTuple):
    """What a replay needs of the world."""

    now_us: Callable[[], int]
    now_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]


class PolicyPreview:
    """What a policy says of calls of a run on record, at their time: nothing is granted, looked up or counted."""

    def __init__(self, bundle: Bundle, specs: Sequence[ToolSpec], seal_key: bytes, app_version: str) -> None:
        self._specs = specs
        self._key = seal_key
        self._at_us = 0
        self._version = app_version
        self._gate = Gate(bundle=bundle, tools=specs, seal_key=seal_key, now_us=lambda: self._at_us, random=bytes)

    def decide(
        self, machine: RunMachine, action: Action, step: int, at_us: int, recalled: Sequence[Recalled]
    ) -> Decision | None:
        """Return the decision about a call; None where rules ask about resources."""
        self._at_us = at_us
        s = machine.state
        tracer = Tracer(s.submitted, self._specs)
        tracer.remember(recalled)
        identity, run_id = s.submitted.identity, s.submitted.run_id
        request = GateRequest(
            identity=msgspec.msgpack.encode(identity),
            proof=seal_identity(self._key, identity, run_subject(run_id)),
            run_id=run_id,
            step=step,
            attempt=1,
            epoch=s.epoch,
            tool=action.tool,
            arguments=canonical(action.arguments),
            labels=tuple(sorted(s.labels)),
            remaining=machine.remaining(),
            executor=ExecutorId(""),
            version=self._version,
            origins=tracer.trace(action.tool, action.arguments, s),
            preview=True,
        )
        if self._gate.needed_resources(request) is not None:
            return None
        return self._gate.decide(request).decision


class Replay:
    """Asks one agent at the decisions of a run.  `left` = what its questions to models may still cost."""

    def __init__(
        self,
        agent: Agent,
        *,
        specs: Sequence[ToolSpec],
        preview: PolicyPreview,
        models: Mapping[str, ModelPort],
        clocks: Clocks,
        app_version: str,
        max_cost_microusd: int,
    ) -> None:
        self._agent = agent
        self._specs = specs
        self._preview = preview
        self._version = app_version
        self._price = price_of(agent)
        self._tenant = TenantId("")
        self._answers: Mapping[int, tuple[RecordedAnswer, ...]] = {}
        self.left = Spend(tokens=MOST, cost_microusd=max_cost_microusd)
        self.spent = FREE
        self._under_way = ""
        self._reserved_for_it: Spend | None = None
        self._cost: dict[str, Spend] = {}
        journal = InMemoryJournal()
        self._models = ModelCalls(
            models,
            reserved=self._reserved,
            append=journal.append,
            bodies=journal.bodies,
            now_us=clocks.now_us,
            now_s=clocks.now_s,
            sleep=clocks.sleep,
        )

    @property
    def _reserves(self) -> Spend | None:
        """What the next decision may cost: its agent's price, and no more than is left."""
        price = self._price
        if price is None:
            return None
        return Spend(
            tokens=min(price.tokens, self.left.tokens), cost_microusd=min(price.cost_microusd, self.left.cost_microusd)
        )

    async def _reserved(self, question: ReservedQuestion) -> ReservedReply:
        """Answer for the decision under way alone: what asks for an earlier one would be paid from nothing."""
        self._count(question.key, question.spent)
        if question.key != self._under_way:
            error = "its decision is over: a question is asked, and waited for, by the view of the decision under way"
            return ReservedReply(reason_code=ReasonCode.PRICE_UNKNOWN, error=error)
        return ReservedReply(price=self._reserved_for_it, tenant=self._tenant)

    def _count(self, key: str, cost: Spend) -> None:
        """Take from what is left what a decision cost beyond what was known."""
        before = self._cost.get(key, FREE)
        now = self._cost[key] = at_least(before, cost)
        grown = less(now, before)
        self.left, self.spent = less(self.left, grown), plus(self.spent, grown)

    async def steps(
        self,
        events: Sequence[ev.Event],
        memory: Mapping[str, Recalled],
        *,
        answers: Mapping[int, tuple[RecordedAnswer, ...]] = MappingProxyType({}),
        instead_of: str = "",
    ) -> list[ReplayedStep]:
        """Return each decision of a run (of one of its agents, if that is named) with what the agent proposes at it.

        `memory` has the records that the run was shown, as far as they are there; `answers` are those of models to its
        decisions, by step, which an agent may ask the view for.  Raises `InvalidInput` if there is
        no decision to replay.
        """
        gated = first_decisions(events)
        self._answers = answers
        shown: dict[str, Recalled] = {}
        found = []
        for decision in recorded_views(events):
            recalled = _recalled(decision, memory)
            shown |= {record.record_id: record for record in recalled}
            if instead_of in ("", decision.event.agent):
                found.append(await self._step(decision, recalled, tuple(shown.values()), gated))
        if not found:
            raise InvalidInput("the run has no decision" + (f" of an agent {instead_of!r:.80}" if instead_of else ""))
        return found

    async def _step(
        self,
        decision: RecordedDecision,
        recalled: tuple[Recalled, ...],
        shown: Sequence[Recalled],
        gated: Mapping[int, ev.ActionGated],
    ) -> ReplayedStep:
        event = decision.event
        before = self.spent
        proposed = self._preview_of(await self._asked(decision, recalled), decision, shown)
        if isinstance(event, ev.StepDecided):
            calls = tuple(event.calls.values())[1:]
            recorded = self._preview_of((event.proposal, calls), decision, shown, gated)
        else:
            recorded = ReplayedProposal(error=f"{event.reason_code}: {event.error}")
        there = {record.record_id for record in recalled}
        return ReplayedStep(
            step=event.step,
            agent=event.agent,
            recorded=recorded,
            proposed=proposed,
            same=recorded.essence == proposed.essence,
            tokens=self.spent.tokens - before.tokens,
            cost_microusd=self.spent.cost_microusd - before.cost_microusd,
            forgotten=tuple(record_id for record_id, _ in _shown(decision) if record_id not in there),
        )

    async def _asked(
        self, decision: RecordedDecision, recalled: tuple[Recalled, ...]
    ) -> tuple[Proposal, Sequence[Action]] | NoProposal:
        machine, event = decision.machine, decision.event
        submitted, remaining = machine.state.submitted, machine.remaining()
        self._tenant = submitted.identity.tenant
        seconds = min(remaining.decide_ms / 1000, remaining.max_seconds + 1)
        asker = Asker(
            identity=b"",
            proof="",
            run_id=submitted.run_id,
            version=self._version,
            step=event.step,
            epoch=machine.state.epoch,
            timeout_ms=int(seconds * 1000),
            traceparent=decision_traceparent(submitted.run_id, event.cause),
        )
        models, reserved = DecisionModels(self._models, asker), self._reserves
        key = decision_key(submitted.run_id, event.step, machine.state.epoch)
        self._under_way, self._reserved_for_it = key, reserved
        view = view_of(
            machine,
            agent=event.agent,
            step=event.step,
            cause=event.cause,
            recalled=recalled,
            remaining=remaining,
            tools=tuple(spec for spec in self._specs if set(spec.scopes) <= set(submitted.identity.scopes)),
            models=ModelsOfView(models),
            earlier=lambda: self._earlier(decision),
        )
        made = await proposal_of(self._agent, view, seconds, UNWATCHED, self._specs)
        self._under_way = ""
        self._count(key, models.spent(reserved))
        if isinstance(made, NoProposal):
            return made
        return made[0], [Action(tool=call.tool, arguments=call.arguments) for call in made[1]]

    async def _earlier(self, decision: RecordedDecision) -> tuple[EarlierDecision, ...]:
        machine = decision.machine
        found = earlier_decisions(machine.events, machine.state.history, decision.event.agent)
        return tuple(replace(one, answers=self._answers.get(one.step, ())) for one in found)

    def _preview_of(
        self,
        made: tuple[Proposal, Sequence[Action]] | NoProposal,
        decision: RecordedDecision,
        shown: Sequence[Recalled],
        gated: Mapping[int, ev.ActionGated] | None = None,
    ) -> ReplayedProposal:
        if isinstance(made, NoProposal):
            return ReplayedProposal(error=f"{made.reason}: {made.error}"[:2000])
        proposal, later = made
        if isinstance(proposal, Finish):
            return ReplayedProposal(finish=proposal)
        if isinstance(proposal, Handoff):
            return ReplayedProposal(handoff=proposal)
        calls, event = [], decision.event
        for step, action in enumerate((proposal, *later), event.step):
            said = self._preview.decide(decision.machine, action, step, event.at_us, shown)
            before = gated.get(step) if gated is not None else None
            calls.append(
                ReplayedCall(
                    tool=action.tool,
                    arguments=action.arguments,
                    outcome=said.outcome if said is not None else UNKNOWN,
                    rule=said.rule if said is not None else "",
                    reason_code=str(said.reason_code) if said is not None else "",
                    on_record=before.decision.outcome if before is not None else "",
                )
            )
        return ReplayedProposal(calls=tuple(calls))


def _recalled(decision: RecordedDecision, memory: Mapping[str, Recalled]) -> tuple[Recalled, ...]:
    """Return the records of a decision that are still there as they were, with the score and the age they had."""
    if decision.recalled is None:
        return ()
    at_us, met = decision.recalled.at_us, decision.recalled.met
    found = []
    for place, (record_id, score) in enumerate(decision.recalled.records):
        record = memory.get(record_id)
        if record is not None and (not met or met[place] == record.met):  # journals before it do not say
            age_s = max(0.0, (at_us - record.created_us) / 1e6)
            found.append(msgspec.structs.replace(record, score=score, age_s=age_s))
    return tuple(found)


def _shown(decision: RecordedDecision) -> tuple[tuple[str, float], ...]:
    return decision.recalled.records if decision.recalled is not None else ()
