"""Reading a journal: by the one who writes it, or by anybody, who changes nothing in its folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection as Database

from airside.actors.journal.carry import make_log
from airside.actors.journal.isolated_sql import answer_apart
from airside.actors.journal.log import JOURNAL, SqliteLogReader, check_header, is_written
from airside.actors.journal.log_port import CHUNK_ROWS, LogReader, Row
from airside.actors.journal.place import BEFORE, read_place
from airside.actors.journal.projection import PROJECTION, QUERIES, Projection
from airside.actors.journal.sql_apart import problem_of
from airside.actors.journal.tail import Tail
from airside.actors.journal.verify import problems_of
from airside.stack.canonical import as_text
from airside.stack.errors import Behind, InvalidInput, Unreadable
from airside.stack.journal.feed import ALL, PAGE_BYTES, PAGE_ENTRIES

MAX_ROWS = 1_000_000
"""Rows a query may return; more belongs in an export."""

_COPIES = 3
"""How often a log that a crash left is copied to be read, should a stack be started on it meanwhile."""


class JournalReader:
    """A journal as it can be read; from any thread."""

    def __init__(
        self,
        folder: Path,
        log: LogReader,
        projection: Projection,
        chain_key: bytes,
        aside: Path | None = None,
        tail: Tail | None = None,
    ) -> None:
        self.chain_key = chain_key
        self._folder = folder
        self._reader = log
        self._projection = projection
        self._aside = aside
        self._tail = tail or Tail()

    @classmethod
    def open(cls, folder: Path, chain_key: bytes) -> JournalReader:
        """Open the journal of a folder, changing nothing there; raise `Unreadable` saying why it cannot be.

        A log that is being written is read beside its writer.  What a crash or a copy left of one, and a journal of
        before there was a log, is read as a copy in the system's folder for temporary files.  One in a database is read
        there.
        """
        aside = Path(tempfile.mkdtemp(prefix="airside-"))
        try:
            log = _log_of(folder, aside)
            return cls(folder, log, Projection(folder / PROJECTION, log, aside=aside), chain_key, aside)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def release(self) -> None:
        """Close the files as they are."""
        self._projection.close()
        self._reader.close()
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)

    def last(self) -> int:
        """Return the position of the latest entry."""
        return self._reader.last()

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams, oldest first: from the log, whatever the projection is like."""
        return self._reader.bodies(streams)

    def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a named query over all that is durable; raise `Behind` if that cannot be had."""
        return self.read(name, parameters)

    def read(self, name: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """As `rows`, with the parameters in a list."""
        return self._projection.ask(
            self.last(), lambda database: database.execute(QUERIES[name], list(parameters)).fetchall()
        )

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> bytes:
        """Answer one SELECT over all that is durable as an Arrow IPC stream.

        Raises `InvalidInput` for anything else, and `Behind` or `Unreadable` if it cannot be answered.
        """
        if as_text(sql) != sql:
            raise InvalidInput(f"audit query: it has characters that are no text: {as_text(sql)[:200]}")

        def answer(database: Database) -> pa.Table:
            statements = database.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InvalidInput("audit query: give exactly one SELECT; the journal is read-only")
            return database.sql(sql, params=list(parameters)).to_arrow_table()

        try:
            table = self._projection.ask(self.last(), answer)
        except duckdb.Error as error:
            raise InvalidInput(f"audit query: {problem_of(error)}") from None
        if table.num_rows > MAX_ROWS:
            raise InvalidInput(f"audit query: {table.num_rows:,} rows are over the bound of {MAX_ROWS:,}; add a LIMIT")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    def query_apart(self, sql: str, parameters: Sequence[Any], *, tenant: str | None, since_us: int) -> bytes:
        """Answer one SELECT over all that is durable of a tenant (of all, if it is None) since a time, as JSON.

        It has nobody else's rows (`isolated_sql`).  Raises as `query` does.
        """
        if as_text(sql) != sql:
            raise InvalidInput(f"audit query: it has characters that are no text: {as_text(sql)[:200]}")
        return self._projection.ask(
            self.last(),
            lambda database: answer_apart(database, sql, parameters, tenant=tenant, since_us=since_us),
        )

    def page(self, feed: str, after: int) -> list[Row]:
        """Return the entries of a feed that follow the first `after` of it, without a gap, at least one.

        What is old is read from the tables, as far as they are, and what they lack from the log: nobody has them catch
        up, unless they are far behind.  Raises `Behind` or `Unreadable` if the next entry cannot be read.
        """
        until = self.last()
        if feed == ALL:
            rows = self._tail.rows_or_logged(self._reader, after, min(until, after + PAGE_ENTRIES))
            return _gapless(rows, feed, after, column=0, first=after + 1)
        rows, position = self._projection.ask(max(0, until - CHUNK_ROWS), lambda tables: _older(tables, feed, after))
        while not rows and position < until:
            latest = self._tail.rows_or_logged(self._reader, position, until)
            rows = [row for row in latest if row[1] == feed and row[2] >= after]
            position = latest[-1][0] if latest else until
        return _gapless(rows, feed, after, column=2, first=after)

    def verify(self) -> list[str]:
        """Return what is wrong with the chains, the checkpoints and the projection; nothing if the journal is whole."""
        return problems_of(self._folder, self.chain_key, self._reader, self._projection)


def _older(tables: Database, feed: str, after: int) -> tuple[list[Row], int]:
    """Return a tenant's entries as the tables have them, and up to which position that is all there is."""
    ((position,),) = tables.execute("SELECT position FROM projected").fetchall()
    return tables.execute(QUERIES["feed"], [feed, after, after + PAGE_ENTRIES, PAGE_BYTES]).fetchall(), position


