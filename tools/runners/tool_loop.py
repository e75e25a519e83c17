"""`ToolLoop`: one event loop in a thread of its own, for coroutines of tools; and the `Work` that is handed to it.

Work goes over in batches: what is handed over in a turn of the executor's loop wakes each loop once, and what comes
back from all of them while it has not turned wakes it once.  Whoever takes a work's ticket has it: the loop to begin
it, or the executor to give it to another, or to nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import sys
import sysconfig
import threading
from collections import deque
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from airside.stack.ids import TenantId
from airside.tools.runners.event_loop import ToolEventLoop, only_waits
from airside.tools.runners.jobs import ToolJob
from airside.tools.runners.outcomes import ToolRaised

logger = logging.getLogger("airside")

_LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_END_S = 1.0
"""How long what tools left on a loop may take to end with it."""

_OURS = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
"""The folder of `airside.tools`: whose frames are not a tool's."""


@dataclass(eq=False, slots=True)
class Place:
    """What is bound to one loop: a toolset's state, with all that uses it."""

    loop: ToolLoop | None = None

    def bind(self, loop: ToolLoop | None) -> None:
        """Be of this loop; of none: let go."""
        for old, more in ((self.loop, -1), (loop, 1)):
            if old is not None:
                old.states += more
        self.loop = loop

    @property
    def is_lost(self) -> bool:
        """Whether its loop is lost, and it with it."""
        return self.loop is not None and self.loop.is_lost


@dataclass(eq=False, slots=True, kw_only=True)
class Work:
    """A job for a loop.  `answer` is done when there is a value or an error.

    `bound` = it runs on that loop or not at all.  `stopping` = its caller waits no longer than it takes to stop it,
    which the loop has `acknowledged` of.

    Its context and its task lead back to it, so it lets go of them when it is over: else what a call was made of would
    be found by the garbage collector alone, which then takes a fifth of an executor's time.
    """

    job: ToolJob
    answer: asyncio.Future[None]
    context: contextvars.Context | None
    bound: bool
    loop: ToolLoop | None = None
    ticket: threading.Lock = field(default_factory=threading.Lock)
    task: asyncio.Task[None] | None = None
    stopping: bool = False
    acknowledged: bool = False
    is_over: bool = False
    value: Any = None
    error: BaseException | None = None

    def take(self) -> bool:
        """Take the ticket; False if it is taken already."""
        return self.ticket.acquire(blocking=False)

    def again(self) -> Work:
        """Give a work that was taken and not begun another ticket, for another loop."""
        self.ticket = threading.Lock()
        assert self.context is not None
        self.context = self.context.copy()
        return self

    def complete(self, error: BaseException | None = None) -> None:
        """Be over, on the executor's loop: whoever waits is told."""
        self.is_over = True
        self.task = self.context = None
        self.error = error or self.error
        if not self.answer.done():
            self.answer.set_result(None)
        self.job.over()


_WORK: contextvars.ContextVar[Work | None] = contextvars.ContextVar("work", default=None)


class _Task(asyncio.Task[Any]):
    """A task that knows whose it is, so that also one which a tool made is named."""

    work: Work | None = None


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> _Task:
    task = _Task(coroutine, loop=loop, **options)
    context = options.get("context")
    task.work = _WORK.get() if context is None else context.get(_WORK)
    return task


class Exchange:
    """What goes over between the executor's loop and all of its tool loops, one wake-up a batch."""

    def __init__(self, home: asyncio.AbstractEventLoop) -> None:
        self.home = home
        self._to_wake: list[ToolLoop] = []
        self._ended: deque[Work] = deque()
        self._is_woken = False

    def wake(self, loop: ToolLoop) -> None:
        """Wake a loop at the end of this turn, on the executor's loop."""
        if not self._to_wake:
            self.home.call_soon(self._wake)
        self._to_wake.append(loop)

    def _wake(self) -> None:
        loops, self._to_wake = self._to_wake, []
        for loop in loops:
            loop.wake()

    def tell(self, work: Work) -> None:
        """Have it known that a work ended, on a tool loop's thread."""
        self._ended.append(work)
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):  # the executor's loop is closed
                self.home.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        """Tell those who wait of the works that ended."""
        self._is_woken = False  # before the first is taken: what comes from now on may be in vain for this turn
        now_s = self.home.time()
        while self._ended:
            work = self._ended.popleft()
            if work.loop is not None:
                work.loop.ended(work, now_s)
            work.complete()


