"""What a notebook shows of a wait that came to no end: what it says, and the cell, and nothing of how Airside waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airside.actors.client.client import RunHandle
from airside.actors.client.job_stream import JobStream, ResultStream, collect_in_order
from airside.actors.client.steps import drive
from tests.unit.actors.client.test_job_stream import FullDisk, jobs, run
from tests.unit.actors.client.test_result_cursor import Interrupted, Runs, stack_of
from tests.unit.actors.client.test_submissions import WHO, Silent
from tests.unit.actors.client.test_submissions import stack_of as submitting

RUN = "run_" + "0" * 24
FULL, STOPPED = TimeoutError("no answer"), KeyboardInterrupt()


class Late(Runs):
    """A stack with a run that takes long, of which it says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._ends[RUN] = 60.0

    def events(self, run_id: str) -> tuple[list[Any], str]:
        """Give none."""
        return [], "the journal is away"


def _stopped(desk: FullDisk) -> JobStream:
    return JobStream(desk, jobs("a", 1), timeout=None, clock=desk.clock)


CALLS: dict[str, Callable[[], Any]] = {
    "MapTimeout": lambda: run(FullDisk(FULL), jobs("a", 1), timeout=3),
    "MapInterrupted": lambda: drive(collect_in_order(_stopped(FullDisk(STOPPED)), 1, timeout=None)),
    "StreamInterrupted": lambda: next(ResultStream(_stopped(FullDisk(STOPPED)))),
    "SubmitInterrupted": lambda: submitting(Silent(STOPPED)).submit("r", **WHO),
    "ResultsInterrupted": lambda: stack_of(Interrupted()).results([RUN]),
    "ResultsTimeout": lambda: next(stack_of(Late()).iter_results([RUN], timeout=0)),
    "RunTimeout": lambda: RunHandle(stack_of(Late()), RUN).result(timeout=0),
}


@pytest.mark.parametrize("name", CALLS)
def test_of_where_a_wait_was_broken_off_the_cell_alone_is_shown(name: str) -> None:
    with pytest.raises((TimeoutError, KeyboardInterrupt)) as caught:
        CALLS[name]()
    error: Any = caught.value
    shown = error._render_traceback_()
    assert shown[0].startswith("Traceback") and shown[-1] == f"{name}: {error}"
    assert any("test_in_notebooks.py" in line for line in shown), shown
    assert not any("airside/actors/" in line for line in shown), shown
