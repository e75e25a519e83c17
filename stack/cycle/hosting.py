"""`RunHost`: the mailbox of `Activations`, which decides what becomes of one process's runs and their branches.

It has their cycles and the tasks these go on in, carries each instruction out, and says with an event what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from airside.stack.cycle.claiming import latest_epoch
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.termination import termination_append
from airside.stack.errors import Fenced, InternalError, LayerUnavailable
from airside.stack.ids import RunId, TenantId, branch_of, child_run
from airside.stack.journal.stream import append_of, read_stream
from airside.stack.ports import Journal
from airside.stack.run import events as ev
from airside.stack.run.instructions import Instructions, SpawnChildren
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.scheduling import activation_events as on
from airside.stack.scheduling import activation_instructions as do
from airside.stack.scheduling.activations import Activations, withdrawal
from airside.stack.scheduling.placement_events import RunStanding, Standing
from airside.stack.values import Request

AGAIN_S = 0.05
REPORT_AGAIN_S = 1.0
"""After which a report is sent again that the driver did not take for as long as one waits for it."""

_WAITS: dict[Phase, Standing] = {Phase.AWAITING_APPROVAL: "parked", Phase.IN_DOUBT: "in_doubt"}


class Held(NamedTuple):
    """A run that is here, under which epoch, and how it stands."""

    run_id: RunId
    epoch: int
    standing: Standing


class StandingListener(Protocol):
    """Who hears how a run stands."""

    async def __call__(
        self, run_id: RunId, tenant: TenantId, epoch: int, standing: RunStanding, ended: bytes = b"", number: int = 0
    ) -> None:
        """Take it in; `ended` is the run's `RunEnded`, `number` grows with each report.

        Raises `LayerUnavailable` if that is not known to be taken in: then it is sent again.
        """


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
        journal: Journal,
        *,
        make: Callable[[RunMachine, int], Cycle],
        share: Callable[[ev.RunSubmitted], ev.RunSubmitted],
        tell: StandingListener,
        log: ErrorListener,
        now_us: Callable[[], int],
        mint: Callable[[], str],
    ) -> None:
        self.activations = Activations()
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

        self._others: set[asyncio.Task[Any]] = set()
        self._reports: dict[RunId, asyncio.Task[None]] = {}
        """The last report of each run that the driver has not heard yet."""

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
        return [Held(entry.run_id, entry.epoch, entry.standing) for entry in self.activations]

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
        submitted, last = machine.state.submitted, events[-1]
        present = self._cycles.get(submitted.run_id)
        if present is not None and isinstance(last, ev.RunActivated) and present.machine.state.epoch >= last.epoch:
            return present
        instructions = machine.handle(last)
        cycle = self._make(machine, len(events))
        self._happened(on.RunTakenUp(**self._of(cycle), tenant=submitted.identity.tenant, parent=submitted.parent))
        self._cycles[submitted.run_id] = cycle
        self._start(cycle, instructions)
        return cycle

    def refuse(self, run_id: RunId, epoch: int) -> None:
        """Tell the driver that a run cannot be taken up here, nor anywhere else."""
        self._report(do.Report(run_id=run_id, epoch=epoch, tenant=TenantId(""), standing="broken", number=0))

    def bring(self, run_id: RunId, event: ev.Event) -> int | None:
        """Bring an event in from outside; return how many reports there were before it, None if the run is not here."""
        cycle, reports = self._cycles.get(run_id), self.activations.reports
        if cycle is None:
            return None
        self._happened(on.MessageBrought(**self._of(cycle), message=event))
        return reports

    async def spawn(self, parent: Cycle, spawn: SpawnChildren) -> None:
        """Start the branches that have not run yet; those that ended already are answered from the journal."""
        known = frozenset(parent.machine.state.children)
        self._happened(on.BranchesWanted(**self._of(parent), spawn=spawn, known=known))

    def keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task beside the runs."""
        task = asyncio.ensure_future(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)
        return task

    async def drain(self) -> int:
        """Put parked runs down in good order, so that the process can go; return how many still work.

        The driver has them here no more; but should another one have begun meanwhile, it hears that they are gone.
        """
        for cycle in self.cycles():
            if cycle.machine.state.phase is Phase.AWAITING_APPROVAL:
                self._happened(on.PutDownRequested(**self._of(cycle)))
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for cycle in [c for c in self.cycles() if c.machine.state.phase is Phase.SUSPENDED]:
            await cycle.log.durable()
            self._happened(on.RunGivenUp(**self._of(cycle)))
        await asyncio.gather(*self._reports.values())
        return len(self)

    def _happened(self, event: on.ActivationEvent) -> None:
        """Take in what happened to an activation, and carry out what follows."""
        for instruction in self.activations.handle(event):
            _CARRY[type(instruction)](self, instruction)

    def _of(self, activation: Cycle | do.ActivationInstruction) -> dict[str, Any]:
        """Return to which activation something happens now."""
        return {"run_id": activation.run_id, "epoch": activation.epoch, "at_us": self._now_us()}

    # One activation.

    def _start(self, cycle: Cycle, instructions: Instructions) -> None:
        self._tasks[cycle.run_id] = asyncio.create_task(self._guard(cycle, instructions), name=cycle.run_id)

    async def _guard(self, cycle: Cycle, instructions: Instructions) -> None:
        """The one exit of every stretch of an activation: say how the run stands."""
        machine = cycle.machine
        try:
            await cycle.advance(instructions)
        except Fenced:
            self._happened(on.RunFenced(**self._of(cycle), branches=tuple(_branches_of(machine))))
        except Exception as error:
            self._happened(on.RunGivenUp(**self._of(cycle), error=error))
        else:
            ended = machine.events[-1]
            if isinstance(ended, ev.RunEnded):
                known = machine.state.children
                branches = tuple(branch for branch in _branches_of(machine) if branch_of(branch) not in known)
                self._happened(on.RunConcluded(**self._of(cycle), ended=ended, open_branches=branches))
            elif self._cycles.get(cycle.run_id) is cycle:
                del self._tasks[cycle.run_id]  # nobody holds a task for a run that waits
                self._time_doubt(cycle)
                self._happened(on.RunRested(**self._of(cycle), standing=_WAITS.get(machine.state.phase, "working")))

    def _time_doubt(self, cycle: Cycle) -> None:
        if cycle.machine.state.phase is not Phase.IN_DOUBT:
            return
        step, seconds = cycle.machine.state.step, cycle.machine.limits.doubt_wait_s

        async def expire() -> None:
            await asyncio.sleep(seconds)
            expired = ev.InDoubtExpired(step=step, at_us=self._now_us())
            self._happened(on.MessageBrought(**self._of(cycle), message=expired))

        self.keep(expire())

    def _post(self, i: do.Post) -> None:
        cycle = self._cycles[i.run_id]
        cycle.post(i.event)
        if i.run_id not in self._tasks:
            self._start(cycle, [])

    def _drop(self, i: do.Drop) -> None:
        cycle, task = self._cycles.pop(i.run_id, None), self._tasks.pop(i.run_id, None)
        if cycle is not None:
            cycle.log.leave()
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if i.error is not None:
            self._log(i.run_id, i.error)

    def _report(self, i: do.Report) -> None:
        self._reports[i.run_id] = self.keep(self._send(i))

    async def _send(self, i: do.Report) -> None:
        """Send a report until the driver has taken it in, or a later one of the run is on its way."""
        this, ended = asyncio.current_task(), ev.encode_event(i.ended) if i.ended is not None else b""
        try:
            while self._reports.get(i.run_id) is this:
                try:
                    await self._tell(i.run_id, i.tenant, i.epoch, i.standing, ended, i.number)
                    return
                except LayerUnavailable:
                    await asyncio.sleep(REPORT_AGAIN_S)
        finally:
            if self._reports.get(i.run_id) is this:
                del self._reports[i.run_id]

    # Branches.

    async def _answer(self, i: do.ActivationInstruction, work: Awaitable[on.ActivationEvent]) -> None:
        """Say what came of an instruction; if a layer is gone, the run is given up, and taken up again later."""
        try:
            event = await work
        except Exception as error:
            event = on.RunGivenUp(**self._of(i), error=error)
        self._happened(event)

    def _read_branches(self, i: do.ReadBranches) -> None:
        async def read() -> on.ActivationEvent:
            streams = [*i.branches, i.run_id] if i.is_contended else i.branches
            bodies = await self._journal.bodies(streams)
            found = {run: tuple(ev.decode_event(body) for body in bodies[run]) for run in streams}
            parent_epoch = latest_epoch(found.pop(i.run_id, ()))
            return on.BranchesRead(**self._of(i), found=found, parent_epoch=parent_epoch)

        self.keep(self._answer(i, read()))

    def _claim_branch(self, i: do.ClaimBranch) -> None:
        """Make a branch's admission and activation durable under an epoch of its own."""
        fresh: list[ev.Event] = [] if i.events else [self._child_submitted(self._cycles[i.run_id].machine, i)]
        epoch = latest_epoch(i.events) + 1
        fresh.append(ev.RunActivated(epoch=epoch, claim=self._mint(), at_us=self._now_us()))
        tenant = self._cycles[i.run_id].machine.state.submitted.identity.tenant
        append = append_of(tenant, i.branch, fresh, first_seq=len(i.events), epoch=epoch)

        async def claim() -> on.ActivationEvent:
            reply = await self._journal.append(append)
            if reply.verdict in ("fenced", "gap"):
                return on.ClaimLost(**self._of(i), branch=i.branch)
            if reply.verdict != "ok":  # it never can be: its parent is not to wait for it for ever
                raise InternalError(f"{i.branch}: the journal answered {reply.verdict}: {reply.detail}")
            return on.BranchClaimed(**self._of(i), branch=i.branch, events=(*i.events, *fresh))

        self.keep(self._answer(i, claim()))

    def _child_submitted(self, parent: RunMachine, i: do.ClaimBranch) -> ev.RunSubmitted:
        above, wanted = parent.state.submitted, i.spawn.branches[i.number]
        request = Request(
            text=wanted.text,
            inputs=above.request.inputs if bytes(wanted.inputs) == b"null" else wanted.inputs,
            route=wanted.route,
            labels=tuple(sorted(parent.state.labels)),
            job_id=above.request.job_id,
            request_id=above.request.request_id,
            lane=above.request.lane,
        )
        return ev.RunSubmitted(
            run_id=i.branch,
            identity=above.identity,
            sealed=above.sealed,
            request=request,
            limits=i.spawn.limits,
            app_version=above.app_version,
            parent=i.run_id,
            depth=above.depth + 1,
            asked=above.asked or above.request,
            shown=parent.state.shown,
            at_us=self._now_us(),
        )

    def _take_up(self, i: do.TakeUp) -> None:
        try:
            self.activate(i.events)
        except Exception as error:
            self._happened(on.RunGivenUp(**self._of(i), error=error))

    def _end_branches(self, i: do.EndBranches) -> None:
        """End the branches that a crash left unfinished, or that are elsewhere."""

        async def end() -> on.ActivationEvent:
            while below := await self._journal.unfinished_below(i.run_id):
                is_refused = False
                for run_id in below:
                    bodies = await read_stream(self._journal, run_id)
                    append = termination_append(bodies, withdrawal(i.run_id, self._now_us()), self._mint())
                    if append is None:
                        continue
                    reply = await self._journal.append(append)
                    if reply.verdict == "error":
                        raise InternalError(f"{run_id}: the journal answered error: {reply.detail}")
                    is_refused |= reply.verdict != "ok"
                if is_refused:  # somebody else writes there: it is looked at again, and not without a pause
                    await asyncio.sleep(AGAIN_S)
            return on.BranchesEnded(**self._of(i))

        self.keep(self._answer(i, end()))

    def _look_again(self, i: do.LookAgain) -> None:
        async def look() -> on.ActivationEvent:
            await asyncio.sleep(i.seconds)
            return on.BranchDue(**self._of(i), branch=i.branch)

        self.keep(self._answer(i, look()))


def _branches_of(machine: RunMachine) -> Iterator[RunId]:
    """Yield the branches of the fan-out that a run waits for, or did at last."""
    s = machine.state
    count = len(s.fan_out.branches) if s.fan_out is not None else 0
    return (child_run(s.submitted.run_id, s.step, number) for number in range(count))


_CARRY: dict[type[do.ActivationInstruction], Callable[[RunHost, Any], None]] = {
    do.Post: RunHost._post,
    do.Drop: RunHost._drop,
    do.Report: RunHost._report,
    do.ReadBranches: RunHost._read_branches,
    do.ClaimBranch: RunHost._claim_branch,
    do.TakeUp: RunHost._take_up,
    do.EndBranches: RunHost._end_branches,
    do.LookAgain: RunHost._look_again,
}
