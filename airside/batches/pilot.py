"""A pilot: some rows of a batch are run, and what all of them will take is estimated from these, with an interval.

The rows are drawn evenly at random (reservoir sampling: J. Vitter, Random Sampling with a Reservoir, 1985); the
interval is the bootstrap's for the mean (`scipy.stats.bootstrap`, percentile), times the rows that are left.  How rows
that cost much are spread is not known: a few in ten thousand that fifty do not show are not in the interval.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from airside.actors.client.client import Stack
from airside.batches.output import Output
from airside.batches.parts import read_parts
from airside.batches.rows import Source
from airside.batches.run import run_batch
from airside.stack.errors import InvalidInput

CONFIDENCE = 0.95
_RESAMPLES = 2_000
_USED = ("tokens", "cost_microusd", "steps")


def run_pilot(
    stack: Stack, source: Source, *, out: Path | str, rows: int, seed: int = 0, **more: Any
) -> dict[str, Any]:
    """Run a sample of the rows as the beginning of a batch, and return what the rest will take.

    The batch is left as `pilot`: taken up again it runs the others.  `seconds` is the rest's at the pilot's pace, which
    is that of so few jobs at once: with more of them under way it is less.  Raises `InvalidInput` for an empty input.
    """
    if rows < 1:
        raise InvalidInput(f"pilot: {rows!r:.20} is no number of rows of at least 1")
    chosen, total = _sample(source, rows, random.Random(seed))  # noqa: S311 - a sample, no secret
    report = run_batch(stack, source, out=out, only=frozenset(chosen), **more)
    place = Output.of(out, source.paths).place
    used = {name: list[float]() for name in _USED}
    ended_us, active_s = list[int](), list[float]()
    for batch in read_parts(place, ("row", "ended_us", "seconds", *_USED)):
        for row, at_us, seconds, *values in zip(
            *(batch.column(n).to_pylist() for n in batch.schema.names), strict=True
        ):
            if row in chosen:
                ended_us.append(at_us)
                active_s.append(float(seconds or 0))
                for name, value in zip(_USED, values, strict=True):
                    used[name].append(float(value or 0))
    left = total - len(chosen)
    return {
        "batch": report.batch,
        "pilot_rows": len(chosen),
        "rows": total,
        "left": left,
        "completed": report.completed,
        "state": report.state,
        "outcomes": {f"{status}/{reason}": n for (status, reason), n in report.turn.outcomes.most_common()},
        "confidence": CONFIDENCE,
        **{name: extrapolated(values, left, seed) for name, values in used.items()},
        "seconds": round(_seconds_each(ended_us, active_s) * left, 1),
    }


def _seconds_each(ended_us: Sequence[int], active_s: Sequence[float]) -> float:
    """Return how long a row takes at the pilot's pace: from its first result on, for the first waits for processes."""
    if not ended_us:
        return 0.0
    return ((max(ended_us) - min(ended_us)) / 1e6 + float(np.median(active_s))) / len(ended_us)


def _sample(source: Source, rows: int, rng: random.Random) -> tuple[set[int], int]:
    chosen: list[int] = []
    total = 0
    for row in source.rows():
        total += 1
        if len(chosen) < rows:
            chosen.append(row.number)
        elif (at := rng.randrange(total)) < rows:
            chosen[at] = row.number
    if not chosen:
        raise InvalidInput("pilot: the input has no rows")
    return set(chosen), total


def extrapolated(values: Sequence[float], left: int, seed: int = 0) -> dict[str, float]:
    """Return what `left` further rows take together, by the mean of those that were run: estimate, low, high."""
    sample = np.asarray(values, float)
    mean = float(sample.mean()) if len(sample) else 0.0
    low = high = mean
    if len(sample) > 1 and sample.std() > 0:
        rng = np.random.default_rng(seed)
        interval = bootstrap(
            (sample,), np.mean, n_resamples=_RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=rng
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {"estimate": round(mean * left), "low": round(low * left), "high": round(high * left)}
