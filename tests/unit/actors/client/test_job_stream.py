"""Batches without Ray: what is taken in when, what is waited for and how long, and what is there when time is over."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.client import job_stream
from airside.actors.client.job_stream import MOST_UNSURE, JobStream, ResultStream, collect_in_order, next_of
from airside.actors.client.result_cursor import collect
from airside.actors.client.result_waiter import ResultWaiter
from airside.actors.client.results import MapInterrupted, MapTimeout, ResultsTimeout, RunResult, StreamInterrupted
from airside.actors.client.steps import Pause, Steps, drive_async
from airside.actors.client.submissions import run_of_job
from airside.actors.jobs import BadLine, Job, job_of, jobs_of
from airside.actors.rpc.methods import Ends, WaitRequest
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import RunId
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run.events import RunEnded
from airside.stack.scheduling.watches import Watches
from airside.stack.values import BatchJob, Outcome, Usage

OUTCOME = Outcome(status="completed", reason_code=ReasonCode.COMPLETED)


class Desk:
    """A stack that takes so many jobs of a tenant a minute, and whose runs take a while; time is what is waited for."""

    def __init__(self, *, a_minute: dict[str, int] | None = None, run_s: float = 1.0, answers: bool = True) -> None:
        self.now_s = 0.0
        self.entered: list[tuple[float, str]] = []
        self.questions: list[WaitRequest] = []
        self._watches = Watches("a")
        self._a_minute = a_minute or {}
        self._run_s = run_s
        self._answers = answers
        self._ends: dict[str, float] = {}
        self._names: dict[str, str] = {}

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Take jobs in as far as the limits go."""
        yield Pause(0.0)
        return [self._take(job) for job in jobs]

    def _take(self, job: Job) -> Ticket:
        limit = self._a_minute.get(job.tenant, 1_000_000)
        taken = sum(1 for at, tenant in self.entered if tenant == job.tenant and at > self.now_s - 60)
        if taken >= limit:
            return Ticket(reason_code=ReasonCode.ADMISSION_REJECTED, message="full", retry_after_s=60.0)
        self.entered.append((self.now_s, job.tenant))
        run_id = f"run_{len(self._ends):024x}"
        self._ends[run_id] = self.now_s + self._run_s
        self._names[run_id] = job.job_id
        return Ticket(run_id=run_id)  # type: ignore[arg-type]

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Wait for the next end, in the time of this desk."""
        self.questions.append(wanted)
        if not self._answers:
            yield Pause(within_s or 0.0)
            raise TimeoutError("no answer")
        watch = self._watches.begin(wanted.watch, 0.0)
        watch.arrived(wanted.after or 0)
        self._watches.add(watch, map(RunId, wanted.run_ids))
        if not watch.ends and watch.run_ids:
            first = min(self._ends[run_id] for run_id in watch.run_ids)
            yield Pause(max(0.0, min(wanted.timeout_s, first - self.now_s)))
        for run_id in [run_id for run_id in watch.run_ids if self._ends[run_id] <= self.now_s]:
            ended = RunEnded(at_us=0, outcome=OUTCOME, usage=Usage(), job_id=self._names.get(run_id, ""))
            self._watches.ended(run_id, msgspec.json.encode(ended))
        return Ends(*watch.next_ends())

    def story(self, run_id: str) -> str:
        """Tell nothing."""
        return ""

    def drive(self, steps: Steps[Any]) -> Any:
        """Carry steps out in the time of this desk."""
        try:
            need = next(steps)
            while True:
                assert isinstance(need, Pause)
                self.now_s += need.seconds
                need = steps.send(None)
        except StopIteration as end:
            return end.value


def jobs(tenant: str, count: int) -> list[Job]:
    """Return jobs of a tenant."""
    return [Job(request="r", tenant=tenant, principal="ana", job_id=f"{tenant}{i}") for i in range(count)]


def run(desk: Desk, batch: Sequence[Job | BadLine], timeout: float | None = None) -> list[RunResult]:
    """Run a batch at a desk."""
    stream = JobStream(desk, batch, timeout=timeout, clock=desk.clock)
    done: list[RunResult] = desk.drive(collect_in_order(stream, len(batch), timeout=timeout))
    return done


def test_a_batch_comes_back_when_its_time_is_over_with_what_there_is() -> None:
    desk = Desk(a_minute={"slow": 2})
    with pytest.raises(MapTimeout, match="2 of 4 runs have not ended in 3 s; 2 jobs were not submitted") as caught:
        run(desk, jobs("slow", 4), timeout=3)
    assert desk.now_s == 3
    assert [result is not None and result.ok for result in caught.value.results] == [True, True, False, False]


def test_what_goes_on_after_the_time_is_named_by_run_and_place() -> None:
    desk = Desk(run_s=10)
    with pytest.raises(MapTimeout) as caught:
        run(desk, jobs("a", 2), timeout=3)
    assert sorted(caught.value.places.values()) == [0, 1] and caught.value.unsubmitted == 0
    assert desk.now_s == 3
    desk.now_s = 20
    later = desk.drive(collect(desk, [(run_id, "") for run_id in caught.value.run_ids], timeout=0, clock=desk.clock))
    assert [(result.ok, result.job_id) for result in later] == [(True, "a0"), (True, "a1")]


def test_the_runs_that_go_on_are_named_in_the_order_of_their_jobs() -> None:
    """A job whose tenant's queue was full is submitted after those that follow it."""
    desk = Desk(a_minute={"full": 1}, run_s=100)
    with pytest.raises(MapTimeout) as caught:
        run(desk, [*jobs("full", 2), *jobs("b", 1)], timeout=70)
    assert [desk._names[run_id] for run_id in caught.value.run_ids] == ["full0", "full1", "b0"]
    assert list(caught.value.places.values()) == [0, 1, 2]


