"""`RateLimits`: how often an account with a provider is used, by requests, tokens and calls at once.

A slot is taken before a request is sent and given back after; what its tokens were is set right then.  Who waits is
served in order.  After the provider said how long to wait (`Retry-After`), nothing is sent before that is over.
What was sent before this process began counts, too (`count_earlier`): a provider does not forget it.

A provider counts a request when it arrives, which is after it was sent and before it was answered: a slot counts from
the latest time that this can have been.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from airside.stack.errors import LayerUnavailable

WINDOW_S = 61.0
"""A minute, and a second for what is late and for clocks that do not go alike."""

ARRIVAL_S = 5.0
"""Longest that a request is on its way: a client that is used for the first time loads code and connects."""

_LOOK_S = 1.0
"""What is under way reserves the most tokens that it can take, and may be over, with fewer, before they are."""

MAX_HOLD_S = 120.0
"""Longest that a provider's `Retry-After` holds everybody up."""


@dataclass(slots=True, eq=False)
class Slot:
    """A request that limits count: with its tokens, from the latest time at which it can have arrived, None = not sent.

    Times are by the limits' clock.
    """

    tokens: float
    latest_s: float | None = None


class RateLimits:
    """One account's.  `now_s` is a clock that nobody sets; `sleep` waits by it."""

    def __init__(
        self,
        *,
        requests: int | None,
        tokens: int | None,
        concurrency: int,
        now_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._requests = requests
        self._tokens = tokens
        self._places = asyncio.Semaphore(concurrency)
        self._turn = asyncio.Lock()
        self._now_s = now_s
        self._sleep = sleep
        self._out: dict[Slot, None] = {}
        self._ended: list[tuple[float, float]] = []
        self._not_before_s = 0.0

    @property
    def has_windows(self) -> bool:
        """Whether what was sent within the last minute bounds what may be sent now."""
        return self._requests is not None or self._tokens is not None

    def count_earlier(self, sent: Iterable[tuple[float, int]]) -> None:
        """Count requests of before this began, before any slot is taken: when each was sent, by `now_s`, its tokens."""
        self._ended = sorted((at_s, float(tokens)) for at_s, tokens in sent)

    async def take(self, tokens: int, *, until_s: float) -> Slot:
        """Wait for a slot for a request of so many tokens at most, and return it.

        Raises `LayerUnavailable` if there is none until then, or never will be one.
        """
        if self._tokens is not None and tokens > self._tokens:
            raise LayerUnavailable(f"it may take {tokens:,} tokens, and {self._tokens:,} a minute are allowed")
        try:
            async with asyncio.timeout(max(0.0, until_s - self._now_s())):
                async with self._turn:  # in order: a small one does not pass a large one for ever
                    while (wait_s := self._wait_s(tokens)) > 0:
                        if self._now_s() + wait_s > until_s:
                            raise LayerUnavailable(f"the rate limit leaves no room for another {wait_s:.1f} s")
                        await self._sleep(min(wait_s, _LOOK_S) if self._out else wait_s)
                    await self._places.acquire()
                    slot = Slot(float(tokens))
                    self._out[slot] = None
                    return slot
        except TimeoutError:
            raise LayerUnavailable("too many questions are before this one") from None

    def _wait_s(self, tokens: int) -> float:
        now = self._now_s()
        wait = self._not_before_s - now
        if not self.has_windows:
            return wait
        del self._ended[: bisect_right(self._ended, now - WINDOW_S, key=lambda each: each[0])]
        out = ((now if slot.latest_s is None else min(now, slot.latest_s), slot.tokens) for slot in self._out)
        counted = sorted([*self._ended, *(each for each in out if each[0] > now - WINDOW_S)])
        if self._requests is not None and len(counted) >= self._requests:
            wait = max(wait, counted[len(counted) - self._requests][0] + WINDOW_S - now)
        if self._tokens is not None:
            over = sum(used for _, used in counted) + tokens - self._tokens
            for at_s, used in counted:
                if over <= 0:
                    break
                over, wait = over - used, max(wait, at_s + WINDOW_S - now)
        return wait

    def sending(self, slot: Slot) -> None:
        """Know that a slot's request is sent now."""
        slot.latest_s = self._now_s() + ARRIVAL_S

    def done(self, slot: Slot, tokens: int | None = None) -> None:
        """Give a slot back, with what it did take; None: nobody knows, so it was the most."""
        now = self._now_s()
        del self._out[slot]
        if tokens is not None:
            slot.tokens = float(tokens)
        slot.latest_s = now if slot.latest_s is None else min(now, slot.latest_s)
        if self.has_windows:
            insort(self._ended, (slot.latest_s, slot.tokens))
        self._places.release()

    def hold(self, seconds: float) -> None:
        """Send nothing for so long, within bounds: the provider asked for it."""
        self._not_before_s = max(self._not_before_s, self._now_s() + min(max(0.0, seconds), MAX_HOLD_S))
