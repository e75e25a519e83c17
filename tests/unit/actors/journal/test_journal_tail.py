"""The projection takes in what was just written without reading it again, and reads what its writer has no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airside.actors.journal import log_port
from airside.actors.journal import tail as journal_tail
from airside.actors.journal.log import SqliteLogReader
from airside.actors.journal.projection import Projection
from airside.actors.journal.store import JournalStore
from airside.actors.journal.tail import Tail
from airside.stack.errors import NotWritten
from tests.journals import KEY, end, note, tables_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JournalStore]:
    """An empty journal."""
    made = JournalStore(tmp_path / "journal", KEY)
    yield made
    made.release()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After which positions the log was read in pieces."""
    after: list[int] = []
    chunks = SqliteLogReader.chunks

    def counted(self: SqliteLogReader, *places: int, **options: Any) -> Any:
        after.append(places[0])
        return chunks(self, *places, **options)

    monkeypatch.setattr(SqliteLogReader, "chunks", counted)
    return after


def row(body: str) -> tuple[Any, ...]:
    """Return a row as the log is given it."""
    return ("acme", 0, "run_a", 0, 0, 1, -1, 10, "Note", body, b"")


def test_a_projection_that_follows_reads_nothing_that_was_just_written(store: JournalStore, read: list[int]) -> None:
    for first in range(0, 90, 3):
        store.commit([note("run_a", first, 3)])
        if first % 9 == 0:
            store.catch_up()
    store.catch_up()
    assert store.behind == 0 and read == []
    assert not store._tail._batches and store._tail._bytes == 0


def test_one_that_is_further_behind_reads_the_log_and_then_follows(
    store: JournalStore, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_tail, "MAX_BYTES", 2_000)
    for first in range(0, 40, 4):
        store.commit([note("run_a", first, 4, fill="x" * 300)])
    store.catch_up()
    assert read == [0] and store.behind == 0
    store.commit([note("run_a", 40, 1)])
    store.catch_up()
    assert read == [0]


def test_what_is_kept_is_bounded_by_its_bodies() -> None:
    tail = Tail()
    for at in range(10):
        tail.add(at, [row("x" * (journal_tail.MAX_BYTES // 4))])
    assert [each[0] for each in tail.rows(6, 10)] == [7, 8, 9, 10] and tail.rows(5, 10) == []
    tail.add(10, [row("x" * (journal_tail.MAX_BYTES + 1))])
    assert tail.rows(10, 11) == [] and tail._bytes == 0


def test_any_part_of_what_is_kept_can_be_had_and_none_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tail, rows = Tail(), [row(str(n)) for n in range(12)]
    for at in (0, 5, 6):
        tail.add(at, rows[at : {0: 5, 5: 6, 6: 12}[at]])
    for after in range(12):
        for until in range(after + 1, 13):
            assert tail.rows(after, until) == [(n + 1, *rows[n]) for n in range(after, until)]
    tail.forget(5)
    assert tail.rows(4, 12) == [] and len(tail.rows(5, 12)) == 7
    monkeypatch.setattr(log_port, "CHUNK_ROWS", 1)
    assert [each[0] for each in tail.rows(5, 12)] == [6], "a commit at a time"


def test_what_was_not_written_is_not_kept(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise NotWritten("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store._log, "append", full)
        with pytest.raises(NotWritten):
            store.commit([note("run_a", 0, 3)])
    assert store._tail.rows(0, 3) == []
    store.commit([note("run_a", 0, 2)])
    assert len(store._tail.rows(0, 2)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_tables_are_the_same_from_what_was_kept_and_from_the_log(
    seed: int, store: JournalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = Random(seed)
    monkeypatch.setattr(journal_tail, "MAX_BYTES", 4_000)
    monkeypatch.setattr(log_port, "CHUNK_ROWS", 7)
    lengths = dict.fromkeys(("run_a", "run_b", "run_c"), 0)
    for _ in range(30):
        appends = []
        for stream in choose.sample(sorted(lengths), choose.randint(1, 3)):
            count = choose.randint(1, 6)
            appends.append(note(stream, lengths[stream], count, f"t-{stream[-1]}", fill="ü" * choose.randint(0, 400)))
            lengths[stream] += count
        store.commit(appends)
        if choose.random() < 0.3:
            store.catch_up()
    store.commit([end("run_a", lengths["run_a"], "t-a")])
    followed = tables_of(store)
    anew = Projection(tmp_path / "anew" / "p.duckdb", store._reader)
    monkeypatch.setattr(store, "_projection", anew)
    assert tables_of(store) == followed
    anew.close()