def test_the_jobs_that_were_never_sent_are_at_the_places_that_nothing_else_has() -> None:
    desk = Desk(a_minute={"slow": 2}, run_s=2)
    with pytest.raises(MapTimeout) as caught:
        run(desk, [*jobs("b", 1), *jobs("slow", 4)], timeout=1)
    error = caught.value
    known = {*error.places.values(), *error.unanswered}
    left = [place for place, result in enumerate(error.results) if result is None and place not in known]
    assert left == [3, 4] and error.unsubmitted == len(left)


def test_an_interrupt_says_to_keep_it_before_the_next_error_takes_its_place() -> None:
    for error in (MapInterrupted([None], {"run_1": 0}, 0), StreamInterrupted(iter(()), 1)):
        assert "`error = sys.last_value`" in str(error)


def test_a_run_that_is_read_by_two_names_has_each_and_its_own_job_where_none_is_given() -> None:
    desk = Desk()
    with pytest.raises(MapTimeout) as caught:
        run(desk, jobs("a", 1), timeout=0)
    (run_id,) = caught.value.run_ids
    given = [(run_id, "mine"), (run_id, "")]
    desk.now_s = 20
    later = desk.drive(collect(desk, given, timeout=0, clock=desk.clock))
    assert [result.job_id for result in later] == ["mine", "a0"]


def test_what_ended_while_others_were_taken_in_is_not_lost() -> None:
    desk = Desk(run_s=0.0)
    assert [result.ok for result in run(desk, jobs("a", 3), timeout=0)] == [True] * 3


def test_a_tenant_whose_queue_is_full_holds_up_nobody_else() -> None:
    desk = Desk(a_minute={"slow": 1})
    mixed = [job for pair in zip(jobs("slow", 2), jobs("fast", 2), strict=True) for job in pair]
    results = run(desk, mixed)
    assert [result.job_id for result in results] == ["slow0", "fast0", "slow1", "fast1"]
    assert [at for at, tenant in desk.entered if tenant == "fast"] == [0.0, 0.0]
    assert [at for at, tenant in desk.entered if tenant == "slow"] == [0.0, 60.0]


