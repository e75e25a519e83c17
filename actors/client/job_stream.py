"""Jobs on their way: taken as there is room, submitted as fast as they are taken in, and waited for, as steps."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import itemgetter
from typing import NamedTuple, Protocol, Self

import msgspec

from airside.actors.client.display.listed import ResultList
from airside.actors.client.following import Following
from airside.actors.client.results import (
    MapInterrupted,
    MapTimeout,
    ResultsInterrupted,
    ResultsTimeout,
    RunResult,
    StreamInterrupted,
    cancelled_as,
    ended_result,
    refused_result,
)
from airside.actors.client.steps import Pause, Steps, drive
from airside.actors.client.submissions import known_again, run_of_job
from airside.actors.jobs import BadLine, Job
from airside.actors.rpc.methods import Ends, WaitRequest
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode
from airside.stack.run.events import Event

CHUNK = 500
"""Submissions in one call to Ingress, and jobs that are taken at once."""

WINDOW = 10_000
"""Runs that are waited for at a time: their ids take a megabyte or two here, and as much in the driver."""

POLL_S = 5.0
"""Longest wait in one call to the driver; a run that ends answers at once."""

LONGEST_TAKE_S = 0.5
"""After which jobs that come slowly are submitted as far as they have come."""

IDLE_S = 0.2
"""Until an iterable that had no job for now is asked again, at most."""

MOST_UNSURE = 8
"""How often a job is submitted of which each time nobody could say whether it was admitted."""

_UNSURE_S = 30.0
"""Longest wait before that."""

LAST_LOOK_S = 2.0
"""How long the last question, when the time is over, may take: what has ended by then is not to be lost."""

Read = Callable[[Sequence[Job | BadLine], int], Steps[list[Job | BadLine]]]
"""Has the app's model read the inputs of jobs, the first of which is of a number."""


class BatchBackend(Protocol):
    """What jobs ask of a stack."""

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Submit jobs; return what became of each."""

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Return the `RunEnded` of those that have ended, as soon as there is one or the wait is over."""

    def story(self, run_id: str) -> str:
        """Tell a run."""

    def events(self, run_id: str) -> tuple[list[Event], str]:
        """Return a run's events for a drawing of it, or none and why not; soon."""


class OpenJob(NamedTuple):
    """A job whose run has not ended: its place among the jobs, its id, and when it was submitted, by the clock."""

    place: int
    job_id: str
    since_s: float


