"""Jobs in files, read in order and compared by their bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from airside.batches.columns import Columns
from airside.batches.lines import Following, Line, chunks_of, growing_chunks, lines_of, unpacked
from airside.batches.places import InputFile, bytes_of, reason_of
from airside.batches.rows import Read, Row, numbered
from airside.batches.table_rows import ROWS_AT_ONCE, table_rows
from airside.batches.text_rows import csv_header, csv_records, csv_rows, first_records, json_rows
from airside.stack.errors import InvalidInput

_PARQUET_BUFFER_BYTES = 64 * 2**10
"""Read of a column at a time; without a buffer it would be all of a row group."""


class FileSource:
    """The rows of files, one file after the other.

    Opening it reads the headers, the Parquet footers and the first of JSON lines, so that a column that is not there is
    known before the first row.
    """

    def __init__(self, files: list[InputFile], columns: Columns, following: Following | None = None) -> None:
        self._files = files
        self.columns = columns
        self._following = following
        self._compared: tuple[dict[str, Any], str] | None = None
        """What was compared last, and what came of it: that reads the files."""
        if following is not None:
            _check_may_grow(files)
        counts = [self._opened(file) for file in files]
        self._total = None if None in counts else sum(count for count in counts if count is not None)
        columns.check_first(self._first_records(), files[0].shown if len(files) == 1 else "the files")

    @property
    def total(self) -> int | None:
        """How many rows there are: of Parquet at once, of plain JSON lines once they were described; else None.

        Of JSON lines it is the lines, of which empty ones are no rows.
        """
        return self._total

    @property
    def may_wait(self) -> bool:
        """Whether it is read on as it grows."""
        return self._following is not None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are on this machine."""
        return tuple(file.path for file in self._files if file.path is not None)

    def check_first(self) -> None:
        """Nothing: opening it has read the columns."""

    def describe(self) -> dict[str, Any]:
        """Return the files as they were at opening; reads them."""
        return {"kind": "files", "files": self._described, "columns": self.columns.given}

    @cached_property
    def _described(self) -> list[dict[str, Any]]:
        described, lines = [], 0
        for file in self._files:
            digest, size, newlines = _digest(file, file.size)
            if size < file.size:
                raise InvalidInput(f"{file.shown}: it had {file.size:,} bytes at opening, and now has {size:,}")
            lines += newlines
            described.append({"file": file.shown, "kind": file.kind, "size": file.size, "blake2b": digest})
        if self._total is None and all(file.kind == "jsonl" and not file.is_gzip for file in self._files):
            self._total = lines
        return described

    def same_prefix(self, described: dict[str, Any]) -> str:
        """Compare files by their order, their names without folders, and their first bytes, as they were at first.

        What is behind that may be more: the last file may have grown (one of lines), and other files may follow it.
        """
        if self._compared is None or self._compared[0] != described:  # asked before a stack is started, and then again
            self._compared = described, self._difference(described)
        return self._compared[1]

    def _difference(self, described: dict[str, Any]) -> str:
        if described.get("kind") != "files":
            return f"the input was {described.get('kind')}, and now is files"
        if described.get("columns") != self.columns.given:
            return f"the column mapping was {described.get('columns')}, and now is {self.columns.given}"
        before, now = described["files"], self._files
        had = [PurePosixPath(each["file"]).name for each in before]
        has = [PurePosixPath(file.shown).name for file in now]
        for at, name in enumerate(had):
            if at < len(has) and has[at] == name:
                continue
            if name not in has:
                return f"{before[at]['file']}: not among what is read now"
            added = next((other for other in has if other not in had), None)
            return f"{added}: added before {name}" if added else f"{name}: in another place of the order"
        for at, each in enumerate(before):
            problem = _changed(now[at], each, is_last=at == len(now) - 1)
            if problem:
                return problem
        return ""

    def rows(self) -> Iterator[Row]:
        """Yield all rows."""
        return numbered(read for file in self._files for read in self._reads(file))

    def _reads(self, file: InputFile) -> Iterator[Read]:
        try:
            with file.opened() as opened:
                if file.kind == "parquet":
                    yield from self._parquet_reads(file, opened)
                elif file.kind == "csv":
                    yield from csv_rows(self._lines(file, opened), self.columns, file.name)
                else:
                    yield from json_rows(self._lines(file, opened), self.columns, file.name)
        except InvalidInput as error:
            raise InvalidInput(f"{file.shown}: {error.message}") from None
        except OSError as error:
            raise InvalidInput(f"{file.shown}: {reason_of(error)}") from None

    def _first_records(self) -> Iterator[dict[str, Any]]:
        """Yield what JSON lines begin with, as they are now; what makes them unreadable is said when they are read."""
        with contextlib.suppress(InvalidInput, OSError):
            for file in self._files:
                if file.kind == "jsonl":
                    with file.opened() as opened:
                        yield from first_records(_lines_there(file, opened))

    def _lines(self, file: InputFile, opened: Any) -> Iterator[Line]:
        if self._following is not None:
            return lines_of(growing_chunks(opened, lambda: os.fstat(opened.fileno()).st_size, self._following))
        return _lines_there(file, opened)

    def _parquet_reads(self, file: InputFile, opened: Any) -> Iterator[Read]:
        wanted = None if self.columns.given is None else sorted(set(self.columns.read.values()))
        number = 0
        try:
            table = _parquet(opened)
            batches = table.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False)
            for read in table_rows(batches, self.columns, file.name):
                yield read
                number += 1
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(f"it cannot be read after {number:,} rows: {reason_of(error)}") from None

    def _opened(self, file: InputFile) -> int | None:
        """Check what a file's header or footer says; return how many rows it has, if that is said there."""
        try:
            with file.opened() as opened:
                if file.kind == "parquet":
                    table = _parquet(opened)
                    self.columns.check(table.schema_arrow.names, "its columns")
                    return int(table.metadata.num_rows)
                if file.kind == "csv":
                    csv_header(csv_records(_lines_there(file, opened)), self.columns)
        except InvalidInput as error:
            raise InvalidInput(f"{file.shown}: {error.message}") from None
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(f"{file.shown}: {reason_of(error)}") from None
        return None


