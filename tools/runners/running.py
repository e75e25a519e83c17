"""`Runner`: where an executor runs tools' code: plain functions in threads, coroutines on tool loops.

A call that is no longer waited for may go on: a thread cannot be stopped, nor a loop that is held.  What a key's calls
do here is known until it is done, so that a later attempt can wait for it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from airside.stack.flag import Flag
from airside.stack.ids import EffectKey
from airside.tools.runners.fair_slots import FairSlots
from airside.tools.runners.jobs import StillAwaitable, ToolJob
from airside.tools.runners.outcomes import ToolRaised
from airside.tools.runners.tool_loop import Place
from airside.tools.runners.tool_loops import NotStarted, ToolLoops

THREADS = 32
"""Plain functions run in threads, so that a slow one does not hold up the others; tenants take turns (`FairSlots`)."""


class Runner:
    """Runs jobs; without threads all of them where it is called."""

    def __init__(self, *, in_threads: bool) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="tool") if in_threads else None
        self._at_work: dict[EffectKey, Flag] = {}
        self.slots = FairSlots(THREADS)
        self.loops = ToolLoops()

    async def wait_for(self, key: EffectKey) -> None:
        """Return once nothing is at work here under a key."""
        earlier = self._at_work.get(key)
        if earlier is not None:
            await earlier.wait()

    @contextmanager
    def at_work(self, key: EffectKey) -> Iterator[None]:
        """Have it known that a call is at work under a key within the block."""
        over = self._begin(key)
        try:
            yield
        finally:
            self._end(key, over)

    async def call(self, job: ToolJob, *, key: EffectKey | None = None, place: Place | None = None) -> Any:
        """Return what a job comes to; raises what `ToolJob` and `ToolLoops.run` say.

        A coroutine runs on the loop of its `place`.  What has a key is known to be at work under it until it is done.
        """
        over = self._begin(key)
        if self._threads is None:
            try:
                return await job.perform()
            finally:
                self._end(key, over)
        if job.is_coroutine:
            return await self._on_loop(job, key, over, place)
        answer = await self._in_thread(self._threads, job, key, over)
        if not isinstance(answer, StillAwaitable):
            return answer
        # A decorator round a coroutine function, `lambda **k: client.pay(**k)`, an object that is called.
        try:
            return await self._on_loop(job.after(answer), key, over, place)
        except NotStarted as error:
            raise ToolRaised(error.message) from None  # its plain part was called

    async def _on_loop(self, job: ToolJob, key: EffectKey | None, over: Flag, place: Place | None) -> Any:
        try:
            return await self.loops.run(job, over=partial(self._end, key, over), place=place)
        except NotStarted:
            self._end(key, over)
            raise

    async def _in_thread(self, threads: ThreadPoolExecutor, job: ToolJob, key: EffectKey | None, over: Flag) -> Any:
        try:
            await self.slots.take(job.tenant, job.waiting)
        except BaseException:
            self._end(key, over)
            raise
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        future: Future[Any] = threads.submit(copy_context().run, job.in_thread)

        def ended(finished: Future[Any]) -> None:
            self.slots.give_back(job.tenant)
            if done.cancelled():
                self._let_go(finished, key, over)
            else:
                done.set_result(None)

        # The thread may outlive this call, which a deadline ends: it is over when the thread is.  The future keeps what
        # it calls, so nothing of that leads back to it, nor does what is raised: see `Work`.
        future.add_done_callback(lambda finished: loop.call_soon_threadsafe(ended, finished))
        try:
            await done
        except asyncio.CancelledError:
            if done.cancelled():
                future.cancel()
            else:
                self._let_go(future, key, over)
            raise
        error = future.exception()
        if error is not None or not isinstance(future.result(), StillAwaitable):
            self._end(key, over)
        if error is None:
            return future.result()
        try:
            raise error.with_traceback(None)  # whose frames hold the tool's own values
        finally:
            del future, error

    def _let_go(self, future: Future[Any], key: EffectKey | None, over: Flag) -> None:
        """End a call that nobody waits for: what it gave to await is not begun."""
        answer = None if future.cancelled() or future.exception() is not None else future.result()
        if isinstance(answer, StillAwaitable) and inspect.iscoroutine(answer.answer):
            answer.answer.close()
        self._end(key, over)

    def _begin(self, key: EffectKey | None) -> Flag:
        over = Flag()
        if key is not None:
            self._at_work[key] = over
        return over

    def _end(self, key: EffectKey | None, over: Flag) -> None:
        over.set()
        if key is not None and self._at_work.get(key) is over:
            del self._at_work[key]
