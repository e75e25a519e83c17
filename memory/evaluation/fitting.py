"""Fitting a calibration on questions whose answers are known, and measuring how well it does on others.

The blend is fitted by each question's softmax over its records (ListNet: Cao et al., "Learning to rank: from pairwise
approach to listwise approach", 2007), which is about their order alone; then the probability of a record, on those that
a search would return, and the probability that a question is answered at all.  Every kind of text counts alike,
whatever its size, so that none of them decides what is right for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from airside.memory.search.calibration import (
    QUESTION_TERMS,
    RECORD_TERMS,
    SIGNALS,
    VERSION,
    Calibration,
    Floats,
    Scores,
    Terms,
    signals,
)
from airside.stack.errors import InvalidInput

RIDGE = 0.01
"""Keeps a blend of few questions near nothing; ten times more or less changes recall by under 0.01."""

RIDGE_OF_PROBABILITIES = 0.001

RETURNED = 8
"""Records of a question that its scores are calibrated on: more than a search returns are nobody's to read."""

UNANSWERABLE = 0.15
"""The share of questions that nothing answers, as calibrated for, however many of them a set has."""

GATE_LOSS, MOST_GATE_LOSS, FLOOR_LOSS = 0.025, 0.05, 0.005
"""Of the recall at 4, what the gate may lose on average and of any one kind, and what the floor may lose."""

FEWEST = 20
BINS = 10
Doubles = NDArray[np.float64]

_FALLING = {"names missed", "mean"}
"""Terms that may only count against; "cosine by mean" may do either, all others only count for."""


class ScoredQuestion(NamedTuple):
    """A question over the records of its tenant: their scores, and which are relevant, shape (records,)."""

    scores: Scores
    relevant: NDArray[np.bool_]


Kinds = Mapping[str, Sequence[ScoredQuestion]]


class Assessed(NamedTuple):
    """A question's records as a search has them: places, best first, their terms, and the probabilities from these."""

    places: NDArray[np.intp]
    terms: Terms
    records: Floats
    answered: float


def fit(kinds: Kinds, embedder: str, *, relative: bool = False) -> Calibration:
    """Fit a calibration on kinds of text; its error is yet to be measured on others, with `calibration_error`.

    Raises `InvalidInput` if there are too few questions to fit anything on.
    """
    every = [each for asked in kinds.values() for each in asked]
    for what, count in (
        ("answers", sum(_usable(q) for q in every)),
        ("none", sum(not q.relevant.any() for q in every)),
    ):
        if count < FEWEST:
            which = "with relevant records" if what == "answers" else "that nothing answers"
            raise InvalidInput(f"{count} questions {which} are too few: give {FEWEST} at least")
    cosines = [(float(q.scores.cosines.mean()), float(q.scores.cosines.std())) for q in every]
    draft = Calibration(
        version=VERSION,
        embedder=embedder,
        blend=(1.0,) * len(SIGNALS),
        record=(0.0,) * len(RECORD_TERMS),
        question=(0.0,) * len(QUESTION_TERMS),
        gate=0.0,
        floor=0.0,
        usual=(float(np.mean([m for m, _ in cosines])), max(1e-6, float(np.mean([d for _, d in cosines])))),
        error=1.0,
        questions=0,
        fitted_on=tuple(kinds),
        relative=relative,
    )
    draft = msgspec.structs.replace(draft, blend=_fit_blend(kinds, draft))
    assessed = {kind: [assess(draft, each) for each in asked] for kind, asked in kinds.items()}
    draft = msgspec.structs.replace(draft, record=_fit_record(kinds, assessed), question=_fit_question(kinds, assessed))
    assessed = {kind: [assess(draft, each) for each in asked] for kind, asked in kinds.items()}
    first = [_first(asked, assessed[kind]) for kind, asked in kinds.items()]
    gate = _highest(lambda g: _lost(first, g, 0.0), GATE_LOSS, MOST_GATE_LOSS)
    floor = _highest(lambda f: _lost(first, gate, f) - _lost(first, gate, 0.0), FLOOR_LOSS, 1.0)
    return msgspec.structs.replace(draft, gate=gate, floor=floor)


def assess(calibration: Calibration, each: ScoredQuestion) -> Assessed:
    """Return what a calibration says of a question, and of the records that a search would return."""
    relevance = calibration.relevance(each.scores)
    places = np.argsort(-relevance, kind="stable")[:64]
    terms = calibration.terms(each.scores, relevance, places)
    records, answered = calibration.chances(each.scores, relevance, places)
    order = np.argsort(-records, kind="stable")[:RETURNED]
    return Assessed(places[order], Terms(terms.records[order], terms.question), records[order], answered)


def calibration_error(calibration: Calibration, asked: Sequence[ScoredQuestion]) -> float:
    """Return the expected calibration error of the records a search would return, in bins of equal size."""
    assessed = [assess(calibration, each) for each in asked]
    told = np.concatenate([each.records for each in assessed])
    right = np.concatenate([each.relevant[it.places] for each, it in zip(asked, assessed, strict=True)])
    bins = [part for part in np.array_split(np.argsort(told, kind="stable"), BINS) if len(part)]
    return float(sum(len(part) * abs(told[part].mean() - right[part].mean()) for part in bins) / len(told))


def _usable(each: ScoredQuestion) -> bool:
    return bool(each.relevant.any() and not each.relevant.all())


