"""Tool loops: the event loops tools' coroutines run on, so that one which blocks holds nobody but its own tenant.

The executor's own loop runs no tool's code.  Each tenant's coroutines have a loop in a thread, made at first use.  A
call's deadline is kept on the executor's loop: at its end the coroutine is cancelled on its own.

A watch has every loop that is at work show that it turns.  One that does not is *held*: whoever holds it is named with
the line, what has not begun there moves to another loop, and so do later calls.  Once the time of the call that holds
it is over, it is *lost*: the states on it are, too.  A held loop that turns again serves the states it has; a lost one
ends.  So a call that blocks and returns in its time costs its neighbours a second, and one that does not return costs
a thread, of which a tenant's calls may hold a few.  Once all tenants' hold as many as there may be, the executor is to
be replaced (`tools/runners/replacement.py`): no coroutine can begin in it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import zlib
from typing import Any

from airside.stack.ids import TenantId
from airside.tools.runners.jobs import ToolJob
from airside.tools.runners.outcomes import LoopBlocked, LoopBlockedByAnother, NotStarted
from airside.tools.runners.tool_loop import Exchange, ToolLoop, Work

logger = logging.getLogger("airside")

MAX_LOOPS = 64
"""Threads are not for nothing; tenants beyond share a loop with others, always the same."""

MAX_HELD = 4
"""Loops a tenant's calls may hold at once; then its coroutines are refused, so that threads do not pile up."""

IDLE_S = 300.0
KEPT_IDLE = 8
"""After so long without a call a loop is ended, but for so many used last: clients that an app keeps live on them."""

WATCH_S = 0.25
HELD_LOOKS = 4
GRACE_LOOKS = 2
STOP_LOOKS = 20
"""How often the loops are looked at, and after how many looks one that did not turn is held; one whose call is to stop
after fewer.  A coroutine that was told to stop may take as many as the last to clean up; then the call is over
whatever it does.  Looks and not seconds, so that a process that stood still as a whole finds nobody guilty."""


