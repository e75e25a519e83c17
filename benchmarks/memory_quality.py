"""How good retrieval is: recall, what its scores are worth, and whether a question that nothing answers gets nothing.

    python -m benchmarks.memory_quality [--calibration shipped|halves|kinds] [--data FILE ...]

A file is a kind of text, by the name before its ending; its format is in `benchmarks/data/README.md`.  Every kind is
searched as the Memory actor does, through the index with its ranking, with calibrations that have not seen what they
are measured on, but for `shipped`: that was fitted on the sets in `benchmarks/data`, and is measured fairly on others.

- `shipped`: the embedder's own, as it is installed.
- `halves` (if `--calibration` is not given): fitted on every other group of the kind, and measured on the others, and
  the other way round; both measurements are averaged by question.
- `kinds`: fitted on the other files that are given, at least two files then.

What each gives is printed; the last line has the one that was asked for.  Of each kind it says (and of a single file
some more)

- `recall_at_4`, beside that of `bm25` and `dense` alone: the mean share of a question's answers among the first four,
- `error`: the expected calibration error of the records a search returns, those of unanswerable questions included,
- `unanswerable_empty`: the share of questions that nothing answers which get nothing by default,
- `gate_recall_loss`: the share of the recall at 4 that is lost by default, for that,
- `precision_at_07`, `recall_at_07`: of the records returned by `top_k=4, min_score=0.7` the share that is right, and of
  the right ones among the first four without a threshold the share that is still returned.

A figure is null where there was nothing to count: no question of that sort, or nothing returned.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from airside.memory.embedders.embedder import Embedder, SentenceTransformerEmbedder, Vectors
from airside.memory.evaluation.fitting import ScoredQuestion, calibration_error, fit
from airside.memory.evaluation.question_sets import Group, ask, ask_to_fit, embedded, halves, read_questions
from airside.memory.records import Record
from airside.memory.rules import MemoryRules
from airside.memory.search.calibration import Calibration, load_calibration
from airside.memory.search.index import Bounds, Query, TenantIndex
from airside.stack.errors import InvalidInput
from airside.stack.ids import parse_tenant
from benchmarks.measure import machine

DATA = Path(__file__).parent / "data" / "memories.jsonl"
CALIBRATIONS = ("shipped", "halves", "kinds")
DEPTH, FIRST = 10, 4
USABLE = 0.7
"""The score that people ask for in apps."""

NOW_US = 1_000_000_000
Found = list[str]
Figures = dict[str, float | None]


class Asked(NamedTuple):
    """A question that was asked: what each search found, by its name, and what is right."""

    found: Mapping[str, Found]
    right: frozenset[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line a measurement and the summary last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", default=[DATA], help="JSONL files of documents and queries")
    parser.add_argument("--calibration", choices=CALIBRATIONS, default="halves", help="what the last line is about")
    options = parser.parse_args(arguments)
    if len({path.stem for path in options.data}) < len(options.data):
        parser.error("two files have one name: a kind of text is known by its file's")
    began = time.perf_counter()
    embedder = RememberingEmbedder(SentenceTransformerEmbedder())
    kinds = {path.stem: Kind(read_questions(path), embedder) for path in options.data}
    print(json.dumps({"embedder": embedder.name, **machine()}))
    measured: dict[str, dict[str, Figures]] = {}
    alone: dict[str, object] = {}
    for name in CALIBRATIONS:
        measured[name] = {}
        for kind in kinds:
            try:
                pairs = _calibrations(name, kind, kinds, embedder)
            except InvalidInput as error:
                if name == options.calibration:
                    parser.error(f"{kind}: {error}")
                continue
            kinds[kind].search(pairs)
            measured[name][kind] = kinds[kind].figures(pairs)
            if name == options.calibration and len(kinds) == 1:
                alone = _alone(kinds[kind], measured[name][kind])
            for line in kinds[kind].lines():
                print(json.dumps({"calibration": name, "kind": kind, **line}))
    for name, figures in measured.items():
        print(json.dumps({"calibration": name, "kinds": figures}))
    print(json.dumps({"seconds": round(time.perf_counter() - began, 1)}))
    print(json.dumps({**alone, "kinds": measured[options.calibration]}))


class RememberingEmbedder:
    """An embedder that embeds no text twice: every calibration is measured on the same ones."""

    def __init__(self, embedder: Embedder) -> None:
        self.name, self.dimension = embedder.name, embedder.dimension
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row of unit length per text."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(missing, self._embedder.embed(missing), strict=True))
        return np.stack([self._vectors[text] for text in texts])


class Kind:
    """A kind of text: its groups, their questions, and what was found of them last."""

    def __init__(self, groups: dict[str, Group], embedder: Embedder) -> None:
        self.groups = groups
        self.scored = {name: list(ask(group, embedder)) for name, group in groups.items()}
        self.to_fit = ask_to_fit(groups, embedder)
        self._embedder = embedder
        self._asked: list[Asked] = []

    def questions(self, names: Iterable[str] | None = None) -> list[ScoredQuestion]:
        """Return the questions of some groups, or of all."""
        return [each for name in (self.groups if names is None else names) for each in self.scored[name]]

    def search(self, pairs: Iterable[tuple[Calibration, Sequence[str]]]) -> None:
        """Search groups, each with its calibration."""
        self._asked = [
            asked for calibration, names in pairs for name in names for asked in self._group(name, calibration)
        ]

    def _group(self, name: str, calibration: Calibration) -> Iterable[Asked]:
        group = self.groups[name]
        index = _index(group, self._embedder, calibration)
        ids = list(group.documents)
        questions = list(group.questions.values())
        vectors = embedded((q.text for q in questions), self._embedder)
        for question, vector, scored in zip(questions, vectors, self.scored[name], strict=True):
            query = Query.of(question.text, vector)
            found = {"dense": _best(scored.scores.cosines, ids), "bm25": _best(scored.scores.bm25, ids)}
            for search, least in (("fused", 0.0), ("gated", None), ("usable", USABLE)):
                records = index.search(query, Bounds(DEPTH, least, "restricted", NOW_US))
                found[search] = [record.source for record in records]
            yield Asked(found, frozenset(question.relevant))

    def figures(self, pairs: Iterable[tuple[Calibration, Sequence[str]]]) -> Figures:
        """Return what the last line says of it."""
        errors = [(len(self.questions(names)), calibration_error(it, self.questions(names))) for it, names in pairs]
        whole, gated, usable = (self._right(search) for search in ("fused", "gated", "usable"))
        returned = sum(len(asked.found["usable"][:FIRST]) for asked in self._asked)
        silent = [not asked.found["gated"] for asked in self._asked if not asked.right]
        return {
            "recall_at_4": _rounded(self.recall("fused")),
            "bm25": _rounded(self.recall("bm25")),
            "dense": _rounded(self.recall("dense")),
            "error": _rounded(sum(count * error for count, error in errors) / sum(count for count, _ in errors)),
            "unanswerable_empty": _rounded(float(np.mean(silent)) if silent else None),
            "gate_recall_loss": _rounded(1 - self.recall("gated") / self.recall("fused") if whole and gated else None),
            "precision_at_07": _rounded(usable / returned if returned else None),
            "recall_at_07": _rounded(usable / whole if whole else None),
        }

    def lines(self) -> Iterable[dict[str, object]]:
        """Yield how much there was to search, and each search's measures."""
        yield {
            "groups": len(self.groups),
            "documents": sum(len(group.documents) for group in self.groups.values()),
            "queries": sum(len(group.questions) for group in self.groups.values()),
            "unanswerable": sum(not asked.right for asked in self._asked),
        }
        answerable = [asked for asked in self._asked if asked.right]
        for search in ("dense", "bm25", "fused", "gated"):
            pairs = [(asked.found[search], asked.right) for asked in answerable]
            values = {f"recall_at_{k}": self.recall(search, k) for k in (1, 4, 8)}
            values["mrr"] = float(np.mean([_reciprocal(*pair) for pair in pairs]))
            values["ndcg"] = float(np.mean([_gain(*pair) for pair in pairs]))
            yield {"search": search, **{name: round(value, 4) for name, value in values.items()}}

    def recall(self, search: str, k: int = FIRST) -> float:
        """Return the mean share of the relevant documents among the first k."""
        shares = [len(a.right & set(a.found[search][:k])) / len(a.right) for a in self._asked if a.right]
        return float(np.mean(shares))

    def _right(self, search: str) -> int:
        """Return how many right records are among a search's first four, of all questions together."""
        return sum(len(asked.right & set(asked.found[search][:FIRST])) for asked in self._asked)


