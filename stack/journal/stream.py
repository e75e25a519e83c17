"""Streams of the journal: how events become its entries, and the stream of a single writer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, AppendReply, Entry
from airside.stack.values import Value, tag_of

_encode = msgspec.json.Encoder().encode


class StreamJournal(Protocol):
    """What a stream asks of the journal; both methods raise `LayerUnavailable` if it does not answer."""

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable, as `stack.ports.Journal` says."""

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams as JSON, oldest first; an empty list for one that has none."""


def entry_of(event: Value) -> Entry:
    """Return an event as the journal's entry; one that has no step, or no cause, is of none."""
    return Entry(
        type=tag_of(event),
        step=getattr(event, "step", 0),
        at_us=event.at_us,  # type: ignore[attr-defined]  # as whatever is journaled has
        cause=getattr(event, "cause", -1),
        body=_encode(event),
    )


def append_of(tenant: TenantId, stream: str, events: Iterable[Value], *, first_seq: int = 0, epoch: int = 0) -> Append:
    """Return the append that puts events at a place of a stream."""
    entries = tuple(entry_of(event) for event in events)
    return Append(tenant=tenant, stream=stream, epoch=epoch, first_seq=first_seq, entries=entries)


async def read_stream(journal: StreamJournal, stream: str) -> list[str]:
    """Return the events of one stream as JSON, oldest first."""
    return (await journal.bodies([stream]))[stream]


class Stream:
    """A stream that nobody else writes to meanwhile: what is appended goes behind all that is known to be there.

    `length` = how many entries it has, as far as its writer knows.
    """

    __slots__ = ("_journal", "_tenant", "length", "name")

    def __init__(self, journal: StreamJournal, tenant: TenantId, name: str, *, length: int = 0) -> None:
        self._journal = journal
        self._tenant = tenant
        self.name = name
        self.length = length

    async def bodies(self) -> list[str]:
        """Return its events as JSON, oldest first; the next append goes behind them."""
        found = await read_stream(self._journal, self.name)
        self.length = len(found)
        return found

    async def append(self, *events: Value) -> AppendReply:
        """Append events and return the journal's answer: they are durable if that is `ok`.

        After any other one, or `LayerUnavailable`, what is there must be read before more is appended.
        """
        append = append_of(self._tenant, self.name, events, first_seq=self.length)
        reply = await self._journal.append(append)
        if reply.verdict == "ok":
            self.length += len(events)
        return reply
