"""Suspects: who is kept apart after a process stalled or died and nobody could be named.  Pure.

The runs that worked there are parted in two halves, each in a process of its own; the half that comes to grief again is
parted again, until a run is alone from the start and can be named.  So a hundred runs are searched with two processes
more at each of seven steps, and not with a hundred at once.  What is under suspicion at a time is bounded, for each
tenant and in all; where there is no room the runs stay together, and are parted when the process fails them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from airside.stack.ids import RunId, TenantId

OF_A_TENANT, OF_ALL = 8, 16
"""Groups under suspicion at once: 32 runs, which a tenant has at work by default, make six before one is alone."""

CLEARED_S = 60.0
"""A group that did no harm for so long is no longer suspected; it stays where it is."""


@dataclass(slots=True)
class _Group:
    """Runs that share a process.  `alone` = there was never more than one."""

    tenant: TenantId
    since_s: float
    alone: bool
    runs: set[RunId] = field(default_factory=set)


class Suspects:
    """`mint` makes the name of a group, which no other group ever had."""

    def __init__(self, mint: Callable[[TenantId], str]) -> None:
        self._mint = mint
        self._groups: dict[str, _Group] = {}
        self._of: dict[RunId, str] = {}

    def group(self, run_id: RunId) -> str:
        """Return the name of the group a run is kept in, "" if it is not kept apart."""
        return self._of.get(run_id, "")

    def is_alone(self, run_id: RunId) -> bool:
        """Whether a run is in a group that nobody else was ever in."""
        found = self._of.get(run_id)
        return found is not None and self._groups[found].alone

    def part(self, tenant: TenantId, runs: Sequence[RunId], *, now_s: float) -> RunId | None:
        """Keep the runs of one process apart from each other; return the one that is alone, and so to blame."""
        if len(runs) == 1 and self.is_alone(runs[0]):
            return runs[0]
        middle = (len(runs) + 1) // 2
        halves = [half for half in (runs[:middle], runs[middle:]) if half]
        if self._has_room(tenant, runs, len(halves), now_s):
            for half in halves:
                name = self._mint(tenant)
                for run_id in half:
                    self.forget(run_id)
                    self._of[run_id] = name
                self._groups[name] = _Group(tenant, now_s, len(half) == 1, set(half))
        return None

    def _has_room(self, tenant: TenantId, runs: Sequence[RunId], more: int, now_s: float) -> bool:
        freed = {name for name, group in self._groups.items() if group.runs <= set(runs)}
        kept = [group for name, group in self._groups.items() if name not in freed and not _is_cleared(group, now_s)]
        of_tenant = sum(group.tenant == tenant for group in kept)
        return len(kept) + more <= OF_ALL and of_tenant + more <= OF_A_TENANT

    def forget(self, run_id: RunId) -> None:
        """Take in that a run is over, or in another group."""
        name = self._of.pop(run_id, None)
        if name is not None:
            self._groups[name].runs.discard(run_id)
            if not self._groups[name].runs:
                del self._groups[name]

    def suspected(self, now_s: float) -> int:
        """Return how many groups are under suspicion."""
        return sum(not _is_cleared(group, now_s) for group in self._groups.values())


def _is_cleared(group: _Group, now_s: float) -> bool:
    return now_s - group.since_s > CLEARED_S
