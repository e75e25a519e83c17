"""A tool loop is woken by a lock where a lock will do, by its pipe where it waits for files, and always."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from airside.tools.runners.event_loop import ToolEventLoop, only_waits
from airside.tools.runners.tool_loop import Exchange

WAIT_S = 30.0
"""Far over what anything here takes: it only ends a test that would else hang."""


class Threaded:
    """A loop in a thread of its own, with a count of the bytes that were sent through its pipe."""

    def __init__(self) -> None:
        self.loop = ToolEventLoop()
        self.sent = 0
        pipe = self.loop._csock  # type: ignore[attr-defined]
        self.loop._csock = self  # type: ignore[attr-defined]
        self._pipe = pipe
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def send(self, data: bytes) -> int:
        """Be the sending end of the pipe."""
        self.sent += len(data)
        return int(self._pipe.send(data))

    def do(self, function: Any) -> Any:
        """Return what a function returns on the loop."""
        done: Future[Any] = Future()
        self.loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(WAIT_S)

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT_S)
        self.loop._csock = self._pipe  # type: ignore[attr-defined]
        self.loop.close()


@pytest.fixture
def threaded() -> Iterator[Threaded]:
    """Return a loop in a thread."""
    made = Threaded()
    yield made
    made.close()


def test_a_loop_without_files_is_woken_without_its_pipe(threaded: Threaded) -> None:
    assert [threaded.do(lambda i=i: i) for i in range(200)] == list(range(200))
    assert threaded.sent == 0


def test_a_loop_that_waits_for_a_file_is_woken_by_its_pipe_and_by_the_file(threaded: Threaded) -> None:
    here, there = socket.socketpair()
    got: Future[bytes] = Future()
    threaded.do(lambda: threaded.loop.add_reader(there, lambda: got.set_result(there.recv(9))))
    for i in range(200):
        assert threaded.do(lambda i=i: i) == i
    here.send(b"x")
    assert got.result(WAIT_S) == b"x"
    threaded.do(lambda: threaded.loop.remove_reader(there))
    sent = threaded.sent
    assert threaded.do(lambda: 1) == 1
    assert threaded.sent <= sent + 1, "the wait for files that was under way may have been ended"
    here.close()
    there.close()


def test_no_wake_up_is_lost_between_a_wait_by_the_lock_and_one_by_files(threaded: Threaded) -> None:
    """Files come and go while two threads wake the loop, and every one of their calls is made."""
    here, there = socket.socketpair()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def flip() -> None:
        if not threaded.loop.remove_reader(there):
            threaded.loop.add_reader(there, lambda: None)

    def many() -> None:
        for _ in range(1_000):
            threaded.do(flip)

    try:
        threads = [threading.Thread(target=many) for _ in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(WAIT_S)
            assert not each.is_alive()
    finally:
        sys.setswitchinterval(interval)
        here.close()
        there.close()


def test_timers_go_off_by_the_lock_as_by_files(threaded: Threaded) -> None:
    async def sleeps() -> int:
        await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        return 1

    assert asyncio.run_coroutine_threadsafe(sleeps(), threaded.loop).result(WAIT_S) == 1
    assert threaded.sent == 0


@pytest.mark.parametrize("files", [False, True])
def test_a_loop_with_nothing_to_do_is_seen_to_wait(threaded: Threaded, files: bool) -> None:
    here, there = socket.socketpair()
    if files:
        threaded.do(lambda: threaded.loop.add_reader(there, lambda: None))
    for _ in range(100_000):
        frame = sys._current_frames()[threaded.thread.ident or 0]
        if only_waits(frame):
            break
    else:
        pytest.fail("it was never seen to wait")
    here.close()
    there.close()


def test_what_ends_on_many_loops_in_one_turn_of_the_executors_wakes_that_once() -> None:
    class Home:
        woken: list[Any] = []

        def call_soon_threadsafe(self, callback: Any) -> None:
            self.woken.append(callback)

        def time(self) -> float:
            return 1.0

    class Ended:
        loop = None
        settled = 0

        def complete(self) -> None:
            Ended.settled += 1

    home = Home()
    exchange = Exchange(home)  # type: ignore[arg-type]
    for turn in (1, 2):
        for _ in range(50):
            exchange.tell(Ended())  # type: ignore[arg-type]
        assert len(home.woken) == turn
        home.woken[-1]()
        assert Ended.settled == 50 * turn
