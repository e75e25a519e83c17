"""Rows of a Ray Dataset as jobs of a batch, without Ray: what a job is known by, and what of a row that is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airside import ray_data
from airside.actors.client.results import RunResult
from airside.actors.jobs import BadLine, Job
from airside.batches.columns import Columns
from airside.stack.errors import InvalidInput
from airside.stack.reasons import ReasonCode, RunStatus

WHO = {"request": "r", "tenant": "acme", "principal": "ana"}


class OneStack:
    """A stack whose runs all complete, the last one first; it notes the jobs it is given."""

    job_inputs = None

    def __init__(self) -> None:
        self.jobs: list[Job | BadLine] = []

    def stream(self, jobs: Iterable[Job | BadLine], **_: Any) -> Iterator[RunResult]:
        """Yield a result for each."""
        self.jobs = list(jobs)
        for place, job in reversed(list(enumerate(self.jobs))):
            is_job = isinstance(job, Job)
            yield RunResult(
                job_id=job.job_id,
                run_id=f"run-{job.job_id}" if is_job else "",
                status=RunStatus.COMPLETED if is_job else RunStatus.REFUSED,
                reason_code=ReasonCode.COMPLETED if is_job else ReasonCode.REQUEST_INVALID,
                detail="" if isinstance(job, Job) else job.message,
                answer=place,
                place=place,
            )


def played(
    rows: list[dict[str, Any]] | Any,
    columns: dict[str, str] | None = None,
    id_column: str | None = None,
    *,
    batch: str = "b",
    prefix: str = "result_",
) -> tuple[list[dict[str, Any]], OneStack]:
    """Return the rows with their results, and the stack."""
    stack = OneStack()
    mapped = ray_data._with_id(Columns.of(columns), id_column)
    plan = ray_data._Plan(Path(), "s", batch, mapped, id_column or "", prefix, None, 0)
    table = pa.Table.from_pylist(rows) if isinstance(rows, list) else rows
    return ray_data._with_results(table, plan, stack).to_pylist(), stack  # type: ignore[arg-type]


def nonces(rows: list[dict[str, Any]], **more: Any) -> list[bytes]:
    """Return what the jobs of rows are known by."""
    _, stack = played(rows, **more)
    return [job.nonce for job in stack.jobs if isinstance(job, Job)]


def test_a_job_is_known_by_its_batch_and_id_whatever_block_it_is_in() -> None:
    rows = [{**WHO, "job_id": f"j-{number}"} for number in range(3)]
    known = nonces(rows)
    assert len(set(known)) == 3
    assert nonces(rows[::-1]) == known[::-1] and nonces(rows[2:]) == known[2:]
    assert not set(nonces(rows, batch="c")) & set(known)
    renamed = [{("order" if name == "job_id" else name): value for name, value in row.items()} for row in rows]
    assert nonces(renamed, id_column="order") == known
    assert nonces(renamed, id_column="order", columns={name: name for name in WHO}) == known


def test_without_an_id_a_job_is_known_by_what_it_asks_for() -> None:
    """Not by the order of its columns, nor by its token, which is signed anew each time."""
    first, *others = nonces(
        [
            {**WHO, "labels": '["a"]', "token": "t-1"},
            {**WHO, "labels": '["a"]', "token": "t-2"},
            {**WHO, "labels": '["b"]', "token": "t-1"},
            {**WHO, "request": "another", "labels": '["a"]', "token": "t-1"},
        ]
    )
    assert [each == first for each in others] == [True, False, False]
    assert nonces([dict(reversed({**WHO, "labels": '["a"]'}.items()))]) == [first]


def test_results_stand_beside_their_rows_with_the_columns_there_were() -> None:
    found, _ = played([{**WHO, "job_id": f"j-{number}"} for number in range(3)])
    assert [row["result_answer"] for row in found] == ["0", "1", "2"]
    assert [row["result_job_id"] for row in found] == [row["job_id"] for row in found] == ["j-0", "j-1", "j-2"]
    assert found[0]["result_status"] == "completed" and found[0]["result_problem"] == ""


def test_a_row_that_is_no_job_is_a_result_with_its_problem() -> None:
    rows = [
        {**WHO, "order": "o-1", "labels": None},
        {**WHO, "order": None},
        {**WHO, "order": ""},
        {**WHO, "order": "o-2", "labels": "no JSON"},
        {**WHO, "order": "o-3", "principal": None},
        {**WHO, "order": "x" * 300},
    ]
    found, _ = played(rows, id_column="order")
    assert [bool(row["result_problem"]) for row in found] == [False] + [True] * 5
    assert [row["result_status"] for row in found] == ["completed"] + ["refused"] * 5
    assert found[1]["result_problem"] == "order: the row has no id there"
    assert "tenant and principal" in found[4]["result_problem"] and not found[4]["result_problem"].startswith("line")
    assert found[4]["result_job_id"] == "o-3"


def test_no_rows_have_the_columns_of_results_too() -> None:
    """As Ray Data asks for a schema."""
    found = ray_data._with_results(
        pa.table({}),
        ray_data._Plan(Path(), "s", "b", Columns.of(None), "", "r_", None, 0),
        OneStack(),  # type: ignore[arg-type]
    )
    assert found.schema.names == [f"r_{field.name}" for field in ray_data._FIELDS]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{**WHO, "status": "old"}], {"prefix": ""}, "'status' already"),
        ([WHO], {"id_column": "order"}, "id_column 'order' is to be there"),
        ([{**WHO, "order": "o", "job_id": "j"}], {"id_column": "order"}, "no other column job_id"),
        ([WHO], {"columns": {"request": "question"}}, "no column 'question'"),
        ([WHO], {"columns": {"job_id": "request"}, "id_column": "request"}, "leave one of them out"),
    ],
)
def test_what_is_wrong_with_the_dataset_is_said_before_a_job_is_submitted(
    rows: list[dict[str, Any]], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        played(rows, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": "no name"}, "batch"),
        ({"batch": "b", "priority": 1000}, "priority"),
        ({"batch": "b", "batch_size": 0}, "batch_size"),
        ({"batch": "b", "lane": "slow"}, "lane"),
        ({"batch": "b", "columns": {"request": 1}}, "columns"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(options: dict[str, Any], said: str) -> None:
    class Dataset:
        def map_batches(self, *_: Any, **__: Any) -> None: ...

    with pytest.raises(InvalidInput, match=said):
        ray_data.map_agents(Dataset(), ".airside", **options)
    with pytest.raises(InvalidInput, match="no Ray Dataset"):
        ray_data.map_agents([], ".airside", **options)


def test_without_pandas_it_says_what_is_missing() -> None:
    """By the name of the extra that brings it."""
    code = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "pandas" else real(name, *more)
import airside.ray_data
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ImportError: airside.ray_data: Ray Data needs pandas: pip install 'airside[data]'" in done.stderr
