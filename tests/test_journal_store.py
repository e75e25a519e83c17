"""The journal's file: chained, checkpointed, read-only for people, and whole after any restart."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from airside.actors.journal_store import JournalStore
from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId
from airside.stack.journaling import Append, Entry

KEY = b"k" * 32


def note(stream: str, first: int, count: int, tenant: str = "acme") -> Append:
    """Return an append of so many notes."""
    entries = tuple(
        Entry(type="Note", step=1, at_us=10 + i, cause=-1, body=json.dumps({"n": first + i}).encode())
        for i in range(count)
    )
    return Append(tenant=TenantId(tenant), stream=stream, epoch=0, first_seq=first, entries=entries)


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    """A journal with two tenants and a checkpoint."""
    made = JournalStore(tmp_path, KEY)
    made.commit([note("run_a", 0, 3), note("run_b", 0, 2, "globex")])
    made.checkpoint(99)
    made.commit([note("run_a", 3, 2)])
    return made


def test_a_whole_journal_verifies_and_reopens(store: JournalStore, tmp_path: Path) -> None:
    """What was committed is there for the next process, which goes on where it ended."""
    assert store.verify() == []
    store.close()
    again = JournalStore(tmp_path, KEY)
    assert [r.verdict for r in again.commit([note("run_a", 5, 1), note("run_a", 3, 2)])] == ["ok", "ok"]
    assert again.verify() == []
    assert len(again.bodies(["run_a"])["run_a"]) == 6


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE events SET body = '{}' WHERE number = 1 AND tenant = 'acme'",
        "UPDATE events SET step = 7 WHERE number = 1 AND tenant = 'acme'",
        "UPDATE events SET type = 'Other' WHERE number = 4 AND tenant = 'acme'",
        "UPDATE events SET at_us = 0 WHERE number = 0 AND tenant = 'globex'",
        "DELETE FROM events WHERE number = 2 AND tenant = 'acme'",
        "DELETE FROM events WHERE number >= 2 AND tenant = 'acme'",
        "DELETE FROM events WHERE tenant = 'globex'",
        "UPDATE events SET number = 5 - number WHERE tenant = 'acme'",
    ],
)
def test_tampering_shows(store: JournalStore, tmp_path: Path, tampering: str) -> None:
    """An altered, removed, cut or reordered row is found, by the chain or by a checkpoint."""
    store.release()
    with duckdb.connect(str(tmp_path / "journal.sqlite")) as database:
        database.execute(tampering)
    assert JournalStore(tmp_path, KEY).verify() != []


def test_a_forged_checkpoint_shows(store: JournalStore, tmp_path: Path) -> None:
    """A checkpoint without the key's seal is no checkpoint."""
    file = tmp_path / "checkpoints.jsonl"
    record = json.loads(file.read_text())
    record["body"] = record["body"].replace('"at_us": 99', '"at_us": 98')
    file.write_text(json.dumps(record) + "\n")
    assert store.verify() == ["checkpoints.jsonl:1: the seal does not hold"]


def test_another_key_does_not_verify(store: JournalStore, tmp_path: Path) -> None:
    """Who rewrites the whole chain needs the key."""
    store.release()
    assert JournalStore(tmp_path, b"x" * 32).verify() != []


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM events",
        "INSERT INTO runs VALUES (1)",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY events TO '/tmp/stolen.parquet'",
        "ATTACH '/tmp/other.duckdb'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "not sql",
        "",
    ],
)
def test_a_query_may_only_select_from_the_journal(store: JournalStore, sql: str) -> None:
    """Anything but one SELECT over the tables is a typed error, and changes nothing."""
    with pytest.raises(InvalidInput, match="audit query"):
        store.query(sql)
    assert store.verify() == []


def test_a_query_answers_as_arrow(store: JournalStore) -> None:
    """Parameters are bound, not pasted."""
    data = store.query("SELECT stream, count(*) AS n FROM events WHERE tenant = ? GROUP BY stream", ["acme"])
    assert pa.ipc.open_stream(data).read_all().to_pylist() == [{"stream": "run_a", "n": 5}]
    hostile = store.query("SELECT count(*) AS n FROM events WHERE tenant = ?", ["x' OR '1'='1"])
    assert pa.ipc.open_stream(hostile).read_all().to_pylist() == [{"n": 0}]


def test_a_group_that_cannot_be_written_leaves_nothing_behind(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed commit is no commit: the same append goes in afterwards."""
    with monkeypatch.context() as patch:
        patch.setattr(JournalStore, "_insert_rows", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            store.commit([note("run_a", 5, 1), note("run_c", 0, 1)])
    assert [r.verdict for r in store.commit([note("run_a", 5, 1), note("run_c", 0, 1)])] == ["ok", "ok"]
    assert store.verify() == []
