"""A batch's progress goes on while nothing does: a submission waits as long as the journal's disk is full."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from airside.actors.client.client import Stack
from airside.actors.client.steps import Steps
from airside.actors.jobs import Job
from airside.batches import progress
from airside.batches.run import run_batch
from airside.stack.operations.messages import Ticket
from tests.unit.airside.batches.fake_stack import FakeStack

ROWS = [{"job_id": "j", "request": "r", "tenant": "acme", "principal": "ana"}]
FULL = "the disk is full: make room on it"


class FullStack(FakeStack):
    """A stack whose first submission is answered once somebody has said that the disk is full."""

    def __init__(self) -> None:
        super().__init__()
        self.problem = FULL
        self.said = threading.Event()

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Admit jobs, later."""
        assert self.said.wait(20), "nobody said it"
        self.problem = ""
        return (yield from super().enter(jobs, within_s))

    def hear(self, text: str) -> None:
        """Take in what is shown."""
        if FULL in text:
            self.said.set()


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> FullStack:
    """Return one whose progress ticks fast."""
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    return FullStack()


def test_json_lines_say_that_the_journal_cannot_write(
    stack: FullStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = SimpleNamespace(write=stack.hear, flush=lambda: None, isatty=lambda: False)
    monkeypatch.setattr(sys, "stderr", stderr)
    assert run_batch(cast("Stack", stack), ROWS, out=tmp_path / "out").ok
    assert "airside-progress" not in {thread.name for thread in threading.enumerate()}, "it is over with its batch"


@pytest.mark.parametrize("where", ["a terminal", "a notebook"])
def test_a_bar_says_it_too(where: str, stack: FullStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shown:
        """What a notebook shows."""

        def update(self, drawn: Any) -> None:
            """Show it anew."""
            stack.hear(drawn._repr_mimebundle_()["text/plain"])

    if where == "a notebook":
        display: Any = ModuleType("IPython.display")
        display.display = lambda drawn, display_id: Shown()
        ipython: Any = ModuleType("IPython")
        ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)
    else:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        described = progress.described
        monkeypatch.setattr(progress, "described", lambda figures: (stack.hear(line := described(figures)), line)[1])
    assert run_batch(cast("Stack", stack), ROWS, out=tmp_path / "out").ok


def test_what_goes_wrong_in_showing_it_is_said_and_the_batch_goes_on(
    stack: FullStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails again in the same way is said once, and what works again is shown."""
    problems = iter([ValueError("no such column"), ValueError("no such column"), OSError("gone")])

    def drawn(value: Any) -> str:
        if problem := next(problems, None):
            raise problem
        stack.hear(line := str(value))
        return line

    monkeypatch.setattr(progress, "LINE_S", 0.0)
    monkeypatch.setattr(progress, "json_line", drawn)
    assert run_batch(cast("Stack", stack), ROWS, out=tmp_path / "out").ok
    said = [record.getMessage() for record in caplog.records if "cannot be shown" in record.getMessage()]
    assert len(said) == 2 and "ValueError: no such column" in said[0] and "gone" in said[1]
