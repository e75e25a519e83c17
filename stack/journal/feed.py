"""The journal's feed: its entries after a cursor, in the order in which they were made durable.

A feed is one tenant's, or all tenants'.  What a cursor counts is the feed's own entries: nobody learns from it how much
others do, and a reader sees that nothing is missing.  It names its journal and its feed, so that none is taken for
another's; it holds for as long as the journal is there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from airside.stack.errors import InvalidInput
from airside.stack.ids import TenantId, parse_tenant
from airside.stack.values import Value

ALL = "*"
"""Whose feed has every tenant's entries."""

PAGE_ENTRIES, PAGE_BYTES = 1_000, 4 * 2**20
"""Entries of a page, and characters of their bodies, but for one that is longer by itself."""

JOURNAL_CHARS = 12
"""Of the name of a journal that a cursor has: enough to tell it from any other."""

NOW = "now"
"""In place of a cursor: only what is appended from here on."""


class FeedCursor(Value):
    """How many entries of a feed have come; `feed` is a tenant or `ALL`."""

    journal: str
    feed: str
    count: int

    def __str__(self) -> str:
        return f"{self.journal}:{self.feed}:{self.count}"


class JournalEntry(Value, array_like=True):
    """One entry of the journal.  `cursor` is where its feed goes on after it; `body` is the event's JSON.

    `number` is its place in the tenant's chain, `seq` the one in its stream: a run, an approval, a key of an effect.
    """

    cursor: str
    tenant: TenantId
    number: int
    stream: str
    seq: int
    epoch: int
    step: int
    cause: int
    at_us: int
    type: str
    body: str

    @property
    def event(self) -> dict[str, Any]:
        """The event as a dictionary."""
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


def feed_of(tenant: str | None) -> str:
    """Return the name of a tenant's feed, of all tenants' for None; raise `InvalidId` for what is no tenant."""
    return ALL if tenant is None else parse_tenant(tenant)


def entries_before(after: str, journal: str, feed: str, there: int) -> int:
    """Return how many entries of a feed have come to whoever has this cursor; none if it is empty.

    Raises `InvalidInput` for one of another journal or another feed, or of entries that are not `there`.
    """
    if not after:
        return 0
    if after == NOW:
        return there
    of_journal, _, rest = after.partition(":")
    of_feed, _, number = rest.partition(":")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise InvalidInput(f"after: {after!r:.80} is no cursor of a feed: give an entry's `cursor`, {NOW!r} or nothing")
    if of_journal != journal:
        raise InvalidInput(f"after: {after!r:.80} is of another journal than this one, which is {journal}: begin anew")
    if of_feed != feed:
        raise InvalidInput(f"after: {after!r:.80} is of the feed {of_feed!r:.70}, not of {feed!r:.70}")
    if int(number) > there:
        raise InvalidInput(f"after: {after!r:.80} is of entries that this journal does not have: begin anew")
    return int(number)
