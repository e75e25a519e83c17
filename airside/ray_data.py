"""Agents over the rows of a Ray Dataset: each row is a job of a batch, and whoever submits it again finds its run.

Ray Data runs a block's rows again when it loses the worker that had them.  A job is known by its batch and its id
(`Job.in_batch`), and neither depends on workers, blocks or their order: run again, the same rows are the same runs,
whose results are waited for and not paid for again.

The workers do nothing but wait: the agents run where they always do, in the stack's own processes.  So workers take no
CPU from Ray's count, and are placed on the stack's node, where its state directory and its keys are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

import airside
from airside.actors.client.client import Stack
from airside.actors.client.results import COLUMNS, RunResult
from airside.actors.jobs import BadLine, Job, batch_job, check_lane, parse_rows
from airside.batches.columns import Columns
from airside.batches.result_schema import SCHEMA
from airside.batches.rows import Read
from airside.batches.table_rows import table_rows
from airside.stack.calling import explain_misuse
from airside.stack.canonical import canonical
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.values import ModelLane

__all__ = ["map_agents"]

if importlib.util.find_spec("pandas") is None:
    raise ImportError("airside.ray_data: Ray Data needs pandas: pip install 'airside[data]'")

_ROWS_AT_ONCE = 200
"""Whose inputs the app's model reads in one call."""

_FIELDS = [SCHEMA.field(name) for name in (*COLUMNS, "problem")]
"""Of a result; its row, attempt and digest are those of parts, which there are none of here."""

_NOT_CONTENT = ("job_id", "token")
"""Of a job, what does not tell what it asks for: tokens are signed anew each time."""

_SOLE_LINE = 1
"""The number that every row is read under; in a block it would say nothing, and is taken out of what is said."""


class _Plan(NamedTuple):
    """What a worker is told."""

    state_dir: Path
    stack: str
    batch: str
    columns: Columns
    id_column: str
    prefix: str
    lane: ModelLane | None
    priority: int


@explain_misuse("map_agents", how="map_agents(dataset, stack, batch=...)")
def map_agents(
    dataset: Any,
    stack_or_state_dir: Stack | str | Path,
    *,
    batch: str,
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    prefix: str = "result_",
    concurrency: int | tuple[int, int] = (1, 4),
    batch_size: int = 256,
    lane: ModelLane | None = None,
    priority: int = 0,
) -> Any:
    """Return a Dataset of the given rows and, in further columns, what became of each as a job on a running stack.

    Lazy: nothing is submitted until the Dataset is used.  The stack must run on the Ray of this process, which is
    where Ray Data has its workers, and be up until the Dataset has been used.

    `columns` maps a job's fields to columns or to `=constants`; without it every column is the field of its name.  The
    further columns are called `prefix` and `job_id`, `run_id`, `status`, `reason_code`, `detail`, `answer` (JSON),
    `steps`, `tool_calls`, `tokens`, `cost_microusd`, `seconds`, `problem`.  A row that is no job is a result too: its
    `problem` says what is wrong, and no other row is harmed.

    A job is paid for once in a batch, whatever Ray runs again, and in any later program that gives the same `batch`;
    another name runs everything anew.  Its id is what is in `id_column` (which then is no field of its own); without
    one the row's own `job_id`, or else a digest of what the row asks for: rows that ask for the same are one run.  Of
    two that ask for different things under one id, the second is a result with a problem.

    `concurrency` workers (or from so many to so many, as Ray Data finds work) wait for `batch_size` jobs each,
    which all end before the next are taken.  `lane` and `priority` are those of `airside run`.

    Raises `InvalidInput` for what cannot be meant, `Misuse` if no stack runs there or this process is in another Ray.
    Using the Dataset raises what Ray makes of `InvalidInput` for a column that is mapped and not there or is there by
    a result's name, and of `LayerUnavailable` for a stack that is gone; used again, it goes on with the same runs.
    """
    if not hasattr(dataset, "map_batches"):
        raise InvalidInput(f"dataset: type {type(dataset).__name__:.60} is no Ray Dataset")
    batch_job(batch, 1, priority)
    check_lane(lane)
    if type(batch_size) is not int or batch_size < 1:
        raise InvalidInput(f"batch_size: {batch_size!r:.40} is no number of rows of at least 1")
    mapped = _with_id(Columns.of(columns), id_column)
    stack, node = _found(stack_or_state_dir)
    plan = _Plan(stack.state_dir, stack.cell.stack, batch, mapped, id_column or "", prefix, lane, priority)
    return dataset.map_batches(
        _MapAgents,
        fn_constructor_args=(plan,),
        batch_size=batch_size,
        batch_format="pyarrow",
        concurrency=concurrency,
        num_cpus=0,
        label_selector={"ray.io/node-id": node},
        udf_modifying_row_count=False,
    )


