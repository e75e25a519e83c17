"""The driver's part and the runtimes': who activates runs, starts children, keeps time, and dies."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.layers import Layers
from airside.stack.cycle.runlog import entry_of
from airside.stack.errors import AirsideError, Fenced
from airside.stack.ids import PrincipalId, RunId, TenantId, child_run
from airside.stack.journal.journaling import Append
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.instructions import Instructions
from airside.stack.run.invariants import check_growth
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.values import NULL, Request
from tests.simulation.agents import ROUTES, make_agents
from tests.simulation.ports import ApprovalsPort, JournalPort, MemoryPort, PolicyPort, ToolsPort

if TYPE_CHECKING:
    from tests.simulation.world import World

MAX_EVENTS = 1500
"""No run that makes progress has this many: 25 steps of nine events, and as many again for every crash."""


class SimCycle(Cycle):
    """A cycle that is checked after every event."""

    def __init__(self, machine: RunMachine, layers: Layers, *, durable: int, runtime: Runtime) -> None:
        super().__init__(machine, layers, durable=durable)
        self.runtime = runtime

    def feed(self, event: ev.Event) -> Instructions:
        """Handle one event, log it, and check the numbered invariants."""
        world, s = self.runtime.world, self.machine.state
        before = (s.labels, s.epoch, s.step)
        was = (s.phase, dict(s.unsettled), len(s.children))
        try:
            instructions = super().feed(event)
            self.machine.check()
            check_growth(before, s)
        except AirsideError as error:
            world.violation(f"{self.run_id}: {type(error).__name__}: {error.message.splitlines()[0]}")
            raise
        step = getattr(event, "step", s.step)
        if step < before[2] and was != (s.phase, s.unsettled, len(s.children)):
            world.violation(f"{self.run_id}: {type(event).__name__} of step {step} was acted on in step {before[2]}")
        if len(self.machine.events) > MAX_EVENTS:
            world.violation(f"{self.run_id}: more than {MAX_EVENTS} events: it goes round in a circle")
            self.runtime.world.abandon()
        if was[0] is not s.phase:
            self.entered()
        return instructions

    def entered(self) -> None:
        """Keep the time of a doubt, as a runtime does, and let people find out."""
        s, runtime = self.machine.state, self.runtime
        if s.phase is not Phase.IN_DOUBT:
            return
        wait, step = self.machine.limits.doubt_wait_s, s.step
        if wait > 0:
            world = runtime.world
            world.people.doubt(self)
            world.later(wait, lambda: runtime.deliver(self.run_id, ev.DoubtExpired(step=step, at_us=world.now_us())))


class Runtime:
    """One incarnation of one tenant's runtime.  `dead` says that nothing it still does may count."""

    def __init__(self, world: World, tenant: TenantId) -> None:
        self.world = world
        self.tenant = tenant
        self.dead = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.cycles: dict[RunId, SimCycle] = {}
        self.layers = Layers(
            journal=JournalPort(world, self),
            policy=PolicyPort(world, self),
            tools=ToolsPort(world, self),
            approvals=ApprovalsPort(world, self),
            memory=MemoryPort(world, self),
            agents=make_agents(world),
            routes=ROUTES,
            specs=world.specs,
            now_us=world.now_us,
            spawn=self.spawn,
            metered=frozenset(world.plan.budgets),
        )

    def die(self) -> None:
        """Lose everything in memory at once."""
        self.dead = True
        for task in self.tasks:
            task.cancel()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that dies with the runtime."""
        self.world.start(work, owner=self)

    def begin(self, machine: RunMachine, instructions: Instructions, durable: int) -> None:
        """Take up an activated run."""
        run_id = machine.state.submitted.run_id
        cycle = SimCycle(machine, self.layers, durable=durable, runtime=self)
        self.cycles[run_id] = cycle
        self.world.note(f"{run_id}: activated, epoch {machine.state.epoch}, in {machine.state.phase}")
        cycle.entered()
        self.start(self._guard(cycle, cycle.advance(instructions)))

    def deliver(self, run_id: RunId, event: ev.Event) -> bool:
        """Bring an event to a run; return whether the run is here."""
        cycle = self.cycles.get(run_id)
        if cycle is None or self.dead:
            return False
        self.start(self._guard(cycle, cycle.deliver(event)))
        return True

    async def _guard(self, cycle: SimCycle, work: Coroutine[Any, Any, None]) -> None:
        """Watch one piece of a cycle's work: how it may end, and what follows from a run's end."""
        world = self.world
        try:
            await work
        except Fenced as error:
            world.note(f"{cycle.run_id}: {error.message}")
            if self.cycles.pop(cycle.run_id, None) is not None:
                world.driver.take_up(cycle.run_id, self)
        except asyncio.CancelledError:
            if not self.dead and not world.closed:
                world.violation(f"{cycle.run_id}: the cycle died of a CancelledError that nobody sent")
            raise
        except Exception as error:
            world.violation(f"{cycle.run_id}: the cycle died of {type(error).__name__}: {error}")
        if cycle.machine.is_over and world.journal.ended(cycle.run_id) and not self.dead:
            self._ended(cycle)

    def _ended(self, cycle: SimCycle) -> None:
        if self.cycles.pop(cycle.run_id, None) is None:
            return
        for run_id, submitted in list(self.world.driver.submitted.items()):
            if submitted.parent == cycle.run_id and run_id in self.cycles:
                self._orphan(self.cycles[run_id].machine)
            elif submitted.parent == cycle.run_id and not self.world.journal.ended(run_id):
                self.start(self.claim(submitted))  # a crash lost it, and the parent never asked for it again
        self.tell_parent(cycle.machine)

    def tell_parent(self, machine: RunMachine) -> None:
        """Deliver a child's end to its parent; now and then once more, later."""
        world, s = self.world, machine.state
        parent = s.submitted.parent
        if parent is None or s.outcome is None:
            return
        step, _, branch = s.submitted.run_id.removeprefix(f"{parent}.").partition("-")
        ended = ev.ChildEnded(
            step=int(step),
            branch=int(branch),
            run_id=s.submitted.run_id,
            outcome=s.outcome,
            usage=s.usage,
            at_us=world.now_us(),
        )
        self.deliver(parent, ended)
        if world.chance(3.0):
            world.later(world.rng.random(), lambda: self.deliver(parent, ended) and None)

    async def spawn(self, parent: Cycle, i: do.SpawnChildren) -> None:
        """Start or resume the branches as runs of their own."""
        world, submitted = self.world, parent.machine.state.submitted
        for number, branch in enumerate(i.branches):
            run_id = child_run(parent.run_id, i.step, number)
            if run_id in self.cycles:
                continue
            request = Request(
                text=branch.text,
                inputs=branch.inputs if branch.inputs not in (None, NULL) else submitted.request.inputs,
                route=branch.route,
                labels=tuple(sorted(parent.machine.state.labels)),
            )
            child = ev.RunSubmitted(
                run_id=run_id,
                identity=submitted.identity,
                sealed=submitted.sealed,
                request=request,
                limits=i.limits,
                app_version=submitted.app_version,
                parent=parent.run_id,
                depth=submitted.depth + 1,
                asked=submitted.asked or submitted.request,
                at_us=world.now_us(),
                cause=i.cause,
            )
            world.driver.submitted.setdefault(run_id, child)
            self.start(self.claim(child))

    async def claim(self, submitted: ev.RunSubmitted) -> None:
        """Take a child up under an epoch of its own.  No driver is asked, so two runtimes may try at once."""
        world, run_id = self.world, submitted.run_id
        while run_id not in self.cycles:
            await world.pause()
            bodies = world.journal.local.bodies(run_id)
            machine = RunMachine.replay([ev.decode_event(body) for body in bodies] or [submitted])
            if machine.is_over:
                self.tell_parent(machine)
                return
            epoch = machine.state.epoch + 1
            activated = ev.RunActivated(epoch=epoch, at_us=world.now_us())
            fresh = (activated,) if bodies else (submitted, activated)
            reply = await self.layers.journal.append(append_of(submitted, fresh, epoch, len(bodies)))
            if reply.verdict == "ok" and run_id not in self.cycles:
                self.begin(machine, machine.handle(activated), len(bodies) + len(fresh))
                self._orphan(machine)

    def _orphan(self, machine: RunMachine) -> None:
        """Stop a child whose parent has ended already."""
        parent = machine.state.submitted.parent
        if parent is not None and self.world.journal.ended(parent):
            why = ev.KillRequested(by="driver", why="its parent ended", at_us=self.world.now_us())
            self.deliver(machine.state.submitted.run_id, why)


