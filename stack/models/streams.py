"""`AnswerStreams`: what models say while they say it, kept for a moment for who watches a run.

Nothing is kept of a run that nobody has asked for lately, and of one that somebody watches no more than a bounded
buffer: who is slow misses the oldest, and is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from airside.stack.contracts.streams import PartKind, StreamPart, WatchPage, WatchRequest
from airside.stack.ids import RunId, root_of

MAX_WATCHED = 1_000
"""Runs that are watched at a time; beyond it one goes that nobody waits for at the moment."""

MAX_CHARS = 256 * 1024
MAX_PARTS = 4_096
"""What is kept of one run: some minutes of a fast model."""

KEPT_S = 30.0
"""How long a run counts as watched after the last question: several times what a watcher waits."""

LONGEST_WAIT_S = 10.0
GATHER_S = 0.05
"""How long text gathers before a page is answered: models write word by word."""


class _Watch:
    """One run that is watched."""

    def __init__(self) -> None:
        self.parts: deque[StreamPart] = deque()
        self.size = 0
        self.upto = 0
        self.until_s = 0.0
        self.waiting = 0
        self.news = asyncio.Event()

    def add(self, kind: PartKind, run_id: RunId, step: int, text: str, model: str) -> None:
        self.upto += 1
        self.parts.append(StreamPart(number=self.upto, kind=kind, run_id=run_id, step=step, text=text, model=model))
        self.size += len(text)
        while len(self.parts) > 1 and (self.size > MAX_CHARS or len(self.parts) > MAX_PARTS):
            self.size -= len(self.parts.popleft().text)
        self.news.set()

    def after(self, number: int) -> tuple[StreamPart, ...]:
        """Return the parts after a number, text that follows text of the same answer as one."""
        found: list[StreamPart] = []
        for part in self.parts:
            if part.number <= number:
                continue
            last = found[-1] if found else None
            if last and (last.kind, last.run_id, last.step) == (part.kind, part.run_id, part.step) and last.text:
                found[-1] = msgspec.structs.replace(part, text=last.text + part.text)
            else:
                found.append(part)
        return tuple(found)

    def is_torn(self, number: int) -> bool:
        """Whether parts after a number are gone."""
        return number < self.upto and (not self.parts or self.parts[0].number > number + 1)


class AnswerStreams:
    """The watches of one model caller; `born` tells it from the one before it."""

    def __init__(
        self, *, born: str, now_s: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._born = born
        self._now_s = now_s
        self._sleep = sleep
        self._watched: dict[RunId, _Watch] = {}

    def is_watched(self, run_id: RunId) -> bool:
        """Whether somebody has asked lately for what a run's models say."""
        watch = self._watched.get(root_of(run_id)) if self._watched else None
        return watch is not None and watch.until_s > self._now_s()

    def publish(self, kind: PartKind, run_id: RunId, step: int, text: str = "", model: str = "") -> None:
        """Keep something for who watches a run, if anybody does."""
        if self.is_watched(run_id):
            self._watched[root_of(run_id)].add(kind, run_id, step, text, model)

    async def page(self, asked: WatchRequest) -> WatchPage:
        """Return what follows as soon as there is something, nothing once the wait is over."""
        root, now = root_of(asked.run_id), self._now_s()
        watch = self._watched.get(root)
        if watch is None:
            self._forget(now)
            if len(self._watched) >= MAX_WATCHED and not self._evict():
                return WatchPage(code="too_many", problem=f"{MAX_WATCHED} runs are watched already")
            watch = self._watched[root] = _Watch()
        wait_s = min(max(0.0, asked.timeout_s), LONGEST_WAIT_S)
        watch.until_s = max(watch.until_s, now + wait_s + KEPT_S)
        # Numbers that were not given out are of a watch that is gone.
        is_other = asked.born not in ("", self._born) or (asked.born != "" and asked.after > watch.upto)
        after = 0 if is_other else asked.after if asked.born else watch.upto
        if not is_other and after >= watch.upto and wait_s > 0:
            await self._news(watch, wait_s)
        is_torn = is_other or watch.is_torn(after)
        return WatchPage(parts=watch.after(after), upto=watch.upto, born=self._born, is_torn=is_torn)

    async def _news(self, watch: _Watch, wait_s: float) -> None:
        watch.news.clear()
        watch.waiting += 1
        try:
            await self._waited(watch, wait_s)
        finally:
            watch.waiting -= 1

    async def _waited(self, watch: _Watch, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await watch.news.wait()
                await self._sleep(GATHER_S)

    def _evict(self) -> bool:
        """Forget the run nobody waits for that was asked for longest ago; whoever asks again is told of the gap.

        How many wait at a time is bounded for each tenant, so none can take all places from the others.
        """
        idle = [(watch.until_s, run_id) for run_id, watch in self._watched.items() if not watch.waiting]
        if not idle:
            return False
        del self._watched[min(idle)[1]]
        return True

    def _forget(self, now_s: float) -> None:
        for run_id in [run_id for run_id, watch in self._watched.items() if watch.until_s <= now_s]:
            del self._watched[run_id]
