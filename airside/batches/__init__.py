"""Batches as durable objects: inputs of jobs whose every row ends as one result, whatever dies meanwhile.

    from airside.batches import run_batch

`sources` reads jobs, `runner` has them run, `parts` writes results and rejects, `assembly` makes one file of the parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airside.stack.lazy_names import lazy_names

if TYPE_CHECKING:
    from airside.batches.assembly import assemble
    from airside.batches.options import BatchOptions
    from airside.batches.parts import read_parts
    from airside.batches.pilot import run_pilot
    from airside.batches.result_schema import SCHEMA
    from airside.batches.run import BatchInterrupted, BatchReport, run_batch
    from airside.batches.runner import TakenOver
    from airside.batches.sources import open_source

_HOME = {
    "airside.batches.assembly": ["assemble"],
    "airside.batches.options": ["BatchOptions"],
    "airside.batches.parts": ["read_parts"],
    "airside.batches.pilot": ["run_pilot"],
    "airside.batches.result_schema": ["SCHEMA"],
    "airside.batches.run": ["BatchInterrupted", "BatchReport", "run_batch"],
    "airside.batches.runner": ["TakenOver"],
    "airside.batches.sources": ["open_source"],
}

__all__ = [  # noqa: RUF022 - as `sorted` has it, which a test holds
    "BatchInterrupted",
    "BatchOptions",
    "BatchReport",
    "SCHEMA",
    "TakenOver",
    "assemble",
    "open_source",
    "read_parts",
    "run_batch",
    "run_pilot",
]

__getattr__, __dir__, _ = lazy_names(__name__, _HOME)
