"""Fitting a calibration on questions whose answers are known, and measuring how well it does on others.

The blend is fitted by each question's softmax over its records (ListNet: Cao et al., "Learning to rank: from pairwise
approach to listwise approach", 2007), which is about their order alone; the probability then on the records that a
search would return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from airside.memory.search.calibration import SIGNALS, TERMS, Calibration, Floats, Scores, signals
from airside.stack.errors import InvalidInput

RIDGE = 0.01
"""Keeps a blend of few questions near nothing; ten times more or less changes recall by under 0.01."""

RETURNED = 8
"""Records of a question that its scores are calibrated on: more than a search returns are nobody's to read."""

GATE_LOSS = 0.005
"""Of the recall at 4, what the gate may lose on the questions it is fitted on."""

BINS = 10
Doubles = NDArray[np.float64]


class ScoredQuestion(NamedTuple):
    """A question over the records of its tenant: their scores, and which are relevant, shape (records,)."""

    scores: Scores
    relevant: NDArray[np.bool_]


def fit(asked: Sequence[ScoredQuestion], embedder: str, fitted_on: str, *, relative: bool = False) -> Calibration:
    """Fit a calibration; its error is yet to be measured on other questions, with `calibration_error`.

    Raises `InvalidInput` if there are too few questions to fit anything on.
    """
    usable = [each for each in asked if each.relevant.any() and not each.relevant.all()]
    if len(usable) < 20:
        raise InvalidInput(f"{len(usable)} questions with relevant records are too few: give 20 at least")
    draft = Calibration(
        embedder=embedder,
        blend=_fit_blend(usable, relative=relative),
        platt=(0.0, 1.0, 0.0, 0.0),
        gate=0.0,
        error=1.0,
        questions=0,
        fitted_on=fitted_on,
        usual=0.0,
        relative=relative,
    )
    usual = float(np.mean([np.median(draft.relevance(each.scores)) for each in usable]))
    draft = _replaced(draft, usual=usual)
    platt = _fit_platt(draft, usable)
    with_platt = _replaced(draft, platt=platt)
    return _replaced(with_platt, gate=_gate(with_platt, usable))


def recall(
    asked: Sequence[ScoredQuestion], score: Callable[[ScoredQuestion], Floats], k: int, gate: float = -np.inf
) -> float:
    """Return the mean share of a question's relevant records that are among the `k` best which pass a gate."""
    found = []
    for each in asked:
        values = score(each)
        best = np.argsort(-values, kind="stable")[:k]
        found.append(each.relevant[best[values[best] >= gate]].sum() / each.relevant.sum())
    return float(np.mean(found))


def scored(calibration: Calibration, each: ScoredQuestion) -> Floats:
    """Return the score of every record of a question."""
    relevance = calibration.relevance(each.scores)
    return calibration.probabilities(relevance, float(relevance.max()), calibration.middle(np.sort(relevance)))


def calibration_error(calibration: Calibration, asked: Sequence[ScoredQuestion]) -> float:
    """Return the expected calibration error of the records a search would return, in bins of equal size."""
    probabilities, relevant = [], []
    for each in asked:
        values = scored(calibration, each)
        best = np.argsort(-values, kind="stable")[:RETURNED]
        probabilities.append(values[best])
        relevant.append(each.relevant[best])
    told, right = np.concatenate(probabilities), np.concatenate(relevant)
    order = np.argsort(told, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    return float(sum(len(part) * abs(told[part].mean() - right[part].mean()) for part in bins) / len(told))


def _replaced(calibration: Calibration, **fields: object) -> Calibration:
    import msgspec

    return msgspec.structs.replace(calibration, **fields)


def _fit_blend(asked: Sequence[ScoredQuestion], *, relative: bool) -> tuple[float, ...]:
    found = [signals(each.scores, relative=relative).astype(np.float64) for each in asked]
    spread = np.maximum(np.concatenate(found).std(axis=0), 1e-6)
    found = [each / spread for each in found]
    right = [np.flatnonzero(each.relevant) for each in asked]

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        total, slope = RIDGE * float(weights @ weights), 2 * RIDGE * weights
        for records, rights in zip(found, right, strict=True):
            values = records @ weights
            powers = np.exp(values - values.max())
            total += (np.log(powers.sum()) + values.max() - values[rights].mean()) / len(found)
            slope = slope + (powers @ records / powers.sum() - records[rights].mean(axis=0)) / len(found)
        return total, slope

    return tuple(float(w) for w in _minimum(loss, len(SIGNALS)) / spread)


def _fit_platt(draft: Calibration, asked: Sequence[ScoredQuestion]) -> tuple[float, ...]:
    rows, right = [], []
    for each in asked:
        relevance = draft.relevance(each.scores)
        best = np.argsort(-relevance, kind="stable")[:RETURNED]
        fixed = np.broadcast_to([relevance.max(), draft.middle(np.sort(relevance))], (len(best), 2))
        rows.append(np.column_stack([np.ones(len(best)), relevance[best], fixed]))
        right.append(each.relevant[best])
    records, rights = np.concatenate(rows).astype(np.float64), np.concatenate(right).astype(np.float64)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        logits = records @ weights
        total = float(np.logaddexp(0, logits).mean() - (rights * logits).mean()) + 1e-4 * float(weights @ weights)
        told = 1 / (1 + np.exp(-logits))
        return total, records.T @ (told - rights) / len(rights) + 2e-4 * weights

    return tuple(float(w) for w in _minimum(loss, len(TERMS)))


def _minimum(loss: Callable[[Doubles], tuple[float, Doubles]], size: int) -> Doubles:
    from scipy.optimize import minimize

    found: Doubles = minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B").x
    return found


def _gate(calibration: Calibration, asked: Sequence[ScoredQuestion]) -> float:
    """Return the highest of some fine steps that loses at most `GATE_LOSS` of the recall at 4."""
    score = lambda each: scored(calibration, each)  # noqa: E731
    whole = recall(asked, score, 4)
    gates = [g / 500 for g in range(1, 100) if recall(asked, score, 4, g / 500) >= (1 - GATE_LOSS) * whole]
    return max(gates, default=0.0)
