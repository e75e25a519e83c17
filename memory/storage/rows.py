"""Records as rows of a tenant's table, and back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from airside.memory.embedders.embedder import Vectors
from airside.memory.lineage import UNTRACED, is_by_a_run
from airside.memory.records import Record

_TYPES = {
    "tuple[str, ...]": pa.list_(pa.string()),
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
}
COLUMNS = tuple(Record.__struct_fields__)
LINEAGE = "lineage"


def schema(dimension: int) -> Any:
    """Return a table's schema: a record's fields, whose vector it has ("": none yet, it is zeros), and the vector."""
    fields = [pa.field(name, _TYPES.get(Record.__annotations__[name], pa.string()), nullable=False) for name in COLUMNS]
    fields.append(pa.field("embedder", pa.string(), nullable=False))
    fields.append(pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False))
    return pa.schema(fields)


def as_rows(records: Sequence[Record], vectors: Vectors, embedders: Sequence[str]) -> Any:
    """Return records and their vectors, shape (records, dimension), as a table."""
    dimension = vectors.shape[1]
    columns: dict[str, Any] = {name: [getattr(record, name) for record in records] for name in COLUMNS}
    columns["embedder"] = list(embedders)
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, dimension)
    return pa.table(columns, schema=schema(dimension))


def from_rows(table: Any) -> tuple[list[Record], Vectors, list[str]]:
    """Return the records of a table, their vectors, and the embedder of each.

    Raises `ValueError` for what is no record: the table was written by somebody else.
    """
    records = as_records(table.select(columns_in(table.column_names)).to_pylist())
    column = table["vector"].combine_chunks()
    vectors = np.asarray(column.flatten(), dtype=np.float32).reshape(len(records), column.type.list_size)
    return records, vectors, table["embedder"].to_pylist()


def columns_in(names: Collection[str]) -> list[str]:
    """Return the columns of a record that a table or file has: those of before have no lineage."""
    return [name for name in COLUMNS if name != LINEAGE or name in names]


def as_records(rows: Sequence[dict[str, Any]]) -> list[Record]:
    """Return rows as records; what a run said, and has no lineage because it was not kept then, is marked as such."""
    records = msgspec.convert(rows, list[Record])
    if rows and LINEAGE not in rows[0]:
        return [msgspec.structs.replace(r, lineage=(UNTRACED,)) if is_by_a_run(r) else r for r in records]
    return records
