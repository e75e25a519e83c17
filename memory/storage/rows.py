"""Records as rows of a tenant's table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from airside.memory.embedders.embedder import Vectors
from airside.memory.records import Record

_TYPES = {
    "tuple[str, ...]": pa.list_(pa.string()),
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
}
COLUMNS = tuple(Record.__struct_fields__)


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
    records = msgspec.convert(table.select(COLUMNS).to_pylist(), list[Record])
    column = table["vector"].combine_chunks()
    vectors = np.asarray(column.flatten(), dtype=np.float32).reshape(len(records), column.type.list_size)
    return records, vectors, table["embedder"].to_pylist()
