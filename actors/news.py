"""`News`: that something has happened, for whoever waits for it; the journal is followed meanwhile.

However many wait, and for however many runs and tenants, one question to the journal waits for all of them.  It is not
asked for long once nobody does.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from airside.actors.rpc.methods import RecentPage, RecentRequest
from airside.stack.errors import AirsideError

FOLLOW_S = 5.0
"""Longest wait of one question to the journal."""

LINGER_S = 30.0
"""How long the journal is followed after the last one waited: who comes again by then has missed nothing."""

_MAX_MARKS = 10_000

Follow = Callable[[RecentRequest], Awaitable[RecentPage]]


class Topic(NamedTuple):
    """What somebody waits for: what happens in a run, in a tenant, or, by neither, anything."""

    run_id: str = ""
    tenant: str = ""


class News:
    """Used on one event loop; `follow` asks what streams were appended to."""

    def __init__(self, follow: Follow, *, linger_s: float = LINGER_S) -> None:
        self._follow = follow
        self._linger_s = linger_s
        self._waiting: dict[Topic, set[asyncio.Event]] = {}
        self._waited_s = 0.0
        self._telling: asyncio.Task[None] | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._marks: OrderedDict[Topic, int] = OrderedDict()

    @asynccontextmanager
    async def of(self, topic: Topic) -> AsyncIterator[asyncio.Event]:
        """Give what is set once something of a topic happens after this, or may have.

        Raises `LayerUnavailable` if the journal does not answer.
        """
        news = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(news)
        try:
            if self._telling is None or self._telling.done():
                if self._beginning is None:
                    self._beginning = asyncio.ensure_future(self._begin())
                    self._beginning.add_done_callback(self._begun)
                await asyncio.shield(self._beginning)
            yield news
        finally:
            self._waited_s = time.monotonic()
            self._waiting[topic].discard(news)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def after(self, topic: Topic, mark: int, wait_s: float) -> int:
        """Return another mark than one that was returned before once something has happened since, or may have.

        Nothing has, if it is the same after so many seconds.  Raises `LayerUnavailable` as `of` does.
        """
        async with self.of(topic) as news:
            if self._mark(topic) == mark:
                try:
                    await asyncio.wait_for(news.wait(), wait_s)
                except TimeoutError:
                    return mark
                if self._mark(topic) == mark:  # the journal could not be followed
                    self._marks[topic] = _new_mark()
            return self._mark(topic)

    def _mark(self, topic: Topic) -> int:
        if topic not in self._marks:
            self._marks[topic] = _new_mark()
            if len(self._marks) > _MAX_MARKS:
                self._marks.popitem(last=False)
        self._marks.move_to_end(topic)
        return self._marks[topic]

    async def _begin(self) -> None:
        """Follow the journal from now on, once for all who wait for that: while it is away they do not queue."""
        latest = await self._follow(RecentRequest("", 0, 0.0))
        self._marks.clear()  # of what happened while nobody followed nothing is known
        self._telling = asyncio.ensure_future(self._tell(latest))

    def _begun(self, beginning: asyncio.Task[None]) -> None:
        self._beginning = None
        if not beginning.cancelled():
            beginning.exception()  # whoever waited for it may have gone

    async def _tell(self, page: RecentPage) -> None:
        """Tell of what follows a commit while somebody waits; where that fails, everybody is to look for himself."""
        try:
            while self._waiting or time.monotonic() - self._waited_s < self._linger_s:
                page = await self._follow(RecentRequest(page.born, page.upto, FOLLOW_S))
                if page.is_torn:
                    break
                for topic in {topic for tenant, stream in page.streams for topic in _topics(stream, tenant)}:
                    if topic in self._marks:
                        self._marks[topic] = _new_mark()
                    _wake(self._waiting.get(topic, ()))
        except (AirsideError, TimeoutError):
            pass
        finally:
            for waiting in self._waiting.values():
                _wake(waiting)


def _new_mark() -> int:
    """Return a mark that says nothing else: by numbers in a row one would learn how much happens in others' topics."""
    return 1 + secrets.randbits(62)


def _topics(stream: str, tenant: str) -> tuple[Topic, ...]:
    return Topic(run_id=stream), Topic(tenant=tenant), Topic()


def _wake(waiting: Iterable[asyncio.Event]) -> None:
    for news in waiting:
        news.set()
