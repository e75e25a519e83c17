"""Following a journal that is being written: nothing is missing, nothing is early, and nobody waits for the tables."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from airside.actors.journal.feed import Feed
from airside.actors.journal.journal import Journal
from airside.actors.journal.reader import JournalReader
from airside.actors.journal.store import JournalStore
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import SUBSCRIBE, FeedPage, FeedRequest
from airside.actors.settings import Settings
from airside.stack.errors import Behind, LayerUnavailable
from airside.stack.journal.feed import ALL, PAGE_BYTES, PAGE_ENTRIES
from tests import on_wire
from tests.journals import KEY, note


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JournalStore]:
    """A journal whose tables follow only where a test has them."""
    made = JournalStore(tmp_path, KEY)
    yield made
    made.close()


def feed_of(store: JournalStore) -> Feed:
    """Return the feed of a journal that is read in the caller's thread, and gathers nothing."""

    async def read(feed: str, after: int) -> Any:
        return store.page(feed, after)

    return Feed(store, read, gather_s=0)


def names(page: FeedPage) -> list[str]:
    """Return which entries a page has."""
    assert not page.problem
    return [f"{entry.stream}#{entry.seq}" for entry in page.entries]


async def all_pages(feed: Feed, tenant: str | None, after: str = "") -> tuple[list[FeedPage], str]:
    """Return every page there is after a cursor, and the cursor after them."""
    pages = []
    while (page := await feed.page(FeedRequest(after, 0.0, tenant))).entries:
        pages.append(page)
        after = page.cursor
    return pages, after


@pytest.mark.parametrize("seed", range(12))
async def test_every_entry_comes_once_in_commit_order_whatever_restarts_and_however_far_the_tables_are(
    seed: int, tmp_path: Path
) -> None:
    rnd, store = Random(seed), JournalStore(tmp_path, KEY)
    written: dict[str | None, list[str]] = {"acme": [], "beta": [], None: []}
    seen: dict[str | None, list[str]] = {"acme": [], "beta": [], None: []}
    cursors: dict[str | None, str] = dict.fromkeys(seen, "")
    lengths: dict[str, int] = {}
    for _ in range(60):
        what = rnd.choice(("write", "write", "write", "follow", "follow", "catch up", "forget", "restart"))
        if what == "write":
            appends = []
            for _ in range(rnd.randrange(1, 4)):
                tenant = rnd.choice(("acme", "beta"))
                stream, entries = f"{tenant}-{rnd.randrange(3)}", rnd.randrange(1, 5)
                first = lengths.get(stream, 0)
                lengths[stream] = first + entries
                appends.append(note(stream, first, entries, tenant))
                for whose in (tenant, None):
                    written[whose] += [f"{stream}#{n}" for n in range(first, first + entries)]
            assert all(reply.verdict == "ok" for reply in store.commit(appends))
        elif what == "catch up":
            store.catch_up()
        elif what == "forget":
            store._tail.forget(store.last())
        elif what == "restart":
            store.release()
            store = JournalStore(tmp_path, KEY)
        else:
            whose = rnd.choice(list(seen))
            page = await feed_of(store).page(FeedRequest(cursors[whose], 0.0, whose))
            cursors[whose] = page.cursor
            seen[whose] += names(page)
            assert seen[whose] == written[whose][: len(seen[whose])]
    for whose, cursor in cursors.items():
        pages, _ = await all_pages(feed_of(store), whose, cursor)
        assert seen[whose] + [name for page in pages for name in names(page)] == written[whose]
        numbers = [entry.number for page in pages for entry in page.entries if whose is not None]
        assert numbers == list(range(len(seen[whose]), len(written[whose])))[: len(numbers)]
    store.close()


async def test_nobody_who_follows_has_the_tables_catch_up(store: JournalStore) -> None:
    store.commit([note("a", 0, 3)])
    store.catch_up()
    store.commit([note("a", 3, 2), note("b", 0, 1, "beta")])
    for tenant, wanted in (("acme", 5), ("beta", 1), (None, 6)):
        pages, _ = await all_pages(feed_of(store), tenant)
        assert sum(len(page.entries) for page in pages) == wanted
    assert store.behind == 3


