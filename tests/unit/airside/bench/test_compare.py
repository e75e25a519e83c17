"""Comparisons: what differs is found, what is noise is not."""

from __future__ import annotations

from random import Random
from typing import Any

from airside.bench.compare import LEAST_WINDOWS, compared, interval, lines


def results(p99_s: list[float], capacity: float = 100.0) -> dict[str, Any]:
    """Return results with these windows."""
    windows = [{"p99_s": each, "runs_per_s": 50.0} for each in p99_s]
    return {"capacity_runs_per_s": capacity, "ceiling_runs_per_s": 120.0, "phases": {"alone": {"windows": windows}}}


def noisy(mean: float, seed: int, count: int = 30) -> list[float]:
    """Return samples about a mean."""
    rng = Random(seed)
    return [rng.gauss(mean, 0.1) for _ in range(count)]


def test_a_difference_larger_than_the_noise_is_certain() -> None:
    """And its interval has what it is."""
    low, high = interval(noisy(1.0, 1), noisy(1.5, 2)) or (0, 0)
    assert 0.3 < low < 0.5 < high < 0.7


def test_of_the_same_no_difference_is_certain_more_often_than_one_in_twenty_says() -> None:
    """Of forty pairs."""
    bounds = [interval(noisy(1.0, 2 * pair), noisy(1.0, 2 * pair + 1)) or (1, 1) for pair in range(40)]
    assert sum(not low <= 0 <= high for low, high in bounds) <= 6


def test_samples_that_are_all_alike_have_an_interval() -> None:
    """Of no width, where the method that corrects for bias has none."""
    assert interval([1.0] * 10, [1.0] * 10) == (0.0, 0.0)


def test_too_few_samples_have_none() -> None:
    """Nobody can say."""
    assert interval([1.0] * (LEAST_WINDOWS - 1), [2.0] * 30) is None


def test_figures_of_both_are_compared_by_name() -> None:
    """What has one value only has no interval, and is not said to differ."""
    found = {each.name: each for each in compared(results(noisy(1, 1)), results(noisy(1.5, 2), capacity=110.0))}
    assert set(found) == {"ceiling_runs_per_s", "capacity_runs_per_s", "alone.p99_s", "alone.runs_per_s"}
    assert found["alone.p99_s"].is_certain and not found["alone.runs_per_s"].is_certain
    assert found["capacity_runs_per_s"].low is None and not found["capacity_runs_per_s"].is_certain
    shown = lines(found.values())
    assert len(shown) == 4 and any("differs" in line for line in shown)
