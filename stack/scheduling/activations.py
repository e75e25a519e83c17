"""`Activations`: the runs that one process has, and the branches they wait for.  Pure: time comes in events.

    a run:     WORKING <--> PARKED, IN_DOUBT
               WORKING --it has ended, and branches are left--> ENDING
               any of them --ended, given up, fenced--> not here
    a branch   READING --> CLAIMING --> HERE --> ENDED
    of a run:  READING --it has ended--> ENDED
               CLAIMING --somebody else was faster--> PAUSED --timer--> READING
               HERE --fenced--> READING

A branch is a run of its own, in its parent's process, claimed by it and not by the driver, which knows roots alone.
`handle(event)` returns instructions; `RunHost` carries each of them out and says with an event what became of it.
Rules, some of which `check` holds:
 1. A branch is its parent's to see to an end: whatever becomes of a claim, or of another process's, it is looked at
    again until it is here or has ended.  Its end is told to its parent once.
 2. A branch begins here only while the activation that claimed it waits for it.  A claim that comes later is left to
    whoever comes next: its parent's next activation, or who ends what an ended run left.
 3. Who cannot go on is given up where it stands, and reported; a branch takes the parent that waits for it with it.
    What it has below goes on: the next activation finds it here, or fences it.
 4. Who was fenced takes what it has below along, and reports nothing: somebody else sees to it.
 5. A run's end is reported when its branches have ended: once the driver has heard of it, nobody comes back for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airside.stack.errors import InvariantBroken, LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId, branch_of, child_run
from airside.stack.run.events import CancelRequested, ChildEnded, Event, RunEnded, RunSuspended
from airside.stack.run.instructions import SpawnChildren
from airside.stack.scheduling import activation_events as on
from airside.stack.scheduling import activation_instructions as do
from airside.stack.scheduling.placement_events import RunStanding, Standing

AGAIN_S = 0.05
"""After which a branch is looked at again whose claim somebody else was faster with."""


class ActivationState(StrEnum):
    """Where an activation is."""

    WORKING = "working"
    """Its cycle works, or it waits for its branches."""

    PARKED = "parked"
    IN_DOUBT = "in_doubt"
    ENDING = "ending"
    """It has ended, and its branches are being ended; nobody finds it here any more."""


class BranchState(StrEnum):
    """Where a branch is that a run waits for."""

    READING = "reading"
    CLAIMING = "claiming"
    PAUSED = "paused"
    """Somebody else wrote to it: a process that is dying, perhaps, which will not see it to its end."""

    HERE = "here"
    ENDED = "ended"
    """Its parent was told so."""


def withdrawal(parent: RunId, at_us: int) -> CancelRequested:
    """Return what a branch is told when its parent is over."""
    return CancelRequested(by=PrincipalId("driver"), why=f"its parent {parent} ended", at_us=at_us)


_STANDING: dict[ActivationState, Standing] = {
    ActivationState.WORKING: "working",
    ActivationState.PARKED: "parked",
    ActivationState.IN_DOUBT: "in_doubt",
}


@dataclass(slots=True)
class ActivationEntry:
    """A run that is here; `branches` are those of the fan-out it waits for, `spawn` is what they are to do."""

    run_id: RunId
    tenant: TenantId
    epoch: int
    parent: RunId | None
    state: ActivationState = ActivationState.WORKING
    spawn: SpawnChildren | None = None
    branches: dict[RunId, BranchState] = field(default_factory=dict)
    ended: RunEnded | None = None
    is_clearing: bool = False

    @property
    def standing(self) -> Standing:
        """How it stands, as was reported or is known to the driver anyway."""
        return _STANDING[self.state]


class Activations:
    """The runs of one process."""

    def __init__(self) -> None:
        self.reports = 0
        """How many reports there were: each is known to be later than those with a smaller number."""

        self._runs: dict[RunId, ActivationEntry] = {}
        self._out: do.ActivationInstructions = []

    def get(self, run_id: RunId) -> ActivationEntry | None:
        """Return a run that is here, and has not ended."""
        entry = self._runs.get(run_id)
        return None if entry is None or entry.state is ActivationState.ENDING else entry

    def __iter__(self) -> Iterator[ActivationEntry]:
        return (entry for entry in list(self._runs.values()) if entry.state is not ActivationState.ENDING)

    def handle(self, event: on.ActivationEvent) -> do.ActivationInstructions:
        """Take in what happened, and return what is to be done."""
        out = self._out = []
        entry = self._runs.get(event.run_id)
        if isinstance(event, on.RunTakenUp):
            self._taken_up(event, entry)
        elif entry is not None and entry.epoch == event.epoch:
            _TABLE[type(event)](self, entry, event)
        return out

    # One activation.

    def _taken_up(self, e: on.RunTakenUp, present: ActivationEntry | None) -> None:
        if present is not None:
            self._drop(present)
        self._runs[e.run_id] = ActivationEntry(e.run_id, e.tenant, e.epoch, e.parent)

    def _message_brought(self, entry: ActivationEntry, e: on.MessageBrought) -> None:
        if entry.state is ActivationState.ENDING:
            return
        if entry.state is not ActivationState.WORKING:
            entry.state = ActivationState.WORKING
            self._report(entry, "working")
        self._post(entry, e.message)

    def _put_down(self, entry: ActivationEntry, e: on.PutDownRequested) -> None:
        if entry.state is not ActivationState.ENDING:
            self._post(entry, RunSuspended(why="the runtime is put down", at_us=e.at_us))

    def _post(self, entry: ActivationEntry, event: Event) -> None:
        self._out.append(do.Post(run_id=entry.run_id, epoch=entry.epoch, event=event))

    def _rested(self, entry: ActivationEntry, e: on.RunRested) -> None:
        entry.state = ActivationState(e.standing)
        if e.standing != "working":  # else it waits for its branches, which the driver knows nothing of
            self._report(entry, e.standing)

    def _concluded(self, entry: ActivationEntry, e: on.RunConcluded) -> None:
        entry.state, entry.ended = ActivationState.ENDING, e.ended
        self._out.append(do.Drop(run_id=entry.run_id, epoch=entry.epoch))
        parent = self._waiting_for(entry.run_id, entry.parent)
        if parent is not None:
            self._tell(parent, entry.run_id, e.ended, e.at_us)
        if not e.open_branches:
            self._finish(entry)
            return
        for branch in e.open_branches:
            self._cancel(branch, entry.run_id, e.at_us)
            entry.branches.setdefault(branch, BranchState.HERE)
        self._clear(entry)

    def _cancel(self, branch: RunId, parent: RunId, at_us: int) -> None:
        child = self.get(branch)
        if child is not None:
            message = withdrawal(parent, at_us)
            self._message_brought(
                child, on.MessageBrought(run_id=branch, epoch=child.epoch, at_us=at_us, message=message)
            )

    def _clear(self, entry: ActivationEntry) -> None:
        """End what is left of an ended run's branches, once none of them is here or about to be claimed."""
        if not self._is_occupied(entry) and not entry.is_clearing:
            entry.is_clearing = True
            self._out.append(do.EndBranches(run_id=entry.run_id, epoch=entry.epoch))

    def _is_occupied(self, entry: ActivationEntry) -> bool:
        """Whether a branch of a run is here, perhaps as one that is ending too, or is about to be claimed."""
        return any(branch in self._runs or s is BranchState.CLAIMING for branch, s in entry.branches.items())

    def _branches_ended(self, entry: ActivationEntry, e: on.BranchesEnded) -> None:
        self._finish(entry)

    def _finish(self, entry: ActivationEntry) -> None:
        self._report(entry, "ended", entry.ended)
        self._remove(entry)

    def _given_up(self, entry: ActivationEntry, e: on.RunGivenUp) -> None:
        """Give an activation up; the driver takes the root up again from what is durable."""
        self._drop(entry, e.error)
        self._report(entry, "lost" if e.error is None or isinstance(e.error, LayerUnavailable) else "broken")
        parent = self._waiting_for(entry.run_id, entry.parent)
        self._remove(entry)
        if parent is not None:
            self._given_up(parent, e)

    def _fenced(self, entry: ActivationEntry, e: on.RunFenced) -> None:
        self._let_go(entry, e.branches)
        parent = self._waiting_for(entry.run_id, entry.parent)
        if parent is not None:  # it is its parent's to finish here, unless that is somebody else's as well
            self._read(parent, (entry.run_id,), is_contended=True)

    def _let_go(self, entry: ActivationEntry, branches: Iterable[RunId]) -> None:
        """Forget a run that somebody else has, and what it has below: that is claimed anew, or ended already."""
        self._drop(entry)
        for branch in branches:
            child = self._runs.get(branch)
            if child is not None:
                self._let_go(child, tuple(child.branches))
        self._remove(entry)

    def _drop(self, entry: ActivationEntry, error: Exception | None = None) -> None:
        self._out.append(do.Drop(run_id=entry.run_id, epoch=entry.epoch, error=error))

    def _remove(self, entry: ActivationEntry) -> None:
        del self._runs[entry.run_id]
        above = self._runs.get(entry.parent) if entry.parent is not None else None
        if above is not None and above.state is ActivationState.ENDING:
            self._clear(above)

    def _report(self, entry: ActivationEntry, standing: RunStanding, ended: RunEnded | None = None) -> None:
        self.reports += 1
        self._out.append(
            do.Report(
                run_id=entry.run_id,
                epoch=entry.epoch,
                tenant=entry.tenant,
                standing=standing,
                number=self.reports,
                ended=ended,
            )
        )

    # The branches a run waits for.

    def _wanted(self, entry: ActivationEntry, e: on.BranchesWanted) -> None:
        """See to every branch; those that are here already (their parent was taken up anew) stay as they are."""
        entry.spawn, entry.branches = e.spawn, {}
        unread: list[RunId] = []
        for number in range(len(e.spawn.branches)):
            branch = child_run(entry.run_id, e.spawn.step, number)
            entry.branches[branch] = BranchState.HERE
            if number in e.known:
                entry.branches[branch] = BranchState.ENDED
            elif branch not in self._runs:
                unread.append(branch)
        self._read(entry, tuple(unread))

    def _read(self, entry: ActivationEntry, branches: tuple[RunId, ...], *, is_contended: bool = False) -> None:
        entry.branches.update(dict.fromkeys(branches, BranchState.READING))
        if branches:
            self._out.append(
                do.ReadBranches(run_id=entry.run_id, epoch=entry.epoch, branches=branches, is_contended=is_contended)
            )

    def _branches_read(self, entry: ActivationEntry, e: on.BranchesRead) -> None:
        if entry.state is ActivationState.ENDING:
            return
        if e.parent_epoch > entry.epoch:
            branches = tuple(entry.branches)
            self._fenced(entry, on.RunFenced(run_id=e.run_id, epoch=e.epoch, at_us=e.at_us, branches=branches))
            return
        for branch, events in e.found.items():
            if not self._is(entry, branch, BranchState.READING):
                continue
            if events and isinstance(events[-1], RunEnded):
                self._tell(entry, branch, events[-1], e.at_us)
                continue
            assert entry.spawn is not None
            entry.branches[branch] = BranchState.CLAIMING
            self._out.append(
                do.ClaimBranch(
                    run_id=entry.run_id,
                    epoch=entry.epoch,
                    branch=branch,
                    number=branch_of(branch),
                    spawn=entry.spawn,
                    events=events,
                )
            )

    def _tell(self, entry: ActivationEntry, branch: RunId, ended: RunEnded, at_us: int) -> None:
        """Tell a run of a branch's end."""
        assert entry.spawn is not None
        entry.branches[branch] = BranchState.ENDED
        event = ChildEnded(
            step=entry.spawn.step,
            branch=branch_of(branch),
            run_id=branch,
            outcome=ended.outcome,
            usage=ended.usage,
            at_us=at_us,
        )
        self._post(entry, event)

    def _branch_claimed(self, entry: ActivationEntry, e: on.BranchClaimed) -> None:
        if self._settle(entry, e.branch, BranchState.HERE):
            self._out.append(do.TakeUp(run_id=entry.run_id, epoch=entry.epoch, branch=e.branch, events=e.events))

    def _claim_lost(self, entry: ActivationEntry, e: on.ClaimLost) -> None:
        if self._settle(entry, e.branch, BranchState.PAUSED):
            self._out.append(do.LookAgain(run_id=entry.run_id, epoch=entry.epoch, branch=e.branch, seconds=AGAIN_S))

    def _settle(self, entry: ActivationEntry, branch: RunId, state: BranchState) -> bool:
        """Take in how a claim came out; False if its run has ended meanwhile, which ends the branch, too."""
        if not self._is(entry, branch, BranchState.CLAIMING):
            return False
        entry.branches[branch] = state
        if entry.state is ActivationState.ENDING:
            self._clear(entry)
            return False
        return True

    def _branch_due(self, entry: ActivationEntry, e: on.BranchDue) -> None:
        if self._is(entry, e.branch, BranchState.PAUSED) and entry.state is not ActivationState.ENDING:
            self._read(entry, (e.branch,), is_contended=True)

    def _is(self, entry: ActivationEntry, branch: RunId, state: BranchState) -> bool:
        return entry.branches.get(branch) is state

    def _waiting_for(self, branch: RunId, parent: RunId | None) -> ActivationEntry | None:
        """Return the run that waits for a branch here."""
        entry = self.get(parent) if parent is not None else None
        return entry if entry is not None and self._is(entry, branch, BranchState.HERE) else None

    def check(self) -> None:
        """Raise `InvariantBroken` if a rule does not hold."""
        for run_id, entry in self._runs.items():
            ending = entry.state is ActivationState.ENDING
            if ending is not (entry.ended is not None):
                raise InvariantBroken(f"{run_id}: what is ending has ended, and nothing else has: {entry}")
            if ending and not entry.is_clearing and not self._is_occupied(entry):
                raise InvariantBroken(f"{run_id}: it has ended, and waits for nothing: {entry}")
            for branch, state in entry.branches.items():
                if state is BranchState.HERE and branch not in self._runs and not ending:
                    raise InvariantBroken(f"{run_id}: {branch} is not here, and nobody looks for it: {entry}")


_TABLE: dict[type[on.ActivationEvent], Callable[[Activations, ActivationEntry, Any], None]] = {
    on.MessageBrought: Activations._message_brought,
    on.PutDownRequested: Activations._put_down,
    on.RunRested: Activations._rested,
    on.RunConcluded: Activations._concluded,
    on.RunGivenUp: Activations._given_up,
    on.RunFenced: Activations._fenced,
    on.BranchesWanted: Activations._wanted,
    on.BranchesRead: Activations._branches_read,
    on.BranchClaimed: Activations._branch_claimed,
    on.ClaimLost: Activations._claim_lost,
    on.BranchDue: Activations._branch_due,
    on.BranchesEnded: Activations._branches_ended,
}
