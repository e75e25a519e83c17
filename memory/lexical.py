"""BM25 over one tenant's records, which come and go: an inverted index in RAM.

The formula is Lucene's (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009; k1 and b as there), and
every score is given beside the highest one that any text could have for the query, so that queries can be compared.
Libraries that have it build the index anew for every change.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

K1 = 1.2
B = 0.75


class LexicalIndex:
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

    def scores(self, terms: Sequence[str]) -> tuple[Floats, float]:
        """Return the BM25 score of every text, shape (texts,), and the least upper bound of any text's."""
        count = len(self._lengths)
        scores = np.zeros(count, dtype=np.float32)
        most = 0.0
        if not count:
            return scores, most
        lengths = np.frombuffer(self._lengths, dtype=np.float32)
        mean = max(1.0, self._total / count)
        for term in set(terms):
            found = self._postings.get(term)
            frequency = len(found[0]) if found else 0
            idf = float(np.log1p((count - frequency + 0.5) / (frequency + 0.5)))
            most += idf * (K1 + 1)
            if found is None:
                continue
            texts, counts = np.frombuffer(found[0], dtype=np.int32), np.frombuffer(found[1], dtype=np.float32)
            weight = counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths[texts] / mean))
            scores[texts] += np.float32(idf) * weight
        return scores, most

    def shares(self, terms: Sequence[str]) -> Floats:
        """Return every text's score as a share of the most a text could have, in [0, 1], shape (texts,)."""
        scores, most = self.scores(terms)
        return scores / np.float32(most) if most > 0 else scores

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes: 8 bytes a posting, and some 250 a term."""
        return 250 * len(self._postings) + 8 * int(self._total) + 4 * len(self._lengths)
