"""`RunHost`: the runs that one process has: taken up, told what comes from outside, their branches started, and let go.

A branch is a run of its own, in its parent's process, claimed by it and not by the driver.  It is its parent's to see
to an end: whatever becomes of a claim, of another process's, or of a layer, is looked at again until the branch is here
or has ended; and its end is told to its parent wherever that is here, or when it is taken up again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from airside.stack.cycle.claiming import RunJournal
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.run_log import entry_of
from airside.stack.cycle.termination import termination_append
from airside.stack.errors import Fenced, LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId, child_run
from airside.stack.journal.journaling import Append
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.instructions import Instructions
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.scheduling.placement_events import RunStanding, Standing
from airside.stack.values import Request

AGAIN_S = 0.05
"""After which a branch is looked at again whose claim somebody else was faster with."""


_WAITS: dict[Phase, Standing] = {Phase.AWAITING_APPROVAL: "parked", Phase.IN_DOUBT: "in_doubt"}


class Held(NamedTuple):
    """A run that is here, under which epoch, and how it stands."""

    run_id: RunId
    epoch: int
    standing: Standing


class StandingListener(Protocol):
    """Who hears how a run stands; it does not raise."""

    def __call__(
        self, run_id: RunId, tenant: TenantId, epoch: int, standing: RunStanding, ended: bytes = b"", number: int = 0
    ) -> Awaitable[None]:
        """Take it in; `ended` is the run's `RunEnded`, `number` grows with each report."""


class ErrorListener(Protocol):
    """Who keeps a line about an activation that ended early."""

    def __call__(self, run_id: RunId, error: Exception) -> None:
        """Keep it."""


