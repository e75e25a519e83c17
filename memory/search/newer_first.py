"""Of two records that say alike things and differ in a value, the newer one is ranked first.

They take each other's place, so that nothing else moves.  A record takes the place of none that is trusted more, that a
person pinned, or that has a word of the question which it lacks itself: it answers another question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from airside.memory.comparison.languages import SPACED
from airside.memory.comparison.reading import TELLING, VALUES, read, unelided
from airside.memory.comparison.relation import is_other_value
from airside.memory.records import Record
from airside.memory.text import stems
from airside.stack.values import TRUSTS

Floats = NDArray[np.float32]
Pairs = tuple[tuple[int, int], ...]

NEAR = 0.5
"""Cosine below which two records are not compared."""

COMPARED = 16
"""Records of a question that are compared with each other: the most relevant ones."""


def find_replacements(records: Sequence[Record], vectors: Floats, asked: frozenset[str]) -> Pairs:
    """Return the places of an older and a newer record each, where the newer is to come first.

    `asked` are the stems of the question; of `records` the first `COMPARED` are looked at.
    """
    count = min(COMPARED, len(records))
    if count < 2:
        return ()
    near = vectors[:count] @ vectors[:count].T >= NEAR
    pairs = ((int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True))
    ordered = ((a, b) if records[a].observed_us < records[b].observed_us else (b, a) for a, b in pairs)
    return tuple((old, new) for old, new in ordered if _replaces(records[new], records[old], asked))


def newer_first(ranks: Floats, replacements: Pairs) -> Floats:
    """Return the ranks with those of each pair exchanged whose older record is ranked before the newer."""
    if not replacements:
        return ranks
    changed = ranks.copy()
    exchanged = True
    while exchanged:  # each exchange puts a pair in the order of time, so this ends
        exchanged = False
        for old, new in replacements:
            if changed[old] > changed[new]:
                changed[old], changed[new] = changed[new], changed[old]
                exchanged = True
    return changed


def _replaces(new: Record, old: Record, asked: frozenset[str]) -> bool:
    is_newer = new.observed_us > old.observed_us
    is_trusted = TRUSTS.index(new.trust) >= TRUSTS.index(old.trust)
    if not is_newer or not is_trusted or old.pinned or not is_other_value(new.text, old.text):
        return False
    of_old, of_new = _asked_of(old, asked), _asked_of(new, asked)
    return len(of_old - of_new) <= len(of_new - of_old)


def _asked_of(record: Record, asked: frozenset[str]) -> frozenset[str]:
    """Return what of a question a record has, but for opposites, for it asks for both: is it open?"""
    reading = read(record.text)
    told = [token for token in reading.tokens if token.kind in TELLING | VALUES - {"choice"}]
    if reading.language not in SPACED:
        signs = "".join(asked)
        return frozenset(token.key for token in told if token.word in signs)
    return asked & {term for token in told for term in stems(unelided(token.word))}
