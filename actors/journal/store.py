"""The journal's store: appends are admitted against the log and durable there; queries are asked of its projection."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from airside.actors.journal.chain_check import ChainCheck
from airside.actors.journal.checkpoints import write_checkpoint
from airside.actors.journal.log import WriterLock
from airside.actors.journal.log_port import Row
from airside.actors.journal.opening import open_log
from airside.actors.journal.projection import PROJECTION, Projection
from airside.actors.journal.reader import JournalReader
from airside.actors.journal.rows import check_entry
from airside.actors.journal.tail import Tail
from airside.stack.errors import Behind, text_of
from airside.stack.journal.feed import ALL, JOURNAL_CHARS
from airside.stack.journal.journaling import (
    Append,
    AppendReply,
    AppendTogether,
    Entry,
    Head,
    admit_together,
    appends_of,
    beginning,
    link,
)

logger = logging.getLogger("airside")

FEED_S = 1.0
"""How long entries gather before the projection takes them in: a commit of DuckDB's costs about as much for one entry
as for a thousand."""

LONGEST_PAUSE_S = 30.0
"""Between two tries of a projection that takes nothing in."""

_HEADS = 100_000
"""How many streams' heads are kept; then they are looked up again."""

_NEW = Head()
_LONGEST = 2**63
_MAX_BODY_BYTES = 512 * 2**20
"""Of an entry: half of what SQLite can hold; what makes events bounds them far below."""


