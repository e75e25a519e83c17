"""Jobs in memory: tables, frames, lists.  And streams, which can be read once, and are kept on disk as they are."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from airside.actors.jobs import BadLine, Job
from airside.batches.columns import FIRST_ROWS, FIRST_S, Columns, json_of, original_of
from airside.batches.places import reason_of
from airside.batches.rows import Read, Row, numbered
from airside.stack.errors import Failed, InvalidInput


class RecordSource:
    """The rows of what is in memory, which can be read as often as one likes."""

    may_wait: bool = False

    def __init__(self, kind: str, reads: Callable[[], Iterator[Read]], total: int | None, columns: Columns) -> None:
        self._kind = kind
        self._reads = reads
        self._total = total
        self.columns = columns

    @property
    def total(self) -> int | None:
        """How many rows there are, if that is known."""
        return self._total

    @property
    def paths(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def check_first(self) -> None:
        """Nothing: what is in memory was looked at when it was opened."""

    def describe(self) -> dict[str, Any]:
        """Return how many rows there are, and a digest of them all; reads them."""
        count, digest = _digest(self.rows())
        return {"kind": self._kind, "rows": count, "blake2b": digest, "columns": self.columns.given}

    def same_prefix(self, described: dict[str, Any]) -> str:
        """Compare the rows that are described; more may follow."""
        problem = _compared(self._kind, self.columns, described)
        if problem:
            return problem
        count, digest = _digest(islice(self.rows(), described["rows"]))
        if count < described["rows"]:
            return f"shorter, {count:,} rows where there were {described['rows']:,}"
        return "" if digest == described["blake2b"] else f"changed within the first {count:,} rows"

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        return numbered(self._reads())


class StreamSource:
    """The rows of what can be read once: stdin, a pipe, an iterator, an Arrow stream, a Ray Dataset.

    What was read is kept in a temporary file, so that every call of `rows` has all of it; a row that nobody has asked
    for is not read yet.
    """

    total: int | None = None

    def __init__(
        self,
        kind: str,
        reads: Iterator[Read],
        columns: Columns,
        *,
        may_wait: bool = False,
        is_there: Callable[[], bool] = lambda: True,
    ) -> None:
        """`is_there` = whether the first row may be asked for, though its columns are all that is wanted of it."""
        self.may_wait = may_wait
        self._is_there = is_there
        self._kind = kind
        self.columns = columns
        self._live = numbered(reads)
        self._ended: Exception | None = None
        self._kept = tempfile.TemporaryFile(prefix="airside-rows-")  # noqa: SIM115  # lives as long as the source
        self._end = 0

    @property
    def paths(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def check_first(self) -> None:
        """Read the first row, which is kept, if columns are mapped; reading it looks whether these are there."""
        if self.columns.read and self._end == 0 and self._is_there():
            self._next()

    def describe(self) -> dict[str, Any]:
        """Return what kind it is; of what it will hold nothing is known yet."""
        return {"kind": self._kind, "columns": self.columns.given}

    def same_prefix(self, described: dict[str, Any]) -> str:
        """Compare kind and mapping, which is all that is known."""
        return _compared(self._kind, self.columns, described)

    def rows(self) -> Iterator[Row]:
        """Yield all rows: those that were read before, then what comes."""
        at = 0
        while True:
            if at < self._end:
                size = int.from_bytes(os.pread(self._kept.fileno(), 4, at), "big")
                row = msgspec.msgpack.decode(os.pread(self._kept.fileno(), size, at + 4), type=Row)
                at += 4 + size
            else:
                live = self._next()
                if live is None:
                    return
                row, at = live, self._end
            yield row

    def _next(self) -> Row | None:
        """Read one row more and keep it; None at the end.  What broke it off breaks it off for everybody."""
        if self._ended is not None:
            raise self._ended
        try:
            row = next(self._live, None)
        except Exception as error:
            self._ended = error
            raise
        if row is not None:
            data = msgspec.msgpack.encode(row)
            frame = memoryview(len(data).to_bytes(4, "big") + data)
            at = self._end
            try:
                while frame:
                    written = os.pwrite(self._kept.fileno(), frame, at)
                    frame, at = frame[written:], at + written
            except OSError as error:
                self._ended = Failed(
                    f"{tempfile.gettempdir()}: rows of {self._kind} cannot be kept: {reason_of(error)}"
                )
                raise self._ended from None
            self._end = at
        return row


def _compared(kind: str, columns: Columns, described: dict[str, Any]) -> str:
    if described.get("kind") != kind:
        return f"the input was {described.get('kind')}, and now is {kind}"
    if described.get("columns") != columns.given:
        return f"the column mapping was {described.get('columns')}, and now is {columns.given}"
    return ""


def _digest(rows: Iterable[Row]) -> tuple[int, str]:
    """Return how many rows there are, and the digest of what they hold."""
    digest, count = hashlib.blake2b(digest_size=32), 0
    for row in rows:
        held = row.data or row.original
        digest.update(b"%d %d " % (bool(row.data), len(held)) + held)
        count += 1
    return count, digest.hexdigest()


def check_first_records(records: Iterable[Any], columns: Columns) -> None:
    """Raise `InvalidInput` for a mapped column that is in none of the first mappings among some records."""
    mappings = (each for each in islice(records, FIRST_ROWS) if isinstance(each, Mapping))
    columns.check_first(({str(name): None for name in each} for each in mappings), "jobs")


def first_checked(records: Iterator[Any], columns: Columns, *, clock: Callable[[], float]) -> Iterator[Any]:
    """Yield the records of an iterator, of which the first are taken and checked, if they come soon, when it is begun.

    One that has all columns is enough.  What breaks it off does so after the records before it.
    """
    taken: list[Any] = []
    broken: list[Exception] = []

    def first() -> Iterator[Any]:
        began_s = clock()
        try:
            while clock() - began_s < FIRST_S:
                if (given := next(records, taken)) is taken:
                    return
                taken.append(given)
                yield given
        except Exception as error:
            broken.append(error)
        yield dict.fromkeys(columns.read.values())  # nobody knows what those have that are not there yet

    try:
        check_first_records(first() if columns.read else (), columns)
    except InvalidInput as error:
        raise InvalidInput(f"{error.message}; {len(taken)} of the iterator are taken: give a new one") from None
    yield from taken
    if broken:
        raise broken[0]
    yield from records


def record_reads(records: Iterable[Any], columns: Columns) -> Iterator[Read]:
    """Yield what each of some mappings or jobs is read as.

    A `Job` is one already, and no mapping of columns is about it.  Times, decimals and the like become text, as those
    of a table do.
    """
    for place, given in enumerate(records):
        where = f"jobs[{place}]"
        if isinstance(given, BadLine):
            yield Read(b"", given.message.encode("utf-8", "backslashreplace"), where, given.message)
            continue
        record: Any = given.model_dump(exclude_defaults=True) if isinstance(given, Job) else given
        if not isinstance(record, Mapping) or not all(isinstance(name, str) for name in record):
            problem = f"a job is a Job or a mapping of its fields by name, not {type(given).__name__}"
            yield Read(b"", b"", where, problem)  # what it holds may be a token
            continue
        data, problem = b"", ""
        try:
            record = _plain(record)
            data = json_of(record) if isinstance(given, Job) else columns.job_of(record)
        except InvalidInput as error:
            problem = error.message
        except RecursionError:
            problem = "nested too deep"
        yield Read(data, columns.without_token(original_of(record), record), where, problem, columns.id_of(record))


def _plain(value: Any) -> Any:
    """Return a value with what JSON has no form for as text, where that is plain."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, dt.datetime):
        utc = value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
        return utc.replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    return value