def _alone(kind: Kind, figures: Figures) -> dict[str, object]:
    """Return what the last line says besides if there is but one file."""
    parts = ("dense", "bm25", "fused")
    found: dict[str, object] = {
        f"recall_at_{k}": {name: round(kind.recall(name, k), 4) for name in parts} for k in (FIRST, 8)
    }
    return {**found, "calibration_error": figures["error"], "gate_recall_loss": figures["gate_recall_loss"]}


def _calibrations(
    name: str, kind: str, kinds: Mapping[str, Kind], embedder: Embedder
) -> list[tuple[Calibration, Sequence[str]]]:
    """Return calibrations of a sort, and the groups of a kind that each is measured on.

    Raises `InvalidInput` if there is nothing else to fit them on.
    """
    groups = kinds[kind].groups
    if name == "shipped":
        return [(load_calibration(embedder.name), list(groups))]
    if name == "kinds":
        others = {other: each.to_fit for other, each in kinds.items() if other != kind}
        if not others:
            raise InvalidInput("there is no other file: give two at least to fit on the others")
        return [(fit(others, embedder.name), list(groups))]
    one, other = halves(groups)
    return [
        (fit({kind: ask_to_fit(groups, embedder, fitted)}, embedder.name), reported)
        for fitted, reported in ((one, other), (other, one))
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


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