class JobStream:
    """Takes jobs from an iterable, at most `window` of them at a time, and gives their results as runs end.

    What is refused, or no job at all, is a result too.  A tenant whose queue is full is waited for, and nobody else
    for it, unless its jobs fill the window.  `window`, `rate_per_s` (submissions) and `is_paused` (nothing is
    submitted, what is under way goes on) may be changed at any time; `on_turn` is called each `poll_s` seconds or so,
    before what was taken is submitted.  An iterable that has no job for now, though it has not ended, gives None.
    """

    def __init__(
        self,
        desk: BatchBackend,
        jobs: Iterable[Job | BadLine | None],
        *,
        timeout: float | None,
        read: Read | None = None,
        window: int = WINDOW,
        poll_s: float = POLL_S,
        on_turn: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.window = window
        self._rate_per_s = 0.0
        self.is_paused = False
        self._desk = desk
        self._jobs = iter(jobs)
        self._read = read
        self._poll_s = poll_s
        self._on_turn = on_turn
        self._clock = clock
        self._timeout = timeout
        self._until = None if timeout is None else clock() + timeout
        self._taken = 0
        self._is_first = True
        self._exhausted = self._is_stopped = self._is_idle = False
        self._problem: Exception | None = None
        self._waiting: dict[int, Job] = {}
        self._held: dict[str, float] = {}
        """Until when a tenant's jobs are not sent again, because its queue was full: nobody else waits for that."""
        self._sent: set[int] = set()
        """The places of jobs that were sent, and of which no answer has said what became of them."""
        self._unsure: dict[int, int] = {}
        """How often it was not known whether a job was admitted: sent again it is the same run, if it is one."""
        self._next_s = clock()
        self._open: dict[str, list[OpenJob]] = {}
        self._following = Following(desk.wait)
        self._ready: list[RunResult] = []

    def next_results(self) -> Steps[list[RunResult]]:
        """Return the next results, none once all are there.

        Raises `ResultsTimeout` when the time is over.  Called again after any other error, an interrupt too, it goes
        on where it was.
        """
        while not self._ready:
            self._on_turn()
            try:
                yield from self._fill()
                if self._ready:
                    break
                if not self._waiting and not self._open and self._exhausted:
                    if self._problem is not None:
                        raise self._problem  # after what was read before it
                    return []
                yield from self._go_on()
            except TimeoutError:  # a layer did not answer by then: what has ended is asked for once more
                yield from self._look_last()
            if self._is_late and not self._ready:
                if not self._waiting and not self._open and self._is_exhausted():
                    return []
                raise ResultsTimeout(self._timeout or 0.0, tuple(self._open), self.unanswered())
        return self.take_ready()

    def _fill(self) -> Steps[None]:
        """Take jobs as far as there is room, and submit some before more are taken: they may come slowly."""
        began_s = self._clock()
        while self._has_room and (self._is_first or not self._is_late):
            self._is_idle = False
            yield from self._take()
            self._on_turn()
            if self._is_idle or self._is_late or self._ready or self._clock() - began_s >= self._poll_s:
                break
            due = self._due()
            if due:
                yield from self._enter(due)
        self._is_first = False

    @property
    def rate_per_s(self) -> float:
        """Submissions a second; 0 is as many as there is room for."""
        return self._rate_per_s

    @rate_per_s.setter
    def rate_per_s(self, rate: float) -> None:
        if rate != self._rate_per_s and rate > 0:  # what was slow before does not hold up what is fast now
            self._next_s = min(self._next_s, self._clock() + 1 / rate)
        self._rate_per_s = rate

    @property
    def open(self) -> dict[str, list[OpenJob]]:
        """The runs that have not ended, with the jobs that they are of."""
        return self._open

    def unanswered(self) -> dict[int, str]:
        """Return the places of jobs that were sent and not answered: they may run, as these runs (empty: not known)."""
        return {place: run_of_job(job) for place, job in self._waiting.items() if place in self._sent}

    def take_ready(self) -> list[RunResult]:
        """Return the results that have come and were not given out, as one who waits no more has them."""
        found, self._ready = self._ready, []
        return found

    def stop(self) -> list[int]:
        """Take and submit no more jobs; return the places of those that were taken and not submitted.

        What was submitted is waited for.
        """
        unsubmitted = list(self._waiting)
        self._waiting.clear()
        self._exhausted = self._is_stopped = True
        return unsubmitted

    @property
    def _is_late(self) -> bool:
        return self._until is not None and self._clock() >= self._until

    def _left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - self._clock())

    # Taking.

    @property
    def _has_room(self) -> bool:
        return not (self._exhausted or self.is_paused) and len(self._waiting) + len(self._open) < self.window

    def _is_exhausted(self) -> bool:
        """Whether there are no more jobs: the last one taken may have filled the window."""
        if not self._exhausted:
            self._keep(self._next_jobs(1))
        return self._exhausted

    def _next_jobs(self, most: int) -> list[Job | BadLine]:
        """Return the next jobs, as many as come without a long wait; what an iterable raises ends it.

        None of those before it is lost by that, and it is raised once they have ended.
        """
        some: list[Job | BadLine] = []
        began_s = self._clock()
        try:
            for job in islice(self._jobs, most):
                if job is None:
                    self._is_idle = True
                    break
                some.append(job)
                if self._clock() - began_s >= LONGEST_TAKE_S:
                    break
            else:
                self._exhausted = len(some) < most
        except Exception as error:
            self._exhausted, self._problem = True, error
        return some

    def _take(self) -> Steps[None]:
        room = self.window - len(self._waiting) - len(self._open)
        some = self._next_jobs(min(CHUNK, room))
        if not some or self._is_stopped:
            return
        if self._read is None:
            self._keep(some)
        else:
            self._keep((yield from self._read(some, self._taken)))

    def _keep(self, jobs: Sequence[Job | BadLine]) -> None:
        for job in jobs:
            place, self._taken = self._taken, self._taken + 1
            if isinstance(job, BadLine):
                self._refuse(place, job.job_id, Ticket(reason_code=ReasonCode.REQUEST_INVALID, message=job.message))
            else:
                self._waiting[place] = known_again(job)  # also after an interrupt

    # Submitting.

    def _go_on(self) -> Steps[None]:
        due = self._due()
        while due:
            yield from self._enter(due)
            if self._ready or self._is_late:
                break
            due = self._due()
        if self._is_late:
            yield from self._look_last()
        elif not due:
            yield from self._wait()

    def _due(self) -> list[int]:
        now = self._clock()
        if self.is_paused:
            return []
        most = CHUNK
        if self.rate_per_s > 0:
            if now < self._next_s:
                return []
            # At most a second's worth at once, however long nothing was due.
            most = min(CHUNK, max(1, int(min(now - self._next_s, 1.0) * self.rate_per_s)))
        most = min(most, self.window - len(self._open))
        due = (place for place, job in self._waiting.items() if self._held.get(job.tenant or job.token, now) <= now)
        return list(islice(due, max(0, most)))

    def _enter(self, places: list[int]) -> Steps[None]:
        jobs = [self._waiting[place] for place in places]
        self._sent.update(places)
        tickets = yield from self._desk.enter(jobs, self._left())
        now = self._clock()
        if self.rate_per_s > 0:
            self._next_s = max(self._next_s, now - 1.0) + len(places) / self.rate_per_s
        for place, job, ticket in zip(places, jobs, tickets, strict=True):
            if ticket.run_id:
                del self._waiting[place]
                self._unsure.pop(place, None)
                self._open.setdefault(ticket.run_id, []).append(OpenJob(place, job.job_id, now))
                self._sent.discard(place)
                self._following.add([ticket.run_id])
            elif ticket.reason_code is ReasonCode.ADMISSION_REJECTED:
                self._sent.discard(place)
                self._held[job.tenant or job.token] = now + ticket.retry_after_s
            elif ticket.reason_code is ReasonCode.INTERNAL_ERROR and self._unsure.get(place, 0) < MOST_UNSURE - 1:
                times = self._unsure[place] = self._unsure.get(place, 0) + 1
                self._held[job.tenant or job.token] = now + min(2.0 ** (times - 1), _UNSURE_S)
            else:
                del self._waiting[place]
                unsure = ticket.reason_code is ReasonCode.INTERNAL_ERROR
                self._refuse(place, job.job_id, _given_up(ticket, job) if unsure else ticket)

    def _refuse(self, place: int, job_id: str, ticket: Ticket) -> None:
        self._unsure.pop(place, None)
        self._sent.discard(place)
        self._ready.append(refused_result(ticket, job_id, place))

    # Waiting.

    def _wait(self) -> Steps[None]:
        """Wait until a run ends, a job may be sent again, or the time is over."""
        now = self._clock()
        waits = [self._poll_s] if self._until is None else [self._poll_s, self._until - now]
        waits += [IDLE_S] if self._is_idle else []
        if self._waiting and not self.is_paused:
            held = [self._held.get(job.tenant or job.token, now) for job in self._waiting.values()]
            waits.append(max(min(held), self._next_s if self.rate_per_s > 0 else now) - now)
        wait_s = max(0.0, min(waits))
        if self._open:
            yield from self._look(wait_s, None if self._until is None else self._until - now + LAST_LOOK_S)
        else:
            yield Pause(wait_s)

    def _look(self, wait_s: float, within_s: float | None) -> Steps[None]:
        found = yield from self._following.next_ends(wait_s, within_s)
        for run_id, body in found.items():
            jobs = self._open.pop(run_id)
            self._ready += [ended_result(run_id, body, job.job_id, self._desk, job.place) for job in jobs]

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


