"""The order of what was found: relevance, less for age, little importance or trust, and less for what repeats.

Pure; the numbers are `MemoryRules.weights`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from airside.memory.rules import Weights
from airside.stack.values import TRUSTS

Floats = NDArray[np.float32]

ALIKE = 0.9
"""Cosine from which one record repeats another; most pairs below it say different things about one matter."""


def freshness(ages_s: Floats, half_lives_s: Floats) -> Floats:
    """Return how fresh records are: 1 when new, half after a half-life; never above 1, whatever their date."""
    fresh: Floats = np.exp2(-np.maximum(ages_s, 0) / half_lives_s).astype(np.float32)
    return fresh


def ranks(scores: Floats, fresh: Floats, importance: Floats, trust: Floats, weights: Weights) -> Floats:
    """Return what records are ordered by, at most their scores; `trust` counts from 0 to 2 as `TRUSTS` does."""
    loss = weights.freshness * (1 - fresh) + weights.importance * (1 - importance)
    loss += weights.trust * (1 - trust / (len(TRUSTS) - 1))
    kept: Floats = (scores * np.maximum(0, 1 - loss)).astype(np.float32)
    return kept


def diverse(ranked: Floats, vectors: Floats, top_k: int, diversity: float) -> list[int]:
    """Choose at most `top_k` records, best first, so that near-duplicates do not fill them.

    Maximal marginal relevance (Carbonell and Goldstein, 1998), one after the other the record that is best after it
    lost `diversity` of its rank for being like one chosen before; being like begins at `ALIKE`, so that records about
    one matter which say different things lose nothing.
    """
    count = min(top_k, len(ranked))
    if not count:
        return []
    chosen = [int(np.argmax(ranked))]  # like which none was chosen before
    if count == 1:
        return chosen
    left = np.array(ranked, dtype=np.float64)
    closest = np.zeros(len(ranked), dtype=np.float64)
    while len(chosen) < count:
        left[chosen[-1]] = -1.0
        closest = np.maximum(closest, vectors @ vectors[chosen[-1]])
        penalty = np.minimum(np.maximum(closest - ALIKE, 0) / (1 - ALIKE), 1)
        best = int(np.argmax(left * (1 - diversity * penalty)))
        if left[best] < 0:
            break
        chosen.append(best)
    return chosen