def test_a_layer_that_does_not_answer_does_not_hold_a_batch_beyond_its_time() -> None:
    desk = Desk(answers=False)
    with pytest.raises(MapTimeout):
        run(desk, jobs("a", 2), timeout=3)
    assert desk.now_s < 10


class FullDisk(Desk):
    """A stack that receives what is sent and answers nothing any more after so many jobs, or says that it failed."""

    def __init__(self, problem: BaseException | Ticket, *, first: int = 0) -> None:
        super().__init__(run_s=100.0)
        self._problem = problem
        self._left = first
        self.received: list[Job] = []

    def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
        """Answer the first jobs, and none of the others."""
        if self._left:
            self._left -= len(jobs)
            return (yield from super().enter(jobs, within_s))
        self.received += jobs
        if isinstance(self._problem, Ticket):
            yield Pause(0.0)
            return [self._problem] * len(jobs)
        yield Pause(within_s or 0.0)
        raise self._problem


MAY_RUN = r"3 submissions were not answered: they may run \(`error.unanswered` says as which runs\)"
FAILED = Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message="the disk is full")


@pytest.mark.parametrize("problem", [TimeoutError("no answer"), FAILED])
def test_what_was_sent_and_not_answered_is_named_by_place_and_run_and_is_not_unsubmitted(
    problem: TimeoutError | Ticket,
) -> None:
    """It may run: who submits again what was not submitted must not do it twice."""
    desk = FullDisk(problem)
    with pytest.raises(MapTimeout, match=f"3 of 3 runs have not ended in 3 s; {MAY_RUN}$") as caught:
        run(desk, jobs("a", 3), timeout=3)
    assert caught.value.unsubmitted == 0 and caught.value.run_ids == ()
    received = [run_of_job(job) for job in desk.received[:3]]
    assert caught.value.unanswered == dict(enumerate(received)) and len(set(received)) == 3


def test_who_interrupts_jobs_that_were_sent_is_told_that_they_may_run() -> None:
    desk = FullDisk(KeyboardInterrupt())
    stream = JobStream(desk, jobs("a", 4), timeout=None, window=3, clock=desk.clock)
    with pytest.raises(MapInterrupted, match=f"{MAY_RUN}; 1 jobs were not submitted") as caught:
        desk.drive(collect_in_order(stream, 4, timeout=None))
    assert [*caught.value.unanswered] == [0, 1, 2] and caught.value.unsubmitted == 1


def test_a_batch_that_is_cancelled_says_what_one_that_is_interrupted_does() -> None:
    """It stays the error that it was, for whoever cancelled."""
    desk = FullDisk(asyncio.CancelledError(), first=2)
    stream = JobStream(desk, [*jobs("a", 2), None, *jobs("b", 1)], timeout=None, clock=desk.clock)
    with pytest.raises(asyncio.CancelledError) as caught:
        desk.drive(collect_in_order(stream, 3, timeout=None))
    cancelled: Any = caught.value
    assert type(cancelled) is asyncio.CancelledError
    assert len(cancelled.run_ids) == 2 and [*cancelled.unanswered] == [2]
    shown = cancelled._render_traceback_()
    assert "2 runs go on: `stack.results(error.run_ids)`" in shown[-1] and shown[-2] == "CancelledError"
    assert not any("airside/actors/" in line for line in shown)


def test_a_stream_that_is_cancelled_says_which_runs_go_on() -> None:
    desk = FullDisk(asyncio.CancelledError(), first=2)
    stream = JobStream(desk, [*jobs("a", 2), None, *jobs("b", 1)], timeout=None, clock=desk.clock)
    with pytest.raises(asyncio.CancelledError) as caught:
        desk.drive(next_of(stream))
    cancelled: Any = caught.value
    assert len(cancelled.run_ids) == 2 and [*cancelled.unanswered] == [2]
    assert cancelled.__notes__[0].startswith("2 runs go on: ") and "1 submissions were" in cancelled.__notes__[0]


