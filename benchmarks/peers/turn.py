"""One turn of a peer: it is warmed up, measured under the load and alone, and prints its sample as the last line.

A turn is a process of its own, so that no other's idle processes are measured with it.  Nothing here imports Airside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import cpu_seconds, memory_mib, tree
from benchmarks.peers.ledger import RUNS, STEPS, Run, workload

Load = Callable[[Sequence[Run]], None]
"""Makes runs, all at once, and returns when all have ended; raises if one did not do all its steps."""

SOLO_RUNS = 30
MARK = "sample: "


def measured(load: Load) -> dict[str, Any]:
    """Return a warm peer's sample: under the load, and one run after the other.

    It is warm when it has made the whole workload once: what starts or loads at first use is not measured.  CPU and
    memory are of the whole process tree: the peer's servers, workers and client.
    """
    load(workload("warm", RUNS))
    runs = workload("measured", RUNS)
    before, began = cpu_seconds(tree()), time.monotonic()
    load(runs)
    seconds, cpu = time.monotonic() - began, cpu_seconds(tree()) - before
    steps = len(runs) * STEPS
    return {
        "steps": steps,
        "steps_per_s": round(steps / seconds, 1),
        "cpu_s_per_1000": round(cpu / steps * 1000, 3),
        "memory_mib": round(memory_mib(tree())),
        "solo_ms": [_solo_ms(load, run) for run in workload("solo", 2)[:SOLO_RUNS]],
    }


def _solo_ms(load: Load, run: Run) -> float:
    """Return the milliseconds a step takes of a run that is alone, from asking for it to its answer."""
    began = time.monotonic()
    load([run])
    return round((time.monotonic() - began) * 1000 / STEPS, 3)


def show(sample: dict[str, Any]) -> None:
    """Print a sample where `sample_of` finds it."""
    print(MARK + json.dumps(sample), flush=True)


def sample_of(output: str) -> dict[str, Any] | None:
    """Return the sample that a turn printed, or none."""
    for line in reversed(output.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    return None
