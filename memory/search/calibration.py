"""What a score means: the probability that a record is relevant, and when a question is one that nothing here answers.

A cosine means something else for every model and language, and a BM25 score for every question.  So a record's
`SIGNALS` say how far it is above the other records of its question, and how much of the question it has.  Three small
models are fitted on questions whose answers are known, of several kinds of text that count alike:

- The blend of the signals is a relevance, and orders one question's records.  A record like most others has 0.
- From a record's `RECORD_TERMS` comes the probability that it is relevant (as in Platt, "Probabilistic outputs for
  support vector machines", 1999).
- From the `QUESTION_TERMS` comes the probability that anything here answers the question.  Below the `gate` it gets
  nothing, unless somebody asked for a least score.

Each embedder has a calibration of its own, fitted by `airside memory calibrate`.  Those shipped are in `calibrations/`;
an embedder without one gets `generic`, which never looks at how high a cosine is, only at how far above the others'.
"""

from __future__ import annotations

import importlib.resources
import math
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from airside.stack.errors import InvalidConfig
from airside.stack.values import Value

Floats = NDArray[np.float32]

VERSION = 2
"""Of what a calibration's numbers mean."""

GENERIC = "generic"
_LEAST_BM25 = 1e-12
"""A best score below it is none: what is divided by less may overflow in 32 bits."""

SIGNALS = ("cosine", "cosine by mean", "bm25 stretched", "bm25 share")
RECORD_TERMS = ("bias", "chance", "cosine", "share", "names missed", "mean", "lead")
QUESTION_TERMS = ("bias", "cosine", "mean", "names missed", "lead", "both")
FEW = 32
"""A question over fewer records is taken to have so many, the others being as usual: one of a handful may well be the
answer, and says little about what is usual."""

MOST_LEAD = 1.0
"""Beyond it, how far the best record is ahead of the second says no more."""


class Scores(NamedTuple):
    """One question's records, each shape (records,): cosines, BM25 scores, and the share of its names they have.

    `most` is the least upper bound of any text's BM25 score; `has_names` = the question calls something by name.
    """

    cosines: Floats
    bm25: Floats
    most: float
    names: Floats
    has_names: bool


class Chances(NamedTuple):
    """The probability of each of some records that it is relevant, and that any record answers the question."""

    records: Floats
    answered: float


class Terms(NamedTuple):
    """What probabilities are made of: shapes (records, `RECORD_TERMS`) and (`QUESTION_TERMS`,)."""

    records: Floats
    question: Floats


class Calibration(Value):
    """One embedder's.  `blend`, `record` and `question` weigh the `SIGNALS`, `RECORD_TERMS` and `QUESTION_TERMS`.

    `gate` and `floor` are the probabilities below which, by default, a question gets nothing and a record is left out.
    `error` is the expected calibration error (ten bins of equal size; Naeini, Cooper and Hauskrecht, 2015) on
    `questions`, each by a fit that had not seen its kind.  `usual` are the mean and the standard deviation of a
    question's cosines, on average.  `relative` = cosines count in deviations above the mean only.
    """

    version: int
    embedder: str
    blend: tuple[float, ...]
    record: tuple[float, ...]
    question: tuple[float, ...]
    gate: float
    floor: float
    usual: tuple[float, float]
    error: float
    questions: int
    fitted_on: tuple[str, ...]
    relative: bool = False

    def relevance(self, scores: Scores) -> Floats:
        """Return how relevant each record is beside the others of its question: `signals` times the blend."""
        cosine, by_mean, stretched, share = self.blend
        mean, deviation = spread(scores.cosines, self.usual)
        slope = max(0.0, cosine + (0.0 if self.relative else by_mean * mean)) / deviation
        relevance: Floats = (scores.cosines - np.float32(mean)) * np.float32(slope)
        top = float(scores.bm25.max(initial=0))
        if top > _LEAST_BM25:  # the same as the product, without the matrix: half of the time of a search went into it
            relevance += scores.bm25 * np.float32(stretched / top + share / scores.most)
        return relevance

    def terms(self, scores: Scores, relevance: Floats, places: NDArray[np.intp]) -> Terms:
        """Return the terms of a question and of the records at `places`, the most relevant ones, best first."""
        mean, deviation = spread(scores.cosines, self.usual)
        count = max(FEW, len(relevance))
        missing = count - len(relevance)
        of = relevance[places].astype(np.float64)
        best = float(of[0])
        second = max(float(of[1]) if len(of) > 1 else -math.inf, 0.0 if missing else -math.inf)
        lead = max(0.0, min(best - second, MOST_LEAD))
        all_ = math.log(float(np.exp(of - best).sum()) + missing * math.exp(min(-best, 30.0)))
        # The highest of many is high by itself: by so many deviations (of independent ones, about normal).
        by_chance = math.sqrt(2 * math.log(count))
        cosines, highest, level = scores.cosines[places], float(scores.cosines.max()), mean
        above = (cosines - mean) / deviation
        if self.relative:
            cosines, highest, level = above - by_chance, (highest - mean) / deviation - by_chance, 0.0
        share = np.sqrt(scores.bm25[places] / scores.most) if scores.most > 0 else np.zeros(len(places))
        missed = 1 - scores.names[places] if scores.has_names else np.zeros(len(places))
        records = np.zeros((len(places), len(RECORD_TERMS)), dtype=np.float32)
        for at, column in enumerate((1.0, of - best - all_, cosines, share, missed, level)):
            records[:, at] = column
        records[0, -1] = lead  # of the best one: whatever comes nearer to it loses nothing by that
        both = max(float(above[0]), 0.0) * float(share[0]) ** 2
        question = np.array((1.0, highest, level, missed[0], lead, both), dtype=np.float32)
        return Terms(records, question)

    def chances(self, scores: Scores, relevance: Floats, places: NDArray[np.intp]) -> Chances:
        """Return the probabilities of a question and of the records at `places`, the most relevant ones, best first."""
        terms = self.terms(scores, relevance, places)
        records = _probability(terms.records @ np.asarray(self.record, dtype=np.float32))
        return Chances(records, float(_probability(terms.question @ np.asarray(self.question, dtype=np.float32))))


