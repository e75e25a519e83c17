"""`count_recent`: a model caller that is made anew within a minute sends no more than its accounts allow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.contracts.models import Prompt
from airside.stack.errors import LayerUnavailable
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.calls import ModelCalls
from airside.stack.models.provider import ProviderAnswer, Said
from airside.stack.models.rate_limits import WINDOW_S, RateLimits
from airside.stack.models.recent_attempts import AttemptEntry, count_recent, recent_attempts
from tests.unit.stack.models.test_calls import BUSY, CUT, MOST, FakeModel, World, request, said

S = 1_000_000
WINDOW_US = int(WINDOW_S * S)


def asked(at_s: float, attempt: int = 1, model: str = "a", tokens: int = 100) -> AttemptEntry:
    """Return the entry of an attempt that is about to be sent."""
    return AttemptEntry("model/run_1:1", int(at_s * S), True, attempt, model, tokens)


def ended(at_s: float, tokens: int, attempt: int = 1) -> AttemptEntry:
    """Return the entry of what came of it."""
    return AttemptEntry("model/run_1:1", int(at_s * S), False, attempt, "", tokens)


class HeldModel(FakeModel):
    """Notes when it was asked; answers nothing when told to."""

    def __init__(self, world: RestartedWorld, limits: RateLimits) -> None:
        super().__init__(said(), limits=limits)
        self.world = world

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        self.world.sent.append((self.world.clock_s, self.world.saying))
        if self.world.saying is None:
            self.world.is_held.set()
            await asyncio.Event().wait()
        if isinstance(self.world.saying, Exception):
            raise self.world.saying
        assert self.world.saying is not None
        return self.world.saying


@dataclass
class RestartedWorld(World):
    """A world whose caller dies and is made anew; its journal tells attempts as the query `attempts_since` does."""

    requests: int | None = None
    tokens: int | None = None
    put_back_s: float = 0.0
    saying: ProviderAnswer | Exception | None = None
    is_held: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[tuple[str, int, bytes]] = field(default_factory=list)
    sent: list[tuple[float, ProviderAnswer | Exception | None]] = field(default_factory=list)

    def now_us(self) -> int:
        """Return what the machine's clock says, which is set now and then."""
        return int((1e9 + self.clock_s - self.put_back_s) * S)

    async def append(self, append: Append) -> AppendReply:
        reply = await super().append(append)
        if reply.verdict == "ok":
            self.log += [(append.stream, entry.at_us, entry.body) for entry in append.entries]
        return reply

    async def rows(self, name: str, since_us: int, most: int) -> list[AttemptEntry]:
        """Return the rows of the query, as the journal's SQL does."""
        if self.journal_away:
            raise LayerUnavailable("journal: away")
        assert name == "attempts_since"
        first = next((place for place, row in enumerate(self.log) if row[1] >= since_us), len(self.log))
        return list(map(entry_of_log, self.log[first:][::-1][:most]))

    async def restarted(self) -> ModelCalls:
        """Return a caller that was just started."""
        limits = self.limits(requests=self.requests, tokens=self.tokens)
        models = {"a": HeldModel(self, limits)}
        await count_recent(models, rows=self.rows, now_us=self.now_us, now_s=lambda: self.clock_s)
        return ModelCalls(
            models,
            reserved=self.reserved,
            append=self.append,
            bodies=self.bodies,
            now_us=self.now_us,
            now_s=lambda: self.clock_s,
            sleep=self.sleep,
        )


def entry_of_log(row: tuple[str, int, bytes]) -> AttemptEntry:
    """Return what the query tells of an entry."""
    stream, at_us, body = row
    event = json.loads(body)
    is_asked = event["type"] == "ModelAsked"
    tokens = event["reserved" if is_asked else "spent"]["tokens"]
    return AttemptEntry(stream, at_us, is_asked, event["attempt"], event.get("model", ""), tokens)


def counted(saying: ProviderAnswer | Exception | None) -> int:
    """Return the tokens that a request took, or may have."""
    if isinstance(saying, ProviderAnswer):
        return (saying.input_tokens or 0) + (saying.output_tokens or 0)
    return 0 if saying is BUSY else MOST.tokens


async def killed(calls: ModelCalls, world: RestartedWorld, step: int) -> None:
    """Ask, and kill the caller while the request is under way."""
    world.saying = None
    world.is_held.clear()
    task = asyncio.ensure_future(calls.ask(msgspec.structs.replace(request(seconds=900), step=step)))
    await world.is_held.wait()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for each in left:
        each.cancel()
    await asyncio.gather(task, *left, return_exceptions=True)


SAYINGS = st.sampled_from([said(used=(50, 10)), said(used=(MOST.tokens - 10, 10)), BUSY, CUT])
DEEDS = st.one_of(SAYINGS, st.just("kill"), st.just("kill under way"), st.floats(0.001, 7_000))


