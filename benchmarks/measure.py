"""What the benchmarks share: the machine, CPU and memory of a process tree, percentiles, the last line."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airside.bench.machine import cpu_seconds, machine, memory_mib, tree

__all__ = ["cpu_seconds", "last_line", "machine", "median", "memory_mib", "percentile", "result_file", "tree"]


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; `share` in [0, 1]."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(samples: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(samples)


RESULTS = Path(__file__).parent / "results"


def result_file(name: str) -> Path:
    """Return where a benchmark's raw figures go by default; the folder is git's to ignore."""
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{name}.json"


def last_line(figures: dict[str, Any]) -> None:
    """Print the figures as the one JSON object that ends the output."""
    print(json.dumps(figures), flush=True)
