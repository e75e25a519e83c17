"""`RateLimits`: requests and tokens in every minute, calls at once, and what a provider asked to wait."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.errors import LayerUnavailable
from airside.stack.models.rate_limits import MAX_HOLD_S, WINDOW_S, RateLimits


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


@settings(max_examples=200, deadline=None)
@given(
    wanted=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=40),
    requests=st.integers(1, 10),
    tokens=st.integers(50, 200),
)
def test_no_minute_has_more_requests_or_tokens_than_are_allowed(
    wanted: list[tuple[int, int]], requests: int, tokens: int
) -> None:
    async def play() -> None:
        clock = Clock()
        limits = clock.limits(requests, tokens)
        sent: list[tuple[float, int]] = []
        for most, used in wanted:
            slot = await limits.take(most, until_s=1e9)
            sent.append((slot[0], min(most, used)))
            limits.done(slot, min(most, used))
        for at_s, _ in sent:
            minute = [each for each in sent if at_s <= each[0] < at_s + WINDOW_S]
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
    slot = await limits.take(1, until_s=1e9)
    assert slot[0] == pytest.approx(WINDOW_S)


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
    assert (await limits.take(1, until_s=1e9))[0] == pytest.approx(MAX_HOLD_S)


async def test_nothing_is_sent_while_the_provider_asked_to_wait() -> None:
    clock = Clock()
    limits = clock.limits()
    limits.hold(30)
    slot = await limits.take(1, until_s=1e9)
    assert slot[0] == pytest.approx(30)
