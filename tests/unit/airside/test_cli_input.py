"""The command line without Ray: whatever is typed, it answers with words and an exit code, never with a traceback."""

from __future__ import annotations

import csv
import errno
import importlib.metadata
import itertools
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import msgspec
import pyarrow.parquet as pq
import pytest
import typer

import airside
from airside import cli
from airside.actors import audit
from airside.actors.client.client import Stack
from airside.actors.client.connection import encoded
from airside.actors.client.known_principals import write_people
from airside.actors.client.results import MapInterrupted
from airside.actors.client.steps import Pause, Steps, drive
from airside.actors.driver.orders import sealed_order
from airside.actors.journal.store import JournalStore
from airside.actors.rpc.methods import GIVE_VOTE, KEEP, MEMORY_ORDER, ORDER, PENDING, ROLL_BACK, SWITCHES, Method
from airside.actors.rpc.names import CellAddress
from airside.actors.settings import Settings
from airside.batches.result_schema import SCHEMA
from airside.memory.embedders import embedder
from airside.run_cli import _left_behind
from airside.stack.directory import load_directory
from airside.stack.errors import AirsideError, LayerUnavailable, Misuse
from airside.stack.ids import SYSTEM_TENANT, PrincipalId
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import entry_of
from airside.stack.operations.messages import VoteReply
from airside.stack.policy.kill_switches import STREAM, KillSwitchChanged
from airside.stack.security.keyring import KeyRing
from airside.stack.security.memory_orders import MemoryAnswer
from tests.unit.airside.batches.fake_stack import FakeStack

RUN = "run_" + "0" * 24
COMMAND = typer.main.get_command(cli.app)