def _lines_there(file: InputFile, opened: Any) -> Iterator[Line]:
    return lines_of(unpacked(chunks_of(opened)) if file.is_gzip else chunks_of(opened))


def _parquet(opened: Any) -> Any:
    """Return a Parquet file that keeps little of itself in memory, and knows damaged pages where they have
    checksums."""
    return parquet.ParquetFile(
        opened, buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
    )


def _check_may_grow(files: list[InputFile]) -> None:
    file = files[0]
    if len(files) > 1 or file.path is None or file.is_gzip or file.kind == "parquet":
        raise InvalidInput(
            f"{file.shown}: what is followed as it grows is one local file of JSON lines or CSV, not packed"
        )


def _digest(file: InputFile, size: int) -> tuple[str, int, int]:
    """Return the digest of a file's first bytes, of how many there were, and how many lines they are."""
    digest, read, lines, last = hashlib.blake2b(digest_size=32), 0, 0, b"\n"
    for data in bytes_of(file, size):
        digest.update(data)
        read += len(data)
        lines += data.count(b"\n")
        last = data[-1:] or last
    return digest.hexdigest(), read, lines + (last != b"\n")


def _changed(file: InputFile, described: dict[str, Any], *, is_last: bool) -> str:
    """Return what differs between a file and its description, in a line; "" if it begins with what is described."""
    size = described["size"]
    if file.kind != described["kind"]:
        return f"{file.shown}: it was {described['kind']}, and now is {file.kind}"
    if file.size < size:
        return f"{file.shown}: shorter, {file.size:,} bytes where it had {size:,}"
    if file.size > size and (file.kind == "parquet" or not is_last):
        return f"{file.shown}: changed, {file.size:,} bytes where it had {size:,}"
    digest, _, _ = _digest(file, size)
    return "" if digest == described["blake2b"] else f"{file.shown}: changed"
