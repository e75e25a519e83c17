"""What the journal asks of its log: entries in the order in which they were acknowledged, appended by one process.

`log.py` keeps it in one SQLite file, `postgres_log.py` and `postgres_reader.py` in a PostgreSQL database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from airside.stack.journal.journaling import Head

CHUNK_ROWS, CHUNK_BYTES = 10_000, 16 * 2**20
"""Entries read at a time at most: a longer reading would hold up what a store does about old versions of its pages."""

Row = tuple[Any, ...]
"""tenant, number, stream, seq, epoch, step, cause, at_us, type, body, mac; as stored, with its position before it."""


class LogReader(Protocol):
    """A log as anybody reads it, from any thread; what cannot be read is `Unreadable`."""

    log: str
    """Which log it is: copies of it are the same one."""

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is put back."""

    def last(self) -> int:
        """Return the position of the latest entry, 0 if there is none."""

    def ends(self) -> tuple[int, dict[str, int]]:
        """Return the position of the latest entry, and where it is noted that each tenant's chain ends, as of then."""

    def mac_at(self, position: int) -> bytes:
        """Return the link of the entry at a position, empty if there is none."""

    def latest_us(self) -> int:
        """Return the time of the latest entry, 0 if there is none."""

    def bodies(self, streams: Iterable[str]) -> dict[str, list[str]]:
        """Return the events of streams, oldest first."""

    def chunks(self, after: int, until: int, *, tolerant: bool = False) -> Iterator[list[Row]]:
        """Yield the entries after a position until another, in order, a bounded number at a time."""

    def faults(self) -> list[str]:
        """Return what is wrong with the store itself, and what it has that is not ours."""


class Log(Protocol):
    """A log open for appending.  Its methods belong to one thread, but `fold`."""

    last: int
    """The position of the latest entry."""

    @property
    def outage(self) -> str:
        """Why an append waits to learn what became of it; empty if none does.  From any thread."""

    def chains(self) -> dict[str, tuple[int, bytes]]:
        """Return the last link of every tenant's chain, with its number."""

    def heads(self, streams: Sequence[str]) -> Mapping[str, Head]:
        """Return where streams stand; of those that are new, nothing.  Raises `NotWritten` if that cannot be read."""

    def place(self, stream: str, first: int, count: int) -> list[bytes]:
        """Return the bodies a stream has at a place.  Raises `NotWritten` if that cannot be read."""

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows and return when they are durable; on an error none of them is taken in.

        Raises `NotWritten` if they cannot be written now, and `SyncFailed` if nobody knows what is durable, or another
        process has taken the log over: then nothing more is appended, and the process must end.
        """

    def fold(self) -> bool:
        """Do what a store wants done now and then, beside appends; return whether there was something to do."""

    def close(self) -> None:
        """Close it, and let another process append."""
