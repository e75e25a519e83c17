"""The journal's log in a PostgreSQL database: what is acknowledged is there, once, whatever becomes of the server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airside.actors.audit import journal_file
from airside.actors.journal.checkpoints import CHECKPOINTS
from airside.actors.journal.journal import _committed
from airside.actors.journal.place import PLACE
from airside.actors.journal.postgres_log import PostgresLog
from airside.actors.journal.postgres_reader import PostgresLogReader
from airside.actors.journal.postgres_session import SQL, check_url
from airside.actors.journal.store import JournalStore
from airside.stack.errors import Behind, InvalidConfig, Misuse, NotWritten, SyncFailed, Unreachable, Unreadable
from tests.journals import KEY, note
from tests.postgres import Server

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for journals."""
    with closing(Server()) as started:
        yield started


@pytest.fixture
def url(server: Server) -> str:
    """The URL of a new database."""
    return server.new_database()


@pytest.fixture
def store(tmp_path: Path, url: str) -> Iterator[JournalStore]:
    """A journal with a run in it."""
    made = JournalStore(tmp_path, KEY, url)
    made.commit([note("run_a", 0, 3)])
    yield made
    made.release()


def verdicts(store: JournalStore, *appends: Any) -> list[str]:
    """Commit appends as one group and return the verdicts."""
    return [reply.verdict for reply in store.commit(appends)]


def database(url: str) -> str:
    """Return the name of a URL's database."""
    return url.split("///")[1].split("?")[0]


def end_sessions(server: Server, url: str) -> None:
    """End every session of a database, as an administrator does."""
    with server.admin() as session:
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database(url),))


# One process writes.


def test_a_database_has_one_stack(
    tmp_path: Path, url: str, store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another stack is refused, and told what holds it; when the first is gone it must have its keys."""
    monkeypatch.setattr("airside.actors.journal.postgres_log._LOCK_S", 0.0)
    with pytest.raises(Misuse, match=r"another process has the journal in PostgreSQL database .* open"):
        JournalStore(tmp_path / "other", b"x" * 32, url)
    store.release()
    with pytest.raises(Misuse, match="was written with other keys than those in"):
        JournalStore(tmp_path / "other", b"x" * 32, url)
    with closing(JournalStore(tmp_path, KEY, url)) as again:
        assert verdicts(again, note("run_a", 3, 1)) == ["ok"]


def test_a_copy_of_a_folder_does_not_end_the_session_of_the_original(
    tmp_path: Path, store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same keys and names the same database: it is refused as another stack is."""
    monkeypatch.setattr("airside.actors.journal.postgres_log._LOCK_S", 0.0)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / PLACE, tmp_path / "copy" / PLACE)
    with pytest.raises(Misuse, match="another process has the journal in"):
        JournalStore(tmp_path / "copy", KEY)
    assert verdicts(store, note("run_a", 3, 1)) == ["ok"]


def test_who_follows_a_process_ends_its_session_and_refuses_what_it_still_sends(url: str) -> None:
    """It may be frozen, or cut off: the store itself takes nothing from it any more."""
    first = PostgresLog(url, "stack")
    row = ("acme", 0, "run_a", 0, 0, 0, -1, 1, "Note", "{}", b"m")
    first.append([row])
    second = PostgresLog(url, "stack")
    with pytest.raises(SyncFailed, match="another process has taken the journal over"):
        first.append([("acme", 1, "run_a", 1, *row[4:])])
    with pytest.raises(SyncFailed, match="a write failed before"):
        first.append([("acme", 1, "run_a", 1, *row[4:])])
    second.append([("acme", 1, "run_a", 1, *row[4:])])
    assert second.last == 2
    second.close()


def test_a_writer_that_kept_its_session_is_refused_by_its_epoch(server: Server, url: str, store: JournalStore) -> None:
    """As where a standby was promoted, which knows of no locks."""
    with server.admin(database(url)) as session:
        session.execute(SQL["take_over"])
    with pytest.raises(SyncFailed, match="another process has taken the journal over"):
        store.commit([note("run_a", 3, 1)])
    with closing(PostgresLogReader(url)) as reader:
        assert reader.last() == 3


# A server that goes and comes.


