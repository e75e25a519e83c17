"""Results of many runs as these end, without Ray: in which order, within which bounds, and what is there in time."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.client import client
from airside.actors.client.client import RunHandle, Stack, _named
from airside.actors.client.following import RUNS_A_QUESTION
from airside.actors.client.result_cursor import TAKE_S, ResultCursor, collect
from airside.actors.client.results import ResultsInterrupted, ResultsTimeout
from airside.actors.client.run_stream import RunStream
from airside.actors.client.run_timeout import RunTimeout
from airside.actors.client.steps import Pause, Steps, each_later
from airside.actors.rpc.methods import WAIT, Ends, WaitRequest
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.errors import InvalidId, InvalidInput
from airside.stack.ids import RunId
from airside.stack.scheduling.watches import MOST_BYTES, Watches
from tests.unit.actors.client.test_job_stream import Desk


def run_of(number: int) -> str:
    """Return a run's id."""
    return f"run_{number:024x}"


class Runs(Desk):
    """A stack with runs that end at known times; counts what crosses to the driver, and what both sides hold."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked_bytes: list[int] = []
        self.held = 0
        self.found: list[tuple[float, str]] = []

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Wait for the next end, in the time of this desk."""
        self.asked_bytes.append(len(WAIT.request.encode(wanted)))
        ends = yield from super().wait(wanted, within_s)
        watch = self._watches.begin(wanted.watch, 0.0)
        self.held = max(self.held, len(watch.run_ids) + len(watch.ends))
        return ends

    def give(self, ends_s: list[float], *, each_s: float = 0.0) -> Iterator[tuple[str, str]]:
        """Yield runs that end at these times, taking a while to make each."""
        for number, end_s in enumerate(ends_s):
            self.now_s += each_s
            self._ends[run_of(number)] = end_s
            yield run_of(number), f"job {number}"

    def cursor(self, runs: Any, *, timeout: float | None = None, window: int | None = 10_000) -> ResultCursor:
        """Return a cursor in the time of this desk."""
        return ResultCursor(self, runs, timeout=timeout, window=window, clock=self.clock)

    def all(self, cursor: ResultCursor) -> list[tuple[float, str]]:
        """Return which job's result came when."""
        while results := self.drive(cursor.next_results()):
            self.found += [(self.now_s, result.job_id) for result in results]
        return self.found


