"""The journal's file: DuckDB, written by one thread in group commits, chained per tenant, readable by SELECT alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from airside.actors.journal_reader import JOURNAL, LOCKED, JournalReader, load_queries
from airside.stack.events import RunEnded, RunSubmitted, decode_event
from airside.stack.journaling import GENESIS, Append, AppendReply, Entry, Head, admit, link
from airside.stack.sealing import seal

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

_CONFIG = {
    # A commit is a few hundred rows: handing it to other threads costs more than they save (a sixth of the CPU).
    "threads": 1,
    # By itself DuckDB folds its log into the file at every 16 MiB, in the middle of a commit: half of a busy journal's
    # CPU.  `fold` does it when nobody waits; opening replays what a crash left, 256 MiB in 0.6 s.
    "wal_autocheckpoint": "256MB",
}
FOLD_BYTES = 16 * 2**20
"""A log smaller than this is left as it is."""


class JournalStore(JournalReader):
    """All methods but `query` and `read` belong to the one writing thread."""

    def __init__(self, folder: Path, chain_key: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        database = duckdb.connect(str(folder / JOURNAL), config=_CONFIG)
        database.execute(load_queries()["schema"])
        for option, value in LOCKED.items():
            database.execute(f"SET {option} = {str(value).lower()}")
        super().__init__(folder, database, chain_key)
        self._heads = {row[0]: Head(epoch=row[1], next_seq=row[2]) for row in self._rows("open_heads")}
        self._chain = {row[0]: (int(row[1]), bytes(row[2])) for row in self._rows("chain_heads")}
        self.appended = 0
        self.commits = 0

    def commit(self, appends: Sequence[Append]) -> list[AppendReply]:
        """Take in a group of appends in one transaction, and answer each; on an error nothing is taken in."""
        self._look_up({append.stream for append in appends} - self._heads.keys())
        heads: dict[str, Head] = {}
        chain: dict[str, tuple[int, bytes]] = {}
        replies: list[AppendReply] = []
        rows: list[tuple[Any, ...]] = []

        def stored(stream: str, first: int, count: int) -> list[bytes]:
            """Return what a stream has at a place, in the file and in this very group."""
            found = [body.encode() for (body,) in self._rows("place", stream, first, first + count)]
            return found + [row[9] for row in rows if row[2] == stream and first <= row[3] < first + count]

        for append in appends:
            head = heads.get(append.stream) or self._heads.get(append.stream, Head())
            reply, fresh, after = admit(head, append, stored)
            if fresh:
                rows += self._link(append, fresh, after, chain)
            heads[append.stream] = after
            replies.append(reply)
        if rows:
            self._write(rows, {stream for stream in heads if stream not in self._heads})
            self.commits += 1
            self.appended += len(rows)
        self._heads.update(heads)
        self._chain.update(chain)
        for stream in [stream for stream, head in heads.items() if head.ended]:
            del self._heads[stream]  # looked up again if anybody still writes to it
        return replies

    def _look_up(self, unknown: set[str]) -> None:
        if not unknown:
            return
        known = [row[0] for row in self._rows("known_streams", sorted(unknown))]
        if known:
            for stream, epoch, next_seq, ended in self._rows("known_heads", known):
                self._heads[stream] = Head(epoch=epoch, next_seq=next_seq, ended=ended)

    def _link(
        self, append: Append, fresh: tuple[Entry, ...], after: Head, chain: dict[str, tuple[int, bytes]]
    ) -> list[tuple[Any, ...]]:
        tenant, stream = append.tenant, append.stream
        number, mac = chain.get(tenant) or self._chain.get(tenant, (-1, GENESIS))
        seq = after.next_seq - len(fresh)
        rows = []
        for entry in fresh:
            number += 1
            mac = link(self.chain_key, mac, number, stream, seq, append.epoch, entry)
            place = (tenant, number, stream, seq, append.epoch, entry.step, entry.cause, entry.at_us)
            rows.append((*place, entry.type, entry.body, mac))
            seq += 1
        chain[tenant] = (number, mac)
        return rows

    def _write(self, rows: list[tuple[Any, ...]], new_streams: set[str]) -> None:
        columns = list(zip(*rows, strict=True))
        columns[9] = tuple(body.decode() for body in columns[9])
        arrays = [pa.array(c, type=f.type) for c, f in zip(columns, _EVENTS, strict=True)]
        submitted = [
            _run_row(body) for kind, body in zip(columns[8], columns[9], strict=True) if kind == "RunSubmitted"
        ]
        ended = [_outcome_row(row) for row in rows if row[8] == "RunEnded"]
        self._db.execute("BEGIN")
        try:
            self._insert("events", pa.Table.from_arrays(arrays, schema=_EVENTS))
            self._insert("streams", pa.table({"stream": pa.array(sorted(new_streams), pa.string())}))
            self._insert_rows("runs", submitted)
            self._insert_rows("outcomes", ended)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _insert(self, table: str, data: pa.Table) -> None:
        if data.num_rows:
            self._db.register("incoming", data)
            self._db.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - a table's name of ours
            self._db.unregister("incoming")

    def _insert_rows(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            schema = pa.schema([(n, pa.int64() if type(v) is int else pa.string()) for n, v in rows[0].items()])
            self._insert(table, pa.Table.from_pylist(rows, schema=schema))

    # Checkpoints: the chain's heads, sealed, in a file beside the database, so that a cut end shows.

    def checkpoint(self, at_us: int) -> None:
        """Append the present heads to the checkpoint file, durably."""
        heads = {tenant: [number, mac.hex()] for tenant, (number, mac) in sorted(self._chain.items())}
        body = json.dumps({"at_us": at_us, "heads": heads}, sort_keys=True)
        mark = seal(self.chain_key, "checkpoint", body.encode()).hex()
        with self._checkpoints.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"body": body, "seal": mark}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def fold(self) -> bool:
        """Fold DuckDB's log into its file if it has grown; return whether it was done."""
        log = self.path.with_name(self.path.name + ".wal")
        if not log.exists() or log.stat().st_size < FOLD_BYTES:
            return False
        try:
            self._db.execute("CHECKPOINT")
        except duckdb.TransactionException:
            return False  # a query reads: another time
        return True

    def close(self) -> None:
        """Write a last checkpoint and close the file."""
        if self._chain:
            self.checkpoint(int(self._db.execute("SELECT coalesce(max(at_us), 0) FROM events").fetchall()[0][0]))
        self.release()


def _run_row(body: bytes) -> dict[str, Any]:
    event: RunSubmitted = decode_event(body)
    return {
        "run_id": event.run_id,
        "tenant": event.identity.tenant,
        "principal": event.identity.principal,
        "parent": event.parent or "",
        "job_id": event.request.job_id,
        "route": event.request.route,
        "submitted_us": event.at_us,
    }


def _outcome_row(row: tuple[Any, ...]) -> dict[str, Any]:
    event: RunEnded = decode_event(row[9])
    usage = event.usage
    return {
        "run_id": row[2],
        "tenant": row[0],
        "status": str(event.outcome.status),
        "reason_code": str(event.outcome.reason_code),
        "ended_us": event.at_us,
        "steps": usage.steps,
        "tool_calls": usage.tool_calls,
        "tokens": usage.tokens,
        "cost_microusd": usage.cost_microusd,
        "active_us": usage.active_us,
        "body": row[9].decode(),
    }
