"""`airside batch`: batches are known by their names, and by where their results are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from typer.testing import CliRunner

from airside import cli
from airside.actors import audit
from airside.actors.client import batch_handle
from airside.actors.client.batch_handle import BatchHandle
from airside.actors.client.client import Stack
from airside.actors.client.display.batches import draw_summary
from airside.actors.client.display.text import to_text
from airside.actors.journal.batches import BatchOutcome, BatchSummary, list_batches
from airside.batch_cli import batch as commands
from airside.batches.run import run_batch
from airside.stack.operations.batches import BatchChange
from tests.unit.airside.batches.fake_stack import FakeStack

ROWS = [{"job_id": "j", "request": "r", "tenant": "acme", "principal": "ana"}]


class Journal(FakeStack):
    """A stack that lists the batches it was told of."""

    def read(self, name: str, *parameters: Any) -> Any:
        """Return the streams of batches."""
        return [(stream,) for stream in self.streams] if name == "batches" else []

    def batches(self, *, limit: int = 100) -> list[BatchSummary]:
        """List them."""
        return list_batches(self, limit)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Return the stack that every command asks."""
    found = Journal()

    @contextmanager
    def opened(*_: Any) -> Iterator[Journal]:
        yield found

    monkeypatch.setattr(audit, "open_audit", opened)
    monkeypatch.setattr(cli, "attached", opened)
    monkeypatch.chdir(tmp_path)
    return found


def says(*arguments: str) -> str:
    """Return what a command says that goes well."""
    done = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_folder_or_file_of_its_results_will_do_for_a_batchs_name(stack: Journal, tmp_path: Path) -> None:
    """In every command; what is a batch's name is that batch, whatever folder is called so."""
    run_batch(cast("Stack", stack), ROWS, out="res", batch="one")
    run_batch(cast("Stack", stack), ROWS, out="out.csv", batch="two")
    run_batch(cast("Stack", stack), ROWS, out="one", batch="three")
    for given, name in (("one", "one"), ("res", "one"), ("res/", "one"), (str(tmp_path / "res"), "one")):
        assert says("show", given).startswith(f"{name}: finished"), given
    assert says("show", "out.csv").startswith("two: ") and says("show", "./one").startswith("three: ")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "_manifest.json").write_text("{}", encoding="utf-8")
    assert says("show", "two").startswith("two: "), "whatever is in the folder"
    stack.batch("two").change(BatchChange(action="take_up", owner="o"))
    for command, done in (("pause", "paused"), ("resume", "resumed"), ("cancel", "cancelled")):
        assert says(command, "out.csv") == f"two: {done}\n"
    assert stack.batch("two").state().is_cancelled


def test_the_list_names_input_and_results(stack: Journal, tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text('{"request": "r", "tenant": "acme", "principal": "ana"}\n', encoding="utf-8")
    run_batch(cast("Stack", stack), "jobs.jsonl", out="res", batch="one")
    head, line = says("list").splitlines()
    assert head.split()[-2:] == ["input", "results"] and line.split()[-2:] == ["jobs.jsonl", str(tmp_path / "res")]
    shown = says("show", "one")
    assert "  read from jobs.jsonl\n" in shown and f"  results in {tmp_path / 'res'}\n" in shown


def test_it_says_what_a_batch_waits_for_and_how_it_goes_on(stack: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The approvals of its own runs; where its stack is gone, or its process left it, how it is taken up."""
    run_batch(cast("Stack", stack), ROWS, out="res", batch="one")
    stack.batch("one").change(BatchChange(action="take_up", owner="o"))
    active = BatchOutcome(status="active", reason_code="", runs=2, steps=0, tokens=0, cost_microusd=0)
    found = msgspec.structs.replace(stack.batch("one").show(), outcomes=(active,))
    monkeypatch.setattr(BatchHandle, "show", lambda self: found)
    monkeypatch.setattr(batch_handle, "list_runs", lambda *_, **__: [SimpleNamespace(run_id="run_a")])
    waiting = [SimpleNamespace(approval_id=f"apr_{n}", run_id="run_a" if n else "run_z") for n in range(8)]
    handle = stack.batch("one")
    handle._pending = lambda: waiting  # type: ignore[assignment]
    monkeypatch.setattr(stack, "batch", lambda _: handle)
    said = says("show", "one")
    assert said.startswith("one: running, ") and "2 runs, 0 ended" in said and "is not up" not in said
    assert "waits for people: apr_1, apr_2, apr_3, apr_4, apr_5 and 2 more" in said
    monkeypatch.setattr(audit, "JournalFile", Journal)
    handle._pending = tuple
    assert "its stack is not up: it was running when that went down" in says("show", "one")
    found = msgspec.structs.replace(found, phase="stopped")
    assert "takes it up, and writes the results that are not there yet" in says("show", "one")
    assert "writes the results that are not there yet" in to_text(draw_summary(found))
    assert "apr_1" in to_text(draw_summary(found, ["apr_1"]))
