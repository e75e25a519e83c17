"""Rows of JSON lines and of CSV as jobs.

CSV has a header row, commas, and quotes that are doubled within quotes; a quoted cell may have line breaks.  All its
cells are text: the job's fields are read from them as `columns` says, and a number for `inputs.NAME` or a further
field stays text unless the app's `job_inputs` model reads numbers from text.  An empty cell is a field that is
absent.
"""

from __future__ import annotations

import contextlib
import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import orjson

from airside.actors.jobs import MAX_LINE_BYTES
from airside.batches.columns import FIRST_ROWS, FIRST_S, Columns
from airside.batches.lines import Line, lines_of
from airside.batches.rows import MAX_ORIGINAL_BYTES, Read
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput

_FIRST_BYTES = 4 * 2**20
"""Of a stream that are taken for its columns, at most."""

_TOO_LONG = f"the line is over the bound of {MAX_LINE_BYTES:,} bytes"


def json_rows(lines: Iterable[Line], columns: Columns, name: str) -> Iterator[Read]:
    """Yield what each line is read as; empty lines are none."""
    for line in lines:
        data = line.data.strip()
        if not data:
            continue
        place = f"{name}:{line.number}"
        if line.is_too_long:
            yield Read(b"", data, place, _TOO_LONG)
            continue
        job, original, problem, job_id = b"", data, "", ""
        try:
            value = _object_of(data, columns)
            original, job_id = columns.without_token(data, value), columns.id_of(value)
            job = data if columns.given is None else columns.job_of(value)
        except InvalidInput as error:
            problem = error.message
        yield Read(job, original, place, problem, job_id)


def first_records(lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    """Yield the objects among the first lines; what is none is that row's problem, and said when it is read."""
    for line in islice((line for line in lines if line.data.strip()), FIRST_ROWS):
        with contextlib.suppress(orjson.JSONDecodeError):
            value = orjson.loads(line.data)
            if isinstance(value, dict):
                yield value


def first_checked_chunks(
    chunks: Iterator[bytes], columns: Columns, *, is_there: Callable[[float], bool], clock: Callable[[], float]
) -> Iterator[bytes]:
    """Return what JSON lines come in, of which the first are taken and checked, if they come soon.

    Raises `InvalidInput` for a mapped column that is in none of the first hundred rows, or of all there are; where
    neither has come after a second, nobody knows.  `is_there` says whether more is, within so many seconds.
    """
    data, until_s, broken = b"", None, None
    is_known = not columns.read
    while not is_known and len(data) < _FIRST_BYTES:
        if until_s is not None and b"\n" in data and not is_there(max(0.0, until_s - clock())):
            break
        try:
            chunk = next(chunks, b"")
        except OSError as error:
            broken = error
            break
        until_s = clock() + FIRST_S if until_s is None else until_s
        data += chunk
        whole = data[: data.rfind(b"\n") + 1] if chunk else data
        records = list(first_records(lines_of(iter([whole]))))
        try:
            columns.check_first(records, "jobs")
            is_known = bool(records) or not chunk
        except InvalidInput:
            if not chunk or len(records) >= FIRST_ROWS:
                raise

    def all_of_them() -> Iterator[bytes]:
        if data:
            yield data
        if broken is not None:
            raise broken
        yield from chunks

    return all_of_them()


def _object_of(data: bytes, columns: Columns) -> dict[str, Any]:
    if columns.given is None:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = _parsed(data)  # says where it is wrong
    else:
        value = _parsed(data)
    if not isinstance(value, dict):
        raise InvalidInput(f"a job is an object, not {type(value).__name__}")
    return value


def _parsed(data: bytes) -> Any:
    return parse_bounded(data, max_bytes=MAX_LINE_BYTES, where="no JSON")


class CsvRecord(NamedTuple):
    """A record of a CSV file: its cells, or what is wrong with it."""

    number: int
    """Of its first line, from 1."""

    cells: list[str]
    original: bytes
    problem: str = ""


class _BadRecord(Exception):
    """What is being read cannot be one record."""


class _Feed:
    """The lines a `csv.reader` takes, and which of them are of the record it is at."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []
        self._bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        self._bytes += len(line.data)
        if line.is_too_long:
            raise _BadRecord(_TOO_LONG)
        if self._bytes > MAX_LINE_BYTES:
            raise _BadRecord(f"a quote is opened and not closed within {MAX_LINE_BYTES:,} bytes")
        return line.data.decode("utf-8", "surrogateescape")

    def next_record(self) -> None:
        """Begin a record."""
        self.taken = []
        self._bytes = 0

    def put_back(self) -> None:
        """Have all lines but the record's first read again, each as what it is alone."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def csv_records(lines: Iterable[Line]) -> Iterator[CsvRecord]:
    """Yield the records of a CSV file, the header too; empty lines are none.

    A line that begins what is no record (a quote that is never closed) is a bad one alone, and those behind it are
    read as if it were not there.  Arrow's reader is not used: it drops a byte of a quoted CR LF at a block's end.
    """
    # Of the whole process, as the module has it; by default a cell may be no longer than 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    feed = _Feed(lines)
    reader = csv.reader(feed, strict=True)
    while True:
        feed.next_record()
        problem, cells = "", []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _BadRecord as error:
            problem = str(error)
        except csv.Error as error:
            problem = f"no record of CSV: {error}"
        if problem:
            feed.put_back()
        elif not cells:
            continue
        original = b"".join(line.data for line in feed.taken)
        if not problem and not original.isascii():
            try:
                original.decode()
            except UnicodeDecodeError as error:
                problem = f"it is not UTF-8: {error}"
        yield CsvRecord(feed.taken[0].number, cells, original[:MAX_ORIGINAL_BYTES], problem)


def csv_header(records: Iterator[CsvRecord], columns: Columns) -> list[str] | None:
    """Return the names of a CSV file's columns, None if there is nothing in it; raise `InvalidInput` for wrong ones."""
    first = next(records, None)
    if first is None:
        return None
    if first.problem:
        raise InvalidInput(f"its header, line {first.number}: {first.problem}")
    columns.check(first.cells, f"its header, line {first.number}")
    return first.cells


def csv_rows(lines: Iterable[Line], columns: Columns, name: str) -> Iterator[Read]:
    """Yield what each record of a CSV file is read as."""
    records = csv_records(lines)
    header = csv_header(records, columns) or []
    for record in records:
        place = f"{name}:{record.number}"
        original = record.original.rstrip(b"\r\n")
        original = columns.without_token(original, dict(zip(header, record.cells, strict=False)))
        problem, data, job_id = record.problem, b"", ""
        if not problem and len(record.cells) != len(header):
            problem = f"{len(record.cells)} cells, where the header has {len(header)}"
        if not problem:
            try:
                row = {column: cell for column, cell in zip(header, record.cells, strict=True) if cell}
                job_id = columns.id_of(row)
                data = columns.job_of(row)
            except InvalidInput as error:
                problem = error.message
        yield Read(data, original, place, problem, job_id)