def test_a_killed_server_is_waited_for_and_asked_what_it_wrote(server: Server, store: JournalStore) -> None:
    """A group that was being written is written once, and acknowledged then."""
    server.kill()
    outages: list[str] = []

    def start_again() -> None:
        while not store.outage:
            pass
        outages.append(store.outage)
        server.start()

    starter = threading.Thread(target=start_again)
    starter.start()
    assert verdicts(store, note("run_a", 3, 2)) == ["ok"]
    starter.join()
    assert "is waited for, to learn whether it wrote a group" in outages[0] and store.outage == ""
    assert len(store.bodies(["run_a"])["run_a"]) == 5
    assert store.verify() == []


def test_while_the_server_is_away_nothing_is_taken_in(server: Server, store: JournalStore) -> None:
    """It is known of what was not sent that it is not there; and what was taken in can still be asked."""
    store.catch_up()
    server.stop()
    try:
        store._log._session.close()  # type: ignore[attr-defined]
        assert {reply.verdict for reply in _committed(store, [note("run_b", 0, 1)])} == {"later"}
        with pytest.raises(NotWritten, match="does not answer"):
            store.commit([note("run_b", 0, 1)])
        assert store.rows("unfinished_below", "run_a") == []
        with pytest.raises(Unreachable, match="does not answer"):
            store.bodies(["run_a"])
    finally:
        server.start()
    assert verdicts(store, note("run_b", 0, 1)) == ["ok"]
    assert store.verify() == []


def test_what_never_comes_back_ends_the_process(server: Server, url: str) -> None:
    """After its patience: nobody knows what became of the group, and the next process reads it."""
    log = PostgresLog(url, "stack", patience_s=0.0)
    row = ("acme", 0, "run_a", 0, 0, 0, -1, 1, "Note", "{}", b"m")
    log.append([row])
    server.kill()
    try:
        with pytest.raises(SyncFailed, match="nobody knows whether a group was written"):
            log.append([("acme", 1, "run_a", 1, *row[4:])])
        with pytest.raises(Unreachable):
            PostgresLog(url, "stack")
    finally:
        server.start()


