"""BM25 over one tenant's records, which come and go: an inverted index in RAM.

The formula is Lucene's (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009; k1 and b as there), and
every score is given beside the highest one that any text could have for the query, so that queries can be compared.
Libraries that have it build the index anew for every change.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

K1 = 1.2
B = 0.75

FEW = 32
"""Texts without a term that are counted beside those there are: a handful says little about how rare its words are."""

MAX_TERMS = 64
"""Terms of a question that are looked up: a search takes time with their number and the records'."""


_NONE: tuple[array[int], array[float]] = (array("i"), array("f"))


class Matches(NamedTuple):
    """Every text's BM25 score, shape (texts,), the least upper bound of any text's, and its share of the names.

    A text's share of the names, in [0, 1], is its BM25 score for them by the most a text could have.
    """

    bm25: Floats
    most: float
    names: Floats


class Bm25Index:
    """Texts by the number they were added under: 0, 1, 2, ... in this order."""

    def __init__(self) -> None:
        self._postings: dict[str, tuple[array[int], array[float]]] = {}
        self._lengths: array[float] = array("f")
        self._total = 0.0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, terms: Sequence[str]) -> None:
        """Add the next text."""
        number = len(self._lengths)
        for term, count in Counter(terms).items():
            found = self._postings.get(term)
            if found is None:
                found = self._postings[term] = (array("i"), array("f"))
            found[0].append(number)
            found[1].append(count)
        self._lengths.append(len(terms))
        self._total += len(terms)

    def scores(self, terms: Collection[str], names: Collection[str] = ()) -> Matches:
        """Return how well every text matches; `names` are those of the terms that count once more by themselves.

        Of a question with more than `MAX_TERMS` the rarest count.
        """
        count = len(self._lengths)
        found: list[tuple[array[int], array[float]]] = []
        weights, most = [], [0.0, 0.0]
        chosen = set(names)
        asked = {*terms, *chosen}
        if len(asked) > MAX_TERMS:
            asked = set(sorted(asked, key=lambda term: (len(self._postings.get(term, _NONE)[0]), term))[:MAX_TERMS])
        for term in asked:
            texts, counts = self._postings.get(term, _NONE)
            idf = math.log1p((count + FEW - len(texts) + 0.5) / (len(texts) + 0.5))
            weight = (idf if term in terms else 0.0, idf if term in chosen else 0.0)
            most = [most[0] + weight[0] * (K1 + 1), most[1] + weight[1] * (K1 + 1)]
            if len(texts):
                found.append((texts, counts))
                weights.append(weight)
        if not found:
            return Matches(np.zeros(count, dtype=np.float32), most[0], np.zeros(count, dtype=np.float32))
        texts_ = np.concatenate([np.frombuffer(texts, dtype=np.int32) for texts, _ in found])
        counts_ = np.concatenate([np.frombuffer(counts, dtype=np.float32) for _, counts in found])
        each = [len(texts) for texts, _ in found]
        lengths = np.frombuffer(self._lengths, dtype=np.float32)[texts_]
        mean = max(1.0, self._total / count)
        weight_ = (
            counts_ * np.float32(K1 + 1) / (counts_ + np.float32(K1 * (1 - B)) + lengths * np.float32(K1 * B / mean))
        )
        idfs, of_names = np.asarray(weights, dtype=np.float32).T
        bm25 = np.bincount(texts_, weight_ * np.repeat(idfs, each), count).astype(np.float32)
        if not of_names.any():
            return Matches(bm25, most[0], np.zeros(count, dtype=np.float32))
        share = np.bincount(texts_, weight_ * np.repeat(of_names / np.float32(most[1]), each), count)
        return Matches(bm25, most[0], share.astype(np.float32))

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes: 8 bytes a posting, and some 250 a term."""
        return 250 * len(self._postings) + 8 * int(self._total) + 4 * len(self._lengths)
