"""One tenant's records in RAM: exact hybrid search over arrays.

An exact search of one tenant's slice costs a fraction of a millisecond at 10,000 records, a LanceDB query some 10.
Whatever may not be returned is left out before anything is ranked: no filter string is ever built.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from airside.memory.embedders.embedder import Vectors
from airside.memory.records import Record
from airside.memory.rules import MemoryRules
from airside.memory.search.bm25 import Bm25Index
from airside.memory.search.calibration import Calibration, Scores
from airside.memory.search.newer_first import COMPARED, Pairs, find_replacements, newer_first
from airside.memory.search.ranking import diverse, freshness, ranks
from airside.memory.search.vocabulary import named, terms
from airside.memory.text import normal, stems
from airside.stack.contracts.memory import Candidate, Recalled
from airside.stack.values import CLEARANCES, TRUSTS, Clearance

POOL = 64
"""Records of a question that are looked at closely: the most relevant ones."""

_SAMPLE = 1_024
"""Of a question's records this many are looked at for what is high."""

_TOGETHER = 64
"""Vectors compared with all records at once: for 100,000 records that takes 26 MB."""

KEPT_QUESTIONS = 64
"""Questions of whom an index remembers what they found: a run asks the same at every step."""

_FOUND_BYTES = 8_000
"""About what one of them takes in RAM, with its question."""

_FIRST_ROOM = 16
_SPARSE = 256
_RECORD_BYTES = 1_200
"""About what a record's values take in RAM beside its texts, postings and vector."""


class Query(NamedTuple):
    """A question: its vector, of unit length, its terms, those of them that are names, and its stems for comparing."""

    vector: Vectors
    terms: Sequence[str]
    names: Sequence[str]
    stems: frozenset[str]

    @classmethod
    def of(cls, text: str, vector: Vectors) -> Query:
        """Return a text's question."""
        return cls(vector, tuple(dict.fromkeys(terms(text))), tuple(dict.fromkeys(named(text))), frozenset(stems(text)))


class Bounds(NamedTuple):
    """What may be returned, and how much: `min_score` None = the rules', else the calibration's."""

    top_k: int
    min_score: float | None
    clearance: Clearance
    now_us: int


class _Found(NamedTuple):
    """What a question found above its gate, with all that does not change with time.

    It holds as long as no record changes and none of those that might have been found expires: from `from_us`, when it
    was looked for, until `until_us`.
    """

    query: Query
    from_us: int
    until_us: int
    places: NDArray[np.intp]
    scores: Vectors
    cosines: Vectors
    bm25: Vectors
    replacements: Pairs


class Topic(NamedTuple):
    """What a record is about, as texts are compared, and how sensitive: of one there is one right answer."""

    subject: str
    topic: str
    sensitivity: Clearance


class Statement(NamedTuple):
    """What a record says, and about what: two that say the same are one."""

    topic: Topic
    digest: str


def topic_of(record: Record | Candidate) -> Topic:
    """Return what a record or candidate is about."""
    return Topic(normal(record.subject), normal(record.topic), record.sensitivity)


def statement_of(record: Record) -> Statement:
    """Return what a record says."""
    return Statement(topic_of(record), record.digest)


