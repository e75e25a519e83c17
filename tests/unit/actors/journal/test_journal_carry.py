"""A journal of before there was a log is carried over once, whole, whatever happens on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airside.actors.audit import journal_file
from airside.actors.journal import carry as journal_carry
from airside.actors.journal.carry import BEFORE
from airside.actors.journal.checkpoints import CHECKPOINTS
from airside.actors.journal.log import JOURNAL
from airside.actors.journal.store import JournalStore
from airside.stack.errors import Misuse, Unreadable
from tests.journals import KEY, WAL, end, note, tables_of

AS_IT_WAS = """
CREATE TABLE events (
    tenant VARCHAR NOT NULL, number BIGINT NOT NULL, stream VARCHAR NOT NULL, seq BIGINT NOT NULL,
    epoch BIGINT NOT NULL, step BIGINT NOT NULL, cause BIGINT NOT NULL,
    at_us BIGINT NOT NULL, type VARCHAR NOT NULL, body VARCHAR NOT NULL, mac BLOB NOT NULL);
CREATE TABLE streams (stream VARCHAR NOT NULL);
"""
STREAMS = ["run_a", "run_b", "claim/x"]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A folder with such a journal and its checkpoints, part of it in DuckDB's log as a crash leaves it."""
    with closing(JournalStore(tmp_path / "new", KEY)) as made:
        for n in range(30):
            made.commit([note("run_a", 3 * n, 3), note("run_b", 2 * n, 2, "globex")])
        made.commit([end("run_a", 90), note("claim/x", 0, 1, "globex", epoch=4)])
        made.checkpoint(1)
        rows = [row[1:] for chunk in made._reader.chunks(0, made.last()) for row in chunk]
    folder = tmp_path / "before"
    folder.mkdir()
    database = duckdb.connect(str(folder / BEFORE))
    database.execute(AS_IT_WAS)
    insert = f"INSERT INTO events VALUES ({', '.join('?' * 11)})"
    database.executemany(insert, rows[:100])
    database.execute("CHECKPOINT")
    database.executemany(insert, rows[100:])
    died = tmp_path / "died"
    shutil.copytree(folder, died)
    database.close()
    assert (died / f"{BEFORE}.wal").exists()
    shutil.copy(tmp_path / "new" / CHECKPOINTS, died / CHECKPOINTS)
    return died


def as_new(folder: Path, store: JournalStore) -> None:
    """Check that a journal is the one that was carried over, and goes on."""
    new = folder.parent / "new"
    with closing(JournalStore(new, KEY)) as truth:
        assert store.bodies(STREAMS) == truth.bodies(STREAMS) and tables_of(store) == tables_of(truth)
    assert store.verify() == []
    replies = store.commit(
        [note("run_b", 60, 1, "globex"), note("run_b", 0, 2, "globex"), note("claim/x", 0, 1, "globex", epoch=3)]
    )
    assert [reply.verdict for reply in replies] == ["ok", "ok", "fenced"]
    assert store.verify() == []


def test_it_is_carried_over_at_the_first_start(before: Path) -> None:
    """With the same chains, which the checkpoints of before hold for; the old file is kept under another name."""
    with closing(JournalStore(before, KEY)) as store:
        as_new(before, store)
    assert not (before / BEFORE).exists() and (before / f"{BEFORE}.carried-over").exists()
    with closing(JournalStore(before, KEY)) as again:
        assert len(again.bodies(["run_b"])["run_b"]) == 61 and again.verify() == []


