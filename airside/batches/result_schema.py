"""What a row of results holds, as Parquet has it: written once here, and in every file as its columns' descriptions."""

from __future__ import annotations

import pyarrow as pa

from airside.actors.client.results import COLUMNS

_BEFORE = {
    "row": (pa.int64(), "which row of the input it is of, from 0"),
    "attempt": (pa.int16(), "which attempt at the row it is, from 1; the largest counts"),
}
_OF_RESULTS = {
    "job_id": "as the job says it, or the one it was given",
    "run_id": "the run in the journal; empty for a job that was never admitted",
    "status": "what became of it: completed, refused, failed, ...",
    "reason_code": "why: a code of docs/reference/reason-codes.md",
    "detail": "the same for a person, in a sentence",
    "answer": "what the run answered, as JSON",
    "steps": "steps the run took",
    "tool_calls": "calls of tools it made",
    "tokens": "tokens of models it used",
    "cost_microusd": "what it cost, in millionths of a US dollar",
    "seconds": "active time; waiting for a person is not in it",
}
_AFTER = {
    "digest": (pa.binary(8), "of the job, so that a resumed batch knows whether the row is still the same"),
    "ended_us": (pa.int64(), "when the result was written, in UTC microseconds"),
    "problem": (
        pa.string(),
        "what is wrong with the row or its answer, or why it was withdrawn with its batch; else empty",
    ),
}
_KINDS = {int: pa.int64(), float: pa.float64(), str: pa.string()}

SCHEMA = pa.schema(
    [
        pa.field(name, kind, metadata={"description": description})
        for name, (kind, description) in {
            **_BEFORE,
            **{name: (_KINDS[kind], _OF_RESULTS[name]) for name, kind in COLUMNS.items()},
            **_AFTER,
        }.items()
    ]
)
"""The columns of results, in order; `pq.read_schema(part).field(name).metadata` has the description of one."""
