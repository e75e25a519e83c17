"""A tenant's records as a Parquet file: out with everything but the vectors, in as candidates like any other."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from airside.memory.lineage import is_lineage
from airside.memory.records import Record
from airside.memory.storage.rows import COLUMNS, as_records, columns_in, schema
from airside.stack.contracts.memory import Candidate
from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId
from airside.stack.values import TRUSTS, Trust

MAX_ROWS = 200_000
MAX_TEXT_BYTES = 256 * 1024 * 1024


def write_parquet(records: Sequence[Record]) -> bytes:
    """Return records as a Parquet file, one column a field of `Record`.

    Vectors are left out: they are made anew from the text, so that no file can say that a text means something else.
    """
    whole = pa.schema([field for field in schema(1) if field.name in COLUMNS])
    table = pa.table({name: [getattr(record, name) for record in records] for name in COLUMNS}, schema=whole)
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _records(file: pq.ParquetFile) -> Iterator[Record]:
    """Yield a file's records; a few bytes of it may stand for many of them, so what they take is counted."""
    if file.metadata.num_rows > MAX_ROWS:
        raise ValueError(f"{file.metadata.num_rows} rows are more than {MAX_ROWS}")
    size = 0
    for batch in file.iter_batches(1_000, columns=columns_in(file.schema_arrow.names)):
        for record in as_records(batch.to_pylist()):
            if not is_lineage(record.lineage):
                raise ValueError(f"{record.record_id:.40} has a lineage that is none")
            size += record.size_bytes
            if size > MAX_TEXT_BYTES:
                raise ValueError(f"the texts take more than {MAX_TEXT_BYTES} bytes")
            yield record


class Imported(NamedTuple):
    """A record of a file as a candidate, with the id it had there and its lineage, in ids of there."""

    candidate: Candidate
    record_id: str
    lineage: tuple[str, ...]


def read_parquet(data: bytes, tenant: TenantId, trust: Trust, now_us: int) -> list[Imported]:
    """Return the live records of a file as candidates for a tenant, none trusted more than `trust`; expired ones not.

    They are offered like any others: a candidate has one source, the first, and no pin.  Raises `InvalidInput` for a
    file that is not one `write_parquet` would write.
    """
    try:
        records = list(_records(pq.ParquetFile(io.BytesIO(data))))
    except (pa.ArrowException, ValueError, OverflowError, OSError, KeyError) as error:
        raise InvalidInput(f"no file of records: {error}"[:500]) from None
    live = [record for record in records if record.state == "live" and record.expires_us > now_us]
    return [Imported(_candidate(record, tenant, trust, now_us), record.record_id, record.lineage) for record in live]


def _candidate(record: Record, tenant: TenantId, trust: Trust, now_us: int) -> Candidate:
    return Candidate(
        tenant=tenant,
        text=record.text,
        kind=record.kind,
        source=record.sources[0] if record.sources else "import",
        sensitivity=record.sensitivity,
        ttl_s=max(1, (record.expires_us - now_us) // 1_000_000) if not record.pinned else None,
        trust=min(record.trust, trust, key=TRUSTS.index),
        subject=record.subject,
        topic=record.topic,
        importance=record.importance,
        confidence=record.confidence,
        observed_us=record.observed_us,
    )
