"""An event loop with a manual clock: time moves only when nothing is left to do now, and then to the next timer."""

from __future__ import annotations

import asyncio
import math
from typing import Any

EPOCH_US = 1_700_000_000_000_000
"""When every simulation begins, in UTC microseconds."""


class Deadlock(Exception):
    """Nothing is ready and no timer is set."""


class ManualLoop(asyncio.BaseEventLoop):
    """No sockets, no threads, no waiting.  It is its own selector."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_us = 0
        self._selector = self

    def time(self) -> float:
        """Return the seconds since the simulation began."""
        return self.elapsed_us / 1e6

    def now_us(self) -> int:
        """Return the time as everything under test is given it."""
        return EPOCH_US + self.elapsed_us

    def select(self, timeout: float | None) -> list[Any]:
        """Advance the clock instead of waiting."""
        if timeout is None:
            raise Deadlock
        if timeout > 0:
            self.elapsed_us += max(1, math.ceil(timeout * 1e6 - 1e-3))
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There is no input or output."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""
