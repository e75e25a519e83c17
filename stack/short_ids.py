"""Ids as people type and paste them: shortened to their beginning or their end, with dots where they are cut.

What is sent, journaled and enforced is always a whole id: one that is shortened is looked up first, among those that
there are, and refused if it may be several.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from airside.stack.errors import InvalidId

SHORTEST = 6
"""Characters that a shortened id has at least: fewer would be somebody else's soon."""

_SHOWN = 5
"""Candidates that are named: whoever sees them gives more of the id."""


class Ends(NamedTuple):
    """How an id begins and ends; either may be empty."""

    begin: str
    end: str

    def fit(self, whole: str) -> bool:
        """Whether an id begins and ends like that."""
        return whole.startswith(self.begin) and whole.endswith(self.end)


def uncut(given: str) -> str:
    """Return an id without the dots that say that it was cut there."""
    return given.strip(".\u2026 ")


def ends_of(given: str) -> tuple[Ends, Ends] | None:
    """Return the two ways in which an id may be meant by a part of it, or by both its ends (`apr_run_7f...344ce3`).

    None if that is less than six characters.
    """
    begin, gap, end = uncut(given).replace("\u2026", "...").partition("...")
    if len(begin) + len(end) < SHORTEST:
        return None
    return (Ends(begin, end), Ends(begin, end)) if gap else (Ends(begin, ""), Ends("", begin))


def only_one(given: str, found: Collection[str]) -> str:
    """Return the one id that is meant, empty if there is none; raise `InvalidId` naming the candidates of several."""
    if len(found) > 1:
        raise InvalidId(f"{given!r:.80} may be any of {listed(sorted(found))}; give more of the id")
    return next(iter(found), "")


def listed(ids: Sequence[str]) -> str:
    """Return ids as part of a sentence, the first of them if they are many."""
    shown = ", ".join(ids[:_SHOWN])
    return shown if len(ids) <= _SHOWN else f"{shown} and more"
