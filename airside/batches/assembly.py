"""One file of a batch's parts: the latest attempt at each row, in the order of the rows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import csv, parquet

from airside.batches.parts import read_parts
from airside.batches.places import reason_of
from airside.batches.result_schema import SCHEMA
from airside.batches.target import PARQUET, Target
from airside.stack.errors import Failed

_ROWS_IN_BUCKET = 8192
_MAX_BUCKETS = 256
"""Open files at a time; of more than two million results a bucket has more."""

_ROWS_AT_ONCE = 1024


def assemble(place: Path | str, target: Path, inputs: Iterable[Path] = ()) -> int:
    """Write one file (.parquet, .csv or .jsonl, by its ending), whole or not at all; return how many rows it has.

    `digest` is hex in CSV and JSON.  It needs little memory, and beside the target room for the results once
    more. Raises `InvalidInput` for a target that cannot be written (see `Target`) or a part that cannot be read,
    `Failed` if writing fails.
    """
    with Target.opened(target, inputs) as opened, _room(opened.path.parent) as room:
        try:
            count = _write(opened, _latest(place, Path(room)))
            opened.replace()
        except (OSError, pa.ArrowException) as error:
            raise Failed(f"{target}: it cannot be written: {reason_of(error)}") from None
    return count


def _room(beside: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=beside, prefix=".")


def _latest(place: Path | str, room: Path) -> Iterator[Any]:
    """Yield record batches of what counts, in order.

    Which results count is known from two narrow columns; those go to buckets of rows on disk, each of which is then
    sorted in memory.  (DuckDB, asked to sort them within 256 MB, runs out of it.)
    """
    counts, edges = _counting(place)
    with contextlib.ExitStack() as opened:
        buckets: dict[int, Any] = {}
        for batch in _chosen(place, counts):
            of = np.searchsorted(edges, batch.column("row").to_numpy(), side="right")
            for bucket in np.unique(of).tolist():
                if bucket not in buckets:
                    file = opened.enter_context((room / str(bucket)).open("wb"))
                    buckets[bucket] = opened.enter_context(pa.ipc.new_stream(file, SCHEMA))
                buckets[bucket].write_batch(batch.filter(pa.array(of == bucket)))
    for bucket in sorted(buckets):
        with (room / str(bucket)).open("rb") as kept:
            table = pa.ipc.open_stream(kept).read_all().sort_by("row")
        (room / str(bucket)).unlink()
        yield from table.combine_chunks().to_batches(max_chunksize=_ROWS_AT_ONCE)


def _counting(place: Path | str) -> tuple[Any, Any]:
    """Return for each result, in the order of commits, whether it counts; and where buckets begin.

    That is a row for each bucket but the first.

    Of the same attempt twice it is the one that was committed last.
    """
    rows, attempts = [np.empty(0, np.int64)], [np.empty(0, np.int16)]
    for batch in read_parts(place, ["row", "attempt"]):
        rows.append(batch.column("row").to_numpy(zero_copy_only=False))
        attempts.append(batch.column("attempt").to_numpy(zero_copy_only=False))
    row, attempt = np.concatenate(rows), np.concatenate(attempts)
    order = np.lexsort((attempt, row))  # stable: those of the same attempt stay in the order of commits
    is_last = np.append(row[order][1:] != row[order][:-1], True)[: len(order)]
    counts = np.zeros(len(order), bool)
    counts[order[is_last]] = True
    latest = row[order][is_last]
    size = max(_ROWS_IN_BUCKET, -(-len(latest) // _MAX_BUCKETS))
    return counts, latest[size::size]


def _chosen(place: Path | str, counts: Any) -> Iterator[Any]:
    """Yield the results that count; parts that came meanwhile are not looked at."""
    at = 0
    for batch in read_parts(place):
        wanted = counts[at : at + batch.num_rows]
        at += batch.num_rows
        if not len(wanted):
            return
        chosen = batch.slice(0, len(wanted)).filter(pa.array(wanted)).select(SCHEMA.names)
        yield pa.RecordBatch.from_arrays(chosen.columns, schema=SCHEMA)


def _write(target: Target, batches: Iterator[Any]) -> int:
    count = 0
    with target.part.open("wb") as file:  # by a name that is no Unicode, Arrow opens nothing
        if target.ending == PARQUET:
            with parquet.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    count += batch.num_rows
            return count
        schema = SCHEMA.set(SCHEMA.get_field_index("digest"), pa.field("digest", pa.string()))
        writer = csv.CSVWriter(file, schema) if target.ending == ".csv" else None
        for batch in batches:
            rows = [{**row, "digest": row["digest"] and row["digest"].hex()} for row in batch.to_pylist()]
            if writer is not None:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
            else:
                file.writelines(orjson.dumps(row) + b"\n" for row in rows)
            count += batch.num_rows
        if writer is not None:
            writer.close()
    return count
