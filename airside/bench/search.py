"""Finding what a stack carries: first its ceiling in a closed loop, then the capacity below it in an open one.

A rate that is guessed too high fills every percentile with its own backlog.  So it is measured first how much gets
through with ever more runs in flight, each of which is replaced when it ends; that cannot be overrun.  No rate above is
tried, and the highest below it that meets the objectives is found by bisection.
"""

from __future__ import annotations

import math

FIRST_IN_FLIGHT, MOST_IN_FLIGHT = 8, 2_048

GAIN = 1.05
"""A level that carries less than this times the best one before has brought nothing."""

TOLERANCE = 0.05
"""Of the upper bound: how near to each other the bounds come, which takes five probes or a few more."""

LEAST = 0.02
"""Of the ceiling: if that does not pass either, nothing does."""


class Climb:
    """The closed loop: twice as many in flight, until two levels in a row bring nothing."""

    def __init__(self) -> None:
        self._level = FIRST_IN_FLIGHT
        self._flat = 0
        self.ceiling = 0.0

    def next_level(self) -> int | None:
        """Return how many runs are to be in flight next; None once the ceiling is found."""
        return self._level if self._flat < 2 and self._level <= MOST_IN_FLIGHT else None

    def note(self, runs_per_s: float) -> None:
        """Take in what the level carried."""
        self._flat = 0 if runs_per_s >= GAIN * self.ceiling else self._flat + 1
        self.ceiling = max(self.ceiling, runs_per_s)
        self._level *= 2


class Bisection:
    """The open loop: the highest rate that passes, between none and the ceiling.  The ceiling itself is not tried."""

    def __init__(self, ceiling: float) -> None:
        self._high = ceiling
        self._least = LEAST * ceiling
        self.capacity = 0.0

    def next_rate(self) -> float | None:
        """Return the rate to try next; None once the bounds are near enough."""
        if self._high - self.capacity <= TOLERANCE * self._high or self._high <= self._least:
            return None
        return (self.capacity + self._high) / 2

    def note(self, rate: float, *, passed: bool) -> None:
        """Take in whether a rate passed."""
        if passed:
            self.capacity = rate
        else:
            self._high = rate


def grows(open_halfway: int, open_at_end: int, arrived: int) -> bool:
    """Whether more runs are left open than chance explains, of those that arrived in the second half of a probe.

    A rate that is a little too high shows in a short probe's queue before it shows in its percentiles.  What is open at
    two times are two counts, whose difference varies by about the square root of their sum; three times that, and two
    percent of what arrived, are let pass.
    """
    return open_at_end - open_halfway > 0.02 * arrived + 3 * math.sqrt(open_halfway + open_at_end)