def test_a_server_that_is_frozen_is_waited_for_no_longer_than_that(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said that it does not answer; then nobody knows, and the process ends."""
    monkeypatch.setattr("airside.actors.journal.postgres_log._LOCK_S", 0.0)
    monkeypatch.setattr("airside.actors.journal.postgres_log.SLOW_S", 0.0)
    log = PostgresLog(url, "stack", patience_s=0.0, answer_s=1.0)
    row = ("acme", 0, "run_a", 0, 0, 0, -1, 1, "Note", "{}", b"m")
    log.append([row])
    with server.admin() as session:
        ((pid,),) = session.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", (database(url),)).fetchall()
    os.kill(pid, signal.SIGSTOP)
    said: list[str] = []

    def watch() -> None:
        while not (outage := log.outage):
            pass
        said.append(outage)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(SyncFailed, match="nobody knows whether a group was written"):
            log.append([("acme", 1, "run_a", 1, *row[4:])])
    finally:
        os.kill(pid, signal.SIGCONT)
        watcher.join()
    assert "has not answered for" in said[0] and log.outage == ""


def test_a_store_is_closed_while_its_server_is_away(server: Server, tmp_path: Path, store: JournalStore) -> None:
    """Its last checkpoint is written, and the next process may have it."""
    server.stop()
    try:
        store.close()
    finally:
        server.start()
    assert (tmp_path / CHECKPOINTS).exists()
    with closing(JournalStore(tmp_path, KEY)) as again:
        assert verdicts(again, note("run_a", 3, 1)) == ["ok"] and again.verify() == []


class Cut:
    """A proxy before a server's socket, which passes all on but, once told to, lets answers go and ends."""

    def __init__(self, server: Server, drops: Callable[[bytes], bool]) -> None:
        self.drops = drops
        self.is_armed = False
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(f"{self._server.folder}/.s.PGSQL.5432")
                threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self.is_armed and self.drops(data):
                    self.is_armed = False
                    break
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more."""
        self._listening.close()


def test_an_answer_that_is_lost_is_looked_up(server: Server, tmp_path: Path, url: str) -> None:
    """The group was written: it is not written again, and the session that wrote it is ended first."""
    with closing(Cut(server, lambda answer: True)) as cut:
        near = f"postgresql://postgres@127.0.0.1:{cut.port}/{database(url)}?sslmode=disable&gssencmode=disable"
        with closing(JournalStore(tmp_path, KEY, near)) as store:
            store.commit([note("run_a", 0, 3)])
            cut.is_armed = True
            assert verdicts(store, note("run_a", 3, 2)) == ["ok"]
            assert not cut.is_armed
            assert verdicts(store, note("run_a", 3, 2), note("run_a", 5, 1)) == ["ok", "ok"]
            assert len(store.bodies(["run_a"])["run_a"]) == 6 == store.last()
            assert store.verify() == []


def test_sessions_that_are_ended_cost_nothing(server: Server, tmp_path: Path, url: str) -> None:
    """Again and again, between groups and in the middle of them: everything once, in order."""
    random, known = Random(7), 0
    with closing(JournalStore(tmp_path, KEY, url)) as store:
        for turn in range(30):
            if random.random() < 0.5:
                end_sessions(server, url)
            killer = threading.Thread(target=end_sessions, args=(server, url))
            if turn % 3 == 0:
                killer.start()
            group = [note("run_a", known, 4), note(f"run_{turn}", 0, 2)]
            while (found := {reply.verdict for reply in _committed(store, group)}) != {"ok"}:
                assert found <= {"ok", "later"}
            known += 4
            if turn % 3 == 0:
                killer.join()
        assert len(store.bodies(["run_a"])["run_a"]) == known
        assert store.verify() == []


_WRITER = """
import sys
from pathlib import Path
from airside.actors.journal.store import JournalStore
from tests.journals import KEY, note
store = JournalStore(Path(sys.argv[1]), KEY, sys.argv[2])
known = len(store.bodies(["run_a"])["run_a"])
while True:
    assert [reply.verdict for reply in store.commit([note("run_a", known, 3, fill="y" * 500)])] == ["ok"]
    known += 3
    print(known, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_it_acknowledged(tmp_path: Path, url: str) -> None:
    """Its next process has the lock at once, and what was acknowledged."""
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), url], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        acknowledged = max(int(line) for line in said if line.strip())
        with closing(JournalStore(tmp_path, KEY)) as store:
            found = len(store.bodies(["run_a"])["run_a"])
            assert acknowledged <= found <= acknowledged + 3
            assert store.verify() == []


# A standby.


def test_a_standby_that_commits_wait_for_is_promoted(tmp_path: Path) -> None:
    """The primary is killed under its writer, which finds the standby by its URL: everything is there, once."""
    with closing(Server("-c synchronous_standby_names=standby")) as primary:
        with primary.admin() as session:
            session.execute("SET synchronous_commit = local")
            session.execute("CREATE DATABASE journal")
        with closing(Server(copy_of=primary)) as standby:
            url = f"postgresql:///journal?host={primary.folder},{standby.folder}&user=postgres"
            with closing(JournalStore(tmp_path, KEY, url)) as store:
                assert verdicts(store, note("run_a", 0, 3)) == ["ok"]
                primary.kill()
                standby.promote()
                with standby.admin() as session:
                    assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
                assert verdicts(store, note("run_a", 3, 2)) == ["ok"]
                assert len(store.bodies(["run_a"])["run_a"]) == 5
                assert store.verify() == []


def test_a_commit_that_did_not_wait_for_its_standby_is_no_acknowledgement(tmp_path: Path) -> None:
    """PostgreSQL answers it as a success with a warning: it is doubted until a commit has gone to the standby."""
    with closing(Server("-c synchronous_standby_names=standby")) as primary:
        with primary.admin() as session:
            session.execute("SET synchronous_commit = local")
            session.execute("CREATE DATABASE journal")
        url = primary.url("journal")
        with closing(Server(copy_of=primary)) as standby, closing(JournalStore(tmp_path, KEY, url)) as store:
            assert verdicts(store, note("run_a", 0, 3)) == ["ok"]
            standby.stop("immediate")
            done: list[str] = []
            writer = threading.Thread(target=lambda: done.extend(verdicts(store, note("run_a", 3, 2))))
            writer.start()
            with primary.admin() as session:
                waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                while not (found := session.execute(waiting).fetchall()):
                    pass
                session.execute("SELECT pg_cancel_backend(%s)", found[0])
            while not store.outage:
                pass
            assert not done
            standby.start()
            writer.join()
            assert done == ["ok"]
            assert len(store.bodies(["run_a"])["run_a"]) == 5


