"""Admission: who waits, who runs.  Bounded per tenant, and fair between tenants by what their runs cost.

Start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, SIGCOMM 1996): a tenant's next run has a tag, the virtual time
at which its turn is; the smallest tag starts, and moves its tenant's tag on by the run's cost over the tenant's weight.
A run's cost is the governed steps it
takes.  It is not known beforehand, so it is estimated from the tenant's runs before, and the tag is put right when
the run ends: a tenant of long runs gets as many steps as one of short runs, not as many runs.

Of two tenants that always have something waiting, what they started per weight differs by at most the cost per weight
of one run of each, as far as the estimates are right.  A tenant that floods waits behind its own queue only; one that
was idle has saved up nothing.  A run's priority is one among its tenant's.  A full queue, or a submission beyond the
tenant's rate, is a refusal with the seconds after which trying again makes sense.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from airside.stack.ids import RunId, TenantId
from airside.stack.values import Value

DEFAULT_CONCURRENCY = 32
"""Runs of one tenant at work at once."""

DEFAULT_QUEUE = 10_000
"""Runs of one tenant waiting; beyond it the submitter is told to come back."""

FIRST_ESTIMATE = 4.0
"""Steps a run is taken to need before any run of its tenant has ended."""

_LEARNING = 0.2
"""Weight of the newest run in a tenant's estimate: the last ten or so matter."""

_MINUTE_US = 60_000_000


class TenantShare(Value):
    """What admission allows one tenant.  `rate_per_minute` 0: any number of submissions."""

    concurrency: int = DEFAULT_CONCURRENCY
    queue: int = DEFAULT_QUEUE
    weight: Annotated[int, Meta(ge=1, le=1000)] = 1
    rate_per_minute: int = 0


class _Waiting:
    """Runs of one tenant that wait, by their priority, and of one priority in the order in which they came."""

    __slots__ = ("_levels", "_of")

    def __init__(self) -> None:
        self._of: dict[RunId, int] = {}
        self._levels: dict[int, OrderedDict[RunId, None]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[RunId]:
        return (run_id for level in sorted(self._levels, reverse=True) for run_id in self._levels[level])

    def add(self, run_id: RunId, priority: int) -> None:
        self._of[run_id] = priority
        self._levels.setdefault(priority, OrderedDict())[run_id] = None

    def pop_first(self) -> RunId:
        run_id = next(iter(self))
        self.discard(run_id)
        return run_id

    def discard(self, run_id: RunId) -> None:
        priority = self._of.pop(run_id, None)
        if priority is not None:
            del self._levels[priority][run_id]
            if not self._levels[priority]:
                del self._levels[priority]


@dataclass(slots=True)
class _TenantQueue:
    """One tenant's queue.  `tag` = virtual time of its next turn; `burst` = submissions it may make at once."""

    waiting: _Waiting = field(default_factory=_Waiting)
    running: dict[RunId, float] = field(default_factory=dict)
    tag: float = 0.0
    estimate: float = FIRST_ESTIMATE
    burst: float = -1.0
    burst_at_us: int = 0


class AdmissionQueue:
    """Pure: `offer` on submission, `take` whenever something may start, `release` when a run ends.

    `places` bounds all tenants together; it may be changed at any time, and what runs goes on.
    """

    def __init__(self, shares: Callable[[TenantId], TenantShare], places: int) -> None:
        self._shares = shares
        self.places = places
        self._lines: dict[TenantId, _TenantQueue] = {}
        self._turns: list[tuple[float, int, TenantId]] = []
        self._entries = 0
        self._virtual = 0.0
        self._running_count = 0

    def offer(self, tenant: TenantId, run_id: RunId, *, now_us: int, priority: int = 0) -> float | None:
        """Queue a run; return None, or the seconds to wait before trying again if there is no room for it.

        It is before those of its tenant that have a lower `priority`; when the tenant's turn is does not depend on it.
        """
        share, line = self._shares(tenant), self._lines.setdefault(tenant, _TenantQueue())
        if len(line.waiting) >= share.queue:
            return max(1.0, len(line.waiting) / max(1, share.concurrency) * 0.1)
        early_s = _too_early(line, share, now_us)
        if early_s is not None:
            return early_s
        line.waiting.add(run_id, priority)
        if len(line.waiting) == 1:
            line.tag = max(line.tag, self._virtual)  # what it did not use while it was idle is gone
            self._enter(tenant, line)
        return None

    def _enter(self, tenant: TenantId, line: _TenantQueue) -> None:
        self._entries += 1
        heapq.heappush(self._turns, (line.tag, self._entries, tenant))

    def take(self) -> Iterator[tuple[TenantId, RunId]]:
        """Yield the runs that may start now, in the order of their turns; each counts as running from here."""
        while self._turns and self.running < self.places:
            tag, _, tenant = heapq.heappop(self._turns)
            line, share = self._lines[tenant], self._shares(tenant)
            if tag != line.tag or not line.waiting or len(line.running) >= share.concurrency:
                continue  # an entry that no longer holds; `release` enters a tenant at its cap again
            run_id = line.waiting.pop_first()
            line.running[run_id] = line.estimate
            self._running_count += 1
            self._virtual = max(self._virtual, tag)
            line.tag = tag + line.estimate / share.weight
            if line.waiting:
                self._enter(tenant, line)
            yield tenant, run_id

    def adopt(self, tenant: TenantId, run_id: RunId) -> None:
        """Count a run that is at work already, found after the driver itself was restarted."""
        line = self._lines.setdefault(tenant, _TenantQueue())
        self._running_count += run_id not in line.running
        line.running.setdefault(run_id, line.estimate)

    def release(self, tenant: TenantId, run_id: RunId, *, cost: float | None = None) -> None:
        """Give the run's place free, whether it ran or still waited; `cost` = what it took, if it has ended."""
        line = self._lines.get(tenant)
        if line is None:
            return
        if run_id in line.running:
            self._running_count -= 1
            estimated = line.running.pop(run_id)
            if cost is not None:
                line.estimate += _LEARNING * (max(1.0, cost) - line.estimate)
                line.tag = max(0.0, line.tag + (max(1.0, cost) - estimated) / self._shares(tenant).weight)
            if line.waiting:
                self._enter(tenant, line)
        else:
            line.waiting.discard(run_id)

    @property
    def running(self) -> int:
        """Runs at work."""
        return self._running_count

    def stats(self) -> dict[str, dict[str, float]]:
        """Return, per tenant, what runs and waits, and the steps its next run is taken to need."""
        return {
            tenant: {
                "running": len(line.running),
                "waiting": len(line.waiting),
                "estimate": round(line.estimate, 2),
            }
            for tenant, line in sorted(self._lines.items())
        }


def _too_early(line: _TenantQueue, share: TenantShare, now_us: int) -> float | None:
    """Take one submission from the tenant's rate (a bucket of a minute's), or return the seconds until there is one."""
    if share.rate_per_minute <= 0:
        return None
    full = float(share.rate_per_minute)
    if line.burst < 0:
        line.burst = full
    else:
        line.burst = min(full, line.burst + max(0, now_us - line.burst_at_us) / _MINUTE_US * full)
    line.burst_at_us = now_us  # also if the clock went back: what it was ahead by brings nothing, and costs nothing
    if line.burst < 1.0:
        return (1.0 - line.burst) / full * 60.0
    line.burst -= 1.0
    return None
