"""Memory as the cycle and its operators see it: recall, keep, and make go, for every tenant of a cell.

Reads are answered on the event loop from RAM.  All LanceDB work happens on one thread, which makes this process the
single writer of every table; all embedding on another.  Tenants are opened at first need and closed, the one used the
longest ago first, when they take more RAM than the rules allow.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from airside.memory.calibration import Calibration, load_calibration
from airside.memory.embedder import Embedder, checked_name
from airside.memory.embedding import Embedding
from airside.memory.erasing import Erasure, Orders, Receipt
from airside.memory.index import Bounds, Query, TenantIndex
from airside.memory.parquet import read_parquet, write_parquet
from airside.memory.quality import Draft, draft
from airside.memory.records import Record, is_record_id
from airside.memory.rules import MemoryRules
from airside.memory.store import Database, TenantStore, table_name, tenant_of
from airside.memory.tenant import TenantMemory
from airside.memory.text import MAX_QUERY_CHARACTERS
from airside.stack.agents import Recalled
from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId
from airside.stack.ports import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.reasons import MemoryCode
from airside.stack.values import Trust

MAX_TOP_K = 100


class MemoryService:
    """The `Memory` port over LanceDB, and what keeps it in order."""

    def __init__(
        self,
        folder: Path,
        embedder: Callable[[], Embedder],
        now_us: Callable[[], int],
        rules: MemoryRules | None = None,
    ) -> None:
        self._folder = folder
        self._now_us = now_us
        self._rules = (rules or MemoryRules()).checked()
        self._embedding = Embedding(embedder)
        self._calibration: Calibration | None = None
        self._database: Database | None = None
        self._orders: Orders | None = None
        self._tables: set[str] = set()
        self._tenants: OrderedDict[TenantId, TenantMemory] = OrderedDict()
        self._opening: dict[TenantId, asyncio.Future[TenantMemory]] = {}
        self._starting = asyncio.Lock()
        self._reembedding: set[asyncio.Task[int]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory")

    async def start(self) -> None:
        """Open the database and carry out the orders to erase that were not done."""
        async with self._starting:
            if self._database is not None:
                return
            database, orders, tables = await self._on_thread(self._open_database)
            self._orders, self._tables = orders, tables
            self._database = database
            try:
                for path, order in orders.open().items():
                    await self._carry_out(path, order)
            except BaseException:
                self._database = None  # nothing is read before what had to go is gone
                raise

    def _open_database(self) -> tuple[Database, Orders, set[str]]:
        database = Database(self._folder)
        return database, Orders(self._folder), database.tables()

    # Reading.

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return what is relevant, or the error in the reply."""
        try:
            return RecallReply(records=await self._search(request))
        except Exception as error:
            return RecallReply(error=f"{type(error).__name__}: {error}"[:500])

    async def _search(self, request: RecallRequest) -> tuple[Recalled, ...]:
        if request.min_score is not None and not 0 <= request.min_score <= 1:
            raise InvalidInput(f"min_score {request.min_score}: a probability, within 0 and 1")
        query = request.query[:MAX_QUERY_CHARACTERS].strip()
        found = self._tenants.get(request.tenant) or await self._existing(request.tenant)
        if found is None or not len(found.index) or not query:
            return ()
        self._tenants.move_to_end(request.tenant)
        vector = self._embedding.cached(request.tenant, query)
        if vector is None:
            vector = await self._embedding.question(request.tenant, query)
            found = self._tenants.get(request.tenant) or await self._existing(request.tenant)
            if found is None:
                return ()  # it was erased meanwhile
        bounds = Bounds(min(request.top_k, MAX_TOP_K), request.min_score, request.clearance, self._now_us())
        records = found.index.search(Query.of(query, vector), bounds)
        for record in records:  # what comes back is checked, whoever may have mixed it up
            if found.index.records[record.record_id].tenant != request.tenant:
                raise InvalidInput(f"a record of another tenant under {request.tenant}: nothing is returned")
        return records

    async def records(self, tenant: TenantId) -> list[Record]:
        """Return all that is kept for a tenant, also what is never recalled: for audit, and for people to look at."""
        found = await self._existing(tenant)
        return list(found.index.records.values()) if found is not None else []

    # Writing.

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate that passes the quality gate and is new; on disk when the reply says that it is kept."""
        table_name(candidate.tenant)
        found = await asyncio.to_thread(draft, candidate, self._rules, self._now_us())
        if isinstance(found, MemoryCode):
            return LearnReply(code=found)
        return await self._write(candidate.tenant, found)

    async def _write(self, tenant: TenantId, drafted: Draft) -> LearnReply:
        memory = await self._open(tenant)
        try:
            return await memory.write(drafted)
        finally:
            self._settle(memory)

    # Keeping.

    async def erase(self, order: Erasure) -> Receipt:
        """Erase; nothing of it is in any result from now on, and in no file when this returns.

        Raises `InvalidInput` for an order that names nothing.  A crash in between only delays it.
        """
        order.checked()
        table_name(order.tenant)
        await self.start()
        assert self._orders is not None
        path = await self._on_thread(self._orders.take, order, self._now_us())
        return await self._carry_out(path, order)

    async def _carry_out(self, path: Path, order: Erasure) -> Receipt:
        assert self._database is not None and self._orders is not None
        gone: tuple[str, ...] = ()
        self._embedding.forget(order.tenant)
        if order.what == "tenant":
            gone = await self._drop(order.tenant)
        elif table_name(order.tenant) in self._tables:
            memory = await self._load(order.tenant)
            gone = await memory.erase(order)
            self._settle(memory)
        await self._on_thread(self._orders.done, path)
        return Receipt(tenant=order.tenant, what=order.what, target=order.target, records=gone, at_us=self._now_us())

    async def _drop(self, tenant: TenantId) -> tuple[str, ...]:
        assert self._database is not None
        name = table_name(tenant)
        memory = self._tenants.get(tenant)
        if memory is None and name in self._tables:
            memory = await self._load(tenant)
        gone: tuple[str, ...] = ()
        if memory is not None:
            gone = await memory.erase(Erasure(tenant=tenant, what="tenant"))
            while memory.busy:  # what was offered meanwhile is written, and goes too
                gone += await memory.erase(Erasure(tenant=tenant, what="tenant"))
            self._tenants.pop(tenant, None)
        self._tables.discard(name)
        await self._on_thread(self._database.drop, name)
        return gone

    async def pin(self, tenant: TenantId, record_id: str, *, pinned: bool = True) -> bool:
        """Let a record stay for ever, or end as its kind does from now; return whether there is one."""
        memory = await self._existing(tenant)
        if memory is None or not is_record_id(record_id):
            return False
        return await memory.pin(record_id, pinned=pinned)

    async def set_aside(self, tenant: TenantId, record_id: str, *, aside: bool = True) -> bool:
        """Quarantine a record, or release it; return whether there is one."""
        memory = await self._existing(tenant)
        if memory is None or not is_record_id(record_id):
            return False
        return bool(await memory.change([record_id], state="quarantined" if aside else "live"))

    async def export(self, tenant: TenantId) -> bytes:
        """Return all that is kept for a tenant, as a Parquet file."""
        data: bytes = await self._on_thread(write_parquet, await self.records(tenant))
        return data

    async def take_in(self, tenant: TenantId, data: bytes, trust: Trust) -> dict[str, int]:
        """Offer every live record of a Parquet file as a candidate of this trust at most; return how many of each code.

        Raises `InvalidInput` for a file that is none, before anything is kept.
        """
        codes: dict[str, int] = {}
        candidates = await self._on_thread(read_parquet, data, tenant, trust, self._now_us())
        for at in range(0, len(candidates), 256):
            replies = await asyncio.gather(*(self.write_if_useful(each) for each in candidates[at : at + 256]))
            for reply in replies:
                codes[reply.code] = codes.get(reply.code, 0) + 1
        return codes

    async def reembed(self, tenant: TenantId) -> int:
        """Embed what another embedder embedded; return how many that were.  An opened tenant begins by itself."""
        memory = await self._existing(tenant)
        return await memory.reembed() if memory is not None else 0

    async def sweep(self) -> int:
        """Drop what has expired, of every tenant; return how many records that were."""
        await self.start()
        assert self._database is not None
        count = 0
        for name in sorted(self._tables):
            memory = self._tenants.get(tenant_of(name))
            if memory is not None:
                count += await memory.sweep()
                self._settle(memory)
            else:  # neither its records nor the embedder need be loaded for that
                count += await self._on_thread(self._database.drop_expired, name, self._now_us())
        return count

    def stats(self) -> dict[str, int]:
        """Return the tenants there are and those open, their records and bytes in RAM, and the cached questions."""
        indexes = [memory.index for memory in self._tenants.values()]
        return {
            "tables": len(self._tables),
            "tenants": len(indexes),
            "records": sum(map(len, indexes)),
            "hot_bytes": sum(index.size_bytes for index in indexes),
            "cached_queries": self._embedding.size,
        }

    @property
    def calibration(self) -> Calibration | None:
        """What scores mean, None before the embedder is loaded."""
        return self._calibration

    def close(self) -> None:
        """Let the threads end."""
        self._embedding.close()
        self._thread.shutdown(wait=True, cancel_futures=True)

    # Tenants.

    async def _existing(self, tenant: TenantId) -> TenantMemory | None:
        """Return a tenant's memory, None if nothing was ever kept for it."""
        await self.start()
        return await self._open(tenant) if table_name(tenant) in self._tables else None

    async def _open(self, tenant: TenantId) -> TenantMemory:
        await self.start()
        return await self._load(tenant)

    async def _load(self, tenant: TenantId) -> TenantMemory:
        found = self._tenants.get(tenant)
        if found is not None:
            self._tenants.move_to_end(tenant)
            return found
        opening = self._opening.get(tenant)
        if opening is None:
            opening = self._opening[tenant] = asyncio.ensure_future(self._opened(tenant))
            opening.add_done_callback(lambda _: self._opening.pop(tenant, None))
        return await asyncio.shield(opening)

    async def _opened(self, tenant: TenantId) -> TenantMemory:
        assert self._database is not None
        model = await self._embedding.model()
        if self._calibration is None:
            checked_name(model.name)
            self._calibration = load_calibration(model.name, self._folder / "calibrations")
        memory = TenantMemory(
            tenant,
            TenantStore(self._database, tenant, model.name, model.dimension),
            TenantIndex(model.dimension, self._rules, self._calibration),
            self._rules,
            self._on_thread,
            self._embedding.texts,
            self._now_us,
        )
        await memory.load()
        self._tables.add(table_name(tenant))
        self._tenants[tenant] = memory
        self._make_room(memory)
        task = asyncio.ensure_future(memory.reembed())
        self._reembedding.add(task)
        task.add_done_callback(self._reembedding.discard)
        return memory

    def _settle(self, memory: TenantMemory) -> None:
        """After a change: what failed is loaded anew next time, and what grew makes room."""
        if memory.broken and self._tenants.get(memory.tenant) is memory:
            del self._tenants[memory.tenant]
        self._make_room(memory)

    def _make_room(self, kept: TenantMemory) -> None:
        """Close tenants until the open ones fit into RAM; never one that is written to, nor the one just used."""
        room = self._rules.hot_bytes - sum(m.index.size_bytes for m in self._tenants.values())
        for tenant, memory in list(self._tenants.items()):
            if room >= 0:
                return
            if memory is not kept and not memory.busy:
                room += memory.index.size_bytes
                del self._tenants[tenant]

    async def _on_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