class ToolLoops:
    """Runs coroutines, each tenant's on a loop of its own; is used on the executor's loop.

    `kind` says of what they are, in their threads' names.
    """

    level = None
    on_timeout = ""

    def __init__(self, kind: str = "tools") -> None:
        self._kind = kind
        self._present: dict[TenantId, ToolLoop] = {}
        self._all: list[ToolLoop] = []
        self._made = 0
        self._exchange: Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looks_often = False

    async def ready(self) -> None:
        """Do nothing: a loop is made with the call that needs one."""

    async def run(self, job: ToolJob) -> Any:
        """Return what a job comes to; when the caller is cancelled, end it, and say so if its loop is held.

        A place that has a loop is where it runs; one that has none is bound to the loop where it does.  Raises what the
        job does, and `LoopBlocked`, `LoopBlockedByAnother` and `NotStarted`.
        """
        place = job.place
        bound = place is not None and place.loop is not None
        try:
            loop = place.loop if place is not None and place.loop is not None else self._of(job.tenant)
        except NotStarted:
            job.over()
            raise
        answer = asyncio.get_running_loop().create_future()
        work = Work(job=job, answer=answer, context=contextvars.copy_context(), bound=bound)
        if place is not None and not bound:
            place.bind(loop)
        loop.start(work)
        self._look_soon()
        try:
            await work.answer
        except asyncio.CancelledError:
            await self._stopped(work)
        error, work.error = work.error, None
        if error is None:
            return work.value
        try:
            raise error
        finally:
            del error  # its traceback leads here: it would hold itself

    def _of(self, tenant: TenantId) -> ToolLoop:
        """Return the loop of a tenant's next coroutine."""
        present = self._present.get(tenant)
        if present is not None:
            return present
        held = [loop for loop in self._all if loop.is_held]
        its_own = sum(loop.held_by == tenant for loop in held)
        if its_own >= MAX_HELD:
            raise NotStarted(f"{its_own} event loops are held by calls of {tenant}: it gets another when one returns")
        if len(held) >= MAX_LOOPS:
            raise NotStarted(f"{len(held)} event loops are held by calls: {tenant} gets one when one returns")
        free = [loop for loop in self._all if not loop.is_held]
        if len(free) < MAX_LOOPS:
            self._made += 1
            self._exchange = self._exchange or Exchange(asyncio.get_running_loop())
            made = ToolLoop(f"{self._kind}-{tenant}-{self._made}", tenant, self._exchange)
            self._all.append(made)
        else:
            made = free[zlib.crc32(tenant.encode()) % len(free)]
        self._present[tenant] = made
        return made

    # The end of a call's time.

    async def _stopped(self, work: Work) -> None:
        """Return once a job that is to stop has ended; raise why it does not, or its cancellation."""
        work.stopping = True
        if work.is_over:
            return
        loop = work.loop
        assert loop is not None
        if work.take():
            loop.drop(work)
            work.complete()
            by = loop.holder() if loop.missed else (None, "")
            raise NotStarted(f"{work.job.name} did not begin in its time{_holder_clause(*by)}")
        loop.stop(work)
        work.answer = asyncio.get_running_loop().create_future()
        looks = 0 if loop.missed >= GRACE_LOOKS else STOP_LOOKS
        for look in range(1, looks + 1):
            await asyncio.wait({work.answer}, timeout=WATCH_S)
            if work.is_over:
                return
            if look >= GRACE_LOOKS and not work.acknowledged:
                break
        if work.acknowledged:
            raise asyncio.CancelledError  # it turns, and the coroutine does not heed its cancellation
        self._attribute_stop(loop, work)

    def _attribute_stop(self, loop: ToolLoop, work: Work) -> None:
        """Raise who holds the loop of a job that is to stop."""
        holder, where = loop.holder()
        if not where:
            raise asyncio.CancelledError  # it waits for nothing but its turn: the machine is slow
        if holder is None or holder.stopping or holder.is_over:
            self._lose(loop, work.job.tenant if holder is None else holder.job.tenant, _holder_clause(holder, where))
        if holder is work:
            raise LoopBlocked(f"{work.job.name} held its event loop at {where}: {work.job.advice}")
        raise LoopBlockedByAnother(f"{work.job.name} did not answer in its time{_holder_clause(holder, where)}")

    def _skip(self, loop: ToolLoop, tenant: TenantId) -> None:
        """Give a loop that is held no more calls, and what has not begun there to another."""
        if not loop.is_held:
            loop.is_held, loop.held_by = True, tenant
        self._present = {name: present for name, present in self._present.items() if present is not loop}
        for work in list(loop.works):
            if not work.bound and work.take():
                loop.drop(work)
                self._move(work)

    def _move(self, work: Work) -> None:
        try:
            other = self._of(work.job.tenant)
        except NotStarted as error:
            work.complete(error)
            return
        if work.job.place is not None:
            work.job.place.bind(other)
        other.start(work.again())

    def _lose(self, loop: ToolLoop, tenant: TenantId, because: str) -> None:
        """Give up a loop whose holder's time is over; what has not begun there has nothing to begin with."""
        if loop.is_lost:
            return
        self._skip(loop, tenant)
        loop.is_lost = True
        for work in list(loop.works):
            if work.take():
                loop.drop(work)
                work.complete(NotStarted(f"{work.job.name} did not begin{because}"))

    # Watching.

    def _look_soon(self) -> None:
        if not self._looks_often:
            if self._timer is not None:
                self._timer.cancel()
            self._looks_often = True
            self._timer = asyncio.get_running_loop().call_later(WATCH_S, self._look)

    def _look(self) -> None:
        """Look at every loop, and look again soon if one is at work."""
        home = asyncio.get_running_loop()
        for loop in list(self._all):
            self._look_at(loop)
        self._reap(home.time())
        self._looks_often = any(loop.works or loop.is_held for loop in self._all)
        self._timer = None
        if self._all:
            self._timer = home.call_later(WATCH_S if self._looks_often else IDLE_S, self._look)

    def _look_at(self, loop: ToolLoop) -> None:
        if loop.is_asked:
            loop.missed += 1
            if loop.missed >= HELD_LOOKS and not loop.is_held:
                self._found_held(loop)
            return
        loop.missed = 0
        loop.is_held = False
        if loop.works:
            loop.ask()

    def _found_held(self, loop: ToolLoop) -> None:
        holder, where = loop.holder()
        if not where:
            return
        logger.warning("%s holds its event loop at %s", _who(holder), where, extra={"action": "tool_loop_held"})
        self._skip(loop, loop.tenant if holder is None else holder.job.tenant)

    def _reap(self, now_s: float) -> None:
        """End the loops that nobody needs any more."""
        idle = [loop for loop in self._all if not (loop.works or loop.states or loop.is_held)]
        used = set(self._present.values())
        last = sorted((loop for loop in idle if loop in used), key=lambda loop: -loop.idle_since_s)
        kept = last[:KEPT_IDLE]
        for loop in idle:
            if loop not in used or (loop not in kept and now_s - loop.idle_since_s >= IDLE_S):
                self._forget(loop)

    def _forget(self, loop: ToolLoop) -> None:
        loop.end()
        self._all.remove(loop)
        self._present = {name: present for name, present in self._present.items() if present is not loop}

    def close(self) -> None:
        """Let every loop end as soon as it turns."""
        if self._timer is not None:
            self._timer.cancel()
        for loop in list(self._all):
            self._forget(loop)

    @property
    def are_exhausted(self) -> bool:
        """Whether calls hold so many loops that nobody gets another."""
        return sum(loop.is_held for loop in self._all) >= MAX_LOOPS

    def stats(self) -> dict[str, int]:
        """Return how many loops there are, and how many of them are held."""
        return {"loops": len(self._all), "held_loops": sum(loop.is_held for loop in self._all)}


def _holder_clause(holder: Work | None, where: str) -> str:
    """Return who holds a loop, as the end of a sentence; "" if nobody does."""
    if not where:
        return ""
    return f": its event loop was held by {_who(holder)}, at {where}"


def _who(holder: Work | None) -> str:
    return "what is no call" if holder is None else f"{holder.job.name} of {holder.job.run_id}"
