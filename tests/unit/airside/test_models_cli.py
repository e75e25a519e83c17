"""`airside record` makes a cassette of a journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from airside.actors.journal.store import JournalStore
from airside.cli import main
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append
from airside.stack.models.cassettes import read_cassette
from airside.stack.models.events import model_entry, stream_of
from airside.stack.security.keyring import KeyRing
from tests.unit.stack.models.test_cassettes import EVENTS

RUNS = [RunId("run_" + digit * 24) for digit in "12"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the state of a stack in which two runs asked a model."""
    store = JournalStore(tmp_path, KeyRing.open(tmp_path / "keys").chain)
    for run_id in RUNS:
        entries = tuple(model_entry(event) for event in EVENTS)
        append = Append(tenant=TenantId("acme"), stream=stream_of(run_id, 1), epoch=0, first_seq=0, entries=entries)
        assert store.commit([append])[0].verdict == "ok"
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
    assert exit_code(RUNS[0], "--state-dir", str(state), "--out", str(out)) == 0
    assert len(out.read_text().splitlines()) == 1


def test_where_no_model_answered_it_says_so_and_writes_nothing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = state / "cassette.jsonl"
    assert exit_code("run_none", "--state-dir", str(state), "--out", str(out)) == 2
    assert "no model answered" in capsys.readouterr().err and not out.exists()