def test_a_stream_that_is_interrupted_names_what_was_not_answered_and_sends_it_again_as_the_same_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = FullDisk(KeyboardInterrupt())
    monkeypatch.setattr(job_stream, "drive", desk.drive)
    results = ResultStream(JobStream(desk, jobs("a", 3), timeout=None, clock=desk.clock))
    for _ in range(2):
        with pytest.raises(StreamInterrupted, match=MAY_RUN) as caught:
            next(results)
    first, second = desk.received[:3], desk.received[3:]
    assert [*caught.value.unanswered.values()] == [run_of_job(job) for job in first]
    assert [job.nonce for job in first] == [job.nonce for job in second]


def test_a_stream_whose_time_is_over_names_what_was_not_answered() -> None:
    desk = FullDisk(TimeoutError("no answer"))
    stream = JobStream(desk, jobs("a", 3), timeout=3, clock=desk.clock)
    with pytest.raises(ResultsTimeout, match=MAY_RUN) as caught:
        desk.drive(stream.next_results())
    assert pickle.loads(pickle.dumps(caught.value)).unanswered == caught.value.unanswered != {}


@given(
    counts=st.dictionaries(st.sampled_from("abc"), st.integers(0, 5), min_size=1),
    limits=st.dictionaries(st.sampled_from("abc"), st.integers(1, 3)),
    run_s=st.floats(0, 20),
    timeout=st.none() | st.floats(0, 200),
)
def test_every_job_has_its_result_in_its_place_or_is_named(
    counts: dict[str, int], limits: dict[str, int], run_s: float, timeout: float | None
) -> None:
    desk = Desk(a_minute=limits, run_s=run_s)
    batch: list[Job | BadLine] = [job for tenant, count in counts.items() for job in jobs(tenant, count)]
    batch.insert(len(batch) // 2, BadLine(line=1, job_id="bad", message="no job"))
    late = None
    try:
        results: list[RunResult | None] = list(run(desk, batch, timeout))
    except MapTimeout as error:
        late, results = error, error.results
    if late is not None:
        assert timeout is not None and desk.now_s <= timeout + 1e-6
        assert sum(r is None for r in results) == len(late.places) + late.unsubmitted
        assert all(results[place] is None for place in late.places.values())
    assert [r.job_id for r in results if r is not None] == [
        job.job_id for job, r in zip(batch, results, strict=True) if r is not None
    ]
    assert len(desk.entered) == len(desk._ends) <= len(batch) - 1


def test_a_run_is_told_of_once_however_often_a_batch_asks() -> None:
    """A question is as long as what is new, not as all that is open."""
    desk = Desk(a_minute={"slow": 1})
    run(desk, [*jobs("fast", 50), *jobs("slow", 3)])
    assert sum(len(question.run_ids) for question in desk.questions) == 53 and len(desk.questions) == 3


def test_a_question_whose_answer_was_lost_is_answered_the_same_again() -> None:
    watches = Watches("a")
    watch = watches.begin("w", 0.0)
    watches.add(watch, map(RunId, "abc"))
    watches.ended(RunId("a"), b"1")
    assert watch.next_ends() == watch.next_ends() == ({"a": b"1"}, 1)
    watch.arrived(1)
    watches.ended(RunId("b"), b"2")
    assert watch.next_ends() == ({"b": b"2"}, 2) and watch.news.is_set()
    watch.arrived(1)  # it came late
    assert watch.next_ends() == ({"b": b"2"}, 2)


def test_a_watch_that_nobody_asks_is_forgotten() -> None:
    watches = Watches("a", kept_s=10.0)
    watches.add(watches.begin("w", 0.0), map(RunId, "ab"))
    watches.begin("v", 9.0)
    assert len(watches) == 2
    watches.begin("u", 12.0)
    assert watches.find("w", 12.0) is None and watches.find("v", 12.0) is not None
    watches.ended(RunId("a"), b"")


def test_a_handle_given_twice_has_its_result_twice() -> None:
    desk = Desk(run_s=0.0)
    desk.drive(desk.enter(jobs("a", 2), None))
    one, two = desk._ends
    found = desk.drive(collect(desk, [(two, "2"), (one, "1"), (two, "2")], timeout=None, clock=desk.clock))
    assert [(r.run_id, r.job_id) for r in found] == [(two, "2"), (one, "1"), (two, "2")]


# What callers give.


@pytest.mark.parametrize("given", ["text", b"bytes", {"request": "r"}, 5, None, jobs("a", 1)[0]])
def test_what_is_no_list_of_jobs_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput, match="is no list of jobs"):
        jobs_of(given)