@settings(max_examples=150, deadline=None)
@given(
    deeds=st.lists(st.tuples(st.floats(0, 40), DEEDS), min_size=1, max_size=14),
    requests=st.one_of(st.none(), st.integers(1, 4)),
    tokens=st.one_of(st.none(), st.integers(MOST.tokens, 3 * MOST.tokens)),
)
def test_a_caller_that_dies_at_any_time_never_sends_more_than_is_allowed_in_a_minute(
    deeds: Sequence[tuple[float, Any]], requests: int | None, tokens: int | None
) -> None:
    """However often it is made anew, and wherever the machine's clock is put back to meanwhile."""

    async def play() -> None:
        world = RestartedWorld(requests=requests, tokens=tokens)
        calls = await world.restarted()
        for step, (gap_s, deed) in enumerate(deeds):
            world.clock_s += gap_s
            if isinstance(deed, float):
                world.put_back_s += deed
            elif isinstance(deed, str):
                if deed == "kill under way":
                    await killed(calls, world, step)
                calls = await world.restarted()
            else:
                world.saying = deed
                await calls.ask(msgspec.structs.replace(request(seconds=900), step=step))
        for at_s, _ in world.sent:
            minute = [saying for sent_s, saying in world.sent if at_s <= sent_s < at_s + 60]
            assert requests is None or len(minute) <= requests
            assert tokens is None or sum(map(counted, minute)) <= tokens

    asyncio.run(play())


async def test_a_restarted_caller_waits_no_longer_than_the_minute_takes() -> None:
    """What was sent 40 seconds before it began blocks it for 21 more, though the process is another one."""
    world = RestartedWorld(requests=1, saying=said())
    await (await world.restarted()).ask(request())
    world.clock_s += 40
    await (await world.restarted()).ask(msgspec.structs.replace(request(), step=2))
    assert [at_s for at_s, _ in world.sent] == [0, pytest.approx(WINDOW_S)]


async def test_an_answer_counts_what_it_took_and_an_open_attempt_the_most_it_can() -> None:
    entries = [asked(0, 1), asked(1, 2), asked(2, 3), ended(3, 7, 1), ended(3, 0, 2)]
    found = recent_attempts(entries, 10 * S)
    assert [(each.age_us, each.tokens) for each in found] == [(10 * S, 7), (9 * S, 0), (8 * S, 100)]


async def test_what_is_older_than_the_window_does_not_count() -> None:
    assert recent_attempts([asked(0), ended(60, 7)], WINDOW_US) == []
    assert len(recent_attempts([asked(0)], WINDOW_US - 1)) == 1


@given(
    steps=st.lists(st.tuples(st.integers(0, 30 * S), st.integers(0, 3_600 * S)), min_size=1, max_size=20),
    since_us=st.integers(0, 90 * S),
)
def test_no_clock_that_was_put_back_makes_an_attempt_older_than_it_is(
    steps: Sequence[tuple[int, int]], since_us: int
) -> None:
    """Whenever that was: everything of the last minute counts, for at least as long as it has to."""
    true_us, back_us, truth, entries = 10**15, 0, list[int](), list[AttemptEntry]()
    for number, (gap_us, put_back_us) in enumerate(steps):
        true_us, back_us = true_us + gap_us, back_us + put_back_us
        truth.append(true_us)
        entries.append(AttemptEntry("model/run_1:1", true_us - back_us, True, number, str(number), 1))
    now_us = true_us + since_us
    found = {int(each.model): each.age_us for each in recent_attempts(entries, now_us - back_us)}
    for number, at_us in enumerate(truth):
        if now_us - at_us < WINDOW_US:
            assert 0 <= found[number] <= now_us - at_us


async def test_a_clock_that_was_ahead_once_blocks_nobody_for_ever() -> None:
    """What it stamped was before what a right one stamped after it."""
    assert recent_attempts([asked(1e6), asked(100, 2)], 200 * S) == []
    assert [each.age_us for each in recent_attempts([asked(1e6), asked(150, 2)], 200 * S)] == [50 * S] * 2
    assert [each.age_us for each in recent_attempts([asked(1e6)], 200 * S)] == [0]


async def test_each_account_counts_its_own_and_what_may_have_been_its_own() -> None:
    """A model that is not there any more was asked by an app of before."""
    world = World(clock_s=30)
    models = {name: FakeModel(said(), limits=world.limits(requests=1)) for name in ("a", "b")}
    free = FakeModel(said(), limits=world.limits())

    async def waits(model: FakeModel) -> bool:
        try:
            await model.limits.take(1, until_s=world.clock_s + 1)
        except LayerUnavailable:
            return True
        return False

    async def begin(*entries: AttemptEntry) -> list[bool]:
        for model in models.values():
            model.limits = world.limits(requests=1)

        async def rows(*_: Any) -> list[AttemptEntry]:
            return list(entries[::-1])

        await count_recent({**models, "c": free}, rows=rows, now_us=lambda: 30 * S, now_s=lambda: world.clock_s)
        return [await waits(model) for model in models.values()]

    assert await begin(asked(20, model="a")) == [True, False]
    assert await begin(asked(20, model="gone")) == [True, True]
    assert await begin(asked(20, model="c")) == [False, False]


async def test_without_the_journal_a_caller_with_limits_does_not_begin() -> None:
    """Nothing could be put on record by it anyhow; one without limits has nothing to look for."""
    world = RestartedWorld(requests=1, journal_away=True)
    with pytest.raises(LayerUnavailable):
        await world.restarted()
    await RestartedWorld(journal_away=True).restarted()
