"""Stalls: tells a loop that one stretch of code holds from one that is merely busy, or that waits for a CPU.  Pure.

What waits for a CPU holds nothing.  The kernel counts for each thread how long it ran and how long it was ready to run
and had to wait: what a machine that has too much to carry lets a process wait is no time that its loop was held.
A loop that is blocked in a system call has neither, so all of its time counts.  A thread that waits for the
interpreter's lock has neither too, though it is whoever has the lock that may wait for a CPU: so the longest wait of
any thread of the process is taken off.  Two bounds hold however many threads wait: a loop is held once its own thread
ran for the whole patience in one stretch, and once it did not wait for `SURE` times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

LATE_BEATS = 3
"""An interval between two samples counts as at most so many: a watcher that was held up, or a machine that stood still,
proves nothing about the time between."""

SURE = 15.0
"""A loop whose own thread did not wait for a CPU for so many times the patience is held, whatever other threads wait
for."""


class Reading(NamedTuple):
    """What a pulse said: turns of the loop, times foreign code gave it back, the run whose code it is in ("": none)."""

    turns: int
    left: int
    inside: str


class Usage(NamedTuple):
    """What the kernel counts of a thread: seconds it ran, and seconds it was ready to run and waited for a CPU."""

    ran_s: float
    waited_s: float


class Waiting:
    """How long threads waited for a CPU since their first sample.

    The kernel counts a wait when it is over.  One that goes on shows as a thread that is ready to run, and whose
    counts stand still.
    """

    def __init__(self) -> None:
        self._first: dict[int, tuple[float, Usage]] = {}
        self._last: dict[int, tuple[float, Usage]] = {}
        self._waited: dict[int, float] = {}

    def sample(self, now_s: float, usages: Mapping[int, Usage], is_ready: Callable[[int], bool]) -> None:
        """Take in what threads have used; `is_ready` is asked only of one whose counts stand still."""
        for thread, usage in usages.items():
            first_s, first = self._first.setdefault(thread, (now_s, usage))
            since_s, last = self._last.get(thread, (now_s, None))
            goes_on_s = now_s - since_s if usage == last and is_ready(thread) else 0.0
            if usage != last:
                self._last[thread] = (now_s, usage)
            self._waited[thread] = max(0.0, min(now_s - first_s, usage.waited_s - first.waited_s + goes_on_s))

    def of(self, thread: int) -> float:
        """Return the seconds one thread waited."""
        return self._waited.get(thread, 0.0)

    def ran_s(self, thread: int) -> float:
        """Return the seconds one thread ran."""
        return self._last[thread][1].ran_s - self._first[thread][1].ran_s if thread in self._last else 0.0

    def longest_s(self) -> float:
        """Return the seconds that the thread waited which waited longest."""
        return max(self._waited.values(), default=0.0)


class StallWatch:
    """Says whether a loop is held; fed by samples, one every `every_s`.

    A loop is held if the same reading was seen for `stall_s`, the time not counted in which it could not run.  Where
    nobody can be named it gets `patience` times as long, for all its runs suffer the kill.  A loop that is `ours` needs
    no name, for nobody is blamed: it gets that only where the code it is in may not be what holds it.
    """

    def __init__(self, *, stall_s: float, every_s: float, patience: float = 3.0, ours: bool = False) -> None:
        self._stall_s = stall_s
        self._longest_s = LATE_BEATS * every_s
        self._patience = patience
        self._ours = ours
        self._seen: Reading | None = None
        self._since_s = self._sampled_s = 0.0
        self._turned_s = 0.0
        self._counted_s = 0.0

    def sample(self, now_s: float, reading: Reading) -> bool:
        """Take in a reading; return whether it is another than the one before."""
        is_other = reading != self._seen
        if self._seen is None or reading.turns != self._seen.turns:
            self._turned_s = now_s
        if is_other:
            self._seen, self._since_s, self._counted_s = reading, now_s, 0.0
        else:
            self._counted_s += self._interval(now_s)
        self._sampled_s = now_s
        return is_other

    def _interval(self, now_s: float) -> float:
        return max(0.0, min(now_s - self._sampled_s, self._longest_s))

    def held_s(self, now_s: float) -> float:
        """Return for how many seconds the reading has been the same."""
        return 0.0 if self._seen is None else now_s - self._since_s

    def turn_age_s(self, now_s: float) -> float:
        """Return for how many seconds the loop has not been seen to turn."""
        return 0.0 if self._seen is None else now_s - self._turned_s

    def counted_s(self, now_s: float) -> float:
        """Return the seconds of them that count: those that somebody watched."""
        return 0.0 if self._seen is None else self._counted_s + self._interval(now_s)

    def stalled(
        self, now_s: float, *, named: bool = True, ran_s: float = 0.0, waited_s: float = 0.0, longest_s: float = 0.0
    ) -> bool:
        """Whether the loop is held; `named` = the run it is in can be blamed for it.

        Of the same seconds, the loop's thread ran `ran_s`, and waited `waited_s` for a CPU; the thread of its process
        that waited longest waited `longest_s`.
        """
        counted_s = self.counted_s(now_s)
        can_tell = named and self._seen is not None and (self._ours or self._seen.inside != "")
        bound_s = self._stall_s * (1.0 if can_tell else self._patience)
        idle_s = counted_s - waited_s
        return ran_s > bound_s or min(idle_s, counted_s - longest_s) > bound_s or idle_s > bound_s * SURE
