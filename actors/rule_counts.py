"""How often each rule fired, counted from the journal's tables a piece at a time.

Nothing is counted as calls are decided on.  Entries never change, so what a whole piece of them says is counted once,
when somebody first asks, and kept; one question counts for a bounded time, newest first, and adds one piece at least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

PIECE_ROWS = 50_000
"""Entries of one piece: a few tens of milliseconds."""

COUNTING_S = 0.15
"""How long one question goes on to count."""

_HOUR_US = 3_600_000_000

Read = Callable[..., list[tuple[Any, ...]]]


class Fired(NamedTuple):
    """How often a rule decided for a tenant within an hour, and when last."""

    tenant: str
    hour: int
    version: str
    rule: str
    outcome: str
    calls: int
    last_us: int


class Counted(NamedTuple):
    """What was counted, and of the entries since when."""

    fired: list[Fired]
    since_us: int


class RuleCounts:
    """Counts of one journal; used from any thread."""

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[Fired, ...]] = {}

    def since(self, read: Read, tenant: str | None, since_us: int) -> Counted:
        """Return what fired for a tenant (for all, if it is None) since a time, or since as long as could be counted.

        The time is taken for the beginning of its hour.
        """
        since_us -= since_us % _HOUR_US
        until = time.monotonic() + COUNTING_S
        ((rows,),) = read("row_count")
        found: list[Fired] = []
        added = 0
        piece = (rows - 1) // PIECE_ROWS if rows else -1
        while piece >= 0:
            known = self._pieces.get(piece)
            if known is None and added and time.monotonic() >= until:
                ((reached_us,),) = read("row_at", (piece + 1) * PIECE_ROWS)
                return Counted(_of(found, tenant, since_us), max(since_us, reached_us))
            found += known if known is not None else self._counted(read, piece, rows)
            added += known is None and piece in self._pieces
            ((first_us,),) = read("row_at", piece * PIECE_ROWS)
            if first_us < since_us:  # entries come in the order of their times, but for what clocks do
                break
            piece -= 1
        return Counted(_of(found, tenant, since_us), since_us)

    def _counted(self, read: Read, piece: int, rows: int) -> tuple[Fired, ...]:
        first, after = piece * PIECE_ROWS, (piece + 1) * PIECE_ROWS
        fired = tuple(Fired(*row) for row in read("fired", first, after))
        if after <= rows:
            self._pieces[piece] = fired
        return fired


def _of(fired: Iterable[Fired], tenant: str | None, since_us: int) -> list[Fired]:
    return [each for each in fired if tenant in (None, each.tenant) and each.hour * _HOUR_US >= since_us]
