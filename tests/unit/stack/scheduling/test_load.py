"""How many runs are at work at once follows what the machines carry: fewer when late, more when in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airside.stack.scheduling.load import FIRST, HALVED_S, LEAST, LoadLimit

MOST, LATE_S = 2_000, 2.0


def after(*heard: tuple[float, float], running: int | None = None) -> LoadLimit:
    """Return a limit that heard (when, how late) with all its places taken, or so many."""
    limit = LoadLimit(MOST, late_s=LATE_S)
    for now_s, late_s in heard:
        limit.heard(now_s, late_s, limit.limit if running is None else running)
    return limit


def test_a_machine_that_is_in_time_gets_all_there_is_within_seconds() -> None:
    assert after(*((i * 0.2, 0.3) for i in range(30))).limit == MOST


def test_places_that_nobody_takes_prove_nothing() -> None:
    assert after(*((i * 0.2, 0.3) for i in range(30)), running=10).limit == FIRST


def test_what_is_late_is_halved_once_in_a_while() -> None:
    limit = after((0.0, 9.0), (0.2, 9.0), (0.4, 9.0))
    assert limit.limit == FIRST / 2 and limit.halvings == 1
    limit.heard(HALVED_S, 9.0, limit.limit)
    assert limit.limit == FIRST / 4


def test_what_is_late_with_few_at_work_falls_to_half_of_these() -> None:
    assert after((0.0, 9.0), running=100).limit == 50


def test_after_a_halving_it_grows_by_little_steps() -> None:
    limit = after((0.0, 9.0), (HALVED_S, 0.0), (HALVED_S + 1, 0.0))
    assert FIRST / 2 < limit.limit <= FIRST / 2 * 1.2


@given(
    st.integers(1, 5_000),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 60), st.integers(0, 5_000)), max_size=100),
)
def test_it_stays_within_its_bounds_and_always_lets_some_run(most: int, told: list[tuple[float, float, int]]) -> None:
    limit, now_s = LoadLimit(most, late_s=LATE_S), 0.0
    for after_s, late_s, running in told:
        now_s += after_s
        before = limit.limit
        assert limit.heard(now_s, late_s, running) == (limit.limit != before)
        assert min(LEAST, most) <= limit.limit <= most
        assert limit.limit <= before or late_s <= LATE_S


@given(st.integers(20, 1_500))
def test_a_machine_that_carries_so_many_is_left_with_about_as_many(carried: int) -> None:
    """It is late with more than it carries; from then on it is given between a quarter and a tenth too many."""
    limit, seen = LoadLimit(MOST, late_s=LATE_S), []
    for beat in range(3_000):
        limit.heard(beat * 0.2, 3.0 if limit.limit > carried else 0.3, limit.limit)
        seen.append(limit.limit)
    settled = seen[1_000:]
    assert carried * 0.25 - LEAST <= min(settled) and max(settled) <= carried * 1.1 + LEAST
