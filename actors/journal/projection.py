"""The journal's projection: the log's entries as DuckDB tables, which every query is asked of.

It is behind the log, is caught up before it answers, and is made again from the log where it is missing, damaged, of
another version or of another log.  Nothing is lost with it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection as Database

from airside.actors.journal.log_port import LogReader, Row
from airside.actors.journal.named_sql import load_sql
from airside.actors.journal.rows import table_row
from airside.actors.journal.tail import Tail
from airside.stack.errors import Behind, Unreachable, Unreadable, text_of

logger = logging.getLogger("airside")

PROJECTION = Path("projection") / "journal.duckdb"
"""In a folder of its own that only its user may enter: DuckDB makes files that others may read.  One that is made again
gets a number."""

LOCKED: dict[str, str | bool | int | float | list[str]] = {"enable_external_access": False, "lock_configuration": True}
"""Queries come from people: nothing but the database's own tables may be reached through them."""

QUERIES = load_sql("queries.sql")

_VERSION = 1
"""Of what is made of an entry; of the tables their text tells."""
_FORMAT = f"{_VERSION}:{zlib.crc32(QUERIES['schema'].encode()):08x}"

_CONFIG = {
    # A commit is a few thousand rows: handing it to other threads costs more than they save (a sixth of the CPU).
    "threads": 1,
    # By itself DuckDB folds its log into the file in the middle of a commit, while queries wait for that: see `fold`.
    "wal_autocheckpoint": "256MB",
}
FOLD_BYTES = 64 * 2**20
"""A log of DuckDB's smaller than this is left as it is."""

_HEADERS_BYTES = 3 * 4096
"""What a DuckDB file begins with, before its blocks."""

_DAMAGED = (duckdb.Error, duckdb.IOException, duckdb.FatalException, duckdb.InternalException)
"""What DuckDB raises of a file it cannot read; of a wrong query it raises other kinds."""

SOUND = "SELECT bit_xor(hash(t)) FROM {} t"
"""Reads every block of a table."""

_TEXT, _INT = pa.string(), pa.int64()
_EVENTS = pa.schema(
    [
        ("tenant", _TEXT),
        ("number", _INT),
        ("stream", _TEXT),
        ("seq", _INT),
        ("epoch", _INT),
        ("step", _INT),
        ("cause", _INT),
        ("at_us", _INT),
        ("type", _TEXT),
        ("body", _TEXT),
        ("mac", pa.binary()),
    ]
)

Answer = TypeVar("Answer")


