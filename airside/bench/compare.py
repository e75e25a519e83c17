"""Whether two benchmarks differ by more than their own noise: bootstrap intervals of the differences of their figures.

A figure's samples are its windows, one after the other; the interval is of the difference of their means.  Windows that
follow each other are alike, so that the intervals are somewhat too narrow.  What has one value only (the capacity) has
no interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

CONFIDENCE = 0.95
LEAST_WINDOWS = 5
RESAMPLES = 9_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure of both, and between what bounds the second's lies above the first's (None: nobody can say)."""

    name: str
    first: float
    second: float
    low: float | None = None
    high: float | None = None

    @property
    def is_certain(self) -> bool:
        """Whether no difference at all lies outside of the bounds."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**{k: v for k, v in asdict(self).items() if k != "name"}, "is_certain": self.is_certain}


def interval(first: list[float], second: list[float], *, seed: int = 0) -> tuple[float, float] | None:
    """Return the bounds of mean(second) - mean(first), by resampling both; None for too few samples."""
    if min(len(first), len(second)) < LEAST_WINDOWS:
        return None
    import numpy as np
    from scipy.stats import bootstrap

    def difference(one: Any, other: Any, axis: int) -> Any:
        return np.mean(other, axis=axis) - np.mean(one, axis=axis)

    # Not BCa: it has no answer where all samples are alike.
    found = bootstrap(
        (first, second),
        difference,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def compared(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """Return how the second results differ from the first, figure by figure of what both have."""
    found = [
        Difference(name=name, first=float(first[name]), second=float(second[name]))
        for name in ("ceiling_runs_per_s", "capacity_runs_per_s")
        if first.get(name) and second.get(name)
    ]
    for phase in first["phases"].keys() & second["phases"].keys():
        windows = first["phases"][phase]["windows"], second["phases"][phase]["windows"]
        found += _of_phase(phase, *windows)
    return sorted(found, key=lambda each: ("." in each.name, each.name))


def _of_phase(phase: str, first: list[dict[str, float]], second: list[dict[str, float]]) -> Iterator[Difference]:
    if not first or not second:
        return
    for name in first[0].keys() & second[0].keys():
        samples = [window[name] for window in first], [window[name] for window in second]
        bounds = interval(*samples) or (None, None)
        means = [sum(each) / len(each) for each in samples]
        yield Difference(name=f"{phase}.{name}", first=means[0], second=means[1], low=bounds[0], high=bounds[1])


def lines(differences: Iterable[Difference]) -> list[str]:
    """Return the comparison for people, a line a figure."""
    found = []
    for each in differences:
        bounds = "no interval" if each.low is None else f"{each.low:+.4g} to {each.high:+.4g}"
        said = "differs" if each.is_certain else "within the noise" if each.low is not None else "one value each"
        found.append(f"{each.name:32} {each.first:10.4g} {each.second:10.4g}  {bounds:24} {said}")
    return found
