"""`AnswerStreams`, and what a question shows of its attempts to who watches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airside.actors.rpc.methods import WATCH
from airside.stack.contracts.models import Prompt
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.ids import RunId, child_run
from airside.stack.models.provider import ProviderAnswer, ProviderFailure, Said
from airside.stack.models.streams import KEPT_S, MAX_CHARS, MAX_WATCHED, AnswerStreams
from airside.stack.reasons import ReasonCode
from tests.helpers import RUN
from tests.unit.stack.models.test_calls import CUT, DENIED, FakeModel, World, request, said


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


def streams(clock: Clock, born: str = "one") -> AnswerStreams:
    return AnswerStreams(born=born, now_s=lambda: clock.now_s, sleep=clock.sleep)


async def page(
    it: AnswerStreams, before: WatchPage | None = None, run_id: RunId = RUN, wait_s: float = 0.0
) -> WatchPage:
    """Ask for what follows a page."""
    before = before or WatchPage()
    return await it.page(WatchRequest(run_id=run_id, after=before.upto, born=before.born, timeout_s=wait_s))


def told(found: WatchPage) -> list[tuple[str, str]]:
    return [(part.kind, part.text) for part in found.parts]


async def test_what_is_said_is_given_to_who_watches_and_kept_for_nobody_else() -> None:
    """It begins with what is said after the first question."""
    clock = Clock()
    it = streams(clock)
    it.publish("text", RUN, 1, "before")
    first = await page(it)
    it.publish("begun", RUN, 1, model="m")
    it.publish("text", RUN, 1, "hel")
    it.publish("text", RUN, 1, "lo")
    it.publish("text", RunId("run_" + "9" * 24), 1, "another's")
    second = await page(it, first)
    assert told(first) == [] and told(second) == [("begun", ""), ("text", "hello")] and not second.is_torn
    assert told(await page(it, second)) == []


async def test_who_waits_is_answered_when_something_is_said() -> None:
    """A branch's answers are its root's."""
    clock = Clock()
    it = streams(clock)
    first = await page(it)
    waiting = asyncio.ensure_future(page(it, first, wait_s=10))
    await asyncio.sleep(0)
    it.publish("text", child_run(RUN, 1, 0), 1, "hello")
    found = await waiting
    assert told(found) == [("text", "hello")] and found.parts[0].run_id == child_run(RUN, 1, 0)


async def test_two_watch_one_run_and_each_is_given_all() -> None:
    """What one has been given, the other has not."""
    clock = Clock()
    it = streams(clock)
    one, other = await page(it), await page(it)
    it.publish("text", RUN, 1, "a")
    one = await page(it, one)
    it.publish("text", RUN, 1, "b")
    assert (told(one), told(await page(it, one)), told(await page(it, other))) == (
        [("text", "a")],
        [("text", "b")],
        [("text", "ab")],
    )


async def test_who_is_slow_misses_the_oldest_and_is_told_so() -> None:
    """What is kept is bounded."""
    clock = Clock()
    it = streams(clock)
    first = await page(it)
    for _ in range(20):
        it.publish("text", RUN, 1, "x" * (MAX_CHARS // 10))
    found = await page(it, first)
    assert found.is_torn and sum(len(part.text) for part in found.parts) <= MAX_CHARS


async def test_who_comes_from_the_process_before_is_told_that_some_is_lost() -> None:
    """And is given what the next one has."""
    clock = Clock()
    first = await page(streams(clock))
    it = streams(clock, "two")
    await page(it)
    it.publish("text", RUN, 1, "hello")
    found = await page(it, first, wait_s=10)
    assert found.is_torn and told(found) == [("text", "hello")] and found.born == "two"


async def test_who_has_left_is_forgotten_and_not_too_many_are_watched() -> None:
    """A run that nobody asks for any more is not streamed."""
    clock = Clock()
    it = streams(clock)
    runs = [RunId(f"run_{number:024x}") for number in range(MAX_WATCHED + 1)]
    for run_id in runs[:-1]:
        assert not (await page(it, run_id=run_id)).code
    clock.now_s += KEPT_S + 1
    assert not it.is_watched(runs[0]) and not (await page(it, run_id=runs[-1])).code


async def test_nobody_takes_all_places_by_asking_and_not_waiting() -> None:
    """Of runs nobody waits for, that asked for longest ago goes; those that are waited for stay, however many."""
    clock = Clock()
    it = streams(clock)
    runs = [RunId(f"run_{number:024x}") for number in range(1, MAX_WATCHED + 1)]
    before = await page(it, run_id=runs[0])
    it.publish("text", runs[0], 1, "lost")
    before = await page(it, before, run_id=runs[0])
    clock.now_s += 1
    for run_id in runs[1:]:
        assert not (await page(it, run_id=run_id)).code
    assert not (await page(it)).code and not it.is_watched(runs[0])
    again = await page(it, before, run_id=runs[0])
    assert again.is_torn and again.upto == 0
    it.publish("text", runs[0], 1, "on")
    assert told(await page(it, again, run_id=runs[0])) == [("text", "on")]
    waiting = [asyncio.ensure_future(page(it, run_id=run_id, wait_s=10)) for run_id in it._watched]
    await asyncio.sleep(0)
    assert (await page(it, run_id=RunId("run_" + "9" * 24))).code == "too_many"
    for each in waiting:
        each.cancel()


class Telling(FakeModel):
    """Says words before what it is told to say, if anybody listens; notes whether anybody did."""

    words: tuple[str, ...] = ("hel", "lo")

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        self.listened = said is not None
        for word in self.words if said is not None else ():
            assert said is not None
            said(word)
        return await super().ask(prompt, max_tokens, timeout_s)


def watched(world: World, **models: FakeModel) -> tuple[Any, AnswerStreams]:
    """Return a model caller with streams."""
    it = AnswerStreams(born="one", now_s=lambda: world.clock_s, sleep=world.sleep)
    calls = world.calls(**models)
    calls.streams = it
    return calls, it


async def test_an_answer_nobody_watches_is_not_asked_for_as_a_stream() -> None:
    """One that somebody watches is, and nothing of it is on record."""
    world = World()
    model = Telling(said("hello"), said("hello"), limits=world.limits())
    calls, it = watched(world, a=model)
    await calls.ask(request())
    assert not model.listened
    first = await page(it)
    await calls.ask(request(nth=1))
    assert told(await page(it, first)) == [("begun", ""), ("text", "hello"), ("answered", "")] and model.listened
    assert len(world.events()) == 4, "an attempt and its answer, twice"


@pytest.mark.parametrize("failure", [CUT, DENIED])
async def test_nothing_falls_back_to_another_model_once_something_was_shown(failure: ProviderFailure) -> None:
    """Whoever watches is told that it starts anew, or that there is no answer."""
    world = World()
    first, other = Telling(failure, limits=world.limits()), FakeModel(said(), limits=world.limits())
    calls, it = watched(world, a=first, b=other)
    begun = await page(it)
    reply = await calls.ask(request("a", "b"))
    assert reply.reason_code is not None and not other.asked
    kinds = [kind for kind, _ in told(await page(it, begun))]
    assert kinds[:3] == ["begun", "text", "restarted"] and kinds[-1] == "failed"


async def test_a_model_that_failed_before_anything_was_shown_is_followed_by_the_next() -> None:
    """Nobody was shown what does not count."""
    world = World()
    first = Telling(DENIED, limits=world.limits())
    first.words = ()
    calls, it = watched(world, a=first, b=Telling(said("hello"), limits=world.limits()))
    begun = await page(it)
    assert (await calls.ask(request("a", "b"))).text == "hello"
    assert [kind for kind, _ in told(await page(it, begun))] == ["begun", "begun", "text", "answered"]


async def test_what_a_broken_stream_may_have_cost_stays_counted() -> None:
    """The same model is asked again only with what is left."""
    world = World()
    calls, it = watched(world, a=Telling(CUT, limits=world.limits()))
    await page(it)
    reply = await calls.ask(request())
    assert reply.reason_code is ReasonCode.MAX_COST and reply.spend == world.price


async def test_half_a_character_breaks_nobodys_page() -> None:
    """A model's text may be cut anywhere; what is no Unicode is shown by its escape."""
    world = World()
    model = Telling(said("hi"), limits=world.limits())
    model.words = ("hi \ud83d", "\ude00")
    calls, it = watched(world, a=model)
    first = await page(it)
    await calls.ask(request())
    found = await page(it, first)
    assert "hi \\ud83d" in "".join(part.text for part in found.parts) and WATCH.reply.encode(found)
