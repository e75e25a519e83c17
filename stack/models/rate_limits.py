"""`RateLimits`: how often an account with a provider is used, by requests, tokens and calls at once.

A slot is taken before a request is sent and given back after; what its tokens were is set right then.  Who waits is
served in order.  After the provider said how long to wait (`Retry-After`), nothing is sent before that is over.
What was sent before this process began counts, too (`count_earlier`): a provider does not forget it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from airside.stack.errors import LayerUnavailable

WINDOW_S = 61.0
"""A minute, and a second for what is late: the provider counts requests when they arrive, the first one later perhaps
than the last one."""

MAX_HOLD_S = 120.0
"""Longest that a provider's `Retry-After` holds everybody up."""


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
        self._sent: deque[list[float]] = deque()
        self._not_before_s = 0.0

    @property
    def has_windows(self) -> bool:
        """Whether what was sent within the last minute bounds what may be sent now."""
        return self._requests is not None or self._tokens is not None

    def count_earlier(self, sent: Iterable[tuple[float, int]]) -> None:
        """Count requests of before this began, before any slot is taken: when each was sent, by `now_s`, its tokens."""
        self._sent.extend([at_s, float(tokens)] for at_s, tokens in sorted(sent))

    async def take(self, tokens: int, *, until_s: float) -> list[float]:
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
                        await self._sleep(wait_s)
                    await self._places.acquire()
                    slot = [self._now_s(), float(tokens)]
                    self._sent.append(slot)
                    return slot
        except TimeoutError:
            raise LayerUnavailable("too many questions are before this one") from None

    def _wait_s(self, tokens: int) -> float:
        now = self._now_s()
        while self._sent and self._sent[0][0] <= now - WINDOW_S:
            self._sent.popleft()
        wait = self._not_before_s - now
        if self._requests is not None and len(self._sent) >= self._requests:
            wait = max(wait, self._sent[len(self._sent) - self._requests][0] + WINDOW_S - now)
        if self._tokens is not None:
            over = sum(slot[1] for slot in self._sent) + tokens - self._tokens
            for at_s, used in self._sent:
                if over <= 0:
                    break
                over, wait = over - used, max(wait, at_s + WINDOW_S - now)
        return wait

    def done(self, slot: list[float], tokens: int | None = None) -> None:
        """Give a slot back, with what it did take; None: nobody knows, so it was the most."""
        if tokens is not None:
            slot[1] = float(tokens)
        self._places.release()

    def hold(self, seconds: float) -> None:
        """Send nothing for so long, within bounds: the provider asked for it."""
        self._not_before_s = max(self._not_before_s, self._now_s() + min(max(0.0, seconds), MAX_HOLD_S))
