"""The `Memory` port in one process: hashed words instead of a model's vectors, nothing on disk, the same rules."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from airside.memory.embedders.embedder import Vectors
from airside.memory.records import Record
from airside.memory.rules import MemoryRules
from airside.memory.search.calibration import GENERIC, load_calibration
from airside.memory.search.index import Bounds, Query, TenantIndex
from airside.memory.search.vocabulary import terms
from airside.memory.storage.erasure import Erasure
from airside.memory.storage.erasure_plan import ErasurePlan, plan_erasure
from airside.memory.text import MAX_QUERY_CHARACTERS
from airside.memory.writing.quality_gate import draft
from airside.memory.writing.reconcile import Drafted, WritePlan
from airside.stack.canonical import digest
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.ids import TenantId
from airside.stack.reasons import MemoryCode


class HashingEmbedder:
    """Embeds a text as the counts of its hashed words: texts are as alike as their words are the same."""

    name = "hashed-words"
    dimension = 256

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row of unit length per text, shape (len(texts), 256), float32."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for term in terms(text) or [""]:
                row[zlib.crc32(term.encode()) % self.dimension] += 1
            row /= np.linalg.norm(row)
        return vectors


class InMemoryMemory:
    """Keeps everything of the contract but durability."""

    def __init__(self, now_us: Callable[[], int], rules: MemoryRules | None = None) -> None:
        self._now_us = now_us
        self._rules = (rules or MemoryRules()).checked()
        self._calibration = load_calibration(GENERIC)
        self._embedder = HashingEmbedder()
        self._tenants: dict[TenantId, TenantIndex] = {}

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return the best records of the tenant."""
        index, query = self._tenants.get(request.tenant), request.query[:MAX_QUERY_CHARACTERS]
        if index is None or not query.strip():
            return RecallReply()
        bounds = Bounds(request.top_k, request.min_score, request.clearance, self._now_us())
        vector = self._embedder.embed([query])[0]
        return RecallReply(records=index.search(Query.of(query, vector), bounds))

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate that passes the quality gate and is new."""
        found = draft(candidate, self._rules, self._now_us())
        if isinstance(found, MemoryCode):
            return LearnReply(code=found)
        index = self._tenants.setdefault(
            candidate.tenant, TenantIndex(self._embedder.dimension, self._rules, self._calibration)
        )
        # The same words at the same time are the same id: whoever replays a seed sees the same story.
        record_id = "mem_" + digest(f"{candidate.tenant}|{self._now_us()}|{found.digest}".encode())[:24]
        quota = self._rules.quota_of(candidate.tenant)
        plan = WritePlan(index, candidate.tenant, quota, self._now_us(), lambda: record_id)
        plan.take([Drafted(found, self._embedder.embed([found.text])[0])])
        for record, vector in (*plan.changed.values(), *plan.added.values()):
            index.put(record, vector)
        return plan.replies[0]

    def records(self, tenant: TenantId) -> list[Record]:
        """Return all that is kept for a tenant."""
        index = self._tenants.get(tenant)
        return list(index.records.values()) if index is not None else []

    async def erase(self, order: Erasure) -> ErasurePlan:
        """Erase what an order takes."""
        index = self._tenants.get(order.checked().tenant)
        if index is None:
            return ErasurePlan()
        plan = plan_erasure(order, index.records.values())
        index.remove(plan.ids)
        return plan
