"""The journal's file: chained, checkpointed, read-only for people, and whole after any restart."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from airside.actors.journal.checkpoints import CHECKPOINTS
from airside.actors.journal.log import JOURNAL
from airside.actors.journal.projection import PROJECTION
from airside.actors.journal.store import JournalStore
from airside.actors.journal.verify import Chains
from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import GENESIS, Append, Entry, link

KEY = b"k" * 32
TENANTS = ("entries", "chains")
"""The log's tables that say whose something is."""


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


ALTERATIONS = [
    "UPDATE {} SET body = '{}' WHERE number = 1 AND tenant = 'acme'",
    "UPDATE {} SET step = 7 WHERE number = 1 AND tenant = 'acme'",
    "UPDATE {} SET type = 'Other' WHERE number = 4 AND tenant = 'acme'",
    "UPDATE {} SET at_us = 0 WHERE number = 0 AND tenant = 'globex'",
    "DELETE FROM {} WHERE number = 2 AND tenant = 'acme'",
    "DELETE FROM {} WHERE number >= 2 AND tenant = 'acme'",
    "DELETE FROM {} WHERE tenant = 'globex'",
    "UPDATE {} SET number = 5 - number WHERE tenant = 'acme'",
    "DELETE FROM {}",
]


def alter_log(folder: Path, *statements: str) -> None:
    """Change a log that nobody has open, as anybody can who may write the file."""
    with closing(sqlite3.connect(folder / JOURNAL)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        *(statement.replace("{}", "entries", 1) for statement in ALTERATIONS),
        "UPDATE streams SET name = 'run_c' WHERE name = 'run_a'",
        "DELETE FROM streams WHERE name = 'run_b'",
        "UPDATE entries SET stream = stream + 1 WHERE stream = 2",
        "UPDATE entries SET body = x'ff00' WHERE position = 2",
        "UPDATE entries SET mac = 5 WHERE position = 2",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE position < NEW.position; END",
        "CREATE VIEW events AS SELECT * FROM entries",
        "DROP INDEX by_stream",
        "UPDATE chains SET position = position - 1 WHERE tenant = 'acme'",
        "UPDATE chains SET position = position - 1 WHERE tenant = 'globex'",
        "UPDATE chains SET position = 99 WHERE tenant = 'globex'",
        "DELETE FROM chains WHERE tenant = 'globex'",
        "DELETE FROM chains",
        "INSERT INTO chains VALUES ('initech', 1)",
    ],
)
def test_tampering_shows(store: JournalStore, tmp_path: Path, statement: str) -> None:
    """An altered, removed, cut or reordered row of the log is found, and so is what does not belong in it."""
    store.close()
    alter_log(tmp_path, statement)
    again = JournalStore(tmp_path, KEY)
    assert again.verify() != []
    again.release()


def test_a_chain_passed_off_as_another_tenants_shows(store: JournalStore, tmp_path: Path) -> None:
    """Without any checkpoint: a chain begins with its tenant's name."""
    store.close()
    (tmp_path / CHECKPOINTS).unlink()
    alter_log(tmp_path, *(f"UPDATE {table} SET tenant = 'initech' WHERE tenant = 'acme'" for table in TENANTS))
    (tmp_path / PROJECTION).unlink()
    again = JournalStore(tmp_path, KEY)
    assert again.verify()[0] == "tenant initech: the chain breaks at entry 0 (run_a#0)"
    again.release()


def test_a_chain_from_before_chains_began_with_a_name_is_whole(store: JournalStore) -> None:
    """Such a chain begins with zeros, and goes on as it was."""
    append, chains = note("run_a", 0, 2), Chains(KEY, {})
    mac, rows = GENESIS, []
    for number, entry in enumerate(append.entries):
        mac = link(KEY, mac, number, "run_a", number, 0, entry)
        place = ("acme", number, "run_a", number, 0, entry.step, entry.cause, entry.at_us)
        rows.append((*place, entry.type, entry.body.decode(), mac))
    chains.take(rows)
    assert chains.problems == [] and chains.heads == {"acme": (1, mac)}


