"""The processes that runs are in, and the driver: the shells of `RunHost` and `Placement` under the simulated clock.

What decides is the code that runs for real.  What is here carries its instructions out: slowly, in any order, with
answers that get lost, and with processes and drivers that die at any point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from airside.stack.cycle.claiming import SWEEP_S, Claims, Unfinished, roots_of
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.hosting import Held, RunHost
from airside.stack.errors import AirsideError, LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId, root_of
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.journal.stream import entry_of
from airside.stack.run import events as ev
from airside.stack.run.instructions import Instructions
from airside.stack.run.invariants import check_growth
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.scheduling.activation_events import ActivationEvent
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.scheduling.deadlines import Deadlines
from airside.stack.scheduling.load import LoadLimit
from airside.stack.scheduling.placement import TERMINATION, Placement, PlacementRules
from tests.simulation.agents import ROUTES, make_agents
from tests.simulation.owners import Mortal
from tests.simulation.ports import ApprovalsPort, JournalPort, MemoryPort, PolicyPort, ToolsPort

if TYPE_CHECKING:
    from tests.simulation.world import World

MAX_EVENTS = 1500
"""No run that makes progress has this many: 25 steps of nine events, and as many again for every crash."""

TICK_S = 1.0
"""Between two looks at deadlines and at processes that idle."""

SHARES = TenantShare(concurrency=3, queue=1000)
"""Few at once, so that runs wait for their turn."""

PLACES, MOST_PROCESSES = 6, 3
"""Of the cell: tenants need more, so that some wait for room."""


class SimCycle(Cycle):
    """A cycle that is checked after every event."""

    def __init__(self, machine: RunMachine, layers: CyclePorts, *, durable: int, process: Process) -> None:
        super().__init__(machine, layers, durable=durable)
        self.process = process

    def feed(self, event: ev.Event) -> Instructions:
        """Handle one event, log it, and check the numbered invariants."""
        world, s = self.process.world, self.machine.state
        before = (s.labels, s.epoch, s.step)
        was = (s.phase, dict(s.in_doubt_keys), len(s.children))
        try:
            instructions = super().feed(event)
            self.machine.check()
            check_growth(before, s)
        except AirsideError as error:
            world.violation(f"{self.run_id}: {type(error).__name__}: {error.message.splitlines()[0]}")
            raise
        step = getattr(event, "step", s.step)
        if step < before[2] and was != (s.phase, s.in_doubt_keys, len(s.children)):
            world.violation(f"{self.run_id}: {type(event).__name__} of step {step} was acted on in step {before[2]}")
        if len(self.machine.events) > MAX_EVENTS:
            world.violation(f"{self.run_id}: more than {MAX_EVENTS} events: it goes round in a circle")
            world.abandon()
        if was[0] is not s.phase:
            self.entered()
        return instructions

    def entered(self) -> None:
        """Let people find out about a call in doubt."""
        if self.machine.state.phase is Phase.IN_DOUBT and self.machine.limits.doubt_wait_s > 0:
            self.process.world.people.doubt(self)


class SimHost(RunHost):
    """A host whose activations are checked after every event."""

    world: World

    def _happened(self, event: ActivationEvent) -> None:
        try:
            super()._happened(event)
            self.activations.check()
        except AirsideError as error:
            self.world.violation(f"activations: {type(event).__name__}: {type(error).__name__}: {error.message}")
            raise


class Process(Mortal):
    """One runtime process."""

    def __init__(self, world: World, key: str) -> None:
        super().__init__()
        self.world = world
        self.key = key
        self.host = SimHost(
            JournalPort(world, self),
            make=self._make,
            share=lambda submitted: submitted,
            tell=self._tell,
            log=self._log,
            now_us=world.now_us,
            mint=world.mint,
        )
        self.host.world = world
        self.layers = CyclePorts(
            journal=JournalPort(world, self),
            policy=PolicyPort(world, self),
            tools=ToolsPort(world, self),
            approvals=ApprovalsPort(world, self),
            memory=MemoryPort(world, self),
            agents=make_agents(world),
            routes=ROUTES,
            specs=world.specs,
            now_us=world.now_us,
            spawn=self.host.spawn,
            metered=frozenset(world.plan.budgets),
        )

    def _make(self, machine: RunMachine, durable: int) -> SimCycle:
        submitted = machine.state.submitted
        cycle = SimCycle(machine, self.layers, durable=durable, process=self)
        self.world.note(
            f"{submitted.run_id}: activated, epoch {machine.state.epoch}, in {machine.state.phase}, {self.key}"
        )
        cycle.entered()
        return cycle

    async def _tell(
        self, run_id: RunId, tenant: TenantId, epoch: int, standing: on.RunStanding, ended: bytes = b"", number: int = 0
    ) -> None:
        await self.world.pause()
        driver = self.world.driver
        if self.world.chance(1.0):
            raise LayerUnavailable("the driver did not answer for as long as one waits")
        twice = self.world.chance(2.0)
        await driver.reported(run_id, tenant, epoch, standing, ended, number)
        if twice:
            await self.world.pause()
            await driver.reported(run_id, tenant, epoch, standing, ended, number)

    def _log(self, run_id: RunId, error: Exception) -> None:
        self.world.note(f"{run_id}: its activation ended early: {type(error).__name__}: {error}")
        if not isinstance(error, LayerUnavailable):
            self.world.violation(f"{run_id}: the cycle died of {type(error).__name__}: {error}")


class DriverJournal:
    """The journal as the driver has it: now and then it does not answer, though it took an append in."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable."""
        reply = await self._world.journal.append(append)
        self._fail()
        return reply

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of runs."""
        await self._world.pause()
        self._fail()
        return await self._world.journal.local.bodies(streams)

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return the branches that have not ended."""
        await self._world.pause()
        self._fail()
        return await self._world.journal.local.unfinished_below(run_id)

    def _fail(self) -> None:
        if self._world.chance(1.0):
            raise LayerUnavailable("the journal did not answer")


