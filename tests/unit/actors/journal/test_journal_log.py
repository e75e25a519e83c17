"""The journal's log: one process appends, what is acknowledged is durable, and what cannot be written is said."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airside.actors.audit import journal_file
from airside.actors.journal import log as journal_log
from airside.actors.journal.checkpoints import CHECKPOINTS
from airside.actors.journal.journal import _committed
from airside.actors.journal.log import JOURNAL, is_written
from airside.actors.journal.store import JournalStore
from airside.stack.errors import Behind, Misuse, NotWritten, SyncFailed, Unreadable
from tests.journals import KEY, WAL, crashed, note, tables_of

ROOT = Path(__file__).parents[4]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JournalStore]:
    """A journal with a run in it."""
    made = JournalStore(tmp_path, KEY)
    made.commit([note("run_a", 0, 3)])
    yield made
    made.release()


def test_one_process_has_a_log_open_for_appending(tmp_path: Path, store: JournalStore) -> None:
    """Another is refused, and told so; when the first is gone it goes on."""
    assert is_written(tmp_path)
    with pytest.raises(Misuse, match=r"another process has .*journal\.sqlite open: is a stack up there"):
        JournalStore(tmp_path, KEY)
    store.release()
    assert not is_written(tmp_path)
    again = JournalStore(tmp_path, KEY)
    assert [reply.verdict for reply in again.commit([note("run_a", 3, 1)])] == ["ok"]
    again.close()


def test_nobody_else_may_read_what_is_journaled(tmp_path: Path, store: JournalStore) -> None:
    """The log and what SQLite makes beside it are its user's alone, and so is the folder of the projection."""
    store.checkpoint(1)
    store.catch_up()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes.pop("projection") == 0o700
    assert {JOURNAL, WAL, CHECKPOINTS} < modes.keys() and set(modes.values()) == {0o600}


def test_a_full_disk_is_said_and_nothing_is_half_taken_in(store: JournalStore) -> None:
    """Appends are refused for now, not for ever; once there is room the same ones go in."""
    database = store._log._db
    database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    group = [note("run_b", 0, 20, fill="x" * 9000), note("run_a", 3, 1)]
    with pytest.raises(NotWritten, match="the disk is full"):
        store.commit(group)
    assert [reply.verdict for reply in _committed(store, group)] == ["later", "later"]
    assert store.bodies(["run_b"]) == {"run_b": []} and store.verify() == []
    database.execute("PRAGMA max_page_count = 1000000")
    assert [reply.verdict for reply in store.commit(group)] == ["ok", "ok"]
    assert store.verify() == []


