"""Objectives: how they are written, and when they are met."""

from __future__ import annotations

import pytest

from airside.bench.options import BenchOptions
from airside.bench.slo import Objective, missed, parse_slo
from airside.stack.errors import InvalidInput


def test_objectives_are_read_in_seconds_and_milliseconds() -> None:
    """In the order in which they stand, blanks do not matter."""
    assert parse_slo("p99<2s, p50 < 300ms,p99.9<=4.5s") == (
        Objective(percentile=99, below_s=2),
        Objective(percentile=50, below_s=0.3),
        Objective(percentile=99.9, below_s=4.5),
    )
    assert str(parse_slo("p99.9<1500ms")[0]) == "p99.9<1.5s"


@pytest.mark.parametrize(
    "text", ["", "p99", "99<2s", "p99<2", "p99>2s", "p100<2s", "p0<1s", "p99<0s", "p99<2s,", "p99<2m"]
)
def test_what_is_no_objective_is_named(text: str) -> None:
    """Rather than taken for another one."""
    with pytest.raises(InvalidInput, match="--slo"):
        parse_slo(text)


def test_an_objective_is_missed_at_its_bound() -> None:
    """It says below; what is said of one that is missed names what was measured."""
    objectives = parse_slo("p99<2s,p50<1s")
    assert missed(objectives, lambda percentile: 1.999 if percentile == 99 else 0.5) == []
    assert missed(objectives, lambda percentile: 2.0 if percentile == 99 else 0.5) == [
        "p99<2s is missed: p99 = 2.000 s"
    ]


def test_the_lag_of_the_generator_is_bounded_by_the_tightest_objective() -> None:
    """A tenth of it."""
    assert BenchOptions(objectives=parse_slo("p99<2s,p50<300ms")).lag_bound_s == pytest.approx(0.03)


def test_an_objective_finer_than_the_generator_is_refused() -> None:
    """Whatever was measured would be void."""
    with pytest.raises(InvalidInput, match="below 100 ms"):
        BenchOptions(objectives=parse_slo("p99<2s,p50<90ms"))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("tenants", 0, "--tenants 0"),
        ("load", 3.0, "--load 3"),
        ("duration_s", 0.0, "--duration 0"),
        ("zipf", float("nan"), "--zipf nan"),
        ("shape", "waves", "--arrivals 'waves'"),
        ("mode", "shared", "--mode 'shared'"),
    ],
)
def test_an_option_out_of_bounds_is_refused_before_anything_starts(field: str, value: object, said: str) -> None:
    """By the name of the command's option."""
    with pytest.raises(InvalidInput, match=said):
        BenchOptions(objectives=parse_slo("p99<2s"), **{field: value})  # type: ignore[arg-type]