class Driver:
    """What the driver does for runs: submits, activates, delivers, stops.  It does not crash here."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._locks: dict[RunId, asyncio.Lock] = {}
        self.runtimes: dict[TenantId, Runtime] = {}
        self.submitted: dict[RunId, ev.RunSubmitted] = {}

    def runtime(self, tenant: TenantId) -> Runtime:
        """Return the present runtime of a tenant, starting one if there is none."""
        if tenant not in self.runtimes:
            self.restart(tenant)
        return self.runtimes[tenant]

    def submit(self, submitted: ev.RunSubmitted) -> None:
        """Write a run's beginning and take it up."""
        self.submitted[submitted.run_id] = submitted
        self.take_up(submitted.run_id, self.runtime(submitted.identity.tenant))

    def take_up(self, run_id: RunId, runtime: Runtime) -> None:
        """Activate a run on a runtime; what has a parent is claimed by the runtime itself."""
        submitted = self.submitted[run_id]
        if submitted.parent is not None:
            runtime.start(runtime.claim(submitted))
        else:
            self._world.start(self._take_up(submitted, runtime))

    async def _take_up(self, submitted: ev.RunSubmitted, runtime: Runtime) -> None:
        world, run_id = self._world, submitted.run_id
        async with self._locks.setdefault(run_id, asyncio.Lock()):
            if not world.journal.local.bodies(run_id):
                await world.journal.append(append_of(submitted, (submitted,), 0, 0))
            while runtime is self.runtimes.get(runtime.tenant) and run_id not in runtime.cycles:
                bodies = world.journal.local.bodies(run_id)
                machine = RunMachine.replay(ev.decode_event(body) for body in bodies)
                if machine.is_over:
                    return
                epoch = machine.state.epoch + 1
                activated = ev.RunActivated(epoch=epoch, at_us=world.now_us())
                await world.pause()
                reply = await world.journal.append(append_of(submitted, (activated,), epoch, len(bodies)))
                if reply.verdict == "ok" and runtime is self.runtimes.get(runtime.tenant):
                    runtime.begin(machine, machine.handle(activated), len(bodies) + 1)

    def restart(self, tenant: TenantId) -> None:
        """Start a new runtime for a tenant and take up what is unfinished; children wait for their parents."""
        runtime = self.runtimes[tenant] = Runtime(self._world, tenant)
        for run_id, submitted in list(self.submitted.items()):
            ended = self._world.journal.ended
            if submitted.identity.tenant == tenant and not ended(run_id):
                parent = submitted.parent
                if parent is None or ended(parent):
                    self.take_up(run_id, runtime)

    def deliver(self, run_id: RunId, event: ev.Event) -> None:
        """Send an event to wherever the run is; if it is nowhere, the next activation asks."""
        world = self._world

        def arrive() -> None:
            runtime = self.runtimes.get(self.submitted[run_id].identity.tenant)
            if runtime is not None:
                runtime.deliver(run_id, event)

        world.later(world.rng.expovariate(200), arrive)

    async def stop(self, run_id: RunId, *, kill: bool) -> None:
        """Kill or cancel a run, and say so again until it has ended."""
        world = self._world
        while not world.journal.ended(run_id):
            now = world.now_us()
            stop: ev.Event = ev.CancelRequested(by=PrincipalId("ann"), at_us=now)
            if kill:
                stop = ev.KillRequested(by="bob", why="enough", at_us=now)
            self.deliver(run_id, stop)
            await asyncio.sleep(1.0)


def append_of(submitted: ev.RunSubmitted, events: tuple[ev.Event, ...], epoch: int, seq: int) -> Append:
    """Return the append that makes these events of a run durable."""
    return Append(
        tenant=submitted.identity.tenant,
        stream=submitted.run_id,
        epoch=epoch,
        first_seq=seq,
        entries=tuple(entry_of(event) for event in events),
    )
