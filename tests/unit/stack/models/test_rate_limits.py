"""`RateLimits`: requests and tokens in every minute, calls at once, and what a provider asked to wait."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.errors import LayerUnavailable
from airside.stack.models.rate_limits import ARRIVAL_S, MAX_HOLD_S, WINDOW_S, RateLimits, Slot


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)

    def limits(self, requests: int | None = None, tokens: int | None = None, concurrency: int = 100) -> RateLimits:
        return RateLimits(
            requests=requests, tokens=tokens, concurrency=concurrency, now_s=lambda: self.now_s, sleep=self.sleep
        )


request = st.tuples(
    st.integers(1, 50),  # tokens at most
    st.integers(0, 50),  # tokens
    st.floats(0, 30),  # seconds until it is sent
    st.floats(0, ARRIVAL_S),  # until it arrives
    st.floats(0, 90),  # until it is answered
    st.booleans(),  # whether the next is asked for only then
)


@settings(max_examples=300, deadline=None)
@given(wanted=st.lists(request, min_size=1, max_size=30), requests=st.integers(1, 10), tokens=st.integers(50, 200))
def test_no_minute_has_more_requests_or_tokens_than_are_allowed_however_late_they_arrive(
    wanted: list[tuple[int, int, float, float, float, bool]], requests: int, tokens: int
) -> None:
    async def play() -> None:
        clock = Clock()
        limits = clock.limits(requests, tokens)
        arrived: list[tuple[float, int]] = []
        out: list[tuple[float, Slot, int]] = []

        def end(until_s: float) -> None:
            for at_s, slot, used in sorted((each for each in out if each[0] <= until_s), key=lambda each: each[0]):
                clock.now_s = max(clock.now_s, at_s)
                limits.done(slot, used)
            out[:] = [each for each in out if each[0] > until_s]

        for most, used, sent_s, arrives_s, answered_s, waits in wanted:
            slot = await limits.take(most, until_s=1e9)
            clock.now_s += sent_s
            limits.sending(slot)
            arrived.append((clock.now_s + arrives_s, min(most, used)))
            out.append((clock.now_s + max(arrives_s, answered_s), slot, min(most, used)))
            end(out[-1][0] if waits else clock.now_s)
        for at_s, _ in arrived:
            minute = [each for each in arrived if at_s <= each[0] < at_s + 60]
            assert len(minute) <= requests and sum(used for _, used in minute) <= tokens

    asyncio.run(play())


async def test_what_can_never_be_sent_is_said_at_once() -> None:
    with pytest.raises(LayerUnavailable, match="10 a minute"):
        await Clock().limits(tokens=10).take(11, until_s=1e9)


async def test_who_would_wait_too_long_is_told_and_takes_no_place() -> None:
    clock = Clock()
    limits = clock.limits(requests=1, concurrency=1)
    limits.done(await limits.take(1, until_s=1e9), 1)
    with pytest.raises(LayerUnavailable, match="rate limit"):
        await limits.take(1, until_s=10)
    await limits.take(1, until_s=1e9)
    assert clock.now_s == pytest.approx(WINDOW_S)


async def test_no_more_are_under_way_than_are_allowed() -> None:
    limits = Clock().limits(concurrency=2)
    first = await limits.take(1, until_s=1e9)
    await limits.take(1, until_s=1e9)
    third = asyncio.ensure_future(limits.take(1, until_s=1e9))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not third.done()
    limits.done(first, 1)
    assert await third


async def test_no_provider_holds_everybody_up_for_ever() -> None:
    clock = Clock()
    limits = clock.limits()
    limits.hold(1e8)
    await limits.take(1, until_s=1e9)
    assert clock.now_s == pytest.approx(MAX_HOLD_S)


async def test_nothing_is_sent_while_the_provider_asked_to_wait() -> None:
    clock = Clock()
    limits = clock.limits()
    limits.hold(30)
    await limits.take(1, until_s=1e9)
    assert clock.now_s == pytest.approx(30)
