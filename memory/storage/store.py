"""One tenant's LanceDB table: committed to in groups, rewritten to erase, repaired when it is opened.

The table's name comes from the tenant's verified id; no filter string is built from anything a caller says.  One
process writes, from one thread.  Deleting in LanceDB leaves the bytes on disk, so what is erased is left out of a
whole new version, and every older one is removed.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from airside.memory.embedders.embedder import Vectors
from airside.memory.records import Record
from airside.memory.storage.durability import Durable, drop_torn_manifests, drop_torn_version, remove_folder_durably
from airside.memory.storage.erasure import Erasure
from airside.memory.storage.erasure_plan import ErasurePlan, Reached, plan_erasure
from airside.memory.storage.freeing import bound_arenas
from airside.memory.storage.rows import LINEAGE, as_rows, from_rows, schema
from airside.stack.errors import InvalidId, MemoryFailed
from airside.stack.ids import TenantId, parse_tenant

OPTIMIZE_EVERY = 32
"""Commits between compactions at least: without any, 1,000 leave 3,004 files and searches of 105 ms."""

FEW_COMMITS = 4
"""Commits that may stay uncompacted."""

ROWS_A_COMMIT = 200
"""A compaction rewrites the whole table, so it waits for a commit more per so many of its records."""

_ALL_VERSIONS, _NO_VERSIONS = timedelta(days=36_500), timedelta(0)

CACHE_BYTES = 2 * 1024 * 1024
"""LanceDB's caches: unbounded they grew from 176 to 929 MB over 3,000 commits, and records are held in RAM anyway."""

Pairs = Collection[tuple[Record, Vectors | None]]
"""Records, each with its vector; None: it waits to be embedded."""

logger = logging.getLogger(__name__)

