"""`ThreadRunner`: plain functions, in threads.

A call that is no longer waited for may go on, for a thread cannot be stopped: it keeps its place until it is done.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from airside.tools.runners.fair_slots import FairSlots
from airside.tools.runners.jobs import StillAwaitable, ToolJob
from airside.tools.runners.outcomes import NotStarted, ToolRaised
from airside.tools.runners.tool_loops import ToolLoops


class ThreadRunner:
    """Runs plain functions, one in each of the places; what they give to await goes on on a loop."""

    level = None
    on_timeout = ""

    def __init__(self, slots: FairSlots, places: int, loops: ToolLoops) -> None:
        self._threads = ThreadPoolExecutor(places, thread_name_prefix="tool")
        self._slots = slots
        self._loops = loops

    async def ready(self) -> None:
        """Do nothing: a thread is made with the call that needs one."""

    async def run(self, job: ToolJob) -> Any:
        """Return what a job comes to."""
        try:
            await self._slots.take(job.tenant, job.waiting)
        except BaseException:
            job.over()
            raise
        answer = await self._in_thread(job)
        if not isinstance(answer, StillAwaitable):
            return answer
        # A decorator round a coroutine function, `lambda **k: client.pay(**k)`, an object that is called.
        try:
            return await self._loops.run(job.after(answer))
        except NotStarted as error:
            raise ToolRaised(error.message) from None  # its plain part was called

    async def _in_thread(self, job: ToolJob) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        future: Future[Any] = self._threads.submit(copy_context().run, job.in_thread)

        def ended(finished: Future[Any]) -> None:
            self._slots.give_back(job.tenant)
            if done.cancelled():
                _let_go(finished, job)
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
                _let_go(future, job)
            raise
        error = future.exception()
        if error is not None or not isinstance(future.result(), StillAwaitable):
            job.over()
        if error is None:
            return future.result()
        try:
            raise error.with_traceback(None)  # whose frames hold the tool's own values
        finally:
            del future, error

    def close(self) -> None:
        """Do nothing: no thread can be ended, and they end with the process."""


def _let_go(future: Future[Any], job: ToolJob) -> None:
    """End a call that nobody waits for: what it gave to await is not begun."""
    answer = None if future.cancelled() or future.exception() is not None else future.result()
    if isinstance(answer, StillAwaitable) and inspect.iscoroutine(answer.answer):
        answer.answer.close()
    job.over()