def _fit_blend(kinds: Kinds, draft: Calibration) -> tuple[float, ...]:
    found: list[tuple[Doubles, NDArray[np.intp], float]] = []
    for asked in kinds.values():
        usable = [each for each in asked if _usable(each)]
        for each in usable:
            records = signals(each.scores, draft.usual, relative=draft.relative).astype(np.float64)
            found.append((records, np.flatnonzero(each.relevant), 1 / len(usable) / len(kinds)))
    deviations = np.sqrt(sum(weight * records.var(axis=0) for records, _, weight in found))
    scale = np.maximum(deviations, 1e-6)
    found = [(records / scale, rights, weight) for records, rights, weight in found]

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        total, slope = RIDGE * float(weights @ weights), 2 * RIDGE * weights
        for records, rights, weight in found:
            values = records @ weights
            powers = np.exp(values - values.max())
            total += weight * (np.log(powers.sum()) + values.max() - values[rights].mean())
            slope = slope + weight * (powers @ records / powers.sum() - records[rights].mean(axis=0))
        return total, slope

    return tuple(float(w) for w in _minimum(loss, _bounds(SIGNALS)) / scale)


def _fit_record(kinds: Kinds, assessed: Mapping[str, Sequence[Assessed]]) -> tuple[float, ...]:
    rows, right, weights = [], [], []
    for kind, asked in kinds.items():
        for each, it, weight in zip(asked, assessed[kind], _weights(asked), strict=True):
            rows.append(it.terms.records)
            right.append(each.relevant[it.places])
            weights.append(np.full(len(it.places), weight / len(kinds) / RETURNED))
    return _logistic(np.concatenate(rows), np.concatenate(right), np.concatenate(weights), RECORD_TERMS)


def _fit_question(kinds: Kinds, assessed: Mapping[str, Sequence[Assessed]]) -> tuple[float, ...]:
    rows = np.stack([it.terms.question for kind in kinds for it in assessed[kind]])
    right = np.array([each.relevant.any() for asked in kinds.values() for each in asked])
    return _logistic(rows, right, np.concatenate([_weights(asked) for asked in kinds.values()]), QUESTION_TERMS)


def _weights(asked: Sequence[ScoredQuestion]) -> Doubles:
    """Return what each question of a kind counts, all of them 1: those that nothing answers `UNANSWERABLE`."""
    answered = np.array([each.relevant.any() for each in asked])
    known, unknown = (1 - UNANSWERABLE) / max(1, answered.sum()), UNANSWERABLE / max(1, (~answered).sum())
    weights: Doubles = np.where(answered, known, unknown)
    return weights


def _logistic(rows: Floats, right: NDArray[np.bool_], weights: Doubles, names: Sequence[str]) -> tuple[float, ...]:
    """Fit a logistic regression, the first term being 1, with terms that count one way only."""
    weights = weights / weights.sum()
    scale = np.maximum(np.sqrt(np.average((rows - np.average(rows, axis=0, weights=weights)) ** 2, axis=0)), 1e-6)
    scale[0] = 1.0
    scaled = rows.astype(np.float64) / scale

    def loss(found: Doubles) -> tuple[float, Doubles]:
        logits = scaled @ found
        total = float((weights * (np.logaddexp(0, logits) - right * logits)).sum())
        shrunk = np.append(0.0, found[1:])
        told = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        slope = scaled.T @ (weights * (told - right)) + 2 * RIDGE_OF_PROBABILITIES * shrunk
        return total + RIDGE_OF_PROBABILITIES * float(shrunk @ shrunk), slope

    return tuple(float(w) for w in _minimum(loss, _bounds(names)) / scale)


def _bounds(names: Sequence[str]) -> list[tuple[float | None, float | None]]:
    free, falling, rising = (None, None), (None, 0.0), (0.0, None)
    return [free if n in ("bias", "cosine by mean") else falling if n in _FALLING else rising for n in names]


def _minimum(
    loss: Callable[[Doubles], tuple[float, Doubles]], bounds: list[tuple[float | None, float | None]]
) -> Doubles:
    from scipy.optimize import minimize

    found: Doubles = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found


class _First(NamedTuple):
    """The four best records of a kind's questions that have an answer, a row a question, padded with nothing.

    `right` is each record's share of what is relevant to its question.
    """

    answered: Floats
    records: Doubles
    right: Doubles


def _first(asked: Sequence[ScoredQuestion], assessed: Sequence[Assessed]) -> _First:
    pairs = [(each, it) for each, it in zip(asked, assessed, strict=True) if each.relevant.any()]
    records, right = np.zeros((len(pairs), 4)), np.zeros((len(pairs), 4))
    for at, (each, it) in enumerate(pairs):
        places = it.places[:4]
        records[at, : len(places)] = it.records[:4]
        right[at, : len(places)] = each.relevant[places] / each.relevant.sum()
    return _First(np.array([it.answered for _, it in pairs], dtype=np.float32), records, right)


def _lost(kinds: Sequence[_First], gate: float, floor: float) -> Doubles:
    """Return the share of each kind's recall at 4 that a gate and a floor lose."""
    lost = []
    for first in kinds:
        kept = first.right[first.answered >= gate][first.records[first.answered >= gate] >= floor].sum()
        lost.append(1 - kept / max(1e-9, first.right.sum()))
    return np.array(lost)


def _highest(lost: Callable[[float], Doubles], mean: float, most: float) -> float:
    """Return the highest of some fine steps at which no more is lost, on average and of any kind."""
    found = 0.0
    for step in (g / 200 for g in range(1, 200)):
        shares = lost(step)
        if shares.mean() > mean or shares.max() > most:
            break
        found = step
    return found