class TenantIndex:
    """The records of one tenant that are not gone, by id; only those that are live and have a vector are found.

    Invariants, see `check`: (1) a place is alive if and only if its record is the one under its id; (2) columns say
    what the records do; (3) topics lead to live records.
    """

    def __init__(self, dimension: int, rules: MemoryRules, calibration: Calibration) -> None:
        self._rules = rules
        self._calibration = calibration
        self._dimension = dimension
        self.records: dict[str, Record] = {}
        self._places: dict[str, int] = {}
        self._rows: list[Record | None] = []
        self._said: dict[Statement, dict[str, None]] = {}
        self._topics: dict[Topic, dict[str, None]] = {}
        self._bare: dict[str, None] = {}
        self._lexical = Bm25Index()
        self._vectors: Vectors = np.zeros((_FIRST_ROOM, self._dimension), dtype=np.float32)
        self._expires: NDArray[np.int64] = np.zeros(_FIRST_ROOM, dtype=np.int64)
        self._counts: NDArray[np.int64] = np.zeros(_FIRST_ROOM, dtype=np.int64)
        self._observed: NDArray[np.int64] = np.zeros(_FIRST_ROOM, dtype=np.int64)
        self._level: NDArray[np.int8] = np.zeros(_FIRST_ROOM, dtype=np.int8)
        self._weight: NDArray[np.float32] = np.zeros((_FIRST_ROOM, 3), dtype=np.float32)
        self._found: dict[tuple[int, int, float | None, Clearance], _Found] = {}
        self.text_bytes = 0

    def __len__(self) -> int:
        return len(self.records)

    # Changing.

    def put(self, record: Record, vector: Vectors | None) -> None:
        """Add a record or replace the one under its id; without a vector it is kept, and found by nobody."""
        self.forget_questions()
        if record.record_id in self.records:
            self.remove([record.record_id])
        place = len(self._rows)
        if place == len(self._vectors):
            self._grow()
        self._rows.append(record)
        self._places[record.record_id] = place
        self.records[record.record_id] = record
        if vector is None:
            self._bare[record.record_id] = None
        self.text_bytes += record.size_bytes
        is_found = record.state == "live" and vector is not None
        self._lexical.add(terms(record.text) if is_found else ())
        self._vectors[place] = 0 if vector is None else vector
        self._expires[place] = record.expires_us if is_found else 0
        # What a person put aside is found by nobody, but what says the same is compared with it.
        is_aside = record.state == "quarantined" and not record.superseded_by and vector is not None
        self._counts[place] = record.expires_us if is_found or is_aside else 0
        self._observed[place] = record.observed_us
        self._level[place] = CLEARANCES.index(record.sensitivity)
        half_life_s = self._rules.kind_of(record.kind).half_life_s
        self._weight[place] = (half_life_s, record.importance, TRUSTS.index(record.trust))
        topic = topic_of(record)
        self._said.setdefault(Statement(topic, record.digest), {})[record.record_id] = None
        if record.state == "live" and record.topic:
            self._topics.setdefault(topic, {})[record.record_id] = None

    def _grow(self) -> None:
        for name in ("_vectors", "_expires", "_counts", "_observed", "_level", "_weight"):
            old = getattr(self, name)
            new = np.zeros((2 * len(old), *old.shape[1:]), dtype=old.dtype)  # what nobody writes to takes no memory
            new[: len(old)] = old
            setattr(self, name, new)

    def remove(self, record_ids: Iterable[str]) -> None:
        """Forget records; at once nobody finds them."""
        self.forget_questions()
        for record_id in record_ids:
            record = self.records.pop(record_id, None)
            if record is None:
                continue
            self._bare.pop(record_id, None)
            place = self._places.pop(record_id)
            self._rows[place] = None
            self._expires[place] = self._counts[place] = 0
            self._vectors[place] = 0
            self.text_bytes -= record.size_bytes
            _strike(self._said, statement_of(record), record_id)
            _strike(self._topics, topic_of(record), record_id)

    def hide(self, record_ids: Iterable[str]) -> None:
        """Let nobody find records that are about to go."""
        self.forget_questions()
        for record_id in record_ids:
            self._expires[self._places[record_id]] = 0

    def forget_questions(self) -> None:
        """Forget what was asked, and what that found."""
        self._found.clear()

    @property
    def sparse(self) -> bool:
        """Whether most of it are places of records that are gone."""
        return len(self._rows) > _SPARSE and len(self._rows) > 2 * len(self.records)

    def rebuilt(self) -> TenantIndex:
        """Return the same built anew: of what was removed nothing is left in it."""
        fresh = TenantIndex(self._dimension, self._rules, self._calibration)
        for record_id, record in self.records.items():
            fresh.put(record, self.vector(record_id))
        return fresh

    # Reading.

    def vector(self, record_id: str) -> Vectors | None:
        """Return a record's vector, None if it has none yet."""
        return None if record_id in self._bare else self._vectors[self._places[record_id]].copy()

    def pairs(self) -> list[tuple[Record, Vectors | None]]:
        """Return every record and its vector."""
        return [(record, self.vector(record_id)) for record_id, record in self.records.items()]

    def unembedded(self, most: int) -> list[Record]:
        """Return records that have no vector yet."""
        return [self.records[record_id] for record_id in islice(self._bare, most)]

    def saying(self, said: Statement, now_us: int) -> list[Record]:
        """Return the records that say this, live or not, none of them expired."""
        return self._current(self._said.get(said, {}), now_us)

    def about(self, topic: Topic, now_us: int, most: int) -> list[Record]:
        """Return the live records about a topic, at most so many, those put last first."""
        return self._current(islice(reversed(self._topics.get(topic, {})), most), now_us)

    def _current(self, record_ids: Iterable[str], now_us: int) -> list[Record]:
        return [record for i in record_ids if (record := self.records[i]).expires_us > now_us]

    def near(self, vectors: Vectors, cosine: float, now_us: int, most: int) -> list[list[tuple[Record, float]]]:
        """Return, for each vector, the records that are at least so like it, live or put aside, with their cosines.

        `vectors` has the shape (questions, dimension).  They are the `most` likest of those trusted as far as each
        other, so that many of one kind hide none of another.
        """
        count = len(self._rows)
        counts, trusts = self._counts[:count] > now_us, self._weight[:count, 2]
        found: list[list[tuple[Record, float]]] = []
        for at in range(0, len(vectors), _TOGETHER):  # a product of matrices reads the records once for all of them
            block = product(vectors[at : at + _TOGETHER], self._vectors[:count])
            is_near = np.asarray((block >= cosine) & counts, dtype=bool)
            for cosines, near, is_any in zip(block, is_near, np.any(is_near, axis=1).tolist(), strict=True):
                if not is_any:
                    found.append([])
                    continue
                places = np.flatnonzero(near)
                places = places[np.argsort(-cosines[places], kind="stable")]
                best = [place for level in range(len(TRUSTS)) for place in places[trusts[places] == level][:most]]
                found.append([(r, float(cosines[i])) for i in best if (r := self._rows[int(i)]) is not None])
        return found

    def search(self, query: Query, bounds: Bounds) -> tuple[Recalled, ...]:
        """Return what is relevant, best first, and nothing that may not be returned."""
        if bounds.top_k <= 0:
            return ()
        # By the question itself, which whoever asks again still has.  What is kept holds it: no other gets its id.
        key = (id(query), bounds.top_k, bounds.min_score, bounds.clearance)
        found = self._found.get(key)
        if found is None or not found.from_us <= bounds.now_us < found.until_us:
            found = self._look(query, bounds)
            if found is None:
                return ()
            if len(self._found) >= KEPT_QUESTIONS:
                del self._found[next(iter(self._found))]
            self._found[key] = found
        places, scores = found.places, found.scores
        if not len(places):
            return ()
        ages_s = ((bounds.now_us - self._observed[places]) / 1e6).astype(np.float32)
        half_life, importance, trust = self._weight[places].T
        ordered = ranks(scores, freshness(ages_s, half_life), importance, trust, self._rules.weights)
        ordered = newer_first(ordered, found.replacements)
        chosen = diverse(ordered, self._vectors[places], bounds.top_k, self._rules.weights.diversity)
        return tuple(
            _recalled(self._rows[int(places[i])], scores[i], found.cosines[i], found.bm25[i], ordered[i], ages_s[i])
            for i in chosen
        )

    def _look(self, query: Query, bounds: Bounds) -> _Found | None:
        """Look through all records for what is relevant; None if there is none that may be returned."""
        count = len(self._rows)
        may = (self._expires[:count] > bounds.now_us) & (self._level[:count] <= CLEARANCES.index(bounds.clearance))
        places = np.flatnonzero(may)
        if not len(places):
            return None
        until_us = int(self._expires[places].min())
        bm25, most, names = self._lexical.scores(query.terms, query.names)
        # The whole product is faster than one of chosen rows, which would be copied first.
        cosines = self._vectors[:count] @ query.vector
        if len(places) < count:  # what may not be returned does not count for the scores of what may
            cosines, bm25, names = cosines[places], bm25[places], names[places]
        found = Scores(cosines, bm25, most, names, bool(query.names))
        relevance = self._calibration.relevance(found)
        sample = np.sort(relevance[:: max(1, len(relevance) // _SAMPLE)])
        pool = _best(relevance, sample, max(POOL, 2 * bounds.top_k))
        scores, answered = self._calibration.chances(found, relevance, pool)
        least = next((least for least in (bounds.min_score, self._rules.min_score) if least is not None), None)
        if least is None:  # whoever names no threshold gets nothing for a question that nothing answers
            least = self._calibration.floor if answered >= self._calibration.gate else np.inf
        passed = scores >= least
        pool, scores = pool[passed], scores[passed]
        chosen = places[pool]
        records = [record for place in chosen[:COMPARED] if (record := self._rows[int(place)]) is not None]
        replacements = find_replacements(records, self._vectors[chosen[:COMPARED]], query.stems)
        return _Found(query, bounds.now_us, until_us, chosen, scores, cosines[pool], bm25[pool], replacements)

    @property
    def size_bytes(self) -> int:
        """About how much RAM it takes."""
        kept = _RECORD_BYTES * len(self._rows) + _FOUND_BYTES * len(self._found)
        return self._vectors.nbytes + 3 * self.text_bytes + self._lexical.size_bytes + kept

    def check(self) -> None:
        """Raise `AssertionError` naming the invariant that does not hold."""
        for place, record in enumerate(self._rows):
            if record is None:
                assert self._expires[place] == 0, "1: a place without a record is alive"
                continue
            assert self.records.get(record.record_id) is record and self._places[record.record_id] == place, "1"
            assert self._level[place] == CLEARANCES.index(record.sensitivity), "2: level"
            assert self._expires[place] in (0, record.expires_us), "2: end"
            assert record.state == "live" or self._expires[place] == 0, "2: what is not live is found"
        for found in self._topics.values():
            assert all(self.records[i].state == "live" for i in found), "3"


def product(one: Vectors, other: Vectors) -> Vectors:
    """Return the cosines of each of one's vectors with each of the other's; on one thread.

    Several take four times the CPU time, waiting for each other, and go on waiting for the next product.
    """
    with _blas().limit(limits=1):
        cosines: Vectors = one @ other.T
        return cosines


@cache
def _blas() -> ThreadpoolController:
    """Return what says how many threads numpy's products have."""
    return ThreadpoolController().select(user_api="blas")


def _strike(found: dict[Any, dict[str, None]], key: Statement | Topic, record_id: str) -> None:
    ids = found.get(key, {})
    ids.pop(record_id, None)
    if not ids:
        found.pop(key, None)


def _best(scores: Vectors, sample: Vectors, most: int) -> NDArray[np.intp]:
    """Return the places of the highest scores, the highest first; `sample` is some of them in order."""
    if len(scores) <= most:
        chosen = np.arange(len(scores))
    else:
        # Most are far below the best: only those that a sample shows to be among the higher ones are looked at.
        few = min(len(sample), 2 + 4 * most * len(sample) // len(scores))
        chosen = np.flatnonzero(scores >= sample[-few])
        if len(chosen) < most:
            chosen = np.arange(len(scores))
        if len(chosen) > most:
            chosen = chosen[np.argpartition(-scores[chosen], most)[:most]]
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _recalled(record: Record | None, score: float, cosine: float, bm25: float, rank: float, age_s: float) -> Recalled:
    assert record is not None
    return Recalled(
        record_id=record.record_id,
        text=record.text,
        score=float(score),
        source="; ".join(record.sources),
        sensitivity=record.sensitivity,
        kind=record.kind,
        created_us=record.created_us,
        expires_us=record.expires_us,
        cosine=float(cosine),
        bm25=float(bm25),
        rank=float(rank),
        age_s=float(age_s),
        trust=record.trust,
        importance=record.importance,
        subject=record.subject,
        labels=record.labels,
        met=record.met,
    )
