"""Placement: where every run is, and what is to be done about it.  Pure: time comes in events, names are minted for it.

    QUEUED --its turn--> PLACING --activated--> WORKING <--> PARKED, IN_DOUBT
    PLACING --failed--> LOST --timer--> PLACING
    WORKING, IN_DOUBT --its process died, or gave it up--> PLACING
    PARKED --its process is gone, and a message comes--> PLACING
    any of them --killed, cancelled, late, to blame--> TERMINATING --> ended

`handle(event)` returns instructions; the driver's shell (and the simulator) carries each of them out and says with an
event what became of it.  Rules, which `check` holds:
 1. One thing at a time is under way for a run (`Operation`).  What comes late of an earlier one is known by its epoch,
    or by there being nothing under way that it could answer, and changes nothing.
 2. A run is handed to a process only under an epoch that was claimed for this, durably; what loses its process is
    claimed anew.  So no run is active twice in one epoch, and who works under an older one is fenced by the journal.
 3. A run that waits, waits for something that comes: its turn, an answer that is owed, a timer, a person or the work
    of the process that has it.  `waits_for` names it.
 4. TERMINATING is for ever.  Where a process has the run it is told, and told again; one whose loop the run holds is
    killed.  Once no process has it, it is ended from here.
 5. A run is in the admission queue exactly while it is QUEUED, and is counted as running in every state but QUEUED and
    PARKED, and TERMINATING where it came from these.
 6. A process that was ordered to end gets no run any more.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from airside.stack.errors import InvariantBroken
from airside.stack.ids import RunId, TenantId, root_of
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.scheduling.admission import AdmissionQueue
from airside.stack.scheduling.attribution import Attribution, Culprit
from airside.stack.scheduling.deadlines import Deadlines
from airside.stack.scheduling.load import LoadLimit
from airside.stack.scheduling.placement_state import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Message,
    Operation,
    PlacementState,
    ProcessState,
    RunEntry,
    RuntimeProcess,
)
from airside.stack.scheduling.processes import ProcessTable
from airside.stack.values import Value

STOP_S = 0.3
"""How long a run that was told to end may take before its process is looked at; one that yields takes milliseconds."""

AGAIN_S = 0.05
"""After which a message is sent again to a process that did not answer."""

ENDING_AGAIN_S = 0.1
"""After which a run is ended again that could not be."""

ENDING_AT_ONCE = 16
"""Runs that the driver ends by itself at once, so that a queue whose time is over leaves the journal to others too."""

TERMINATION = 0
"""The number of the message by which a run is told to end: nobody waits for its answer."""

_BY_DRIVER = "driver"
_SETTLED = frozenset(
    {PlacementState.WORKING, PlacementState.PARKED, PlacementState.IN_DOUBT, PlacementState.TERMINATING}
)
_STANDING = {
    "parked": PlacementState.PARKED,
    "in_doubt": PlacementState.IN_DOUBT,
    "working": PlacementState.WORKING,
}


class PlacementRules(Value):
    """What a cell's settings say; `pool_size` 0 = every tenant has a process of its own."""

    pool_size: int
    max_processes: int
    idle_s: float
    lease_s: float