_LANCE_ERRORS = (OSError, RuntimeError, ValueError)


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
        self._count = 0

    def load(self) -> list[tuple[Record, Vectors | None]]:
        """Open the table, or make it, and return its records; those of another embedder come without their vectors.

        Raises `MemoryFailed` for a table that cannot be read, or that holds another tenant's record.
        """
        self._database.make(self._name, schema(self._dimension))
        self._table, rows = self._database.read(self._name)
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
        if not fits or LINEAGE not in rows.column_names:
            self._database.rewrite(self._name, self._rows(found))
            self.reopen()
        self._durable.sync()
        self._count = len(found)
        return found

    def commit(self, added: Pairs, changed: Pairs) -> None:
        """Write records, all or none; they are on disk when this returns."""
        if changed:
            merge = self._table.merge_insert("record_id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(self._rows([*added, *changed]))
        else:
            self._table.add(self._rows(added))
        self._durable.sync()
        self._commits += 1
        self._count += len(added)
        if self._commits >= max(OPTIMIZE_EVERY, self._count // ROWS_A_COMMIT):
            self.tidy()

    def tidy(self) -> None:
        """Compact what was committed since the last time, and remove old versions."""
        _tidy(self._table, self._durable)
        self._commits = 0

    @property
    def is_ragged(self) -> bool:
        """Whether there is enough to compact that it is worth rewriting the table when nothing else is to be done."""
        return self._commits > max(FEW_COMMITS, self._count // ROWS_A_COMMIT // 10)

    def drop_expired(self, now_us: int) -> None:
        """Drop the records that have expired; their bytes go with the next rewriting or compaction."""
        _drop_expired(self._table, self._durable, now_us)
        self._commits, self._count = 0, int(self._table.count_rows())

    def clear(self) -> None:
        """Leave nothing of what the table held, and no byte of it."""
        self._database.rewrite(self._name, self._rows([]))
        self.reopen()

    def reopen(self) -> None:
        """Go on after the table was rewritten."""
        self._table = self._database.connection.open_table(self._name)
        self._commits, self._count = 0, int(self._table.count_rows())

    def _rows(self, pairs: Pairs) -> Any:
        records = [record for record, _ in pairs]
        vectors = np.zeros((len(records), self._dimension), dtype=np.float32)
        embedders = []
        for i, (_, vector) in enumerate(pairs):
            embedders.append("" if vector is None else self._embedder)
            if vector is not None:
                vectors[i] = vector
        return as_rows(records, vectors, embedders)


class Database:
    """The LanceDB database of a cell's memory; `names` are the tables there are."""

    def __init__(self, folder: Path) -> None:
        bound_arenas()
        import lancedb  # its threads begin here

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        session = lancedb.Session(index_cache_size_bytes=CACHE_BYTES, metadata_cache_size_bytes=CACHE_BYTES)
        self.connection = lancedb.connect(str(folder), session=session)
        found = (path.name.removesuffix(".lance") for path in folder.glob("t_*.lance") if not _unmade(path))
        self.names = {name for name in found if _is_tenants(name)}

    def make(self, name: str, whole: Any) -> None:
        """Make a table if there is none; raise `MemoryFailed` for one whose versions are gone while data is there."""
        folder = self.folder / f"{name}.lance"
        drop_torn_manifests(folder)
        if _unmade(folder):
            remove_folder_durably(folder)
            self.connection.create_table(name, schema=whole)
        elif not any((folder / "_versions").glob("*.manifest")):
            raise MemoryFailed(f"{folder} holds data and no version of it")
        self.names.add(name)

    def read(self, name: str) -> tuple[Any, Any]:
        """Return a table and its rows; raise `MemoryFailed` for one that cannot be read.

        A newest version whose data a crash of the machine left unfinished is taken back.
        """
        folder = self.folder / f"{name}.lance"
        drop_torn_manifests(folder)
        for is_last in (False, True):
            try:
                table = self.connection.open_table(name)
                return table, table.to_arrow()
            except _LANCE_ERRORS as error:
                if is_last or not drop_torn_version(folder):
                    raise MemoryFailed(f"{folder} cannot be read: {error}"[:500]) from None
        raise AssertionError("not reached")

    def drop_expired(self, name: str, now_us: int) -> int:
        """Drop what has expired from a table that is not open; return how many records that were."""
        folder = self.folder / f"{name}.lance"
        drop_torn_manifests(folder)
        table = self.connection.open_table(name)
        count = int(table.count_rows(_expired(now_us)))
        if count:
            durable = Durable(folder)
            durable.sync()
            _drop_expired(table, durable, now_us)
        return count

    def without(self, name: str, orders: Mapping[Path, Erasure]) -> dict[Path, ErasurePlan]:
        """Erase what orders take from a table; return what went by each.

        Neither the embedder nor what is loaded is needed for it.  No byte of them is in a file when this returns.
        """
        _, rows = self.read(name)
        records = from_rows(rows)[0]
        plans = {path: plan_erasure(order, records) for path, order in orders.items()}
        all_gone = {record_id for plan in plans.values() for record_id in plan.ids}
        self.rewrite(name, rows.filter(pa.array([r.record_id not in all_gone for r in records], pa.bool_())))
        return plans

    def rewrite(self, name: str, rows: Any) -> None:
        """Make a table hold these rows and no byte of any other; both are so when this returns."""
        durable = Durable(self.folder / f"{name}.lance")
        table = self.connection.create_table(name, data=rows, schema=rows.schema, mode="overwrite")
        durable.sync()
        _optimize(table, _NO_VERSIONS, delete_unverified=True)
        durable.sync()

    def drop(self, name: str) -> ErasurePlan:
        """Remove a table and every file of it; return what was in it, nothing if it cannot be read.

        Raises `OSError` if a file stays.
        """
        found: tuple[Reached, ...] = ()
        with contextlib.suppress(*_LANCE_ERRORS):  # the files are what counts, and they go either way
            rows = self.connection.open_table(name).to_arrow().select(["record_id", "digest"]).to_pylist()
            found = tuple(Reached(why="own", **row) for row in rows)
        with contextlib.suppress(*_LANCE_ERRORS):
            self.connection.drop_table(name, ignore_missing=True)
        remove_folder_durably(self.folder / f"{name}.lance")
        self.names.discard(name)
        return ErasurePlan(taken=found)


def read_records(folder: Path, tenant: TenantId) -> list[Record]:
    """Return the records of a tenant in a database that nobody has open, changing nothing in it.

    Raises `MemoryFailed` for a table that cannot be read.
    """
    name = table_name(tenant)
    if _unmade(folder / f"{name}.lance"):
        return []
    import lancedb

    try:
        records = from_rows(lancedb.connect(str(folder)).open_table(name).to_arrow())[0]
    except (*_LANCE_ERRORS, KeyError) as error:
        raise MemoryFailed(f"{folder / name}.lance cannot be read: {error}"[:500]) from None
    return [record for record in records if record.tenant == tenant]


def _unmade(folder: Path) -> bool:
    """Whether a table was never committed to: it is not there, or was being made when the process died."""
    return not any(folder.glob("_versions/*.manifest")) and not any(folder.glob("data/*"))


def _expired(now_us: int) -> str:
    return f"expires_us <= {int(now_us)}"


def _drop_expired(table: Any, durable: Durable, now_us: int) -> None:
    table.delete(_expired(now_us))
    durable.sync()  # before the versions that still have what stays are removed
    _tidy(table, durable)


def _tidy(table: Any, durable: Durable) -> None:
    """Compact, and remove old versions; housekeeping: if it fails, the next one does it."""
    for age in (_ALL_VERSIONS, _NO_VERSIONS):  # what is compacted is on disk before what it was made of is removed
        try:
            _optimize(table, age)
        except _LANCE_ERRORS as error:
            logger.warning("a table was not compacted: %s", error, extra={"action": "compact_failed"})
        durable.sync()


def _optimize(table: Any, age: timedelta, *, delete_unverified: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of other readers and writers: there are none
        table.optimize(cleanup_older_than=age, delete_unverified=delete_unverified)


def table_name(tenant: TenantId) -> str:
    """Return the name of a tenant's table; raise `InvalidId` for what is no tenant's id."""
    return f"t_{parse_tenant(tenant)}"


def _is_tenants(name: str) -> bool:
    try:
        return bool(tenant_of(name))
    except InvalidId:
        return False


def tenant_of(table: str) -> TenantId:
    """Return whose table it is; raise `InvalidId` for a name that is no tenant's table's."""
    return parse_tenant(table.removeprefix("t_"))
