"""Memory as the cycle sees it: retrieve and write_if_useful, for every tenant of a cell.

The embedder is loaded at first need, in a thread, and a tenant without records is answered without it.  All LanceDB
and embedding work happens on one worker thread, which makes this process the single writer of every table.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from airside.memory.embedder import Embedder, Vectors
from airside.memory.quality import objection
from airside.memory.store import TenantStore, open_database, table_name, table_names
from airside.stack.ids import TenantId
from airside.stack.ports import Candidate, LearnReply, RecallReply, RecallRequest

CACHED_QUERIES = 10_000
"""Query embeddings kept: a run asks the same at every step."""


class MemoryService:
    """The `Memory` port over LanceDB."""

    def __init__(self, folder: Path, embedder: Callable[[], Embedder], now_us: Callable[[], int]) -> None:
        self._folder = folder
        self._make_embedder = embedder
        self._now_us = now_us
        self._embedder: Embedder | None = None
        self._database: Any = None
        self._stores: dict[TenantId, TenantStore] = {}
        self._tables: set[str] | None = None
        self._queries: OrderedDict[str, Vectors] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="memory")

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return what is relevant, or the error in the reply."""
        try:
            return RecallReply(records=await self._search(request))
        except Exception as error:
            return RecallReply(error=f"{type(error).__name__}: {error}"[:500])

    async def _search(self, request: RecallRequest) -> tuple[Any, ...]:
        store = self._stores.get(request.tenant)
        if store is None:
            if self._tables is None:
                await self._on_worker(self._open)
            if table_name(request.tenant) not in (self._tables or ()):
                return ()  # nothing was ever kept for this tenant
            store = await self._on_worker(self._store, request.tenant)
        if len(store) == 0:
            return ()
        vector = self._queries.get(request.query)
        if vector is None:
            vector = await self._on_worker(self._embed_query, request.query)
        return store.search(
            vector,
            top_k=request.top_k,
            min_score=request.min_score,
            clearance=request.clearance,
            now_us=self._now_us(),
            exclude_expired=request.exclude_expired,
        )

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate that passes the quality gate and is new."""
        code = objection(candidate)
        if code is not None:
            return LearnReply(code=code)
        reply: LearnReply = await self._on_worker(self._write, candidate)
        return reply

    def _write(self, candidate: Candidate) -> LearnReply:
        store = self._store(candidate.tenant)
        if store.has(candidate.text):
            return LearnReply(code="duplicate")
        vector = self._model().embed([candidate.text])[0]
        return LearnReply(code="stored", record_id=store.add(candidate, vector, self._now_us()))

    def stats(self) -> dict[str, int]:
        """Return the number of open tenants, their records, and the cached queries."""
        records = sum(len(store) for store in self._stores.values())
        return {"tenants": len(self._stores), "records": records, "cached_queries": len(self._queries)}

    async def _on_worker(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)

    # On the worker thread.

    def _model(self) -> Embedder:
        if self._embedder is None:
            self._embedder = self._make_embedder()
        return self._embedder

    def _open(self) -> Any:
        if self._database is None:
            self._database = open_database(self._folder)
            self._tables = table_names(self._database)
        return self._database

    def _store(self, tenant: TenantId) -> TenantStore:
        if tenant not in self._stores:
            model = self._model()
            self._stores[tenant] = TenantStore(self._open(), tenant, model.name, model.dimension)
            assert self._tables is not None
            self._tables.add(table_name(tenant))
        return self._stores[tenant]

    def _embed_query(self, query: str) -> Vectors:
        vector = self._queries.get(query)
        if vector is None:
            vector = self._model().embed([query])[0]
            self._queries[query] = vector
            if len(self._queries) > CACHED_QUERIES:
                self._queries.popitem(last=False)
        return vector
