"""Memory as the cycle and its operators see it: retrieve, store and delete, for every tenant of a cell.

Reads are answered on the event loop from RAM.  All LanceDB work happens on one thread, which makes this process the
single writer of every table; all embedding on another.  Tenants are opened at first need and closed, the one used the
longest ago first, when they take more RAM than the rules allow.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from airside.memory.embedders.embedder import Embedder, checked_name
from airside.memory.embedding import Embedding
from airside.memory.records import Record, is_record_id
from airside.memory.rules import MemoryRules
from airside.memory.search.calibration import Calibration, load_calibration
from airside.memory.search.index import Bounds, Query, TenantIndex
from airside.memory.storage.erasure import Erasure, ErasureLog
from airside.memory.storage.erasure_plan import ErasurePlan, ErasureReceipt
from airside.memory.storage.freeing import give_back
from airside.memory.storage.parquet import Imported, read_parquet, write_parquet
from airside.memory.storage.store import Database, TenantStore, table_name, tenant_of
from airside.memory.tenant import TenantMemory
from airside.memory.text import MAX_QUERY_CHARACTERS
from airside.stack.contracts.memory import Candidate, LearnReply, MemoryStanding, Recalled, RecallReply, RecallRequest
from airside.stack.errors import InvalidInput, MemoryFailed, text_of
from airside.stack.ids import TenantId, parse_tenant
from airside.stack.values import Trust

MAX_TOP_K = 100

Change = Literal["pin", "unpin", "quarantine", "release"]

logger = logging.getLogger(__name__)


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
        self._orders: ErasureLog | None = None
        self._tenants: OrderedDict[TenantId, TenantMemory] = OrderedDict()
        self._sizes: dict[TenantId, int] = {}
        self._hot_bytes = 0
        self._starting = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory")

    async def start(self) -> None:
        """Open the database and carry out the orders to erase that were not done."""
        if self._database is not None:
            return
        async with self._starting:
            if self._database is not None:
                return
            self._orders = await self._on_thread(ErasureLog, self._folder)
            self._database = await self._on_thread(Database, self._folder)
        await self._finish_erasures()

    async def _finish_erasures(self) -> None:
        assert self._orders is not None
        for tenant in self._orders.tenants():
            try:
                await self._memory(tenant).finish_erasures()
            except Exception:
                # It reads and writes nothing before that is done; the next sweep tries again.
                logger.exception("%s: what was to be erased is not", tenant, extra={"action": "erase_failed"})

    # Reading.

    def retrieve_at_once(self, request: RecallRequest) -> RecallReply | None:
        """Return what is relevant, or the error in the reply; None if something must be opened or embedded first."""
        memory = self._tenants.get(request.tenant)
        if memory is None or memory.index is None:
            return None
        try:
            text = _question_of(request)
            query = self._embedding.cached(request.tenant, text)
            if query is None:
                return None
            self._tenants.move_to_end(memory.tenant)
            return RecallReply(records=self._search(memory.index, query, request))
        except Exception as error:
            return _unanswered(error)

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return what is relevant, or the error in the reply."""
        try:
            text = _question_of(request)
            memory = await self._existing(request.tenant)
            if memory is None or not text:
                return RecallReply()
            index = await self._opened(memory)
            if not len(index):
                return RecallReply()
            query = self._embedding.cached(request.tenant, text)
            if query is None:
                query = await self._embedding.question(request.tenant, text)
                index = await self._opened(memory)  # it may have changed meanwhile
            return RecallReply(records=self._search(index, query, request))
        except Exception as error:
            return _unanswered(error)

    def _search(self, index: TenantIndex, query: Query, request: RecallRequest) -> tuple[Recalled, ...]:
        bounds = Bounds(min(request.top_k, MAX_TOP_K), request.min_score, request.clearance, self._now_us())
        records = index.search(query, bounds)
        for record in records:  # what comes back is checked, whoever may have mixed it up
            if index.records[record.record_id].tenant != request.tenant:
                raise InvalidInput(f"a record of another tenant under {request.tenant}: nothing is returned")
        return records

    async def records(self, tenant: TenantId) -> list[Record]:
        """Return all that is kept for a tenant, also what is never recalled: for audit, and for people to look at."""
        memory = await self._existing(tenant)
        return list((await self._opened(memory)).records.values()) if memory is not None else []

    async def standing(self, tenant: TenantId) -> MemoryStanding:
        """Count what is kept for a tenant."""
        records = await self.records(tenant)
        states = Counter(record.state for record in records)
        return MemoryStanding(
            live=states["live"],
            superseded=states["superseded"],
            quarantined=states["quarantined"],
            pinned=sum(record.pinned for record in records),
            text_bytes=sum(record.size_bytes for record in records),
        )

    # Writing.

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate that passes the quality gate and is new; on disk when the reply says that it is kept."""
        return await self._offer(candidate)

    async def _offer(self, candidate: Candidate, lineage: tuple[str, ...] = ()) -> LearnReply:
        await self.start()
        memory = self._memory(candidate.tenant)
        try:
            return await memory.write(candidate, lineage)
        finally:
            self._evict_idle(memory)

    # Keeping.

    async def plan_erasure(self, order: Erasure) -> ErasureReceipt:
        """Return what an order would erase, and erase nothing."""
        memory = await self._existing(order.checked().tenant)
        plan = ErasurePlan()
        if memory is not None:
            plan = await memory.plan(order)
            self._evict_idle(memory)
        _check_kept(order, plan)
        return self._receipt(order, plan, dry_run=True)

    async def erase(self, order: Erasure) -> ErasureReceipt:
        """Erase; nothing of it is in any result from now on, and in no file when this returns.

        Raises `InvalidInput` for an order that names nothing, or is to keep what does not derive from what it names.  A
        crash or an error in between only delays it.
        """
        order.checked()
        await self.start()
        memory = self._memory(order.tenant)
        if order.keep:
            await self.plan_erasure(order)
        try:
            gone = await memory.erase(order)
        finally:
            self._embedding.forget(order.tenant)
            if memory.index is not None:
                memory.index.forget_questions()
            self._evict_idle(memory)
        return self._receipt(order, gone)

    def _receipt(self, order: Erasure, plan: ErasurePlan, *, dry_run: bool = False) -> ErasureReceipt:
        return ErasureReceipt(
            tenant=order.tenant,
            what=order.what,
            target=order.target,
            records=plan.ids,
            at_us=self._now_us(),
            dry_run=dry_run,
            taken=plan.taken,
            left=plan.left,
            untraced=plan.untraced,
        )

    async def change(self, tenant: TenantId, record_id: str, what: Change) -> bool:
        """Pin, unpin, quarantine or release a record; return whether there is one that this can be done to.

        A pinned record stays for ever, one that is unpinned as long as its kind does from now on.  Only what is live
        can be quarantined, and only what is quarantined released.
        """
        memory = await self._existing(tenant)
        if memory is None or not is_record_id(record_id):
            return False
        doing = {"pin": memory.pin, "unpin": memory.unpin, "quarantine": memory.quarantine, "release": memory.release}
        try:
            return await doing[what](record_id)
        finally:
            self._evict_idle(memory)

    async def export(self, tenant: TenantId) -> bytes:
        """Return all that is kept for a tenant, as a Parquet file."""
        return await asyncio.to_thread(write_parquet, await self.records(tenant))

    async def take_in(self, tenant: TenantId, data: bytes, trust: Trust) -> dict[str, int]:
        """Offer every live record of a Parquet file as a candidate of this trust at most; return how many of each code.

        Raises `InvalidInput` for a file that is none, before anything is kept.
        """
        records = await asyncio.to_thread(read_parquet, data, tenant, trust, self._now_us())
        replies = await self._offered(records)
        ids = {old.record_id: reply.record_id for old, reply in zip(records, replies, strict=True) if reply.record_id}
        # What derives from another record of the file is offered again, with the id that this one has now.
        renamed = [each._replace(lineage=tuple(ids.get(mark, mark) for mark in each.lineage)) for each in records]
        await self._offered([new for new, old in zip(renamed, records, strict=True) if new.lineage != old.lineage])
        return dict(Counter(reply.code for reply in replies))

    async def _offered(self, records: Sequence[Imported]) -> list[LearnReply]:
        replies: list[LearnReply] = []
        for at in range(0, len(records), 256):
            some = records[at : at + 256]
            replies += await asyncio.gather(*(self._offer(each.candidate, each.lineage) for each in some))
        return replies

    async def reembed(self, tenant: TenantId) -> int:
        """Embed what another embedder embedded; return how many that were.  An opened tenant begins by itself."""
        memory = await self._existing(tenant)
        if memory is None:
            return 0
        try:
            return await memory.reembed()
        finally:
            self._evict_idle(memory)

    async def sweep(self) -> int:
        """Drop what has expired, of every tenant, and carry out what was ordered; return how many records expired.

        Raises `MemoryFailed` naming the tenants that could not be swept, after the others were.
        """
        await self.start()
        assert self._database is not None
        assert self._orders is not None
        count, failed = 0, []
        for tenant in sorted({*map(tenant_of, self._database.names), *self._orders.tenants()}):
            memory = self._memory(tenant)
            try:
                count += await memory.sweep()
            except Exception as error:
                failed.append(f"{memory.tenant} ({text_of(error, 300)})")
            self._evict_idle(memory)
        await self._on_thread(give_back)
        if failed:
            raise MemoryFailed(f"not swept: {', '.join(failed)}"[:1000])
        return count

    def stats(self) -> dict[str, int]:
        """Return the tenants there are, those open, and those being changed or compacted; what is held in RAM."""
        indexes = [memory.index for memory in self._tenants.values() if memory.index is not None]
        return {
            "tables": len(self._database.names) if self._database is not None else 0,
            "tenants": len(indexes),
            "unsettled": sum(memory.has_work for memory in self._tenants.values()),
            "records": sum(map(len, indexes)),
            "hot_bytes": self._hot_bytes,
            "cached_queries": self._embedding.size,
        }

    def close(self) -> None:
        """Let the threads end."""
        self._embedding.close()
        self._thread.shutdown(wait=True, cancel_futures=True)

    # Tenants.

    async def _existing(self, tenant: TenantId) -> TenantMemory | None:
        """Return a tenant's memory, None if nothing was ever kept for it."""
        await self.start()
        assert self._database is not None
        return self._memory(tenant) if table_name(tenant) in self._database.names else None

    def _memory(self, tenant: TenantId) -> TenantMemory:
        """Return the one memory of a tenant; raise `InvalidId` for what is no tenant's id."""
        assert self._database is not None and self._orders is not None
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[parse_tenant(tenant)] = TenantMemory(
                tenant,
                self._database,
                self._orders,
                self._rules,
                self._made,
                self._on_thread,
                self._embedding.texts,
                self._now_us,
            )
        return found

    async def _made(self, tenant: TenantId) -> tuple[TenantStore, TenantIndex]:
        assert self._database is not None
        model = await self._embedding.model()
        if self._calibration is None:
            checked_name(model.name)
            self._calibration = load_calibration(model.name, self._folder / "calibrations")
        store = TenantStore(self._database, tenant, model.name, model.dimension)
        return store, TenantIndex(model.dimension, self._rules, self._calibration)

    async def _opened(self, memory: TenantMemory) -> TenantIndex:
        """Return a tenant's records, as those used last."""
        if memory.index is not None:
            self._tenants.move_to_end(memory.tenant)
            return memory.index
        index = await memory.opened()
        self._evict_idle(memory)
        return index

    def _evict_idle(self, memory: TenantMemory) -> None:
        """Close tenants until the open ones fit into RAM; never one that is written to, nor the one just used."""
        self._tenants.move_to_end(memory.tenant)
        self._count(memory)
        if self._hot_bytes <= self._rules.hot_bytes:
            return
        for other in list(self._tenants.values()):
            if other is not memory and other.index is not None and not other.busy:
                other.close()
                self._count(other)
                if self._hot_bytes <= self._rules.hot_bytes:
                    return

    def _count(self, memory: TenantMemory) -> None:
        self._hot_bytes += memory.size_bytes - self._sizes.get(memory.tenant, 0)
        self._sizes[memory.tenant] = memory.size_bytes

    async def _on_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _question_of(request: RecallRequest) -> str:
    """Return what a request asks; raise `InvalidInput` if it cannot be."""
    if request.min_score is not None and not 0 <= request.min_score <= 1:
        raise InvalidInput(f"min_score {request.min_score}: a probability, within 0 and 1")
    return request.query[:MAX_QUERY_CHARACTERS].strip()


def _check_kept(order: Erasure, plan: ErasurePlan) -> None:
    """Raise `InvalidInput` for a record that is to be kept and does not derive from what goes.

    Where nothing is left to go, an order that was carried out before was given again.
    """
    others = sorted(set(order.keep) - {each.record_id for each in plan.left})
    if others and (plan.taken or plan.left):
        raise InvalidInput(
            f"erase: keep {', '.join(others)}: no record that derives from {order.what} {order.target!r:.80}, "
            "or its own: keep what a dry run shows as derived"
        )


def _unanswered(error: Exception) -> RecallReply:
    return RecallReply(error=f"{type(error).__name__}: {text_of(error, 400)}")
