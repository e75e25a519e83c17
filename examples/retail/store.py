"""A run's state: one SQLite file that holds the shop's records and the keys of the changes already made.

A change and the key that names it are committed by the same transaction. A process killed at any moment
leaves both or neither, so whoever takes the run over can repeat the call and get the first answer back.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Record: TypeAlias = dict[str, Any]

TABLES = ("orders", "products", "users")
BUSY_SECONDS = 30.0


class BusinessError(Exception):
    """Say that the shop's rules refuse a call; nothing was changed and the run goes on."""


class Store:
    """Read and write whole records; outside a transaction every write stands by itself."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    def get_user(self, user_id: str) -> Record:
        """Return the user; an unknown id is a business error."""
        return self._get("users", "user", user_id)

    def get_order(self, order_id: str) -> Record:
        """Return the order; an unknown id is a business error."""
        return self._get("orders", "order", order_id)

    def get_product(self, product_id: str) -> Record:
        """Return the product; an unknown id is a business error."""
        return self._get("products", "product", product_id)

    def put_user(self, user_id: str, user: Record) -> None:
        """Replace or add the user."""
        self._put("users", user_id, user)

    def put_order(self, order_id: str, order: Record) -> None:
        """Replace or add the order."""
        self._put("orders", order_id, order)

    def put_product(self, product_id: str, product: Record) -> None:
        """Replace or add the product."""
        self._put("products", product_id, product)

    def find_user_id(self, matches: Callable[[Record], bool]) -> str | None:
        """Return the id of the first user that matches, in the order of the data file, or None."""
        return next((user_id for user_id, user in self._all("users") if matches(user)), None)

    def products(self) -> list[tuple[str, Record]]:
        """Return every product with its id, in the order of the data file."""
        return list(self._all("products"))

    def _get(self, table: str, kind: str, record_id: str) -> Record:
        row = self._conn.execute(f"SELECT body FROM {table} WHERE id = ?", (record_id,)).fetchone()
        if row is None:
            raise BusinessError(f"There is no {kind} with the id {record_id!r}.")
        record: Record = json.loads(row[0])
        return record

    def _put(self, table: str, record_id: str, record: Record) -> None:
        # An upsert keeps the row's place, where INSERT OR REPLACE would move it behind all the others.
        self._conn.execute(
            f"INSERT INTO {table} (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (record_id, json.dumps(record)),
        )

    def _all(self, table: str) -> Iterator[tuple[str, Record]]:
        rows = self._conn.execute(f"SELECT id, body FROM {table} ORDER BY rowid").fetchall()
        return ((record_id, json.loads(body)) for record_id, body in rows)


def build_base(data_dir: Path, base_file: Path) -> None:
    """Load the JSON files of data_dir into base_file; concurrent builders each publish a whole file."""
    with _temporary_beside(base_file) as temporary:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as conn, _transaction(conn):
            for table in TABLES:
                conn.execute(f"CREATE TABLE {table} (id TEXT PRIMARY KEY, body TEXT NOT NULL)")
                records: dict[str, Record] = json.loads((data_dir / f"{table}.json").read_text("utf-8"))
                rows = [(record_id, json.dumps(record)) for record_id, record in records.items()]
                conn.executemany(f"INSERT INTO {table} (id, body) VALUES (?, ?)", rows)
            conn.execute("CREATE TABLE applied (key TEXT PRIMARY KEY, tool TEXT NOT NULL, result TEXT NOT NULL)")
        os.replace(temporary, base_file)
        _sync(base_file.parent)


def open_run(base_file: Path, run_file: Path) -> sqlite3.Connection:
    """Open the run's own copy of the base, made at the first opening; use it from one thread at a time."""
    if not run_file.exists():
        _copy_if_absent(base_file, run_file)
    conn = sqlite3.connect(run_file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # With a rollback journal a closed run is one file, to be copied or removed by itself: a write-ahead
    # log holds commits apart from it. After a kill the next opening needs the file "<run_file>-journal", too;
    # whoever removes or moves a killed run takes both.
    conn.execute("PRAGMA journal_mode = DELETE")
    conn.execute("PRAGMA synchronous = FULL")
    return conn


def find(file: Path, table: str, record_id: str) -> Record | None:
    """Return a record of a run's file or the base, None if there is none."""
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as conn:
        row = conn.execute(f"SELECT body FROM {table} WHERE id = ?", (record_id,)).fetchone()
    record: Record | None = None if row is None else json.loads(row[0])
    return record


def apply_once(conn: sqlite3.Connection, key: str, tool: str, change: Callable[[Store], JsonValue]) -> JsonValue:
    """Make the change under the key, or return what it returned before; if it raises, nothing is kept."""
    with _transaction(conn):
        row = conn.execute("SELECT result FROM applied WHERE key = ?", (key,)).fetchone()
        text: str = json.dumps(change(Store(conn))) if row is None else row[0]
        if row is None:
            conn.execute("INSERT INTO applied (key, tool, result) VALUES (?, ?, ?)", (key, tool, text))
    # Read back from the text both times, so that the first answer and the repeated one cannot differ.
    result: JsonValue = json.loads(text)
    return result


def state_hash(conn: sqlite3.Connection) -> str:
    """Return the sha256 of all records in canonical JSON; the keys of applied changes do not count."""
    # One statement sees one snapshot, even while another process commits to the same file.
    query = " UNION ALL ".join(f"SELECT '{table}', id, body FROM {table}" for table in TABLES)
    state: dict[str, dict[str, Record]] = {table: {} for table in TABLES}
    for table, record_id, body in conn.execute(query):
        state[table][record_id] = json.loads(body)
    text = json.dumps(state, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def applied_keys(conn: sqlite3.Connection) -> list[str]:
    """Return the keys of the changes made, in the order in which they were committed."""
    return [key for (key,) in conn.execute("SELECT key FROM applied ORDER BY rowid")]


@contextmanager
def _transaction(conn: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock for the block; commit at its end, or roll back whatever it raises."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some failures, a full disk among them.
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


@contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    """Lend an empty file in the target's folder; whatever is left under its name is removed."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _copy_if_absent(base_file: Path, run_file: Path) -> None:
    """Publish a whole copy of the base as run_file, unless another process was first."""
    with _temporary_beside(run_file) as temporary:
        shutil.copyfile(base_file, temporary)
        _sync(temporary)
        # A link refuses an existing name. A rename would replace a file that another process may already
        # have opened and changed, and its committed changes would be lost.
        try:
            os.link(temporary, run_file)
        except FileExistsError:
            return
        _sync(run_file.parent)


def _sync(path: Path) -> None:
    """Force a file or a folder's entries to disk, so that a power failure cannot undo a publication."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