def _gapless(rows: list[Row], feed: str, after: int, *, column: int, first: int) -> list[Row]:
    """Return the first rows, within the bounds of a page, whose numbers follow one another from the first on."""
    found: list[Row] = []
    size = 0
    for number, row in enumerate(rows[:PAGE_ENTRIES], first):
        size += len(row[10])
        if row[column] != number or (found and size > PAGE_BYTES):
            break
        found.append(row)
    if not found:
        raise Behind(f"entry {after + 1:,} of the feed {feed} cannot be read now: ask again")
    return found


def _log_of(folder: Path, aside: Path) -> LogReader:
    if url := read_place(folder).get("url"):
        from airside.actors.journal.postgres_reader import PostgresLogReader  # the extra `postgres`

        return PostgresLogReader(url)
    path = folder / JOURNAL
    if not path.exists() and (folder / BEFORE).exists():
        make_log(folder / BEFORE, aside / JOURNAL)
        return SqliteLogReader(aside / JOURNAL, still=True, copy_of=folder / BEFORE)
    for _ in range(_COPIES):
        is_live = is_written(folder)
        is_still = not is_live and not _has_wal(path)
        check_header(path, still=is_still)
        if is_live or is_still:
            return SqliteLogReader(path, still=is_still)
        if _copied(path, aside / JOURNAL):
            return SqliteLogReader(aside / JOURNAL, copy_of=path)
    raise Unreadable(f"{path}: it is being written: is a stack up there? Ask again")


def _has_wal(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return _wal(path).stat().st_size > 0
    return False


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _copied(path: Path, target: Path) -> bool:
    """Copy a log that nobody writes, with what it has in its write-ahead log; return whether nobody wrote meanwhile."""
    before = _looks(path)
    shutil.copyfile(path, target)
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(_wal(path), _wal(target))
    return before == _looks(path) and not is_written(path.parent)


def _looks(path: Path) -> list[tuple[int, int]]:
    found = []
    for each in (path, _wal(path)):
        with contextlib.suppress(FileNotFoundError):
            status = each.stat()
            found.append((status.st_size, status.st_mtime_ns))
    return found
