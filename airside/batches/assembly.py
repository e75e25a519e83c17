"""One file of a batch's parts: the latest attempt at each row, in the order of the rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
from pyarrow import csv, parquet

from airside.batches.parts import read_parts
from airside.batches.places import reason_of
from airside.batches.result_schema import SCHEMA
from airside.batches.target import PARQUET, Target
from airside.stack.errors import Failed, InvalidInput

_MEMORY = "256MB"
"""DuckDB's share; what does not fit lies beside the target meanwhile."""

_ROWS_AT_ONCE = 1024

_LATEST = """
    SELECT * FROM parts QUALIFY row_number() OVER (PARTITION BY row ORDER BY attempt DESC, ended_us DESC) = 1
    ORDER BY row
"""


def assemble(place: Path | str, target: Path, inputs: Iterable[Path] = ()) -> int:
    """Write one file (.parquet, .csv or .jsonl, by its ending), whole or not at all; return how many rows it has.

    `digest` is hex in CSV and JSON.  It needs little memory, and beside the target room for the results as they are
    twice. Raises `InvalidInput` for a target that cannot be written (see `Target`) or a part that cannot be read,
    `Failed` if writing fails.
    """
    with Target.opened(target, inputs) as opened, _room(opened.path.parent) as room:
        wrong: list[InvalidInput] = []
        try:
            count = _write(opened, _latest(place, Path(room), wrong))
            opened.replace()
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            if wrong:  # DuckDB has made its own of it
                raise wrong[0] from None
            raise Failed(f"{target}: it cannot be written: {reason_of(error)}") from None
    return count


def _room(beside: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=beside, prefix=".")


def _latest(place: Path | str, room: Path, wrong: list[InvalidInput]) -> Iterator[Any]:
    """Yield record batches of what counts, in order; `wrong` gets what made a part unreadable."""
    config = {"memory_limit": _MEMORY, "temp_directory": str(room), "threads": "2"}
    with duckdb.connect(":memory:", config=config) as connection:
        connection.register("parts", pa.RecordBatchReader.from_batches(SCHEMA, _whole(place, wrong)))
        for batch in connection.sql(_LATEST).to_arrow_reader(_ROWS_AT_ONCE):
            yield pa.RecordBatch.from_arrays(
                [column.cast(field.type) for column, field in zip(batch.columns, SCHEMA, strict=True)], schema=SCHEMA
            )


def _whole(place: Path | str, wrong: list[InvalidInput]) -> Iterator[Any]:
    try:
        for batch in read_parts(place):
            yield pa.RecordBatch.from_arrays(batch.select(SCHEMA.names).columns, schema=SCHEMA)
    except InvalidInput as error:
        wrong.append(error)
        raise


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
