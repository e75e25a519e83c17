"""A bound on the time of what blocks its thread: it is interrupted from another one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AGAIN_S = 0.05
"""An interruption may count for what runs at that moment alone, so it is repeated."""


@contextmanager
def interrupted_after(seconds: float, interrupt: Callable[[], None]) -> Iterator[threading.Event]:
    """Have what is done within interrupted when its time is over; what is yielded is set then."""
    done, late = threading.Event(), threading.Event()

    def watch() -> None:
        done.wait(seconds)
        while not done.wait(_AGAIN_S):
            late.set()
            interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield late
    finally:
        done.set()
        watcher.join()
