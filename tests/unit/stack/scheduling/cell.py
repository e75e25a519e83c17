"""A cell around `Placement`, reduced to what matters to it: a journal of epochs and ends, and processes that hold runs.

Nothing happens by itself: instructions wait in `todo` until they are carried out, well or badly, in any order.
"""

from __future__ import annotations

from typing import Any

from airside.stack.ids import PrincipalId, RunId, TenantId, root_of
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run import events as ev
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.scheduling.deadlines import Deadlines
from airside.stack.scheduling.load import LoadLimit
from airside.stack.scheduling.placement import Placement, PlacementRules
from airside.stack.scheduling.placement_state import PlacementState, ProcessState
from airside.stack.values import Outcome, Usage

ENDED = ev.encode_event(
    ev.RunEnded(
        at_us=1, outcome=Outcome(status=RunStatus.COMPLETED, reason_code=ReasonCode.COMPLETED), usage=Usage(), cause=0
    )
)
KILL = ev.KillRequested(at_us=1, by=PrincipalId("op"), why="x")
CONCURRENCY = 3
HAPPENED = ev.encode_event(ev.CancelRequested(at_us=1, by=PrincipalId("someone")))
"""What a message brings: no matter what."""


class Cell:
    """`pool_size` 0 = dedicated."""

    def __init__(
        self,
        pool_size: int = 0,
        *,
        deadline_s: int | None = None,
        places: int = 4,
        most: int = 2,
        concurrency: int = CONCURRENCY,
        queue: int = 100,
    ) -> None:
        self.share = TenantShare(concurrency=concurrency, queue=queue)
        self.rules = PlacementRules(pool_size=pool_size, max_processes=most, idle_s=10.0, lease_s=5.0)
        self.deadline_s = deadline_s
        self.places = places
        self.now_s = 0.0
        self.names = 0
        self.admitted: dict[RunId, TenantId] = {}
        self.epochs: dict[RunId, int] = {}
        self.ended: set[RunId] = set()
        self.live: dict[str, dict[RunId, int]] = {}
        self.parked: set[RunId] = set()
        self.handed: dict[tuple[RunId, int], str] = {}
        self.told: list[RunId] = []
        self.sent: set[int] = set()
        self.answered: set[int] = set()
        self.messages = 0
        self.reports = 0
        self.todo: list[do.PlacementInstruction] = []
        self.owed: list[on.PlacementEvent] = []
        self.boot()

    def boot(self) -> None:
        """Start a driver: it finds what is unfinished and which processes live; what the last one had begun is void."""
        queue = AdmissionQueue(lambda tenant: self.share, self.places)
        load = LoadLimit(self.places, late_s=1.0)
        self.placement = Placement(self.rules, queue, Deadlines(self.deadline_s), load, mint=self.mint)
        self.todo, self.owed, self.sent = [], [], set()
        for key in self.live:
            self.handle(on.ProcessFound(at=self.at(), process=key))
        for run_id, tenant in self.admitted.items():
            if run_id not in self.ended:
                where = sorted((runs[run_id], key) for key, runs in self.live.items() if run_id in runs)
                held_epoch, process = where[-1] if where else (0, "")
                self.handle(
                    on.RunFound(
                        at=self.at(),
                        run_id=run_id,
                        tenant=tenant,
                        epoch=self.epochs[run_id],
                        admitted_us=0,
                        process=process,
                        held_epoch=held_epoch,
                        standing="parked" if run_id in self.parked else "working",
                    )
                )

    def mint(self) -> str:
        """Return a name that was never given."""
        self.names += 1
        return f"{self.names}"

    def at(self) -> on.Moment:
        """Return the present moment."""
        return on.Moment(int(self.now_s * 1e6), self.now_s)

    def handle(self, event: on.PlacementEvent) -> None:
        """Bring an event in, and check everything that may be checked at any time."""
        self.todo += self.placement.handle(event)
        self.placement.check()
        running = [p for p in self.placement.processes if p.state is not ProcessState.WAITING]
        assert len(running) <= max(self.rules.max_processes, len(self.live)), "never more processes than there may be"
        for instruction in self.todo:
            if isinstance(instruction, do.Answer):
                assert instruction.number in self.sent and instruction.number not in self.answered, "answered once"
                self.answered.add(instruction.number)
            elif isinstance(instruction, do.Finish):
                assert instruction.run_id in self.ended, "nobody is told of an end that is not durable"
                assert instruction.run_id not in self.placement
        gone = (do.Answer, do.Finish, do.Withdraw, do.CloseAccount, do.Refuse)
        self.todo = [i for i in self.todo if not isinstance(i, gone)]

    # What may happen.

    def submit(self, tenant: str) -> RunId | None:
        """Submit a run; return it, or None if it was refused."""
        run_id = RunId(f"run_{len(self.admitted):032x}")
        before = len(self.placement)
        self.handle(on.Submitted(at=self.at(), run_id=run_id, tenant=TenantId(tenant), admitted_us=self.at().at_us))
        if len(self.placement) == before:
            return None
        self.admitted[run_id], self.epochs[run_id] = TenantId(tenant), 0
        self.owed.append(on.AdmissionRecorded(at=self.at(), run_id=run_id, events=(b"submitted",)))
        return run_id

    def carry_out(self, index: int = 0, *, well: bool = True, answered: bool = True) -> None:
        """Carry an instruction out; where it is not `answered`, it had its effect and is answered as if it failed."""
        instruction = self.todo.pop(index)
        event = _CARRY[type(instruction)](self, instruction, well, answered)
        if event is not None:
            self.owed.append(event)

    def hear(self, index: int = 0) -> None:
        """Have the driver hear of something that happened."""
        self.handle(self.owed.pop(index))

    def _start(self, i: do.StartProcess, well: bool, answered: bool) -> on.PlacementEvent:
        if not (well and answered):
            return on.ProcessFailed(at=self.at(), process=i.process)
        self.live[i.process] = {}
        return on.ProcessStarted(at=self.at(), process=i.process)

    def _kill(self, i: do.KillProcess | do.PutDownProcess, well: bool, answered: bool) -> on.PlacementEvent:
        self.live.pop(i.process, None)
        return on.ProcessDied(at=self.at(), process=i.process, excused=isinstance(i, do.PutDownProcess))

    def _inspect(self, i: do.InspectProcess, well: bool, answered: bool) -> on.PlacementEvent:
        return on.ProcessInspected(at=self.at(), process=i.process, run_id=i.run_id, holds=not well)

    def _claim(self, i: do.Claim, well: bool, answered: bool) -> on.PlacementEvent:
        epoch = self.epochs[i.run_id] + 1 if not i.events else i.epoch
        if i.run_id in self.ended:
            return self._end_of(i.run_id) if not i.events else on.ClaimFailed(at=self.at(), run_id=i.run_id)
        if not well or epoch <= self.epochs[i.run_id]:
            return on.ClaimFailed(at=self.at(), run_id=i.run_id)
        self.epochs[i.run_id] = epoch
        if not answered:
            return on.ClaimFailed(at=self.at(), run_id=i.run_id)
        return on.Claimed(at=self.at(), run_id=i.run_id, epoch=epoch, events=(b"submitted", b"activated"))

    def _activate(self, i: do.Activate, well: bool, answered: bool) -> on.PlacementEvent:
        where = self.handed.setdefault((i.run_id, i.epoch), i.process)
        assert where == i.process, "a run is handed to one process in one epoch"
        assert i.epoch <= self.epochs[i.run_id], "and only when that epoch is durable"
        failed = on.ActivationFailed(at=self.at(), run_id=i.run_id, epoch=i.epoch, broken=not well and answered)
        if i.process not in self.live or not well:
            return failed
        runs = self.live[i.process]
        if i.epoch > runs.get(i.run_id, 0):
            runs[i.run_id] = i.epoch
            self.parked.discard(i.run_id)
        return on.Activated(at=self.at(), run_id=i.run_id, epoch=i.epoch) if answered else failed

    def _deliver(self, i: do.Deliver, well: bool, answered: bool) -> on.PlacementEvent:
        if i.process not in self.live or not well:
            return on.MessageFailed(at=self.at(), number=i.number, run_id=i.run_id, process=i.process)
        run_id = root_of(i.run_id)
        present, reports = run_id in self.live[i.process], self.reports
        if self.works(run_id, i.process):
            if run_id in self.parked and i.run_id == run_id:
                self.report(run_id, i.process, "working")
            if i.number == 0:
                self.told.append(run_id)
        elif present and i.number == 0:
            del self.live[i.process][run_id]  # an older activation: it is fenced as it ends, and let go
        if not answered:
            return on.MessageFailed(at=self.at(), number=i.number, run_id=i.run_id, process=i.process)
        return on.MessageAnswered(
            at=self.at(), number=i.number, run_id=i.run_id, process=i.process, present=present, reports=reports
        )

    def _end(self, i: do.EndRun, well: bool, answered: bool) -> on.PlacementEvent:
        if not well:
            return on.EndingFailed(at=self.at(), run_id=i.run_id)
        self.epochs[i.run_id] += i.run_id not in self.ended
        self.ended.add(i.run_id)
        return self._end_of(i.run_id) if answered else on.EndingFailed(at=self.at(), run_id=i.run_id)

    def _timer(self, i: do.SetTimer, well: bool, answered: bool) -> on.PlacementEvent:
        return on.TimerDue(at=self.at(), run_id=i.run_id, number=i.number)

    def _end_of(self, run_id: RunId) -> on.EndReported:
        return on.EndReported(at=self.at(), run_id=run_id, tenant=self.admitted[run_id], ended=ENDED, steps=1)

    def works(self, run_id: RunId, process: str) -> bool:
        """Whether a process has a run under the epoch that may write."""
        return self.live.get(process, {}).get(run_id) == self.epochs[run_id] and run_id not in self.ended

    def at_work(self) -> list[tuple[RunId, str]]:
        """Return the runs that may go on, and where."""
        return [(run, key) for key, runs in self.live.items() for run in runs if self.works(run, key)]

    def end(self, run_id: RunId, process: str) -> None:
        """Have a run end where it works."""
        self.ended.add(run_id)
        del self.live[process][run_id]
        self.owed.append(self._end_of(run_id))

    def report(self, run_id: RunId, process: str, standing: on.Standing) -> None:
        """Have a process say how a run stands; one that is given up while it waits for a person, waits still."""
        epoch = self.live[process][run_id]
        if standing in ("lost", "broken"):
            del self.live[process][run_id]
        elif standing == "parked":
            self.parked.add(run_id)
        else:
            self.parked.discard(run_id)
        self.reports += 1
        self.owed.append(
            on.RunReported(at=self.at(), run_id=run_id, epoch=epoch, standing=standing, number=self.reports)
        )

    def die(self, process: str, *, excused: bool) -> None:
        """Have a process die of itself."""
        del self.live[process]
        self.owed.append(on.ProcessDied(at=self.at(), process=process, excused=excused))

    def send(self, run_id: RunId) -> None:
        """Send a run a message."""
        self.messages += 1
        self.sent.add(self.messages)
        self.handle(on.MessageArrived(at=self.at(), number=self.messages, run_id=run_id, event=HAPPENED))

    def kill(self, run_id: RunId) -> None:
        """Order a run's end."""
        self.handle(on.TerminationRequested(at=self.at(), run_id=run_id, termination=KILL))

    def settle(self, *, ends: bool) -> None:
        """Let everything that is under way come well to its end; `ends` = the runs that work end as well."""
        for _ in range(10_000):
            if self.told:
                self.obey(self.told.pop())
            elif self.owed:
                self.hear()
            elif self.todo:
                self.carry_out()
            elif ends and (working := [w for w in self.at_work() if w[0] not in self.parked]):
                self.end(*working[0])
            else:
                return
        raise AssertionError("it goes round in a circle")

    def settle_one(self) -> None:
        """Let one thing go on, in order."""
        if self.owed:
            self.hear()
        else:
            self.carry_out()

    def obey(self, run_id: RunId) -> None:
        """Have a run end that was told to."""
        for run, process in self.at_work():
            if run == run_id:
                self.end(run, process)

    def states(self) -> dict[RunId, PlacementState]:
        """Return where the runs are."""
        return {run_id: entry.state for run_id, entry in self.placement.runs()}


_CARRY: dict[type[do.PlacementInstruction], Any] = {
    do.StartProcess: Cell._start,
    do.KillProcess: Cell._kill,
    do.PutDownProcess: Cell._kill,
    do.InspectProcess: Cell._inspect,
    do.Claim: Cell._claim,
    do.Activate: Cell._activate,
    do.Deliver: Cell._deliver,
    do.EndRun: Cell._end,
    do.SetTimer: Cell._timer,
}
