"""One tenant's memory: its records in RAM, its table on disk, and every change made in one order.

Changes come in groups: what is offered while one commit is under way goes into the next.  They are planned and
written on the store's thread and shown to readers, on the event loop, only when they are on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from airside.memory.embedder import Vectors
from airside.memory.erasing import Erasure
from airside.memory.index import TenantIndex
from airside.memory.planning import Drafted, Plan
from airside.memory.quality import Draft
from airside.memory.records import FOREVER_US, Record
from airside.memory.rules import MemoryRules
from airside.memory.store import TenantStore
from airside.stack.ids import TenantId
from airside.stack.ports import LearnReply

GROUP = 256
"""Candidates committed together at most."""

REEMBEDDED = 64
"""Records embedded anew between two commits."""

Result = TypeVar("Result")
OnThread = Callable[..., Awaitable[Any]]
Embed = Callable[[Sequence[str]], Awaitable[Vectors]]


class TenantMemory:
    """One tenant's memory, opened.  `broken` = a write failed: what is on disk is to be loaded anew."""

    def __init__(
        self,
        tenant: TenantId,
        store: TenantStore,
        index: TenantIndex,
        rules: MemoryRules,
        on_thread: OnThread,
        embed: Embed,
        now_us: Callable[[], int],
    ) -> None:
        self.tenant = tenant
        self.index = index
        self.broken = False
        self._store = store
        self._rules = rules
        self._on_thread = on_thread
        self._embed = embed
        self._now_us = now_us
        self._waiting: list[tuple[Draft, asyncio.Future[LearnReply]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._users = 0

    @property
    def busy(self) -> bool:
        """Whether something is being written, so that it must stay open."""
        return bool(self._waiting) or self._users > 0 or self._changing.locked()

    async def load(self) -> None:
        """Read the table into RAM."""
        await self._on_thread(self._load)

    def _load(self) -> None:
        for record, vector in self._store.load():
            self.index.put(record, vector)

    async def write(self, draft: Draft) -> LearnReply:
        """Keep a draft; it is on disk when this returns that it is kept."""
        future: asyncio.Future[LearnReply] = asyncio.get_running_loop().create_future()
        with self._used():
            self._waiting.append((draft, future))
            if self._committing is None or self._committing.done():
                self._committing = asyncio.ensure_future(self._commit_all())
            return await future

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """Keep it open meanwhile: two of one tenant would not know of each other's changes."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    async def _commit_all(self) -> None:
        await asyncio.sleep(0)  # those who write in this turn of the loop are one group
        while self._waiting:
            group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            try:
                replies = await self._commit([draft for draft, _ in group])
            except Exception as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), reply in zip(group, replies, strict=True):
                if not future.done():
                    future.set_result(reply)

    async def _commit(self, drafts: list[Draft]) -> list[LearnReply]:
        vectors = await self._embed([draft.text for draft in drafts])
        drafted = [Drafted(draft, vector) for draft, vector in zip(drafts, vectors, strict=True)]
        async with self._changing:
            plan = Plan(self.index, self.tenant, self._rules.quota_of(self.tenant), self._now_us())
            await self._on_thread(plan.take, drafted)
            await self._written(plan.added, plan.changed)
        return plan.replies

    async def _written(
        self,
        added: Mapping[str, tuple[Record, Vectors | None]],
        changed: Mapping[str, tuple[Record, Vectors | None]],
    ) -> None:
        """Commit, and show readers what was committed; the lock is held."""
        if not added and not changed:
            return
        await self._safely(self._store.commit, added, changed)
        for record, vector in (*changed.values(), *added.values()):
            self.index.put(record, vector)
        if self.index.sparse:
            self.index = await self._on_thread(self.index.rebuilt)

    async def _safely(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            await self._on_thread(function, *args)
        except BaseException:
            self.broken = True  # it may be on disk or not: only the disk can tell
            raise

    # Keeping.

    async def change(self, record_ids: Iterable[str], **fields: Any) -> list[str]:
        """Change fields of records there are; return whose."""
        with self._used():
            return await self._change(record_ids, fields)

    async def _change(self, record_ids: Iterable[str], fields: dict[str, Any]) -> list[str]:
        async with self._changing:
            changed = {
                i: (msgspec.structs.replace(self.index.records[i], **fields), self.index.vector(i))
                for i in record_ids
                if i in self.index.records
            }
            await self._written({}, changed)
        return list(changed)

    async def pin(self, record_id: str, *, pinned: bool) -> bool:
        """Let a record stay for ever, or as long as its kind does from now; return whether there is one."""
        record = self.index.records.get(record_id)
        if record is None:
            return False
        kind = self._rules.kinds.get(record.kind)
        ends_us = self._now_us() + (kind.ttl_s if kind is not None else 1) * 1_000_000
        return bool(await self.change([record_id], pinned=pinned, expires_us=FOREVER_US if pinned else ends_us))

    async def erase(self, order: Erasure) -> tuple[str, ...]:
        """Erase what an order covers: at once for readers, and from disk when this returns."""
        with self._used():
            return await self._erase(order)

    async def _erase(self, order: Erasure) -> tuple[str, ...]:
        async with self._changing:
            gone = [record_id for record_id, record in self.index.records.items() if order.covers(record)]
            self.index.remove(gone)
            await self._safely(self._rewrite)
            self.index = await self._on_thread(self.index.rebuilt)
        return tuple(gone)

    def _rewrite(self) -> None:
        self._store.rewrite({i: (record, self.index.vector(i)) for i, record in self.index.records.items()})

    async def sweep(self) -> int:
        """Drop what has expired; return how many records that were."""
        now_us = self._now_us()
        if not any(record.expires_us <= now_us for record in self.index.records.values()):
            return 0
        with self._used():
            async with self._changing:
                gone = [i for i, record in self.index.records.items() if record.expires_us <= now_us]
                self.index.remove(gone)
                await self._safely(self._store.drop_expired, now_us)
        return len(gone)

    async def reembed(self) -> int:
        """Embed what has no vector of this embedder; return how many records that were."""
        with self._used():
            return await self._reembed()

    async def _reembed(self) -> int:
        count = 0
        while not self.broken:
            missing = [i for i in self.index.records if self.index.vector(i) is None][:REEMBEDDED]
            if not missing:
                break
            texts = {i: self.index.records[i].text for i in missing}
            vectors = await self._embed(list(texts.values()))
            async with self._changing:
                changed = {
                    i: (self.index.records[i], vector)
                    for (i, text), vector in zip(texts.items(), vectors, strict=True)
                    if i in self.index.records and self.index.records[i].text == text
                }
                await self._written({}, changed)
            count += len(changed)
        return count

    @property
    def fragments(self) -> int:
        """Pieces of its table on disk."""
        return self._store.fragments
