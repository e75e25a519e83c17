"""The results of many runs as these end: of the runs that are waited for only a window is held, on either side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from airside.actors.client.display.listed import ResultList
from airside.actors.client.following import Following
from airside.actors.client.job_stream import LAST_LOOK_S, POLL_S, BatchBackend
from airside.actors.client.results import ResultsInterrupted, ResultsTimeout, RunResult, cancelled_as, ended_result
from airside.actors.client.steps import Steps

TAKE_S = 0.2
"""For how long runs are taken before it is looked what has ended: they may come from a generator that submits them."""


class ResultCursor:
    """Takes runs (id, job id) from an iterable, at most `window` that have not ended; None takes them all first.

    Runs come back in the order in which they ended, and those that had ended before they were taken first.
    """

    def __init__(
        self,
        desk: BatchBackend,
        runs: Iterable[tuple[str, str]],
        *,
        timeout: float | None,
        window: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._runs = iter(runs)
        self._window = window
        self._clock = clock
        self._timeout = timeout
        self._until = None if timeout is None else clock() + timeout
        self._following = Following(desk.wait)
        self._open: dict[str, list[str]] = {}
        """The job ids under which each run that has not ended is waited for: it may be given more than once."""
        self._held = 0
        self._began = False
        self._exhausted = False

    def next_results(self) -> Steps[list[RunResult]]:
        """Return the next results, none once all are there.

        Raises `ResultsTimeout` when the time is over: from then on no run is taken, and of those that were only what
        has ended is looked for.  Raises `ResultsInterrupted` when somebody interrupts it; a cancellation has the text
        and the fields of that.
        """
        while True:
            if self._may_take:
                self._take()
            if not self._open and (self._exhausted or (self._is_late and self._is_at_end())):
                return []
            try:
                found = yield from self._following.next_ends(self._wait_s(), self._within_s())
            except TimeoutError:
                raise self._timed_out() from None
            except KeyboardInterrupt:
                raise ResultsInterrupted(tuple(self._open)) from None
            except asyncio.CancelledError as error:
                cancelled_as(error, ResultsInterrupted(tuple(self._open)))
                raise
            if found:
                return [result for run_id, body in found.items() for result in self._ended(run_id, body)]
            if self._is_late:
                raise self._timed_out()

    @property
    def _is_late(self) -> bool:
        return self._until is not None and self._clock() >= self._until

    @property
    def _may_take(self) -> bool:
        if self._exhausted or (self._window is not None and self._held >= self._window):
            return False
        return not (self._began and self._is_late)

    def _is_at_end(self) -> bool:
        """Whether there are no more runs: the last one taken may have filled the window."""
        for run_id, job_id in self._runs:
            self._hold(run_id, job_id)
            return False
        self._exhausted = True
        return True

    def _hold(self, run_id: str, job_id: str) -> None:
        self._held += 1
        self._open.setdefault(run_id, []).append(job_id)
        self._following.add([run_id])

    def _take(self) -> None:
        """Take runs until the window is full, or it is time to look; when all are wanted at once, all."""
        self._began = True
        stop_s = self._clock() + TAKE_S
        for run_id, job_id in self._runs:
            self._hold(run_id, job_id)
            if self._window is not None and (self._held >= self._window or self._clock() >= stop_s):
                return
        self._exhausted = True

    def _wait_s(self) -> float:
        if self._may_take:
            return 0.0
        return POLL_S if self._until is None else max(0.0, min(POLL_S, self._until - self._clock()))

    def _within_s(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - self._clock()) + LAST_LOOK_S

    def _ended(self, run_id: str, body: bytes) -> Iterable[RunResult]:
        job_ids = self._open.pop(run_id)
        self._held -= len(job_ids)
        return [ended_result(run_id, body, job_id, self._desk) for job_id in job_ids]

    def _timed_out(self) -> ResultsTimeout:
        return ResultsTimeout(self._timeout or 0.0, tuple(self._open))


def collect(
    desk: BatchBackend,
    runs: Sequence[tuple[str, str]],
    *,
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> Steps[list[RunResult]]:
    """Wait for runs (id, job id) and return their results in order, without those that have not ended by then."""
    each_once = dict.fromkeys((run_id, "") for run_id, _ in runs)
    cursor = ResultCursor(desk, each_once, timeout=timeout, window=None, clock=clock)
    found: dict[str, RunResult] = {}
    try:
        while results := (yield from cursor.next_results()):
            found |= {result.run_id: result for result in results}
    except ResultsTimeout:
        pass  # the others have not ended by then
    ended = ((found[run_id], job_id) for run_id, job_id in runs if run_id in found)
    return ResultList(replace(result, job_id=job_id) if job_id else result for result, job_id in ended)
