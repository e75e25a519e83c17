"""One tenant's LanceDB table: committed to in groups, rewritten to erase, repaired when it is opened.

The table's name comes from the tenant's verified id; no filter string is built from anything a caller says.  One
process writes, from one thread.  Deleting in LanceDB leaves the bytes on disk, so what is erased is left out of a
whole new version, and every older one is removed.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from airside.memory.embedder import Vectors
from airside.memory.files import Durable, drop_torn_manifests
from airside.memory.records import Record
from airside.memory.rows import as_rows, from_rows, schema
from airside.stack.errors import MemoryFailed
from airside.stack.ids import TenantId, parse_tenant

OPTIMIZE_EVERY = 32
"""Commits between compactions: without any, 1,000 leave 3,004 files and searches of 105 ms."""

KEEP_VERSIONS = timedelta(minutes=2)
"""Old versions stay this long; no other process reads them, and an operation of ours is over by then."""

CACHE_BYTES = 16 * 1024 * 1024
"""LanceDB's caches: unbounded they grew from 176 to 929 MB over 3,000 commits, and records are held in RAM anyway."""

Pairs = Mapping[str, tuple[Record, Vectors | None]]
"""Records by id, each with its vector; None: it waits to be embedded."""


class TenantStore:
    """One tenant's table.  `load` first; after an error open another one, for what is on disk is what counts."""

    def __init__(self, database: Database, tenant: TenantId, embedder: str, dimension: int) -> None:
        self._database = database
        self._tenant = tenant
        self._name = table_name(tenant)
        self._embedder = embedder
        self._dimension = dimension
        self._folder = database.folder / f"{self._name}.lance"
        self._durable = Durable(self._folder)
        self._table: Any = None
        self._commits = 0

    def load(self) -> list[tuple[Record, Vectors | None]]:
        """Open the table, or make it, and return its records; those of another embedder come without their vectors.

        Raises `MemoryFailed` for a table that cannot be read, or that holds another tenant's record.
        """
        self._table = self._database.open(self._name, self._folder, schema(self._dimension))
        rows = self._table.to_arrow()
        try:
            records, vectors, embedders = from_rows(rows)
        except (ValueError, KeyError) as error:
            raise MemoryFailed(f"{self._folder} is no table of this version: {error}"[:500]) from None
        if any(record.tenant != self._tenant for record in records):
            raise MemoryFailed(f"{self._folder} holds another tenant's record: nothing of it is used")
        fits = vectors.shape[1] == self._dimension
        found = [
            (record, vector.copy() if fits and embedder == self._embedder else None)
            for record, vector, embedder in zip(records, vectors, embedders, strict=True)
        ]
        if not fits:
            self.rewrite({record.record_id: (record, vector) for record, vector in found})
        self._durable.sync()
        return found

    def commit(self, added: Pairs, changed: Pairs) -> None:
        """Write records, all or none; they are on disk when this returns."""
        if changed:
            merge = self._table.merge_insert("record_id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(self._rows({**added, **changed}))
        else:
            self._table.add(self._rows(added))
        self._durable.sync()
        self._commits += 1
        if self._commits % OPTIMIZE_EVERY == 0:
            self.tidy()

    def tidy(self) -> None:
        """Compact, and remove old versions; housekeeping: if it fails, the next one does it."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self._table.optimize(cleanup_older_than=KEEP_VERSIONS)
        self._durable.sync()

    def drop_expired(self, now_us: int) -> None:
        """Drop the records that have expired; their bytes go with the next rewriting or compaction."""
        self._table.delete(f"expires_us <= {int(now_us)}")
        self.tidy()

    def rewrite(self, kept: Pairs) -> None:
        """Make the table hold these records and no byte of any other; both are so when this returns."""
        whole = schema(self._dimension)
        self._table = self._database.connection.create_table(
            self._name, data=self._rows(kept), schema=whole, mode="overwrite"
        )
        self._durable.sync()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns of other readers: there are none
            self._table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
        self._durable.sync()

    def _rows(self, pairs: Pairs) -> Any:
        records = [record for record, _ in pairs.values()]
        vectors = np.zeros((len(records), self._dimension), dtype=np.float32)
        embedders = []
        for i, (_, vector) in enumerate(pairs.values()):
            embedders.append("" if vector is None else self._embedder)
            if vector is not None:
                vectors[i] = vector
        return as_rows(records, vectors, embedders)

    @property
    def fragments(self) -> int:
        """How many pieces the table is in; searches through LanceDB slow down with them."""
        return int(self._table.stats()["fragment_stats"]["num_fragments"])


class Database:
    """The LanceDB database of a cell's memory."""

    def __init__(self, folder: Path) -> None:
        import lancedb

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        session = lancedb.Session(index_cache_size_bytes=CACHE_BYTES, metadata_cache_size_bytes=CACHE_BYTES)
        self.connection = lancedb.connect(str(folder), session=session)

    def tables(self) -> set[str]:
        """Return the names of the tables there are; a table that never was committed to is none."""
        return {
            path.name.removesuffix(".lance")
            for path in self.folder.glob("t_*.lance")
            if any((path / "_versions").glob("*.manifest"))
        }

    def open(self, name: str, folder: Path, whole: Any) -> Any:
        """Open a table, or make it; repair what a crash of the machine left of its newest version."""
        drop_torn_manifests(folder)
        if not any((folder / "_versions").glob("*.manifest")):
            shutil.rmtree(folder, ignore_errors=True)  # it was being made
            return self.connection.create_table(name, schema=whole)
        try:
            return self.connection.open_table(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise MemoryFailed(f"{folder} cannot be opened: {error}"[:500]) from None

    def drop_expired(self, name: str, now_us: int) -> int:
        """Drop what has expired from a table that is not open; return how many records that were."""
        try:
            table = self.connection.open_table(name)
        except ValueError:
            return 0  # it was dropped meanwhile
        expired = f"expires_us <= {int(now_us)}"
        count = int(table.count_rows(expired))
        if count:
            table.delete(expired)
            table.optimize(cleanup_older_than=KEEP_VERSIONS)
        return count

    def drop(self, name: str) -> None:
        """Remove a table and every file of it."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self.connection.drop_table(name, ignore_missing=True)
        shutil.rmtree(self.folder / f"{name}.lance", ignore_errors=True)


def table_name(tenant: TenantId) -> str:
    """Return the name of a tenant's table; raise `InvalidId` for what is no tenant's id."""
    return f"t_{parse_tenant(tenant)}"


def tenant_of(table: str) -> TenantId:
    """Return whose table it is; raise `InvalidId` for a name that is no tenant's table's."""
    return parse_tenant(table.removeprefix("t_"))