class Placement:
    """`mint` makes a short text that it never made before."""

    def __init__(
        self,
        rules: PlacementRules,
        queue: AdmissionQueue,
        deadlines: Deadlines,
        load: LoadLimit,
        *,
        mint: Callable[[], str],
    ) -> None:
        self.queue = queue
        self.load = load
        self.processes = ProcessTable(rules.max_processes, mint)
        self.killed_runaways = 0
        self._rules = rules
        self._deadlines = deadlines
        self._runs: dict[RunId, RunEntry] = {}
        self.attribution = Attribution(self._runs, mint)
        self._ending: set[RunId] = set()
        self._to_end: OrderedDict[RunId, None] = OrderedDict()
        self._timers = 0
        self._out: do.PlacementInstructions = []
        queue.places = load.limit

    # What others may ask.

    def get(self, run_id: RunId) -> RunEntry | None:
        """Return what is known of a run that has not ended; nobody but this machine writes it."""
        return self._runs.get(run_id)

    def runs(self) -> Iterator[tuple[RunId, RunEntry]]:
        """Yield the runs that have not ended, oldest first."""
        return iter(list(self._runs.items()))

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def waits_for(self, run_id: RunId) -> str:
        """Say what a run waits for, "" if that is nothing that could be named: which is never so."""
        entry = self._runs[run_id]
        if entry.operation is not None:
            return f"{entry.operation} to be answered"
        if entry.state is PlacementState.QUEUED:
            return "its turn"
        if entry.timer:
            return f"timer {entry.timer}"
        if entry.process:
            return f"process {entry.process}"
        if entry.state is PlacementState.PARKED:
            return "a person"
        return "its turn to be ended" if run_id in self._to_end else ""

    def handle(self, event: on.PlacementEvent) -> do.PlacementInstructions:
        """Take in what happened, and return what is to be done."""
        out = self._out = []
        _TABLE[type(event)](self, event)
        self._end_more()
        self._start_processes()
        for _, run_id in self.queue.take():
            self._place(run_id, self._runs[run_id])
            self._start_processes()
        return out

    # Admission, and what a new driver finds.

    def _submitted(self, e: on.Submitted) -> None:
        if e.run_id in self._runs:
            return  # it was submitted before
        wait_s = self.queue.offer(e.tenant, e.run_id, now_us=e.at.at_us, priority=e.priority)
        if wait_s is not None:
            self._out.append(do.Refuse(run_id=e.run_id, retry_after_s=wait_s))
            return
        self._runs[e.run_id] = RunEntry(tenant=e.tenant, operation=Operation.RECORD)
        self._deadlines.watch(e.run_id, e.tenant, e.admitted_us)

    def _admission_recorded(self, e: on.AdmissionRecorded) -> None:
        entry = self._answered(e.run_id, Operation.RECORD)
        if entry is not None:
            entry.events = e.events
            self._carry_on(e.run_id, entry)

    def _admission_failed(self, e: on.AdmissionFailed) -> None:
        if self._answered(e.run_id, Operation.RECORD) is not None:
            self._drop(e.run_id, cost=None)

    def _process_found(self, e: on.ProcessFound) -> None:
        self.processes.find(e.process)

    def _run_found(self, e: on.RunFound) -> None:
        if e.run_id in self._runs:
            return
        # What it asked people for, if it ever began, was told to the driver before this one.
        entry = RunEntry(tenant=e.tenant, epoch=e.epoch, events=e.events, was_parked=e.epoch > 0)
        self._runs[e.run_id] = entry
        self._deadlines.watch(e.run_id, e.tenant, e.admitted_us)
        process = self.processes.get(e.process)
        if process is not None and e.held_epoch >= e.epoch:  # else it was claimed anew already, and is fenced there
            self._assign(e.run_id, entry, process)
            self._stand(e.run_id, entry, _STANDING.get(e.standing, PlacementState.WORKING))
        elif e.epoch > 0 or self._has_no_room(e):
            self._place(e.run_id, entry)

    def _has_no_room(self, e: on.RunFound) -> bool:
        return self.queue.offer(e.tenant, e.run_id, now_us=e.at.at_us, priority=e.priority) is not None

    # Placing.

    def _place(self, run_id: RunId, entry: RunEntry) -> None:
        """Give a run that no process has to one."""
        self.queue.adopt(entry.tenant, run_id)
        self._become(run_id, entry, PlacementState.PLACING)
        entry.timer = 0
        if entry.operation is not None:
            return  # its admission is not durable yet, or its claim not answered: it goes on from there
        process = self.processes.of_group(self._group(run_id, entry.tenant))
        self._assign(run_id, entry, process)
        if process.state is ProcessState.LIVE:
            self._claim(run_id, entry)
        else:
            entry.operation = Operation.START

    def _group(self, run_id: RunId, tenant: TenantId) -> str:
        apart = self.attribution.suspects.group(run_id)
        if apart or not self._rules.pool_size:
            return apart or tenant
        return f"pool-{zlib.crc32(tenant.encode()) % self._rules.pool_size}"

    def _claim(self, run_id: RunId, entry: RunEntry) -> None:
        entry.operation = Operation.CLAIM
        self._out.append(do.Claim(run_id=run_id, tenant=entry.tenant, epoch=entry.epoch + 1, events=entry.events))

    def _claimed(self, e: on.Claimed) -> None:
        entry = self._answered(e.run_id, Operation.CLAIM)
        if entry is None:
            return
        entry.epoch, entry.events, entry.reported = e.epoch, e.events, 0
        process = self.processes.get(entry.process)
        if entry.state is PlacementState.TERMINATING or process is None or process.state is not ProcessState.LIVE:
            self._leave(e.run_id, entry)
            self._carry_on(e.run_id, entry)
            return
        entry.operation = Operation.ACTIVATE
        self._out.append(do.Activate(run_id=e.run_id, process=process.key, epoch=e.epoch, events=e.events))

    def _claim_failed(self, e: on.ClaimFailed) -> None:
        entry = self._answered(e.run_id, Operation.CLAIM)
        if entry is not None:
            entry.events = ()  # somebody may have written to it: it is read again
            self._lose(e.run_id, entry)

    def _activated(self, e: on.Activated) -> None:
        entry = self._runs.get(e.run_id)
        if entry is not None and entry.epoch == e.epoch and self._answered(e.run_id, Operation.ACTIVATE) is not None:
            self._stand(e.run_id, entry, PlacementState.WORKING)

    def _activation_failed(self, e: on.ActivationFailed) -> None:
        entry = self._runs.get(e.run_id)
        if entry is not None and entry.epoch == e.epoch and self._answered(e.run_id, Operation.ACTIVATE) is not None:
            if entry.state is PlacementState.TERMINATING and entry.process:
                # It may have taken the run up all the same, and begin branches: it says so, or it dies.
                self._tell(e.run_id, entry)
                return
            self._lose(e.run_id, entry)
            if e.broken:
                self._end_culprit(self.attribution.run_broke_off(e.run_id), e.at)

    def _stand(self, run_id: RunId, entry: RunEntry, state: PlacementState) -> None:
        """Take in that a process has a run, and how it stands there."""
        entry.events, entry.pause_s = (), FIRST_PAUSE_S
        if entry.state is PlacementState.TERMINATING:
            self._tell(run_id, entry)
            return
        self._become(run_id, entry, state)
        if state is PlacementState.PARKED:
            self.queue.release(entry.tenant, run_id)
        else:
            self.queue.adopt(entry.tenant, run_id)
        self._send_mail(run_id, entry)

    def _lose(self, run_id: RunId, entry: RunEntry) -> None:
        """Take in that placing failed: it is tried again after a pause."""
        self._leave(run_id, entry)
        if entry.state is PlacementState.TERMINATING:
            self._carry_on(run_id, entry)
        else:
            self._become(run_id, entry, PlacementState.LOST)
            self._set_timer(run_id, entry, entry.pause_s)
            entry.pause_s = min(LONGEST_PAUSE_S, entry.pause_s * 2)

    def _carry_on(self, run_id: RunId, entry: RunEntry) -> None:
        """Do what is next for a run that no process has, unless something is under way for it."""
        if entry.operation is not None or entry.process:
            return
        if entry.state is PlacementState.TERMINATING:
            self._end(run_id, entry)
        elif entry.state is PlacementState.PARKED:
            self._send_mail(run_id, entry)
        elif entry.state is not PlacementState.QUEUED:
            self._place(run_id, entry)

    # What runtimes report.

    def _run_reported(self, e: on.RunReported) -> None:
        root = self._runs.get(root_of(e.run_id))
        if root is not None and e.standing == "parked":
            root.was_parked = True
        entry = self._runs.get(e.run_id)
        if entry is None or e.epoch < entry.epoch:
            return  # a branch, or an activation that is over
        if entry.operation not in (None, Operation.ACTIVATE):
            return
        if e.number:
            if e.number <= entry.reported:
                return  # it was sent again, and something else may be so by now
            entry.reported = e.number
        if not entry.process:
            self._take_up_again(e, entry)
            return
        entry.operation = None  # who reports has taken it up
        if e.standing in _STANDING:
            self._stand(e.run_id, entry, _STANDING[e.standing])
            return
        self._leave(e.run_id, entry)
        entry.events = ()
        if e.standing == "broken":
            self._end_culprit(self.attribution.run_broke_off(e.run_id), e.at)
        if entry.state is PlacementState.PARKED:
            self._become(e.run_id, entry, PlacementState.LOST)
        self._carry_on(e.run_id, entry)

    def _take_up_again(self, e: on.RunReported, entry: RunEntry) -> None:
        """Place a run that works in a process which was put down because the run had said that it waits.

        It was brought a message meanwhile.  What it makes of that ends with the process, and nobody sends it again.
        """
        if entry.state is PlacementState.PARKED and e.standing in ("working", "in_doubt"):
            self._place(e.run_id, entry)

    def _end_reported(self, e: on.EndReported) -> None:
        entry = self._drop(e.run_id, cost=e.steps)
        if entry is None:
            self.queue.release(e.tenant, e.run_id, cost=e.steps)
        elif entry.was_parked or (entry.termination is not None and entry.epoch):
            # One that was told to end may have asked people just before, and have ended without saying so.
            self._out.append(do.Withdraw(run_id=e.run_id))
        if e.run_id == root_of(e.run_id):
            self._out.append(do.CloseAccount(run_id=e.run_id))
        self._out.append(do.Finish(run_id=e.run_id, ended=e.ended))

    def _drop(self, run_id: RunId, *, cost: float | None) -> RunEntry | None:
        entry = self._runs.pop(run_id, None)
        self._deadlines.forget(run_id)
        self.attribution.suspects.forget(run_id)
        self._ending.discard(run_id)
        if entry is not None:
            self._leave(run_id, entry)
            self.queue.release(entry.tenant, run_id, cost=cost)
            self._out.extend(do.Answer(number=number) for number in entry.mail or ())
        return entry

    # Messages from outside.

    def _message_arrived(self, e: on.MessageArrived) -> None:
        run_id = root_of(e.run_id)
        entry = self._runs.get(run_id)
        if entry is None:
            self._out.append(do.Answer(number=e.number))
            return
        entry.mail = entry.mail or {}
        entry.mail[e.number] = Message(e.run_id, e.event)
        self._send_mail(run_id, entry)

    def _send_mail(self, run_id: RunId, entry: RunEntry) -> None:
        """Send what was not sent to the process that has the run; what waits for a person in no process is placed."""
        unsent = [(n, message) for n, message in entry.mail.items() if not message.sent_to] if entry.mail else []
        if not unsent or entry.operation is not None or entry.state not in _SETTLED:
            return
        if not entry.process:
            if entry.state is PlacementState.PARKED:
                self._place(run_id, entry)
            return
        for number, message in unsent:
            if entry.state is PlacementState.PARKED and message.run_id == run_id:
                # It works from here; if the event means nothing to it, it says so.
                self._become(run_id, entry, PlacementState.WORKING)
                self.queue.adopt(entry.tenant, run_id)
            message.sent_to = entry.process
            self._deliver(number, message.run_id, entry.process, message.event)

    def _deliver(self, number: int, run_id: RunId, process: str, event: bytes) -> None:
        self._out.append(do.Deliver(number=number, run_id=run_id, process=process, event=event))

    def _message_answered(self, e: on.MessageAnswered) -> None:
        run_id = root_of(e.run_id)
        entry = self._runs.get(run_id)
        if entry is None:
            return
        message = self._message(entry, e.number, e.process)
        if message is not None and entry.process != e.process:
            self._send_mail(run_id, entry)  # what the process makes of it ends with the process
        elif message is not None and (e.present or message.run_id != run_id):
            # A branch that is not there yet asks for its decision when it is.
            assert entry.mail is not None
            del entry.mail[e.number]
            self._out.append(do.Answer(number=e.number))
            if message.run_id == run_id:
                self._believe_later_reports(run_id, entry, e.reports)
        elif not e.present and message is None and e.number != TERMINATION:
            pass  # it was answered before
        elif not e.present and entry.process == e.process and entry.operation is None:
            # It left the process, and its end is on the way; or it is lost.
            self._leave(run_id, entry)
            if entry.state is not PlacementState.TERMINATING:
                self._become(run_id, entry, PlacementState.LOST)
            self._carry_on(run_id, entry)
        else:
            self._send_mail(run_id, entry)

    def _believe_later_reports(self, run_id: RunId, entry: RunEntry, reports: int) -> None:
        """Take a run that was brought a message for working until it says something that it said after it.

        What it was brought may be nowhere but in its process, and nobody sends it again.
        """
        if entry.reported <= reports:
            entry.reported = reports
            if entry.state is PlacementState.PARKED:
                self._become(run_id, entry, PlacementState.WORKING)
                self.queue.adopt(entry.tenant, run_id)

    def _message(self, entry: RunEntry, number: int, process: str) -> Message | None:
        """Return the message that a process answered about, which is not on its way any more."""
        message = entry.mail.get(number) if entry.mail else None
        if message is None or message.sent_to != process:
            return None
        message.sent_to = ""
        return message

    def _message_failed(self, e: on.MessageFailed) -> None:
        run_id = root_of(e.run_id)
        entry = self._runs.get(run_id)
        if entry is None or self._message(entry, e.number, e.process) is None:
            return
        if entry.process != e.process:
            self._send_mail(run_id, entry)
        elif not entry.timer:
            self._set_timer(run_id, entry, AGAIN_S)

    # Ending.

    def _termination_requested(self, e: on.TerminationRequested) -> None:
        entry = self._runs.get(e.run_id)
        if entry is not None:
            self._terminate(e.run_id, entry, e.termination)

    def _request_termination(self, run_id: RunId, why: str, reason: ReasonCode, at: on.Moment) -> None:
        """Have a run end that nobody else has ended yet."""
        entry = self._runs[run_id]
        if entry.termination is None:
            event = ev.KillRequested(by=_BY_DRIVER, why=why, reason_code=reason, at_us=at.at_us)
            self._terminate(run_id, entry, event)

    def _terminate(self, run_id: RunId, entry: RunEntry, termination: on.Termination) -> None:
        entry.termination = termination
        if entry.state is PlacementState.QUEUED:
            self.queue.release(entry.tenant, run_id)
        self._become(run_id, entry, PlacementState.TERMINATING)
        entry.timer = 0
        if entry.operation is Operation.START:
            entry.operation = None
            self._leave(run_id, entry)
        if entry.process and entry.operation in (None, Operation.ACTIVATE):
            self._tell(run_id, entry)
        else:
            self._carry_on(run_id, entry)

    def _tell(self, run_id: RunId, entry: RunEntry) -> None:
        assert entry.termination is not None
        entry.is_acknowledged = True
        self._deliver(TERMINATION, run_id, entry.process, ev.encode_event(entry.termination))
        self._set_timer(run_id, entry, STOP_S)
        self._send_mail(run_id, entry)

    def _tell_again(self, run_id: RunId, entry: RunEntry) -> None:
        """See a run to its end that was told: its process is looked at, then it is told once more."""
        if entry.is_acknowledged:
            entry.is_acknowledged = False
            self._out.append(do.InspectProcess(process=entry.process, run_id=run_id))
            self._set_timer(run_id, entry, self._rules.lease_s)
        else:
            self._tell(run_id, entry)

    def _process_inspected(self, e: on.ProcessInspected) -> None:
        entry = self._runs.get(e.run_id)
        if e.holds and entry is not None and entry.process == e.process and entry.termination is not None:
            self._kill(e.process)

    def _end(self, run_id: RunId, entry: RunEntry) -> None:
        assert entry.termination is not None
        entry.timer = 0
        if entry.termination.by == _BY_DRIVER and len(self._ending) >= ENDING_AT_ONCE:
            self._to_end[run_id] = None
            return
        entry.operation = Operation.END
        if entry.termination.by == _BY_DRIVER:
            self._ending.add(run_id)
        self._out.append(
            do.EndRun(
                run_id=run_id,
                tenant=entry.tenant,
                termination=entry.termination,
                events=entry.events,
                begun=entry.epoch > 0 or not entry.events,
            )
        )

    def _end_more(self) -> None:
        while self._to_end and len(self._ending) < ENDING_AT_ONCE:
            run_id, _ = self._to_end.popitem(last=False)
            entry = self._runs.get(run_id)
            if entry is not None:
                self._carry_on(run_id, entry)

    def _ending_failed(self, e: on.EndingFailed) -> None:
        entry = self._answered(e.run_id, Operation.END)
        if entry is not None:
            self._ending.discard(e.run_id)
            entry.events = ()
            self._set_timer(e.run_id, entry, ENDING_AGAIN_S)

    # Processes.

    def _start_processes(self) -> None:
        while (process := self.processes.start_next()) is not None:
            self._out.append(do.StartProcess(process=process.key))
        if self.processes.lacks_room:
            for process in self.processes.live():
                if self.processes.lacks_room and not self._is_busy(process):
                    self._put_down(process)

    def _is_busy(self, process: RuntimeProcess) -> bool:
        return any(self._runs[run_id].state is not PlacementState.PARKED for run_id in process.runs)

    def _put_down(self, process: RuntimeProcess) -> None:
        self.processes.leave(process)
        for run_id in list(process.runs):
            self._leave(run_id, self._runs[run_id])
        self._out.append(do.PutDownProcess(process=process.key))

    def _process_started(self, e: on.ProcessStarted) -> None:
        process = self.processes.get(e.process)
        if process is None:
            self._out.append(do.KillProcess(process=e.process))  # nobody would watch it
            return
        process.state = ProcessState.LIVE
        for run_id in process.runs:
            self._claim(run_id, self._runs[run_id])

    def _process_failed(self, e: on.ProcessFailed) -> None:
        process = self.processes.forget(e.process)
        for run_id in list(process.runs) if process is not None else ():
            entry = self._runs[run_id]
            entry.operation = None
            self._lose(run_id, entry)

    def _kill(self, key: str) -> None:
        process = self.processes.get(key)
        if process is not None and process.state is ProcessState.LIVE:
            self.processes.leave(process)
            self._out.append(do.KillProcess(process=key))

    def _process_died(self, e: on.ProcessDied) -> None:
        process = self.processes.forget(e.process)
        if process is None:
            return
        here = list(process.runs)
        working = self._working_at(process)
        for run_id in here:
            entry = self._runs[run_id]
            self._leave(run_id, entry)
            if entry.operation is not Operation.CLAIM:
                entry.operation = None
        if not e.excused and process.state is not ProcessState.LEAVING:
            self._end_culprit(self.attribution.process_died(working, now_s=e.at.boot_s), e.at)
        for run_id in here:
            entry = self._runs[run_id]
            if entry.state in (PlacementState.WORKING, PlacementState.IN_DOUBT):
                entry.events = ()
            self._carry_on(run_id, entry)

    # Who is to blame.

    def _process_stalled(self, e: on.ProcessStalled) -> None:
        """Have the run end that holds a loop, and its process."""
        process = self.processes.get(e.process)
        if process is None or process.state is not ProcessState.LIVE:
            return
        working, named = self._working_at(process), root_of(RunId(e.run_id))
        culprit = self.attribution.process_stalled(working, named, held_s=e.held_s, where=e.where, now_s=e.at.boot_s)
        self._end_culprit(culprit, e.at, ran_away=True)
        self._kill(e.process)

    def _working_at(self, process: RuntimeProcess) -> list[RunId]:
        """Return the runs that may have done something there: those that were handed over, and wait for nobody."""
        handed = (None, Operation.ACTIVATE)
        entries = ((run_id, self._runs[run_id]) for run_id in process.runs)
        return [run for run, e in entries if e.state is not PlacementState.PARKED and e.operation in handed]

    def _layer_stalled(self, e: on.LayerStalled) -> None:
        culprit = self.attribution.layer_stalled(root_of(RunId(e.run_id)), e.layer, held_s=e.held_s, where=e.where)
        self._end_culprit(culprit, e.at, ran_away=True)

    def _end_culprit(self, culprit: Culprit | None, at: on.Moment, *, ran_away: bool = False) -> None:
        if culprit is not None:
            self.killed_runaways += ran_away
            self._request_termination(culprit.run_id, culprit.why, ReasonCode.KILLED_RUNAWAY, at)

    # Time.

    def _ticked(self, e: on.Ticked) -> None:
        for late in self._deadlines.late(e.at.at_us):
            if late.run_id in self._runs:
                self._request_termination(late.run_id, str(late.deadline), ReasonCode.DEADLINE_EXCEEDED, e.at)
        for process in self.processes.live():
            if self._rules.pool_size or self._is_busy(process):
                process.idle_since_s = None
            elif process.idle_since_s is None:
                process.idle_since_s = e.at.boot_s
            elif e.at.boot_s - process.idle_since_s > self._rules.idle_s:
                self._put_down(process)

    def _lateness_measured(self, e: on.LatenessMeasured) -> None:
        if self.load.heard(e.at.boot_s, e.late_s, self.queue.running):
            self.queue.places = self.load.limit

    def _timer_due(self, e: on.TimerDue) -> None:
        entry = self._runs.get(e.run_id)
        if entry is None or entry.timer != e.number:
            return
        entry.timer = 0
        if entry.state is PlacementState.TERMINATING and entry.process:
            self._tell_again(e.run_id, entry)
        elif entry.state in (PlacementState.TERMINATING, PlacementState.LOST):
            self._carry_on(e.run_id, entry)
        else:
            self._send_mail(e.run_id, entry)

    def _set_timer(self, run_id: RunId, entry: RunEntry, seconds: float) -> None:
        self._timers += 1
        entry.timer = self._timers
        self._out.append(do.SetTimer(run_id=run_id, number=entry.timer, seconds=seconds))

    # The only places where a run's state, process and operation are set.

    def _become(self, run_id: RunId, entry: RunEntry, state: PlacementState) -> None:
        if entry.state is PlacementState.TERMINATING and state is not entry.state:
            raise InvariantBroken(f"{run_id} is to end, and cannot be {state}: report this")
        entry.state = state

    def _assign(self, run_id: RunId, entry: RunEntry, process: RuntimeProcess) -> None:
        self._leave(run_id, entry)
        entry.process = process.key
        process.runs[run_id] = None

    def _leave(self, run_id: RunId, entry: RunEntry) -> None:
        process = self.processes.get(entry.process)
        if process is not None:
            process.runs.pop(run_id, None)
        entry.process = ""

    def _answered(self, run_id: RunId, operation: Operation) -> RunEntry | None:
        """Return the run whose operation came to an end, None if it is not under way (any more)."""
        entry = self._runs.get(run_id)
        if entry is None or entry.operation is not operation:
            return None
        entry.operation = None
        return entry

    def check(self) -> None:
        """Raise `InvariantBroken` if a rule does not hold."""
        for run_id, entry in self._runs.items():
            problem = self._problem(run_id, entry)
            if problem:
                raise InvariantBroken(f"{run_id}: {problem}: {entry}")
        if len(self._ending) > ENDING_AT_ONCE:
            raise InvariantBroken(f"{len(self._ending)} runs are being ended at once")
        for process in self.processes:
            for run_id in process.runs:
                if run_id not in self._runs or self._runs[run_id].process != process.key:
                    raise InvariantBroken(f"process {process.key} has {run_id}, which is elsewhere")

    def _problem(self, run_id: RunId, entry: RunEntry) -> str:
        process = self.processes.get(entry.process)
        settled = entry.state in (PlacementState.WORKING, PlacementState.IN_DOUBT)
        if not self.waits_for(run_id):
            return "it waits for nothing"
        if (entry.state is PlacementState.TERMINATING) is not (entry.termination is not None):
            return "what is terminating has a reason, and nothing else has"
        if settled and (process is None or entry.operation is not None):
            return "what works has a process, and nothing is under way"
        if entry.process and (process is None or run_id not in process.runs):
            return f"process {entry.process} is not known, or does not have it"
        if entry.state is PlacementState.PLACING and entry.operation is None:
            return "what is being placed has something under way"
        if entry.state is PlacementState.LOST and not entry.timer:
            return "what is lost has a timer"
        if entry.operation is Operation.START and (process is None or process.state is ProcessState.LIVE):
            return "it waits for a process that is up"
        return ""


