"""A state directory speaks for itself: its record and journal are not those of the one it was copied from."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.actors.audit import journal_file
from airside.actors.client.stack_record import is_recorded, read_record, remove_record, started_by, write_record
from airside.actors.journal.log import JOURNAL
from airside.actors.journal.store import JournalStore
from airside.actors.launch import connect, start
from airside.actors.process.logs import LINK
from airside.actors.process.pulse import born
from airside.stack.errors import AirsideError, InvalidConfig, Misuse, Unreadable
from airside.stack.journal.journaling import Append, Entry
from airside.stack.journal.stream import entry_of
from airside.stack.run.events import encode_event
from airside.stack.security.keyring import KeyRing
from tests.apps.notes import create_app
from tests.commands import airside
from tests.helpers import RUN, submitted


def make_journal(folder: Path) -> JournalStore:
    """Return the open journal of a directory, with a run of which there is one event."""
    store = JournalStore(folder, KeyRing.open(folder / "keys").chain)
    event = submitted()
    store.commit([Append(tenant=event.identity.tenant, stream=RUN, epoch=0, first_seq=0, entries=(entry_of(event),))])
    store.checkpoint(1)
    return store


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """A directory whose record names an address where something listens, its journal's file closed."""
    folder = tmp_path / "live"
    store = make_journal(folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        write_record(folder, {"id": "a", "stack": "default", "address": f"127.0.0.1:{server.getsockname()[1]}"})
        store.release()
        yield folder


def copied(live: Path, name: str = "copy") -> Path:
    """Return a copy of a directory, with all that `cp -a` keeps."""
    return Path(shutil.copytree(live, live.parent / name, symlinks=True))


def moved(live: Path) -> Path:
    """Move the directory away."""
    return live.rename(live.parent / "moved")


def swapped(live: Path) -> Path:
    """Move the directory away and put a copy in its place."""
    copy, away = copied(live), live.parent / "away"
    live.rename(away)
    return copy.rename(live)


def restored(live: Path) -> Path:
    """Put another journal's file in the place of the directory's own."""
    other = live.parent / "journal.other"
    shutil.copy(live / JOURNAL, other)
    other.replace(live / JOURNAL)
    return live


def linked(live: Path) -> Path:
    """Return a directory whose files are the original's, by hard links."""
    return Path(shutil.copytree(live, live.parent / "linked", copy_function=os.link))


@pytest.mark.parametrize("change", [copied, moved, swapped, restored, linked])
def test_no_stack_runs_on_a_directory_that_is_not_the_recorded_one(live: Path, change: Callable[[Path], Path]) -> None:
    """Whatever is done to get another directory with the record in it, nobody is led to the stack of the first."""
    folder = change(live)
    with pytest.raises(Misuse, match="no stack runs on"):
        read_record(folder)
    with pytest.raises(Misuse, match="no stack runs on"):
        connect(folder)


def test_a_record_is_its_own_directorys_under_every_name(live: Path, tmp_path: Path) -> None:
    """A symbolic link to a directory is the directory."""
    (tmp_path / "link").symlink_to(live)
    assert read_record(tmp_path / "link")["id"] == read_record(live)["id"] == "a"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\udcff"])
def test_a_record_that_cannot_be_read_is_none(live: Path, text: str) -> None:
    """A damaged record leads nowhere and raises nothing of its own."""
    (live / "stack.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert read_record(live) == {}
    with pytest.raises(Misuse, match="no stack is up"):
        connect(live)


def test_who_connects_to_a_stack_that_is_gone_is_told_how_to_start_it_from_python_too(live: Path) -> None:
    """A kernel that was restarted has no shell."""
    write_record(live, {"id": "a", "address": "127.0.0.1:1"})
    with pytest.raises(Misuse, match=r"is gone .*: start it again \(`airside\.start\(app, state_dir=\.\.\.\)`"):
        connect(live)


def test_a_record_without_a_directory_is_not_believed(live: Path) -> None:
    """One that was written by hand, or before records named their directory, leads nowhere."""
    (live / "stack.json").write_text(json.dumps({"id": "a", "address": "127.0.0.1:1"}), encoding="utf-8")
    with pytest.raises(Misuse, match="no stack runs on"):
        connect(live)


def test_only_a_stacks_own_record_is_removed(live: Path) -> None:
    """What another stack wrote since stays."""
    remove_record(live, "b")
    assert is_recorded(live, "a")
    remove_record(live, "a")
    assert not is_recorded(live, "a") and not (live / "stack.json").exists()


# The commands on such a directory.


ORDERS = [
    ["switch", "off", "all"],
    ["switch", "on", "all"],
    ["switch", "list"],
    ["kill", "--all"],
    ["rollback", RUN],
    ["in-doubt", "resolve", RUN, "--happened"],
    ["approvals", "list"],
    ["approvals", "approve", "apr_x", "--as", "lea"],
    ["status"],
    ["memory", "sweep"],
    ["memory", "erase", "--tenant", "acme", "--all"],
]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_an_order_for_a_copy_is_refused(
    live: Path, order: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command that takes a state directory reaches the stack of the directory it was copied from."""
    assert airside(monkeypatch, *order, "--state-dir", str(copied(live))) == 2
    assert "no stack runs on" in capsys.readouterr().err


def test_a_copy_is_verified_itself_while_the_original_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is whole or not by its own file, to which nothing is done."""
    store = make_journal(tmp_path / "live")
    copy = copied(tmp_path / "live")
    before = {path.name: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert airside(monkeypatch, "audit", "verify", "--state-dir", str(copy)) == 0
    assert capsys.readouterr().out == "the journal is whole\n"
    assert {path.name: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    (copy / JOURNAL).write_bytes(os.urandom(100_000))
    assert airside(monkeypatch, "audit", "verify", "--state-dir", str(copy)) == 1
    said = capsys.readouterr()
    assert str(copy / JOURNAL) in said.err and "whole\n" not in said.out and store.verify() == []
    store.release()


def test_a_copy_without_its_keys_is_not_called_whole_and_gets_none(
    live: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chain can be checked with its key alone; questions need none."""
    copy = copied(live)
    shutil.rmtree(copy / "keys")
    assert airside(monkeypatch, "audit", "verify", "--state-dir", str(copy)) == 2
    assert "chain.key" in capsys.readouterr().err and not (copy / "keys").exists()
    assert airside(monkeypatch, "audit", "story", RUN, "--state-dir", str(copy)) == 0
    assert "submitted by ann@acme" in capsys.readouterr().out


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "noise": lambda whole: os.urandom(len(whole)),
    "text": lambda _: b"not a database\n" * 1000,
    "a cut header": lambda whole: whole[:100],
    "half": lambda whole: whole[: len(whole) // 2],
    "a cut end": lambda whole: whole[:-1000],
    "zeros": lambda whole: bytes(len(whole)),
}


@pytest.mark.parametrize("command", [["verify"], ["query", "SELECT * FROM events"], ["story", RUN]], ids=" ".join)
@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_a_file_that_is_no_whole_journal_is_said_and_exits_with_one(
    live: Path,
    damage: str,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Noise, a cut file and an empty one are named, in one message, by every audit command."""
    copy = copied(live)
    path = copy / JOURNAL
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert airside(monkeypatch, "audit", *command, "--state-dir", str(copy)) == 1
    said = capsys.readouterr()
    assert str(path) in said.err and said.out in ("", "the journal is not whole\n", "the journal cannot be read\n"), (
        said
    )


@pytest.mark.parametrize("name", [JOURNAL, "journal.duckdb"])
def test_another_database_is_no_journal(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database without the journal's tables does not verify."""
    KeyRing.open(tmp_path / "keys")
    made = sqlite3.connect(tmp_path / name) if name == JOURNAL else duckdb.connect(str(tmp_path / name))
    made.execute("CREATE TABLE x (i INT)")
    made.close()
    assert airside(monkeypatch, "audit", "verify", "--state-dir", str(tmp_path)) == 1
    assert str(tmp_path / name) in capsys.readouterr().err


def test_a_journal_that_is_written_is_read_beside_its_writer(tmp_path: Path) -> None:
    """Where no stack answers for a log that is held, it is read as it is at each question, and its writer goes on."""
    store = make_journal(tmp_path)
    journal = journal_file(tmp_path)
    count = "SELECT count(*) AS n FROM events"
    assert journal.verify() == [] and journal.query(count).to_pylist() == [{"n": 1}]
    note = Entry(type="Note", step=1, at_us=2, cause=0, body=b"{}")
    store.commit([Append(tenant=submitted().identity.tenant, stream=RUN, epoch=0, first_seq=1, entries=(note,))])
    assert journal.verify() == [] and journal.query(count).to_pylist() == [{"n": 2}]
    journal.close()
    store.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a whole journal that nobody writes."""
    folder = tmp_path_factory.mktemp("whole")
    make_journal(folder).release()
    return folder


@settings(max_examples=40)
@given(place=st.floats(0, 1), size=st.integers(1, 5000), fill=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_no_damage_is_taken_for_a_whole_journal(whole: Path, place: float, size: int, fill: bytes, cut: bool) -> None:
    """Wherever a file is cut or written over, it does not verify, or every event in it is the one that was written."""
    data = bytearray((whole / JOURNAL).read_bytes())
    at = int(place * (len(data) - 1))
    data[at : len(data) if cut else at + size] = b"" if cut else (fill * size)[: min(size, len(data) - at)]
    damaged = whole.parent / "damaged"
    shutil.copytree(whole, damaged, dirs_exist_ok=True)
    (damaged / JOURNAL).write_bytes(data)
    try:
        journal = journal_file(damaged)
    except Unreadable:
        return
    try:
        if not journal.verify():
            bodies = [row["body"] for row in journal.query("SELECT body FROM events").to_pylist()]
            assert bodies == [encode_event(submitted()).decode()]
    except AirsideError:
        pass  # said
    finally:
        journal.close()


def test_a_directory_whose_stack_another_process_keeps_up_is_refused_before_a_ray_is_started(tmp_path: Path) -> None:
    """What a process left that died is waited for, by the journal: it gives way."""
    store = make_journal(tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        write_record(tmp_path, {"id": "a", "stack": "one", "starter": [other.pid, born(other.pid)]})
        with pytest.raises(Misuse, match=rf"the stack of {tmp_path} runs already, in process {other.pid}: use airside"):
            start(create_app(tmp_path), state_dir=tmp_path)
        assert not ray.is_initialized() and started_by(tmp_path) == other.pid
        other.communicate()
    assert started_by(tmp_path) == 0
    store.close()


def test_a_command_that_would_start_a_second_one_says_what_to_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a shell there is no `airside.connect`."""
    store = make_journal(tmp_path)
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"request": "r", "tenant": "acme", "principal": "ana"}\n')
    write_record(tmp_path, {"id": "a", "stack": "one", "starter": [os.getpid(), born(os.getpid())]})
    asked = ("run", str(jobs), "--out", str(tmp_path / "out"), "--app", "nowhere", "--state-dir", str(tmp_path))
    assert airside(monkeypatch, *asked) == 2
    said = capsys.readouterr().err
    assert f"the stack of {tmp_path} runs already" in said and "leave --app out" in said and "connect(" not in said
    store.close()


def test_a_second_up_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "its state"
    folder.mkdir()
    store = make_journal(folder)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        write_record(folder, {"id": "a", "stack": "one", "starter": [other.pid, born(other.pid)]})
        asked = ("up", "--app", "tests.apps.notes", "--app-arg", f"work={tmp_path}", "--state-dir", str(folder))
        assert airside(monkeypatch, *asked) == 2
        said = capsys.readouterr().err
        other.communicate()
    assert f"the stack of {folder} runs already, in process {other.pid}: `airside status" in said
    assert f"`airside down --state-dir '{folder}'` stops it" in said and "connect(" not in said
    store.close()


@pytest.mark.parametrize("place", ["file.py", "file.py/state", "/proc/x"])
def test_a_place_that_can_be_no_folder_is_said(tmp_path: Path, place: str) -> None:
    """By a typed error, with what and where, before a Ray is started."""
    (tmp_path / "file.py").write_text("")
    with pytest.raises(InvalidConfig, match=r"start: state_dir: .* cannot be a stack's folder \(.+: .+\)"):
        start(create_app(tmp_path), state_dir=tmp_path / place)
    assert not ray.is_initialized()


def test_a_layer_that_has_no_log_says_which_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / LINK
    folder.mkdir()
    for pid, actor in enumerate(("Driver", "Journal")):
        (folder / f"worker-ab-cd-{pid}.err").write_text(f":actor_name:{actor}\n")
    assert airside(monkeypatch, "logs", "drivr", "--state-dir", str(tmp_path)) == 2
    assert "no layer 'drivr' has a log" in (said := capsys.readouterr().err) and "there are driver, journal" in said
