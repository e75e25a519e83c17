"""The generator's pace, with a clock that is an argument."""

from __future__ import annotations

from airside.bench.arrivals import Arrival
from airside.bench.pace import GATHER_S, MOST_AT_ONCE, pace


class FakeClock:
    """Goes on only when somebody sleeps; `held_s` = how much longer the first sleep takes than it should."""

    def __init__(self, held_s: float = 0.0) -> None:
        self.now_s = 1_000.0
        self._held_s = held_s

    def now(self) -> float:
        """Return the time."""
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.now_s += seconds + self._held_s
        self._held_s = 0.0


class Sent:
    """What was sent, and how late."""

    def __init__(self, clock: FakeClock, most: int = 10_000) -> None:
        self._clock, self._began, self._most = clock, clock.now(), most
        self.batches: list[list[Arrival]] = []
        self.lags_s: list[float] = []

    def __call__(self, due: list[Arrival]) -> bool:
        self.batches.append(due)
        self.lags_s += [self._clock.now() - self._began - each.at_s for each in due]
        return len(self.lags_s) < self._most


async def test_each_is_sent_when_it_is_due_and_never_before() -> None:
    """Those within the time of gathering go in one call."""
    clock = FakeClock()
    sent = Sent(clock)
    await pace(iter([Arrival(at_s, "a") for at_s in (0.0, 0.001, 0.5, 0.501, 2.0)]), sent, clock)
    assert [[each.at_s for each in batch] for batch in sent.batches] == [[0.0, 0.001], [0.5], [0.501], [2.0]]
    assert all(-1e-9 <= lag_s <= GATHER_S + 1e-9 for lag_s in sent.lags_s)


async def test_a_generator_that_was_held_up_sends_all_that_is_due_and_its_lag_shows() -> None:
    """The schedule does not move: nothing is left out, and what was late is known to be."""
    clock = FakeClock(held_s=1.0)
    sent = Sent(clock)
    await pace(iter([Arrival(number / 1_000, "a") for number in range(1_200)]), sent, clock)
    assert [len(batch) for batch in sent.batches][:2] == [MOST_AT_ONCE, MOST_AT_ONCE]
    assert len(sent.lags_s) == 1_200 and 0.99 < max(sent.lags_s) < 1.02


async def test_it_ends_when_no_more_is_wanted() -> None:
    """As when far too much is open."""
    clock = FakeClock()
    sent = Sent(clock, most=1)
    await pace(iter([Arrival(0.0, "a"), Arrival(5.0, "a")]), sent, clock)
    assert len(sent.lags_s) == 1
