"""Which streams were appended to of late, for who wants to know no more than that: kept in memory, while somebody asks.

The feed gives entries, which are read and sent: whoever only wants to know that something happened would have a busy
journal do both for each of them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence

from airside.actors.rpc.methods import RecentPage, RecentRequest
from airside.stack.journal.journaling import Append

KEPT_S = 60.0
"""How long after the last question commits are kept for the next one."""

MAX_COMMITS = 4_096
"""Of those that are kept: a question that comes too late for what it follows is told so."""

LONGEST_WAIT_S = 30.0
"""What a question waits at most: one whose caller died is not there for ever."""

GATHER_S = 0.05
"""How long commits gather once there is one: at most so often somebody is answered."""


class RecentAppends:
    """Used on one event loop."""

    def __init__(self, *, gather_s: float = GATHER_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._gather_s = gather_s
        self._clock = clock
        self._born = secrets.token_hex(8)
        self._number = self._forgotten = 0
        self._asked_s = -KEPT_S
        self._commits: deque[tuple[int, set[tuple[str, str]]]] = deque()
        self._waiting: set[asyncio.Event] = set()

    def note(self, appends: Sequence[Append]) -> None:
        """Take in a commit; wake those who wait for one."""
        self._number += 1
        if self._clock() - self._asked_s >= KEPT_S:
            self._commits.clear()
            self._forgotten = self._number
            return
        self._commits.append((self._number, {(append.tenant, append.stream) for append in appends}))
        if len(self._commits) > MAX_COMMITS:
            self._forgotten, _ = self._commits.popleft()
        for news in self._waiting:
            news.set()

    async def page(self, asked: RecentRequest) -> RecentPage:
        """Return the streams of the commits after one, as soon as there is one."""
        self._asked_s = self._clock()
        if not asked.born:
            return RecentPage(born=self._born, upto=self._number)
        if asked.born == self._born and asked.after == self._number:
            await self._arrived(min(max(0.0, asked.timeout_s), LONGEST_WAIT_S))
        if asked.born != self._born or not self._forgotten <= asked.after <= self._number:
            return RecentPage(born=self._born, upto=self._number, is_torn=True)
        found: set[tuple[str, str]] = set()
        for number, streams in reversed(self._commits):
            if number <= asked.after:
                break
            found |= streams
        return RecentPage(streams=tuple(found), born=self._born, upto=self._number)

    async def _arrived(self, wait_s: float) -> None:
        """Wait for a commit, and let others gather."""
        news = asyncio.Event()
        self._waiting.add(news)
        try:
            async with asyncio.timeout(wait_s):
                await news.wait()
        except TimeoutError:
            return
        finally:
            self._waiting.discard(news)
        await asyncio.sleep(self._gather_s)
