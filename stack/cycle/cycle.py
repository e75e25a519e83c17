"""`Cycle` carries one run's instructions out through the ports, and feeds what happened back into its machine.

It is the shell of `RunMachine`, and the same code under Ray and under the simulator: it knows neither.  One task at a
time advances a run.  `deliver` brings in what comes from outside (a decision, a kill, a child's end): it stops the
step in flight, if there is one, so that a kill never waits for a tool.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from airside.stack.canonical import canonical
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.contracts.memory import Warrant
from airside.stack.contracts.models import MAX_BATCHED_S
from airside.stack.cycle.agent_call import NoProposal, only_reads, proposal_of
from airside.stack.cycle.budget_client import BudgetClient
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.memory_writer import MemoryWriter, as_text
from airside.stack.cycle.questions import question_about
from airside.stack.cycle.routing import RouteError, RouteNames, next_route
from airside.stack.cycle.run_log import RunLog
from airside.stack.cycle.run_tracer import RunTracer
from airside.stack.cycle.side_by_side import side_by_side
from airside.stack.cycle.views import view_of
from airside.stack.errors import ItemFailed, LayerUnavailable, text_of
from airside.stack.ids import ApprovalId, ExecutorId
from airside.stack.journal.effect_claims import round_key, withdraw
from airside.stack.models.access import Asker, DecisionModels, ModelsOfView
from airside.stack.models.events import answers_on_record, read_events, stream_of
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.earlier import EarlierDecision, earlier_decisions
from airside.stack.run.extraction import EXTRACTOR
from airside.stack.run.gateway_call import GATEWAY
from airside.stack.run.instructions import Instructions
from airside.stack.run.machine import RunMachine
from airside.stack.run.spans import decision_traceparent
from airside.stack.run.state import OpenCall, StepRecord
from airside.stack.run.topology import Done, Route, Visit
from airside.stack.values import NULL, Decision, Limits, ToolResult, ValueOrigin, at_least


class Cycle:
    """One activation of one run."""

    def __init__(self, machine: RunMachine, layers: CyclePorts, *, durable: int) -> None:
        self.machine = machine
        self.layers = layers
        submitted = machine.state.submitted
        self.run_id = submitted.run_id
        self.epoch = machine.state.epoch
        tenant = submitted.identity.tenant
        self.log = RunLog(layers.journal, tenant, self.run_id, self.epoch, durable=durable, unwritten=layers.unwritten)
        known = layers.alike.known(submitted.identity)
        self._identity, self._tools = known.encoded, known.tools
        self._remaining = machine.limits
        self._grants: dict[int, bytes] = {}
        self.asked_ahead: set[ApprovalId | None] = set()
        self._may_wait = False
        warrant = Warrant(identity=self._identity, proof=submitted.sealed, run_id=self.run_id)
        self._tracer = RunTracer(layers.memory, machine, layers.specs, warrant, layers.now_us)
        self._memory_writer = MemoryWriter(layers.memory, machine.state, warrant, layers.now_us)
        metered = submitted.identity.tenant in layers.metered
        self._budget = BudgetClient(layers.policy, submitted, self._identity, machine.state.epoch, metered=metered)
        self._inbox: list[ev.Event] = []  # nearly always empty, as a `deque` of 760 bytes would be
        self._task: asyncio.Task[None] | None = None
        self._in_step = False
        self._interrupted = False

    async def advance(self, instructions: Instructions) -> None:
        """Carry out instructions until the run waits for somebody or is over.

        Raises `Fenced` if a newer activation exists, and `LayerUnavailable` if the journal is gone: then this
        activation ends where it stands, and the next one takes the run up from what is durable.
        """
        self._task = asyncio.current_task()
        todo = list(instructions)
        try:
            while todo or self._inbox:
                if self._inbox:
                    event = self._inbox.pop(0)
                    if self.machine.accepts(event):
                        before = self.machine.state.phase, self.machine.state.step
                        follow = self.feed(event)
                        if follow or before != (self.machine.state.phase, self.machine.state.step):
                            todo = list(follow)
                    continue
                if self.machine.state.reading:
                    todo = list(await self._read_at_once(todo))
                    continue
                if todo[0].durable_first:
                    await self.log.durable()
                    if self._inbox:
                        continue
                happened = await self._interruptible(todo.pop(0))
                if happened is not None:
                    todo.extend(self.feed(happened))
            if self.machine.is_over:
                await self.log.durable()
            else:
                self.log.flush()
                self._tracer.rest()
        finally:
            self._task = None

    def post(self, event: ev.Event) -> None:
        """Leave an event from outside for `advance`, which drops it if it means nothing in the run's phase by then.

        A kill or a cancellation also stops the step in flight, so that it never waits for a tool or an agent.
        """
        self._inbox.append(event)
        stops = isinstance(event, ev.KillRequested | ev.CancelRequested) and self.machine.state.outcome is None
        if stops and self._in_step and self._task is not None:
            self._interrupted = True
            self._task.cancel()

    @property
    def has_mail(self) -> bool:
        """Whether something was posted that `advance` has not seen."""
        return bool(self._inbox)

    async def deliver(self, event: ev.Event) -> None:
        """Post an event, and advance if nobody else does."""
        self.post(event)
        if self._task is None:
            await self.advance([])

    def feed(self, event: ev.Event) -> Instructions:
        """Handle one event and log it."""
        instructions = self.machine.handle(event)
        self.log.record(event)
        if isinstance(event, ev.ToolExecuted) and not self._may_wait:
            self.log.flush()  # what must not be sent twice is on record as soon as may be; nobody waits for it
        return instructions

    async def _interruptible(self, instruction: do.Instruction) -> ev.Event | None:
        """Perform one instruction; return None if `deliver` stopped it, the inbox then says what happens instead."""
        self._in_step = True
        try:
            return await _PERFORM[type(instruction)](self, instruction)
        except asyncio.CancelledError:
            if not self._interrupted or self._task is None:
                raise
            self._interrupted = False
            self._task.uncancel()
            return None
        except Exception as error:
            if isinstance(error, LayerUnavailable) and isinstance(instruction, do.AskApproval):
                raise  # it still waits: the next activation asks again
            return self._layer_failed(instruction, error)
        finally:
            self._in_step = False

    async def _read_at_once(self, instructions: Iterable[do.Instruction]) -> Instructions:
        """Carry out several reads; return what follows, nothing if `deliver` stopped them."""
        self._in_step = True
        self._tracer.begin_side_by_side()
        try:
            return await side_by_side(self, instructions)
        except asyncio.CancelledError:
            if not self._interrupted or self._task is None:
                raise
            self._interrupted = False
            self._task.uncancel()
            return self.machine.outstanding() if self.machine.state.outcome is not None else []
        finally:
            self._in_step = False
            self._tracer.end_side_by_side()

    async def perform(self, instruction: do.Instruction) -> ev.Event | None:
        """Carry out one instruction and return what happened; a layer that breaks its contract is an event too."""
        try:
            return await _PERFORM[type(instruction)](self, instruction)
        except Exception as error:
            return self._layer_failed(instruction, error)

    def _layer_failed(self, instruction: do.Instruction, error: Exception) -> ev.Event:
        text = f"{type(instruction).__name__}: {text_of(error, 2000)}"
        return ev.LayerFailed(step=instruction.step, error=text, at_us=self.layers.now_us(), cause=instruction.cause)

    # One method per instruction.

    async def _plan(self, i: do.PlanRoute) -> ev.Event:
        now = self.layers.now_us()
        topology = self.layers.routes.get(self.machine.state.submitted.request.route)
        if topology is None:
            name = self.machine.state.submitted.request.route
            route: Route | RouteError = RouteError(ReasonCode.UNKNOWN_ROUTE_MODE, f"no route {name!r}")
        else:
            names = RouteNames(self.layers.agents, self.layers.routes, self.layers.memory is not None)
            state = self.machine.topology_state()
            route = next_route(topology, state, names, self.run_id, self.layers.pulse)
        if isinstance(route, RouteError):
            return ev.RouteFailed(step=i.step, reason_code=route.reason, error=route.error, at_us=now, cause=i.cause)
        metered, price, batched = False, None, False
        ending = route if isinstance(route, Done) and self._has_extractor() else None
        if ending is not None:
            route = Visit(agent=EXTRACTOR)
        if isinstance(route, Visit):
            metered, price, batched = self._budget.terms(self.layers.agents[route.agent])
        return ev.RoutePlanned(
            step=i.step,
            route=route,
            metered=metered,
            price=price,
            batched=batched,
            ending=ending,
            at_us=now,
            cause=i.cause,
        )

    def _has_extractor(self) -> bool:
        """Whether facts are to be found in what the run saw; a call from outside is no conversation."""
        is_call = self.machine.state.submitted.request.route == GATEWAY
        return EXTRACTOR in self.layers.agents and self.layers.memory is not None and not is_call

    async def _recall(self, i: do.Recall) -> ev.Event:
        return await self._tracer.recall(i)

    async def _ask_spend(self, i: do.AskSpend) -> ev.Event:
        wall_ms = 0 if self.machine.state.batched else int(self._seconds(self.machine.remaining()) * 1000)
        return self._budget.ask(i, wall_ms=wall_ms, now_us=self.layers.now_us())

    async def _reserve(self, i: do.Reserve) -> ev.Event:
        return await self._budget.reserve(i, now_us=self.layers.now_us)

    def _seconds(self, left: Limits) -> float:
        """Return how long a decision may take."""
        if self.machine.state.batched:
            return MAX_BATCHED_S
        return min(left.decide_ms / 1000, left.max_seconds + 1)

    async def _decide(self, i: do.Decide) -> ev.Event:
        limits = self._remaining = self.machine.remaining()
        models = self._decision_models(i)
        view = view_of(
            self.machine,
            agent=i.agent,
            step=i.step,
            cause=i.cause,
            recalled=self._tracer.recalled,
            remaining=limits,
            tools=self._tools,
            models=None if models is None else ModelsOfView(models),
            earlier=self._earlier,
        )
        agent, specs = self.layers.agents[i.agent], self.layers.specs
        made = await proposal_of(agent, view, self._seconds(limits), self.layers.pulse, specs)
        if isinstance(made, NoProposal):
            return ev.DecideFailed(
                step=i.step,
                agent=i.agent,
                reason_code=made.reason,
                error=made.error[:2000],
                at_us=self.layers.now_us(),
                cause=i.cause,
            )
        proposal, later = made
        if models is not None:
            spent = models.spent(self.machine.state.reserved)
            proposal = msgspec.structs.replace(proposal, spend=at_least(proposal.spend, spent))
        decided = ev.StepDecided(
            step=i.step,
            agent=i.agent,
            proposal=proposal,
            later=later,
            reads=bool(later) and only_reads((proposal, *later), specs),
            at_us=self.layers.now_us(),
            cause=i.cause,
        )
        state = self.machine.state
        self._budget.decided(decided, state.decision_epoch, is_timed=not state.batched)
        return decided

    async def _earlier(self) -> tuple[EarlierDecision, ...]:
        s = self.machine.state
        assert s.visit is not None
        decisions = earlier_decisions(self.machine.events, s.history, s.visit.agent)
        if self.layers.models is None or not decisions:
            return decisions
        streams = [stream_of(self.run_id, decision.step) for decision in decisions]
        bodies = await self.layers.journal.bodies(streams)
        found = [tuple(answers_on_record(read_events(bodies[stream])).values()) for stream in streams]
        return tuple(replace(one, answers=answers) for one, answers in zip(decisions, found, strict=True))

    def _decision_models(self, i: do.Decide) -> DecisionModels | None:
        if self.layers.models is None:
            return None
        s = self.machine.state
        asker = Asker(
            identity=self._identity,
            proof=s.submitted.sealed,
            run_id=self.run_id,
            version=s.submitted.app_version,
            step=i.step,
            epoch=s.decision_epoch,
            lane="provider_batch" if s.batched else "direct",
            timeout_ms=max(0, int(self._seconds(self._remaining) * 1000)),
            traceparent=decision_traceparent(self.run_id, i.cause),
        )
        return DecisionModels(self.layers.models, asker)

    async def _gate(self, i: do.GateCall) -> ev.Event:
        if i.after_ms:
            await self.layers.pause(i.after_ms / 1000)
        remaining = self.machine.remaining()
        reason = ReasonCode.TOOL_UNAVAILABLE
        try:
            executor = await self.layers.tools.executor_for(self.run_id)
            reason = ReasonCode.POLICY_ERROR
            origins = await self._tracer.origins(i.action) if self._is_asked(i, remaining) else None
            request = self._request(i, remaining, executor, origins)
            reply = await self._decided(request)
            if reply.untraced:
                reply = await self._decided(
                    msgspec.structs.replace(request, origins=await self._tracer.origins(i.action))
                )
        except LayerUnavailable as error:
            # A dead layer means no; in `resuming` the machine makes that "in doubt" rather than "denied".
            return self._gated(i, GateReply(decision=_unreachable(reason, error)), "")
        if reply.grant:
            self._grants[i.step] = reply.grant
        return self._gated(i, reply, executor)

    def _request(
        self,
        i: do.GateCall,
        remaining: Limits,
        executor: ExecutorId,
        origins: tuple[ValueOrigin, ...] | None,
        *,
        preview: bool = False,
    ) -> GateRequest:
        s = self.machine.state
        return GateRequest(
            identity=self._identity,
            proof=s.submitted.sealed,
            run_id=self.run_id,
            step=i.step,
            attempt=i.attempt,
            epoch=s.epoch,
            tool=i.action.tool,
            arguments=canonical(i.action.arguments),
            labels=tuple(sorted(s.seen if s.reading else s.labels)),
            remaining=remaining,
            executor=executor,
            receipt=i.receipt,
            version=s.submitted.app_version,
            origins=origins,
            share=self._budget.share,
            preview=preview,
            asked=i.asked,
            answered=i.answered,
            declined=i.declined,
            shown=s.shown,
            sends=i.sends,
        )

    async def preview(self, call: OpenCall, ahead: Sequence[StepRecord]) -> ev.ActionGated:
        """Return what the gate would say of a call that is still to come, after those `ahead` of it."""
        i = do.GateCall(step=call.step, cause=ev.OUTSIDE, action=call.action, attempt=call.attempt + 1)
        origins = await self._tracer.origins(i.action, ahead)
        request = self._request(i, self.machine.remaining(), ExecutorId(""), origins, preview=True)
        return self._gated(i, await self.layers.policy.decide(request), "")

    async def _decided(self, request: GateRequest) -> GateReply:
        request = msgspec.structs.replace(request, settled=self._budget.pending)
        reply = await self.layers.policy.decide(request)
        self._budget.acknowledge(request.settled)
        return reply

    def _is_asked(self, i: do.GateCall, remaining: Limits) -> bool:
        """Whether policy is expected to ask where the values of a call come from."""
        s, trace_predictor = self.machine.state, self.layers.trace_predictor
        return trace_predictor is None or trace_predictor.expects(
            i.action.tool,
            i.action.arguments,
            identity=s.submitted.identity,
            labels=s.seen if s.reading else s.labels,
            remaining=remaining,
            now_us=self.layers.now_us(),
        )

    def _gated(self, i: do.GateCall, reply: GateReply, executor: str) -> ev.ActionGated:
        return ev.ActionGated(
            step=i.step,
            attempt=i.attempt,
            decision=reply.decision,
            tool=i.action.tool,
            tool_version=reply.tool_version,
            effect=reply.effect,
            risk=reply.risk,
            repeatable=reply.repeatable,
            cost_microusd=reply.cost_microusd,
            arguments=msgspec.Raw(reply.arguments),
            digest=reply.digest,
            approval_id=reply.approval_id,
            counted=reply.counted,
            wall_ms=reply.wall_ms,
            trusted_output=reply.trusted_output,
            origins=reply.origins,
            resources=reply.resources,
            intent=reply.decision.outcome == "allow",
            question=msgspec.Raw(reply.question) if reply.question else NULL,
            executor=ExecutorId(executor),
            at_us=self.layers.now_us(),
            cause=i.cause,
        )

    async def _ask_approval(self, i: do.AskApproval) -> ev.Event | None:
        return await self.layers.approvals.request(await question_about(self, i.gated))

    async def _execute(self, i: do.Execute) -> ev.Event:
        self._may_wait = not i.durable_first or i.gated.repeatable  # the result, for the run's next append
        if not i.durable_first:
            self.log.flush()  # what allows a read is written while the read runs
        grant = self._grants.pop(i.step)
        request = ExecuteRequest(
            grant=grant,
            arguments=bytes(i.gated.arguments),
            traceparent=self.layers.traceparent(self.run_id),
            asked=i.asked,
        )
        lost, reply = "", None
        try:
            reply = await self.layers.tools.execute(self.run_id, request)
        except (LayerUnavailable, ItemFailed) as error:  # whatever went wrong on the way, it may have happened
            lost = error.message
            with contextlib.suppress(LayerUnavailable, ItemFailed):
                reply = await self.layers.tools.answer_of(self.run_id, grant)
        if reply is None:
            return ev.ExecutionLost(
                step=i.step,
                attempt=i.attempt,
                started=not await self._withdrawn(i),
                error=lost,
                at_us=self.layers.now_us(),
                cause=i.cause,
            )
        self._budget.executed(i.gated, reply.result.duration_us)
        self._keep_result(i, reply.result)
        return ev.ToolExecuted(
            step=i.step,
            attempt=i.attempt,
            result=reply.result,
            at_us=self.layers.now_us(),
            cause=i.cause,
        )

    async def _withdrawn(self, i: do.Execute) -> bool:
        """Whether a call that was not answered never began, and cannot any more."""
        if i.gated.effect == "read" or i.gated.repeatable:
            return False  # it is sent again, whatever became of it
        tenant = self.machine.state.submitted.identity.tenant
        try:
            return await withdraw(
                self.layers.journal.append,
                tenant,
                round_key(i.key, i.round),
                i.attempt,
                step=i.step,
                at_us=self.layers.now_us(),
            )
        except (LayerUnavailable, ItemFailed):
            return False

    def _keep_result(self, i: do.Execute, result: ToolResult) -> None:
        """Offer memory what a tool returned, if the tool says that it is worth keeping."""
        spec = next((spec for spec in self._tools if spec.name == i.gated.tool), None)
        if spec is not None and spec.memorable and result.ok:
            learn = do.Learn(step=i.step, cause=i.cause, text=as_text(result.output), kind="result")
            self._memory_writer.begin(learn, from_outside=not spec.trusted_output)

    async def _learn(self, i: do.Learn) -> None:
        self._memory_writer.begin(i)

    async def _spawn_children(self, i: do.SpawnChildren) -> None:
        await self.layers.spawn(self, i)

    async def _await_resolution(self, i: do.AwaitResolution) -> ev.Event | None:
        if i.seconds > 0:
            return None  # the runtime keeps the time and delivers InDoubtExpired
        return ev.InDoubtExpired(step=i.step, at_us=self.layers.now_us(), cause=i.cause)

    async def _conclude(self, i: do.Conclude) -> ev.Event:
        while (learned := await self._memory_writer.next_learned()) is not None:
            self.feed(msgspec.structs.replace(learned, step=i.step))  # of which step it is, its source says
        await self._budget.flush()
        with contextlib.suppress(LayerUnavailable):
            await self.layers.tools.release(self.run_id)
        return ev.RunEnded(
            outcome=i.outcome,
            usage=self.machine.usage(),
            job_id=self.machine.state.submitted.request.job_id,
            at_us=self.layers.now_us(),
            cause=i.cause,
        )


def _unreachable(reason: ReasonCode, error: LayerUnavailable) -> Decision:
    return Decision(
        outcome="deny",
        reason_code=reason,
        rule="unreachable",
        policy_version="unknown",
        detail=error.message[:2000],
    )


_Perform = Callable[[Cycle, Any], Awaitable[ev.Event | None]]
_PERFORM: dict[type[do.Instruction], _Perform] = {
    do.PlanRoute: Cycle._plan,
    do.Recall: Cycle._recall,
    do.AskSpend: Cycle._ask_spend,
    do.Reserve: Cycle._reserve,
    do.Decide: Cycle._decide,
    do.GateCall: Cycle._gate,
    do.AskApproval: Cycle._ask_approval,
    do.Execute: Cycle._execute,
    do.Learn: Cycle._learn,
    do.SpawnChildren: Cycle._spawn_children,
    do.AwaitResolution: Cycle._await_resolution,
    do.Conclude: Cycle._conclude,
}