_TABLE: dict[type[on.PlacementEvent], Callable[[Placement, Any], None]] = {
    on.Submitted: Placement._submitted,
    on.AdmissionRecorded: Placement._admission_recorded,
    on.AdmissionFailed: Placement._admission_failed,
    on.ProcessFound: Placement._process_found,
    on.RunFound: Placement._run_found,
    on.ProcessStarted: Placement._process_started,
    on.ProcessFailed: Placement._process_failed,
    on.ProcessDied: Placement._process_died,
    on.ProcessStalled: Placement._process_stalled,
    on.ProcessInspected: Placement._process_inspected,
    on.LayerStalled: Placement._layer_stalled,
    on.LatenessMeasured: Placement._lateness_measured,
    on.Claimed: Placement._claimed,
    on.ClaimFailed: Placement._claim_failed,
    on.Activated: Placement._activated,
    on.ActivationFailed: Placement._activation_failed,
    on.EndingFailed: Placement._ending_failed,
    on.MessageArrived: Placement._message_arrived,
    on.MessageAnswered: Placement._message_answered,
    on.MessageFailed: Placement._message_failed,
    on.TimerDue: Placement._timer_due,
    on.Ticked: Placement._ticked,
    on.RunReported: Placement._run_reported,
    on.EndReported: Placement._end_reported,
    on.TerminationRequested: Placement._termination_requested,
}
