"""A run's way into the journal: one append in flight at a time, everything recorded meanwhile in the next.

`record` keeps an event, `flush` starts writing without waiting, `durable` waits until all recorded so far is safe.
"""

from __future__ import annotations

import asyncio

from airside.stack.errors import Fenced, InternalError
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append, AppendReply, Entry
from airside.stack.journal.stream import entry_of
from airside.stack.ports import Journal
from airside.stack.run.events import Event


class RunLog:
    """Writes one run's events under one epoch.

    `durable` = how many the journal has already; `unwritten` has the logs of a process that keep something, for of the
    runs that are at work thousands may wait for their tools.
    """

    def __init__(
        self,
        journal: Journal,
        tenant: TenantId,
        run_id: RunId,
        epoch: int,
        *,
        durable: int,
        unwritten: set[RunLog] | None = None,
    ) -> None:
        self._journal = journal
        self._tenant = tenant
        self._run_id = run_id
        self._epoch = epoch
        self._next = durable
        self._unwritten = set() if unwritten is None else unwritten
        self._kept: list[Entry] = []
        self._writing: asyncio.Future[None] | None = None
        self._once_more = False
        self._seen = durable
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:  # asked for once: it costs a system call each time
            self._loop = asyncio.get_running_loop()
        return self._loop

    def record(self, event: Event) -> None:
        """Keep an event for the next append."""
        if not self._kept:
            self._unwritten.add(self)
        self._kept.append(entry_of(event))

    def leave(self) -> None:
        """Write nothing more unasked: the activation is over."""
        self._unwritten.discard(self)

    def flush(self) -> None:
        """Start writing what is kept, unless a write is in flight: then that one's successor takes it."""
        if self._writing is not None:
            self._once_more = True
        elif self._kept and self._failure is None:
            self._writing = self._running_loop().create_task(self._write())

    def flush_if_idle(self) -> None:
        """Start writing if nothing was recorded since the last call, so that a slow step shows in the journal."""
        recorded = self._next + len(self._kept)
        if recorded == self._seen:
            self.flush()
        self._seen = recorded

    async def _write_now(self) -> None:
        """Write in the caller's own task, which costs less than one for the write; `flush` waits for its end."""
        self._writing = self._running_loop().create_future()
        done = self._writing
        try:
            await self._write()
        finally:
            done.set_result(None)
            if self._writing is done:
                self._writing = None  # cancelled on the way

    async def durable(self, *, may_stop: bool = False) -> None:
        """Return when everything recorded so far is durable; raise `Fenced` if superseded, `LayerUnavailable`.

        `may_stop` = whoever waits may be cancelled meanwhile, which ends no write.
        """
        while self._failure is None and (self._kept or self._writing is not None):
            if self._writing is not None:
                await asyncio.shield(self._writing)
            elif may_stop:
                self.flush()
            else:
                await self._write_now()
        if self._failure is not None:
            raise self._failure

    async def _write(self) -> None:
        """Write what is kept.  A failure is final for this activation, and is raised to whoever asks for durability."""
        entries, self._kept = tuple(self._kept), []
        self._unwritten.discard(self)
        append = Append(
            tenant=self._tenant, stream=self._run_id, epoch=self._epoch, first_seq=self._next, entries=entries
        )
        try:
            reply = await self._journal.append(append)
        except Exception as error:
            self._failure = error
        else:
            self._failure = _failure(self._run_id, self._epoch, reply)
            self._next += len(entries)
        self._writing = None
        if self._once_more and self._failure is None:
            self._once_more = False
            self.flush()


def _failure(run_id: RunId, epoch: int, reply: AppendReply) -> Exception | None:
    if reply.verdict == "ok":
        return None
    if reply.verdict == "fenced":
        return Fenced(f"{run_id}: epoch {epoch} was superseded by {reply.epoch}")
    return InternalError(f"{run_id}: the journal answered {reply.verdict}: {reply.detail}")
