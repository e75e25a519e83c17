"""How good retrieval is: recall, MRR, nDCG and calibration of dense, BM25 and hybrid search on a set of questions.

    python -m benchmarks.memory_quality [--data FILE]

The set's format is in `benchmarks/data/README.md`.  Its groups are split in two; the hybrid's weights, probabilities
and gate are fitted on either half and measured on the other, and both measurements are averaged by question.  Dense and
BM25 have nothing to fit.  The hybrid is searched as the Memory actor does, through the index with its ranking.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from airside.memory.embedders.embedder import Embedder, SentenceTransformerEmbedder
from airside.memory.evaluation.fitting import ScoredQuestion, calibration_error, fit
from airside.memory.evaluation.question_sets import Group, ask, embedded, halves, read_questions
from airside.memory.records import Record
from airside.memory.rules import MemoryRules
from airside.memory.search.calibration import Calibration
from airside.memory.search.index import Bounds, Query, TenantIndex
from airside.stack.ids import parse_tenant
from benchmarks.measure import machine

DATA = Path(__file__).parent / "data" / "memories.jsonl"
DEPTH = 10
NOW_US = 1_000_000_000
Found = list[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line a measurement and the summary last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="a JSONL file of documents and queries")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    embedder = SentenceTransformerEmbedder()
    groups = read_questions(options.data)
    measured = Measured(groups, embedder)
    for fitted, reported in (split := halves(groups)), split[::-1]:
        measured.cross(fitted, reported)
    print(json.dumps({"data": str(options.data), "embedder": embedder.name, **measured.sizes(), **machine()}))
    for name in ("dense", "bm25", "fused", "gated"):
        print(json.dumps({"search": name, **measured.summary(name)}))
    print(json.dumps({"seconds": round(time.perf_counter() - began, 1)}))
    print(json.dumps(measured.last_line()))


class Measured:
    """The questions of both halves, each measured with what was fitted on the other."""

    def __init__(self, groups: dict[str, Group], embedder: Embedder) -> None:
        self._groups = groups
        self._embedder = embedder
        self._asked = {name: list(ask(group, embedder)) for name, group in groups.items()}
        self._found: dict[str, list[tuple[Found, frozenset[str]]]] = {}
        self._errors: list[tuple[int, float]] = []

    def cross(self, fitted: Iterable[str], reported: Iterable[str]) -> None:
        """Fit on some groups and search the others."""
        calibration = fit(self._all(fitted), self._embedder.name, "the other half")
        others = list(reported)
        self._errors.append((len(self._all(others)), calibration_error(calibration, self._all(others))))
        for name in others:
            self._search(name, calibration)

    def _all(self, names: Iterable[str]) -> list[ScoredQuestion]:
        return [each for name in names for each in self._asked[name]]

    def _search(self, name: str, calibration: Calibration) -> None:
        group = self._groups[name]
        index = _index(group, self._embedder, calibration)
        ids = list(group.documents)
        questions = list(group.questions.values())
        vectors = embedded((q.text for q in questions), self._embedder)
        for question, vector, asked in zip(questions, vectors, self._asked[name], strict=True):
            right, query = frozenset(question.relevant), Query.of(question.text, vector)
            self._note("dense", _best(asked.scores.cosines, ids), right)
            self._note("bm25", _best(asked.scores.bm25, ids), right)
            for search, gate in (("fused", 0.0), ("gated", None)):
                found = index.search(query, Bounds(DEPTH, gate, "restricted", NOW_US))
                self._note(search, [record.source for record in found], right)

    def _note(self, search: str, found: Found, right: frozenset[str]) -> None:
        self._found.setdefault(search, []).append((found, right))

    def sizes(self) -> dict[str, int]:
        """Return how much there was to search and to ask."""
        return {
            "groups": len(self._groups),
            "documents": sum(len(group.documents) for group in self._groups.values()),
            "queries": sum(len(group.questions) for group in self._groups.values()),
        }

    def recall(self, search: str, k: int) -> float:
        """Return the mean share of the relevant documents among the first k."""
        return float(np.mean([len(right & set(found[:k])) / len(right) for found, right in self._found[search]]))

    def summary(self, search: str) -> dict[str, float]:
        """Return a search's measures; MRR and nDCG look at the first ten."""
        pairs = self._found[search]
        values = {f"recall_at_{k}": self.recall(search, k) for k in (1, 4, 8)}
        values["mrr"] = float(np.mean([_reciprocal(*pair) for pair in pairs]))
        values["ndcg"] = float(np.mean([_gain(*pair) for pair in pairs]))
        return {name: round(value, 4) for name, value in values.items()}

    def last_line(self) -> dict[str, Any]:
        """Return the summary."""
        parts = ("dense", "bm25", "fused")
        asked = sum(count for count, _ in self._errors)
        whole, gated = self.recall("fused", 4), self.recall("gated", 4)
        return {
            "recall_at_4": {name: round(self.recall(name, 4), 4) for name in parts},
            "recall_at_8": {name: round(self.recall(name, 8), 4) for name in parts},
            "calibration_error": round(sum(count * error for count, error in self._errors) / asked, 4),
            "gate_recall_loss": round(1 - gated / whole, 4),
        }


def _index(group: Group, embedder: Embedder, calibration: Calibration) -> TenantIndex:
    """Return a tenant's index over a group's documents; a record's source is its document's id."""
    index = TenantIndex(embedder.dimension, MemoryRules(), calibration)
    template = Record(
        record_id="",
        tenant=parse_tenant("benchmark"),
        text="",
        kind="fact",
        sources=(),
        sensitivity="internal",
        trust="medium",
        subject="",
        topic="",
        importance=0.5,
        confidence=1.0,
        labels=(),
        state="live",
        superseded_by="",
        met=1,
        digest="",
        created_us=NOW_US,
        observed_us=NOW_US,
        expires_us=2 * NOW_US,
        pinned=False,
    )
    vectors = embedded((document.text for document in group.documents.values()), embedder)
    for document, vector in zip(group.documents.values(), vectors, strict=True):
        fields = {"record_id": document.id, "text": document.text, "sources": (document.id,), "digest": document.id}
        index.put(msgspec.structs.replace(template, **fields), vector)
    return index


def _best(scores: NDArray[np.float32], ids: Sequence[str]) -> Found:
    return [ids[i] for i in np.argsort(-scores, kind="stable")[:DEPTH]]


def _reciprocal(found: Found, right: frozenset[str]) -> float:
    return next((1 / rank for rank, each in enumerate(found, 1) if each in right), 0.0)


def _gain(found: Found, right: frozenset[str]) -> float:
    gained = sum(1 / np.log2(rank + 1) for rank, each in enumerate(found, 1) if each in right)
    return float(gained / sum(1 / np.log2(rank + 1) for rank in range(1, min(len(right), DEPTH) + 1)))


if __name__ == "__main__":
    main()
