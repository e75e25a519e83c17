"""Waiting for what happens: one question to the journal for all who do, and nobody misses anything."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from airside.actors.feed_news import FeedNews, Topic
from airside.actors.journal.store import JournalStore
from airside.actors.rpc.methods import FeedPage, FeedRequest
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId
from airside.stack.journal.feed import JournalEntry
from tests.journals import KEY, note
from tests.unit.actors.journal.test_journal_feed import feed_of

ONE, OTHER = RunId("run_" + "a" * 24), RunId("run_" + "b" * 24)
RUN, OTHERS = Topic(run_id=ONE), Topic(run_id=OTHER)


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
    news = FeedNews(journal.follow, linger_s=0.0)
    journal.append(ONE)
    async with news.of(RUN) as first, news.of(RUN) as second, news.of(OTHERS) as others:
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
    async with news.of(RUN) as again:
        journal.append(ONE)
        await again.wait()


@pytest.mark.parametrize("problem", [LayerUnavailable("away"), FeedPage(code="invalid", problem="no such cursor")])
async def test_who_waits_looks_for_himself_where_the_journal_fails(problem: Exception | FeedPage) -> None:
    """And the next one begins anew."""
    journal = Journal()
    news = FeedNews(journal.follow)
    async with news.of(RUN) as waiting:
        journal.problem = problem
        journal.appended.set()
        await waiting.wait()
    journal.problem = None
    async with news.of(RUN) as waiting:
        journal.append(ONE)
        await waiting.wait()


HERE, ELSEWHERE, ANYWHERE = Topic(tenant="acme"), Topic(tenant="beta"), Topic()


async def test_a_mark_says_whether_anything_happened_since() -> None:
    """In a tenant, in a run or anywhere, also between two questions; and nothing that did not."""
    journal = Journal()
    news = FeedNews(journal.follow)
    began = {topic: await news.after(topic, 0, 0.0) for topic in (HERE, ELSEWHERE, ANYWHERE, RUN, OTHERS)}
    assert 0 not in began.values()
    assert {topic: await news.after(topic, mark, 0.0) for topic, mark in began.items()} == began
    heard = asyncio.ensure_future(news.after(HERE, began[HERE], 5.0))
    await asyncio.sleep(0)
    journal.append(ONE)
    assert await heard != began[HERE]
    now = {topic: await news.after(topic, mark, 0.0) for topic, mark in began.items()}
    assert {topic for topic in now if now[topic] != began[topic]} == {HERE, ANYWHERE, RUN}
    assert {topic: await news.after(topic, mark, 0.0) for topic, mark in now.items()} == now
    assert all(not asked.with_bodies for asked in journal.asked if asked.timeout_s)


async def test_what_nobody_followed_may_have_happened() -> None:
    """A mark of before the feed was lost, or of another process, is none any more."""
    journal = Journal()
    news = FeedNews(journal.follow)
    before = await news.after(HERE, 0, 0.0)
    heard = asyncio.ensure_future(news.after(HERE, before, 5.0))
    await asyncio.sleep(0)
    journal.problem = LayerUnavailable("away")
    journal.appended.set()
    first = await heard
    assert first != before
    journal.problem = None
    again = await news.after(HERE, first, 5.0)
    assert again not in (first, before)
    assert await FeedNews(journal.follow).after(HERE, again, 5.0) != again


async def test_no_more_marks_are_kept_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not kept any more is another the next time."""
    monkeypatch.setattr("airside.actors.feed_news._MAX_MARKS", 2)
    news = FeedNews(Journal().follow)
    first = await news.after(HERE, 0, 0.0)
    for topic in (ELSEWHERE, RUN):
        await news.after(topic, 0, 0.0)
    assert len(news._marks) == 2 and await news.after(HERE, first, 5.0) != first


async def test_it_follows_a_journal_as_it_is_written(tmp_path: Path) -> None:
    """From the end of what is there, by the journal's own feed, of whichever tenant."""
    with closing(JournalStore(tmp_path, KEY)) as store:
        feed = feed_of(store)
        store.commit([note(ONE, 0, 3, "acme")])
        news = FeedNews(feed.page)
        async with news.of(RUN) as one, news.of(OTHERS) as other:
            for run, tenant, first, waiting in ((ONE, "acme", 3, one), (OTHER, "beta", 0, other)):
                appended = [note(run, first, 1, tenant)]
                store.commit(appended)
                feed.note(appended)
                await asyncio.wait_for(waiting.wait(), 5.0)
                assert one.is_set() and (run == OTHER or not other.is_set())
