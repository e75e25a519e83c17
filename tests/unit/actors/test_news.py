"""Waiting for what happens: one question to the journal for all who do, and nobody misses anything."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from airside.actors.journal.recent import RecentAppends
from airside.actors.news import News, Topic
from airside.actors.rpc.methods import RecentPage, RecentRequest
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId
from tests.journals import note

ONE, OTHER = RunId("run_" + "a" * 24), RunId("run_" + "b" * 24)
RUN, OTHERS = Topic(run_id=ONE), Topic(run_id=OTHER)


class Journal:
    """A journal to which a test appends; it notes what it is asked."""

    def __init__(self) -> None:
        self.recent = RecentAppends(gather_s=0)
        self.asked: list[RecentRequest] = []
        self.problem: Exception | None = None

    def append(self, stream: str, tenant: str = "acme") -> None:
        """Append an entry."""
        self.recent.note([note(stream, 0, 1, tenant)])

    async def follow(self, asked: RecentRequest) -> RecentPage:
        """Answer."""
        self.asked.append(asked)
        page = await self.recent.page(asked)
        if self.problem is not None and asked.born:
            raise self.problem
        return page


async def test_who_waits_for_a_run_hears_of_it_alone() -> None:
    """From when he began to, however many wait; and nobody is asked when nobody does."""
    journal = Journal()
    news = News(journal.follow, linger_s=0.0)
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


@pytest.mark.parametrize("problem", [LayerUnavailable("away"), TimeoutError()])
async def test_who_waits_looks_for_himself_where_the_journal_fails(problem: Exception) -> None:
    """And the next one begins anew."""
    journal = Journal()
    news = News(journal.follow)
    async with news.of(RUN) as waiting:
        journal.problem = problem
        journal.append(OTHER)
        await waiting.wait()
    journal.problem = None
    async with news.of(RUN) as waiting:
        journal.append(ONE)
        await waiting.wait()


HERE, ELSEWHERE, ANYWHERE = Topic(tenant="acme"), Topic(tenant="beta"), Topic()


async def test_a_mark_says_whether_anything_happened_since() -> None:
    """In a tenant, in a run or anywhere, also between two questions; and nothing that did not."""
    journal = Journal()
    news = News(journal.follow)
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


async def test_what_nobody_followed_may_have_happened() -> None:
    """A mark of before the journal was lost, or of another process, is none any more."""
    journal = Journal()
    news = News(journal.follow)
    before = await news.after(HERE, 0, 0.0)
    heard = asyncio.ensure_future(news.after(HERE, before, 5.0))
    await asyncio.sleep(0)
    journal.problem = LayerUnavailable("away")
    journal.append(OTHER, "beta")
    first = await heard
    assert first != before
    journal.problem = None
    again = await news.after(HERE, first, 5.0)
    assert again not in (first, before)
    assert await News(journal.follow).after(HERE, again, 5.0) != again


async def test_no_more_marks_are_kept_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not kept any more is another the next time."""
    monkeypatch.setattr("airside.actors.news._MAX_MARKS", 2)
    news = News(Journal().follow)
    first = await news.after(HERE, 0, 0.0)
    for topic in (ELSEWHERE, RUN):
        await news.after(topic, 0, 0.0)
    assert len(news._marks) == 2 and await news.after(HERE, first, 5.0) != first


async def test_a_journal_that_forgot_some_may_have_been_told_of_anything() -> None:
    """Everybody looks."""
    journal = Journal()
    news = News(journal.follow)
    began = await news.after(OTHERS, 0, 0.0)
    before, journal.recent = journal.recent, RecentAppends(gather_s=0)
    heard = asyncio.ensure_future(news.after(OTHERS, began, 5.0))
    before.note([note(ONE, 0, 1, "acme")])  # who follows asks again after it, and that is another journal
    assert await heard != began


async def test_a_mark_says_nothing_of_what_happens_to_others() -> None:
    """Two of a run's are as far from each other whether much happens elsewhere meanwhile, or nothing."""
    journal = Journal()
    news = News(journal.follow)
    marks = [await news.after(RUN, 0, 0.0)]
    for others in (0, 50):
        for number in range(others):
            await news.after(Topic(tenant=f"tenant-{number}"), 0, 0.0)
        heard = asyncio.ensure_future(news.after(RUN, marks[-1], 5.0))
        await asyncio.sleep(0)
        journal.append(ONE)
        marks.append(await heard)
    assert min(abs(later - earlier) for earlier, later in itertools.pairwise(marks)) > 1_000_000


async def test_all_who_come_while_the_journal_is_away_are_told_so_at_once() -> None:
    """They share one question, and one's leaving is not the others'; nobody waits until others have waited."""
    journal, away = Journal(), asyncio.Event()
    asked = 0

    async def follow(_: RecentRequest) -> RecentPage:
        nonlocal asked
        asked += 1
        await away.wait()
        raise LayerUnavailable("away")

    news = News(follow)
    waiting = [asyncio.ensure_future(news.after(HERE, 0, 0.0)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    away.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError] + [LayerUnavailable] * 4
    assert asked == 1 and not news._waiting
    news._follow = journal.follow
    assert await news.after(HERE, 0, 0.0)