async def test_tables_that_are_far_behind_catch_up_so_that_no_question_reads_the_whole_log(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airside.actors.journal.reader.CHUNK_ROWS", 10)
    store.commit([note("b", 0, 50, "beta"), note("a", 0, 1)])
    store._tail.forget(store.last())
    pages, _ = await all_pages(feed_of(store), "acme")
    assert [names(page) for page in pages] == [["a#0"]] and store.behind <= 10


@pytest.mark.parametrize("tenant", ["acme", None])
async def test_a_page_is_bounded_in_entries_and_in_bytes(store: JournalStore, tenant: str | None) -> None:
    store.commit([note("a", 0, PAGE_ENTRIES + 5)])
    store.commit([note("b", n, 1, fill="x" * (PAGE_BYTES * size // 4)) for n, size in enumerate((8, 2, 1, 2))])
    for _ in range(2):  # as the log has it, then the tables
        pages, _ = await all_pages(feed_of(store), tenant)
        assert [len(page.entries) for page in pages] == [PAGE_ENTRIES, 5, 1, 2, 1]
        store.catch_up()


async def test_an_entry_that_cannot_be_read_is_no_gap(store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit([note("a", 0, 3)])
    store._tail.forget(store.last())
    monkeypatch.setattr(store._reader, "chunks", lambda after, until: iter(()))
    for feed in ("acme", ALL):
        with pytest.raises(Behind, match=f"entry 1 of the feed .?{feed.strip('*')}.* cannot be read now: ask again"):
            store.page(feed, 0)


async def test_a_journal_at_rest_has_the_same_pages(store: JournalStore, tmp_path: Path) -> None:
    store.commit([note("a", 0, 4), note("b", 0, 2, "beta")])
    store.catch_up()
    live = {feed: store.page(feed, 1) for feed in ("acme", "beta", ALL)}
    with contextlib.closing(SimpleNamespace(close=(read := JournalReader.open(tmp_path, b"")).release)):
        assert {feed: [row[1:11] for row in read.page(feed, 1)] for feed in live} == {
            feed: [row[1:11] for row in rows] for feed, rows in live.items()
        }


# Waiting.


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """A journal that has begun, whose feed gathers nothing."""
    made = Journal(LayerConfig(Settings(state_dir=tmp_path), tmp_path), KEY)
    await made.ready()
    made._feed._gather_s = 0
    yield made
    await made.stop()


async def append(journal: Journal, *appends: Any) -> None:
    """Have appends made durable."""
    await asyncio.gather(*(journal.append(each) for each in appends))


async def asking(journal: Journal, after: str, tenant: str | None) -> asyncio.Task[FeedPage]:
    """Return a question for entries that are not there, once it waits."""
    before = journal._feed.waiting
    task = asyncio.ensure_future(on_wire.ask(journal, SUBSCRIBE, FeedRequest(after, 30.0, tenant)))
    while journal._feed.waiting == before:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    return task


async def test_whoever_waits_is_answered_when_an_entry_of_his_is_durable_and_not_before(journal: Journal) -> None:
    acme, beta, everybody = [await asking(journal, "", tenant) for tenant in ("acme", "beta", None)]
    await append(journal, note("a", 0, 2))
    assert names(await acme) == ["a#0", "a#1"] and names(await everybody) == ["a#0", "a#1"]
    assert not beta.done() and journal._feed.waiting == 1
    await append(journal, note("b", 0, 1, "beta"))
    assert names(await beta) == ["b#0"]


async def test_a_question_whose_time_is_over_has_no_entries_and_its_cursor(journal: Journal) -> None:
    empty = await on_wire.ask(journal, SUBSCRIBE, FeedRequest("", 0.0, "acme"))
    assert not empty.entries and empty.cursor.endswith(":acme:0") and not empty.problem
    await append(journal, note("a", 0, 2))
    page = await on_wire.ask(journal, SUBSCRIBE, FeedRequest(empty.cursor, 0.0, "acme"))
    assert [entry.cursor[-7:] for entry in page.entries] == [":acme:1", ":acme:2"]
    for wait_s in (0.0, -1.0, float("nan")):
        over = await on_wire.ask(journal, SUBSCRIBE, FeedRequest(page.cursor, wait_s, "acme"))
        assert not over.entries and over.cursor == page.cursor == page.entries[-1].cursor


async def test_from_now_on_only_what_is_appended_later_comes(journal: Journal) -> None:
    await append(journal, note("a", 0, 2))
    later = await asking(journal, "now", "acme")
    await append(journal, note("a", 2, 1))
    assert names(await later) == ["a#2"]


async def test_where_nobody_follows_nothing_is_kept_and_nothing_is_read(journal: Journal) -> None:
    """Neither before anybody has asked, nor after who waited has gone."""
    gone = asyncio.ensure_future(journal._feed.page(FeedRequest("", 30.0, "acme")))
    await asyncio.sleep(0)
    assert journal._feed.waiting == 1
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    reads: list[str] = []
    journal._store.page = lambda feed, after: reads.append(feed) or []  # type: ignore[method-assign, func-returns-value]
    await append(journal, note("a", 0, 2))
    assert journal._feed._waiting == {} and reads == [] and not journal._followers._threads


async def test_a_cursor_of_another_feed_or_journal_is_refused_in_words(journal: Journal, tmp_path: Path) -> None:
    await append(journal, note("a", 0, 2))
    cursor = (await on_wire.ask(journal, SUBSCRIBE, FeedRequest("", 0.0, "acme"))).cursor
    for after, tenant, why in (
        (cursor, None, "is of the feed 'acme', not of '*'"),
        ("nonsense", "acme", "is no cursor of a feed"),
        (cursor.replace(":2", ":3"), "acme", "does not have: begin anew"),
        ("", "", "tenant id"),
        ("", "*", "tenant id"),
    ):
        page = await on_wire.ask(journal, SUBSCRIBE, FeedRequest(after, 0.0, tenant))
        assert page.code == "invalid" and why in page.problem and not page.entries


async def test_a_journal_that_cannot_read_is_away_and_not_empty(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(journal, note("a", 0, 2))

    def behind(feed: str, after: int) -> Any:
        raise Behind("the tables cannot be read")

    monkeypatch.setattr(journal._store, "page", behind)
    with pytest.raises(LayerUnavailable, match="journal: the tables cannot be read"):
        await on_wire.ask(journal, SUBSCRIBE, FeedRequest("", 0.0, "acme"))
