"""What the journal promises, as pure parts: fencing, sequence numbers, the keyed chain.

A stream is one run's or one approval's list of entries, numbered from 0.  An append names the epoch it writes under
and the number of its first entry:
 * an epoch older than the stream's is `fenced`: the writer was superseded and must stop;
 * entries the stream already has (a retry after a lost answer) are skipped, and the append is `ok`;
 * a number past the end is a `gap`: the writer lost something, which is an error of ours.
Once a stream is ended nothing more is taken in.

The chain: each tenant's entries in order, each with a keyed BLAKE2b over the one before it and its own content, so
that an altered, removed or reordered row breaks every link after it.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from airside.stack.ids import TenantId
from airside.stack.values import Value

GENESIS = b"\x00" * 32


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


class AppendReply(Value, array_like=True):
    """What became of an append; `epoch` and `next_seq` are the stream's."""

    verdict: Literal["ok", "fenced", "gap", "error"]
    epoch: int = 0
    next_seq: int = 0
    detail: str = ""


class Head(Value):
    """Where a stream stands."""

    epoch: int = -1
    next_seq: int = 0
    ended: bool = False


ENDED = "RunEnded"


def admit(head: Head, append: Append) -> tuple[AppendReply, tuple[Entry, ...], Head]:
    """Return the reply, the entries to write, and the stream's head afterwards."""
    end = append.first_seq + len(append.entries)
    refused = AppendReply(verdict="fenced", epoch=head.epoch, next_seq=head.next_seq)
    if append.epoch < head.epoch:
        return refused, (), head
    if append.first_seq > head.next_seq:
        reply = AppendReply(verdict="gap", epoch=head.epoch, next_seq=head.next_seq)
        return reply, (), head
    if append.epoch > head.epoch and append.first_seq != head.next_seq:
        return refused, (), head
    fresh = append.entries[head.next_seq - append.first_seq :]
    if head.ended and fresh:
        return refused, (), head
    after = Head(
        epoch=append.epoch,
        next_seq=max(end, head.next_seq),
        ended=head.ended or any(entry.type == ENDED for entry in fresh),
    )
    return AppendReply(verdict="ok", epoch=after.epoch, next_seq=after.next_seq), fresh, after


def link(key: bytes, previous: bytes, number: int, stream: str, seq: int, epoch: int, body: bytes) -> bytes:
    """Return the chain's link for one entry: 32 bytes that depend on everything before it."""
    head = f"{number}|{stream}|{seq}|{epoch}|".encode()
    return hashlib.blake2b(previous + head + body, key=key, digest_size=32).digest()