class Projection:
    """The tables of a log; from any thread.  With `aside`, a folder, nothing at `path` is changed.

    What fits the log is then read where it lies, anything else is copied or made in that folder.  `tail` is what the
    log's writer still has of it in memory.
    """

    def __init__(self, path: Path, log: LogReader, *, aside: Path | None = None, tail: Tail | None = None) -> None:
        self.path = path
        self.position = 0
        """Up to which entry of the log it is."""
        self._log = log
        self._tail = tail or Tail()
        self._aside = aside
        self._db: Database | None = None
        self._feeding = threading.Lock()
        self._ended = False
        self._was_open = False

    def catch_up(self, until: int) -> None:
        """Take in the log's entries up to a position; raise `Behind` if they cannot be."""
        if self._db is not None and self.position >= until:
            return
        with self._feeding:
            try:
                try:
                    self._feed(until)
                except duckdb.Error as error:
                    if not _is_damage(error):
                        raise
                    self._mend(error)
                    self._feed(until)
            except Exception as error:
                full = f"the disk of {self.path.parent} is full: make room. " if _is_full(error) else ""
                raise Behind(
                    f"{full}{self.path}: the tables that queries are asked of lack entries of the log after "
                    f"{self.position}, and cannot take them in: {text_of(error, 500)}"
                ) from error

    def _feed(self, until: int) -> None:
        if self._db is None:
            self._db = self._opened()
        for rows in self._rows(until):
            self._take_in(self._db, rows)
            if self._ended:
                break
        if self.position < until:
            raise Behind("it is being closed" if self._ended else f"the log has no entry {self.position + 1:,}")

    def _rows(self, until: int) -> Iterator[Sequence[Row]]:
        """Yield what is to be taken in, a bounded number at a time."""
        while self.position < until:
            rows = self._tail.rows_or_logged(self._log, self.position, until)
            if not rows:
                return
            yield rows
            self._tail.forget(self.position)

    def _take_in(self, database: Database, rows: Sequence[Row]) -> None:
        submitted = [_made_of(row) for row in rows if row[9] == "RunSubmitted"]
        ended = [_made_of(row) for row in rows if row[9] == "RunEnded"]
        streams = [row[3] for row in rows if row[4] == 0]
        columns = list(zip(*rows, strict=True))[1:]
        events = [pa.array(column, type=field.type) for column, field in zip(columns, _EVENTS, strict=True)]
        database.execute("BEGIN")
        try:
            _insert(database, "events", pa.Table.from_arrays(events, schema=_EVENTS))
            _insert(database, "streams", pa.table({"stream": pa.array(streams, _TEXT)}))
            _insert_rows(database, "runs", submitted)
            _insert_rows(database, "outcomes", ended)
            database.execute("UPDATE projected SET position = ?, mac = ?", [rows[-1][0], rows[-1][11]])
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):  # it may have ended the transaction itself
                database.execute("ROLLBACK")
            raise
        self.position = rows[-1][0]

    # Asking.

    def ask(self, until: int, work: Callable[[Database], Answer]) -> Answer:
        """Do work on a connection of its own, once entries up to a position are taken in.

        Raises `Behind` if they cannot be, and `Unreadable` if the tables cannot be read, even made again.
        """
        try:
            return self._ask(until, work)
        except _DAMAGED as error:
            if not _is_damage(error):
                raise
            with self._feeding:
                try:
                    self._mend(error)
                except Exception as worse:
                    raise Behind(f"{self.path}: it cannot be opened again: {text_of(worse, 500)}") from error
        try:
            return self._ask(until, work)
        except _DAMAGED as error:
            if not _is_damage(error):
                raise
            raise Unreadable(f"{self.path}: it is damaged: {error}") from None

    def _ask(self, until: int, work: Callable[[Database], Answer]) -> Answer:
        self.catch_up(until)
        database = self._db
        if database is None:
            raise Behind(f"{self.path}: it is being opened again: ask again")
        cursor = database.cursor()
        try:
            # Of these very tables: another thread may have put others in their place since they were caught up.
            ((position,),) = cursor.execute("SELECT position FROM projected").fetchall()
            if position < until:
                raise Behind(f"{self.path}: it is being made again: ask again")
            return work(cursor)
        finally:
            cursor.close()

    # Opening, and making again.

    def _opened(self) -> Database:
        if self._aside is not None:
            self.path = _latest(self.path)
            database = self._fitting(read_only=True)
            if database is not None and self.position == self._log.last():
                return database
            self._move_aside(self._aside, database)
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = _latest(self.path)
        return self._fitting() or self._made()

    def _fitting(self, *, read_only: bool = False) -> Database | None:
        """Return the database if it is whole and of this log as it is now; set `position`."""
        database: Database | None = None
        try:
            if self.path.exists():
                database = duckdb.connect(str(self.path), read_only=read_only, config=_CONFIG)
                check_length(self.path, database)
                ((log, kind, position, mac),) = database.execute("FROM projected").fetchall()
                known = self._log.mac_at(position) if position else b""
                if (log, kind, bytes(mac)) == (self._log.log, _FORMAT, known):
                    self.position, self._was_open = position, True
                    return _locked(database)
        except (duckdb.Error, Unreadable, ValueError) as error:
            if isinstance(error, Unreachable) or (is_held(error) and not read_only):
                if database is not None:
                    database.close()
                raise
            logger.warning("%s cannot be read: %s", self.path, error, extra={"action": "projection_unreadable"})
        if database is not None:
            database.close()
        return None

    def _made(self) -> Database:
        """Return a new database.

        It has a path that was never open: for one that a query still reads DuckDB would give the old tables again.
        What cannot be removed of the old ones is in its way as little.
        """
        before = _files(self.path)
        for old in before:
            _remove(old)
        if before or self._was_open:
            self.path = _unused(self.path)
        self._was_open = True
        database = duckdb.connect(str(self.path), config=_CONFIG)
        database.execute(QUERIES["schema"])
        database.execute("INSERT INTO projected VALUES (?, ?, 0, ''::BLOB)", [self._log.log, _FORMAT])
        self.position = 0
        return _locked(database)

    def _move_aside(self, folder: Path, database: Database | None) -> None:
        target = folder / "projection" / self.path.name  # apart from the log, which may be copied there too
        target.parent.mkdir(exist_ok=True)
        if database is not None:
            database.close()
            for name in (self.path.name, _wal(self.path).name):
                with contextlib.suppress(OSError):
                    shutil.copyfile(self.path.with_name(name), target.with_name(name))
        self.path, self._aside = target, None

    def _mend(self, error: BaseException) -> None:
        """Open the tables again, and make them again if they are damaged in truth, not only for one query."""
        self._db = None  # not closed: others may read it
        self._db = self._opened()
        try:
            for table in ("events", "runs", "outcomes", "streams", "projected"):
                self._db.execute(SOUND.format(table)).fetchall()
        except duckdb.Error:
            logger.warning("%s is made again: %s", self.path, error, extra={"action": "projection_made_again"})
            self._db = None
            if self._aside is not None:
                self._move_aside(self._aside, None)
            self._db = self._made()

    def fold(self) -> bool:
        """Fold DuckDB's log into its file if it has grown; return whether it was done."""
        log = _wal(self.path)
        with self._feeding:
            if self._db is None or not log.exists() or log.stat().st_size < FOLD_BYTES:
                return False
            try:
                self._db.execute("CHECKPOINT")
            except duckdb.TransactionException:
                return False  # a query reads: another time
        return True

    def end(self) -> None:
        """Have a feed that is under way end after what it has begun."""
        self._ended = True

    def close(self) -> None:
        """Close the database as it is; whoever reads it still is cut off."""
        self.end()
        with self._feeding:
            database, self._db = self._db, None
            if database is not None:
                with contextlib.suppress(duckdb.Error):
                    database.close()


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _files(path: Path) -> list[Path]:
    """Return what there is of a projection, however often it was made again: databases, and what is beside them."""
    first, _ = _named(path)
    ours = (first.suffix, f"{first.suffix}.wal", f"{first.suffix}.tmp")
    return [each for each in path.parent.glob(f"{first.stem}.*") if each.name.endswith(ours)]


