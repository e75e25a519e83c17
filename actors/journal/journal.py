"""Journal: takes everything that waits, writes it to the log in one transaction, answers all.

Nothing but appends is done on the writing thread: whoever asks reads beside it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airside.actors.journal.feed import Feed
from airside.actors.journal.log_port import Row
from airside.actors.journal.place import journal_place
from airside.actors.journal.recent import RecentAppends
from airside.actors.journal.telemetry import Telemetry
from airside.actors.rpc.layer import LayerConfig, control, logger, now_us
from airside.actors.rpc.methods import (
    APPEND,
    APPEND_TOGETHER,
    BODIES,
    CHAINS,
    QUERY,
    QUERY_TENANT,
    RECENT,
    ROWS,
    SUBSCRIBE,
    VERIFY,
    ChainsRequest,
    FeedPage,
    FeedRequest,
    NamedQuery,
    RecentPage,
    RecentRequest,
    Rows,
    Sql,
    TenantSql,
)
from airside.actors.rpc.serving import serves
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.errors import Behind, LayerUnavailable, NotWritten, SyncFailed, Unreadable, text_of
from airside.stack.journal.journaling import Append, AppendReply, AppendTogether, appends_of
from airside.stack.operations.questions import ChainStanding

if TYPE_CHECKING:
    from airside.actors.journal.store import JournalStore

CHECKPOINT_S = 5.0
"""Seconds between sealed checkpoints while there is news: how much of a cut end could go unseen."""

ASKERS = 2
"""Queries of people, and checks, that are answered at a time: they may take long, and have threads of their own so that
what recovery, rollbacks and undo read waits for none of them.  So have those of tenants' auditors."""

MAX_DETAIL_CHARS = 500

SAID_AGAIN_S = 60.0
"""Between two lines of the log that say of the same that it cannot be written."""

Answer = TypeVar("Answer")


def _error(_: object, detail: str) -> AppendReply:
    return AppendReply(verdict="error", detail=detail)


