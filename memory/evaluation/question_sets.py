"""Sets of questions whose answers are known, as JSONL: what calibrations are fitted on and quality is measured with.

    {"type": "document", "group": "t1", "id": "d1", "text": "..."}
    {"type": "query", "group": "t1", "id": "q1", "text": "...", "relevant": ["d1"]}

A group is a tenant: its queries are asked of its documents.  Lines may come in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from airside.memory.embedders.embedder import Embedder, Vectors
from airside.memory.evaluation.fitting import ScoredQuestion, calibration_error, fit
from airside.memory.search.bm25 import Bm25Index
from airside.memory.search.calibration import Calibration, Scores
from airside.memory.text import named, terms
from airside.stack.errors import InvalidInput
from airside.stack.values import Value

BATCH = 32


class Document(Value, tag="document", tag_field="type"):
    """A record of a tenant."""

    group: str
    id: str
    text: str


class Question(Value, tag="query", tag_field="type"):
    """A question, and the ids of the documents that answer it."""

    group: str
    id: str
    text: str
    relevant: tuple[str, ...]


@dataclass(slots=True)
class Group:
    """A tenant's documents and questions, by id."""

    documents: dict[str, Document] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)


def read_questions(path: Path) -> dict[str, Group]:
    """Return a file's groups by name; raise `InvalidInput` naming the line that is none, or what is missing."""
    groups: dict[str, Group] = {}
    decode = msgspec.json.Decoder(Document | Question).decode
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = decode(line)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{path}, line {number}: {error}") from None
        group = groups.setdefault(item.group, Group())
        known: dict[str, Document] | dict[str, Question]
        known = group.documents if isinstance(item, Document) else group.questions
        if item.id in known:
            raise InvalidInput(f"{path}, line {number}: {item.id!r} comes twice in group {item.group!r}")
        known[item.id] = item
    for name, group in groups.items():
        for question in group.questions.values():
            missing = set(question.relevant) - group.documents.keys()
            if missing or not question.relevant:
                what = f"no document {min(missing)!r}" if missing else "no relevant document"
                raise InvalidInput(f"{path}: query {question.id!r} of group {name!r} has {what}")
    if not any(group.questions for group in groups.values()):
        raise InvalidInput(f"{path}: there are no queries")
    return groups


def embedded(texts: Iterable[str], embedder: Embedder) -> Vectors:
    """Return one vector a text."""
    every = list(texts)
    parts = [embedder.embed(every[at : at + BATCH]) for at in range(0, len(every), BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, embedder.dimension), dtype=np.float32)


def ask(group: Group, embedder: Embedder) -> Iterator[ScoredQuestion]:
    """Ask a group's questions; yield how its documents score, in their order, and which are right."""
    ids = list(group.documents)
    vectors = embedded((d.text for d in group.documents.values()), embedder)
    lexical = Bm25Index()
    for document in group.documents.values():
        lexical.add(terms(document.text))
    questions = list(group.questions.values())
    for question, vector in zip(questions, embedded((q.text for q in questions), embedder), strict=True):
        matches = lexical.scores(terms(question.text), named(question.text))
        yield ScoredQuestion(Scores(vectors @ vector, *matches), np.isin(ids, question.relevant))


def calibrated(path: Path, embedder: Embedder, name: str, *, relative: bool = False) -> Calibration:
    """Return a calibration fitted on a whole set; its error is that of either half, fitted on the other."""
    groups = read_questions(path)
    asked = {group: list(ask(groups[group], embedder)) for group in groups}
    whole = [each for group in asked.values() for each in group]
    errors = 0.0
    for fitted, reported in (split := halves(groups)), split[::-1]:
        others = [each for group in reported for each in asked[group]]
        half = fit([each for group in fitted for each in asked[group]], name, path.name, relative=relative)
        errors += len(others) * calibration_error(half, others)
    return msgspec.structs.replace(
        fit(whole, name, path.name, relative=relative), error=round(errors / len(whole), 4), questions=len(whole)
    )


def halves(groups: dict[str, Group]) -> tuple[list[str], list[str]]:
    """Split the groups in two, every other one, by name: what is fitted on one is measured on the other.

    Raises `InvalidInput` if there is but one group: its questions would be measured with what they were fitted on.
    """
    names = sorted(name for name, group in groups.items() if group.questions)
    if len(names) < 2:
        raise InvalidInput("the questions are all of one group: at least two are needed to fit and to measure")
    return names[::2], names[1::2]
