"""Rows as they come: read by a thread, so that whoever runs a batch is not held by an input that grows slowly."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from airside.batches.rows import Row, Source

AHEAD = 1_000
"""Rows that are read before they are wanted."""

WAIT_S = 0.2
"""How long the next row is waited for before there is said to be none now."""


class RowReader:
    """Reads a source once, from its beginning; ended, its thread ends with the next row."""

    def __init__(self, source: Source) -> None:
        self._rows: queue.Queue[Row | BaseException | None] = queue.Queue(AHEAD)
        self._is_over = threading.Event()
        threading.Thread(target=self._read, args=(source,), name="airside-rows", daemon=True).start()

    def _read(self, source: Source) -> None:
        last: BaseException | None = None
        try:
            for row in source.rows():
                if not self._put(row):
                    return
        except BaseException as error:  # raised where rows are wanted, after those before it
            last = error
        self._put(last)

    def _put(self, item: Row | BaseException | None) -> bool:
        while not self._is_over.is_set():
            try:
                self._rows.put(item, timeout=WAIT_S)
                return True
            except queue.Full:
                continue
        return False

    def some(self, most: int) -> Iterator[list[Row]]:
        """Yield what rows there are, at most so many at once; an empty list where none has come for a moment.

        Raises what the source does, after every row before it.
        """
        while True:
            found: list[Row] = []
            try:
                item = self._rows.get(timeout=WAIT_S)
                while isinstance(item, Row):
                    found.append(item)
                    if len(found) == most:
                        break
                    item = self._rows.get_nowait()
            except queue.Empty:
                yield found
                continue
            yield found
            if not isinstance(item, Row):
                if item is not None:
                    raise item
                return

    def end(self) -> None:
        """Read no more."""
        self._is_over.set()
