"""Jain's index, and what a tenant's share is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.bench.fairness import jain, shares_of


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=50))
def test_the_index_lies_between_one_for_all_and_one(shares: list[float]) -> None:
    """And does not change if everybody gets a tenth."""
    assert 1 / len(shares) - 1e-9 <= jain(shares) <= 1 + 1e-9
    assert jain([share / 10 for share in shares]) == pytest.approx(jain(shares))


def test_the_index_of_cases_that_are_known() -> None:
    """All alike, all to one of four, and nobody."""
    assert jain([0.3] * 7) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([]) == jain([0, 0]) == 1


def test_a_share_is_of_what_was_asked_for() -> None:
    """Who asked for ten times as much has no larger one; who asked for nothing has none."""
    assert shares_of({"a": 100, "b": 10, "c": 0}, {"a": 50, "b": 10}) == [0.5, 1.0]
