"""Sending what is due when it is due: the open loop's only clock.  Nothing that the stack does makes it wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from airside.bench.arrivals import Arrival

GATHER_S = 0.005
"""Between two calls: what becomes due meanwhile goes in one.  It is the least lag that the generator has."""

MOST_AT_ONCE = 500
"""Submissions in one call."""


class Clock(Protocol):
    """Time, and how it passes."""

    def now(self) -> float:
        """Return seconds since whenever."""

    async def sleep(self, seconds: float) -> None:
        """Let them pass."""


class SystemClock:
    """This machine's."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let others run meanwhile."""
        await asyncio.sleep(seconds)


async def pace(arrivals: Iterator[Arrival], send: Callable[[list[Arrival]], bool], clock: Clock) -> None:
    """Hand the arrivals to `send`, in order, each as soon as it is due, those that are due together in one call.

    `send` only begins: it answers at once whether there is to be more.
    """
    began = clock.now()
    following = next(arrivals, None)
    while following is not None:
        await clock.sleep(max(GATHER_S, following.at_s - (clock.now() - began)))
        now_s = clock.now() - began
        due: list[Arrival] = []
        while following is not None and following.at_s <= now_s and len(due) < MOST_AT_ONCE:
            due.append(following)
            following = next(arrivals, None)
        if due and not send(due):
            return