class JournalStore(JournalReader):
    """A journal open for appending; `commit`, `checkpoint` and `close` belong to one thread."""

    def __init__(self, folder: Path, chain_key: bytes, url: str = "") -> None:
        """Open or make it, in the database of a URL if there is one.

        Raises `Misuse` if another process has it, and `Unreadable` if it is no whole journal, or cannot be reached.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            self._lock = WriterLock(folder)
            opened.callback(self._lock.release)
            self._log, log = open_log(folder, chain_key, url)
            opened.callback(self._log.close)
            opened.callback(log.close)
            self._chain = self._log.chains()
            self._latest_us = log.latest_us()
            opened.pop_all()
        tail = Tail()
        super().__init__(folder, log, Projection(folder / PROJECTION, log, tail=tail), chain_key, tail=tail)
        self._heads: dict[str, Head] = {}
        self._checkpointed: dict[str, tuple[int, bytes]] = {}
        self._feeder: Feeder | None = None
        self.appended = 0
        self.commits = 0

    def commit(self, writes: Sequence[Append | AppendTogether]) -> list[AppendReply]:
        """Take in a group of writes in one transaction, and answer each; on an error nothing is taken in.

        Of a write that is several appends all are taken in, or none.  One that can never be written is answered so, and
        harms no other.  Raises `NotWritten` and `SyncFailed` as the log does.
        """
        heads: dict[str, Head] = {}
        chain: dict[str, tuple[int, bytes]] = {}
        replies: list[AppendReply] = []
        rows: list[Row] = []

        def stored(stream: str, first: int, count: int) -> list[bytes]:
            """Return what a stream has at a place, in the log and in this very group."""
            here = [row[9].encode() for row in rows if row[2] == stream and first <= row[3] < first + count]
            return self._log.place(stream, first, count) + here

        texts = [_texts_or_problem(appends_of(write)) for write in writes]
        known = self._heads
        asked = {
            append.stream: None
            for write, found in zip(writes, texts, strict=True)
            if not isinstance(found, str)
            for append in appends_of(write)
            if append.stream not in known
        }
        looked_up = self._log.heads([*asked]) if asked else {}

        def head_of(stream: str) -> Head:
            if stream not in heads:
                heads[stream] = self._heads.get(stream) or looked_up.get(stream, _NEW)
            return heads[stream]

        for write, found in zip(writes, texts, strict=True):
            if isinstance(found, str):
                replies.append(AppendReply(verdict="error", detail=found))
                continue
            appends = appends_of(write)
            reply, entries, after = admit_together(appends, head_of, stored)
            for append, fresh, bodies in zip(appends, entries, found, strict=True):
                if fresh:
                    rows += self._link(append, fresh, bodies, after[append.stream], chain)
            heads.update(after)
            replies.append(reply)
        if rows:
            before = self._log.last
            self._log.append(rows)
            self._tail.add(before, rows)
            self._latest_us = rows[-1][7]
            self.commits += 1
            self.appended += len(rows)
            if self._feeder is not None:
                self._feeder.note()
        self._keep(heads)
        self._chain.update(chain)
        return replies

    def _keep(self, heads: dict[str, Head]) -> None:
        if len(self._heads) > _HEADS:
            self._heads.clear()
        self._heads.update(heads)
        for stream in [stream for stream, head in heads.items() if head.ended or not head.next_seq]:
            del self._heads[stream]  # looked up again if anybody still writes to it

    def _link(
        self,
        append: Append,
        fresh: tuple[Entry, ...],
        bodies: Sequence[str],
        after: Head,
        chain: dict[str, tuple[int, bytes]],
    ) -> list[Row]:
        tenant, stream = append.tenant, append.stream
        number, mac = chain.get(tenant) or self._chain.get(tenant) or (-1, beginning(self.chain_key, tenant))
        seq = after.next_seq - len(fresh)
        rows: list[Row] = []
        for entry, body in zip(fresh, bodies, strict=True):
            number += 1
            mac = link(self.chain_key, mac, number, stream, seq, append.epoch, entry)
            place = (tenant, number, stream, seq, append.epoch, entry.step, entry.cause, entry.at_us)
            rows.append((*place, entry.type, body, mac))
            seq += 1
        chain[tenant] = (number, mac)
        return rows

    def last(self) -> int:
        """Return the position of the latest entry."""
        return self._log.last

    @property
    def outage(self) -> str:
        """Why a group that is being written waits for its store; empty if none does."""
        return self._log.outage

    @property
    def journal(self) -> str:
        """Which journal this is, as cursors name it."""
        return str(self._reader.log)[:JOURNAL_CHARS]

    def count_of(self, feed: str) -> int:
        """Return how many entries a feed has."""
        return self.last() if feed == ALL else self._chain.get(feed, (-1, b""))[0] + 1

    def tenants(self) -> list[str]:
        """Return whose chains there are."""
        return sorted(self._chain)

    def chain_check(self, now_us: Callable[[], int]) -> ChainCheck:
        """Return what checks the chains of this journal while it is written."""
        return ChainCheck(self._folder, self.chain_key, self._reader, now_us)

    def checkpoint(self, at_us: int) -> None:
        """Append to the file of checkpoints, durably, the heads that no checkpoint of this process has seen."""
        heads = {tenant: head for tenant, head in self._chain.items() if self._checkpointed.get(tenant) != head}
        if heads:
            write_checkpoint(self._folder, self.chain_key, at_us, heads)
            self._checkpointed.update(heads)

    # The projection follows.

    def start_feeding(self) -> None:
        """Have the projection follow the log, from a thread of its own, until the store is closed."""
        self._feeder = Feeder([self._log.fold, self.catch_up, self._projection.fold])
        self._feeder.note()

    def catch_up(self) -> None:
        """Have the projection take in what is durable now; raise `Behind` if it cannot."""
        self._projection.catch_up(self.last())

    @property
    def behind(self) -> int:
        """How many entries the projection has not taken in."""
        return self.last() - self._projection.position

    def close(self) -> None:
        """Write a last checkpoint, have the projection take in what is left, and close the files."""
        try:
            self.checkpoint(self._latest_us)
            with contextlib.suppress(Behind):  # its next opening tries again, and says so
                self.catch_up()
        finally:
            self.release()

    def release(self) -> None:
        """Close the files as they are."""
        if self._feeder is not None:
            self._feeder.end()
        self._projection.end()
        if self._feeder is not None:
            self._feeder.stop()
        super().release()
        self._log.close()
        self._lock.release()


class Feeder:
    """Does some work soon after each note, in a thread of its own; what fails is logged and tried again."""

    def __init__(self, work: Sequence[Callable[[], object]]) -> None:
        self._work = work
        self._news = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Say that there is something to do."""
        self._news.set()

    def end(self) -> None:
        """Have the thread end after what it does now; what fails from here on is no news."""
        self._ended.set()
        self._news.set()

    def stop(self) -> None:
        """End the thread, and return when it has."""
        self.end()
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        while True:
            self._news.wait()
            if self._ended.wait(min(FEED_S * 2**failures, LONGEST_PAUSE_S)):
                return
            self._news.clear()
            failures = failures + 1 if self._fails() else 0

    def _fails(self) -> bool:
        failed = False
        for work in self._work:
            try:
                work()
            except Exception:
                if self._ended.is_set():
                    return True
                logger.exception("the journal's projection does not follow", extra={"action": "feed_failed"})
                self._news.set()
                failed = True
        return failed


def _texts_or_problem(appends: Sequence[Append]) -> list[list[str]] | str:
    """Return each append's bodies as texts, or why they can never be journaled."""
    try:
        return [texts_of(append) for append in appends]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"can never be journaled: {text_of(error, 300)}"


def texts_of(append: Append) -> list[str]:
    """Return an append's bodies as texts; raise `ValueError` if one of its entries can never be written or read."""
    _check_numbers(append.epoch, append.first_seq)
    bodies = []
    for index, entry in enumerate(append.entries):
        _check_numbers(entry.step, entry.at_us, entry.cause)
        if len(entry.body) > _MAX_BODY_BYTES:
            raise ValueError(f"an entry of {len(entry.body):,} bytes is over the bound of {_MAX_BODY_BYTES:,}")
        body = entry.body.decode()
        for value in check_entry(append, index, body).values():
            value.encode() if isinstance(value, str) else _check_numbers(value)
        bodies.append(body)
    return bodies


def _check_numbers(*numbers: int) -> None:
    for number in numbers:
        if not -_LONGEST <= number < _LONGEST:
            raise ValueError(f"{number} is no number of 64 bits")
