"""`RunNews`: that something has happened in a run, for whoever waits for it; the journal's feed is followed meanwhile.

However many wait, and for however many runs, one question to the journal waits for all of them.  It is not asked while
nobody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from airside.actors.rpc.methods import FeedPage, FeedRequest
from airside.stack.errors import AirsideError
from airside.stack.ids import RunId

FOLLOW_S = 5.0
"""Longest wait of one question to the journal."""

Follow = Callable[[FeedRequest], Awaitable[FeedPage]]


class RunNews:
    """Used on one event loop; `follow` asks for entries of all tenants."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._telling: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()

    @asynccontextmanager
    async def of(self, run_id: RunId) -> AsyncIterator[asyncio.Event]:
        """Give what is set once something happens in a run after this, or may have.

        Raises `LayerUnavailable` if the journal does not answer.
        """
        news = asyncio.Event()
        self._waiting.setdefault(run_id, set()).add(news)
        try:
            async with self._beginning:
                if self._telling is None or self._telling.done():
                    cursor = (await self._follow(FeedRequest("now", 0.0))).cursor
                    self._telling = asyncio.ensure_future(self._tell(cursor))
            yield news
        finally:
            self._waiting[run_id].discard(news)
            if not self._waiting[run_id]:
                del self._waiting[run_id]

    async def _tell(self, cursor: str) -> None:
        """Tell of what follows a cursor while somebody waits; where that fails, everybody is to look for himself."""
        try:
            while self._waiting:
                page = await self._follow(FeedRequest(cursor, FOLLOW_S))
                if page.code:
                    break
                cursor = page.cursor
                for stream in {entry.stream for entry in page.entries}:
                    _wake(self._waiting.get(stream, ()))
        except (AirsideError, TimeoutError):
            pass
        finally:
            for waiting in self._waiting.values():
                _wake(waiting)


def _wake(waiting: Iterable[asyncio.Event]) -> None:
    for news in waiting:
        news.set()
