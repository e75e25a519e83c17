"""Opens what jobs of a batch are read from.

| given | what it is |
|---|---|
| a path: `.jsonl`, `.ndjson`, `.json` (a line each), `.csv`, also `.gz`; `.parquet` | that; no ending: JSON lines |
| a folder, a pattern (`jobs/*.csv`, `**/*.parquet`) | its files, of one kind, by name |
| a URI: `s3://`, `gs://`, `file://` and what else `pyarrow.fs` knows | a file, a folder or a pattern there |
| a list of those | one after the other |
| `-`, a named pipe | JSON lines as they come |
| a pyarrow Table, RecordBatch, RecordBatchReader or Dataset | its rows |
| a pandas or Polars frame; what has `__arrow_c_stream__` | its rows |
| a Ray Dataset | its rows, executed with `preserve_order`, so that they come in the order of its blocks each time |
| mappings, or `Job`s | each of them |

Files and what is in memory can be compared with what they were (`same_prefix`).  A stream, and a Ray Dataset, is kept
in a temporary file as it is read, so that it can be read again in this process.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
from pyarrow import dataset as arrow_dataset

from airside.actors.jobs import Job
from airside.batches.columns import FIRST_S, Columns
from airside.batches.file_source import FileSource
from airside.batches.lines import Following, chunks_of, lines_of
from airside.batches.places import find_files, local_path, reason_of
from airside.batches.record_source import (
    RecordSource,
    StreamSource,
    check_first_records,
    first_checked,
    record_reads,
)
from airside.batches.rows import Read, Row, Source
from airside.batches.table_rows import ROWS_AT_ONCE, table_rows
from airside.batches.text_rows import first_checked_chunks, json_rows
from airside.stack.canonical import as_text
from airside.stack.errors import InvalidInput

__all__ = ["Row", "Source", "open_source"]

_RAY_ROWS_AT_ONCE = 1024


def open_source(
    given: Any,
    *,
    columns: Mapping[str, str] | None = None,
    follow_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Source:
    """Open jobs; raise `InvalidInput` for what cannot be read, or has not the columns that are mapped.

    Of mappings and JSON lines, which have no header, a column is not there that is in none of the first hundred rows.
    Of what is read once nothing is taken yet: `check_first` does, and else reading it.

    `columns` maps a job's fields to columns, or to `=constants` (`airside.batches.columns`).  With `follow_s` one
    file of JSON lines or CSV is read on as it grows, and is over when nothing has come for that long; its last line
    is waited for if it has no end.  `clock` and `pause` are what that is timed by.
    """
    if isinstance(given, FileSource | RecordSource | StreamSource):
        return given  # opened before, with its mapping
    mapping = Columns.of(columns)
    following = None
    if follow_s is not None:
        if not isinstance(follow_s, int | float) or not 0 <= follow_s < float("inf"):
            raise InvalidInput(f"follow_s: {follow_s!r:.40} is no number of seconds")
        following = Following(follow_s, clock, pause)
    paths = _paths(given)
    if paths is not None and not _is_stream(paths[0]):
        return FileSource(find_files(paths), mapping, following)
    if following is not None:
        raise InvalidInput("follow_s: only a file is read on as it grows; a stream ends when who writes it closes it")
    if paths is not None:
        return _stream(paths, mapping, clock)
    return _in_memory(given, mapping, clock)


def _paths(given: Any) -> list[str | Path] | None:
    """Return the paths that are given; None if something else is."""
    if isinstance(given, str | PurePath):
        return [_path(given)]
    if isinstance(given, list | tuple) and given and all(isinstance(each, str | PurePath) for each in given):
        return [_path(each) for each in given]
    return None


def _path(given: str | PurePath) -> str | Path:
    if not str(given) or "\0" in str(given):
        raise InvalidInput(f"{given!r:.80} is no path")
    return given if isinstance(given, str) else Path(given)


def _is_stream(given: str | Path) -> bool:
    if str(given) == "-":
        return True
    path = local_path(given)
    try:
        mode = path.stat().st_mode if path is not None else 0
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _stream(paths: list[str | Path], columns: Columns, clock: Callable[[], float]) -> Source:
    if len(paths) > 1:
        raise InvalidInput(f"{paths[0]}: a stream is read alone, not with other inputs")
    if str(paths[0]) == "-":
        # Unbuffered: a thread that waits in the buffer holds its lock, and the interpreter cannot end.
        stdin = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
        reads = _stream_reads(lambda: contextlib.nullcontext(stdin), "stdin", columns, clock)
        return StreamSource("stdin", reads, columns, may_wait=True, is_there=lambda: _is_there(stdin, FIRST_S))
    path = local_path(paths[0])
    assert path is not None
    if not os.access(path, os.R_OK):
        raise InvalidInput(f"{as_text(str(path))}: it may not be read")
    opened = lambda: path.open("rb", buffering=0)  # noqa: E731 - as of stdin
    reads = _stream_reads(opened, as_text(path.name), columns, clock)
    return StreamSource("pipe", reads, columns, may_wait=True, is_there=lambda: False)


def _is_there(file: Any, within_s: float) -> bool:
    """Whether a stream has something to read, or its end, within some seconds; what is in memory has."""
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError):
        return True
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(within_s * 1000))


def _stream_reads(opened: Callable[[], Any], name: str, columns: Columns, clock: Callable[[], float]) -> Iterator[Read]:
    """Read a stream; a pipe is opened at its first row, which waits for who writes it."""
    try:
        with opened() as file:
            is_there = partial(_is_there, file)
            chunks = first_checked_chunks(chunks_of(file), columns, is_there=is_there, clock=clock)
            yield from json_rows(lines_of(chunks), columns, name)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}") from None
    except OSError as error:
        raise InvalidInput(f"{name}: {reason_of(error)}") from None


def _in_memory(given: Any, columns: Columns, clock: Callable[[], float]) -> Source:
    library = type(given).__module__.partition(".")[0]
    try:
        if isinstance(given, pa.RecordBatch):
            given = pa.Table.from_batches([given])
        elif library == "pandas" and hasattr(given, "columns"):
            given = pa.Table.from_pandas(given, preserve_index=False)
        if isinstance(given, pa.Table):
            return _table("table", given.schema, given.num_rows, given.to_batches, columns)
        if isinstance(given, arrow_dataset.Dataset):
            return _dataset(given, columns)
        if library == "polars" and hasattr(given, "height"):
            schema = pa.RecordBatchReader.from_stream(given).schema
            return _table("table", schema, given.height, lambda: pa.RecordBatchReader.from_stream(given), columns)
        if hasattr(given, "__arrow_c_stream__"):
            reader = given if isinstance(given, pa.RecordBatchReader) else pa.RecordBatchReader.from_stream(given)
            columns.check(reader.schema.names, "the stream")
            return StreamSource("arrow stream", _table_reads(lambda: reader, columns, "stream"), columns)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInput(f"{type(given).__name__}: it cannot be read as an Arrow table: {reason_of(error)}") from None
    if hasattr(given, "iter_batches"):
        return StreamSource("ray dataset", table_rows(_ray_batches(given, columns), columns, "dataset"), columns)
    if isinstance(given, str | bytes | bytearray | Mapping | Job) or not isinstance(given, Iterable):
        raise InvalidInput(
            f"jobs: what is given, of type {type(given).__name__}, is no list of jobs: give a path, a table, or "
            "[Job(...), ...]"
        )
    if iter(given) is given:
        return StreamSource(
            "iterator", record_reads(first_checked(iter(given), columns, clock=clock), columns), columns
        )
    check_first_records(given, columns)
    total = len(given) if isinstance(given, Sized) else None
    return RecordSource("records", lambda: record_reads(given, columns), total, columns)


def _table(
    name: str, schema: Any, total: int | None, batches: Callable[[], Iterable[Any]], columns: Columns
) -> RecordSource:
    columns.check(schema.names, f"the {name}")
    return RecordSource(name, lambda: _table_reads(batches, columns, name), total, columns)


def _table_reads(batches: Callable[[], Iterable[Any]], columns: Columns, name: str) -> Iterator[Read]:
    number = 0
    try:
        for read in table_rows(batches(), columns, name):
            yield read
            number += 1
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{name}: it cannot be read after {number:,} rows: {reason_of(error)}") from None


def _dataset(given: Any, columns: Columns) -> RecordSource:
    """Read a Dataset with little kept ahead; by default, in the end all of it would be in memory."""
    is_parquet = isinstance(getattr(given, "format", None), arrow_dataset.ParquetFileFormat)
    scan: dict[str, Any] = {"batch_size": ROWS_AT_ONCE, "batch_readahead": 1, "fragment_readahead": 1}
    if is_parquet:
        options = arrow_dataset.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
        scan["fragment_scan_options"] = options
    wanted = None if columns.given is None else sorted(set(columns.read.values()))
    total = given.count_rows() if is_parquet else None
    return _table("dataset", given.schema, total, lambda: given.to_batches(columns=wanted, **scan), columns)


def _ray_batches(given: Any, columns: Columns) -> Iterator[Any]:
    """Yield the tables of a Ray Dataset in the order of its blocks, which Ray keeps only where it is asked to."""
    options: Any = getattr(getattr(given, "context", None), "execution_options", None)
    before = getattr(options, "preserve_order", None)
    if before is not None:
        options.preserve_order = True
    is_first = True
    try:
        for table in given.iter_batches(batch_size=_RAY_ROWS_AT_ONCE, batch_format="pyarrow"):
            if is_first:
                columns.check(table.schema.names, "the dataset")
                is_first = False
            yield table
    finally:
        if before is not None:
            options.preserve_order = before