def _named(path: Path) -> tuple[Path, int]:
    """Return the path of the first database, and how often it was made again: `journal.2.duckdb` was twice."""
    stem, _, number = path.stem.partition(".")
    return path.with_name(stem + path.suffix), int(number) if number.isdecimal() else 0


def _unused(path: Path) -> Path:
    """Return the path of the next database, of which nothing is there: DuckDB would take it for the new one's."""
    first, number = _named(path)
    left = {each.name for each in _files(path)}
    for after in itertools.count(number + 1):
        name = f"{first.stem}.{after}{first.suffix}"
        if not any(each.startswith(name) for each in left):
            return first.with_name(name)
    raise AssertionError("there is no end of numbers")


def _remove(path: Path) -> None:
    """Remove a database's file or folder (where DuckDB puts what finds no room in memory), as far as can be."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _latest(path: Path) -> Path:
    """Return the database that was made last, or where the first one is to be."""
    found = [each for each in _files(path) if each.suffix == path.suffix]
    return max(found, key=lambda each: _named(each)[1], default=path)


def _locked(database: Database) -> Database:
    if database.execute("SELECT current_setting('lock_configuration')").fetchall() == [(True,)]:
        return database  # somebody still reads what was opened before
    for option, value in LOCKED.items():
        database.execute(f"SET {option} = {str(value).lower()}")
    return database


def is_held(error: BaseException) -> bool:
    """Whether DuckDB says that another process has the file."""
    return "Could not set lock" in str(error)


def _is_damage(error: BaseException) -> bool:
    return type(error) in _DAMAGED and not is_held(error) and not _is_full(error)


def _is_full(error: BaseException) -> bool:
    return "No space left" in str(error)


def check_length(path: Path, database: Database) -> None:
    """Raise `Unreadable` if the file's end is cut: DuckDB itself sees it only where it reads there."""
    found = database.execute("SELECT block_size, total_blocks FROM pragma_database_size()").fetchall()
    whole = _HEADERS_BYTES + sum(size * count for size, count in found)
    length = path.stat().st_size
    if length < whole:
        raise Unreadable(f"{path}: it is cut: {length:,} of {whole:,} bytes are there")


def _insert(database: Database, table: str, data: pa.Table) -> None:
    if data.num_rows:
        database.register("incoming", data)
        database.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - a table's name of ours
        database.unregister("incoming")


def _insert_rows(database: Database, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        schema = pa.schema([(n, _INT if type(v) is int else _TEXT) for n, v in rows[0].items()])
        _insert(database, table, pa.Table.from_pylist(rows, schema=schema))


def _made_of(row: Row) -> dict[str, Any]:
    try:
        return table_row(row[9], row[1], row[3], row[10])
    except (ValueError, TypeError, AttributeError) as error:
        raise Unreadable(
            f"entry {row[0]} ({row[3]}#{row[4]}) is damaged: {error}: run `airside audit verify`"
        ) from None
