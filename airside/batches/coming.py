"""Rows of an input that is still being written: what is there is given, and nobody waits for the next."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator

from airside.batches.rows import Row

_AHEAD = 200
"""Rows that are read and not taken yet, at most."""

_LOOK_S = 0.5


def as_they_come(rows: Iterator[Row]) -> Generator[Row | None]:
    """Yield rows as they are read, by a thread of its own, and None where the next is not there yet.

    Raises what reading them raises, after every row before it.  Closed, it reads no more but the row that is waited
    for.
    """
    there: queue.Queue[Row | BaseException | None] = queue.Queue(_AHEAD)
    left = threading.Event()

    def put(what: Row | BaseException | None) -> None:
        while not left.is_set():
            try:
                return there.put(what, timeout=_LOOK_S)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for row in rows:
                put(row)
                if left.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=read, name="airside-rows", daemon=True).start()
    try:
        while True:
            try:
                found = there.get_nowait()
            except queue.Empty:
                yield None
                continue
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        left.set()
