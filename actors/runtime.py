"""TenantRuntime: runs the cycles of a tenant's runs (of many tenants' in pooled mode).  The only layer with agent code.

It holds no key and no tool: what a hijacked agent could reach from here is its own tenant's runs.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray

from airside.actors.process.pulse import PulseWriter, Where
from airside.actors.process.strays import mark_children
from airside.actors.rpc.layer import BEAT_S, Layer, LayerConfig, control, logger, steady_us
from airside.actors.rpc.methods import ACTIVATE, BRING, REPORT
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import serves
from airside.actors.rpc.stubs import RemoteApprovals, RemoteJournal, RemoteMemory, RemotePolicy, RemoteTools
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.ending import ending
from airside.stack.cycle.layers import Layers
from airside.stack.cycle.runlog import entry_of
from airside.stack.errors import Fenced, ItemFailed, LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId, child_run
from airside.stack.journal.journaling import Append
from airside.stack.operations.messages import Activation, Delivery, Report
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.foresight import Foresight
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import Agent
from airside.stack.run.instructions import Instructions
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import Topology
from airside.stack.run.tracing import traceparent
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Request
from airside.tools.runners.output import mark_output


@dataclass(frozen=True, slots=True)
class RuntimeApp:
    """The part of an app that runs where agents run."""

    agents: Mapping[str, Agent]
    routes: Mapping[str, Topology]
    specs: Sequence[ToolSpec]
    memory: bool
    version: str
    bundle: str | None = None
    metered: frozenset[str] = frozenset()


class TenantRuntime(Layer):
    """The run machines of its tenants."""

    def __init__(self, config: LayerConfig, app: RuntimeApp) -> None:
        super().__init__(config)
        self._app = app
        self._cycles: dict[RunId, Cycle] = {}
        self._tasks: dict[RunId, asyncio.Task[None]] = {}
        """Of the runs that are at work: one that waits has none."""

        self._children: dict[RunId, set[RunId]] = {}
        self._others: set[asyncio.Task[Any]] = set()
        self._pulse: PulseWriter | None = None

    async def start(self) -> None:
        """Connect the stubs and begin to beat."""
        settings, bundle = self.config.settings, self._app.bundle
        if settings.show_output:
            mark_output(settings.stack)
        self._pulse = self._pulse or PulseWriter(lease_s=settings.lease_s)  # a start that failed is tried again
        mark_children(self._pulse.where)
        self._journal = RemoteJournal(settings)
        self._driver = Remote(settings, "driver")
        self._layers = Layers(
            journal=self._journal,
            policy=RemotePolicy(settings),
            tools=RemoteTools(settings),
            approvals=RemoteApprovals(settings),
            memory=RemoteMemory(settings) if self._app.memory else None,
            agents=self._app.agents,
            routes=self._app.routes,
            specs=self._app.specs,
            now_us=steady_us,
            spawn=self._spawn,
            traceparent=traceparent,
            pulse=self._pulse,
            foresight=Foresight(load_bundle(bundle), self._app.specs) if bundle is not None else None,
            metered=self._app.metered,
        )
        self._beating = asyncio.ensure_future(self._keep_beating())

    async def _keep_beating(self) -> None:
        assert self._pulse is not None
        while True:
            self._pulse.turn()
            for run_id in self._tasks:
                self._cycles[run_id].log.flush_if_idle()
            await asyncio.sleep(BEAT_S)

    async def greet(self) -> tuple[str, Where]:
        """Return the Ray node this process is on, and where its pulse can be read there; once it has begun."""
        assert self._pulse is not None
        return str(ray.get_runtime_context().get_node_id()), self._pulse.where

    @serves(ACTIVATE)
    def activate(self, activation: Activation) -> bool:
        """Take a run up; one that is here already under this epoch or a newer one stays as it is."""
        try:
            self._take_up([ev.decode_event(body) for body in activation.events])
        except Exception:
            logger.exception("%s cannot be taken up", activation.run_id, extra={"action": "replay_failed"})
            broken = Report(run_id=activation.run_id, tenant=TenantId(""), state="broken")
            self._keep(asyncio.ensure_future(self._tell(broken)))
        return True

    def _take_up(self, events: list[ev.Event]) -> Cycle:
        """Start a run's cycle from its durable events, the last of which activates it."""
        if isinstance(events[0], ev.RunSubmitted):
            events = [self._layers.alike.shared(events[0]), *events[1:]]
        machine = RunMachine.replay(events[:-1])
        run_id, last = machine.state.submitted.run_id, events[-1]
        present = self._cycles.get(run_id)
        if present is not None and isinstance(last, ev.RunActivated):
            if present.machine.state.epoch >= last.epoch:
                return present
            task = self._tasks.pop(run_id, None)
            if task is not None:
                task.cancel()
        instructions = machine.handle(last)
        cycle = Cycle(machine, self._layers, durable=len(events))
        self._cycles[run_id] = cycle
        parent = machine.state.submitted.parent
        if parent is not None:
            self._children.setdefault(parent, set()).add(run_id)
        self._start(cycle, instructions)
        return cycle

    def _start(self, cycle: Cycle, instructions: Instructions) -> None:
        self._tasks[cycle.run_id] = asyncio.create_task(self._guard(cycle, instructions), name=cycle.run_id)

    @serves(BRING)
    def bring(self, delivery: Delivery) -> bool:
        """Bring an event in from outside; False for a run that is not here."""
        cycle = self._cycles.get(delivery.run_id)
        if cycle is not None:
            self._bring(cycle, ev.decode_event(delivery.event))
        return cycle is not None

    def _bring(self, cycle: Cycle, event: ev.Event) -> None:
        if self._cycles.get(cycle.run_id) is not cycle:
            return  # it is over, or taken up anew: a timer of the old activation says nothing to it
        cycle.post(event)
        task = self._tasks.get(cycle.run_id)
        if task is None or task.done():
            self._start(cycle, [])

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _guard(self, cycle: Cycle, instructions: Instructions) -> None:
        """The one exit of every activation: tell the driver how the run stands, forget it if it is over."""
        run_id, tenant = cycle.run_id, cycle.machine.state.submitted.identity.tenant
        try:
            await cycle.advance(instructions)
            while not cycle.machine.is_over:
                self._time_doubt(cycle)
                if cycle.machine.state.phase is Phase.AWAITING_APPROVAL:
                    await self._tell(Report(run_id=run_id, tenant=tenant, state="parked"))
                elif cycle.machine.state.phase is Phase.IN_DOUBT:
                    await self._tell(Report(run_id=run_id, tenant=tenant, state="in_doubt"))
                if not cycle.has_mail:
                    self._rest(cycle)
                    return
                await self._tell(Report(run_id=run_id, tenant=tenant, state="working"))
                await cycle.advance([])
        except Fenced:
            self._forget(run_id, cycle)
            self._claim_again(cycle)
        except Exception as error:
            await self._lose(cycle, error)
        else:
            await self._end(cycle)

    def _rest(self, cycle: Cycle) -> None:
        """Hold no task for a run that waits."""
        if self._cycles.get(cycle.run_id) is cycle:
            self._tasks.pop(cycle.run_id, None)

    async def _end(self, cycle: Cycle) -> None:
        run_id, machine = cycle.run_id, cycle.machine
        self._forget(run_id, cycle)
        self._answer_parent(machine)
        if machine.state.fan_out is not None:
            self._stop_children(run_id)
            if len(machine.state.children) < len(machine.state.fan_out.branches):
                self._keep(asyncio.ensure_future(self._end_orphans(run_id)))
        tenant, ended = machine.state.submitted.identity.tenant, ev.encode_event(machine.events[-1])
        await self._tell(Report(run_id=run_id, tenant=tenant, state="ended", ended=ended))

    async def _lose(self, cycle: Cycle, error: Exception) -> None:
        """Give an activation up where it stands; the driver takes the run up again from what is durable."""
        action = "journal_lost" if isinstance(error, LayerUnavailable) else "cycle_failed"
        logger.error("an activation of %s ended early", cycle.run_id, exc_info=error, extra={"action": action})
        self._forget(cycle.run_id, cycle)
        tenant = cycle.machine.state.submitted.identity.tenant
        state: Literal["lost", "broken"] = "lost" if isinstance(error, LayerUnavailable) else "broken"
        await self._tell(Report(run_id=cycle.run_id, tenant=tenant, state=state))

    async def _tell(self, report: Report) -> None:
        try:
            await self._driver.call(REPORT, report)
        except (LayerUnavailable, ItemFailed):
            # A restarted driver reads what it missed from the journal.
            logger.warning("the driver did not take a report", extra={"action": "report_lost"})

    def _forget(self, run_id: RunId, cycle: Cycle) -> None:
        if self._cycles.get(run_id) is cycle:
            self._cycles.pop(run_id, None)
            self._tasks.pop(run_id, None)
            self._leave_parent(cycle)

    def _leave_parent(self, cycle: Cycle) -> None:
        parent = cycle.machine.state.submitted.parent
        siblings = self._children.get(parent, set()) if parent is not None else set()
        siblings.discard(cycle.run_id)
        if parent is not None and not siblings:
            self._children.pop(parent, None)

    def _time_doubt(self, cycle: Cycle) -> None:
        if cycle.machine.state.phase is not Phase.IN_DOUBT:
            return
        step, seconds = cycle.machine.state.step, cycle.machine.limits.doubt_wait_s

        async def expire() -> None:
            await asyncio.sleep(seconds)
            self._bring(cycle, ev.DoubtExpired(step=step, at_us=steady_us()))

        self._keep(asyncio.ensure_future(expire()))

    # Children: runs of their own, in this runtime, told to their parent when they end.

    async def _spawn(self, parent: Cycle, spawn: do.SpawnChildren) -> None:
        """Start the branches that have not run yet; those that ended already are answered from the journal."""
        ids = [child_run(parent.run_id, spawn.step, branch) for branch in range(len(spawn.branches))]
        known = await self._journal.bodies(ids)
        for branch, run_id in enumerate(ids):
            if run_id in self._cycles:
                continue
            events = [ev.decode_event(body) for body in known[run_id]]
            if events and isinstance(events[-1], ev.RunEnded):
                self._tell_parent(parent, spawn.step, branch, run_id, events[-1])
            else:
                self._keep(asyncio.ensure_future(self._start_child(parent, spawn, branch, run_id, events)))

    async def _start_child(
        self, parent: Cycle, spawn: do.SpawnChildren, branch: int, run_id: RunId, events: list[ev.Event]
    ) -> None:
        """Make the child's admission and activation durable under an epoch of its own, then take it up."""
        try:
            fresh = await self._claim_child(parent, spawn, branch, run_id, events)
        except Exception as error:
            await self._lose(parent, error)
            return
        if fresh:
            child = self._take_up([*events, *fresh])
            if self._cycles.get(parent.run_id) is not parent:
                self._bring(child, _withdrawn(parent.run_id))  # its parent ended while it was being claimed

    async def _claim_child(
        self, parent: Cycle, spawn: do.SpawnChildren, branch: int, run_id: RunId, events: list[ev.Event]
    ) -> list[ev.Event]:
        """Return the events that were made durable, none if somebody else was faster."""
        epoch = max((e.epoch for e in events if isinstance(e, ev.RunActivated)), default=0) + 1
        fresh: list[ev.Event] = [] if events else [self._child_submitted(parent, spawn, branch, run_id)]
        fresh.append(ev.RunActivated(epoch=epoch, claim=secrets.token_hex(4), at_us=steady_us()))
        submitted = parent.machine.state.submitted
        append = Append(
            tenant=submitted.identity.tenant,
            stream=run_id,
            epoch=epoch,
            first_seq=len(events),
            entries=tuple(entry_of(event) for event in fresh),
        )
        reply = await self._journal.append(append)
        return fresh if reply.verdict == "ok" else []

    def _child_submitted(self, parent: Cycle, spawn: do.SpawnChildren, branch: int, run_id: RunId) -> ev.RunSubmitted:
        above, wanted = parent.machine.state.submitted, spawn.branches[branch]
        request = Request(
            text=wanted.text,
            inputs=above.request.inputs if bytes(wanted.inputs) == b"null" else wanted.inputs,
            route=wanted.route,
            labels=tuple(sorted(parent.machine.state.labels)),
            job_id=above.request.job_id,
            request_id=above.request.request_id,
        )
        return ev.RunSubmitted(
            run_id=run_id,
            identity=above.identity,
            sealed=above.sealed,
            request=request,
            limits=spawn.limits,
            app_version=above.app_version,
            parent=parent.run_id,
            depth=above.depth + 1,
            asked=above.asked or above.request,
            at_us=steady_us(),
        )

    def _answer_parent(self, child: RunMachine) -> None:
        submitted, last = child.state.submitted, child.events[-1]
        parent = self._cycles.get(submitted.parent) if submitted.parent else None
        if parent is not None and isinstance(last, ev.RunEnded):
            step, branch = submitted.run_id.rpartition(".")[2].split("-")
            self._tell_parent(parent, int(step), int(branch), submitted.run_id, last)

    def _tell_parent(self, parent: Cycle, step: int, branch: int, run_id: RunId, ended: ev.RunEnded) -> None:
        event = ev.ChildEnded(
            step=step, branch=branch, run_id=run_id, outcome=ended.outcome, usage=ended.usage, at_us=steady_us()
        )
        self._bring(parent, event)

    def _stop_children(self, parent: RunId) -> None:
        """A run that ended early takes its children with it."""
        for run_id in list(self._children.get(parent, ())):
            self._bring(self._cycles[run_id], _withdrawn(parent))

    async def _end_orphans(self, parent: RunId) -> None:
        """End the children that a crash left unfinished and that nobody will take up, now that their parent is over."""
        for (run,) in await self._journal.rows("unfinished_below", parent):
            if RunId(run) not in self._cycles:
                bodies = (await self._journal.bodies([run]))[run]
                append = ending(bodies, _withdrawn(parent), secrets.token_hex(4))
                if append is not None:
                    await self._journal.append(append)

    def _claim_again(self, cycle: Cycle) -> None:
        """A child was claimed by somebody else, perhaps a runtime that is dying: it is its parent's to finish here."""
        parent_id = cycle.machine.state.submitted.parent
        parent = self._cycles.get(parent_id) if parent_id else None
        if parent is not None and parent.machine.state.phase is Phase.AWAITING_CHILDREN:
            self._keep(asyncio.ensure_future(self._spawn(parent, parent.machine.children())))

    # Control: answered by another thread than the one agents run on.

    async def drain(self) -> int:
        """Put parked runs down in good order, so that the process can go; return how many still work."""
        await self.ready()
        for cycle in list(self._cycles.values()):
            if cycle.machine.state.phase is Phase.AWAITING_APPROVAL:
                self._bring(cycle, ev.RunSuspended(why="the runtime is put down", at_us=steady_us()))
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for cycle in [c for c in self._cycles.values() if c.machine.state.phase is Phase.SUSPENDED]:
            await cycle.log.durable()
            self._forget(cycle.run_id, cycle)
        return len(self._cycles)

    async def runs(self) -> list[tuple[str, str]]:
        """Return the runs that are here, with their phase."""
        return [(run_id, cycle.machine.state.phase.value) for run_id, cycle in self._cycles.items()]

    async def stats(self) -> dict[str, Any]:
        """Return how many runs are here, and how many are at work."""
        working = sum(not task.done() for task in list(self._tasks.values()))
        return {"runs": len(self._cycles), "working": working}


def _withdrawn(parent: RunId) -> ev.CancelRequested:
    """Return what a child is told when its parent is over."""
    return ev.CancelRequested(by=PrincipalId("driver"), why=f"its parent {parent} ended", at_us=steady_us())


control(TenantRuntime.stats, TenantRuntime.greet, TenantRuntime.runs)
