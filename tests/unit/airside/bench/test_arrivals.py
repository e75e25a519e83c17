"""Schedules: how many arrive, when, and from whom."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.bench.arrivals import SHAPES, Arrival, Zipf, arrivals, shape_of, together
from airside.stack.errors import InvalidInput

LONG_S = 1_000.0


def one(_: Random) -> str:
    """Choose always the same."""
    return "a"


@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.floats(0.1, 50))
def test_arrivals_are_in_order_within_the_time_and_repeatable(shape: str, seed: int, rate: float) -> None:
    """Whatever the shape: of the same seed come the same."""
    found = list(arrivals(rate, 10, shape_of(shape, 10), one, Random(seed)))
    assert found == sorted(found) and all(0 <= each.at_s < 10 for each in found)
    assert found == list(arrivals(rate, 10, shape_of(shape, 10), one, Random(seed)))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_offers_the_same(shape: str) -> None:
    """As many as the mean rate says, give or take four standard deviations."""
    count = sum(1 for _ in arrivals(20, LONG_S, shape_of(shape, LONG_S), one, Random(7)))
    assert abs(count - 20 * LONG_S) < 4 * (20 * LONG_S) ** 0.5


def test_gaps_of_a_poisson_process_vary_as_much_as_they_are_long() -> None:
    """Their standard deviation is their mean; a clock's would be none."""
    times = [each.at_s for each in arrivals(20, LONG_S, shape_of("poisson", LONG_S), one, Random(3))]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert 0.95 < deviation / mean < 1.05


def test_bursts_are_a_second_of_every_five() -> None:
    """At six times the rate of the other four."""
    found = Counter(int(each.at_s % 5) for each in arrivals(50, LONG_S, shape_of("bursts", LONG_S), one, Random(1)))
    assert 5 < found[4] / (sum(found[second] for second in range(4)) / 4) < 7


def test_a_ramp_ends_three_times_as_high_as_it_began() -> None:
    """Half of the mean rate, and one and a half."""
    found = Counter(int(each.at_s // 100) for each in arrivals(50, LONG_S, shape_of("ramp", LONG_S), one, Random(1)))
    assert 2.2 < found[9] / found[0] < 3.2


def test_nothing_arrives_at_no_rate_and_of_no_other_shape() -> None:
    """A rate of 0 ends at once; a shape that there is not is refused."""
    assert list(arrivals(0, 10, shape_of("poisson", 10), one, Random(1))) == []
    with pytest.raises(InvalidInput, match="poisson, bursts, ramp"):
        shape_of("waves", 10)


@given(st.integers(1, 50), st.floats(0, 3), st.integers(0, 2**32))
def test_only_names_that_there_are_are_chosen(count: int, exponent: float, seed: int) -> None:
    """By any exponent."""
    names = [str(i) for i in range(count)]
    assert Zipf(names, exponent).pick(Random(seed)) in names


def test_zipf_chooses_the_nth_in_proportion_to_its_rank() -> None:
    """With an exponent of 1 the first twice as often as the second; with 0 all alike."""
    names, rng = ["a", "b", "c", "d"], Random(5)
    skewed = Counter(Zipf(names, 1).pick(rng) for _ in range(20_000))
    assert 1.85 < skewed["a"] / skewed["b"] < 2.15 and 3.6 < skewed["a"] / skewed["d"] < 4.4
    alike = Counter(Zipf(names, 0).pick(rng) for _ in range(20_000))
    assert max(alike.values()) / min(alike.values()) < 1.1


def test_streams_are_merged_by_time() -> None:
    """An aggressor's arrivals stand among the others'."""
    first, second = [Arrival(1, "a"), Arrival(3, "a")], [Arrival(2, "b")]
    assert [each.tenant for each in together([iter(first), iter(second)])] == ["a", "b", "a"]
