"""What a governed step costs in messages between processes, and what its entries cost in commits.

They are counts, not times: a slow machine only makes batches larger.  What a step costs within a process is held by
`tests/unit/stack/cycle/test_step_costs.py`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import airside
from airside.actors.client.client import Stack
from benchmarks.ledger_app import jobs, ledger_app

pytestmark = pytest.mark.ray

TENANTS, RUNS, STEPS = 4, 5, 8


def counts(stack: Stack) -> Counter[str]:
    """Return how often each method was asked, and the journal's entries and commits."""
    found: Counter[str] = Counter()
    status: dict[str, dict[str, Any]] = stack.status()
    for name, layer in status.items():
        found.update({f"{name.partition('/')[0]}.{method}": asked for method, asked in layer["asked"].items()})
    found.update({"appended": status["journal"]["appended"], "commits": status["journal"]["commits"]})
    return found


def test_a_step_is_so_many_messages_and_a_run_so_many_more(local_ray: None, tmp_path: Path) -> None:
    with airside.start(
        ledger_app(TENANTS), stack="messages", state_dir=tmp_path, executors=1, mode="pooled", pool_size=1
    ) as stack:
        stack.map(jobs(TENANTS, 1, 1), progress=False)
        before = counts(stack)
        results = stack.map(jobs(TENANTS, RUNS, STEPS), progress=False)
        assert all(result.ok for result in results)
        spent = counts(stack) - before
    runs, steps = TENANTS * RUNS, TENANTS * RUNS * STEPS
    assert spent["policy.decide"] == spent["executor.execute"] == steps
    assert spent["memory.retrieve"] == steps + runs  # the answer is a step of the agent's, too
    for once_a_run in ("ingress.submit", "driver.admit", "runtime.activate", "driver.report"):
        assert spent[once_a_run] == runs
    assert spent["policy.spend"] == 0, "nothing here has a price that is asked for"
    # What is intended is written before or while it is carried out, what came of it beside what comes next.
    assert spent["journal.append"] <= 2 * steps + 2 * runs
    assert spent["appended"] == 5 * steps + 8 * runs
    assert spent["commits"] < spent["journal.append"]
    assert sum(spent[each] for each in spent if "." in each) <= 5 * steps + 12 * runs