def test_the_commit_that_is_to_settle_a_doubt_is_doubted_too(url: str) -> None:
    """Nobody may say that a group has gone to the standby because a second wait was cut short."""
    with closing(PostgresLog(url, "stack")) as log:
        ended: list[str] = []

        def cut_short(name: str, *parameters: Any) -> Any:
            ended.append(name)
            log._session.execute("DO $$ BEGIN RAISE WARNING 'canceling wait'; END $$")
            return (1,)

        log._one = cut_short  # type: ignore[method-assign]
        log._session.close()
        with pytest.raises(NotWritten, match="ended its wait for a standby"):
            log.heads(["run_a"])
        assert ended == ["still_ours"] and log._session.closed


def test_a_session_that_was_not_looked_at_is_not_gone_on_with(server: Server, tmp_path: Path, url: str) -> None:
    """The first try is refused by a lock; the second finds that what was acknowledged is not there."""
    with closing(JournalStore(tmp_path, KEY, url)) as store:
        store.commit([note("run_a", 0, 3)])
        end_sessions(server, url)
        with server.admin(database(url)) as session:
            session.execute("DELETE FROM airside.entries WHERE position = 3; UPDATE airside.chains SET position = 2")
            session.execute("ALTER TABLE airside.about RENAME TO hidden")
            with pytest.raises(NotWritten):
                store.commit([note("run_b", 0, 1)])
            session.execute("ALTER TABLE airside.hidden RENAME TO about")
        with pytest.raises(SyncFailed, match="it lost entries that were acknowledged"):
            store.commit([note("run_b", 0, 1)])


def test_a_store_that_lost_what_was_acknowledged_is_not_gone_on_from(server: Server, tmp_path: Path, url: str) -> None:
    """Neither by the process that wrote it nor by the next one: the same numbers would be given to other entries."""
    with closing(JournalStore(tmp_path, KEY, url)) as store:
        store.commit([note("run_a", 0, 3)])
    with closing(JournalStore(tmp_path, KEY)) as store:
        with server.admin(database(url)) as session:
            session.execute("DELETE FROM airside.entries WHERE position = 3; UPDATE airside.chains SET position = 2")
        end_sessions(server, url)
        with pytest.raises(SyncFailed, match=r"it lost entries that were acknowledged \(entry 3 is not there\)"):
            store.commit([note("run_a", 3, 1)])
    with pytest.raises(Unreadable, match=r"lacks entries of tenant acme that were acknowledged: it ends at 1, and a"):
        JournalStore(tmp_path, KEY)


# What it is given.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mysql://host/db", "'mysql' is no scheme of a journal's database"),
        ("postgresql://ann:secret@host/db", "the URL has a password in it"),
        ("postgresql:///db?password=secret", "the URL has a password in it"),
        ("postgresql://host/db?sslpassword=secret", "the URL has a password in it"),
        ("host=db password=secret", "'' is no scheme of a journal's database"),
        ("postgresql://ann:secret%zz@host/db", "no URL of a PostgreSQL database: invalid percent-encoded token"),
        ("postgresql://ann:secret@[::1/db", "no URL of a PostgreSQL database"),
        ("postgresql://host/db?nonsense=1", "no URL of a PostgreSQL database"),
    ],
)
def test_what_is_no_database_is_refused(given: str, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said) as found:
        check_url(given)
    assert "secret" not in found.value.message


def test_a_server_that_cannot_keep_it_is_refused(tmp_path: Path, server: Server) -> None:
    """Before anything is made there."""
    latin = server.new_database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(Unreadable, match="its encoding is LATIN1"):
        JournalStore(tmp_path, KEY, latin)
    with closing(Server("-c fsync=off")) as careless, pytest.raises(Unreadable, match="it runs with fsync off"):
        JournalStore(tmp_path, KEY, careless.new_database())
    with pytest.raises(
        Unreachable, match=r"PostgreSQL database 'nowhere' at .* does not answer: .*nowhere.* does not exist"
    ):
        JournalStore(tmp_path, KEY, server.url("nowhere"))
    assert not (tmp_path / PLACE).exists()


