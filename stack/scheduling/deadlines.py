"""Deadlines of a tenant and of all tenants: the longest a run may take, by the wall clock, whatever it is doing.

They count from the admission, which is the run's first event in the journal: what waits in the queue, for people, or
for somebody to settle a doubt is in it, for whoever asked waits all the while, and what was asked long ago may no
longer be wanted.  So a run that never began ends by it too, and no restart begins it anew.  It is the operator's
ceiling over all that `Limits` count, which is active time only; the smaller of the tenant's and that of all holds.
A branch has none of its own, for it ends with its root.  The clock is the Driver's (`stack.scheduling.clocks`): one
that is set forward for good brings every deadline nearer, one that was wrong for a moment none.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from airside.stack.ids import RunId, TenantId

_STALE = 64
"""Entries of ended runs the heap may hold beside as many as are live, so that a small one is not made anew often."""

_SECOND_US = 1_000_000


class RunDeadline(NamedTuple):
    """Whose deadline it is (None: that of all tenants), and how long."""

    tenant: TenantId | None
    seconds: int

    def __str__(self) -> str:
        whose = "all tenants" if self.tenant is None else f"tenant {self.tenant}"
        return f"the deadline of {whose}, {self.seconds} s from the admission, is over"


class OverdueRun(NamedTuple):
    """A run that is past its deadline."""

    run_id: RunId
    deadline: RunDeadline


class Deadlines:
    """Pure: `watch` at the admission, `forget` at the end, `late` whenever somebody looks.

    A look costs what is late, not what is watched; watching costs a place in a heap, forgetting nothing but its share
    of making the heap anew when more than half of it is of runs that have ended.
    """

    def __init__(self, everyone: int | None = None, tenants: Mapping[str, int] | None = None) -> None:
        self._everyone = None if everyone is None else RunDeadline(None, everyone)
        self._tenants = {
            TenantId(name): RunDeadline(TenantId(name), seconds) for name, seconds in (tenants or {}).items()
        }
        self._due: dict[RunId, tuple[int, RunDeadline]] = {}
        self._heap: list[tuple[int, RunId]] = []

    def of(self, tenant: TenantId) -> RunDeadline | None:
        """Return the deadline that holds for a tenant's runs, if there is one."""
        both = [deadline for deadline in (self._tenants.get(tenant), self._everyone) if deadline is not None]
        return min(both, key=lambda deadline: deadline.seconds, default=None)

    def watch(self, run_id: RunId, tenant: TenantId, admitted_us: int) -> None:
        """Watch a run that was admitted then; nothing is kept of one that has no deadline."""
        deadline = self.of(tenant)
        if deadline is not None:
            due_us = admitted_us + deadline.seconds * _SECOND_US
            self._due[run_id] = (due_us, deadline)
            heapq.heappush(self._heap, (due_us, run_id))

    def forget(self, run_id: RunId) -> None:
        """Take in that a run has ended, watched or not."""
        if self._due.pop(run_id, None) is not None and len(self._heap) > 2 * len(self._due) + _STALE:
            self._heap = [(due_us, run) for run, (due_us, _) in self._due.items()]
            heapq.heapify(self._heap)

    def late(self, now_us: int) -> list[OverdueRun]:
        """Return the runs whose time is over, the one longest over first; each is returned once."""
        found = []
        while self._heap and self._heap[0][0] <= now_us:
            due_us, run_id = heapq.heappop(self._heap)
            due = self._due.get(run_id)
            if due is not None and due[0] == due_us:
                del self._due[run_id]
                found.append(OverdueRun(run_id, due[1]))
        return found

    def __len__(self) -> int:
        return len(self._due)