def _found(given: Stack | str | Path) -> tuple[Stack, str]:
    """Return the stack, and on which of Ray's nodes it is."""
    if isinstance(given, Stack):
        node = given.status().get("driver", {}).get("node")
        if not node:
            raise LayerUnavailable("the stack does not say on which node it is: its driver does not answer")
        return given, str(node)
    if not isinstance(given, str | os.PathLike):
        raise InvalidInput(f"stack_or_state_dir: type {type(given).__name__:.60} is no Stack, and no path of one")
    with airside.connect(given) as stack:
        return _found(stack)


def _with_id(columns: Columns, id_column: str | None) -> Columns:
    """Return a mapping that has the id; where every column is a field, the worker renames it."""
    if id_column is None or columns.given is None:
        return columns
    if "job_id" in columns.given:
        raise InvalidInput("columns: job_id is given by id_column as well: leave one of them out")
    return Columns.of({**columns.given, "job_id": id_column})


class _MapAgents:
    """One of Ray Data's workers."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._stack = airside.connect(plan.state_dir, address="auto", stack=plan.stack)

    def __call__(self, table: Any) -> Any:
        """Run the rows of a table; return it with the results' columns."""
        return _with_results(table, self._plan, self._stack)


def _with_results(table: Any, plan: _Plan, stack: Stack) -> Any:
    fields = [field.with_name(plan.prefix + field.name) for field in _FIELDS]
    for field in fields:
        if field.name in table.schema.names:
            raise InvalidInput(f"the dataset has a column {field.name!r} already: give map_agents another prefix")
    found: list[dict[str, Any]] = [{}] * table.num_rows
    if table.num_rows:
        for result in stack.stream(_jobs(table, plan, stack), lane=plan.lane, window=table.num_rows):
            found[result.place] = _row_of(result)
    for field, own in zip(fields, _FIELDS, strict=True):
        table = table.append_column(field, pa.array([row[own.name] for row in found], field.type))
    return table


def _jobs(table: Any, plan: _Plan, stack: Stack) -> Iterator[Job | BadLine]:
    inputs = stack.job_inputs
    reads = table_rows([_with_ids(table, plan)], plan.columns, "row")
    while some := list(islice(reads, _ROWS_AT_ONCE)):
        rows = [_identified(read, plan.id_column) for read in some]
        parsed = parse_rows([(_SOLE_LINE, row) for row in rows if isinstance(row, bytes)], inputs)
        for row in rows:
            job = next(parsed) if isinstance(row, bytes) else row
            if isinstance(job, Job):
                yield job.in_batch(plan.batch, priority=plan.priority)
            else:
                yield job


def _with_ids(table: Any, plan: _Plan) -> Any:
    """Return the table with its ids where the mapping looks for them; raise `InvalidInput` if none are there."""
    plan.columns.check(table.schema.names, "the dataset")
    if not plan.id_column or plan.columns.given is not None or plan.id_column == "job_id":
        return table
    if plan.id_column not in table.schema.names or "job_id" in table.schema.names:
        raise InvalidInput(
            f"the dataset: id_column {plan.id_column!r:.80} is to be there, and no other column job_id beside it; "
            f"there are: {', '.join(table.schema.names)[:400]}"
        )
    return table.rename_columns({plan.id_column: "job_id"})


def _identified(read: Read, id_column: str) -> bytes | BadLine:
    """Return a row's job with its id, as JSON; or what is wrong with it."""
    if read.problem:
        return BadLine(line=_SOLE_LINE, job_id="", message=read.problem)
    fields: dict[str, Any] = orjson.loads(read.data)
    if not fields.get("job_id"):
        if id_column:
            return BadLine(line=_SOLE_LINE, job_id="", message=f"{id_column}: the row has no id there")
        content = {name: value for name, value in fields.items() if name not in _NOT_CONTENT}
        fields["job_id"] = f"row-{hashlib.blake2b(canonical(content), digest_size=16).hexdigest()}"
    return canonical(fields)


def _row_of(result: RunResult) -> dict[str, Any]:
    return {**result.row(), "problem": "" if result.run_id else result.detail}
