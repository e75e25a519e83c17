"""Reading the journal's file: by the one who writes it, or, where no stack runs, by anybody, who changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from airside.stack.canonical import as_text
from airside.stack.errors import InvalidInput, Unreadable
from airside.stack.journaling import GENESIS, Entry, link
from airside.stack.sealing import is_sealed

JOURNAL = "journal.duckdb"

_QUERY = re.compile(r"^-- name: (\w+)\n((?:(?!^-- name: ).*\n?)*)", re.MULTILINE)

MAX_ROWS = 1_000_000
"""Rows a query may return; more belongs in an export."""

LOCKED: dict[str, str | bool | int | float | list[str]] = {"enable_external_access": False, "lock_configuration": True}
"""Queries come from people: nothing but the database's own tables may be reached through them."""

_DAMAGED = (duckdb.Error, duckdb.IOException, duckdb.FatalException, duckdb.InternalException)
"""What DuckDB raises of a file it cannot read; of a wrong query it raises other kinds."""


def load_queries() -> dict[str, str]:
    """Return the named queries of `queries.sql`."""
    text = (files("airside.actors") / "queries.sql").read_text(encoding="utf-8")
    return dict(_QUERY.findall(text))


_HEADERS_BYTES = 3 * 4096
"""What a DuckDB file begins with, before its blocks."""


def _check_length(path: Path, database: duckdb.DuckDBPyConnection) -> None:
    """Raise `Unreadable` if the file's end is cut: DuckDB itself sees it only where it reads there."""
    found = database.execute("SELECT block_size, total_blocks FROM pragma_database_size()").fetchall()
    whole = _HEADERS_BYTES + sum(size * count for size, count in found)
    length = path.stat().st_size
    if length < whole:
        raise Unreadable(f"{path}: it is cut: {length:,} of {whole:,} bytes are there")


class JournalReader:
    """A journal's file as it can be read; `query` and `read` from any thread."""

    def __init__(self, folder: Path, database: duckdb.DuckDBPyConnection, chain_key: bytes) -> None:
        self.chain_key = chain_key
        self._sql = load_queries()
        self._checkpoints = folder / "checkpoints.jsonl"
        self.path = folder / JOURNAL
        self._db = database

    @classmethod
    def open(cls, folder: Path, chain_key: bytes) -> JournalReader:
        """Open a file that nobody writes, changing nothing in its folder; raise `Unreadable` saying why it cannot be.

        What DuckDB's log beside it holds is read too, as far as it is whole.
        """
        path = folder / JOURNAL
        try:
            database = duckdb.connect(str(path), read_only=True, config=LOCKED)
            _check_length(path, database)
            return cls(folder, database, chain_key)
        except duckdb.Error as error:
            text = str(error)
            if "Could not set lock" in text:
                raise Unreadable(f"{path}: another process has it open: is its stack up? ({text})") from None
            raise Unreadable(f"{path}: this is no whole journal: {text}") from None

    def release(self) -> None:
        """Close the file as it is."""
        self._db.close()

    def _rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._db.execute(self._sql[name], list(parameters)).fetchall()
        return found

    def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams, oldest first."""
        found: dict[str, list[str]] = {stream: [] for stream in streams}
        for stream, body in self._rows("stream", list(streams)):
            found[stream].append(body)
        return found

    def rows(self, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a named query."""
        return self._rows(name, *parameters)

    def read(self, name: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a named query; on a connection of its own, which holds no writer up."""
        cursor = self._db.cursor()
        try:
            found: list[tuple[Any, ...]] = cursor.execute(self._sql[name], list(parameters)).fetchall()
        finally:
            cursor.close()
        return found

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> bytes:
        """Answer one SELECT as an Arrow IPC stream; raise `InvalidInput` for anything else."""
        if as_text(sql) != sql:
            raise InvalidInput(f"audit query: it has characters that are no text: {as_text(sql)[:200]}")
        cursor = self._db.cursor()
        try:
            statements = cursor.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InvalidInput("audit query: give exactly one SELECT; the journal is read-only")
            table = cursor.sql(sql, params=list(parameters)).to_arrow_table()
        except duckdb.Error as error:
            if type(error) in _DAMAGED:
                raise Unreadable(f"{self.path}: it is damaged: {error}") from None
            raise InvalidInput(f"audit query: {error}") from None
        finally:
            cursor.close()
        if table.num_rows > MAX_ROWS:
            raise InvalidInput(f"audit query: {table.num_rows:,} rows are over the bound of {MAX_ROWS:,}; add a LIMIT")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    def verify(self) -> list[str]:
        """Return what is wrong with the chains and the checkpoints; nothing if the journal is whole."""
        problems: list[str] = []
        try:
            self._verify(problems)
        except duckdb.Error as error:  # a block that is damaged, a table that is missing
            problems.append(f"{self.path}: the file cannot be read: {error}")
        return problems

    def _verify(self, problems: list[str]) -> None:
        heads: dict[str, tuple[int, bytes]] = {}
        links: dict[tuple[str, int], bytes] = {}
        wanted = self._checkpointed(problems)
        for (tenant,) in self._db.execute("SELECT DISTINCT tenant FROM events ORDER BY tenant").fetchall():
            heads[tenant] = self._verify_chain(tenant, wanted.get(tenant, {}), links, problems)
        for tenant, marks in wanted.items():
            for number, mac in marks.items():
                if links.get((tenant, number)) != mac:
                    problems.append(f"tenant {tenant}: entry {number} is not what a checkpoint saw, or is missing")
        for projection in ("runs", "outcomes"):
            for (run,) in self._rows(f"false_{projection}"):
                problems.append(f"{projection}: the row of {run} is not what the events say")

    def _verify_chain(
        self, tenant: str, marks: dict[int, bytes], links: dict[tuple[str, int], bytes], problems: list[str]
    ) -> tuple[int, bytes]:
        expected, mac = 0, GENESIS
        cursor = self._db.cursor().execute(self._sql["chain"], [tenant])
        while rows := cursor.fetchmany(10_000):
            for number, stream, seq, epoch, stored, body, *columns in rows:
                entry = Entry(body=body.encode(), **dict(zip(("type", "step", "at_us", "cause"), columns, strict=True)))
                mac = link(self.chain_key, mac, number, stream, seq, epoch, entry)
                if number != expected or mac != bytes(stored):
                    problems.append(f"tenant {tenant}: the chain breaks at entry {expected} ({stream}#{seq})")
                    return expected, mac
                if number in marks:
                    links[(tenant, number)] = mac
                expected += 1
        return expected - 1, mac

    def _checkpointed(self, problems: list[str]) -> dict[str, dict[int, bytes]]:
        wanted: dict[str, dict[int, bytes]] = {}
        if not self._checkpoints.exists():
            return wanted
        lines = self._checkpoints.read_text(encoding="utf-8").splitlines()
        for i, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                body = record["body"]
                sealed = is_sealed(self.chain_key, "checkpoint", body.encode(), bytes.fromhex(record["seal"]))
            except (ValueError, KeyError, TypeError):
                # The last line may be cut by a crash in the middle of writing it.
                if i < len(lines):
                    problems.append(f"checkpoints.jsonl:{i}: not a checkpoint")
                continue
            if not sealed:
                problems.append(f"checkpoints.jsonl:{i}: the seal does not hold")
                continue
            for tenant, (number, mac) in json.loads(body)["heads"].items():
                wanted.setdefault(tenant, {})[number] = bytes.fromhex(mac)
        return wanted