def spread(cosines: Floats, usual: tuple[float, float]) -> tuple[float, float]:
    """Return the mean and the standard deviation of a question's cosines."""
    mean, deviation = float(cosines.mean()), float(cosines.std())
    if len(cosines) < FEW:
        part = len(cosines) / FEW
        whole = part * mean + (1 - part) * usual[0]
        square = part * (deviation**2 + (mean - whole) ** 2) + (1 - part) * (usual[1] ** 2 + (usual[0] - whole) ** 2)
        mean, deviation = whole, math.sqrt(square)
    return mean, max(deviation, 1e-6)


def signals(scores: Scores, usual: tuple[float, float], *, relative: bool = False) -> Floats:
    """Return the `SIGNALS` of each record, shape (records, signals).

    The cosine counts in deviations above the mean, and for more or less where the mean is high: an embedder that knows
    nothing of a language finds everything in it alike.  BM25 comes two ways: stretched over what the question's records
    have (as in Bruch, Gai and Ingber, "An analysis of fusion functions for hybrid retrieval", 2023), and as a share of
    what a text could have at most.
    """
    mean, deviation = spread(scores.cosines, usual)
    top = float(scores.bm25.max(initial=0))
    found = np.zeros((len(scores.cosines), len(SIGNALS)), dtype=np.float32)
    found[:, 0] = (scores.cosines - mean) / deviation
    if not relative:
        found[:, 1] = found[:, 0] * mean
    if top > _LEAST_BM25:
        found[:, 2] = scores.bm25 / top
        found[:, 3] = scores.bm25 / scores.most
    return found


def _probability(logits: Floats) -> Floats:
    found: Floats = (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)
    return found


class _Version(msgspec.Struct):
    version: int = 1


def load_calibration(embedder: str, folder: Path | None = None) -> Calibration:
    """Return an embedder's calibration: from `folder` if it has one, else as shipped, else the generic one.

    Raises `InvalidConfig` for a file that is none, or of another version.
    """
    name = file_name(embedder)
    shipped = importlib.resources.files("airside.memory") / "calibrations"
    places = [*([folder / name] if folder else []), shipped / name, shipped / file_name(GENERIC)]
    place = next(place for place in places if place.is_file())
    again = "fit it again with `airside memory calibrate`, or remove it to have the one that is shipped"
    try:
        data = place.read_bytes()
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            raise InvalidConfig(
                f"{place} is a calibration of version {version}, and this is version {VERSION}: {again}"
            )
        found = msgspec.json.decode(data, type=Calibration)
    except msgspec.DecodeError as error:
        raise InvalidConfig(f"{place} is no calibration ({error}): {again}") from None
    sizes = (len(found.blend), len(found.record), len(found.question))
    if sizes != (len(SIGNALS), len(RECORD_TERMS), len(QUESTION_TERMS)) or found.usual[1] <= 0:
        raise InvalidConfig(f"{place} is no calibration (it has other terms): {again}")
    return found


def save_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write a calibration where `load_calibration` finds it; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / file_name(calibration.embedder)
    place.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    return place


def file_name(embedder: str) -> str:
    """Return the name of an embedder's file: what is no letter, digit, dot or dash in its name is a dash."""
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-") else "-" for c in embedder) + ".json"
