"""What was sent to models within the last minute, as the journal has it: a caller that is restarted goes on from there.

Every attempt is on record after its slot was taken and before it is sent, so what was sent is there.  It is stamped by
a clock that can be set, and limits count by one that nobody sets, so no attempt is taken to be older than it can be:
 * One that is stamped later than now, by a clock that was put back since, is as old as what follows it, or of now.
 * None is older than what was written before it.
A clock that was put forward since hides what was sent before: nothing on record tells that from time that passed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from airside.stack.models.provider import ModelPort
from airside.stack.models.rate_limits import WINDOW_S

MAX_ENTRIES = 100_000
"""More than one caller writes of attempts in a minute: a clock that was put back by a year has no more read."""

_WINDOW_US = int(WINDOW_S * 1_000_000)


class AttemptEntry(NamedTuple):
    """An entry of an attempt, as the journal's query `attempts_since` tells it: that it is asked, or what came of it.

    `tokens` are those it reserved, or was settled at.
    """

    stream: str
    at_us: int
    is_asked: bool
    attempt: int
    model: str
    tokens: int


class RecentAttempt(NamedTuple):
    """An attempt that its account's limits still count, with the tokens that are known of it."""

    model: str
    age_us: int
    tokens: int


def recent_attempts(entries: Sequence[AttemptEntry], now_us: int) -> list[RecentAttempt]:
    """Return the attempts within a window of now, oldest first; the entries are in the order of the log."""
    settled = {(each.stream, each.attempt): each.tokens for each in entries if not each.is_asked}
    return [
        RecentAttempt(each.model, now_us - at_us, settled.get((each.stream, each.attempt), each.tokens))
        for each, at_us in zip(entries, _latest_times([each.at_us for each in entries], now_us), strict=True)
        if each.is_asked and at_us > now_us - _WINDOW_US
    ]


def _latest_times(stamps: Sequence[int], now_us: int) -> list[int]:
    """Return how late each of what was written one after the other can have been, by now at the latest."""
    times, following = list(stamps), now_us
    for index in reversed(range(len(stamps))):
        following = min(following, stamps[index])
        if stamps[index] > now_us:
            times[index] = following
    for index in range(1, len(times)):
        times[index] = max(times[index - 1], times[index])
    return times


async def count_recent(
    models: Mapping[str, ModelPort],
    *,
    rows: Callable[..., Awaitable[Iterable[Sequence[Any]]]],
    now_us: Callable[[], int],
    now_s: Callable[[], float],
) -> None:
    """Count in every account's limits what was sent in the last minute; raise `LayerUnavailable` if nobody can say.

    An attempt at a model that is not there any more, in an app that was changed, may have been any account's: each
    counts it.
    """
    accounts = {port.limits for port in models.values() if port.limits.has_windows}
    if not accounts:
        return
    at_us, at_s = now_us(), now_s()
    found = [AttemptEntry(*row) for row in await rows("attempts_since", at_us - _WINDOW_US, MAX_ENTRIES)]
    recent = recent_attempts(found[::-1], at_us)
    for limits in accounts:
        limits.count_earlier(
            (at_s - each.age_us / 1_000_000, each.tokens)
            for each in recent
            if each.model not in models or models[each.model].limits is limits
        )
