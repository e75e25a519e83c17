"""Coalescing: the calls that wait at the same moment travel as one Ray call, two under way per layer.

A Ray call costs about a millisecond whatever it carries, so this is the one decision the stack's speed depends on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

Send = Callable[[list[bytes]], Awaitable[Sequence[bytes]]]
"""Carries a batch and returns one answer per item, in order."""


class Coalescer:
    """Turns single calls into batches, on the one event loop it is first used in.

    An error of a batch is every one of its callers' error.  What a caller gave up before it was sent is not sent.
    """

    def __init__(self, send: Send, *, max_batch: int, in_flight: int) -> None:
        self._send = send
        self._max_batch = max_batch
        self._in_flight = in_flight
        self._waiting: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._active = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, item: bytes) -> bytes:
        """Send an item with whatever else waits, and return its answer."""
        loop = self._loop
        if loop is None:  # asked for once: it costs a system call each time
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((item, future))
        if not self._scheduled and self._active < self._in_flight:
            # Not at once: whoever else is ready in this turn of the loop joins the batch.
            self._scheduled = True
            loop.call_soon(self._start)
        return await future

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting and self._active < self._in_flight:
            size = min(self._max_batch, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(size)]
            batch = [(item, future) for item, future in taken if not future.cancelled()]
            if not batch:
                continue
            self._active += 1
            assert self._loop is not None
            task = self._loop.create_task(self._carry(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, batch: list[tuple[bytes, asyncio.Future[bytes]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} answers to {len(batch)} items")
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()  # else its caller would wait for ever
            raise
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._active -= 1
            self._start()
