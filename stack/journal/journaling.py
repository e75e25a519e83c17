"""What the journal promises, as pure parts: fencing, sequence numbers, the keyed chain.

A stream is one run's or one approval's list of entries, numbered from 0.  An append names the epoch it writes under
and the number of its first entry:
 * an epoch older than the stream's is `fenced`: the writer was superseded and must stop;
 * exactly the entries the stream already has there (a retry after a lost answer) are `ok`, and not written again;
 * other entries at a place that is taken are `fenced`: of two writers who claim one epoch, the first has it;
 * a number past the end is a `gap`: the writer lost something, which is an error of ours.
Several streams' appends that are one write are admitted all or none: what one is refused for, none of them is taken in.
Once a stream is ended nothing more is taken in, and a stream is one tenant's: under another's name nothing is.

The chain: each tenant's entries in order, each with a keyed BLAKE2b over the one before it and its own content, so
that an altered, removed or reordered row breaks every link after it.  It begins with the tenant's name, so that no
chain can be passed off as another tenant's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from airside.stack.ids import TenantId
from airside.stack.values import Value

GENESIS = b"\x00" * 32
"""What chains began with before they began with `beginning`: journals have such chains."""


class Entry(Value, array_like=True):
    """One event as journaled: the columns queries want, and the body, which is the event's JSON."""

    type: str
    step: int
    at_us: int
    cause: int
    body: bytes


class Append(Value, array_like=True):
    """Entries for one stream, in order."""

    tenant: TenantId
    stream: str
    epoch: int
    first_seq: int
    entries: tuple[Entry, ...]


class AppendTogether(Value, array_like=True):
    """Appends to several streams, each to another one, which are taken in all or none."""

    appends: tuple[Append, ...]


def appends_of(write: Append | AppendTogether) -> tuple[Append, ...]:
    """Return what is to be appended by something that is one write."""
    return write.appends if isinstance(write, AppendTogether) else (write,)


class AppendReply(Value, array_like=True):
    """What became of an append; `epoch` and `next_seq` are the stream's.  Of several, those of the first one refused.

    `later` = it could not be written now, and may be sent again; `error` = it never can be.
    """

    verdict: Literal["ok", "fenced", "gap", "later", "error"]
    epoch: int = 0
    next_seq: int = 0
    detail: str = ""


class Head(Value):
    """Where a stream stands."""

    epoch: int = -1
    next_seq: int = 0
    ended: bool = False
    tenant: TenantId = TenantId("")


ENDED = frozenset({"RunEnded", "EffectClaimed"})
"""Entries after which a stream takes no more."""


Stored = Callable[[str, int, int], Sequence[bytes]]
"""`(stream, first seq, count) -> the bodies the stream has there`, as many as there are."""


def admit(head: Head, append: Append, stored: Stored) -> tuple[AppendReply, tuple[Entry, ...], Head]:
    """Return the reply, the entries to write, and the stream's head afterwards."""
    wrong = _misplaced(head, append)
    if wrong:
        return AppendReply(verdict="error", epoch=head.epoch, next_seq=head.next_seq, detail=wrong), (), head
    refused = AppendReply(verdict="fenced", epoch=head.epoch, next_seq=head.next_seq)
    if append.epoch < head.epoch:
        return refused, (), head
    if append.first_seq > head.next_seq:
        reply = AppendReply(verdict="gap", epoch=head.epoch, next_seq=head.next_seq)
        return reply, (), head
    if append.first_seq < head.next_seq:
        # A retry is of exactly what is there already; anything else is another writer, who was faster.
        present = stored(append.stream, append.first_seq, len(append.entries))
        same = append.epoch == head.epoch and list(present) == [entry.body for entry in append.entries]
        return (AppendReply(verdict="ok", epoch=head.epoch, next_seq=head.next_seq) if same else refused), (), head
    if head.ended:
        return refused, (), head
    after = Head(
        epoch=append.epoch,
        next_seq=head.next_seq + len(append.entries),
        ended=not ENDED.isdisjoint([entry.type for entry in append.entries]),
        tenant=append.tenant,
    )
    return AppendReply(verdict="ok", epoch=after.epoch, next_seq=after.next_seq), append.entries, after


def admit_together(
    appends: Sequence[Append], head_of: Callable[[str], Head], stored: Stored
) -> tuple[AppendReply, list[tuple[Entry, ...]], dict[str, Head]]:
    """Return the reply to appends that are one write, the entries to write of each, and the streams' heads afterwards.

    Where one is not admitted there are none to write of any.
    """
    entries: list[tuple[Entry, ...]] = []
    heads: dict[str, Head] = {}
    reply = AppendReply(verdict="error", detail="an append of nothing")
    for append in appends:
        if append.stream in heads:
            reply = AppendReply(verdict="error", detail=f"{append.stream}: it stands in one write twice")
            break
        reply, fresh, heads[append.stream] = admit(head_of(append.stream), append, stored)
        if reply.verdict != "ok":
            break
        entries.append(fresh)
    if reply.verdict == "ok":
        return reply, entries, heads
    if len(appends) > 1 and not reply.detail:
        reply = msgspec.structs.replace(reply, detail=append.stream)
    return reply, [()] * len(appends), {}


def _misplaced(head: Head, append: Append) -> str:
    """Return why an append is nobody's to make; empty if it is somebody's."""
    if not append.entries:
        return f"{append.stream}: an append without entries"  # it would raise the epoch, and leave nothing that says so
    if head.next_seq and head.tenant != append.tenant:
        return f"{append.stream}: it is another tenant's stream, not {append.tenant}'s"
    return ""


def beginning(key: bytes, tenant: str) -> bytes:
    """Return what comes before the first link of a tenant's chain: 32 bytes."""
    return hashlib.blake2b(f"chain of {tenant}".encode(errors="surrogatepass"), key=key, digest_size=32).digest()


def link(key: bytes, previous: bytes, number: int, stream: str, seq: int, epoch: int, entry: Entry) -> bytes:
    """Return the chain's link for one entry: 32 bytes that depend on every column of it and of all before it."""
    head = f"{number}|{stream}|{seq}|{epoch}|{entry.step}|{entry.cause}|{entry.at_us}|{entry.type}|".encode()
    return hashlib.blake2b(previous + head + entry.body, key=key, digest_size=32).digest()
