"""Checking a journal: every link of the log's chains, every checkpoint, and the projection against both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb
import msgspec
from duckdb import DuckDBPyConnection as Database

from airside.actors.journal.checkpoints import read_checkpoints
from airside.actors.journal.log_port import CHUNK_ROWS, LogReader, Row
from airside.actors.journal.projection import QUERIES, Projection
from airside.actors.models.blobs import BLOBS, blob_problem
from airside.stack.errors import Behind, Unreadable
from airside.stack.journal.journaling import GENESIS, Entry, beginning, link
from airside.stack.models.blobs import names_in
from airside.stack.models.events import ModelAsked, read_events
from airside.stack.values import tag_of

Head = tuple[int, bytes]
"""The number of a chain's latest entry, and its link."""


class Chains:
    """The chains of some tenants, recomputed entry by entry; the first break of each is a problem."""

    def __init__(self, key: bytes, wanted: Mapping[str, Mapping[int, bytes]], where: str = "") -> None:
        self.problems: list[str] = []
        self.heads: dict[str, Head] = {}
        self._key = key
        self._wanted = wanted
        self._where = where
        self._seen: dict[str, dict[int, bytes]] = {}
        self._broken: set[str] = set()

    def take(self, rows: Iterable[Row]) -> None:
        """Check entries that follow those before."""
        for tenant, number, stream, seq, epoch, step, cause, at_us, kind, body, stored in rows:
            if tenant in self._broken:
                continue
            last, before = self.heads.get(tenant) or (-1, beginning(self._key, tenant))
            text = body.encode(errors="replace") if isinstance(body, str) else b""  # what is damaged may be anything
            entry = Entry(type=kind, step=step, at_us=at_us, cause=cause, body=text)
            mac = link(self._key, before, number, stream, seq, epoch, entry)
            if last < 0 and mac != stored:  # as chains began before
                mac = link(self._key, GENESIS, number, stream, seq, epoch, entry)
            if number != last + 1 or mac != stored:
                self._broken.add(tenant)
                self.problems.append(
                    f"{self._where}tenant {tenant}: the chain breaks at entry {last + 1} ({stream}#{seq})"
                )
                continue
            self.heads[tenant] = (number, mac)
            if number in self._wanted.get(tenant, ()):
                self._seen.setdefault(tenant, {})[number] = mac

    def end(self) -> None:
        """Compare with what checkpoints saw."""
        for tenant, marks in self._wanted.items():
            for number, mac in marks.items():
                if self._seen.get(tenant, {}).get(number) != mac:
                    self.problems.append(
                        f"{self._where}tenant {tenant}: entry {number} is not what a checkpoint saw, or is missing"
                    )


class NamedBlobs:
    """The blobs that entries name: each is to be there, with the bytes it is named by."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._named: dict[str, str] = {}

    def take(self, rows: Iterable[Row]) -> None:
        """Note what entries name, and where first."""
        for _, _, stream, seq, _, _, _, _, kind, body, _ in rows:
            if kind == _NAMING and isinstance(body, str):
                with contextlib.suppress(msgspec.MsgspecError):
                    for name in names_in(read_events([body])[0]):
                        self._named.setdefault(name, f"{stream}#{seq}")

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with them."""
        for name, where in self._named.items():
            problem = blob_problem(self._folder, name)
            if problem:
                yield f"blobs: {where}: {problem}"


_NAMING = tag_of(ModelAsked)


def problems_of(folder: Path, key: bytes, log: LogReader, projection: Projection) -> list[str]:
    """Return what is wrong with a journal; nothing if it is whole.  Whoever appends meanwhile is not held up."""
    problems: list[str] = []
    # In this order: what a checkpoint saw is in the log before it is looked at.
    wanted = read_checkpoints(folder, key, problems)
    chains, blobs = Chains(key, wanted), NamedBlobs(folder / BLOBS)
    try:
        until, noted = log.ends()
        ends: dict[str, int] = {}
        for rows in log.chunks(0, until, tolerant=True):
            chains.take(row[1:] for row in rows)
            blobs.take(row[1:] for row in rows)
            ends.update((row[1], row[0]) for row in rows)
        chains.end()
        problems += chains.problems + _problems_of_ends(noted, ends) + log.faults() + list(blobs.problems())
    except Unreadable as error:
        return [*problems, *chains.problems, error.message]
    try:
        problems += projection.ask(until, lambda database: _problems_of_tables(database, key, chains, until))
    except (Behind, Unreadable, duckdb.Error) as error:
        problems.append(f"projection: {error}")
    return problems


def _problems_of_ends(noted: Mapping[str, int], ends: Mapping[str, int]) -> list[str]:
    """Return whose chain does not end where that is noted: the next process would go on from there."""
    wrong = [tenant for tenant in {**noted, **ends} if noted.get(tenant) != ends.get(tenant)]
    return [
        f"tenant {tenant}: the chain ends at position {ends.get(tenant)}, and is noted to end at {noted.get(tenant)}"
        for tenant in sorted(wrong, key=str)
    ]


def _problems_of_tables(database: Database, key: bytes, log: Chains, until: int) -> list[str]:
    """Return what is wrong with the projection, of which the log's entries are known until a position."""
    problems: list[str] = []
    database.execute("BEGIN")
    tables = Chains(key, {tenant: {number: mac} for tenant, (number, mac) in log.heads.items()}, "projection: ")
    ((position,),) = database.execute("SELECT position FROM projected").fetchall()
    for (tenant,) in database.execute(QUERIES["tenants"]).fetchall():
        database.execute(QUERIES["chain"], [tenant])
        while rows := database.fetchmany(CHUNK_ROWS):
            tables.take(rows)
    tables.end()
    problems += tables.problems
    if position == until and tables.heads != log.heads:
        problems.append("projection: it has entries that the log has not")
    for table in ("runs", "outcomes"):
        for (run,) in database.execute(QUERIES[f"false_{table}"]).fetchall():
            problems.append(f"{table}: the row of {run} is not what the events say")
    database.execute("ROLLBACK")
    if problems:
        problems.append("projection: stop the stack and remove the folder `projection`: it is made again from the log")
    return problems