class Incarnation(Mortal):
    """One life of the driver."""

    def __init__(self, world: World, processes: dict[str, Process]) -> None:
        super().__init__()
        self._world = world
        self._processes = processes
        self.messages = count(TERMINATION + 1)
        self.arriving: dict[int, asyncio.Future[None]] = {}
        self.refused: set[RunId] = set()
        self.placement = Placement(
            PlacementRules(pool_size=0, max_processes=MOST_PROCESSES, idle_s=5.0, lease_s=5.0),
            AdmissionQueue(lambda tenant: SHARES, PLACES),
            Deadlines(),
            LoadLimit(PLACES, late_s=1.0),
            mint=world.mint,
        )
        self._claims = Claims(DriverJournal(world), now=world.moment, mint=world.mint, stop_calls=self._stop_calls)

    def die(self) -> None:
        """Forget everything; who waits for a message to arrive sends it again."""
        super().die()
        for future in self.arriving.values():
            if not future.done():
                future.cancel()

    def happened(self, event: on.PlacementEvent) -> None:
        """Take in an event, check the rules, and have what follows carried out."""
        if self.dead:
            return
        try:
            instructions = self.placement.handle(event)
            self.placement.check()
        except AirsideError as error:
            self._world.violation(f"placement: {type(event).__name__}: {type(error).__name__}: {error.message}")
            raise
        for instruction in instructions:
            if isinstance(instruction, do.Answer):
                future = self.arriving.pop(instruction.number, None)
                if future is not None and not future.done():
                    future.set_result(None)
            elif isinstance(instruction, do.Refuse):
                self.refused.add(instruction.run_id)
            elif isinstance(instruction, do.Finish):
                if not self._world.journal.ended(instruction.run_id):
                    self._world.violation(f"{instruction.run_id}: it is said to have ended, and has not")
            elif type(instruction) in _CARRY:
                self._world.start(_CARRY[type(instruction)](self, instruction), owner=self)

    async def _answer(self, work: Awaitable[on.PlacementEvent], failed: on.PlacementEvent) -> None:
        try:
            event = await work
        except LayerUnavailable:
            event = failed
        self._world.point(f"driver {type(event).__name__}")
        self.happened(event)

    async def recover(self) -> None:
        """Find what is unfinished, and the processes that live."""
        world = self._world
        await world.pause()
        rows = world.journal.unfinished_runs()
        await world.pause()
        for key in self._processes:
            self.happened(on.ProcessFound(at=world.moment(), process=key))
        at_work = {held.run_id: (p.key, held) for p in self._processes.values() for held in p.host.held()}
        self._find(rows, at_work)
        world.start(self._tick(), owner=self)
        world.start(self._sweep(), owner=self)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            orphans = [run for run in self._world.journal.unfinished_runs() if run.parent]
            self._find([run for run in orphans if self._world.journal.ended(root_of(run.run_id))], {})

    def _find(self, rows: Sequence[Unfinished], at_work: Mapping[RunId, tuple[str, Held]]) -> None:
        world = self._world
        for run in roots_of(rows):
            process, held = at_work.get(run.run_id, ("", Held(run.run_id, 0, "working")))
            self.happened(
                on.RunFound(
                    at=world.moment(),
                    run_id=run.run_id,
                    tenant=run.tenant,
                    epoch=run.epoch,
                    admitted_us=run.admitted_us,
                    process=process,
                    held_epoch=held.epoch,
                    standing=held.standing,
                )
            )

    async def _tick(self) -> None:
        while True:
            self.happened(on.Ticked(at=self._world.moment()))
            await asyncio.sleep(TICK_S)

    # Carrying out.

    async def _start_process(self, i: do.StartProcess) -> None:
        world = self._world
        await world.pause()
        if world.chance(1.0):
            self.happened(on.ProcessFailed(at=world.moment(), process=i.process))
        else:
            self._processes[i.process] = Process(world, i.process)
            self.happened(on.ProcessStarted(at=world.moment(), process=i.process))

    async def _kill_process(self, i: do.KillProcess) -> None:
        await self._world.pause()
        self._world.driver.lose(i.process, excused=True)

    async def _put_down_process(self, i: do.PutDownProcess) -> None:
        process = self._processes.get(i.process)
        if process is not None:
            await self._world.pause()
            draining = process.within(lambda: asyncio.ensure_future(process.host.drain()))
            await asyncio.wait([draining], timeout=5.0)
        self._world.driver.lose(i.process, excused=True)

    async def _inspect_process(self, i: do.InspectProcess) -> None:
        await self._world.pause()
        holds = self._world.chance(5.0)
        event = on.ProcessInspected(at=self._world.moment(), process=i.process, run_id=i.run_id, holds=holds)
        self.happened(event)

    async def _claim(self, i: do.Claim) -> None:
        await self._answer(self._claims.claim(i), on.ClaimFailed(at=self._world.moment(), run_id=i.run_id))

    async def _ask(self, key: str, work: Callable[[Process], Any]) -> Any:
        """Ask a process, which may be dead, and whose answer may get lost."""
        world = self._world
        await world.pause()
        process = self._processes.get(key)
        if process is None:
            raise LayerUnavailable(f"{key} is gone")
        answer = process.within(lambda: work(process))
        await world.pause()
        if process.dead or world.chance(1.0):
            raise LayerUnavailable(f"{key} did not answer")
        return answer

    async def _activate(self, i: do.Activate) -> None:
        at = self._world.moment()

        async def activate() -> on.PlacementEvent:
            await self._ask(i.process, lambda p: p.host.activate([ev.decode_event(body) for body in i.events]))
            return on.Activated(at=at, run_id=i.run_id, epoch=i.epoch)

        await self._answer(activate(), on.ActivationFailed(at=at, run_id=i.run_id, epoch=i.epoch))

    async def _deliver(self, i: do.Deliver) -> None:
        at = self._world.moment()

        async def deliver() -> on.PlacementEvent:
            reports = await self._ask(i.process, lambda p: p.host.bring(i.run_id, ev.decode_event(i.event)))
            return on.MessageAnswered(
                at=at,
                number=i.number,
                run_id=i.run_id,
                process=i.process,
                present=reports is not None,
                reports=reports or 0,
            )

        failed = on.MessageFailed(at=at, number=i.number, run_id=i.run_id, process=i.process)
        await self._answer(deliver(), failed)

    async def _end_run(self, i: do.EndRun) -> None:
        await self._answer(self._claims.end(i), on.EndingFailed(at=self._world.moment(), run_id=i.run_id))

    async def _stop_calls(self, run_ids: Sequence[RunId]) -> None:
        await self._world.pause()
        for run_id in run_ids:
            await self._world.tools.release(run_id)

    async def _set_timer(self, i: do.SetTimer) -> None:
        await asyncio.sleep(i.seconds)
        self.happened(on.TimerDue(at=self._world.moment(), run_id=i.run_id, number=i.number))