class Journal(WatchedLayer):
    """The single writer of the journal's log."""

    def __init__(self, config: LayerConfig, chain_key: bytes) -> None:
        super().__init__(config)
        self._chain_key = chain_key
        self._waiting: list[tuple[Append | AppendTogether, asyncio.Future[AppendReply]]] = []
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._followers = ThreadPoolExecutor(1, thread_name_prefix="follow")
        self._auditors = ThreadPoolExecutor(ASKERS, thread_name_prefix="audit")
        self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="ask")
        self._committing: asyncio.Task[None] | None = None
        self._checkpointing: asyncio.Task[None] | None = None
        self._checkpointed = 0
        self._problem = ""
        self._said_s = 0.0

    async def start(self) -> None:
        """Open the log, and have its projection follow it."""
        # Here, so that DuckDB is loaded where there is a journal, and not by everybody who starts or finds a stack.
        from airside.actors.journal.store import JournalStore

        self._telemetry = Telemetry.from_environment()  # first: what fails here leaves no log open behind it
        where = self.config.settings.journal or ""
        self._store = await self._on_writer(JournalStore, self.config.state_dir, self._chain_key, where)
        self._store.start_feeding()
        self._chain_check = self._store.chain_check(now_us)
        self._feed = Feed(self._store, self._page)
        self._recent = RecentAppends()
        self._checkpointing = asyncio.ensure_future(self.forever(self._checkpoints()))

    @serves(APPEND, unreadable=_error, failed=_error)
    def append(self, append: Append) -> asyncio.Future[AppendReply]:
        """Make an append durable, in one commit with whatever else waits."""
        return self._taken(append)

    @serves(APPEND_TOGETHER, unreadable=_error, failed=_error)
    def append_together(self, write: AppendTogether) -> asyncio.Future[AppendReply]:
        """Make appends to several streams durable, all or none, in one commit with whatever else waits."""
        return self._taken(write)

    def _taken(self, write: Append | AppendTogether) -> asyncio.Future[AppendReply]:
        future: asyncio.Future[AppendReply] = asyncio.get_running_loop().create_future()
        if self._store.outage:  # what waits behind that would not be known to be unwritten by whoever gave up waiting
            future.set_result(AppendReply(verdict="later", detail=self._store.outage[:MAX_DETAIL_CHARS]))
            return future
        self._waiting.append((write, future))
        if self._committing is None:
            self._committing = asyncio.ensure_future(self._commit_all())
        return future

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._commit(group)
        finally:
            self._committing = None

    async def _commit(self, group: list[tuple[Append | AppendTogether, asyncio.Future[AppendReply]]]) -> None:
        writes = [write for write, _ in group]
        replies = await self._on_writer(_committed, self._store, writes)
        for (_, future), reply in zip(group, replies, strict=True):
            if not future.done():
                future.set_result(reply)
        appends = [append for write in writes for append in appends_of(write)]
        self._feed.note(appends)
        self._recent.note(appends)
        try:
            self._say_problem(next((reply.detail for reply in replies if reply.verdict == "later"), ""))
            taken = [write for write, reply in zip(writes, replies, strict=True) if reply.verdict == "ok"]
            self._telemetry.take([append for write in taken for append in appends_of(write)])
        except Exception:
            logger.exception("nothing was told of a commit", extra={"action": "telemetry_failed"})

    def _say_problem(self, problem: str) -> None:
        """Log that nothing can be written, and that it can again; not each time that somebody tries."""
        is_new, now_s = problem != self._problem, time.monotonic()
        if problem and (is_new or now_s - self._said_s >= SAID_AGAIN_S):
            logger.error("the journal cannot write: %s", problem, extra={"action": "not_written"})
            self._said_s = now_s
        elif is_new:
            logger.warning("the journal writes again", extra={"action": "written_again"})
        self._problem = problem

    async def _checkpoints(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            appended = self._store.appended
            if appended == self._checkpointed:
                continue
            try:
                await self._on_writer(self._store.checkpoint, now_us())
            except OSError:
                logger.exception("no checkpoint was written", extra={"action": "checkpoint_failed"})
            else:
                self._checkpointed = appended

    async def _on_writer(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._writer, function, *args)

    # Reading.

    async def _answered(self, pool: ThreadPoolExecutor | None, read: Callable[..., Answer], *args: Any) -> Answer:
        """Read beside the writer; raise `LayerUnavailable` if it is not the question that is wrong."""
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, read, *args)
        except (Behind, Unreadable) as error:
            raise LayerUnavailable(f"journal: {error.message}") from None

    @serves(BODIES)
    async def bodies(self, streams: list[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first."""
        return await asyncio.to_thread(self._store.bodies, streams)

    @serves(ROWS)
    async def rows(self, query: NamedQuery) -> Rows:
        """Return the rows of a named query of ours."""
        return await self._answered(None, self._store.read, query.name, query.parameters)

    @serves(QUERY)
    async def query(self, asked: Sql) -> tuple[bytes, str]:
        """Answer one SELECT: an Arrow IPC stream and no error, or nothing and what is wrong with it."""
        try:
            return await self._answered(self._askers, self._store.query, asked.sql, asked.parameters), ""
        except LayerUnavailable:
            raise
        except Exception as error:
            return b"", text_of(error)

    @serves(QUERY_TENANT)
    async def query_tenant(self, asked: TenantSql) -> tuple[bytes, str]:
        """Answer one SELECT over a tenant's rows alone: JSON and no error, or nothing and what is wrong with it."""
        read = partial(self._store.query_apart, tenant=asked.tenant, since_us=asked.since_us)
        try:
            return await self._answered(self._auditors, read, asked.sql, asked.parameters), ""
        except LayerUnavailable:
            raise
        except Exception as error:
            return b"", text_of(error)

    async def _page(self, feed: str, after: int) -> list[Row]:
        return await self._answered(self._followers, self._store.page, feed, after)

    @serves(SUBSCRIBE)
    async def subscribe(self, asked: FeedRequest) -> FeedPage:
        """Return entries after a cursor, as soon as there are some or the wait is over."""
        return await self._feed.page(asked)

    @serves(RECENT)
    async def recent(self, asked: RecentRequest) -> RecentPage:
        """Return which streams were appended to after a commit, as soon as some were or the wait is over."""
        return await self._recent.page(asked)

    @serves(VERIFY)
    async def verify(self, _: None) -> list[str]:
        """Return what is wrong with the chains; nothing if the journal is whole."""
        return await self._answered(self._askers, self._store.verify)

    @serves(CHAINS)
    async def chains(self, asked: ChainsRequest) -> list[ChainStanding]:
        """Return how chains stand by the latest check; begin another one if that is wanted."""
        if asked.check:
            self._chain_check.begin()
        return [
            self._chain_check.standing(tenant, self._store.count_of(tenant))
            for tenant in self._store.tenants()
            if asked.tenant in (None, tenant)
        ]

    async def stop(self) -> None:
        """Write a last checkpoint and close the files."""
        if self._started:
            if self._checkpointing is not None:
                self._checkpointing.cancel()
            await asyncio.to_thread(self._chain_check.close)
            await self._on_writer(self._store.close)
            self._telemetry.close()

    async def health(self) -> dict[str, Any]:
        """Return who and how this is, and where the log lies."""
        return {**await super().health(), "path": journal_place(self.config.state_dir)}

    async def stats(self) -> dict[str, Any]:
        """Return events and commits of this incarnation, how far the projection is behind, why nothing is written."""
        if not self._started:
            return {}
        store, waiting = self._store, len(self._waiting)
        return {
            "appended": store.appended,
            "commits": store.commits,
            "waiting": waiting,
            "behind": store.behind,
            "followed": self._feed.waiting,
            "problem": self._problem or store.outage,
        }


def _committed(store: JournalStore, writes: list[Append | AppendTogether]) -> list[AppendReply]:
    """Commit writes together; if that fails each by itself, so that what cannot be written harms no other."""
    try:
        return store.commit(writes)
    except SyncFailed:
        # What is durable only a process that reads the file anew can tell; nobody is answered until then.
        logger.exception("the journal's log failed: its process ends", extra={"action": "sync_failed"})
        os._exit(1)
    except NotWritten as error:
        return [AppendReply(verdict="later", detail=text_of(error, MAX_DETAIL_CHARS))] * len(writes)
    except BaseException as error:  # whatever it is, it must not leave those who wait without an answer
        logger.exception("the journal could not commit", extra={"action": "commit_failed"})
        if len(writes) == 1:
            return [_error(None, text_of(error, MAX_DETAIL_CHARS))]
    return [reply for write in writes for reply in _committed(store, [write])]


control(Journal.health, Journal.stats)
