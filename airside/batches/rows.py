"""What every kind of input is read as: rows, in an order that does not change, each a job or what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

MAX_ORIGINAL_BYTES = 64 * 2**10
"""Kept of a row as it was read: enough to find and mend it, whatever it holds."""

if TYPE_CHECKING:
    from airside.batches.columns import Columns


class Row(NamedTuple):
    """A row of the input.  Either `data` is a JSON object that may be a job, or `problem` says why there is none."""

    number: int
    """From 0, in the order of the input."""

    data: bytes
    """The job as one JSON object, after the column mapping; empty if the row is none."""

    original: bytes
    """The row as it was read, for the file of rejects: the line, or JSON of the record; `MAX_ORIGINAL_BYTES` of it."""

    place: str
    """Where it stands, for people: `jobs.jsonl:17`, `part-3.parquet row 5` (lines from 1, rows from 0)."""

    problem: str
    """What is wrong with it; empty if nothing is known to be."""

    job_id: str = ""
    """Of a row that is no job: the id its job would have had, where that can be read."""


class Source(Protocol):
    """Jobs of a batch, as rows.

    What stands in a row is that row's problem and harms no other.  What makes the rest unreadable (a file that is cut
    or damaged, a column that is not there) raises `InvalidInput`, which says which file and where, after every row
    before it was given.
    """

    @property
    def columns(self) -> Columns:
        """Which column, or which constant, each field of a job is."""

    @property
    def total(self) -> int | None:
        """How many rows there are, where that is known without reading them; else None."""

    @property
    def may_wait(self) -> bool:
        """Whether it is still being written: the next row may be long in coming."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The local files it reads, none of which results may replace."""

    def check_first(self) -> None:
        """Raise `InvalidInput` for a mapped column that no row has, where opening it could not yet.

        That may take the first rows of a stream, if they come soon; `rows` has them all the same.
        """

    def describe(self) -> dict[str, Any]:
        """Return as JSON what is read: kind, files with size and digest of their content, column mapping.

        Of what can grow it is what was there at opening.  It reads the content once.
        """

    def same_prefix(self, described: dict[str, Any]) -> str:
        """Return "" if the input begins with what `describe` once gave, else one line that says what differs.

        Of a stream (stdin, a pipe, an iterator, a Ray Dataset) only kind and mapping can be compared: compare its rows.
        """

    def rows(self) -> Iterator[Row]:
        """Yield all rows; each call begins at the beginning and gives the same order."""


class Read(NamedTuple):
    """What a reader of one kind of input makes of a row, which the source numbers."""

    data: bytes
    original: bytes
    place: str
    problem: str = ""
    job_id: str = ""


def numbered(reads: Iterable[Read]) -> Iterator[Row]:
    """Yield rows of what was read, in order."""
    for number, read in enumerate(reads):
        yield Row(number, read.data, read.original[:MAX_ORIGINAL_BYTES], read.place, read.problem, read.job_id)
