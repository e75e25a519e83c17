"""The feed of a journal that is being written: whoever asks for what follows a cursor waits here until there is some.

Nothing is kept for anybody between two questions, and an append wakes only those who wait for its tenant: where nobody
does it costs a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from airside.actors.journal.log_port import Row
from airside.actors.journal.store import JournalStore
from airside.actors.rpc.methods import FeedPage, FeedRequest
from airside.stack.errors import Misuse
from airside.stack.journal.feed import ALL, PAGE_ENTRIES, FeedCursor, JournalEntry, entries_before, feed_of
from airside.stack.journal.journaling import Append

GATHER_S = 0.05
"""How long entries gather before a page that is not full is read: at most so often one reader costs a reading."""

LONGEST_WAIT_S = 30.0
"""What a question waits at most: one whose caller died is not there for ever."""

_COLUMNS = ("tenant", "number", "stream", "seq", "epoch", "step", "cause", "at_us", "type", "body")
"""Of an entry as the log has it, after its position."""

Read = Callable[[str, int], Awaitable[Sequence[Row]]]
"""Reads entries of a feed after so many, a bounded number."""


class Feed:
    """Used on one event loop."""

    def __init__(self, store: JournalStore, read: Read, *, gather_s: float = GATHER_S) -> None:
        self._store = store
        self._read = read
        self._gather_s = gather_s
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def note(self, appends: Sequence[Append]) -> None:
        """Wake those who wait for entries of what was appended."""
        if self._waiting:
            for feed in {ALL, *(append.tenant for append in appends)}:
                for news in self._waiting.get(feed, ()):
                    news.set()

    @property
    def waiting(self) -> int:
        """How many questions wait."""
        return sum(map(len, self._waiting.values()))

    async def page(self, asked: FeedRequest) -> FeedPage:
        """Return the next entries as soon as there are some, none once the wait is over.

        Raises `LayerUnavailable` if what is there cannot be read now.
        """
        journal = self._store.journal
        try:
            feed = feed_of(asked.tenant)
            after = entries_before(asked.after, journal, feed, self._store.count_of(feed))
        except Misuse as error:
            return FeedPage(code="invalid", problem=error.message)
        is_there = await self._has_more(feed, after, min(max(0.0, asked.timeout_s), LONGEST_WAIT_S))
        rows = await self._read(feed, after) if is_there else ()
        entries = [
            JournalEntry(
                cursor=str(FeedCursor(journal=journal, feed=feed, count=count)),
                **dict(zip(_COLUMNS, row[1:], strict=False)),
            )
            for count, row in enumerate(rows, after + 1)
        ]
        end = FeedCursor(journal=journal, feed=feed, count=after + len(entries))
        return FeedPage(tuple(entries), str(end))

    async def _has_more(self, feed: str, after: int, wait_s: float) -> bool:
        """Return whether a feed has more entries, once it has or the wait is over."""
        news = asyncio.Event()
        self._waiting.setdefault(feed, set()).add(news)
        try:
            async with asyncio.timeout(wait_s):
                while self._store.count_of(feed) <= after:
                    await news.wait()
                    news.clear()
        except TimeoutError:
            return False
        finally:
            self._waiting[feed].discard(news)
            if not self._waiting[feed]:
                del self._waiting[feed]
        if wait_s and self._store.count_of(feed) < after + PAGE_ENTRIES:
            await asyncio.sleep(self._gather_s)
        return True