def test_a_folder_knows_where_its_journal_is(tmp_path: Path, server: Server, url: str, store: JournalStore) -> None:
    """It is opened there without being told; another database is refused, and so is one that was lost."""
    store.close()
    assert (tmp_path / PLACE).stat().st_mode & 0o777 == 0o600
    with closing(JournalStore(tmp_path, KEY)) as again:
        assert again.last() == 3
    with closing(journal_file(tmp_path)) as read:
        assert len(read.bodies(["run_a"])["run_a"]) == 3
    with pytest.raises(Unreadable, match="has no journal"):
        JournalStore(tmp_path, KEY, server.new_database())
    other = server.new_database()
    JournalStore(tmp_path / "other", KEY, other).close()
    with pytest.raises(Misuse, match="belongs to another journal than the one in"):
        JournalStore(tmp_path, KEY, other)
    (tmp_path / PLACE).write_text("{")
    with pytest.raises(Unreadable, match="it does not say where the journal is"):
        JournalStore(tmp_path, KEY)


def test_a_folder_with_a_journal_of_its_own_is_not_given_another(tmp_path: Path, url: str) -> None:
    JournalStore(tmp_path, KEY).close()
    with pytest.raises(Misuse, match=re.escape("has a journal of its own, in journal.sqlite")):
        JournalStore(tmp_path, KEY, url)


def test_what_the_server_cannot_hold_harms_no_other(store: JournalStore) -> None:
    """It has no text with a NUL in it, and its index none that is too long."""
    too_long = "note_" + Random(1).randbytes(10_000).hex()
    replies = _committed(store, [note("run_b", 0, 1), note("note\0", 0, 1), note(too_long, 0, 1), note("run_a", 3, 1)])
    assert [reply.verdict for reply in replies] == ["ok", "error", "error", "ok"]


@pytest.mark.parametrize("state", ["53100", "58030", "40P01", "XX000", "42P01", "57014"])
def test_what_is_wrong_with_the_server_ends_no_run(server: Server, url: str, store: JournalStore, state: str) -> None:
    """It is taken in when the server is right again."""
    with server.admin(database(url)) as session:
        session.execute(
            "CREATE FUNCTION airside.f() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$;"
            "CREATE TRIGGER broken BEFORE INSERT ON airside.entries FOR EACH ROW EXECUTE FUNCTION airside.f()"
        )
        assert [reply.verdict for reply in _committed(store, [note("run_a", 3, 1)])] == ["later"]
        session.execute("DROP TRIGGER broken ON airside.entries")
    assert verdicts(store, note("run_a", 3, 1)) == ["ok"]


# Whole, or not.


def test_what_somebody_changes_is_found(server: Server, url: str, store: JournalStore) -> None:
    """An entry, a chain's end, a trigger that would change what is appended."""
    with server.admin(database(url)) as session:
        session.execute("UPDATE airside.entries SET body = replace(body, '1', '2') WHERE position = 2")
        assert any("acme" in problem for problem in store.verify())
        session.execute("UPDATE airside.chains SET position = 2")
        assert any("is noted to end at 2" in problem for problem in store.verify())
        session.execute(
            "CREATE FUNCTION airside.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER quiet BEFORE INSERT ON airside.entries FOR EACH ROW EXECUTE FUNCTION airside.f();"
            "ALTER TABLE airside.entries ADD COLUMN note text"
        )
    faults = "\n".join(store.verify())
    assert "entries: trigger quiet is not ours" in faults and "entries.note text is not ours" in faults


def test_tables_are_not_made_again_because_the_server_is_away(
    server: Server, store: JournalStore, tmp_path: Path
) -> None:
    """They are what they were once it is back."""
    store.close()
    made = (tmp_path / "projection" / "journal.duckdb").stat().st_ino
    with closing(JournalStore(tmp_path, KEY)) as again:
        server.stop()
        try:
            with pytest.raises(Behind, match="does not answer"):
                again.catch_up()
        finally:
            server.start()
        again.catch_up()
        assert again.behind == 0
    assert (tmp_path / "projection" / "journal.duckdb").stat().st_ino == made
    assert (tmp_path / CHECKPOINTS).exists() and os.listdir(tmp_path / "projection") == ["journal.duckdb"]
