"""Sets of questions whose answers are known, as JSONL: what calibrations are fitted on and quality is measured with.

    {"type": "document", "group": "t1", "id": "d1", "text": "..."}
    {"type": "query", "group": "t1", "id": "q1", "text": "...", "relevant": ["d1"]}

A group is a tenant: its queries are asked of its documents.  `relevant` is empty for a question that none of them
answers.  Lines may come in any order.  A file is a kind of text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from airside.memory.embedders.embedder import Embedder, Vectors
from airside.memory.evaluation.fitting import FEWEST, ScoredQuestion, calibration_error, fit
from airside.memory.search.bm25 import Bm25Index
from airside.memory.search.calibration import Calibration, Scores
from airside.memory.search.vocabulary import named, terms
from airside.stack.errors import InvalidInput
from airside.stack.values import Value

BATCH = 32

Kind = list[ScoredQuestion]
"""The questions of one kind of text."""


class Document(Value, tag="document", tag_field="type"):
    """A record of a tenant."""

    group: str
    id: str
    text: str


class Question(Value, tag="query", tag_field="type"):
    """A question, and the ids of the documents that answer it: none, if nothing does."""

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
            if missing:
                raise InvalidInput(f"{path}: query {question.id!r} of group {name!r} has no document {min(missing)!r}")
        if group.questions and not group.documents:
            raise InvalidInput(f"{path}: group {name!r} has queries and no documents")
    if not any(question.relevant for group in groups.values() for question in group.questions.values()):
        raise InvalidInput(f"{path}: there are no queries with relevant documents")
    return groups


def embedded(texts: Iterable[str], embedder: Embedder) -> Vectors:
    """Return one vector a text."""
    every = list(texts)
    parts = [embedder.embed(every[at : at + BATCH]) for at in range(0, len(every), BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, embedder.dimension), dtype=np.float32)


def ask(group: Group, embedder: Embedder, questions: Iterable[Question] | None = None) -> Iterator[ScoredQuestion]:
    """Ask a group its questions, or others; yield how its documents score, in their order, and which are right."""
    ids = list(group.documents)
    vectors = embedded((d.text for d in group.documents.values()), embedder)
    lexical = Bm25Index()
    for document in group.documents.values():
        lexical.add(terms(document.text))
    asked = list(group.questions.values() if questions is None else questions)
    for question, vector in zip(asked, embedded((q.text for q in asked), embedder), strict=True):
        names = named(question.text)
        matches = lexical.scores(terms(question.text), names)
        yield ScoredQuestion(Scores(vectors @ vector, *matches, bool(names)), np.isin(ids, question.relevant))


def ask_to_fit(groups: Mapping[str, Group], embedder: Embedder, names: Iterable[str] | None = None) -> Kind:
    """Return the questions of groups, asked.

    Where too few of them are such that nothing answers, each group is asked the other groups' too.
    """
    chosen = [name for name in (groups if names is None else names) if groups[name].questions]
    found = [each for name in chosen for each in ask(groups[name], embedder)]
    if sum(not each.relevant.any() for each in found) < FEWEST:
        for name in chosen:
            found += ask(groups[name], embedder, _of_others(groups, name))
    return found


def _of_others(groups: Mapping[str, Group], name: str) -> list[Question]:
    """Return some questions of the other groups, as ones that nothing here answers."""
    others = [q for other, group in groups.items() if other != name for q in group.questions.values() if q.relevant]
    return [msgspec.structs.replace(each, relevant=()) for each in others[:: max(1, len(others) // FEWEST)]]


def kinds_of(paths: Sequence[Path], embedder: Embedder) -> dict[str, Kind]:
    """Return the questions of files, asked, by kind: the file's name.

    Raises `InvalidInput` for a file that is none, and for two of one name.
    """
    groups = {path.stem: read_questions(path) for path in paths}
    if len(groups) < len(paths):
        raise InvalidInput("two files have one name: a kind of text is known by its file's")
    return {kind: ask_to_fit(of, embedder) for kind, of in groups.items()}


def calibrated(paths: Sequence[Path], embedder: Embedder, name: str, *, relative: bool = False) -> Calibration:
    """Return a calibration fitted on whole files, each of which is a kind of text.

    Its error is that of each kind by a calibration fitted on the others; of a single one, that of either half of its
    groups by the other.
    """
    kinds = kinds_of(paths, embedder)
    whole = fit(kinds, name, relative=relative)
    parts = kinds
    if len(kinds) == 1:
        of = read_questions(paths[0])
        parts = {str(at): ask_to_fit(of, embedder, names) for at, names in enumerate(halves(of))}
    errors = 0.0
    for part, asked in parts.items():
        others = {other: each for other, each in parts.items() if other != part}
        errors += len(asked) * calibration_error(fit(others, name, relative=relative), asked)
    count = sum(map(len, parts.values()))
    return msgspec.structs.replace(whole, error=round(errors / count, 4), questions=count)


def halves(groups: Mapping[str, Group]) -> tuple[list[str], list[str]]:
    """Split the groups in two, every other one, by name: what is fitted on one is measured on the other.

    Raises `InvalidInput` if there is but one group: its questions would be measured with what they were fitted on.
    """
    names = sorted(name for name, group in groups.items() if group.questions)
    if len(names) < 2:
        raise InvalidInput("the questions are all of one group: at least two are needed to fit and to measure")
    return names[::2], names[1::2]