@pytest.mark.parametrize(
    "given", ["text", b"bytes", 5, None, [], {1: 2}, {"request": "r"}, {"request": 5, "x": "\ud800"}]
)
def test_what_is_no_job_has_its_place_and_says_why(given: Any) -> None:
    bad, good = jobs_of([given, {"request": "r", "tenant": "a", "principal": "b"}])
    assert isinstance(bad, BadLine) and bad.message.startswith("jobs[0]: ") and isinstance(good, Job)
    assert "pydantic" not in bad.message and "\n" not in bad.message
    bad.message.encode()


def test_a_misspelt_field_is_named_with_what_may_be_meant() -> None:
    who = {"token": "", "tenant": "a", "principal": "b"}
    with pytest.raises(InvalidInput, match=r"^job: imputs: unknown field \(do you mean inputs\?\)$"):
        job_of("r", who, {"imputs": {}})
    with pytest.raises(InvalidInput, match=r"^job: request: "):
        job_of(7, who, {})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="a Job says tenant itself"):
        job_of(jobs("a", 1)[0], {"token": "", "tenant": "b", "principal": ""}, {})


# Awaiting.


class Driver:
    """Answers questions when it is told that runs have ended."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self.watches = Watches("a")
        self.changed = asyncio.Event()
        self.broken = False

    def ask(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Wait until one of the watch's runs has ended."""
        self.questions.append(wanted.run_ids)
        self.asked.put_nowait(len(self.questions))
        if wanted.after is not None and self.watches.find(wanted.watch, 0.0) is None:
            return Ends(known=False)
        watch = self.watches.begin(wanted.watch, 0.0)
        watch.arrived(wanted.after or 0)
        self.watches.add(watch, map(RunId, wanted.run_ids))
        while not watch.ends and wanted.timeout_s:
            yield Change(self.changed)
            if self.broken:
                raise LayerUnavailable("gone")
            if self.watches.find(wanted.watch, 0.0) is not watch:
                return Ends(known=False)
        return Ends(*watch.next_ends())

    def end(self, *runs: str) -> None:
        """Let runs end."""
        for run in runs:
            self.watches.ended(RunId(run), b"ended")
        self.change()

    def restart(self) -> None:
        """Forget all watches."""
        self.watches = Watches("a")
        self.change()

    def change(self) -> None:
        """Have those who wait look again."""
        self.changed.set()
        self.changed.clear()


