"""The journal's projection follows the log: no append waits for it, and no query is answered with part of it."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.actors.audit import journal_file
from airside.actors.journal import log_port
from airside.actors.journal import projection as journal_projection
from airside.actors.journal import store as journal_store
from airside.actors.journal import verify as journal_verify
from airside.actors.journal.projection import PROJECTION, Projection
from airside.actors.journal.store import Feeder, JournalStore
from airside.stack.errors import Behind, Unreadable
from tests.journals import KEY, crashed, end, note, tables_of

COUNT = "SELECT count(*) AS n FROM events"
BOUND_S = 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JournalStore]:
    """A journal with two runs in it, one of which has ended, none of it projected."""
    made = JournalStore(tmp_path, KEY)
    made.commit([note("run_a", 0, 3), note("run_b", 0, 2, "globex")])
    made.commit([end("run_a", 3)])
    yield made
    made.release()


def counted(store: JournalStore) -> int:
    """Return how many events a query sees."""
    found: list[dict[str, int]] = pa.ipc.open_stream(store.query(COUNT)).read_all().to_pylist()
    return found[0]["n"]


def refuse(error: Exception) -> Callable[..., None]:
    """Return what raises an error in place of whatever it is put for."""

    def raising(*_: object) -> None:
        raise error

    return raising


def test_a_query_sees_all_that_is_durable(store: JournalStore) -> None:
    """However much was appended since the last one."""
    assert store.behind == 6 and counted(store) == 6 and store.behind == 0
    store.commit([note("run_b", 2, 5, "globex")])
    assert counted(store) == 11 and [row[0] for row in store.rows("unfinished")] == ["run_b"]


def test_appends_and_streams_wait_for_no_projection(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it takes entries in, or hangs, what is appended is durable and can be read."""
    feeding, go_on = threading.Event(), threading.Event()
    take_in = Projection._take_in

    def held(*args: Any) -> None:
        feeding.set()
        assert go_on.wait(BOUND_S)
        take_in(*args)

    monkeypatch.setattr(Projection, "_take_in", held)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(counted, store)
        assert feeding.wait(BOUND_S)
        assert store.commit([note("run_b", 2, 1, "globex")])[0].verdict == "ok"
        assert len(store.bodies(["run_b"])["run_b"]) == 3 and not asked.done()
        go_on.set()
        assert asked.result(BOUND_S) == 6


