"""A batch of jobs: submitted as fast as they are taken in, and waited for, as steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from airside.actors.client.display.listed import ResultList
from airside.actors.client.following import Following
from airside.actors.client.results import (
    BatchInterrupted,
    BatchTimeout,
    RunResult,
    batch_goes_on,
    ended_result,
    refused_result,
)
from airside.actors.client.steps import Pause, Steps
from airside.actors.jobs import BadLine, Job
from airside.actors.rpc.methods import Ends, WaitRequest
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode
from airside.stack.run.events import Event

CHUNK = 500
"""Submissions in one call to Ingress."""

POLL_S = 5.0
"""Longest wait in one call to the driver; a run that ends answers at once."""

LAST_LOOK_S = 2.0
"""How long the last question, when the time is over, may take: what has ended by then is not to be lost."""


class BatchBackend(Protocol):
    """What a batch asks of a stack."""

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Submit jobs; return what became of each."""

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Return the `RunEnded` of those that have ended, as soon as there is one or the wait is over."""

    def story(self, run_id: str) -> str:
        """Tell a run."""

    def events(self, run_id: str) -> tuple[list[Event], str]:
        """Return a run's events for a drawing of it, or none and why not; soon."""


class Batch:
    """One batch on its way.  Runs keep their places; what is refused has one too."""

    def __init__(
        self,
        desk: BatchBackend,
        jobs: Sequence[Job | BadLine],
        *,
        timeout: float | None,
        advance: Callable[[str], None] = lambda status: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._timeout = timeout
        self._until = None if timeout is None else clock() + timeout
        self._advance = advance
        self._results: list[RunResult | None] = ResultList([None] * len(jobs))
        self._waiting: dict[int, Job] = {}
        self._held: dict[str, float] = {}
        """Until when a tenant's jobs are not sent again, because its queue was full: nobody else waits for that."""
        self._open: dict[str, int] = {}
        self._following = Following(desk.wait)
        self._job_ids = [job.job_id for job in jobs]
        for place, job in enumerate(jobs):
            if isinstance(job, BadLine):
                self._refuse(place, Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=job.message))
            else:
                self._waiting[place] = job

    def steps(self) -> Steps[list[RunResult]]:
        """Run the batch and return its results in order.

        Raises `BatchTimeout` when the time is over, and `BatchInterrupted` when somebody interrupts it.
        """
        try:
            while self._waiting or self._open:
                due = self._due()
                if due:
                    yield from self._enter(due)
                if self._is_late:
                    break
                if not self._due():
                    yield from self._wait()
        except TimeoutError:
            pass  # a layer did not answer by then: what has ended is asked for once more
        except asyncio.CancelledError as error:
            error.add_note(batch_goes_on(len(self._open)))
            raise
        except KeyboardInterrupt:
            raise BatchInterrupted(self._results, dict(self._open), len(self._waiting)) from None
        if self._waiting or self._open:
            yield from self._look_last()
        if any(result is None for result in self._results):
            raise BatchTimeout(self._timeout or 0.0, self._results, dict(self._open), len(self._waiting))
        return ResultList(result for result in self._results if result is not None)

    @property
    def _is_late(self) -> bool:
        return self._until is not None and self._clock() >= self._until

    def _left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - self._clock())

    def _due(self) -> list[int]:
        now = self._clock()
        due = (place for place, job in self._waiting.items() if self._held.get(job.tenant or job.token, now) <= now)
        return [place for place, _ in zip(due, range(CHUNK), strict=False)]

    def _enter(self, places: list[int]) -> Steps[None]:
        tickets = yield from self._desk.enter([self._waiting[place] for place in places], self._left())
        for place, ticket in zip(places, tickets, strict=True):
            if ticket.run_id:
                del self._waiting[place]
                self._open[ticket.run_id] = place
                self._following.add([ticket.run_id])
            elif ticket.reason_code is ReasonCode.ADMISSION_REJECTED:
                job = self._waiting[place]
                self._held[job.tenant or job.token] = self._clock() + ticket.retry_after_s
            else:
                del self._waiting[place]
                self._refuse(place, ticket)

    def _refuse(self, place: int, ticket: Ticket) -> None:
        self._results[place] = refused_result(ticket, self._job_ids[place])
        self._advance("refused")

    def _wait(self) -> Steps[None]:
        """Wait until a run ends, a job may be sent again, or the time is over."""
        now = self._clock()
        waits = [POLL_S] if self._until is None else [POLL_S, self._until - now]
        waits += [self._held[job.tenant or job.token] - now for job in self._waiting.values()]
        wait_s = max(0.0, min(waits))
        if self._open:
            yield from self._look(wait_s, None if self._until is None else self._until - now + LAST_LOOK_S)
        else:
            yield Pause(wait_s)

    def _look(self, wait_s: float, within_s: float | None) -> Steps[None]:
        found = yield from self._following.next_ends(wait_s, within_s)
        for run_id, body in found.items():
            place = self._open.pop(run_id)
            result = ended_result(run_id, body, self._job_ids[place], self._desk)
            self._results[place] = result
            self._advance(str(result.status))

    def _look_last(self) -> Steps[None]:
        """Take what has ended by now."""
        try:
            while self._open:
                before = len(self._open)
                yield from self._look(0.0, LAST_LOOK_S)
                if len(self._open) == before:
                    return
        except TimeoutError:
            return