class ToolLoop:
    """One loop and its thread, and what the executor knows of it.

    `is_asked` = it was asked to show that it turns, and has not yet; `missed` counts the looks since.  `held_by` is the
    tenant whose call holds it, if `is_held`; `states` are the places on it.
    """

    def __init__(self, name: str, tenant: TenantId, exchange: Exchange) -> None:
        self.tenant = tenant
        self.works: set[Work] = set()
        self.states = 0
        self.is_asked = False
        self.missed = 0
        self.is_held = False
        self.held_by = tenant
        self.is_lost = False
        self.idle_since_s = exchange.home.time()
        self._exchange = exchange
        self._inbox: deque[tuple[Work, threading.Lock, contextvars.Context]] = deque()
        self._is_woken = False
        self._to_end = asyncio.Event()
        self._loop = ToolEventLoop()
        self._loop.set_task_factory(_make_task)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    # On the executor's loop.

    def start(self, work: Work) -> None:
        """Have a work begin, if its ticket is not taken before."""
        self.works.add(work)
        work.loop = self
        assert work.context is not None
        work.context.run(_WORK.set, work)
        self._inbox.append((work, work.ticket, work.context))
        if not self._is_woken:
            self._is_woken = True
            self._exchange.wake(self)

    def wake(self) -> None:
        """Have it take what was handed over."""
        self._is_woken = False
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            self._loop.call_soon_threadsafe(self._take)

    def drop(self, work: Work) -> None:
        """Let go of a work that is not to begin here."""
        self.works.discard(work)
        self.idle_since_s = self._exchange.home.time()

    def stop(self, work: Work) -> None:
        """Have a work that began cancelled."""
        self._loop.call_soon_threadsafe(self._stop, work)

    def ask(self) -> None:
        """Have the loop show that it turns."""
        self.is_asked = True
        self._loop.call_soon_threadsafe(self._turned)

    def end(self) -> None:
        """Let the thread end as soon as the loop turns."""
        with contextlib.suppress(RuntimeError):  # it has
            self._loop.call_soon_threadsafe(self._to_end.set)

    def holder(self) -> tuple[Work | None, str]:
        """Return whose code has the loop's thread now, and where; no place if the loop only waits."""
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self.thread.ident or 0)
        if task is None and frame is not None and only_waits(frame):
            return None, ""
        return getattr(task, "work", None), _place(frame)

    def ended(self, work: Work, now_s: float) -> None:
        """Know a work as over, at a time of the executor's loop."""
        self.works.discard(work)
        self.idle_since_s = now_s

    # On the loop's own thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        life = self._loop.create_task(self._live())
        while not life.done():
            try:
                self._loop.run_until_complete(life)
            except BaseException:  # an exit in a task that a tool made, or it stopped the loop
                logger.exception("a tool left its event loop", extra={"action": "tool_loop_left"})
        self._loop.close()

    async def _live(self) -> None:
        """Turn until the end, then let end what is left."""
        await self._to_end.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_END_S)
        await self._loop.shutdown_asyncgens()

    def _turned(self) -> None:
        self.is_asked = False

    def _take(self) -> None:
        while self._inbox:
            work, ticket, context = self._inbox.popleft()
            self._loop.create_task(self._carry(work, ticket), context=context)

    async def _carry(self, work: Work, ticket: threading.Lock) -> None:
        if not ticket.acquire(blocking=False):
            return
        work.task = asyncio.current_task()
        try:
            work.value = await work.job.perform()
        except asyncio.CancelledError as cancelled:
            work.error = cancelled if work.stopping else ToolRaised("the tool cancelled itself")
        except BaseException as error:
            work.error = error.with_traceback(None)  # whose frames hold the tool's own values
        self._exchange.tell(work)

    def _stop(self, work: Work) -> None:
        work.acknowledged = True
        task = work.task  # which is let go of on another thread
        if task is not None:
            task.cancel()


def _place(frame: FrameType | None) -> str:
    """Return where the tool's own code is: the innermost line that is no library's, else the first after ours."""
    best: FrameType | None = None
    looked = frame
    while looked is not None:
        file = os.path.realpath(looked.f_code.co_filename)
        if file.startswith(_OURS) or looked.f_code is asyncio.Handle._run.__code__:
            break
        best = looked
        if not file.startswith(_LIBRARIES):
            break
        looked = looked.f_back
    found = best or frame
    if found is None:
        return ""
    return f"{os.path.realpath(found.f_code.co_filename)}:{found.f_lineno} in {found.f_code.co_name}"
