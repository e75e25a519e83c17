"""Load: how many runs may be at work at once, from how late the processes are.  Pure.

A machine that has too much to carry is late with everything, with what keeps its processes alive too; taking on more
then feeds itself.  So the number of runs at work follows what is carried, as TCP's window does (V. Jacobson, SIGCOMM
1988): it doubles while there is no sign of trouble, is halved at one, and then grows by little steps.  Being busy is
no trouble: only being late is.
"""

from __future__ import annotations

FIRST = 256
"""Runs at work at once before anything is known of the machines."""

LEAST = 8
"""Never fewer: what is late for another reason must not stop the cell."""

HALVED_S = 5.0
"""Between two halvings, and before it grows again: a machine needs some time to show what fewer runs are to it."""

GROWTH = 0.05
"""By how much it grows in a second."""


class LoadLimit:
    """`late_s` is how late the latest process may be before it is trouble."""

    def __init__(self, most: int, *, late_s: float) -> None:
        self._most = most
        self._late_s = late_s
        self._limit = float(min(most, FIRST))
        self._grown_s: float | None = None
        self._halved_s: float | None = None
        self.halvings = 0

    @property
    def limit(self) -> int:
        """Runs that may be at work at once."""
        return int(self._limit)

    def heard(self, now_s: float, late_s: float, running: int) -> bool:
        """Take in how late the latest process was while so many runs were at work; return whether the limit changed."""
        before = self.limit
        since_s = now_s - (self._grown_s if self._grown_s is not None else now_s)
        self._grown_s = now_s
        if late_s > self._late_s:
            if self._halved_s is None or now_s - self._halved_s >= HALVED_S:
                # What was allowed and not used had no part in it.
                self._limit = max(min(LEAST, self._most), min(self._limit, running) / 2)
                self._halved_s = now_s
                self.halvings += 1
        elif running >= self.limit and (self._halved_s is None or now_s - self._halved_s >= HALVED_S):
            # Only what is used up shows that more could be carried.
            rate = 1.0 if self._halved_s is None else GROWTH
            self._limit = min(float(self._most), self._limit + max(1.0, self._limit * rate) * min(since_s, 1.0))
        return self.limit != before