class Change:
    """Something has changed."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def now(self) -> None:
        """Not from a thread."""
        raise AssertionError

    async def later(self) -> None:
        """Wait for it."""
        await self._event.wait()


async def test_many_who_wait_at_once_are_one_question() -> None:
    driver = Driver()
    waiting = ResultWaiter(driver.ask)
    runs = [f"r{i:03}" for i in range(200)]
    tasks = [asyncio.ensure_future(waiting.ended(run)) for run in [*runs, *runs]]
    await driver.asked.get()
    assert driver.questions == [runs] and waiting.stats() == {"awaited": 200, "questions": 1}
    driver.end(*runs)
    assert await asyncio.gather(*tasks) == [b"ended"] * 400
    assert waiting.is_idle and len(driver.questions) == 1


async def test_who_is_cancelled_waits_no_longer_and_harms_no_other() -> None:
    driver = Driver()
    waiting = ResultWaiter(driver.ask)
    one, other = (asyncio.ensure_future(waiting.ended(run)) for run in ("a", "b"))
    await driver.asked.get()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting.ended("a"), 0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    driver.end("b")
    assert await other == b"ended" and waiting.is_idle


async def test_who_comes_later_is_asked_for_beside_the_others() -> None:
    driver = Driver()
    waiting = ResultWaiter(driver.ask)
    first = asyncio.ensure_future(waiting.ended("a"))
    await driver.asked.get()
    second = asyncio.ensure_future(waiting.ended("b"))
    await driver.asked.get()
    driver.end("b")
    assert await second == b"ended" and driver.questions[:2] == [["a"], ["b"]]
    driver.end("a")
    assert await first == b"ended"
    assert [run for question in driver.questions for run in question] == ["a", "b"]


async def test_of_a_driver_that_knows_of_no_watch_all_that_is_awaited_is_asked_again() -> None:
    driver = Driver()
    waiting = ResultWaiter(driver.ask)
    tasks = [asyncio.ensure_future(waiting.ended(run)) for run in ("a", "b")]
    await driver.asked.get()
    driver.end("a")
    assert await tasks[0] == b"ended"
    await driver.asked.get()
    driver.restart()
    await driver.asked.get()
    assert driver.questions == [["a", "b"], [], ["b"]]
    driver.end("b")
    assert await tasks[1] == b"ended"


async def test_a_layer_that_is_gone_is_told_to_all_who_wait() -> None:
    driver = Driver()
    waiting = ResultWaiter(driver.ask)
    tasks = [asyncio.ensure_future(waiting.ended(run)) for run in ("a", "b")]
    await driver.asked.get()
    driver.broken = True
    driver.change()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [LayerUnavailable] * 2 and waiting.is_idle


async def test_a_batch_that_is_cancelled_stops_at_once() -> None:
    desk = Desk(run_s=3600)
    stream = JobStream(desk, jobs("a", 2), timeout=None)
    task = asyncio.ensure_future(drive_async(collect_in_order(stream, 2, timeout=None)))
    for _ in range(10):  # until it waits for the runs
        await asyncio.sleep(0)
    assert desk.questions
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_statuses_of_a_batch_are_told_as_they_come() -> None:
    desk, told = Desk(), []
    stream = JobStream(desk, [*jobs("a", 1), BadLine(line=1, job_id="", message="m")], timeout=None)
    desk.drive(collect_in_order(stream, 2, timeout=None, advance=told.append))
    assert told == ["refused", str(RunStatus.COMPLETED)]


def test_a_stream_takes_jobs_as_there_is_room_and_gives_results_as_they_come() -> None:
    desk, taken = Desk(run_s=1.0), list[str]()

    def given_out() -> Iterator[Job]:
        for job in jobs("a", 1000):
            taken.append(job.job_id)
            yield job

    stream = JobStream(desk, given_out(), timeout=None, window=7, clock=desk.clock)
    places = list[int]()
    while found := desk.drive(stream.next_results()):
        places += [result.place for result in found]
        assert len(taken) <= len(places) + 7, "no job is taken for which there is no room"
    assert sorted(places) == list(range(1000)) and not stream.open


def test_a_stream_that_is_paused_submits_nothing_and_gives_what_ends() -> None:
    desk, turns = Desk(run_s=1.0), 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        stream.is_paused = 5 <= turns < 50

    stream = JobStream(desk, jobs("a", 20), timeout=None, window=5, poll_s=1.0, on_turn=turn, clock=desk.clock)
    assert len(desk.drive(collect_in_order(stream, 20, timeout=None))) == 20
    times = sorted({at for at, _ in desk.entered})
    assert max(after - before for before, after in itertools.pairwise(times)) > 10, "nothing was submitted meanwhile"


@given(rate=st.integers(1, 50), count=st.integers(1, 120))
def test_a_stream_keeps_its_rate(rate: int, count: int) -> None:
    desk = Desk(run_s=0.0)
    stream = JobStream(desk, jobs("a", count), timeout=None, clock=desk.clock)
    stream.rate_per_s = float(rate)
    assert len(desk.drive(collect_in_order(stream, count, timeout=None))) == count
    times = [at for at, _ in desk.entered]
    for start in times:
        assert sum(start <= at < start + 1.0 for at in times) <= 2 * rate + 1, "a second's worth may have gathered"


def test_a_stream_that_was_interrupted_goes_on_and_sends_the_same_submissions() -> None:
    nonces = list[bytes]()

    class Interrupted(Desk):
        def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
            nonces.extend(job.nonce for job in jobs)
            if len(nonces) == len(jobs):
                raise KeyboardInterrupt
            return (yield from super().enter(jobs, within_s))

    desk = Interrupted()
    stream = JobStream(desk, jobs("a", 3), timeout=None, clock=desk.clock)
    with pytest.raises(KeyboardInterrupt):
        desk.drive(stream.next_results())
    assert len(desk.drive(collect_in_order(stream, 3, timeout=None))) == 3
    assert nonces[:3] == nonces[3:] and len(set(nonces)) == 3 and all(nonces)


def test_results_go_on_where_they_were_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given out is not given again, and what had come and was not given out is not lost."""
    desk, interrupts = Desk(), iter([False, True, False, True, True])

    def drive(steps: Steps[Any]) -> Any:
        if next(interrupts, False):
            raise KeyboardInterrupt
        return desk.drive(steps)

    monkeypatch.setattr(job_stream, "drive", drive)
    results = ResultStream(JobStream(desk, jobs("a", 6), timeout=None, window=2, clock=desk.clock))
    places, stops = list[int](), list[StreamInterrupted]()
    while True:
        try:
            places += (result.place for result in results)
            break
        except StreamInterrupted as stop:
            stops.append(stop)
    assert len(stops) == 3 and all(stop.stream is results for stop in stops)
    assert (
        "go on, and so does the stream" in str(stops[0])
        and len(places) == len(set(places))
        and sorted(places) == [*range(6)]
    )


