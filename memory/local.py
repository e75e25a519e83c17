"""The `Memory` port in one process: words instead of vectors, nothing on disk."""

from __future__ import annotations

import re
from collections.abc import Callable

from airside.memory.quality import objection
from airside.stack.agents import Recalled
from airside.stack.canonical import digest
from airside.stack.ids import TenantId
from airside.stack.ports import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.values import CLEARANCES

_WORD = re.compile(r"\w+")


class LocalMemory:
    """Scores by the share of the query's words a record has; keeps everything else of the contract."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._records: dict[TenantId, list[Recalled]] = {}

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Return the best records of the tenant."""
        words = set(_WORD.findall(request.query.lower()))
        level, now = CLEARANCES.index(request.clearance), self._now_us()
        found = []
        for record in self._records.get(request.tenant, []):
            if CLEARANCES.index(record.sensitivity) > level:
                continue
            if request.exclude_expired and record.expires_us <= now:
                continue
            score = len(words & set(_WORD.findall(record.text.lower()))) / max(1, len(words))
            if score >= request.min_score:
                found.append((score, record))
        found.sort(key=lambda pair: -pair[0])
        return RecallReply(records=tuple(_scored(record, score) for score, record in found[: request.top_k]))

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate that passes the quality gate and is new."""
        code = objection(candidate)
        if code is not None:
            return LearnReply(code=code)
        records = self._records.setdefault(candidate.tenant, [])
        if any(r.text == candidate.text and r.expires_us > self._now_us() for r in records):
            return LearnReply(code="duplicate")
        now = self._now_us()
        record_id = "mem_" + digest(f"{candidate.tenant}|{candidate.text}".encode())[:24]
        records.append(
            Recalled(
                record_id=record_id,
                text=candidate.text,
                score=0.0,
                source=candidate.source,
                sensitivity=candidate.sensitivity,
                kind=candidate.kind,
                created_us=now,
                expires_us=now + candidate.ttl_s * 1_000_000,
            )
        )
        return LearnReply(code="stored", record_id=record_id)


def _scored(record: Recalled, score: float) -> Recalled:
    fields = {name: getattr(record, name) for name in Recalled.__struct_fields__}
    return Recalled(**{**fields, "score": score})
