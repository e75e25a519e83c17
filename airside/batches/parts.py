"""Results of a batch as Parquet parts, and its rejects beside them.

A part is there whole or not at all.  Parts are named by a number that grows and by who wrote them
(`part-000007-0a1b2c3d.parquet`), so that a writer that was given up and still lives harms no other's.
`_rejects.jsonl` has the rows that are no jobs, one JSON object a line; in an object store it is `_rejects-000001.jsonl`
and so on.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import parquet

from airside.batches.part_store import PartStore, part_store
from airside.batches.places import local_path, reason_of
from airside.batches.result_schema import SCHEMA
from airside.batches.rows import MAX_ORIGINAL_BYTES, Row
from airside.stack.canonical import as_text
from airside.stack.errors import Failed, InvalidInput

REJECTS = "_rejects.jsonl"

_PART = re.compile(r"part-(\d{6,})-([0-9a-f]{8})\.parquet")
_OWNER = re.compile(r"[0-9a-f]{8}")
_TOKEN = re.compile(r'("token"\s*:\s*")(?:[^"\\]|\\.)*')


def _whole(bits: int) -> Callable[[Any], bool]:
    most = 1 << (bits - 1)
    return lambda value: type(value) is int and -most <= value < most


_OF_TYPE: dict[Any, Callable[[Any], bool]] = {
    pa.int16(): _whole(16),
    pa.int64(): _whole(64),
    pa.float64(): lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    pa.string(): lambda value: isinstance(value, str),
    pa.binary(8): lambda value: isinstance(value, bytes) and len(value) == 8,
}
_FITS = {field.name: _OF_TYPE[field.type] for field in SCHEMA}
"""Whether a value can stand in a column; making an Arrow value of each would take longer than all else."""

_MAX_BUFFER_BYTES = 32 * 2**20
"""Answers may be long: that many bytes of text are committed though they are few results."""

_READ_ROWS = 1024


class Parts:
    """The results of one writer: buffered, and committed every so many results, every so many seconds, and at the end.

    What `Failed` says could not be written is still buffered, and the next commit writes it.  It is for one thread.
    """

    def __init__(
        self,
        place: Path | str,
        owner: str,
        *,
        every: int = 1000,
        seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open a folder (made, if there is none) or a URI; `owner` is eight hex digits that are this writer's alone."""
        if not _OWNER.fullmatch(owner):
            raise InvalidInput(f"owner: {owner!r:.40} is not eight hex digits")
        self._store = part_store(place, makes=True)
        self._owner = owner
        self._every = every
        self._seconds = seconds
        self._clock = clock
        self._number = max((number for number, _ in _numbered(self._store)), default=0)
        self._rows: list[dict[str, Any]] = []
        self._rejects: list[bytes] = []
        self._bytes = 0
        self._since = clock()

    @property
    def pending(self) -> int:
        """How many results and rejects are buffered."""
        return len(self._rows) + len(self._rejects)

    @property
    def unwritten(self) -> int:
        """How many results are buffered."""
        return len(self._rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a result: the columns of `SCHEMA`, of which those that are absent are null; commit if it is time.

        Raises `InvalidInput` for what is no such row, which is not taken, and `Failed` if a commit fails, though it is.
        """
        unknown = sorted(row.keys() - set(SCHEMA.names))
        if unknown or row.get("row") is None or row.get("attempt") is None:
            raise InvalidInput(f"a row of results: {', '.join(unknown) or 'row and attempt'}: see SCHEMA")
        taken = {name: as_text(value) if isinstance(value, str) else value for name, value in row.items()}
        for name, value in taken.items():  # checked here, where the row is: a part is refused or written as a whole
            if value is not None and not _FITS[name](value):
                raise InvalidInput(f"a row of results: {name}: {value!r:.80} is none of {SCHEMA.field(name).type}")
        self._begin()
        self._rows.append(taken)
        self._bytes += sum(len(value) for value in taken.values() if isinstance(value, str))
        self.commit_if_due()

    def reject(self, row: Row, job_id: str, problem: str, attempt: int = 1) -> None:
        """Take a row that is no job, or was refused at an attempt, for `_rejects.jsonl`, without a token in it."""
        said = {
            "row": row.number,
            "attempt": attempt,
            "place": as_text(row.place),
            "job_id": as_text(job_id),
            "problem": as_text(problem),
            "original": _TOKEN.sub(r"\1...", row.original[:MAX_ORIGINAL_BYTES].decode("utf-8", "backslashreplace")),
        }
        self._begin()
        self._rejects.append(orjson.dumps(said) + b"\n")
        self._bytes += len(self._rejects[-1])
        self.commit_if_due()

    def _begin(self) -> None:
        if not self.pending:
            self._since = self._clock()

    def commit_if_due(self) -> bool:
        """Commit if the results are many, large or old enough; return whether that was so.

        Called now and then, it also commits what nothing comes after.
        """
        is_full = self.pending >= self._every or self._bytes >= _MAX_BUFFER_BYTES
        is_due = self.pending > 0 and (is_full or self._clock() - self._since >= self._seconds)
        if is_due:
            self.commit()
        return is_due

    def commit(self) -> None:
        """Make durable what is buffered; raise `Failed` if that cannot be done now, and keep it.

        Rejects come first: a crash in between has one twice in the end, rather than never.
        """
        if self._rejects:
            self._store.append(REJECTS, b"".join(self._rejects))
            self._rejects.clear()
        if self._rows:
            sink = pa.BufferOutputStream()
            table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
            parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
            name = f"part-{self._number + 1:06d}-{self._owner}.parquet"
            self._store.put(name, sink.getvalue().to_pybytes())
            self._number += 1
            self._rows.clear()
        self._bytes = 0
        self._since = self._clock()

    def close(self) -> None:
        """Commit what is buffered."""
        self.commit()

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Failed):  # it says already what could not be written
            with contextlib.suppress(Failed):
                self.close()
        else:
            self.close()


def _numbered(store: PartStore) -> list[tuple[int, str]]:
    """Return the parts of a store with their numbers, in order."""
    found = [(int(match[1]), name) for name in store.names() if (match := _PART.fullmatch(name))]
    return sorted(found)


def has_parts(place: Path | str) -> bool:
    """Whether there are parts at a place, which may not be there."""
    path = local_path(place)
    if path is not None and not path.is_dir():
        return False
    return bool(_numbered(part_store(place, makes=False)))


def rejects_of(place: Path | str) -> str:
    """Return where the rejects are that there are at a place, for people; empty if there are none."""
    store = part_store(place, makes=False)
    stem, ending = REJECTS.split(".")
    names = [name for name in store.names() if name.startswith(stem) and name.endswith(ending)]
    return f"{store.shown}/{names[0] if len(names) == 1 else f'{stem}-*.{ending}'}" if names else ""


def read_parts(place: Path | str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the results in parts, in the order they were committed, a thousand or so at a time; all columns, or some.

    Raises `InvalidInput` naming a part that cannot be read.
    """
    unknown = sorted(set(columns or ()) - set(SCHEMA.names))
    if unknown:
        raise InvalidInput(f"results have no column {unknown[0]!r:.80}; they have {', '.join(SCHEMA.names)}")
    store = part_store(place, makes=False)
    for _, name in _numbered(store):
        try:
            with store.opened(name) as file:
                part = parquet.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
                absent = [column for column in SCHEMA.names if column not in part.schema_arrow.names]
                if absent:
                    raise InvalidInput(f"{store.shown}/{name}: no part of results, it has no column {absent[0]}")
                left = part.metadata.num_rows
                for batch in part.iter_batches(_READ_ROWS, columns=None if columns is None else [*columns]):
                    left -= batch.num_rows
                    yield batch
                if left:  # a page's header is in no checksum
                    raise InvalidInput(f"{store.shown}/{name}: it is damaged, {left:,} results are not there")
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(f"{store.shown}/{name}: {reason_of(error)}") from None
