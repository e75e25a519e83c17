"""One memory record, and the same as a row of its tenant's table."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from airside.memory.embedder import Vectors
from airside.stack.ids import TenantId
from airside.stack.values import Clearance, Trust, Value

State = Literal["live", "superseded", "quarantined"]
FOREVER_US = 2**62
"""When a pinned record expires."""

MAX_SOURCES = 8
"""Sources a merged record names; the others are counted."""

_RECORD_ID = re.compile(r"mem_[0-9a-f]{24}")


class Record(Value):
    """A record.  Only one that is `live` is ever recalled; the others are kept for audit until they expire.

    `digest` is of the text's normal form.  `sources` are those of what was merged into it, `met` how often it was
    offered.  Times are UTC microseconds.
    """

    record_id: str
    tenant: TenantId
    text: str
    kind: str
    sources: tuple[str, ...]
    sensitivity: Clearance
    trust: Trust
    subject: str
    topic: str
    importance: float
    confidence: float
    labels: tuple[str, ...]
    state: State
    superseded_by: str
    met: int
    digest: str
    created_us: int
    observed_us: int
    expires_us: int
    pinned: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return len(self.text.encode()) + sum(map(len, self.sources)) + len(self.subject) + len(self.topic)


def mint_record() -> str:
    """Mint a record's id of 96 random bits."""
    return "mem_" + secrets.token_hex(12)


def is_record_id(text: object) -> bool:
    """Whether a text can be a record's id."""
    return isinstance(text, str) and _RECORD_ID.fullmatch(text) is not None


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
