"""Calls' deadlines by one timer: a block ends when its time is over, as `asyncio.timeout` would end it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airside.tools.runners.deadlines import Deadline, Deadlines


class Bench:
    """Deadlines by a clock that the test moves, and how many timers were set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = asyncio.get_running_loop()
        self.now_s, self.timers = 1_000.0, 0
        self.deadlines = Deadlines()
        set_timer = self.loop.call_at

        def call_at(*args: Any, **options: Any) -> asyncio.TimerHandle:
            self.timers += 1
            return set_timer(*args, **options)

        monkeypatch.setattr(self.loop, "time", lambda: self.now_s)
        monkeypatch.setattr(self.loop, "call_at", call_at)

    def begin(self, seconds: float) -> tuple[Deadline, asyncio.Task[str]]:
        """Begin a block that would never end by itself."""
        deadline = self.deadlines.after(seconds)

        async def block() -> str:
            try:
                with deadline:
                    await asyncio.Event().wait()
            except TimeoutError:
                return "time is over"
            return "left"

        return deadline, asyncio.ensure_future(block())

    async def turn(self, seconds: float = 0) -> None:
        """Let time go by."""
        self.now_s += seconds
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench."""
    return Bench(monkeypatch)


async def test_a_block_ends_when_its_time_is_over_and_not_before(bench: Bench) -> None:
    deadline, block = bench.begin(10)
    await bench.turn(9.5)
    assert not block.done() and not deadline.expired() and not deadline.over.is_set()
    await bench.turn(0.5)
    assert block.result() == "time is over" and deadline.expired() and deadline.over.is_set()


async def test_blocks_end_each_in_its_own_time_whatever_their_order(bench: Bench) -> None:
    blocks = {seconds: bench.begin(seconds)[1] for seconds in (30, 5, 20, 40)}
    await bench.turn()
    for seconds in (5, 20, 30, 40):
        await bench.turn(1_000 + seconds - bench.now_s)
        assert {each for each, block in blocks.items() if block.done()} == {s for s in blocks if s <= seconds}


async def test_one_timer_serves_all_that_are_at_work(bench: Bench) -> None:
    for _ in range(50):
        bench.begin(30)
        await bench.turn(0.01)
    assert bench.timers == 1


async def test_one_that_was_left_never_expires_and_leaves_no_timer_behind(bench: Bench) -> None:
    with bench.deadlines.after(10):
        await asyncio.sleep(0)
    await bench.turn(20)
    assert all(timer.cancelled() for timer in bench.loop._scheduled)  # type: ignore[attr-defined]


async def test_one_whose_time_is_over_at_once_lets_its_block_run_to_its_first_wait(bench: Bench) -> None:
    _, block = bench.begin(0)
    await bench.turn()
    assert block.result() == "time is over"
    with bench.deadlines.after(0):
        pass


async def test_one_that_is_brought_forward_ends_at_once(bench: Bench) -> None:
    deadline, block = bench.begin(1_000)
    _, other = bench.begin(1_000)
    await bench.turn()
    deadline.reschedule(bench.loop.time())
    await bench.turn()
    assert block.result() == "time is over" and not other.done()


async def test_a_paused_one_goes_on_where_it_stood_and_no_later_than_its_latest(bench: Bench) -> None:
    async def block(waits: asyncio.Event) -> float:
        try:
            with deadline:
                with deadline.paused():
                    await waits.wait()
                await asyncio.Event().wait()
        except TimeoutError:
            pass
        return bench.now_s

    for is_given, ends_s in ((True, 1_045.0), (False, 1_060.0)):
        bench.now_s, waits = 1_000.0, asyncio.Event()
        deadline = bench.deadlines.after(5, within_s=60)
        running = asyncio.ensure_future(block(waits))
        await bench.turn()
        await bench.turn(40)
        if is_given:
            waits.set()
            await bench.turn()
        await bench.turn(ends_s - bench.now_s - 1)
        assert not running.done()
        await bench.turn(1)
        assert await running == ends_s and deadline.waited_s == (40.0 if is_given else 60.0)


async def test_a_block_that_somebody_cancels_is_cancelled(bench: Bench) -> None:
    deadline, block = bench.begin(10)
    await bench.turn()
    block.cancel()
    await bench.turn()
    assert block.cancelled() and not deadline.expired()


async def test_a_block_that_somebody_cancels_when_its_time_is_over_is_cancelled(bench: Bench) -> None:
    """Nobody who cancels is told that it was only late."""
    deadline, block = bench.begin(10)
    await bench.turn()
    deadline.reschedule(bench.loop.time())
    await asyncio.sleep(0)
    block.cancel()
    await bench.turn()
    assert block.cancelled() and deadline.expired()