def test_jobs_of_a_batch_are_known_by_the_batch_their_id_and_their_attempt() -> None:
    job = jobs("a", 1)[0]
    first = job.in_batch("nightly")
    assert first.nonce == job.in_batch("nightly", priority=5).nonce
    others = {first.nonce, job.in_batch("nightly", attempt=2).nonce, job.in_batch("weekly").nonce}
    assert len(others) == 3 and first.to_request().batch == BatchJob(id="nightly")
    with pytest.raises(InvalidInput, match="job_id"):
        Job(request="r", tenant="a", principal="ana").in_batch("nightly")
    for name in ("", "a b", "../x", "x" * 65, "-x"):
        with pytest.raises(InvalidInput, match="batch"):
            job.in_batch(name)


def test_jobs_that_are_given_again_are_other_runs_whatever_their_id() -> None:
    """Those of a batch are the same ones."""
    desk = FullDisk(FAILED)
    for _ in range(2):
        with pytest.raises(MapTimeout):
            run(desk, jobs("a", 1), timeout=0)
    one, other = desk.received
    assert one.job_id == other.job_id and run_of_job(one) != run_of_job(other)
    assert run_of_job(one.in_batch("nightly")) == run_of_job(other.in_batch("nightly"))


def test_jobs_that_come_slowly_are_submitted_as_they_come() -> None:
    desk, entered = Desk(run_s=1.0), list[int]()

    def slowly() -> Iterator[Job | None]:
        for job in jobs("a", 10):
            entered.append(len(desk.entered))
            yield job
            yield None

    stream = JobStream(desk, slowly(), timeout=None, clock=desk.clock)
    results = list[RunResult]()
    while found := desk.drive(stream.next_results()):
        results += found
    assert len(results) == 10 and entered == list(range(10)), "each before the next one is wanted"


def test_what_an_iterable_raises_is_raised_when_all_before_it_has_ended() -> None:
    desk = Desk(run_s=1.0)

    def broken() -> Iterator[Job]:
        yield from jobs("a", 7)
        raise InvalidInput("the file is damaged")

    stream, results = JobStream(desk, broken(), timeout=None, clock=desk.clock), list[RunResult]()
    while len(results) < 7:
        results += desk.drive(stream.next_results())
    with pytest.raises(InvalidInput, match="damaged"):
        desk.drive(stream.next_results())


