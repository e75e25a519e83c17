"""Waiting for what happens in runs: one question to the journal for all who do, and nobody misses anything."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from airside.actors.journal.store import JournalStore
from airside.actors.rpc.methods import FeedPage, FeedRequest
from airside.actors.run_news import RunNews
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId
from airside.stack.journal.feed import JournalEntry
from tests.journals import KEY, note
from tests.unit.actors.journal.test_journal_feed import feed_of

ONE, OTHER = RunId("run_" + "a" * 24), RunId("run_" + "b" * 24)


def entry(number: int, stream: str) -> JournalEntry:
    """Return an entry of a run."""
    zeros = dict.fromkeys(("seq", "epoch", "step", "cause", "at_us"), 0)
    return JournalEntry(
        cursor=str(number), tenant="acme", number=number, stream=stream, type="RunActivated", body="{}", **zeros
    )


class Journal:
    """A feed to which a test appends; it notes what it is asked."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self.asked: list[FeedRequest] = []
        self.appended = asyncio.Event()
        self.problem: Exception | FeedPage | None = None

    def append(self, stream: str) -> None:
        """Append an entry of a run."""
        self.entries.append(entry(len(self.entries), stream))
        self.appended.set()

    async def follow(self, asked: FeedRequest) -> FeedPage:
        """Answer."""
        self.asked.append(asked)
        after = len(self.entries) if asked.after == "now" else int(asked.after)
        while asked.timeout_s and len(self.entries) <= after and self.problem is None:
            self.appended.clear()
            await self.appended.wait()
        if isinstance(self.problem, Exception):
            raise self.problem
        return self.problem or FeedPage(tuple(self.entries[after:]), str(len(self.entries)))


async def test_who_waits_for_a_run_hears_of_it_alone() -> None:
    """From when he began to, however many wait; and nobody is asked when nobody does."""
    journal = Journal()
    news = RunNews(journal.follow)
    journal.append(ONE)
    async with news.of(ONE) as first, news.of(ONE) as second, news.of(OTHER) as others:
        assert not journal.asked[0].timeout_s and len(journal.asked) <= 2
        journal.append(ONE)
        await asyncio.gather(first.wait(), second.wait())
        assert not others.is_set()
        journal.append(OTHER)
        await others.wait()
    journal.append(ONE)
    for _ in range(5):
        await asyncio.sleep(0)
    asked = len(journal.asked)
    journal.append(ONE)
    await asyncio.sleep(0)
    assert len(journal.asked) == asked
    async with news.of(ONE) as again:
        journal.append(ONE)
        await again.wait()


@pytest.mark.parametrize("problem", [LayerUnavailable("away"), FeedPage(code="invalid", problem="no such cursor")])
async def test_who_waits_looks_for_himself_where_the_journal_fails(problem: Exception | FeedPage) -> None:
    """And the next one begins anew."""
    journal = Journal()
    news = RunNews(journal.follow)
    async with news.of(ONE) as waiting:
        journal.problem = problem
        journal.appended.set()
        await waiting.wait()
    journal.problem = None
    async with news.of(ONE) as waiting:
        journal.append(ONE)
        await waiting.wait()


async def test_it_follows_a_journal_as_it_is_written(tmp_path: Path) -> None:
    """From the end of what is there, by the journal's own feed, of whichever tenant."""
    with closing(JournalStore(tmp_path, KEY)) as store:
        feed = feed_of(store)
        store.commit([note(ONE, 0, 3, "acme")])
        news = RunNews(feed.page)
        async with news.of(ONE) as one, news.of(OTHER) as other:
            for run, tenant, first, waiting in ((ONE, "acme", 3, one), (OTHER, "beta", 0, other)):
                appended = [note(run, first, 1, tenant)]
                store.commit(appended)
                feed.note(appended)
                await asyncio.wait_for(waiting.wait(), 5.0)
                assert one.is_set() and (run == OTHER or not other.is_set())