def test_another_program_that_writes_holds_appends_up_and_loses_none(tmp_path: Path, store: JournalStore) -> None:
    """Nobody should open the file to write; who does makes appends wait."""
    store._log._db.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(tmp_path / JOURNAL, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotWritten, match="cannot be written"):
            store.commit([note("run_a", 3, 1)])
        other.execute("ROLLBACK")
    assert store.commit([note("run_a", 3, 1)])[0].verdict == "ok"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_IOERR_READ, NotWritten),
        (sqlite3.SQLITE_CORRUPT, NotWritten),
        (sqlite3.SQLITE_READONLY_DBMOVED, NotWritten),
        (sqlite3.SQLITE_FULL, NotWritten),
        (sqlite3.SQLITE_IOERR_SHMSIZE, NotWritten),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, SyncFailed),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, SyncFailed),
        (sqlite3.SQLITE_IOERR_WRITE, SyncFailed),
        (sqlite3.SQLITE_IOERR_FSYNC, SyncFailed),
        (sqlite3.SQLITE_IOERR_SHMMAP, SyncFailed),
    ],
)
def test_what_is_wrong_with_the_file_ends_no_run(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    """Whether it shows where a stream is looked up or where it is written: what was sent can be sent again."""
    error = sqlite3.OperationalError("no")
    error.sqlite_errorcode = code

    def fails(*_: object) -> None:
        raise error

    for place in ("_number", "_undo"):
        with monkeypatch.context() as patch:
            patch.setattr(store._log, place, fails)
            patch.setattr(journal_log, "insert_rows", fails)
            if place == "_undo":
                patch.setattr(store._log, "_undo", lambda: store._log._db.execute("ROLLBACK"))
            with pytest.raises(kind):
                store.commit([note("run_new", 0, 1)])
        store._log._failed = False
    assert store.commit([note("run_new", 0, 1)])[0].verdict == "ok"


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE])
def test_a_log_that_finds_no_room_is_not_called_damaged(
    tmp_path: Path, store: JournalStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Neither when it is opened nor when it is read: it is said that the disk is full."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code

    def fails(*_: object) -> None:
        raise error

    with pytest.raises(Unreadable, match="the disk is full"), store._reader.reading():
        fails()
    store.release()
    with monkeypatch.context() as patch:
        patch.setattr(journal_log, "_opened", fails)
        with pytest.raises(Unreadable, match="the disk is full"):
            JournalStore(tmp_path, KEY)
    with closing(JournalStore(tmp_path, KEY)) as again:
        assert again.commit([note("run_a", 3, 1)])[0].verdict == "ok"


def test_what_comes_after_the_end_can_be_sent_again(tmp_path: Path, store: JournalStore) -> None:
    """To the next process: a log that is closed is no reason why a run, a claim or an admission could never be."""
    store.commit([note("run_b", 0, 1)])
    store.close()
    sent = [note("run_a", 3, 1), note("run_b", 1, 1), note("run_new", 0, 1), note("run_a", 0, 3)]
    assert {reply.verdict for reply in _committed(store, sent)} == {"later"}
    with closing(JournalStore(tmp_path, KEY)) as again:
        assert {reply.verdict for reply in _committed(again, sent)} == {"ok"} and again.verify() == []


def test_a_log_that_another_program_wrote_to_ends_the_process(tmp_path: Path, store: JournalStore) -> None:
    """Where the next entry was to be there is one: nothing can be appended before the file is read anew."""
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as other, other:
        columns = "tenant, number, stream, seq + 50, epoch, step, cause, at_us, type, body, mac"
        other.execute(f"INSERT INTO entries SELECT position + 1, {columns} FROM entries ORDER BY position DESC LIMIT 1")
    with pytest.raises(SyncFailed, match="another program has written to it"):
        store.commit([note("run_a", 3, 1)])
    with pytest.raises(SyncFailed):
        store.commit([note("run_b", 0, 1)])


FAILS = """
import resource, sys
from pathlib import Path
from airside.actors.journal.journal import _committed
from airside.actors.journal.store import JournalStore
from tests.journals import KEY, WAL, note

store = JournalStore(Path(sys.argv[1]), KEY)
print(_committed(store, [note("run_a", 0, 3)])[0].verdict, flush=True)
size = (Path(sys.argv[1]) / WAL).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 6000, size + 6000))
print(_committed(store, [note("run_a", 3, 30, fill="x" * 1000)])[0].verdict, flush=True)
"""


def test_a_process_whose_disk_fails_ends_without_an_answer(tmp_path: Path) -> None:
    """Whoever waits hears nothing; the next process has what was acknowledged, whole."""
    done = subprocess.run(
        [sys.executable, "-c", FAILS, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (1, "ok\n"), done.stderr
    assert "the disk failed" in done.stderr
    store = JournalStore(tmp_path, KEY)
    assert store.verify() == [] and len(store.bodies(["run_a"])["run_a"]) == 3
    store.close()


def test_nothing_is_appended_after_the_disk_failed(store: JournalStore) -> None:
    """Whatever a later write would say."""

    class Failing:
        """A connection whose commits fail as those of a disk that is broken."""

        in_transaction = False

        def execute(self, *_: object) -> None:
            """Fail."""
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    real, store._log._db = store._log._db, Failing()  # type: ignore[assignment]
    with pytest.raises(SyncFailed, match="the disk failed"):
        store._log.append([("acme", 3, "run_a", 3, 0, 1, 1, 1, "Note", "{}", b"")])
    store._log._db = real
    with pytest.raises(SyncFailed, match="failed before"):
        store.commit([note("run_a", 3, 1)])


def test_the_write_ahead_log_is_begun_anew_once_it_is_long(
    tmp_path: Path, store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it stays bounded; who reads at length meanwhile holds up neither that nor appends, and sees what it saw."""
    monkeypatch.setattr(journal_log, "FOLD_BYTES", 100_000)
    assert not store._log.fold()
    longest = 0
    for n in range(40):
        store.commit([note("run_a", 3 + 20 * n, 20, fill="x" * 500)])
        longest = max(longest, (tmp_path / WAL).stat().st_size)
        store._log.fold()
    assert longest < 250_000
    with store._reader.reading() as reading:
        reading.execute("BEGIN")
        (before,) = reading.execute("SELECT count(*) FROM entries").fetchone()
        for n in range(40, 50):
            store.commit([note("run_a", 3 + 20 * n, 20, fill="x" * 500)])
            store._log.fold()
        assert reading.execute("SELECT count(*) FROM entries").fetchone() == (before,)
        reading.execute("ROLLBACK")
    assert store._log.fold() and (tmp_path / WAL).stat().st_size == 0
    assert store.verify() == [] and len(store.bodies(["run_a"])["run_a"]) == 1003


def test_a_copy_that_was_taken_while_the_log_was_written_opens(tmp_path: Path, store: JournalStore) -> None:
    """With what was durable then; and it can be started on."""
    for n in range(5):
        store.commit([note("run_a", 3 + n, 1)])
        copy = crashed(tmp_path, tmp_path.parent / f"copy{n}")
        journal = journal_file(copy)
        assert len(journal.bodies(["run_a"])["run_a"]) == 4 + n
        journal.close()
        started = JournalStore(copy, KEY)
        assert started.commit([note("run_a", 4 + n, 1)])[0].verdict == "ok" and started.verify() == []
        started.close()


def test_a_checkpoint_that_was_torn_harms_none_after_it(tmp_path: Path, store: JournalStore) -> None:
    """What a crash left of a line is cut before the next is written."""
    store.checkpoint(1)
    with (tmp_path / CHECKPOINTS).open("a") as file:
        file.write('{"body": "{')
    assert store.verify() == []
    store.commit([note("run_a", 3, 1)])
    store.checkpoint(2)
    assert store.verify() == [] and len((tmp_path / CHECKPOINTS).read_text().splitlines()) == 2


def test_a_log_of_another_format_is_not_touched(tmp_path: Path, store: JournalStore) -> None:
    """It is said what would open it."""
    store.close()
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as database:
        database.execute("PRAGMA user_version = 9")
    for opens in (lambda: JournalStore(tmp_path, KEY), lambda: journal_file(tmp_path)):
        with pytest.raises(Unreadable, match="format 9"):
            opens()
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as database:
        database.execute(f"PRAGMA user_version = {journal_log.FORMAT}")
    again = JournalStore(tmp_path, KEY)
    assert again.verify() == []
    again.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of some hundred pages, that nobody writes."""
    folder = tmp_path_factory.mktemp("whole")
    made = JournalStore(folder, KEY)
    random = Random(3)
    for n in range(40):
        made.commit([note(f"run_{s}", 5 * n, 5, f"t{s}", fill="z" * random.randint(0, 600)) for s in range(4)])
    made.checkpoint(1)
    made.close()
    return folder


@settings(max_examples=40, deadline=None)
@given(places=st.lists(st.floats(0, 1), min_size=1, max_size=3), fill=st.binary(min_size=1, max_size=600))
@example(places=[0.009765625], fill=b'"\x80')
def test_damage_anywhere_in_a_log_is_found(whole: Path, places: list[float], fill: bytes) -> None:
    """By whoever verifies; what is called whole has every entry as it was written."""
    data = bytearray((whole / JOURNAL).read_bytes())
    for place in places:
        at = int(place * (len(data) - len(fill)))
        data[at : at + len(fill)] = fill
    damaged = whole.parent / "damaged"
    damaged.mkdir(exist_ok=True)
    for name in (CHECKPOINTS, JOURNAL):
        (damaged / name).write_bytes((whole / name).read_bytes())
    (damaged / JOURNAL).write_bytes(data)
    names = [f"run_{s}" for s in range(4)]
    said = []
    try:
        with closing(journal_file(damaged)) as journal:
            journal._reader.chain_key = KEY
            said = journal._reader.verify()
            if not said:
                with closing(journal_file(whole)) as truth:
                    assert journal.bodies(names) == truth.bodies(names)
            journal.query("SELECT * FROM events")
    except Unreadable as error:
        said.append(error.message)
    except Behind:
        assert said
    assert not said or str(damaged / JOURNAL) in said[-1] or "tenant" in said[0] or "projection" in said[0]


def test_a_stack_on_a_damaged_log_says_which_file(whole: Path, tmp_path: Path) -> None:
    """It does not begin a new one in its place."""
    (tmp_path / JOURNAL).write_bytes(os.urandom(20_000))
    with pytest.raises(Unreadable, match=JOURNAL):
        JournalStore(tmp_path, KEY)
    assert (tmp_path / JOURNAL).stat().st_size == 20_000


def test_the_tables_are_the_same_when_they_are_made_at_once(whole: Path, tmp_path: Path) -> None:
    """As when they followed commit by commit."""
    left = crashed(whole, tmp_path / "left")
    store = JournalStore(left, KEY)
    before = tables_of(store)
    store.release()
    os.unlink(left / "projection" / "journal.duckdb")
    again = JournalStore(left, KEY)
    assert tables_of(again) == before and len(before["events"]) == 800
    again.release()
