"""Admission: who waits, who runs.  Bounded per tenant, and fair between tenants.

Tenants take turns, one run a turn, so a tenant that floods waits behind its own queue only.  A full queue is a
refusal with the seconds after which trying again makes sense.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from airside.stack.ids import RunId, TenantId
from airside.stack.values import Value

DEFAULT_CONCURRENCY = 32
"""Runs of one tenant at work at once."""

DEFAULT_QUEUE = 10_000
"""Runs of one tenant waiting; beyond it the submitter is told to come back."""


class TenantShare(Value):
    """What admission allows one tenant."""

    concurrency: int = DEFAULT_CONCURRENCY
    queue: int = DEFAULT_QUEUE


class AdmissionQueue:
    """Pure: `offer` on submission, `take` whenever something may start, `release` when a run ends.

    `cell_concurrency` bounds all tenants together.
    """

    def __init__(self, shares: Callable[[TenantId], TenantShare], cell_concurrency: int) -> None:
        self._shares = shares
        self._cell = cell_concurrency
        self._waiting: dict[TenantId, deque[RunId]] = {}
        self._running: dict[TenantId, set[RunId]] = {}
        self._turns: deque[TenantId] = deque()
        self._in_turns: set[TenantId] = set()
        self._running_count = 0

    def offer(self, tenant: TenantId, run_id: RunId) -> float | None:
        """Queue a run; return None, or the seconds to wait before trying again if the queue is full."""
        queue = self._waiting.setdefault(tenant, deque())
        if len(queue) >= self._shares(tenant).queue:
            return max(1.0, len(queue) / max(1, self._shares(tenant).concurrency) * 0.1)
        queue.append(run_id)
        if tenant not in self._in_turns:
            self._in_turns.add(tenant)
            self._turns.append(tenant)
        return None

    def take(self) -> Iterator[tuple[TenantId, RunId]]:
        """Yield the runs that may start now, tenants taking turns; each counts as running from here."""
        idle = 0
        while self._turns and idle < len(self._turns) and self.running < self._cell:
            tenant = self._turns.popleft()
            queue, at_work = self._waiting[tenant], self._running.setdefault(tenant, set())
            if not queue:
                self._in_turns.discard(tenant)
                continue
            if len(at_work) >= self._shares(tenant).concurrency:
                self._turns.append(tenant)
                idle += 1
                continue
            idle = 0
            run_id = queue.popleft()
            at_work.add(run_id)
            self._running_count += 1
            if queue:
                self._turns.append(tenant)
            else:
                self._in_turns.discard(tenant)
            yield tenant, run_id

    def adopt(self, tenant: TenantId, run_id: RunId) -> None:
        """Count a run that is at work already, found after the driver itself was restarted."""
        at_work = self._running.setdefault(tenant, set())
        self._running_count += run_id not in at_work
        at_work.add(run_id)

    def release(self, tenant: TenantId, run_id: RunId) -> None:
        """Give the run's place free, whether it ran or still waited."""
        at_work = self._running.get(tenant, set())
        self._running_count -= run_id in at_work
        at_work.discard(run_id)
        queue = self._waiting.get(tenant)
        if queue and run_id in queue:
            queue.remove(run_id)

    @property
    def running(self) -> int:
        """Runs at work."""
        return self._running_count

    def stats(self) -> dict[str, dict[str, int]]:
        """Return running and waiting per tenant."""
        tenants = sorted(self._waiting.keys() | self._running.keys())
        return {
            t: {"running": len(self._running.get(t, ())), "waiting": len(self._waiting.get(t, ()))} for t in tenants
        }
