"""One tenant's memory: its records in RAM, its table on disk, and every change made in one order.

There is one object a tenant for as long as the process lives; its records are loaded when they are needed, and let go
to make room, or when a change failed: then only the disk can tell what is so.

Changes come in groups: what is offered while one commit is under way goes into the next.  They are planned and
written on the store's thread and shown to readers, on the event loop, only when they are on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from airside.memory.comparison.reading import forget_readings
from airside.memory.comparison.relation import relation
from airside.memory.embedders.embedder import Vectors
from airside.memory.records import FOREVER_US, Record, State
from airside.memory.rules import MemoryRules
from airside.memory.search.index import TenantIndex, statement_of, topic_of
from airside.memory.storage.erasure import Erasure, ErasureLog
from airside.memory.storage.erasure_plan import ErasurePlan, plan_erasure, reached
from airside.memory.storage.freeing import give_back
from airside.memory.storage.store import Database, Pairs, TenantStore, table_name
from airside.memory.text import forget_words
from airside.memory.writing.quality_gate import Draft, NameChecks, draft
from airside.memory.writing.reconcile import ABOUT, Drafted, WritePlan
from airside.stack.contracts.memory import Candidate, LearnReply
from airside.stack.errors import MemoryFailed
from airside.stack.ids import TenantId
from airside.stack.reasons import MemoryCode

GROUP = 256
"""Candidates committed together at most."""

YIELD_EVERY = 16
"""Records shown to readers between two turns of the event loop: a long text takes a millisecond."""

IDLE_S = 1.0
"""After the last commit, when what they left in pieces is compacted."""

REEMBEDDED = 64
"""Records embedded anew between two commits."""

OnThread = Callable[..., Awaitable[Any]]
Embed = Callable[[TenantId, Sequence[str]], Awaitable[Vectors]]
Make = Callable[[TenantId], Awaitable[tuple[TenantStore, TenantIndex]]]

logger = logging.getLogger(__name__)


class PendingWrite(NamedTuple):
    """A candidate, its number, the lineage it brings along, and who waits for what becomes of it."""

    number: int
    candidate: Candidate
    lineage: tuple[str, ...]
    answer: asyncio.Future[LearnReply]


@dataclass(slots=True, eq=False)
class PendingErasure:
    """An order that somebody waits for, where it is written down, and what went by it, None until it is carried out.

    `hidden` are the records that nobody finds meanwhile.  What derives from the target is among them, whether it will
    be left or not: what is left is shown again in a moment.
    """

    order: Erasure
    path: Path | None = None
    gone: ErasurePlan | None = None
    hidden: set[str] = field(default_factory=set)

    def reaches(self, record: Record) -> bool:
        """Whether a record that was written meanwhile is hidden too."""
        return self.order.covers(record) or (self.order.only != "own" and not self.hidden.isdisjoint(record.lineage))


class TenantMemory:
    """One tenant's memory.  `index` is what readers see, None while nothing is loaded."""

    def __init__(
        self,
        tenant: TenantId,
        database: Database,
        orders: ErasureLog,
        rules: MemoryRules,
        make: Make,
        on_thread: OnThread,
        embed: Embed,
        now_us: Callable[[], int],
    ) -> None:
        self.tenant = tenant
        self.index: TenantIndex | None = None
        self._store: TenantStore | None = None
        self._database = database
        self._orders = orders
        self._rules = rules
        self._make = make
        self._on_thread = on_thread
        self._embed = embed
        self._now_us = now_us
        self._waiting: list[PendingWrite] = []
        self._offers = 0
        self._pending_erasures: list[PendingErasure] = []
        self._erased: list[tuple[int, Erasure]] = []
        self._committing: asyncio.Task[None] | None = None
        self._reembedding: asyncio.Task[int] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._users = 0

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept for it."""
        return table_name(self.tenant) in self._database.names

    @property
    def busy(self) -> bool:
        """Whether something is being changed, so that it must stay loaded."""
        return self._users > 0 or self._changing.locked()

    @property
    def has_work(self) -> bool:
        """Whether it is being changed, or waits to be compacted."""
        return self.busy or (self._store is not None and self._store.is_ragged)

    @property
    def size_bytes(self) -> int:
        """About how much RAM it takes."""
        return self.index.size_bytes if self.index is not None else 0

    # Loading.

    async def opened(self) -> TenantIndex:
        """Return its records, loaded; good until the caller waits for something.

        Raises `MemoryFailed` if they cannot be read, or what was to be erased cannot be.
        """
        if self.index is not None:
            return self.index
        async with self._turn() as index:
            return index

    def close(self) -> None:
        """Let the records go; they are loaded again when they are needed."""
        self.index = self._store = None

    @contextlib.asynccontextmanager
    async def _turn(self, *, make: bool = False) -> AsyncIterator[TenantIndex]:
        """Change it, one after the other; `make` = also where nothing was ever kept."""
        async with self._locked():
            if self.index is None and self._orders.of(self.tenant):
                await self._carry_out()  # nobody reads before what had to go is gone
            if self.index is None and not make and not self.exists:
                yield (await self._make(self.tenant))[1]
                return
            if self.index is None:
                self._show(await self._read())
            assert self.index is not None
            yield self.index

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Let nobody else change it meanwhile; after an error only the disk can tell what is so."""
        with self._used():
            async with self._changing:
                try:
                    yield
                except BaseException:
                    self.close()
                    raise

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """Keep it loaded meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    async def _read(self) -> TenantIndex:
        self._store, index = await self._make(self.tenant)
        await self._on_thread(_fill, index, self._store)
        return index

    def _show(self, index: TenantIndex) -> None:
        self.index = index
        for asked in self._pending_erasures:
            if asked.gone is None:
                self._hide_reached(index, asked)
        if self._reembedding is None and index.unembedded(1):
            self._reembedding = asyncio.ensure_future(self.reembed())
            self._reembedding.add_done_callback(self._reembedded)

    def _hide_reached(self, index: TenantIndex, asked: PendingErasure) -> None:
        """Let nobody find what an order is about to take."""
        own, *further = reached(asked.order, index.records.values())
        found = [*own, *(record for records in further for record in records if asked.order.only != "own")]
        asked.hidden |= {record.record_id for record in found}
        index.hide(record.record_id for record in found)

    def _hide(self, index: TenantIndex, written: Iterable[Record]) -> None:
        """Let nobody find of what was written just now what is being erased."""
        for asked in self._pending_erasures:
            ids = [record.record_id for record in written if asked.reaches(record)]
            asked.hidden.update(ids)
            index.hide(ids)

    def _reembedded(self, task: asyncio.Task[int]) -> None:
        self._reembedding = None
        if not task.cancelled() and task.exception() is not None:
            # What waits to be embedded is not recalled; the next loading tries again.
            logger.warning("%s was not embedded anew: %s", self.tenant, task.exception())

    # Writing.

    async def write(self, candidate: Candidate, lineage: tuple[str, ...] = ()) -> LearnReply:
        """Keep a candidate that passes the quality gate and is new; it is on disk when this returns that it is kept."""
        future: asyncio.Future[LearnReply] = asyncio.get_running_loop().create_future()
        with self._used():
            self._offers += 1
            self._waiting.append(PendingWrite(self._offers, candidate, lineage, future))
            if self._committing is None or self._committing.done():
                self._committing = asyncio.ensure_future(self._commit_all())
            return await future

    async def _commit_all(self) -> None:
        group: list[PendingWrite] = []
        try:
            await asyncio.sleep(0)  # those who write in this turn of the loop are one group
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
                await self._answer(group)
        except BaseException:  # the process ends
            _fail([*group, *self._waiting], MemoryFailed("memory was closed before this was written"))
            raise

    async def _answer(self, group: list[PendingWrite]) -> None:
        """Draft a group, refuse what is not worth keeping, and commit the rest."""
        candidates = [offered.candidate for offered in group]
        drafts = await asyncio.to_thread(_drafts, candidates, self._rules, self._now_us())
        worth: list[tuple[PendingWrite, Draft]] = []
        for offered, found in zip(group, drafts, strict=True):
            if isinstance(found, Draft):
                worth.append((offered, found._replace(lineage=offered.lineage) if offered.lineage else found))
            elif isinstance(found, MemoryCode):
                _reply(offered, LearnReply(code=found))
            else:
                _fail([offered], found)
        if not worth:
            return
        try:
            replies = await self._commit(worth)
        except Exception as error:
            _fail([offered for offered, _ in worth], error)
            return
        for (offered, _), reply in zip(worth, replies, strict=True):
            _reply(offered, reply)

    async def _commit(self, group: list[tuple[PendingWrite, Draft]]) -> list[LearnReply]:
        vectors = await self._embed(self.tenant, [draft.text for _, draft in group])
        async with self._turn(make=True) as index:
            is_erased = [self._is_erased(offered) for offered, _ in group]
            pairs = zip(group, vectors, is_erased, strict=True)
            drafted = [Drafted(draft, vector) for (_, draft), vector, is_gone in pairs if not is_gone]
            plan = WritePlan(index, self.tenant, self._rules.quota_of(self.tenant), self._now_us())
            await self._on_thread(plan.take, drafted)
            await self._written(index, plan.added.values(), plan.changed.values())
            last = group[-1][0].number
            self._erased = [(number, order) for number, order in self._erased if number > last]
        replies = iter(plan.replies)
        return [LearnReply(code=MemoryCode.ERASED) if is_gone else next(replies) for is_gone in is_erased]

    def _is_erased(self, offered: PendingWrite) -> bool:
        """Whether what a candidate is about was ordered to be erased after it was offered."""
        subject = offered.candidate.subject
        return any(offered.number <= number and order.is_about(subject) for number, order in self._erased)

    async def _written(self, index: TenantIndex, added: Pairs, changed: Pairs) -> None:
        """Commit, and show readers what was committed."""
        if not added and not changed:
            return
        assert self._store is not None
        await self._on_thread(self._store.commit, added, changed)
        shown: list[Record] = []
        for number, (record, vector) in enumerate((*changed, *added)):
            index.put(record, vector)
            shown.append(record)
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                self._hide(index, shown)
                shown = []
                await asyncio.sleep(0)
        self._hide(index, shown)
        if index.sparse:
            self._show(await self._on_thread(index.rebuilt))
        self._tidy_later()

    def _tidy_later(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._begin_to_tidy)

    def _begin_to_tidy(self) -> None:
        if self.busy:
            self._tidy_later()
        elif self._store is not None and self._store.is_ragged:
            self._tidying = asyncio.ensure_future(self._tidy())

    async def _tidy(self) -> None:
        async with self._locked():
            if self._store is not None:
                await self._on_thread(self._store.tidy)
                await self._on_thread(give_back)

    # Keeping.

    async def pin(self, record_id: str) -> bool:
        """Let a record stay for ever; return whether there is one that has not expired."""
        return await self._change(record_id, lambda r: {} if r.pinned else {"pinned": True, "expires_us": FOREVER_US})

    async def unpin(self, record_id: str) -> bool:
        """Let a pinned record stay as long as its kind does from now; return whether there is one."""
        return await self._change(record_id, lambda r: {"pinned": False, "expires_us": self._end(r)}, pinned=True)

    def _end(self, record: Record) -> int:
        return self._now_us() + self._rules.kind_of(record.kind).ttl_s * 1_000_000

    async def quarantine(self, record_id: str) -> bool:
        """Put a live record aside; return whether there is one."""
        return await self._change(record_id, lambda _: {"state": "quarantined"}, state="live")

    async def release(self, record_id: str) -> bool:
        """Let a quarantined record be recalled; return whether there is one, and no live one in its place."""
        return await self._change(record_id, lambda _: {"state": "live", "superseded_by": ""}, state="quarantined")

    async def _change(
        self,
        record_id: str,
        fields: Callable[[Record], dict[str, Any]],
        *,
        state: State | None = None,
        pinned: bool = False,
    ) -> bool:
        async with self._turn() as index:
            record = index.records.get(record_id)
            if record is None or record.expires_us <= self._now_us():
                return False
            if (state is not None and record.state != state) or (pinned and not record.pinned):
                return False
            if state == "quarantined" and _is_taken(index, record, self._now_us()):
                return False
            changes = fields(record)
            if changes:
                pair = (msgspec.structs.replace(record, **changes), index.vector(record_id))
                await self._written(index, [], [pair])
        return True

    async def erase(self, order: Erasure) -> ErasurePlan:
        """Erase what an order takes: at once for readers, and from disk when this returns.

        What was offered before and is not committed yet is not kept.  Raises `OSError` or `MemoryFailed`; once the
        order is on disk, nothing is read before it is carried out.
        """
        if not self.exists and not self.busy and not self._orders.of(self.tenant):
            return ErasurePlan()
        asked = PendingErasure(order)
        self._pending_erasures.append(asked)
        if self._committing is not None and not self._committing.done():
            self._erased.append((self._offers, order))
        if self.index is not None:
            self._hide_reached(self.index, asked)
        # Whoever stops waiting for it does not stop it: an order that is half taken would cover what comes after.
        return await asyncio.shield(asyncio.ensure_future(self._erase(asked)))

    async def _erase(self, asked: PendingErasure) -> ErasurePlan:
        try:
            async with self._locked():
                if asked.gone is None:  # else another one's turn carried it out too
                    for each in self._pending_erasures:
                        if each.gone is None:
                            each.path = await self._on_thread(self._orders.take, each.order, self._now_us())
                    await self._carry_out()
            return asked.gone or ErasurePlan()
        finally:
            self._pending_erasures.remove(asked)

    async def plan(self, order: Erasure) -> ErasurePlan:
        """Return what an order would take."""
        records = list((await self.opened()).records.values())
        return await asyncio.to_thread(plan_erasure, order, records)

    async def finish_erasures(self) -> None:
        """Carry out the orders that were not done."""
        async with self._locked():
            await self._carry_out()

    async def _carry_out(self) -> None:
        """Carry out the orders there are, and let those who wait for them know what went by each."""
        orders = self._orders.of(self.tenant)
        name = table_name(self.tenant)
        gone = dict.fromkeys(orders, ErasurePlan())
        is_all = any(order.what == "tenant" for order in orders.values())
        if is_all:
            self.close()
            all_of_it = await self._on_thread(self._database.drop, name)
            gone |= {path: all_of_it for path, order in orders.items() if order.what == "tenant"}
        elif orders and self.exists:
            gone = await self._on_thread(self._database.without, name, orders)
        for asked in self._pending_erasures:
            if asked.path is not None:
                asked.gone = gone.get(asked.path, asked.gone)
        if orders and not is_all and self.exists:
            await self._drop_erased({record_id for plan in gone.values() for record_id in plan.ids})
        for path, order in orders.items():
            await self._on_thread(self._orders.done, path, order)
        if orders:
            forget_words()
            forget_readings()
            await self._on_thread(give_back)

    async def _drop_erased(self, record_ids: set[str]) -> None:
        """Take what is gone from disk out of what is loaded, so that nothing of it is left there."""
        if self.index is not None and self._store is not None:
            self.index.remove(record_ids)
            await self._on_thread(self._store.reopen)
            self._show(await self._on_thread(self.index.rebuilt))

    async def sweep(self) -> int:
        """Drop what has expired, and compact what was written; return how many records expired.

        What is not loaded is not loaded for that.
        """
        now_us = self._now_us()
        async with self._locked():
            if self._orders.of(self.tenant):
                await self._carry_out()
            if self.index is None:
                name = table_name(self.tenant)
                return await self._on_thread(self._database.drop_expired, name, now_us) if self.exists else 0
            assert self._store is not None
            gone = [record_id for record_id, record in self.index.records.items() if record.expires_us <= now_us]
            self.index.remove(gone)
            if gone:
                if len(self.index):
                    await self._on_thread(self._store.drop_expired, now_us)
                else:  # a search for what has expired takes more memory than all else that a sweep does
                    await self._on_thread(self._store.clear)
                self._show(await self._on_thread(self.index.rebuilt))
                forget_words()
                forget_readings()
            elif self._store.is_ragged:
                await self._on_thread(self._store.tidy)
        return len(gone)

    async def reembed(self) -> int:
        """Embed what has no vector of this embedder; return how many records that were."""
        count = 0
        with self._used():
            while missing := (await self.opened()).unembedded(REEMBEDDED):
                vectors = await self._embed(self.tenant, [record.text for record in missing])
                async with self._turn() as index:
                    changed = [
                        (index.records[old.record_id], vector)
                        for old, vector in zip(missing, vectors, strict=True)
                        if old.record_id in index.records and index.records[old.record_id].text == old.text
                    ]
                    await self._written(index, [], changed)
                count += len(changed)
        return count


def _drafts(candidates: Sequence[Candidate], rules: MemoryRules, now_us: int) -> list[Draft | MemoryCode | Exception]:
    """Draft candidates together: a thread's turn for each would cost as much as most drafts do."""
    checks = NameChecks()
    return [_draft(candidate, rules, now_us, checks) for candidate in candidates]


def _draft(candidate: Candidate, rules: MemoryRules, now_us: int, checks: NameChecks) -> Draft | MemoryCode | Exception:
    try:
        return draft(candidate, rules, now_us, checks)
    except Exception as error:  # of one that is no candidate: the others are
        return error


def _fill(index: TenantIndex, store: TenantStore) -> None:
    for record, vector in store.load():
        index.put(record, vector)


def _is_taken(index: TenantIndex, record: Record, now_us: int) -> bool:
    """Whether another live record says the same, or is an answer about the same topic beside which it cannot be so."""
    topical = index.about(topic_of(record), now_us, ABOUT) if record.topic else []
    rivals = [
        *index.saying(statement_of(record), now_us),
        *(other for other in topical if relation(record.text, other.text) != "distinct"),
    ]
    return any(other.state == "live" and other.record_id != record.record_id for other in rivals)


def _reply(offered: PendingWrite, reply: LearnReply) -> None:
    if not offered.answer.done():
        offered.answer.set_result(reply)


def _fail(group: Sequence[PendingWrite], error: Exception) -> None:
    for offered in group:
        if not offered.answer.done():
            offered.answer.set_exception(error)