def test_a_hundred_thousand_runs_from_a_generator_are_waited_for_within_a_window() -> None:
    """A question carries what is new, neither side holds more than the window, and every result comes once."""
    desk, window, total = Runs(), 2_000, 100_000
    cursor = desk.cursor(desk.give([float(n // 500) for n in range(total)]), window=window)
    largest, found = 0, 0
    while results := desk.drive(cursor.next_results()):
        found += len(results)
        largest = max(largest, len(cursor._open), len(cursor._following._open))
    assert found == total and largest <= window and desk.held <= window
    asked = [len(question.run_ids) for question in desk.questions]
    assert sum(asked) == total and max(asked) <= RUNS_A_QUESTION
    assert sum(desk.asked_bytes) < 40 * total and max(desk.asked_bytes) < 40 * RUNS_A_QUESTION


def test_results_come_in_the_order_in_which_runs_end() -> None:
    desk = Runs()
    assert desk.all(desk.cursor(desk.give([3.0, 1.0, 2.0]))) == [(1.0, "job 1"), (2.0, "job 2"), (3.0, "job 0")]


def test_a_run_beyond_the_window_comes_when_there_is_room() -> None:
    desk = Runs()
    assert desk.all(desk.cursor(desk.give([9.0, 5.0, 1.0]), window=2)) == [
        (5.0, "job 1"),
        (5.0, "job 2"),
        (9.0, "job 0"),
    ]


def test_results_come_while_the_handles_are_being_made() -> None:
    desk = Runs()
    found = desk.all(desk.cursor(desk.give([0.0] * 100, each_s=TAKE_S / 4)))
    assert found[0][0] <= 2 * TAKE_S and len(found) == 100


def test_from_the_end_of_its_time_no_handle_is_taken_and_what_goes_on_is_named() -> None:
    """So a generator that submits submits nothing more; the results there are have come."""
    desk = Runs()
    handles = desk.give([0.0, 50.0, *[0.0] * 1_000], each_s=1.0)
    cursor = desk.cursor(handles, timeout=5)
    with pytest.raises(ResultsTimeout, match="the 5 s are over: 1 runs that were waited for have not ended") as caught:
        desk.all(cursor)
    assert caught.value.run_ids == (run_of(1),) and 5 <= desk.now_s <= 6
    assert len(desk._ends) == len(desk.found) + 1
    assert next(handles)[1] == f"job {len(desk._ends) - 1}"
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.run_ids == caught.value.run_ids


def test_without_time_what_has_ended_of_a_window_comes() -> None:
    desk = Runs()
    cursor = desk.cursor(desk.give([0.0, 1.0, 0.0]), timeout=0)
    assert {result.job_id for result in desk.drive(cursor.next_results())} == {"job 0", "job 2"}
    with pytest.raises(ResultsTimeout):
        desk.drive(cursor.next_results())


def test_a_layer_that_does_not_answer_is_waited_for_until_the_time_is_over() -> None:
    """And not longer: a driver that is being restarted loses nobody's time but that."""
    desk = Runs(answers=False)
    with pytest.raises(ResultsTimeout):
        desk.all(desk.cursor(desk.give([1.0]), timeout=60))
    assert 60 <= desk.now_s < 70


def test_all_that_has_ended_is_found_at_once_however_many_they_are() -> None:
    """Without a window all handles are taken whatever the time is, in as many questions as it needs."""
    desk = Runs()
    runs = list(desk.give([float(n % 2) for n in range(5 * RUNS_A_QUESTION)]))
    found = desk.drive(collect(desk, runs, timeout=0, clock=desk.clock))
    assert [result.job_id for result in found] == [f"job {n}" for n in range(0, 5 * RUNS_A_QUESTION, 2)]
    assert max(len(question.run_ids) for question in desk.questions) == RUNS_A_QUESTION


@given(
    ends=st.lists(st.floats(0, 30), max_size=30),
    window=st.integers(1, 10),
    each_s=st.floats(0, 1),
    timeout=st.none() | st.floats(0, 40),
)
def test_every_handle_has_its_result_or_is_named_or_is_not_taken(
    ends: list[float], window: int, each_s: float, timeout: float | None
) -> None:
    desk, found, named = Runs(), list[str](), tuple[str, ...]()
    cursor = desk.cursor(desk.give(ends, each_s=each_s), timeout=timeout, window=window)
    try:
        while results := desk.drive(cursor.next_results()):
            found += [result.run_id for result in results]
            assert len(cursor._open) <= window
    except ResultsTimeout as error:
        named = error.run_ids
        assert timeout is not None
    assert sorted([*found, *named]) == sorted(desk._ends)
    assert named or timeout is not None or len(found) == len(ends)


def test_an_answer_of_the_driver_is_bounded_in_bytes_and_has_one_end_at_least() -> None:
    watches = Watches("a")
    watch = watches.begin("w", 0.0)
    for run_id, size in (("a", 2 * MOST_BYTES), ("b", MOST_BYTES // 2), ("c", MOST_BYTES // 2), ("d", 1)):
        watches.add(watch, [RunId(run_id)])
        watches.ended(RunId(run_id), b" " * size)
    pages = []
    while watch.ends:
        found, upto = watch.next_ends()
        watch.arrived(upto)
        pages.append("".join(found))
    assert pages == ["a", "bc", "d"]


# What callers give.


def stack_of(desk: Desk) -> Stack:
    """Return a stack that asks a desk, without what else it has."""
    stack = Stack.__new__(Stack)
    stack.backend = desk  # type: ignore[assignment]
    stack._own = None
    return stack


class Now(Runs):
    """One whose runs have all ended, and which needs no waiting."""

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Answer at once."""
        ends = self.drive(super().wait(wanted, within_s))
        yield Pause(0.0)
        found: Ends = ends
        return found


def test_a_stack_yields_results_to_threads_and_event_loops_alike() -> None:
    desk = Now()
    stack = stack_of(desk)
    handles = [RunHandle(stack, run_id, job_id) for run_id, job_id in desk.give([0.0] * 3)]
    wanted = {"job 0", "job 1", "job 2"}
    assert {result.job_id for result in stack.iter_results(iter(handles))} == wanted

    async def later() -> set[str]:
        return {result.job_id async for result in stack.aiter_results(handles, timeout=5)}

    assert asyncio.run(later()) == wanted
    assert [result.job_id for result in stack.results(handles)] == ["job 0", "job 1", "job 2"]
    assert msgspec.json.encode([r.story() for r in stack.iter_results(handles[:1])])


@pytest.mark.parametrize("given", ["run_1", b"x", {"a": 1}, 5, None])
def test_what_is_no_list_of_handles_is_refused_at_once(given: Any) -> None:
    with pytest.raises(InvalidInput, match="is no list of handles: give what"):
        stack_of(Runs()).iter_results(given)


def test_what_is_no_handle_is_named_by_its_place() -> None:
    with pytest.raises(InvalidInput, match=r"handles\[1\]: int is no handle of a run: `Stack.handle"):
        list(_named(["run_" + "0" * 24, 7]))  # type: ignore[list-item]
    with pytest.raises(InvalidId):
        list(_named(["run_1"]))


@pytest.mark.parametrize("window", [0, -1, 1.5, "all", None])
def test_a_window_is_a_number_of_runs(window: Any) -> None:
    with pytest.raises(InvalidInput, match="is no number of runs of at least 1"):
        stack_of(Runs()).iter_results([], window=window)
    with pytest.raises(InvalidInput, match="timeout"):
        stack_of(Runs()).iter_results([], timeout=-1)


def test_a_result_that_does_not_come_in_time_says_where_its_run_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Runs()
    ((run_id, _),) = desk.give([60.0])
    monkeypatch.setattr(client, "drive", desk.drive)
    monkeypatch.setattr(desk, "events", lambda _: ([], "the journal is away"), raising=False)
    with pytest.raises(RunTimeout, match=f"^{run_id} has not ended in 1e-09 s: the journal is away$") as caught:
        RunHandle(stack_of(desk), run_id).result(timeout=1e-9)
    assert pickle.loads(pickle.dumps(caught.value)).standing == "the journal is away"


def test_who_asks_again_and_again_has_nothing_of_the_run_read(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Runs()
    ((run_id, _),) = desk.give([60.0])
    monkeypatch.setattr(client, "drive", desk.drive)
    with pytest.raises(RunTimeout, match=f"^{run_id} has not ended in 0 s$"):
        RunHandle(stack_of(desk), run_id).result(timeout=0)


class Interrupted(Runs):
    """One whose caller is interrupted while it waits."""

    def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
        """Be interrupted."""
        yield Pause(0.0)
        raise KeyboardInterrupt


async def test_an_iteration_that_is_cancelled_says_which_runs_go_on() -> None:
    """And so does one that watches a run."""

    class Waiting(Runs):
        def wait(self, wanted: WaitRequest, within_s: float | None) -> Steps[Ends]:
            yield Pause(60.0)
            raise AssertionError

    def ask(asked: WatchRequest) -> Steps[WatchPage]:
        yield Pause(60.0)
        raise AssertionError

    desk = Waiting()
    runs = [run_id for run_id, _ in desk.give([1.0] * 2)]
    watched = RunStream(ask, RunId(runs[0]), timeout=None)
    for iterated, going in (
        (stack_of(desk).aiter_results(runs), tuple(runs)),
        (each_later(watched.next_news), (runs[0],)),
    ):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await anext(iterated)
        cancelled: Any = caught.value.__cause__
        assert type(cancelled) is asyncio.CancelledError and cancelled.run_ids == going
        assert " on: `stack." in cancelled.__notes__[0]


def test_who_interrupts_a_wait_is_told_how_to_get_the_results() -> None:
    """The runs go on; one is named, of several there is the number."""
    desk = Interrupted()
    stack = stack_of(desk)
    one, *others = [RunHandle(stack, run_id) for run_id, _ in desk.give([1.0] * 3)]
    with pytest.raises(ResultsInterrupted, match=rf"{one.run_id} goes on: `stack.handle\('{one.run_id}'\).result\(\)`"):
        one.result()
    with pytest.raises(ResultsInterrupted, match=r"2 runs go on: `stack.results\(...\)`") as stop:
        stack.results(others)
    assert stop.value.run_ids == tuple(each.run_id for each in others)
    with pytest.raises(KeyboardInterrupt):
        next(iter(stack.iter_results(others)))