def test_a_checkpoint_tells_only_of_chains_that_went_on(store: JournalStore, tmp_path: Path) -> None:
    """So that many tenants who do nothing cost nothing."""
    store.checkpoint(100)
    store.checkpoint(101)
    lines = [json.loads(line)["body"] for line in (tmp_path / CHECKPOINTS).read_text().splitlines()]
    assert [sorted(json.loads(body)["heads"]) for body in lines] == [["acme", "globex"], ["acme"]]
    assert store.verify() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chains SET position = position - 2",
        "UPDATE chains SET position = position - 2 WHERE tenant = 'acme'",
        "UPDATE chains SET position = 99 WHERE tenant = 'globex'",
        "DELETE FROM chains",
        "DELETE FROM chains WHERE tenant = 'acme'",
    ],
)
def test_chains_go_on_where_they_end(store: JournalStore, tmp_path: Path, statement: str) -> None:
    """Where that is noted wrongly, the entries themselves say it, and the next appends break no chain."""
    store.close()
    alter_log(tmp_path, statement)
    again = JournalStore(tmp_path, KEY)
    replies = again.commit([note("run_a", 5, 1), note("run_b", 2, 1, "globex")])
    assert [reply.verdict for reply in replies] == ["ok", "ok"] and again.verify() == []
    again.close()


@pytest.mark.parametrize(
    "statement",
    [
        *(statement.replace("{}", "events", 1) for statement in ALTERATIONS),
        "INSERT INTO events SELECT * REPLACE (9 AS number) FROM events LIMIT 1",
        "INSERT INTO outcomes VALUES ('run_a', 'acme', 'completed', 'completed', 1, 1, 1, 1, 1, 1, '{}')",
        "INSERT INTO runs VALUES ('run_a', 'acme', 'ann', '', '', 'default', '', 1, 1)",
    ],
)
def test_a_false_projection_shows(store: JournalStore, tmp_path: Path, statement: str) -> None:
    """What queries would be answered from is checked as well; made again from the log it is right."""
    store.close()
    with duckdb.connect(str(tmp_path / PROJECTION)) as database:
        database.execute(statement)
    again = JournalStore(tmp_path, KEY)
    problems = again.verify()
    assert problems and "remove the folder" in problems[-1]
    again.release()
    (tmp_path / PROJECTION).unlink()
    made_again = JournalStore(tmp_path, KEY)
    assert made_again.verify() == []
    made_again.close()


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


def test_a_table_that_there_is_not_says_which_there_are(store: JournalStore) -> None:
    """And names none of the database's own."""
    with pytest.raises(InvalidInput, match=r"audit query: there is no table jobs; there are events, runs, outcomes$"):
        store.query("SELECT * FROM jobs")


def test_a_query_answers_as_arrow(store: JournalStore) -> None:
    """Parameters are bound, not pasted."""
    data = store.query("SELECT stream, count(*) AS n FROM events WHERE tenant = ? GROUP BY stream", ["acme"])
    assert pa.ipc.open_stream(data).read_all().to_pylist() == [{"stream": "run_a", "n": 5}]
    hostile = store.query("SELECT count(*) AS n FROM events WHERE tenant = ?", ["x' OR '1'='1"])
    assert pa.ipc.open_stream(hostile).read_all().to_pylist() == [{"n": 0}]


def test_a_group_that_cannot_be_written_leaves_nothing_behind(store: JournalStore, tmp_path: Path) -> None:
    """A failed commit is no commit: the same append goes in afterwards."""
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as other:
        other.execute("CREATE TRIGGER t BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'not now'); END")
        with pytest.raises(sqlite3.Error, match="not now"):
            store.commit([note("run_a", 5, 1), note("run_c", 0, 1)])
        other.execute("DROP TRIGGER t")
    assert [r.verdict for r in store.commit([note("run_a", 5, 1), note("run_c", 0, 1)])] == ["ok", "ok"]
    assert store.verify() == []


UNWRITABLE = {
    "a body that is no text": Entry(type="Note", step=1, at_us=1, cause=0, body=b"\xff"),
    "a number over 64 bits": Entry(type="Note", step=2**63, at_us=1, cause=0, body=b"{}"),
    "an end that is none": Entry(type="RunEnded", step=1, at_us=1, cause=0, body=b"{}"),
    "an admission that is another event": Entry(
        type="RunSubmitted", step=1, at_us=1, cause=0, body=b'{"type":"RunActivated","epoch":1,"at_us":1,"cause":-1}'
    ),
}


@pytest.mark.parametrize("entry", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_what_can_never_be_written_is_an_error_and_harms_no_other(store: JournalStore, entry: Entry) -> None:
    """It is answered so, once; its neighbours in the group go in, and every query is answered."""
    bad = Append(tenant=TenantId("acme"), stream="run_c", epoch=0, first_seq=0, entries=(entry,))
    replies = store.commit([note("run_a", 5, 1), bad, note("run_b", 2, 1, "globex")])
    assert [reply.verdict for reply in replies] == ["ok", "error", "ok"] and replies[1].detail
    assert store.verify() == [] and store.rows("unfinished") == []