@pytest.mark.parametrize(
    "error",
    [duckdb.IOException("No space left on device"), OSError("no such device"), MemoryError("no memory")],
    ids=str,
)
def test_what_cannot_be_caught_up_is_said_and_never_answered_in_part(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Queries are refused with what lacks and why, appends go on, and later all is answered."""
    assert counted(store) == 6
    store.commit([note("run_b", 2, 1, "globex")])
    with monkeypatch.context() as patched:
        patched.setattr(Projection, "_take_in", refuse(error))
        for ask in (lambda: counted(store), lambda: store.rows("unfinished"), lambda: store.read("outcomes", [["x"]])):
            with pytest.raises(Behind, match=f"lack entries of the log after 6.*{error}"):
                ask()
        if "No space left" in str(error):
            with pytest.raises(Behind, match=r"^the disk of /\S+ is full: make room\. /"):
                counted(store)
        assert any(str(error) in problem for problem in store.verify())
        assert store.commit([note("run_b", 3, 1, "globex")])[0].verdict == "ok"
    assert counted(store) == 8 and store.verify() == []


HOLDS = """
import sys, duckdb
held = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_projection_that_another_program_holds_stops_no_append(tmp_path: Path, store: JournalStore) -> None:
    """Somebody looks into the file: queries are refused until he has gone, and it is not made again under his hands."""
    store.close()
    inode = (tmp_path / PROJECTION).stat().st_ino
    command = [sys.executable, "-c", HOLDS, str(tmp_path / PROJECTION)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None and other.stdout.readline() == "held\n"
        again = JournalStore(tmp_path, KEY)
        assert again.commit([note("run_b", 2, 1, "globex")])[0].verdict == "ok"
        with pytest.raises(Behind, match="Could not set lock"):
            again.rows("unfinished")
        assert len(again.bodies(["run_b"])["run_b"]) == 3
        other.stdin.write("\n")
        other.stdin.flush()
        other.wait(BOUND_S)
    assert counted(again) == 7 and (tmp_path / PROJECTION).stat().st_ino == inode
    again.close()


def test_an_entry_of_the_log_that_is_damaged_is_named(tmp_path: Path, store: JournalStore) -> None:
    """What cannot be projected is not left out in silence."""
    store._tail.forget(store.last())  # its writer has them no more
    store._log._db.execute("UPDATE entries SET body = '{}' WHERE type = 'RunEnded'")
    with pytest.raises(Behind, match=r"entry 6 \(run_a#3\) is damaged.*audit verify"):
        counted(store)
    assert any("tenant acme: the chain breaks at entry 3" in problem for problem in store.verify())


def test_checking_a_journal_holds_no_append_up(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes; what is appended meanwhile is no problem."""
    checking, go_on = threading.Event(), threading.Event()
    take = journal_verify.Chains.take

    def held(*args: Any) -> None:
        checking.set()
        assert go_on.wait(BOUND_S)
        take(*args)

    monkeypatch.setattr(journal_verify.Chains, "take", held)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.verify)
        assert checking.wait(BOUND_S)
        assert store.commit([note("run_b", 2, 1, "globex"), note("run_c", 0, 2, "initech")])[0].verdict == "ok"
        store.checkpoint(1)
        assert store._log.fold() is False and not asked.done()
        go_on.set()
        assert asked.result(BOUND_S) == []


def other_log(folder: Path) -> None:
    """Put a projection of another log there."""
    with closing(JournalStore(folder.parent / "other", KEY)) as other:
        other.commit([note("run_z", 0, 6)])
        other.catch_up()
    (folder.parent / "other" / PROJECTION).replace(folder / PROJECTION)


def of_version(folder: Path) -> None:
    """Put one of another version there."""
    with duckdb.connect(str(folder / PROJECTION)) as database:
        database.execute("UPDATE projected SET format = '0:0'")


def of_what_was_lost(folder: Path) -> None:
    """Put one there that has entries the log has not, as after the log was restored from a backup."""
    backup = crashed(folder, folder.parent / "backup")
    with closing(JournalStore(folder, KEY)) as ahead:
        ahead.commit([note("run_lost", 0, 4)])
        ahead.catch_up()
    (folder / PROJECTION).replace(backup / PROJECTION)
    restored = JournalStore(backup, KEY)
    restored.commit([note("run_b", 2, 4, "globex")])
    restored._projection.end()
    restored.release()
    for path in list(folder.iterdir()):
        path.is_file() and path.unlink()
    for name in ("journal.sqlite", str(PROJECTION)):
        (backup / name).replace(folder / name)


def another_database(folder: Path) -> None:
    """Put another database there."""
    (folder / PROJECTION).unlink()
    duckdb.connect(str(folder / PROJECTION)).execute("CREATE TABLE x (i INT)").close()


def nothing(folder: Path) -> None:
    """Remove it."""
    (folder / PROJECTION).unlink()


def noise(folder: Path) -> None:
    """Write over it."""
    (folder / PROJECTION).write_bytes(Random(1).randbytes(50_000))


def cut(folder: Path) -> None:
    """Cut its end."""
    data = (folder / PROJECTION).read_bytes()
    (folder / PROJECTION).write_bytes(data[:-5000])


@pytest.mark.parametrize("change", [other_log, of_version, of_what_was_lost, another_database, nothing, noise, cut])
@pytest.mark.parametrize("opens", ["stack", "audit"])
def test_a_projection_that_does_not_fit_is_made_again(
    tmp_path: Path, change: Callable[[Path], None], opens: str
) -> None:
    """By a stack in its place; by whoever reads a folder nobody writes elsewhere, and nothing there is changed."""
    folder = tmp_path / "journal"
    made = JournalStore(folder, KEY)
    made.commit([note("run_a", 0, 3), note("run_b", 0, 2, "globex"), end("run_a", 3)])
    made.close()
    change(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if opens == "stack":
        with closing(JournalStore(folder, KEY)) as store:
            assert len(tables_of(store)["events"]) == store.last() and store.verify() == []
        return
    journal = journal_file(folder)
    journal._reader.chain_key = KEY
    found = journal.query("SELECT count(*) AS n, count(DISTINCT stream) AS s FROM events").to_pylist()
    assert found == [{"n": journal._reader.last(), "s": 2}] and journal._reader.verify() == []
    journal.close()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a journal of a few hundred events, projected."""
    folder = tmp_path_factory.mktemp("whole")
    made = JournalStore(folder, KEY)
    random = Random(5)
    for n in range(10):
        texts = ["".join(random.choices("abcdefgh", k=random.randint(0, 500))) for _ in range(4)]
        made.commit([note(f"run_{s}", 9 * n, 9, f"t{s}", fill=texts[s]) for s in range(4)])
    made.close()
    return folder


@settings(max_examples=15, deadline=None)
@given(place=st.floats(0, 1), fill=st.binary(min_size=1, max_size=2000))
def test_damage_anywhere_in_a_projection_is_mended(whole: Path, place: float, fill: bytes) -> None:
    """Whatever of the file is written over, queries are answered as before, by a stack and by others."""
    data = bytearray((whole / PROJECTION).read_bytes())
    at = int(place * (len(data) - len(fill)))
    data[at : at + len(fill)] = fill
    folder = whole.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "projection").mkdir(parents=True)
    (folder / "journal.sqlite").write_bytes((whole / "journal.sqlite").read_bytes())
    (folder / PROJECTION).write_bytes(data)
    sql = "SELECT stream, count(*) AS n, sum(seq) AS s, max(length(body)) AS l, max(mac) AS m FROM events GROUP BY ALL"
    with closing(journal_file(whole)) as truth, closing(journal_file(folder)) as read:
        expected = sorted(map(str, truth.query(sql).to_pylist()))
        assert sorted(map(str, read.query(sql).to_pylist())) == expected
    with closing(JournalStore(folder, KEY)) as store:
        found = pa.ipc.open_stream(store.query(sql)).read_all().to_pylist()
        assert sorted(map(str, found)) == expected and store.verify() == []


def test_what_is_made_again_is_new_though_a_query_still_reads_the_old(tmp_path: Path, store: JournalStore) -> None:
    """However long somebody reads the damaged tables, the new ones have each event once."""
    counted(store)
    reading, go_on = threading.Event(), threading.Event()

    def slow(database: duckdb.DuckDBPyConnection) -> int:
        reading.set()
        assert go_on.wait(BOUND_S)
        return len(database.execute("FROM events").fetchall())

    def fails(database: duckdb.DuckDBPyConnection) -> None:
        raise duckdb.FatalException("the database has been invalidated")

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store._projection.ask, store.last(), slow)
        assert reading.wait(BOUND_S)
        with patch.object(journal_projection, "SOUND", "SELECT * FROM {} WHERE nothing"), pytest.raises(Unreadable):
            store._projection.ask(store.last(), fails)
        assert store._projection.path.name == "journal.1.duckdb"
        assert counted(store) == 6 and store.verify() == []
        go_on.set()
        assert asked.result(BOUND_S) == 6
    store.commit([note("run_b", 2, 1, "globex")])
    assert counted(store) == 7 and store.verify() == []
    store.close()
    assert [path.name for path in (tmp_path / "projection").iterdir()] == ["journal.1.duckdb"]
    again = JournalStore(tmp_path, KEY)
    assert counted(again) == 7 and again._projection.path.name == "journal.1.duckdb"
    again.close()


def test_what_was_asked_when_it_ended_is_not_answered_in_part(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query that waits for entries to be taken in hears that they were not."""
    monkeypatch.setattr(log_port, "CHUNK_ROWS", 2)
    store._projection.end()
    with pytest.raises(Behind, match="it is being closed"):
        counted(store)


def test_a_query_is_not_asked_of_tables_that_were_made_meanwhile(store: JournalStore) -> None:
    """Another thread found the old ones damaged after this one had caught them up: the new ones are empty yet."""
    projection, catch_up = store._projection, store._projection.catch_up

    def overtaken(until: int) -> None:
        catch_up(until)
        with projection._feeding:
            projection._db = projection._made()

    with patch.object(projection, "catch_up", overtaken), pytest.raises(Behind, match="it is being made again"):
        counted(store)
    assert counted(store) == 6 and store.verify() == []


@pytest.mark.parametrize(
    "left", ["journal.duckdb.tmp", "journal.1.duckdb.tmp", "journal.3.duckdb", "journal.7.duckdb.wal"]
)
@pytest.mark.parametrize("stays", [False, True])
def test_what_is_left_beside_it_is_not_in_its_way(
    tmp_path: Path, store: JournalStore, monkeypatch: pytest.MonkeyPatch, left: str, stays: bool
) -> None:
    """Whether a file or a folder, and whether or not it can be removed: queries are answered from tables made again."""
    store.close()
    folder = tmp_path / "projection"
    (folder / left).mkdir()
    (folder / left / "spilled").write_bytes(b"x")
    (tmp_path / PROJECTION).write_bytes(b"damaged" * 1000)
    if stays:
        monkeypatch.setattr(shutil, "rmtree", refuse(PermissionError("not yours")))
    again = JournalStore(tmp_path, KEY)
    assert counted(again) == 6 and again.verify() == []
    again.close()
    assert (folder / left).exists() == stays and not (tmp_path / PROJECTION).exists()
    with closing(JournalStore(tmp_path, KEY)) as third:
        assert counted(third) == 6


def test_a_wrong_query_makes_nothing_again(store: JournalStore) -> None:
    """What people ask wrongly is theirs, and costs nobody the tables."""
    counted(store)
    made = store._projection._db
    for sql in ("SELECT * FROM nowhere", "SELECT error('x')", "SELECT * FROM read_csv('/etc/passwd')", "SELECT 1/'a'"):
        with pytest.raises(Exception, match="audit query"):
            store.query(sql)
    assert store._projection._db is made


def test_the_projection_follows_by_itself_and_tries_again(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From a thread of its own; what fails there is logged, tried again, and stops nothing else."""
    monkeypatch.setattr(journal_store, "FEED_S", 0.0)
    tries: list[int] = []
    followed = threading.Event()
    take_in = Projection._take_in

    def fails_twice(*args: Any) -> None:
        tries.append(1)
        if len(tries) <= 2:
            raise OSError("no such device")
        take_in(*args)
        followed.set()

    monkeypatch.setattr(Projection, "_take_in", fails_twice)
    with caplog.at_level(logging.ERROR, "airside"):
        store.start_feeding()
        assert followed.wait(BOUND_S)
    assert len(tries) == 3 and [record.__dict__["action"] for record in caplog.records] == ["feed_failed"] * 2
    followed.clear()
    store.commit([note("run_b", 2, 1, "globex")])
    assert followed.wait(BOUND_S)
    store.close()
    assert store._feeder is not None and not store._feeder._thread.is_alive()


def test_a_feeder_is_idle_without_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """It works once for a note, however many come meanwhile, and not by itself."""
    monkeypatch.setattr(journal_store, "FEED_S", 0.0)
    done: list[int] = []
    working, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        done.append(1)
        working.release()
        assert go_on.acquire(timeout=BOUND_S)

    feeder = Feeder([work])
    feeder.note()
    assert working.acquire(timeout=BOUND_S)
    for _ in range(100):
        feeder.note()
    go_on.release()
    assert working.acquire(timeout=BOUND_S)
    go_on.release()
    feeder.stop()
    assert len(done) == 2
