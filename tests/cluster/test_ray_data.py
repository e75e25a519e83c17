"""Agents over the rows of a Ray Dataset: whatever Ray runs again, a row comes out once, and is paid for once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import airside
from airside.ray_data import map_agents
from benchmarks.ledger_app import ledger_app
from benchmarks.ray_data import DECISIONS, count, play
from tests.on_ray import a_stack
from tests.test_documents import ROOT, blocks, name_of

pytestmark = pytest.mark.ray

PAGE = ROOT / "docs" / "guide" / "ray-data.md"


def test_a_killed_workers_rows_come_out_once_and_are_paid_for_once(local_ray: None, tmp_path: Path) -> None:
    """Two hundred rows, a worker of Ray Data killed in the middle."""
    with airside.start(ledger_app(1, memory=False), stack="rows", state_dir=tmp_path, executors=1) as stack:
        found = play(stack, 200, 2, batch_size=20)
        assert found.pop("seconds") > 0
        assert found == {"rows": 200, "results": 200, "paid_twice": 0, "killed": 1, "audit_ok": True}


def test_rows_that_are_no_jobs_are_results_and_the_same_rows_are_the_same_runs(local_ray: None, tmp_path: Path) -> None:
    """What is wrong with a row is said beside it; used again, from the state directory, nothing is decided anew."""
    import ray.data

    given: list[dict[str, Any]] = [
        {
            "order": f"o-{number}",
            "request": "look",
            "who": "ana",
            "actions": '[{"tool": "look", "args": {"topic": "t"}}]',
        }
        for number in range(6)
    ]
    given[1]["who"] = None
    given[2]["actions"] = "[{}]"
    given[3]["order"] = None
    given[5] |= {"order": "o-4", "request": "another"}
    columns = {"request": "request", "tenant": "=acme", "principal": "who", "inputs": "inputs"}
    rows = [{**row, "inputs": f'{{"actions": {row.pop("actions")}}}'} for row in given]
    with a_stack(tmp_path, "data", executors=1) as stack:
        mapped = map_agents(
            ray.data.from_items(rows, override_num_blocks=1), stack, batch="b", columns=columns, id_column="order"
        )
        assert count(stack, "SELECT count(*) FROM runs") == 0, "it is lazy"
        found = sorted(mapped.take_all(), key=lambda row: rows.index({name: row[name] for name in rows[0]}))
        assert [row["result_status"] for row in found] == ["completed", *["refused"] * 3, "completed", "refused"]
        assert Counter(bool(row["result_problem"]) for row in found) == {True: 4, False: 2}
        for row, said in (
            (1, "tenant and principal"),
            (2, "names its tool"),
            (3, "order: "),
            (5, "asks for something else"),
        ):
            assert said in found[row]["result_problem"], found[row]
        before = count(stack, DECISIONS)
        again = map_agents(
            ray.data.from_items(rows, override_num_blocks=3), tmp_path, batch="b", columns=columns, id_column="order"
        )
        runs = {row["order"]: row["result_run_id"] for row in again.take_all() if row["result_run_id"]}
        assert runs == {row["order"]: row["result_run_id"] for row in found if row["result_run_id"]}
        assert count(stack, DECISIONS) == before


def test_the_pages_example_does_what_the_page_says(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRSIDE_EXECUTORS", "1")
    names: dict[str, Any] = {"__name__": "a_page"}
    for block in [block for block in blocks("python") if block.page == PAGE]:
        exec(compile(block.text, name_of(block), "exec"), names)