def test_a_job_that_a_layer_failed_to_admit_is_submitted_again_and_in_the_end_refused() -> None:
    class Away(Desk):
        def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
            tickets = yield from super().enter(jobs, within_s)
            away = Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message="it may have been admitted")
            is_back = self.now_s >= 5
            return [
                ticket if is_back and job.tenant == "a" else away for job, ticket in zip(jobs, tickets, strict=True)
            ]

    desk = Away()
    stream = JobStream(desk, [*jobs("a", 2), *jobs("never", 1)], timeout=None, clock=desk.clock)
    found = desk.drive(collect_in_order(stream, 3, timeout=None))
    assert [result.reason_code for result in found] == ["completed", "completed", "internal_error"]


def test_a_window_that_was_lowered_holds_for_what_is_taken_already() -> None:
    desk = Desk(run_s=1.0)

    def turn() -> None:
        if desk.entered:
            stream.window = 2

    stream = JobStream(desk, jobs("a", 40), timeout=None, window=20, on_turn=turn, clock=desk.clock)
    assert len(desk.drive(collect_in_order(stream, 40, timeout=None))) == 40
    sizes = [len(list(group)) for _, group in itertools.groupby(at for at, _ in desk.entered)]
    assert sizes[0] == 20 and max(sizes[1:]) == 2


def test_a_stream_that_is_stopped_submits_no_more() -> None:
    desk = Desk(run_s=1.0)

    def turn() -> None:
        if len(desk.entered) >= 10:
            stream.stop()

    stream = JobStream(desk, jobs("a", 1000), timeout=None, window=10, on_turn=turn, clock=desk.clock)
    results = list[RunResult]()
    while found := desk.drive(stream.next_results()):
        results += found
    assert 10 <= len(results) == len(desk.entered) < 40


def test_a_rate_that_is_raised_does_not_wait_for_the_next_job_at_the_rate_before() -> None:
    desk = Desk()
    stream = JobStream(desk, jobs("a", 3), timeout=None, clock=desk.clock)
    stream.rate_per_s = 0.001
    desk.drive(stream.next_results())
    stream.rate_per_s = 10.0
    assert len(desk.drive(stream.next_results())) >= 1 and desk.now_s < 10


def test_a_stream_waits_for_what_has_ended_while_there_is_no_job_for_now() -> None:
    desk, one = Desk(), jobs("a", 2)
    stream = JobStream(desk, iter([one[0], None, None, *[None] * 30, one[1]]), timeout=None, clock=desk.clock)
    first = desk.drive(stream.next_results())
    assert [result.place for result in first] == [0]
    assert [result.place for result in desk.drive(stream.next_results())] == [1]
    assert not desk.drive(stream.next_results()) and 1 < desk.now_s < 20


@pytest.mark.parametrize(("failures", "completed"), [(3, 2), (100, 0)])
def test_a_job_that_may_have_been_admitted_is_sent_again_as_the_same_run(failures: int, completed: int) -> None:
    """A driver that is restarted answers nothing, and may have taken the job in: its run is not to be lost."""
    nonces = list[bytes]()

    class Unsure(Desk):
        def enter(self, jobs: Sequence[Job], within_s: float | None) -> Steps[list[Ticket]]:
            nonces.extend(job.nonce for job in jobs)
            if len(nonces) <= failures * len(jobs):
                yield Pause(0.0)
                return [
                    Ticket(reason_code=ReasonCode.INTERNAL_ERROR, message="it may have been admitted") for _ in jobs
                ]
            return (yield from super().enter(jobs, within_s))

    found = run(Unsure(), jobs("a", 2))
    assert sum(result.ok for result in found) == completed
    assert len(set(nonces)) == 2 and len(nonces) == 2 * min(failures + 1, MOST_UNSURE)
    for result, job in zip(found, jobs("a", 2), strict=True):
        assert result.ok or run_of_job(job.with_nonce(nonces[result.place])) in result.detail, "which run it may be"
    assert all(result.ok or "nobody could say" in result.story() for result in found)
