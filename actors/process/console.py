"""Shows what agents and tools of a stack print, in the process that started it: a notebook's cell, a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable

from ray._private.worker import global_worker
from ray._raylet import GcsLogSubscriber  # type: ignore[attr-defined]
from ray.exceptions import RpcError

from airside.tools.runners.output import mark_of


class Console:
    """Follows the workers' output through Ray's log channel, and writes what is marked as this stack's to stderr."""

    def __init__(self, stack: str) -> None:
        self._mark = mark_of(stack)
        self._over = threading.Event()
        # One of its own: what one subscriber polls no other gets, and a process may have several stacks.
        self._subscriber = GcsLogSubscriber(worker_id=global_worker.worker_id, address=global_worker.gcs_client.address)
        self._thread = threading.Thread(target=self._follow, name="airside-console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show nothing more; what is on its way is not waited for."""
        self._over.set()

    def _follow(self) -> None:
        with contextlib.suppress(OSError, RpcError):  # Ray is gone, and so is the stack
            self._subscriber.subscribe()
            while not self._over.is_set():
                batch = self._subscriber.poll(timeout=1)
                if batch is not None:
                    show(batch.get("lines", ()), self._mark)


def show(lines: Iterable[str], mark: str) -> None:
    """Write the lines that have the mark, without it."""
    for line in lines:
        if line.startswith(mark):
            print(line.removeprefix(mark), file=sys.stderr)
