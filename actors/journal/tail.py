"""`Tail`: the log's latest entries, so that the projection that follows it need not read again what was just written.

It has only what is durable, and nothing rests on it: what it has not is read from the log.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from airside.actors.journal import log_port
from airside.actors.journal.log_port import LogReader, Row

MAX_BYTES = 16 * 2**20
"""Of bodies; what comes on top is let go, the oldest first.  The projection is a second behind."""


class _Batch(NamedTuple):
    """The rows of one commit, from the one after a position."""

    after: int
    rows: Sequence[Row]
    size: int

    @property
    def last(self) -> int:
        return self.after + len(self.rows)


class Tail:
    """From any thread."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._batches: deque[_Batch] = deque()
        self._bytes = 0

    def add(self, after: int, rows: Sequence[Row]) -> None:
        """Keep the rows of a commit that is durable, as they were given to the log behind a position."""
        batch = _Batch(after, rows, sum([len(row[9]) for row in rows]))
        with self._changing:
            self._batches.append(batch)
            self._bytes += batch.size
            while self._bytes > MAX_BYTES:
                self._drop()

    def rows(self, after: int, until: int) -> list[Row]:
        """Return entries after a position until another, a bounded number, each with its position before it.

        None at all if the first of them is not here.
        """
        found: list[Row] = []
        with self._changing:
            batches = [batch for batch in self._batches if batch.last > after and batch.after < until]
        if not batches or batches[0].after > after:
            return found
        for batch in batches:
            if len(found) >= log_port.CHUNK_ROWS:
                break
            rows = enumerate(batch.rows, batch.after + 1)
            found += [(position, *row) for position, row in rows if after < position <= until]
        return found

    def rows_or_logged(self, reader: LogReader, after: int, until: int) -> list[Row]:
        """Return what `rows` does, from the log if it is not here."""
        return self.rows(after, until) or next(reader.chunks(after, until), [])

    def forget(self, until: int) -> None:
        """Let go of entries up to a position."""
        with self._changing:
            while self._batches and self._batches[0].last <= until:
                self._drop()

    def _drop(self) -> None:
        self._bytes -= self._batches.popleft().size