class Layers:
    """A connection to layers that know of nothing: what they are sent can be sent, and they say no."""

    member = SimpleNamespace(ends_ray=False)

    def __init__(self, folder: Path) -> None:
        self.cell = CellAddress.of(Settings(state_dir=folder))
        self.calls: list[tuple[str, str]] = []

    def call(self, method: Method[Any, Any], request: Any, *, within_s: float | None = None) -> Steps[Any]:
        """Answer."""
        yield Pause(0.0)
        encoded(method, [request])
        self.calls.append((method.layer, method.name))
        if method is ORDER:
            return 0, "no live run of that"
        if method is ROLL_BACK:
            return b"", "no such run"
        if method in (SWITCHES, PENDING):
            return []
        if method is GIVE_VOTE:
            return VoteReply(ok=False, code="unknown", message="no approval of that id waits")
        if method in (MEMORY_ORDER, KEEP):
            return msgspec.msgpack.encode(MemoryAnswer(problem="nothing is known"))
        raise LayerUnavailable(f"{method} is away")

    def ask(self, method: Method[Any, Any], request: Any) -> Any:
        """As `call`, from this thread."""
        return drive(self.call(method, request))

    def has(self, layer: str) -> bool:
        """Whether there is such a layer."""
        return True

    def actors(self) -> dict[str, Any]:
        """Return none."""
        return {}

    def stop(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class World:
    """A state directory whose stack is made of `Layers`, and a batch whose results a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers = Layers(folder)
        keys = KeyRing.open(folder / "keys")
        self.stack = Stack(self.layers, keys, folder, stops=False, record={})  # type: ignore[arg-type]
        self.batches = FakeStack()
        self.stack.backend = self.batches  # type: ignore[assignment]
        self.stack.batch = self.batches.batch  # type: ignore[method-assign]
        self.stack.query = self.batches.query  # type: ignore[method-assign]
        self.stack.verify = lambda: []  # type: ignore[method-assign]


class Embedder:
    """Embeds nothing."""

    name = "none"

    def __init__(self, model: str | None) -> None:
        """Take any model."""


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a journal and nothing in it."""
    folder = tmp_path_factory.mktemp("journal")
    JournalStore(folder, KeyRing.open(folder / "keys").chain).close()
    return folder


@pytest.fixture
def world(journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Its stack, to which every command attaches; none can be started."""
    world = World(journal)

    def no_start(*_: Any, **__: Any) -> Stack:
        raise Misuse("nothing is started here")

    def nobody(*_: Any, **__: Any) -> Stack:
        raise Misuse("no stack is up")

    monkeypatch.setattr(airside, "connect", lambda *_, **__: world.stack, raising=False)
    monkeypatch.setattr(airside, "start", no_start, raising=False)
    monkeypatch.setattr(audit, "connect", nobody)
    monkeypatch.setattr(cli, "app", COMMAND)  # made once: that takes longer than any command here
    monkeypatch.setattr(embedder, "SentenceTransformerEmbedder", Embedder)
    monkeypatch.setitem(sys.modules, "airside.demo.run", SimpleNamespace(run_demo=lambda *_, **__: 0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRSIDE_STATE_DIR", str(journal))
    monkeypatch.setenv("HOME", str(tmp_path))
    return world


def airside_says(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, and what it says on stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0 if code is None else 1), out, err


def commands() -> Iterator[tuple[list[str], Any]]:
    """Return every command with its words."""

    def walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*words, name])
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield words, command

    return walk(COMMAND, [])


PLAIN = {
    "scope": "tenant",
    "sql": "SELECT 1",
    "arguments": "{}",
    "run_id": RUN,
    "ttl": "60",
    "approval_id": f"apr_{RUN}_1_{'0' * 12}",
}
ODD = [
    "",
    " ",
    "-",
    "--",
    "\udcff",
    "a\udcffb",
    "\x00",
    "é" * 300,
    "x" * 5000,
    "~",
    "~nobody_at_all",
    "inf",
    "-inf",
    "nan",
]
ODD += [
    "-1",
    "0",
    "1e400",
    "9" * 40,
    "null",
    "NaN",
    '{"a":1,"a":2}',
    '{"a":NaN}',
    "[" * 5000,
    "{",
    "/dev/null",
    "/",
    "../..",
    "%s{}",
]
ODD += [
    "why",
    "for_s",
    "run",
    "all",
    "self",
    "\n",
    "\u202e",
    "'; DROP TABLE events; --",
    "tests.no_such_module",
    ":",
    "a:b:c",
]


def lines() -> Iterator[tuple[str, list[str], str]]:
    """Return every command with each of its values odd in every way, the others plain."""
    for words, command in commands():
        valued = [p for p in command.params if not getattr(p, "is_flag", False)]
        needed = [p for p in command.params if p.required]
        for odd in valued:
            for value in ODD:
                line = list(words)
                for parameter in needed:
                    if parameter is odd:
                        continue
                    if getattr(parameter, "is_flag", False):
                        line.append(parameter.opts[0])
                    elif parameter.param_type_name == "option":
                        line += [parameter.opts[0], PLAIN.get(parameter.name, "plain")]
                line += [odd.opts[0], value] if odd.param_type_name == "option" else []
                rest = [p for p in valued if p.param_type_name == "argument" and (p.required or p is odd)]
                line += ["--", *(value if p is odd else PLAIN.get(p.name, "plain") for p in rest)] if rest else []
                yield " ".join(words), line, value


def every_command() -> list[str]:
    """Return the words of every command."""
    return sorted({name for name, _, _ in lines()})


@pytest.mark.parametrize("command", every_command())
def test_whatever_is_typed_is_answered_in_words(command: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name, line, _ in lines():
        if name != command:
            continue
        code, out, err = airside_says(capsys, *line)
        assert code in (0, 1, 2), (line, err)
        assert "Traceback" not in err and (code == 0 or out + err), (line, out, err)
        (out + err).encode()


@pytest.mark.parametrize("name", ["AIRSIDE_STATE_DIR", "AIRSIDE_MODE"])
def test_whatever_the_environment_says_is_answered_in_words(
    name: str, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (v for v in ODD if "\x00" not in v):
        monkeypatch.setenv(name, value)
        code, _, err = airside_says(capsys, "up", "--app", "tests.apps.notes")
        assert code == 2 and "Traceback" not in err


def test_a_kill_goes_out_whatever_its_reason_is_written_in(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = airside_says(capsys, "kill", "--all", "--why", os.fsdecode(b"caf\xe9"))
    assert ("driver", "order") in world.layers.calls and (code, "no live run" in err) == (2, True), (out, err)
    assert b"caf\\udce9" in sealed_order(b"k" * 32, "kill", "all", "", os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize("for_s", ["inf", "-inf", "nan", "-1", "1e300"])
def test_a_switch_is_off_for_a_time_there_is(for_s: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = airside_says(capsys, "switch", "off", "all", "--for", for_s)
    assert code == 2 and "give seconds" in err and not world.layers.calls


def test_a_home_directory_is_meant_by_a_tilde(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text(JOB)
    code, out, err = airside_says(capsys, "run", "~/jobs.jsonl", "--out", "~/made/out.parquet")
    assert code == 0, err
    assert json.loads(out)["out"] == str(tmp_path / "made" / "out.parquet")
    assert pq.read_table(tmp_path / "made" / "out.parquet").num_rows == 1
    code, _, err = airside_says(capsys, "token", "issue", "acme", "ana", "--state-dir", "~/nothing")
    assert code == 2 and str(tmp_path / "nothing") in err


@pytest.mark.parametrize("ttl", ["0", "-5"])
def test_a_token_has_a_life(ttl: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = airside_says(capsys, "token", "issue", "acme", "ana", "--ttl", ttl)
    assert code == 2 and "whole number of seconds" in err and not out


def test_a_token_is_narrowed_to_areas_there_are(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = airside_says(capsys, "token", "issue", "acme", "ana", "--area", "runs:read", "--area", "operate")
    assert code == 0, err
    assert jwt.decode(out.strip(), options={"verify_signature": False})["scope"] == "runs:read operate"
    code, out, err = airside_says(capsys, "token", "issue", "acme", "ana", "--area", "runs:reed")
    assert code == 2 and "runs:read" in err and not out


@pytest.mark.parametrize("arguments", ['{"a":1,"a":2}', '{"a":NaN}', "[1]x", "\udcff"])
def test_arguments_that_are_no_json_change_nothing(
    arguments: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    approval = PLAIN["approval_id"]
    code, _, err = airside_says(capsys, "approvals", "edit", approval, arguments, "--token", "ask_x")
    assert code == 2 and err.startswith("airside: arguments") and not world.layers.calls
    code, _, err = airside_says(capsys, "in-doubt", "resolve", RUN, "--happened", "--output", arguments)
    assert code == 2 and err.startswith("airside: --output") and not world.layers.calls


# A batch: where it comes from, and where its results go.

JOB = '{"job_id": "one", "request": "r", "tenant": "acme", "principal": "ana"}\n'


def test_the_help_says_where_jobs_come_from_and_what_an_interrupt_leaves(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes on, and how to get at it."""
    code, out, _ = airside_says(capsys, "run", "--help")
    said = " ".join(out.replace("│", " ").split())
    assert code == 0
    for words in ("a pipe, or - for what comes on stdin", "Ctrl-C ends the command, not the runs", "runs --active"):
        assert words in said, said


def test_help_and_the_version_are_had_by_the_usual_options(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["-h"], ["run", "-h"], ["runs", "show", "-h"]):
        code, out, _ = airside_says(capsys, *line)
        assert code == 0 and "Usage" in out, line
    code, out, _ = airside_says(capsys, "--version")
    assert code == 0 and out == f"airside {importlib.metadata.version('airside')}\n"


def test_who_interrupts_a_start_is_told_that_nothing_was_run(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(airside, "start", interrupted)
    monkeypatch.setattr(airside, "connect", interrupted)
    (tmp_path / "jobs.jsonl").write_text(JOB)
    for line in (["up", "--app", "tests.apps.replayed"], ["run", str(tmp_path / "jobs.jsonl"), "--out", "out"]):
        code, _, err = airside_says(capsys, *line, "--state-dir", str(tmp_path / "state"))
        assert code == 130 and "interrupted before the stack was up: nothing was run" in err, (line, err)


def test_jobs_come_from_stdin_and_from_pipes(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(b"\xef\xbb\xbf" + JOB.encode() * 2)
    with (tmp_path / "in").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, err = airside_says(capsys, "run", "-", "--out", "a.parquet")
    assert (code, json.loads(out)["jobs"]) == (0, 2), err
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(JOB,))
    writer.start()
    code, out, err = airside_says(capsys, "run", "pipe", "--out", "b.parquet")
    writer.join()
    assert (code, json.loads(out)["jobs"]) == (0, 1), err


def test_only_a_regular_file_is_replaced_and_that_is_known_before_the_batch(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "jobs").write_text(JOB)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for out, said in (
        ("/dev/null", "no regular file"),
        ("pipe", "no regular file"),
        ("link", "no regular file"),
        ("jobs", "the jobs file"),
        ("jobs/out", "Not a directory"),
        ("x" * 300 + ".csv", "File name too long"),
    ):
        code, _, err = airside_says(capsys, "run", "jobs", "--out", out)
        assert code == 2 and said in err, (out, err)
    assert not world.batches.sent and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "jobs", "link", "pipe"]


def test_what_was_there_stays_until_the_results_are_whole(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "jobs").write_text(JOB)
    (tmp_path / "real").write_text("before")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("real")

    def away() -> None:
        raise LayerUnavailable("gone")

    world.batches.dies = away
    code, _, _ = airside_says(capsys, "run", "jobs", "--out", "link.csv")
    assert code == 1 and (tmp_path / "real").read_text() == "before"
    world.batches.dies = lambda: None
    code, _, err = airside_says(capsys, "run", "jobs", "--out", "link.csv")  # the journal had not heard of it
    assert code == 0, err
    assert (tmp_path / "link.csv").is_symlink() and len((tmp_path / "real").read_text().splitlines()) == 2
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs", "link.csv", "link.csv.batch", "real"]


def test_an_interrupted_batch_says_what_goes_on_and_keeps_what_there_is(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = json.dumps({**json.loads(JOB), "job_id": "two", "inputs": {"hangs": True}})
    (tmp_path / "jobs").write_text(JOB + "no json\n" + hanging + "\n")
    asked = itertools.count()

    def interrupt() -> None:
        if next(asked) == 8:
            raise KeyboardInterrupt

    world.batches.dies = interrupt
    code, out, err = airside_says(capsys, "run", "jobs", "--out", "out.parquet")
    assert code == 130 and not out
    assert "row-1: refused [request_invalid] jobs:2: no JSON" in err and "out.parquet.batch/_rejects.jsonl" in err
    for said in ("2 jobs have ended", "1 runs go on", "airside runs --active", "with --resume takes batch"):
        assert said in err
    assert pq.read_table(tmp_path / "out.parquet").column("job_id").to_pylist() == ["one", "row-1"]
    report = SimpleNamespace(completed=1, failed=0, out="out", batch="b")
    own = _left_behind(SimpleNamespace(report=report, under_way=20), Path("s"), goes_on=False)
    assert "20 runs had not ended: what does not end while the stack goes down stays in the journal of s" in own


def test_an_output_without_room_is_said_before_a_stack_is_started(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a new batch, and of one that is taken up; what was there stays, and nothing comes beside it."""
    (tmp_path / "jobs").write_text(JOB)
    assert airside_says(capsys, "run", "jobs", "--out", "out")[0] == 0
    before, fsync = sorted((tmp_path / "out").iterdir()), os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def start(*args: Any, **more: Any) -> Stack:
        raise AssertionError("a stack is started")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(airside, "start", start)
    monkeypatch.setattr(airside, "connect", start)
    for args in (["--out", "new/folder/"], ["--out", "out", "--resume"], ["--out", "new.csv"]):
        code, _, err = airside_says(capsys, "run", "jobs", *args)
        assert code and "it cannot be written: No space left on device" in err
    monkeypatch.setattr(os, "fsync", fsync)
    assert sorted((tmp_path / "out").iterdir()) == before and not (tmp_path / "new").exists()


def test_a_dry_run_of_an_app_starts_nothing(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Which would go on with what others left there; what the journal has switched off is known all the same."""
    state, args = (
        tmp_path / "state",
        ("--app", "tests.apps.notes", "--app-arg", f"work={tmp_path}", "--state-dir", str(tmp_path / "state")),
    )
    rows = [{**json.loads(JOB), "tenant": "beta"}, {**json.loads(JOB), "job_id": "two", "actions": [{}]}]
    (tmp_path / "jobs").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = airside_says(capsys, "run", "jobs", "--out", "out", "--dry-run", *args)
    assert (code, json.loads(out)["would_be_refused"]) == (1, 1) and "an action names its tool" in err
    assert "agent collect" in json.loads(out)["priced"] and not state.exists(), out
    off = KillSwitchChanged(at_us=1, scope="tenant", target="beta", off=True, by=PrincipalId("op"), why="closed")
    store = JournalStore(state, KeyRing.open(state / "keys").chain)
    store.commit([Append(tenant=SYSTEM_TENANT, stream=STREAM, epoch=0, first_seq=0, entries=(entry_of(off),))])
    store.close()
    code, out, err = airside_says(capsys, "run", "jobs", "--out", "out", "--dry-run", *args)
    assert json.loads(out)["would_be_refused"] == 2 and "tenant beta is switched off by op: closed" in err


def test_a_batch_of_something_else_is_not_taken_up_before_a_stack_is_started(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any, **__: Any) -> Stack:
        raise AssertionError("neither started nor attached to")

    (tmp_path / "jobs").write_text(JOB)
    (tmp_path / "others").write_text(JOB.replace('"r"', '"other"'))
    code, _, err = airside_says(capsys, "run", "jobs", "--out", "out")
    assert code == 0, err
    app = ("--app", "tests.apps.notes", "--app-arg", f"work={tmp_path}")
    with monkeypatch.context() as patched:
        patched.setattr(airside, "connect", nothing)
        patched.setattr(airside, "start", nothing)
        for more in ((), app):
            code, _, err = airside_says(capsys, "run", "others", "--out", "out", "--resume", *more)
            assert code == 2 and "of something else: the input: jobs: not among what is read now" in err
        code, _, err = airside_says(capsys, "run", "jobs", "--out", "out", "--resume", *app)
        assert code == 2 and "the app's version changed: it was '', and now is 'notes-1'" in err
        assert "the fields that the app's jobs may have changed" in err and "the input" not in err
    assert airside_says(capsys, "run", "jobs", "--out", "out", "--resume")[0] == 0


BROKEN = {
    "raises": "def create_app():\n    return 1 / 0\n",
    "syntax": "def create_app(:\n",
    "imports": "import no_such_module_at_all\n",
    "names": "create_app = undefined_name\n",
    "nothing": "x = 1\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_app_that_cannot_be_made_is_one_line(
    kind: str, world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / f"broken_{kind}.py").write_text(BROKEN[kind])
    code, _, err = airside_says(capsys, "up", "--app", f"broken_{kind}")
    assert code == 2 and err.startswith(f"airside: --app broken_{kind}: ") and len(err.splitlines()) == 1


def test_an_interrupted_batch_is_an_interrupt_that_names_its_runs() -> None:
    with pytest.raises(KeyboardInterrupt, match="0 of 1 jobs have ended; 1 runs go on"):
        raise MapInterrupted([None], {RUN: 0}, 0)


@pytest.mark.parametrize(
    ("words", "command"), list(commands()), ids=lambda each: " ".join(each) if isinstance(each, list) else ""
)
def test_every_command_says_what_it_does_and_what_each_of_its_arguments_is(words: list[str], command: Any) -> None:
    """In `--help`: nobody has to guess what a word or an option means."""
    assert command.help and command.help.strip().endswith("."), words
    silent = [parameter.name for parameter in command.params if not getattr(parameter, "help", "")]
    assert not silent, f"airside {' '.join(words)}: {silent}"


@pytest.mark.parametrize("group", ["runs", "in-doubt", "approvals"])
def test_an_option_that_a_subcommand_would_not_see_is_refused(
    group: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state directory given before `list` is no other one's: it is said where it belongs."""
    inner = "show" if group == "runs" else "list"
    line = [group, "--state-dir", str(world.folder), inner, *([RUN] if group == "runs" else [])]
    code, _, err = airside_says(capsys, *line)
    assert code == 2 and f"--state-dir: give it after `{inner}`" in err


@pytest.mark.parametrize(
    ("words", "renamed"),
    [
        (["doubts", "list"], ["`doubts` is called `in-doubt` now"]),
        (["doubts"], ["`doubts` is called `in-doubt` now"]),
        (
            ["doubts", "settle", RUN, "--happened", "--output", "[1]x"],
            ["`doubts` is called `in-doubt` now", "`settle` is called `resolve` now"],
        ),
        (["in-doubt", "settle", RUN, "--happened", "--output", "[1]x"], ["`settle` is called `resolve` now"]),
        (["in-doubt", "resolve", RUN, "--happened", "--output", "[1]x"], []),
    ],
    ids=lambda each: " ".join(each[:2]),
)
def test_a_command_by_its_old_name_does_the_same_and_says_the_new_one(
    words: list[str], renamed: list[str], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside what programs read; in `--help` is the new one alone."""
    _, out, err = airside_says(capsys, *words)
    assert [line for line in err.splitlines() if "is called" in line] == [
        f"airside: {each}; the old name goes with the next version" for each in renamed
    ]
    assert out == "" and not world.layers.calls
    for line, new, old in ((["--help"], "in-doubt", "doubts"), (["in-doubt", "--help"], "resolve", "settle")):
        shown = airside_says(capsys, *line)[1]
        assert new in shown and old not in shown


PEOPLE = """
tenants:
  acme: {principals: {ana: {}, lea: {}}}
  fair: {open: true, open_roles: [guest], principals: {bob: {roles: [boss]}}}
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["acme", "ana"], ""),
        (["fair", "anybody"], ""),
        (["fair", "anybody", "--role", "guest"], ""),
        (["acmee", "ana"], "no tenant is called 'acmee' (do you mean acme?)"),
        (["acme", "anna"], "acme has no principal 'anna', and takes none that is not listed (do you mean ana?)"),
        (["acme", "zoe"], "acme has no principal 'zoe', and takes none that is not listed; there are ana, lea"),
        (["ACME", "ana"], "is not a tenant id"),
        (["acme", "a b"], "is not a principal id"),
        (["acme", "ana", "--role", "boss"], "ana is listed: its roles and scopes are those of the directory"),
        (["fair", "bob", "--scope", "x"], "bob is listed"),
        (["fair", "anybody", "--role", "boss"], "fair gives nobody by token the role 'boss'; there are guest"),
        (["fair", "anybody", "--scope", "x"], "the scope 'x'; there are none"),
    ],
)
def test_a_token_is_signed_for_nobody_whom_the_directory_has_not(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nor with roles it could not give; by the command and by a program, where the stack is down too."""
    KeyRing.open(tmp_path / "keys")
    write_people(tmp_path, load_directory(PEOPLE))
    code, out, err = airside_says(capsys, "token", "issue", *words, "--state-dir", str(tmp_path))
    assert (code, bool(out)) == ((2, False) if said else (0, True)) and said in err
    stack = Stack(Layers(tmp_path), KeyRing.open(tmp_path / "keys"), tmp_path, stops=False, record={})  # type: ignore[arg-type]
    claims = {f"{words[2][2:]}s": [words[3]]} if len(words) > 2 else {}
    if said:
        with pytest.raises(AirsideError) as caught:
            stack.token(*words[:2], **claims)
        assert said in caught.value.message
    else:
        assert stack.token(*words[:2], **claims).count(".") == 2


@pytest.mark.parametrize("ending", ["parquet", "PARQUET", "csv", "jsonl"])
def test_results_are_written_as_what_the_name_ends_with(
    ending: str, world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "jobs").write_text(JOB * 2)
    out = tmp_path / f"out.{ending}"
    code, _, err = airside_says(capsys, "run", "jobs", "--out", out.name)
    assert code == 0, err
    if ending == "csv":
        rows = list(csv.DictReader(out.open(encoding="utf-8")))
    elif ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pq.read_table(out).to_pylist()
    assert [row["job_id"] for row in rows] == ["one", "one"] and set(rows[0]) == set(SCHEMA.names)
    assert rows[0]["run_id"] == rows[1]["run_id"], "what stands twice is the same job"


@pytest.mark.parametrize("name", ["out.xlsx", "out.json", "out.parqet", "out.parquet.gz"])
def test_a_file_that_is_named_as_what_it_is_not_is_refused_before_the_batch(
    name: str, world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also one that memory is exported to."""
    (tmp_path / "jobs").write_text(JOB)
    code, _, err = airside_says(capsys, "run", "jobs", "--out", name)
    assert code == 2 and ".parquet, .csv, .jsonl" in err and not world.batches.sent
    code, _, err = airside_says(capsys, "memory", "export", name, "--tenant", "acme")
    assert code == 2 and "ends with .parquet" in err and not world.layers.calls


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["switch", "list"], "nothing is switched off"),
        (["approvals", "list"], "nothing waits for people"),
        (["in-doubt", "list"], "nothing is in doubt"),
        (["in-doubt"], "nothing is in doubt"),
        (["runs", "--json"], "no runs"),
        (["audit", "query", "SELECT * FROM runs"], "no rows"),
    ],
)
def test_an_empty_list_is_no_silence(
    words: list[str], said: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside what programs read, which is empty."""
    assert airside_says(capsys, *words) == (0, "", f"{said}\n")
