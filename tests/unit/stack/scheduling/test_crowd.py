"""A crowd of runs: one more costs as much beside ten thousand as beside a thousand.  Counted, not timed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from airside.stack.approvals.book import ApprovalBook, ApprovalExpired, ApprovalRequested
from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.ids import ApprovalId, EffectKey, PrincipalId, RunId, TenantId
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.scheduling.deadlines import Deadlines
from airside.stack.scheduling.load import LoadLimit
from airside.stack.scheduling.placement import Placement, PlacementRules
from airside.stack.scheduling.placement_state import PlacementState
from airside.stack.scheduling.watches import Watches
from airside.stack.values import NULL, ApprovalRule
from tests.helpers import identity, spec

FEW, MANY = 1_000, 10_000
TENANT = TenantId("acme")
SECOND = 1_000_000


class Counted(str):
    """An id that counts how often it is compared: what looks through a list in C runs no line of Python."""

    compared = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    def __lt__(self, other: str) -> bool:
        Counted.compared += 1
        return str.__lt__(self, other)

    __hash__ = str.__hash__


def effort(work: Callable[[], object]) -> int:
    """Return how many lines of Python some work runs, and ids it compares."""
    count, compared = 0, Counted.compared

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()  # what it finds may have lines of its own to run
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count + Counted.compared - compared


class Queue:
    """Of a tenant at its cap, and of a cell that is full: everybody waits."""

    def __init__(self) -> None:
        self.queue = AdmissionQueue(lambda tenant: TenantShare(concurrency=4, queue=10**6), 10**6)

    def enter(self, run_id: RunId) -> None:
        """Offer a run, and let begin what may."""
        assert self.queue.offer(TENANT, run_id, now_us=0) is None
        list(self.queue.take())

    def leave(self, run_id: RunId) -> None:
        """Withdraw it; a branch, which never had a place, ends too."""
        self.queue.release(TENANT, run_id)
        self.queue.release(TENANT, RunId(Counted(f"{run_id}.1-1")), cost=3)


class Due:
    """The deadlines of a tenant's runs."""

    def __init__(self) -> None:
        self.deadlines = Deadlines(3600)

    def enter(self, run_id: RunId) -> None:
        """Watch a run, and look for late ones."""
        self.deadlines.watch(run_id, TENANT, SECOND)
        assert self.deadlines.late(SECOND) == []

    def leave(self, run_id: RunId) -> None:
        """Forget it."""
        self.deadlines.forget(run_id)


class Waiters:
    """One batch, which waits for all, asked again and again."""

    def __init__(self) -> None:
        self.watches = Watches("a")
        self.watch = self.watches.begin("batch", 0.0)

    def enter(self, run_id: RunId) -> None:
        """Ask for a run more."""
        self.watches.add(self.watch, [run_id])
        assert self.watch.next_ends() == ({}, self.watch.first)

    def leave(self, run_id: RunId) -> None:
        """Be told of its end."""
        self.watches.ended(run_id, b"{}")
        found, upto = self.watch.next_ends()
        self.watch.arrived(upto)
        assert list(found) == [run_id]


class Book:
    """Approvals, of which each run waits for one."""

    def __init__(self) -> None:
        self.book = ApprovalBook()

    def enter(self, run_id: RunId) -> None:
        """Ask for one, and look for what expires."""
        self.book.apply(requested(run_id))
        assert self.book.due(0) == [] and self.book.waiting > 0

    def leave(self, run_id: RunId) -> None:
        """Have it expire, for its run ends."""
        (waiting,) = self.book.waiting_of(run_id)
        self.book.apply(ApprovalExpired(at_us=1, approval_id=waiting.request.approval_id))
        self.book.run_ended(run_id)


def requested(run_id: RunId) -> ApprovalRequested:
    """Return that a run waits for people."""
    return ApprovalRequested(
        at_us=0,
        approval_id=ApprovalId(Counted(f"apr_{run_id}")),
        tenant=TENANT,
        requester=PrincipalId("ann"),
        run_id=run_id,
        step=1,
        tool="pay",
        tool_version="1",
        policy_version="1",
        rule="r",
        effect="write",
        arguments=NULL,
        binding="",
        terms=ApprovalRule(roles=("boss",)),
        expires_us=3600 * SECOND,
    )