_CARRY: dict[type[do.PlacementInstruction], Callable[[Incarnation, Any], Coroutine[Any, Any, None]]] = {
    do.StartProcess: Incarnation._start_process,
    do.KillProcess: Incarnation._kill_process,
    do.PutDownProcess: Incarnation._put_down_process,
    do.InspectProcess: Incarnation._inspect_process,
    do.Claim: Incarnation._claim,
    do.Activate: Incarnation._activate,
    do.Deliver: Incarnation._deliver,
    do.EndRun: Incarnation._end_run,
    do.SetTimer: Incarnation._set_timer,
}


class Driver:
    """The driver's name: whoever asks it, asks its present life, and again if that ends before it has answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.submitted: dict[RunId, ev.RunSubmitted] = {}
        self.processes: dict[str, Process] = {}
        self._life: Incarnation | None = None
        self._up = asyncio.Event()

    def boot(self) -> None:
        """Begin a life."""
        self._life = Incarnation(self._world, self.processes)
        self._world.start(self._recover(self._life), owner=self._life)

    async def _recover(self, life: Incarnation) -> None:
        await life.recover()
        self._up.set()

    def crash(self) -> None:
        """End the present life; another begins soon."""
        if self._life is not None:
            self._life.die()
            self._life = None
            self._up.clear()
            self._world.later(self._world.rng.random() * 0.5, self.boot)

    async def _present(self) -> Incarnation:
        while True:
            await self._up.wait()
            if self._life is not None and not self._life.dead:
                return self._life

    def cycle(self, run_id: RunId) -> Cycle | None:
        """Return a run where it is."""
        found = (process.host.get(run_id) for process in self.processes.values())
        return next((cycle for cycle in found if cycle is not None), None)

    def lose(self, key: str, *, excused: bool, lingers_s: float = 0.0) -> None:
        """Lose a process, of which the driver hears a little later; it may go on for a while beside its successor."""
        process = self.processes.pop(key, None)
        if process is not None:
            self._world.later(lingers_s, process.die) if lingers_s else process.die()
            self._world.later(self._world.rng.random() * 0.2, lambda: self._died(key, excused))

    def _died(self, key: str, excused: bool) -> None:
        if self._life is not None:
            self._life.happened(on.ProcessDied(at=self._world.moment(), process=key, excused=excused))

    async def reported(
        self, run_id: RunId, tenant: TenantId, epoch: int, standing: on.RunStanding, ended: bytes, number: int
    ) -> None:
        """Take in what a process says of a run."""
        life, at = await self._present(), self._world.moment()
        if standing == "ended":
            steps = ev.decode_event(ended).usage.steps  # type: ignore[union-attr]
            life.happened(on.EndReported(at=at, run_id=run_id, tenant=tenant, ended=ended, steps=steps))
        else:
            life.happened(on.RunReported(at=at, run_id=run_id, epoch=epoch, standing=standing, number=number))

    def submit(self, submitted: ev.RunSubmitted) -> None:
        """Send a request until it is a run."""
        self.submitted[submitted.run_id] = submitted
        self._world.start(self._submit(submitted))

    async def _submit(self, submitted: ev.RunSubmitted) -> None:
        world, run_id = self._world, submitted.run_id
        entry = entry_of(submitted)
        append = Append(tenant=submitted.identity.tenant, stream=run_id, epoch=0, first_seq=0, entries=(entry,))
        while True:
            life = await self._present()
            at = world.moment()
            life.happened(
                on.Submitted(at=at, run_id=run_id, tenant=submitted.identity.tenant, admitted_us=submitted.at_us)
            )
            reply = await world.journal.append(append)
            if not life.dead:
                events = (entry.body,) if reply.verdict == "ok" and not world.chance(1.0) else ()
                life.happened(on.AdmissionRecorded(at=world.moment(), run_id=run_id, events=events))
                return

    def deliver(self, run_id: RunId, event: ev.Event) -> None:
        """Send an event to a run, wherever it is, until it has arrived."""
        self._world.start(self._deliver(run_id, event))

    async def _deliver(self, run_id: RunId, event: ev.Event) -> None:
        await self._world.pause()
        while True:
            life = await self._present()
            number = next(life.messages)
            arrived = life.arriving[number] = asyncio.get_running_loop().create_future()
            life.happened(
                on.MessageArrived(at=self._world.moment(), number=number, run_id=run_id, event=ev.encode_event(event))
            )
            await asyncio.wait([arrived])
            if not arrived.cancelled():
                return

    async def stop(self, run_id: RunId, *, kill: bool) -> None:
        """Order a run's end; again, only if the driver that was told has died."""
        world = self._world
        now = world.now_us()
        stop: on.Termination = ev.CancelRequested(by=PrincipalId("ann"), at_us=now)
        if kill:
            stop = ev.KillRequested(by="bob", why="enough", at_us=now)
        told: Incarnation | None = None
        while not world.journal.ended(run_id):
            life = await self._present()
            if life is not told and run_id in life.placement:
                life.happened(on.TerminationRequested(at=world.moment(), run_id=run_id, termination=stop))
                told = life
            await asyncio.sleep(0.2)
