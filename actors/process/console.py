"""Shows what agents and tools of a stack print, in the process that started it: a notebook's cell, a terminal.

It comes through the files of the workers, which Ray's log monitor reads a while later: a run may have ended by then.
Who is to see the prints of a run before its result has the layers say that they have written them, and waits for that.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray
from ray._private.worker import global_worker
from ray._raylet import GcsLogSubscriber  # type: ignore[attr-defined]
from ray.exceptions import RayError, RpcError

from airside.tools.runners.output import mark_of, seen_written

CAUGHT_UP_S = 1.0
"""Longest wait for prints: the log monitor looks every tenth of a second; where there is none, nothing ever comes."""

_NAMES_KEPT = 100


class Console:
    """Follows the workers' output through Ray's log channel, and writes what is marked as this stack's.

    It goes to stderr, since stdout is for what a program answers; with `to_stdout`, as a notebook has it, to that.
    """

    def __init__(self, stack: str, *, to_stdout: bool) -> None:
        self._mark = mark_of(stack)
        self._to_stdout = to_stdout
        self._over = threading.Event()
        self._written: Counter[str] = Counter()
        self._news = threading.Condition()
        # One of its own: what one subscriber polls no other gets, and a process may have several stacks.
        self._subscriber = GcsLogSubscriber(worker_id=global_worker.worker_id, address=global_worker.gcs_client.address)
        self._thread = threading.Thread(target=self._follow, name="airside-console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show nothing more; what is on its way is not waited for."""
        self._over.set()

    def catch_up(self, layers: Sequence[Any]) -> None:
        """Wait until all is shown that these actors' processes have written by now, or it takes too long."""
        name, until = secrets.token_hex(8), time.monotonic() + CAUGHT_UP_S
        try:
            files = sum(ray.get([layer.say_written.remote(name) for layer in layers], timeout=CAUGHT_UP_S))
        except (RayError, TimeoutError):  # what a layer printed that is away comes when it comes
            return
        with self._news:
            self._news.wait_for(lambda: self._written[name] >= files, until - time.monotonic())

    def _follow(self) -> None:
        with contextlib.suppress(OSError, RpcError):  # Ray is gone, and so is the stack
            self._subscriber.subscribe()
            while not self._over.is_set():
                batch = self._subscriber.poll(timeout=1)
                if batch is not None:
                    self._take(batch)

    def _take(self, batch: dict[str, Any]) -> None:
        found = show(batch.get("lines", ()), self._mark, to_stdout=self._to_stdout)
        with self._news:
            self._written.update(found)
            for name in list(self._written)[:-_NAMES_KEPT]:
                del self._written[name]
            self._news.notify_all()


def show(lines: Iterable[str], mark: str, *, to_stdout: bool) -> list[str]:
    """Write the lines that have the mark, without it; return the names by which all before was said to be written."""
    names = []
    for line in _marked(lines, mark):
        if name := seen_written(line):
            names.append(name)
        else:
            print(line, file=sys.stdout if to_stdout else sys.stderr)
    return names


def _marked(lines: Iterable[str], mark: str) -> Iterator[str]:
    return (line.removeprefix(mark) for line in lines if line.startswith(mark))