class Budget:
    """The accounts of runs whose tenant has a budget of calls."""

    def __init__(self) -> None:
        self.spending = BudgetReservations(tenants={"acme": [Cap(unit="tool_calls", limit=10**9)]})

    def enter(self, run_id: RunId) -> None:
        """Count a call of a run, and tell what its tenant used."""
        key = EffectKey(Counted(f"{run_id}:1"))
        assert self.spending.reserve(identity(), run_id, key, spec(), now_us=0) is None
        assert self.spending.stats()["tenant/acme"]["tool_calls"] > 0

    def leave(self, run_id: RunId) -> None:
        """Close its account."""
        self.spending.close(run_id)


class Places:
    """Runs that two processes have, and that all wait for people."""

    def __init__(self) -> None:
        rules = PlacementRules(pool_size=2, max_processes=2, idle_s=60.0, lease_s=10.0)
        queue = AdmissionQueue(lambda tenant: TenantShare(), 10**6)
        load, names = LoadLimit(10**6, late_s=1.0), iter(range(10))
        self.placement = Placement(rules, queue, Deadlines(3600), load, mint=lambda: str(next(names)))

    def handle(self, kind: type[on.PlacementEvent], **fields: Any) -> None:
        """Let something happen, and carry out what is to be done."""
        for each in self.placement.handle(kind(at=on.Moment(SECOND, 1.0), **fields)):
            if isinstance(each, do.StartProcess):
                self.handle(on.ProcessStarted, process=each.process)
            elif isinstance(each, do.Claim):
                self.handle(on.Claimed, run_id=each.run_id, epoch=each.epoch, events=each.events)
            elif isinstance(each, do.Activate):
                self.handle(on.Activated, run_id=each.run_id, epoch=each.epoch)

    def enter(self, run_id: RunId) -> None:
        """Admit a run, place it, and have it wait; time goes on."""
        self.handle(on.Submitted, run_id=run_id, tenant=TENANT, admitted_us=SECOND)
        self.handle(on.AdmissionRecorded, run_id=run_id, events=(b"{}",))
        self.handle(on.RunReported, run_id=run_id, epoch=1, standing="parked")
        entry = self.placement.get(run_id)
        assert entry is not None and entry.state is PlacementState.PARKED
        self.handle(on.Ticked)

    def leave(self, run_id: RunId) -> None:
        """Tell it that somebody decided, and have it end."""
        self.handle(on.MessageArrived, number=1, run_id=run_id, event=b"{}")
        self.handle(on.EndReported, run_id=run_id, tenant=TENANT, ended=b"{}", steps=3)


def run(number: int) -> RunId:
    """Return a run's id, another object each time as those that come over the wire are."""
    return RunId(Counted(f"run_{number:024x}"))


@pytest.mark.parametrize("place", [Queue, Due, Waiters, Book, Budget, Places])
def test_a_run_more_costs_as_much_beside_many_as_beside_few(place: Callable[[], Any]) -> None:
    """To take it in, and to let it go, wherever it stands."""
    here, costs = place(), []
    for number in range(MANY):
        if number in (FEW, MANY - 2):
            costs.append(
                [effort(lambda n=number: here.enter(run(n))), effort(lambda n=number - 10: here.leave(run(n)))]
            )
        else:
            here.enter(run(number))
    (few_in, few_out), (many_in, many_out) = costs
    assert many_in <= 1.2 * few_in and many_out <= 1.2 * few_out, costs


def late_at_once(runs: int) -> int:
    """Return the effort of a tick at which so many runs are late that wait for their turn."""
    queue = AdmissionQueue(lambda tenant: TenantShare(concurrency=0, queue=10**6), 10**6)
    rules = PlacementRules(pool_size=0, max_processes=1, idle_s=10.0, lease_s=5.0)
    names = iter(range(10**6))
    placement = Placement(rules, queue, Deadlines(60), LoadLimit(1, late_s=1.0), mint=lambda: str(next(names)))
    for number in range(runs):
        at = on.Moment(0, 0.0)
        placement.handle(on.RunFound(at=at, run_id=run(number), tenant=TENANT, epoch=0, admitted_us=0, events=(b"{}",)))
    assert {entry.state for _, entry in placement.runs()} == {PlacementState.QUEUED}
    tick = on.Ticked(at=on.Moment(61 * SECOND, 61.0))
    found = effort(lambda: placement.handle(tick))
    assert {entry.state for _, entry in placement.runs()} == {PlacementState.TERMINATING}
    return found


def test_each_of_a_queue_that_is_late_at_once_costs_as_much_however_long_it_is() -> None:
    assert late_at_once(2 * FEW) <= 1.2 * 2 * late_at_once(FEW)
