"""Histograms: precise enough, of bounded size, the same after they were added up or kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.bench.latencies import Latencies, merged, read_histograms, write_histograms

SECONDS = st.lists(st.floats(1e-6, 3_600), min_size=1, max_size=200)


def of(seconds: list[float]) -> Latencies:
    """Return a histogram of these."""
    found = Latencies()
    for each in seconds:
        found.record(each)
    return found


@given(SECONDS)
def test_percentiles_are_right_to_one_percent(seconds: list[float]) -> None:
    """Beside those of the sorted list, by nearest rank, and a microsecond."""
    found, ordered = of(seconds), sorted(seconds)
    for percentile in (50.0, 99.0):
        rank = max(1, int(percentile * len(ordered) / 100 + 0.5))
        assert found.percentile_s(percentile) == pytest.approx(ordered[rank - 1], rel=0.011, abs=2e-6)


@given(SECONDS, SECONDS)
def test_histograms_that_are_added_up_are_that_of_all(first: list[float], second: list[float]) -> None:
    """To their precision, whether before or after they were written down."""
    whole, parts = of(first + second).summary(), [of(first), of(second)]
    for found in (merged(parts), merged(Latencies.decoded(each.encoded()) for each in parts)):
        assert found.summary() == pytest.approx(whole, rel=0.011, abs=2e-6)


def test_a_file_of_histograms_is_read_again(tmp_path: Path) -> None:
    """By tag; those without values are left out."""
    write_histograms(tmp_path / "a.hlog", {"tenant-1/whole": of([0.5, 1.0]), "tenant-2/gate": Latencies()})
    found = read_histograms(tmp_path / "a.hlog")
    assert set(found) == {"tenant-1/whole"} and found["tenant-1/whole"].count == 2


def test_what_is_out_of_range_counts_at_the_edge() -> None:
    """Nothing is left out: a run that took a day was no fast one."""
    found = of([-1.0, 0.0, 86_400.0])
    assert found.count == 3 and found.percentile_s(100) == 3_600 and found.percentile_s(1) <= 2e-6
    assert Latencies().percentile_s(99) == 0 and Latencies().summary()["count"] == 0
