"""`airside record` makes a cassette of a journal."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from airside.actors.audit import journal_file
from airside.actors.journal.store import JournalStore
from airside.actors.models.blobs import BLOBS, FileBlobs, path_of_blob
from airside.actors.replay import replay_run
from airside.cli import main
from airside.stack.errors import InvalidId, InvalidInput
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append
from airside.stack.models.cassettes import read_cassette
from airside.stack.models.events import ModelAsked, ModelEvent, model_entry, stream_of
from airside.stack.security.keyring import KeyRing
from tests.apps.notes import create_app
from tests.commands import airside
from tests.journals import note
from tests.unit.stack.models.test_cassettes import EVENTS, PROMPT

RUNS = [RunId("run_" + digit * 24) for digit in "12"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the state of a stack in which two runs asked a model."""
    store = JournalStore(tmp_path, KeyRing.open(tmp_path / "keys").chain)
    for run_id in RUNS:
        entries = tuple(model_entry(event) for event in EVENTS)
        append = Append(tenant=TenantId("acme"), stream=stream_of(run_id, 1), epoch=0, first_seq=0, entries=entries)
        assert {reply.verdict for reply in store.commit([note(run_id, 0, 1), append])} == {"ok"}
    store.release()
    return tmp_path


def exit_code(*arguments: str) -> object:
    """Run the command."""
    with pytest.raises(SystemExit) as ended:
        main(["record", *arguments])
    return ended.value.code


def test_a_cassette_is_made_of_all_runs_or_of_some(state: Path) -> None:
    out = state / "cassette.jsonl"
    assert exit_code("--state-dir", str(state), "--out", str(out)) == 0
    assert len(out.read_text().splitlines()) == 2 and len(read_cassette(out)) == 1, "one prompt, answered twice"
    for run in (RUNS[0], RUNS[0][:12], f"{RUNS[0][:10]}..."):
        assert exit_code(run, "--state-dir", str(state), "--out", str(out)) == 0
        assert len(out.read_text().splitlines()) == 1


def test_where_no_model_answered_it_says_so_and_writes_nothing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = state / "cassette.jsonl"
    assert exit_code("run_none", "--state-dir", str(state), "--out", str(out)) == 2
    assert "nor the beginning or end of one that the journal has" in capsys.readouterr().err
    assert exit_code("run_" + "3" * 24, "--state-dir", str(state), "--out", str(out)) == 2
    assert "no model answered" in capsys.readouterr().err and not out.exists()


TENANT = TenantId("acme")


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """Return the state of a stack that keeps what models are told beside its journal."""
    keys = KeyRing.open(tmp_path / "keys")
    blobs = FileBlobs(tmp_path / BLOBS, keys.blobs)
    events: list[ModelEvent] = []
    prompts = [PROMPT, msgspec.structs.replace(PROMPT, max_tokens=50)]
    for event in EVENTS:
        if isinstance(event, ModelAsked):
            name = asyncio.run(blobs.put(TENANT, msgspec.msgpack.encode(prompts.pop())))
            events.append(msgspec.structs.replace(event, prompt_blob=name))
        else:
            events.append(event)
    store = JournalStore(tmp_path, keys.chain)
    entries = tuple(model_entry(event) for event in events)
    append = Append(tenant=TENANT, stream=stream_of(RUNS[0], 1), epoch=0, first_seq=0, entries=entries)
    assert {reply.verdict for reply in store.commit([note(RUNS[0], 0, 1), append])} == {"ok"}
    store.release()
    return tmp_path


def files(state: Path) -> list[Path]:
    """Return the blobs there are, as files."""
    return [path for path in (state / BLOBS).rglob("*") if path.is_file()]


def problems(state: Path) -> list[str]:
    journal = journal_file(state)
    try:
        return journal.verify()
    finally:
        journal.close()


def test_what_models_were_told_and_answered_is_shown(
    apart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in (RUNS[0][:12], RUNS[0]):
        assert airside(monkeypatch, "audit", "questions", run, "--state-dir", str(apart)) == 0
        shown = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["type"] for each in shown] == ["ModelAsked", "ModelFailed", "ModelAsked", "ModelAnswered"]
    assert shown[0]["prompt"]["turns"][0]["text"] == "hello" and shown[2]["prompt"]["max_tokens"] == 100
    assert airside(monkeypatch, "audit", "questions", RUNS[1], "--state-dir", str(apart)) == 0
    assert "no model was asked" in capsys.readouterr().err


def test_a_run_is_replayed_that_is_named_by_a_part_of_its_id(apart: Path, tmp_path: Path) -> None:
    checked = create_app(tmp_path).checked()
    with contextlib.closing(journal_file(apart)) as journal:
        with pytest.raises(InvalidInput, match="the run has no decision"):  # but it is known which run
            replay_run(journal, RUNS[0][:12], checked, "clerk", state_dir=apart, max_cost_microusd=0)
        with pytest.raises(InvalidId, match="nor the beginning or end of one"):
            replay_run(journal, "run_none", checked, "clerk", state_dir=apart, max_cost_microusd=0)


def test_a_blob_that_is_named_and_gone_or_changed_shows_when_the_journal_is_checked(apart: Path) -> None:
    """By who has the chain's key alone: its bytes are what it is named by."""
    assert problems(apart) == [] and len(files(apart)) == 2
    (apart / "keys" / "blobs.key").unlink()
    first, second = files(apart)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    found = problems(apart)
    assert len(found) == 2 and all("blobs: model/" in each for each in found)
    assert sum("No such file" in each for each in found) == 1
    assert sum("its bytes are not those it is named by" in each for each in found) == 1


def test_reading_needs_the_key_and_says_so(
    apart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (apart / "keys" / "blobs.key").unlink()
    assert airside(monkeypatch, "audit", "questions", RUNS[0], "--state-dir", str(apart)) == 2
    assert "copy keys/ with blobs/" in capsys.readouterr().err


def test_blobs_show_nothing_of_what_they_hold_and_are_for_their_owner_alone(apart: Path) -> None:
    for path in files(apart):
        assert b"hello" not in path.read_bytes() and path.stat().st_mode & 0o077 == 0
        assert path == path_of_blob(apart / BLOBS, path.name)
