"""Clocks: the time of day as windows and deadlines may believe it.

The machine's clock is set by others: ahead by an hour, and back when somebody notices.  What counts by it must not be
put wrong for good by a moment of that.  So the time of day here goes on with a clock that nobody sets, from where it
was, and follows the machine's only where that stays different for a while; and a step back that is followed costs who
keeps windows one of them at most (`stack.budget.ledger`).
"""

from __future__ import annotations

from collections.abc import Callable

STEP_US = 1_000_000
"""A difference below this is a clock being slewed, and is followed at once."""

STABLE_US = 60_000_000
"""A step is followed when it has lasted this long: a clock that is wrong for less moves nothing."""


class SteadyClock:
    """UTC microseconds by `wall_us`, carried on by `running_us`, which nobody sets; called like a function.

    `on_step` is told, once a step, by how many microseconds the machine's clock was set.
    """

    def __init__(
        self, wall_us: Callable[[], int], running_us: Callable[[], int], on_step: Callable[[int], None]
    ) -> None:
        self._wall_us = wall_us
        self._running_us = running_us
        self._on_step = on_step
        self._offset_us = wall_us() - running_us()
        self._stepped: tuple[int, int] | None = None

    def __call__(self) -> int:
        """Return the time of day."""
        running = self._running_us()
        offset = self._wall_us() - running
        if abs(offset - self._offset_us) < STEP_US:
            # Never back for it: who reads two times wants them in order.
            self._offset_us, self._stepped = max(self._offset_us, offset), None
        elif self._stepped is None or abs(offset - self._stepped[0]) >= STEP_US:
            self._stepped = offset, running
            self._on_step(offset - self._offset_us)
        elif running - self._stepped[1] >= STABLE_US:
            self._offset_us, self._stepped = offset, None
        return running + self._offset_us
