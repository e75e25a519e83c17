"""`ToolEventLoop`: asyncio's loop, which waits on a lock while nothing but another thread can wake it.

asyncio wakes a loop of another thread by a byte through a pipe: to send it, to wait for it, to read it and to find that
there is no more are five calls into the kernel, each of which gives the interpreter's lock away, to any of the other
threads that want it.  A tool that has no socket open needs none of that: a lock is released, and acquired.  As soon as
a file is registered the loop waits as asyncio's does.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
from types import FrameType
from typing import Any

_OWN_FILES = 1
"""The loop's own pipe."""


class _Selector(selectors.DefaultSelector):
    """Waits for files, and for `wake`, which any thread may call.

    `_polls` is set before the lock is looked at and read after the lock was released, so that a wake-up which finds it
    unset has been seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self._polls = False

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return the files that are ready, after `timeout` seconds or a wake-up at the latest."""
        if len(self.get_map()) <= _OWN_FILES:
            if timeout is None:
                self._asleep.acquire()
            elif timeout > 0:
                self._asleep.acquire(timeout=timeout)
            return []
        self._polls = True
        try:
            return super().select(0 if self._asleep.acquire(blocking=False) else timeout)
        finally:
            self._polls = False

    def wake(self) -> bool:
        """End a wait; False if one for files may be under way, which only a file ends."""
        if self._asleep.locked():
            with contextlib.suppress(RuntimeError):  # somebody else released it just now
                self._asleep.release()
        return not self._polls


class ToolEventLoop(asyncio.SelectorEventLoop):
    """An event loop for a thread of its own."""

    def __init__(self) -> None:
        self._sleeping = _Selector()
        super().__init__(self._sleeping)

    def _write_to_self(self) -> None:
        """Wake the loop: asyncio calls this, from any thread, after each `call_soon_threadsafe`."""
        if not self._sleeping.wake():
            super()._write_to_self()  # type: ignore[misc]


def only_waits(frame: FrameType) -> bool:
    """Whether the innermost frame of a loop's thread is that of its waiting for something to do."""
    return frame.f_code is _Selector.select.__code__ or frame.f_code is selectors.DefaultSelector.select.__code__