def test_a_copy_of_it_is_read_as_it_is(before: Path) -> None:
    """Nothing is carried over or changed for whoever only reads."""
    files = {path.name: path.read_bytes() for path in before.iterdir()}
    with closing(journal_file(before)) as journal, closing(journal_file(before.parent / "new")) as truth:
        journal._reader.chain_key = KEY
        assert journal._reader.verify() == [] and journal._reader._reader._file.exists()
        assert journal.bodies(STREAMS) == truth.bodies(STREAMS)
        sql = "FROM events ORDER BY ALL"
        assert journal.query(sql).equals(truth.query(sql))
    assert {path.name: path.read_bytes() for path in before.iterdir()} == files


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("call", range(1, 4))
@pytest.mark.parametrize("step", ["make_schema", "insert_rows", "sync_folder"])
def test_a_crash_on_the_way_begins_again(before: Path, step: str, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is: the next start has all of it, once."""
    monkeypatch.setattr(journal_carry, "CHUNK_ROWS", 60)
    real: Callable[..., Any] = getattr(journal_carry, step)
    calls = 0

    def dies(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Died
        return real(*args)

    with monkeypatch.context() as patch, suppress(Died):
        patch.setattr(journal_carry, step, dies)
        JournalStore(before, KEY).release()
    with closing(JournalStore(before, KEY)) as store:
        as_new(before, store)
    assert not (before / BEFORE).exists() and not (before / f"{JOURNAL}.part").exists()


def test_two_journals_are_not_mixed(before: Path) -> None:
    """One put beside a log that lacks some of its entries is refused, and nothing of either is changed."""
    kept = (before / BEFORE).read_bytes()
    other = JournalStore(before.parent / "other", KEY)
    other.commit([note("run_z", 0, 2)])
    other.close()
    shutil.copy(before.parent / "other" / JOURNAL, before / JOURNAL)
    with pytest.raises(Misuse, match=r"journal\.duckdb has entries that .* has not"):
        JournalStore(before, KEY)
    assert (before / BEFORE).read_bytes() == kept


@pytest.mark.parametrize("log", ["absent", "empty", "absent and nothing to carry over"])
def test_what_another_log_left_is_not_taken_for_its_own(before: Path, log: str) -> None:
    """A write-ahead log without its log is refused, with the names of what belongs together, and is not dropped."""
    other = JournalStore(before.parent / "other", KEY)
    other.commit([note("run_z", 0, 40, fill="x" * 3000)])
    left = shutil.copy(before.parent / "other" / WAL, before / WAL)
    other.release()
    kept = left.read_bytes()
    if log == "empty":
        (before / JOURNAL).touch()
    if log.endswith("carry over"):
        (before / BEFORE).rename(before.parent / "away")
    with pytest.raises(Misuse, match=r"journal\.sqlite, journal\.sqlite-wal, journal\.sqlite-shm belong together"):
        JournalStore(before, KEY)
    assert left.read_bytes() == kept and (before / BEFORE).exists() != log.endswith("carry over")
    left.unlink()
    if not log.endswith("carry over"):
        with closing(JournalStore(before, KEY)) as store:
            as_new(before, store)


def test_a_half_write_of_another_log_is_not_undone_in_this_one(before: Path) -> None:
    """It is refused beside no log, and goes with an empty one, whose making a crash cut short."""
    (before / f"{JOURNAL}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"x" * 5000)
    with pytest.raises(Misuse, match="belong together"):
        JournalStore(before, KEY)
    (before / JOURNAL).touch()
    with closing(JournalStore(before, KEY)) as store:
        as_new(before, store)


@pytest.mark.parametrize("damage", ["noise", "cut", "another"])
def test_one_that_cannot_be_read_is_said_and_left_as_it_is(before: Path, damage: str) -> None:
    """No log is begun in its place."""
    path = before / BEFORE
    (before / f"{BEFORE}.wal").unlink()
    data = path.read_bytes()
    path.write_bytes(b"x" * 50_000 if damage == "noise" else data[: len(data) // 2])
    if damage == "another":
        path.unlink()
        duckdb.connect(str(path)).execute("CREATE TABLE x (i INT)").close()
    kept = path.read_bytes()
    for opens in (lambda: JournalStore(before, KEY), lambda: journal_file(before)):
        with pytest.raises(Unreadable, match=r"journal\.duckdb"):
            opens()
    assert path.read_bytes() == kept and not (before / JOURNAL).exists()


def test_one_that_another_process_has_open_is_in_use(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said, and it is neither carried over nor read."""

    def held(*_: object, **__: object) -> None:
        raise duckdb.IOException("IO Error: Could not set lock on file: Conflicting lock is held")

    monkeypatch.setattr(duckdb, "connect", held)
    for opens in (lambda: JournalStore(before, KEY), lambda: journal_file(before)):
        with pytest.raises(Unreadable, match="another process has it open"):
            opens()
