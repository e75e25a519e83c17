"""Which streams were appended to of late: all of those after a commit, or that some are not known."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import pytest

from airside.actors.journal import recent as recent_module
from airside.actors.journal.recent import KEPT_S, RecentAppends
from airside.actors.rpc.methods import RecentPage, RecentRequest
from tests.journals import note


class Clock:
    """Seconds that a test lets pass."""

    now_s = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def recent(clock: Clock | None = None) -> RecentAppends:
    """Return a new one."""
    return RecentAppends(gather_s=0, clock=clock or Clock())


async def latest(it: RecentAppends) -> RecentPage:
    """Return where the latest commit is."""
    return await it.page(RecentRequest("", 0, 0.0))


async def after(it: RecentAppends, page: RecentPage, wait_s: float = 0.0) -> RecentPage:
    """Return what came after a page."""
    return await it.page(RecentRequest(page.born, page.upto, wait_s))


@pytest.mark.parametrize("seed", range(10))
async def test_whoever_follows_hears_of_every_stream_once_asked(seed: int) -> None:
    """However commits and questions are mixed, each follower has seen all that was appended."""
    rnd, it = Random(seed), recent()
    places = [await latest(it) for _ in range(3)]
    owed: list[set[tuple[str, str]]] = [set(), set(), set()]
    for _ in range(200):
        if rnd.random() < 0.6:
            appends = [note(f"run-{rnd.randrange(5)}", 0, 1, rnd.choice(("acme", "beta"))) for _ in range(3)]
            it.note(appends)
            for each in owed:
                each |= {(append.tenant, append.stream) for append in appends}
        else:
            who = rnd.randrange(3)
            page = await after(it, places[who])
            assert set(page.streams) == owed[who] and not page.is_torn
            places[who], owed[who] = page, set()


async def test_a_question_waits_for_the_next_commit() -> None:
    it = recent()
    began = await latest(it)
    assert await after(it, began) == began
    waiting = asyncio.ensure_future(after(it, began, 5.0))
    await asyncio.sleep(0)
    it.note([note("run-1", 0, 1, "acme")])
    page = await waiting
    assert page.streams == (("acme", "run-1"),) and (await after(it, page)).streams == ()


async def test_what_is_not_known_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit of another process, one that came too long ago, and those of when nobody asked."""
    monkeypatch.setattr(recent_module, "MAX_COMMITS", 3)
    clock = Clock()
    it = recent(clock)
    began = await latest(it)
    for strange in (
        RecentPage(born="another"),
        RecentPage(born=began.born, upto=9),
        RecentPage(born="another", upto=9),
    ):
        assert (await after(it, strange, 5.0)).is_torn
    for number in range(4):
        it.note([note(f"run-{number}", 0, 1, "acme")])
    assert (await after(it, began)).is_torn
    assert len((await after(it, msgspec.structs.replace(began, upto=1))).streams) == 3
    before = await latest(it)
    clock.now_s += KEPT_S
    it.note([note("run-9", 0, 1, "acme")])
    assert (await after(it, before)).is_torn and not it._commits