def _given_up(ticket: Ticket, job: Job) -> Ticket:
    """Return the last answer of a job that is sent no more, with which run it is if one of its submissions was taken.

    It stays a refusal: nobody knows of a run.
    """
    run_id = run_of_job(job)
    where = f"{run_id} has what became of it" if run_id else "`airside runs --active` lists it"
    said = f"{ticket.message}; given up after {MOST_UNSURE} submissions: it may run, and then {where}"
    return msgspec.structs.replace(ticket, message=said)


class ResultStream:
    """The results of a stream of jobs, one after the other, as runs end.

    Interrupted it raises `StreamInterrupted`, and goes on where it was when it is taken from again.
    """

    def __init__(self, stream: JobStream) -> None:
        self._stream = stream
        self._page: deque[RunResult] = deque()

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs under way."""
        return tuple(self._stream.open)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RunResult:
        if not self._page:
            try:
                self._page += drive(self._stream.next_results())
            except KeyboardInterrupt:
                raise StreamInterrupted(self, len(self._stream.open), self._stream.unanswered()) from None
        if not self._page:
            raise StopIteration
        return self._page.popleft()

    def __repr__(self) -> str:
        return f"ResultStream({len(self._stream.open)} runs under way)"


def next_of(stream: JobStream) -> Steps[list[RunResult]]:
    """Return the stream's next results; a cancellation has the text and the fields of `ResultsInterrupted`."""
    try:
        return (yield from stream.next_results())
    except asyncio.CancelledError as error:
        cancelled_as(error, ResultsInterrupted(tuple(stream.open), stream.unanswered()))
        raise


def collect_in_order(
    stream: JobStream, count: int, *, timeout: float | None, advance: Callable[[str], None] = lambda status: None
) -> Steps[list[RunResult]]:
    """Wait for the results of `count` jobs, and return them in the jobs' order.

    Raises `MapTimeout` when the time is over, and `MapInterrupted` when somebody interrupts it; a cancellation has the
    text and the fields of that.
    """
    results: list[RunResult | None] = ResultList([None] * count)

    def unsubmitted() -> int:
        missing = sum(result is None for result in results)
        return missing - sum(map(len, stream.open.values())) - len(stream.unanswered())

    def places() -> dict[str, int]:
        found = ((run_id, jobs[0].place) for run_id, jobs in stream.open.items())
        return dict(sorted(found, key=itemgetter(1)))

    def interrupted() -> MapInterrupted:
        for result in stream.take_ready():
            results[result.place] = result
        return MapInterrupted(results, places(), unsubmitted(), stream.unanswered())

    try:
        while found := (yield from stream.next_results()):
            for result in found:
                results[result.place] = result
                is_refused = not result.run_id and result.reason_code is not ReasonCode.INTERNAL_ERROR
                advance("refused" if is_refused else str(result.status))
    except ResultsTimeout:
        raise MapTimeout(timeout or 0.0, results, places(), unsubmitted(), stream.unanswered()) from None
    except asyncio.CancelledError as error:
        cancelled_as(error, interrupted())
        raise
    except KeyboardInterrupt:
        raise interrupted() from None
    return ResultList(result for result in results if result is not None)