class RunHost:
    """`make` makes the cycle of an activated run; `mint` a name that no other claim has.

    `share` returns a run's first event with what it has alike with others held once.
    """

    def __init__(
        self,
        journal: RunJournal,
        *,
        make: Callable[[RunMachine, int], Cycle],
        share: Callable[[ev.RunSubmitted], ev.RunSubmitted],
        tell: StandingListener,
        log: ErrorListener,
        now_us: Callable[[], int],
        mint: Callable[[], str],
    ) -> None:
        self._journal = journal
        self._make = make
        self._share = share
        self._tell = tell
        self._log = log
        self._now_us = now_us
        self._mint = mint
        self._cycles: dict[RunId, Cycle] = {}
        self._tasks: dict[RunId, asyncio.Task[None]] = {}
        """Of the runs that are at work: one that waits has none."""

        self._branches: dict[RunId, set[RunId]] = {}
        self._others: set[asyncio.Task[Any]] = set()
        self._reported: dict[RunId, set[RunId]] = {}
        self._waiting: dict[RunId, Standing] = {}
        self._reports = 0
        self._beginning: dict[RunId, set[asyncio.Task[None]]] = {}

    def get(self, run_id: RunId) -> Cycle | None:
        """Return a run that is here."""
        return self._cycles.get(run_id)

    def cycles(self) -> Iterator[Cycle]:
        """Yield the runs that are here."""
        return iter(list(self._cycles.values()))

    def held(self) -> list[Held]:
        """Return the runs that are here, and how they stand: as was reported of each, or is about to be.

        A run's phase says less: one that is to wait for a person does so once that is durable, and people are asked.
        """
        return [
            Held(run_id, cycle.machine.state.epoch, self._waiting.get(run_id, "working"))
            for run_id, cycle in list(self._cycles.items())
        ]

    def __len__(self) -> int:
        return len(self._cycles)

    @property
    def working(self) -> int:
        """How many runs are at work."""
        return len(self._tasks)

    def activate(self, events: Sequence[ev.Event]) -> Cycle:
        """Take a run up from its durable events, the last of which activates it.

        One that is here already under this epoch or a newer one stays as it is.
        """
        if isinstance(events[0], ev.RunSubmitted):
            events = [self._share(events[0]), *events[1:]]
        machine = RunMachine.replay(events[:-1])
        run_id, last = machine.state.submitted.run_id, events[-1]
        present = self._cycles.get(run_id)
        if present is not None and isinstance(last, ev.RunActivated):
            if present.machine.state.epoch >= last.epoch:
                return present
            self._stop_task(run_id)
            present.log.leave()
        instructions = machine.handle(last)
        cycle = self._make(machine, len(events))
        self._cycles[run_id] = cycle
        parent = machine.state.submitted.parent
        if parent is not None:
            self._branches.setdefault(parent, set()).add(run_id)
        self._reported.pop(run_id, None)
        self._waiting.pop(run_id, None)
        self._start(cycle, instructions)
        return cycle

    def bring(self, run_id: RunId, event: ev.Event) -> bool:
        """Bring an event in from outside; False for a run that is not here."""
        cycle = self._cycles.get(run_id)
        if cycle is not None:
            self._bring(cycle, event)
        return cycle is not None

    def keep(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a task beside the runs."""
        task = asyncio.ensure_future(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def drain(self) -> int:
        """Put parked runs down in good order, so that the process can go; return how many still work.

        The driver has them here no more; but should another one have begun meanwhile, it hears that they are gone.
        """
        for cycle in self.cycles():
            if cycle.machine.state.phase is Phase.AWAITING_APPROVAL:
                self._bring(cycle, ev.RunSuspended(why="the runtime is put down", at_us=self._now_us()))
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for cycle in [c for c in self.cycles() if c.machine.state.phase is Phase.SUSPENDED]:
            await cycle.log.durable()
            self._forget(cycle)
            await self._report(cycle, "lost")
        return len(self)

    # One activation.

    def _start(self, cycle: Cycle, instructions: Instructions) -> None:
        self._tasks[cycle.run_id] = asyncio.create_task(self._guard(cycle, instructions), name=cycle.run_id)

    def _bring(self, cycle: Cycle, event: ev.Event) -> None:
        if self._cycles.get(cycle.run_id) is not cycle:
            return  # it is over, or taken up anew: a timer of the old activation says nothing to it
        cycle.post(event)
        self._waiting.pop(cycle.run_id, None)
        task = self._tasks.get(cycle.run_id)
        if task is None or task.done():
            self._start(cycle, [])

    async def _guard(self, cycle: Cycle, instructions: Instructions) -> None:
        """The one exit of every activation: say how the run stands, forget it if it is over."""
        try:
            await cycle.advance(instructions)
            while not cycle.machine.is_over:
                self._time_doubt(cycle)
                waits = _WAITS.get(cycle.machine.state.phase)
                if waits is not None:
                    if self._cycles.get(cycle.run_id) is cycle and not cycle.has_mail:
                        self._waiting[cycle.run_id] = waits
                    await self._report(cycle, waits)
                if not cycle.has_mail:
                    self._rest(cycle)
                    return
                await self._report(cycle, "working")
                await cycle.advance([])
        except Fenced:
            if self._cycles.get(cycle.run_id) is cycle:
                self._let_branches_go(cycle.run_id)
            self._forget(cycle)
            self._claim_again(cycle)
        except Exception as error:
            await self._lose(cycle, error)
        else:
            await self._end(cycle)

    def _rest(self, cycle: Cycle) -> None:
        """Hold no task for a run that waits."""
        if self._cycles.get(cycle.run_id) is cycle:
            self._tasks.pop(cycle.run_id, None)

    def _stop_task(self, run_id: RunId) -> None:
        task = self._tasks.pop(run_id, None)
        if task is not None:
            task.cancel()

    async def _end(self, cycle: Cycle) -> None:
        """Let an ended run go, its branches first: once the driver has heard of its end, nobody comes back for them."""
        machine = cycle.machine
        self._forget(cycle)
        self._answer_parent(machine)
        if machine.state.fan_out is not None and len(machine.state.children) < len(machine.state.fan_out.branches):
            try:
                await self._end_branches(cycle.run_id)
            except Exception as error:
                await self._lose(cycle, error)
                return
        await self._report(cycle, "ended", ev.encode_event(machine.events[-1]))

    async def _lose(self, cycle: Cycle, error: Exception) -> None:
        """Give an activation up where it stands; the driver takes the run up again from what is durable.

        It knows roots alone: a branch takes its parent with it, which sees to its branches when it is taken up again.
        """
        self._log(cycle.run_id, error)
        self._forget(cycle)
        await self._report(cycle, "lost" if isinstance(error, LayerUnavailable) else "broken")
        parent = self._parent_of(cycle)
        if parent is not None:
            await self._lose(parent, error)

    async def _report(self, cycle: Cycle, standing: RunStanding, ended: bytes = b"") -> None:
        s = cycle.machine.state
        self._reports += 1
        await self._tell(cycle.run_id, s.submitted.identity.tenant, s.epoch, standing, ended, self._reports)

    def _forget(self, cycle: Cycle) -> None:
        if self._cycles.get(cycle.run_id) is cycle:
            self._cycles.pop(cycle.run_id, None)
            self._tasks.pop(cycle.run_id, None)
            cycle.log.leave()
            self._reported.pop(cycle.run_id, None)
            self._waiting.pop(cycle.run_id, None)
            self._leave_parent(cycle)

    def _leave_parent(self, cycle: Cycle) -> None:
        parent = cycle.machine.state.submitted.parent
        siblings = self._branches.get(parent, set()) if parent is not None else set()
        siblings.discard(cycle.run_id)
        if parent is not None and not siblings:
            self._branches.pop(parent, None)

    def _time_doubt(self, cycle: Cycle) -> None:
        if cycle.machine.state.phase is not Phase.IN_DOUBT:
            return
        step, seconds = cycle.machine.state.step, cycle.machine.limits.doubt_wait_s

        async def expire() -> None:
            await asyncio.sleep(seconds)
            self._bring(cycle, ev.InDoubtExpired(step=step, at_us=self._now_us()))

        self.keep(expire())

    # Branches.

    async def spawn(self, parent: Cycle, spawn: do.SpawnChildren) -> None:
        """Start the branches that have not run yet; those that ended already are answered from the journal."""
        task = asyncio.ensure_future(self._see_to_all(parent, spawn))
        beginning = self._beginning.setdefault(parent.run_id, set())
        beginning.add(task)
        task.add_done_callback(lambda _: self._begun(parent.run_id, task))

    def _begun(self, parent: RunId, task: asyncio.Task[None]) -> None:
        beginning = self._beginning[parent]
        beginning.discard(task)
        if not beginning:
            del self._beginning[parent]

    async def _see_to_all(self, parent: Cycle, spawn: do.SpawnChildren) -> None:
        """See to every branch; if a layer is gone, the parent is given up, and taken up again when it is back."""
        ids = [child_run(parent.run_id, spawn.step, branch) for branch in range(len(spawn.branches))]
        try:
            known = await self._journal.bodies(ids)
            await asyncio.gather(
                *(self._see_to(parent, spawn, branch, run_id, known[run_id]) for branch, run_id in enumerate(ids))
            )
        except Exception as error:
            if self._cycles.get(parent.run_id) is parent:
                await self._lose(parent, error)

    async def _see_to(
        self, parent: Cycle, spawn: do.SpawnChildren, branch: int, run_id: RunId, bodies: list[str]
    ) -> None:
        """Have a branch here, or its parent know its end."""
        while self._cycles.get(parent.run_id) is parent and run_id not in self._cycles:
            events = [ev.decode_event(body) for body in bodies]
            if events and isinstance(events[-1], ev.RunEnded):
                self._tell_parent(parent, spawn.step, branch, run_id, events[-1])
                return
            if await self._begin(parent, spawn, branch, run_id, events):
                return
            # Somebody else wrote to it: a process that is dying, perhaps, which will not see it to its end.
            await asyncio.sleep(AGAIN_S)
            bodies = (await self._journal.bodies([run_id]))[run_id]

    async def _begin(
        self, parent: Cycle, spawn: do.SpawnChildren, branch: int, run_id: RunId, events: list[ev.Event]
    ) -> bool:
        """Make a branch's admission and activation durable under an epoch of its own, and take it up; whether it is."""
        epoch = max((e.epoch for e in events if isinstance(e, ev.RunActivated)), default=0) + 1
        fresh: list[ev.Event] = [] if events else [self._child_submitted(parent, spawn, branch, run_id)]
        fresh.append(ev.RunActivated(epoch=epoch, claim=self._mint(), at_us=self._now_us()))
        append = Append(
            tenant=parent.machine.state.submitted.identity.tenant,
            stream=run_id,
            epoch=epoch,
            first_seq=len(events),
            entries=tuple(entry_of(event) for event in fresh),
        )
        if (await self._journal.append(append)).verdict != "ok":
            return False
        child = self.activate([*events, *fresh])
        if self._cycles.get(parent.run_id) is not parent:
            self._bring(child, self._withdrawn(parent.run_id))  # its parent ended while it was being claimed
        return True

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
            at_us=self._now_us(),
        )

    def _answer_parent(self, child: RunMachine) -> None:
        submitted, last = child.state.submitted, child.events[-1]
        parent = self._cycles.get(submitted.parent) if submitted.parent else None
        if parent is not None and isinstance(last, ev.RunEnded):
            step, branch = submitted.run_id.rpartition(".")[2].split("-")
            self._tell_parent(parent, int(step), int(branch), submitted.run_id, last)

    def _tell_parent(self, parent: Cycle, step: int, branch: int, run_id: RunId, ended: ev.RunEnded) -> None:
        """Tell a parent of a branch's end, once: it may be seen here and read from the journal at the same time."""
        told = self._reported.setdefault(parent.run_id, set())
        s = parent.machine.state
        if run_id in told or (step == s.step and branch in s.children):
            return
        told.add(run_id)
        event = ev.ChildEnded(
            step=step, branch=branch, run_id=run_id, outcome=ended.outcome, usage=ended.usage, at_us=self._now_us()
        )
        self._bring(parent, event)

    async def _end_branches(self, parent: RunId) -> None:
        """End the branches of a run that ended early: those that are here, and those that a crash left unfinished."""
        for run_id in list(self._branches.get(parent, ())):
            self._bring(self._cycles[run_id], self._withdrawn(parent))
        while waited := [*self._beginning.get(parent, ()), *self._tasks_below(parent)]:
            await asyncio.wait(waited)
        while below := await self._journal.unfinished_below(parent):
            for run_id in below:
                bodies = (await self._journal.bodies([run_id]))[run_id]
                append = termination_append(bodies, self._withdrawn(parent), self._mint())
                if append is not None:
                    await self._journal.append(append)

    def _let_branches_go(self, parent: RunId) -> None:
        """Leave the branches of a run to whoever has it now, who claims them anew or has ended them."""
        for run_id in list(self._branches.get(parent, ())):
            self._let_branches_go(run_id)
            self._stop_task(run_id)
            self._forget(self._cycles[run_id])

    def _tasks_below(self, parent: RunId) -> list[asyncio.Task[None]]:
        return [self._tasks[run_id] for run_id in self._branches.get(parent, ()) if run_id in self._tasks]

    def _claim_again(self, cycle: Cycle) -> None:
        """A branch was claimed by somebody else, perhaps a process that is dying: it is its parent's to finish here."""
        parent = self._parent_of(cycle)
        if parent is not None:
            self.keep(self.spawn(parent, parent.machine.children()))

    def _parent_of(self, cycle: Cycle) -> Cycle | None:
        """Return the parent that waits for a branch here."""
        parent_id = cycle.machine.state.submitted.parent
        parent = self._cycles.get(parent_id) if parent_id else None
        waits = parent is not None and parent.machine.state.phase is Phase.AWAITING_CHILDREN
        return parent if waits else None

    def _withdrawn(self, parent: RunId) -> ev.CancelRequested:
        """Return what a branch is told when its parent is over."""
        return ev.CancelRequested(by=PrincipalId("driver"), why=f"its parent {parent} ended", at_us=self._now_us())
