"""What a score means: the probability that a record is relevant, estimated from its cosine and its BM25.

Raw cosines mean something else for every model (at 0.7 MiniLM throws most right answers away), so each embedder has a
calibration of its own, fitted by `airside memory calibrate` on questions whose answers are known.  Those shipped are in
`calibrations/`; an embedder without one gets `generic`, which sees only how far a cosine is above the others'.

Both scores are blended into a relevance, which orders one question's records, and the relevance becomes a probability
(Platt, "Probabilistic outputs for support vector machines", 1999) that also looks at the best and the middle one of
the question: so questions that nothing answers get low scores all over.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from airside.stack.errors import InvalidConfig
from airside.stack.values import Value

Floats = NDArray[np.float32]

GENERIC = "generic"
SIGNALS = ("cosine", "bm25 stretched", "bm25 share", "bm25 log", "names")
FEW = 32
TERMS = ("bias", "relevance", "best", "middle")


class Scores(NamedTuple):
    """One question's records, each shape (records,): cosines, BM25 scores, and the share of its names they have.

    `most` is the least upper bound of any text's BM25 score.
    """

    cosines: Floats
    bm25: Floats
    most: float
    names: Floats


class Calibration(Value):
    """One embedder's.  `blend` weighs the `SIGNALS` into a relevance, `platt` the `TERMS` into a probability's logit.

    `relative` = the cosine counts in deviations above the mean of the question's records, and not by itself.  `gate` is
    the probability below which hardly anything relevant lies.  `error` is the expected calibration error (ten bins of
    equal size; Naeini, Cooper and Hauskrecht, 2015) on `questions` it was not fitted on.  `usual` is the middle
    relevance of the questions it was fitted on, on average.
    """

    embedder: str
    blend: tuple[float, ...]
    platt: tuple[float, ...]
    gate: float
    error: float
    questions: int
    fitted_on: str
    usual: float
    relative: bool = False

    def relevance(self, scores: Scores) -> Floats:
        """Return how relevant each record is, beside the others of its question: `signals` times the blend."""
        if self.relative:
            return signals(scores, relative=True) @ np.asarray(self.blend, dtype=np.float32)
        cosine, stretched, share, log, names = map(np.float32, self.blend)
        top = scores.bm25.max(initial=0)
        relevance = scores.cosines * cosine
        if top > 0:  # the same as the product, without the matrix: half of the time of a search went into it
            relevance += scores.bm25 * (stretched / top + share / np.float32(scores.most))
            relevance += np.log1p(scores.bm25) * log
            relevance += scores.names * names
        return relevance

    def middle(self, ordered: Floats) -> float:
        """Return the middle relevance of a question's records, given in order.

        A handful of records, of which one may be the answer, say little about what is usual: up to `FEW` are taken to
        be as usual.
        """
        missing = max(0, FEW - len(ordered))
        if missing:
            ordered = np.sort(np.concatenate([ordered, np.full(missing, self.usual, dtype=np.float32)]))
        return float(ordered[(len(ordered) - 1) // 2])

    def probabilities(self, relevance: Floats, best: float, middle: float) -> Floats:
        """Return the probability that each record is relevant, given the question's best and middle relevance."""
        bias, slope, of_best, of_middle = self.platt
        logits = np.clip(bias + slope * relevance + of_best * best + of_middle * middle, -30, 30)
        probabilities: Floats = (1 / (1 + np.exp(-logits))).astype(np.float32)
        return probabilities


def signals(scores: Scores, *, relative: bool = False) -> Floats:
    """Return the `SIGNALS` of each record, shape (records, signals).

    BM25 comes three ways: stretched over what the question's records have (as in Bruch, Gai and Ingber, "An analysis
    of fusion functions for hybrid retrieval", 2023), as a share of what a text could have at most, and its logarithm.
    Names and numbers count once more by themselves: among records about one matter they are what tells them apart.
    """
    found = np.empty((len(scores.cosines), len(SIGNALS)), dtype=np.float32)
    found[:, 0] = scores.cosines
    if relative:
        spread = max(1e-6, float(scores.cosines.std()))
        found[:, 0] = (scores.cosines - scores.cosines.mean()) / np.float32(spread)
    top = float(scores.bm25.max(initial=0))
    found[:, 1] = scores.bm25 / np.float32(top) if top > 0 else 0
    found[:, 2] = scores.bm25 / np.float32(scores.most) if scores.most > 0 else 0
    found[:, 3] = np.log1p(scores.bm25)
    found[:, 4] = scores.names
    return found


def load_calibration(embedder: str, folder: Path | None = None) -> Calibration:
    """Return an embedder's calibration: from `folder` if it has one, else as shipped, else the generic one.

    Raises `InvalidConfig` for a file that is none.
    """
    name = file_name(embedder)
    shipped = importlib.resources.files("airside.memory") / "calibrations"
    places = [*([folder / name] if folder else []), shipped / name, shipped / file_name(GENERIC)]
    place = next(place for place in places if place.is_file())
    try:
        found = msgspec.json.decode(place.read_bytes(), type=Calibration)
    except msgspec.DecodeError as error:
        raise InvalidConfig(f"{place} is no calibration: {error}") from None
    if (len(found.blend), len(found.platt)) != (len(SIGNALS), len(TERMS)):
        raise InvalidConfig(f"{place} is of another version: fit it again with `airside memory calibrate`")
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
