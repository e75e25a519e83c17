"""Carrying over: a journal of before there was a log, one DuckDB file, becomes a log with the same chains."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb

from airside.actors.journal.log import (
    JOURNAL,
    UNDOING,
    check_alone,
    insert_rows,
    make_schema,
    sync_folder,
)
from airside.actors.journal.log_port import CHUNK_ROWS, Row
from airside.actors.journal.place import BEFORE
from airside.actors.journal.projection import LOCKED, check_length, is_held
from airside.stack.errors import Misuse, Unreadable

logger = logging.getLogger("airside")

_DONE = ".carried-over"
"""What is added to its name when all of it is in the log."""


def carry_over(folder: Path) -> None:
    """Make a folder's log of the journal it has of before, once; the caller holds the writer's lock.

    The log is there whole or not at all: a crash on the way leaves the journal as it was, and the next start begins
    again.  Raises `Unreadable` if that journal cannot be read, and `Misuse` if it has entries that a log beside it has
    not, or what belongs to another log lies there.
    """
    before, log = folder / BEFORE, folder / JOURNAL
    part = folder / f"{JOURNAL}.part"
    part.unlink(missing_ok=True)
    if not before.exists():
        return
    if not log.exists() or not log.stat().st_size:
        check_alone(log)
        log.with_name(log.name + UNDOING).unlink(missing_ok=True)
        make_log(before, part)
        part.replace(log)
        sync_folder(folder)
        logger.info("%s was carried over into %s", before, log, extra={"action": "journal_carried_over"})
    if not _is_contained(before, log):
        raise Misuse(
            f"{before} has entries that {log} has not: move the one away that is not the journal, with all that is "
            f"beside it under its name: {log.name}-wal and {log.name}-shm belong to {log.name}"
        )
    for path in (before, before.with_name(f"{BEFORE}.wal")):
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(path.name + _DONE))
    sync_folder(folder)


def make_log(before: Path, target: Path) -> None:
    """Write the log of a journal of before, durably; nothing of that journal is changed."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = FULL")
        make_schema(database)
        database.execute("BEGIN IMMEDIATE")
        position = 0
        numbers: dict[str, int] = {}
        for rows in _chunks(before):
            fresh = dict.fromkeys(row[2] for row in rows if row[2] not in numbers)
            numbered = {stream: number for number, stream in enumerate(fresh, len(numbers) + 1)}
            numbers |= numbered
            insert_rows(database, rows, position, numbers, numbered)
            position += len(rows)
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode = WAL")


def _is_contained(before: Path, log: Path) -> bool:
    """Whether a log has the latest entry of each chain, and so, by the links, every entry."""
    heads = {(row[0], row[10]): row[1] for rows in _chunks(before, heads=True) for row in rows}
    with contextlib.closing(sqlite3.connect(log)) as database:
        for tenant, number, mac in database.execute("SELECT tenant, number, mac FROM entries"):
            if heads.get((tenant, mac)) == number:
                del heads[(tenant, mac)]
    return not heads


def _chunks(before: Path, *, heads: bool = False) -> Iterator[list[Row]]:
    """Yield the rows of a journal of before, in the order in which they were written."""
    try:
        with contextlib.closing(duckdb.connect(str(before), read_only=True, config=LOCKED)) as database:
            check_length(before, database)
            latest = "QUALIFY number = max(number) OVER (PARTITION BY tenant)" if heads else ""
            found = database.execute(f"SELECT * FROM events {latest} ORDER BY rowid")  # noqa: S608 - ours
            while rows := found.fetchmany(CHUNK_ROWS):
                yield rows
    except duckdb.Error as error:
        if is_held(error):
            raise Unreadable(f"{before}: another process has it open: is its stack up? ({error})") from None
        raise Unreadable(f"{before}: this is no whole journal: {error}") from None
