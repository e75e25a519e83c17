"""The search for the capacity, against stacks that carry a known rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airside.bench.search import FIRST_IN_FLIGHT, LEAST, MOST_IN_FLIGHT, TOLERANCE, Bisection, Climb, grows


def climbed(most: float, latency_s: float) -> tuple[float, list[int]]:
    """Return the ceiling that is found of a stack with so much room, and the levels that were tried."""
    climb, levels = Climb(), []
    while (level := climb.next_level()) is not None:
        levels.append(level)
        climb.note(min(most, level / latency_s))
    return climb.ceiling, levels


def test_the_climb_ends_two_levels_after_nothing_more_gets_through() -> None:
    """By Little's law 100 runs/s of 0.2 s each are 20 in flight."""
    assert climbed(100, 0.2) == (100, [8, 16, 32, 64, 128])


@given(st.floats(1, 5_000), st.floats(0.01, 2))
def test_the_climb_ends_and_finds_what_there_is(most: float, latency_s: float) -> None:
    """Within what a level may be worth less than, and never more than there is."""
    ceiling, levels = climbed(most, latency_s)
    assert levels[0] == FIRST_IN_FLIGHT and levels[-1] <= MOST_IN_FLIGHT
    assert min(most, MOST_IN_FLIGHT / latency_s) * 0.9 <= ceiling <= most


@given(st.floats(1, 5_000), st.floats(0, 1.2))
def test_bisection_finds_the_highest_rate_that_passes(ceiling: float, share: float) -> None:
    """To within its tolerance, with few probes, none of them at the ceiling or above."""
    bisection, probes, able = Bisection(ceiling), [], share * ceiling
    while (rate := bisection.next_rate()) is not None:
        probes.append(rate)
        bisection.note(rate, passed=rate <= able)
    assert len(probes) <= 12 and all(0 < rate < ceiling for rate in probes)
    assert bisection.capacity <= able
    if share > LEAST:
        assert min(able, ceiling) - bisection.capacity <= TOLERANCE * min(able, ceiling) / (1 - TOLERANCE) * 1.001


def test_a_ceiling_that_is_far_too_high_costs_probes_and_no_precision() -> None:
    """As that of a closed loop on a busy machine may be."""
    bisection, probes = Bisection(1_000.0), 0
    while (rate := bisection.next_rate()) is not None:
        probes += 1
        bisection.note(rate, passed=rate <= 100)
    assert 95 <= bisection.capacity <= 100 and probes <= 9


def test_where_nothing_passes_the_capacity_is_none() -> None:
    """And of a ceiling of nothing nothing is tried."""
    assert Bisection(0.0).next_rate() is None
    bisection = Bisection(100.0)
    while (rate := bisection.next_rate()) is not None:
        bisection.note(rate, passed=False)
    assert bisection.capacity == 0


def test_a_backlog_that_grows_is_told_from_chance() -> None:
    """At 100 runs/s of 0.2 s about 20 are open; ten percent too much leaves fifty more after five seconds."""
    assert not grows(20, 40, 500)
    assert not grows(3, 17, 76)
    assert grows(20, 70, 500)
    assert not grows(0, 0, 0)
