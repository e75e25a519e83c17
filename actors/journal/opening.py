"""Opening the log of a state directory, wherever it is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from airside.actors.journal.carry import carry_over
from airside.actors.journal.checkpoints import read_checkpoints
from airside.actors.journal.log import JOURNAL, SqliteLog, SqliteLogReader
from airside.actors.journal.log_port import Log, LogReader
from airside.actors.journal.place import has_file, read_place, write_place
from airside.actors.journal.postgres_session import where
from airside.stack.errors import Misuse, Unreadable
from airside.stack.journal.journaling import GENESIS, Entry, beginning, link

Written = TypeVar("Written", bound=Log)


def open_log(folder: Path, key: bytes, url: str = "") -> tuple[Log, LogReader]:
    """Open or make the log of a folder, whose lock for writing the caller holds, for appending and for reading.

    Without a URL it is where the folder says, which is a file there unless it names a database.  Raises `Misuse` if
    that is another journal's, or in use, and `Unreadable` or `Unreachable` if it cannot be had.
    """
    known = read_place(folder)
    url = url or known.get("url", "")
    if not url:
        carry_over(folder)
        return _both(SqliteLog(folder), lambda: SqliteLogReader(folder / JOURNAL))
    if has_file(folder):
        raise Misuse(
            f"{folder} has a journal of its own, in {JOURNAL}: it is not in {where(url)}. Start without journal=..., "
            "or with another state directory"
        )
    from airside.actors.journal.postgres_log import PostgresLog  # the extra `postgres`
    from airside.actors.journal.postgres_reader import PostgresLogReader

    if known:  # a database that was lost, or another one, is not to be begun anew
        before = PostgresLogReader(url)
        before.close()
        if before.log != known["log"]:
            raise Misuse(
                f"{folder} belongs to another journal than the one in {where(url)}: name the database it is in, or "
                "another state directory"
            )
    log = PostgresLog(url, _session_name(folder, key))
    reader: LogReader
    log, reader = _both(log, lambda: PostgresLogReader(url))
    try:
        _check_key(reader, key, f"the journal in {where(url)} was written with other keys than those in {folder}")
        _check_whole(folder, key, log.chains(), where(url))
        if known.get("url") != url:
            write_place(folder, url, log.log)
    except BaseException:
        reader.close()
        log.close()
        raise
    return log, reader


def _session_name(folder: Path, key: bytes) -> str:
    """Return a name for the session that appends, the same for every process of this very folder.

    By it a process ends the session of the one it follows: a copy of the folder has its keys, but follows nobody.
    """
    real = folder.resolve()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")  # not that of a copied disk elsewhere
    return beginning(key, f"{boot}|{real}|{os.stat(real).st_ino}").hex()[:12]


def _both(log: Written, reader: Callable[[], LogReader]) -> tuple[Written, LogReader]:
    try:
        return log, reader()
    except BaseException:
        log.close()
        raise


def _check_key(log: LogReader, key: bytes, otherwise: str) -> None:
    """Raise `Misuse` if the first link is not one that the key makes."""
    for rows in log.chunks(0, 1):
        _, tenant, number, stream, seq, epoch, step, cause, at_us, kind, body, mac = rows[0]
        entry = Entry(type=kind, step=step, at_us=at_us, cause=cause, body=body.encode())
        firsts = (beginning(key, tenant), GENESIS)
        if all(link(key, first, number, stream, seq, epoch, entry) != bytes(mac) for first in firsts):
            raise Misuse(f"{otherwise}: put back the keys it was written with, or name another database")


def _check_whole(folder: Path, key: bytes, chains: Mapping[str, tuple[int, bytes]], at: str) -> None:
    """Raise `Unreadable` if a chain ends before what a sealed checkpoint saw, or otherwise: the store lost its latest.

    To go on from there would give the same numbers to other entries.  What came after the latest checkpoint is not
    known here.
    """
    for tenant, seen in read_checkpoints(folder, key, []).items():
        number, mac = chains.get(tenant, (-1, b""))
        if number < max(seen) or seen.get(number, mac) != mac:
            raise Unreadable(
                f"{at}: it lacks entries of tenant {tenant} that were acknowledged: it ends at {number:,}, and a "
                f"checkpoint saw {max(seen):,}. Was it restored from an older copy, or a standby promoted that commits "
                "did not wait for? Bring the latest back; `airside audit verify` says what is missing"
            )
