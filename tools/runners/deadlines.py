"""`Deadlines`: until when calls may take, by one timer for all of them.

Nearly every call is over long before its deadline, and a timer for each is made and cancelled in vain.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from airside.stack.flag import Flag


class Deadline:
    """A block's end: cancels the task that is in it, and makes of that a `TimeoutError`, as `asyncio.timeout` does.

    It is `over` when the block was left.
    """

    __slots__ = ("_cancelling", "_deadlines", "_is_expired", "_latest_s", "_task", "at_s", "over", "waited_s")

    def __init__(self, deadlines: Deadlines, at_s: float, latest_s: float) -> None:
        self._deadlines = deadlines
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._is_expired = False
        self._latest_s = latest_s
        self.at_s = at_s
        """By the loop's clock."""
        self.waited_s = 0.0
        """How long it was paused."""
        self.over = Flag()

    def expired(self) -> bool:
        """Whether its time was over before the block was left."""
        return self._is_expired

    def reschedule(self, at_s: float) -> None:
        """Have it end at another time."""
        self.at_s = at_s
        self._deadlines.watch(self)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let no time pass within the block, but until the latest that the deadline may be at all."""
        time = asyncio.get_running_loop().time
        began_s, left_s = time(), self.at_s - time()
        if left_s <= 0:
            yield  # it was brought forward
            return
        self.reschedule(max(self.at_s, self._latest_s))
        try:
            yield
        finally:
            self.waited_s += time() - began_s
            self.reschedule(min(self.at_s, time() + left_s))

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._deadlines.watch(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._deadlines.forget(self)
        self.over.set()
        assert self._task is not None
        # Should somebody else have cancelled it, too, then it is cancelled.
        if self._is_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Let the time be over."""
        assert self._task is not None
        self._is_expired = True
        self._task.cancel()


class Deadlines:
    """The deadlines of one loop's calls that are at work."""

    def __init__(self) -> None:
        self._open: dict[Deadline, None] = {}
        self._timer: asyncio.Handle | None = None
        self._next_s = math.inf

    def after(self, seconds: float, *, within_s: float = 0.0) -> Deadline:
        """Return a deadline in so many seconds from now, which pauses do not put off beyond `within_s`."""
        now_s = asyncio.get_running_loop().time()
        return Deadline(self, now_s + seconds, now_s + within_s)

    def watch(self, deadline: Deadline) -> None:
        """Let a deadline expire when it is due, which nothing does before the present turn of the loop is over."""
        self._open[deadline] = None
        if deadline.at_s < self._next_s:
            self._wait(deadline.at_s)

    def forget(self, deadline: Deadline) -> None:
        """Let a deadline never expire."""
        del self._open[deadline]
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer, self._next_s = None, math.inf

    def _wait(self, until_s: float) -> None:
        """Look when it is due.  The timer stays as long as any is open: what comes later is mostly due later."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._next_s = until_s
        self._timer = loop.call_soon(self._look) if until_s <= loop.time() else loop.call_at(until_s, self._look)

    def _look(self) -> None:
        self._timer, due_s = None, max(self._next_s, asyncio.get_running_loop().time())
        self._next_s, next_s = math.inf, math.inf
        for deadline in [each for each in self._open if not each.expired()]:
            if deadline.at_s <= due_s:
                deadline.expire()
            else:
                next_s = min(next_s, deadline.at_s)
        if next_s < math.inf:
            self._wait(next_s)
