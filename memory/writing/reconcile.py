"""What a group of drafts does to a tenant's records: which are added, merged, superseded, quarantined or refused.

Pure: reads the index and changes nothing, so that a commit which fails has changed nothing either.  Drafts of one
group see each other, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from airside.memory.comparison.relation import has_same_stems, relation, sure_relation
from airside.memory.embedders.embedder import Vectors
from airside.memory.lineage import lineage_of, united
from airside.memory.privacy.confusables import fold_confusables
from airside.memory.records import MAX_SOURCES, Record, State, mint_record
from airside.memory.rules import Quota
from airside.memory.search.index import Statement, TenantIndex, Topic, product, statement_of, topic_of
from airside.memory.writing.quality_gate import Draft
from airside.stack.contracts.memory import Candidate, LearnReply
from airside.stack.ids import TenantId
from airside.stack.reasons import MemoryCode
from airside.stack.values import CLEARANCES, TRUSTS, Clearance

NEAR = 0.7
"""Cosine below which two texts are not compared word by word."""

COMPARED = 8
"""Records of each trust that a draft is compared with, the likest ones."""

ABOUT = 64
"""Records about one topic that a draft is compared with, those written last: what may be so at once may be many."""

LONGER = 1.1
"""A record that is offered again lives longer only if that is a tenth more: a repeat need not cost a write."""


class Drafted(NamedTuple):
    """A draft and its vector."""

    draft: Draft
    vector: Vectors


class WritePlan:
    """What is to be written, by record id, and the answer to each draft."""

    def __init__(
        self,
        index: TenantIndex,
        tenant: TenantId,
        quota: Quota,
        now_us: int,
        mint: Callable[[], str] = mint_record,
    ) -> None:
        self._index = index
        self._tenant = tenant
        self._quota = quota
        self._now_us = now_us
        self._mint = mint
        self.added: dict[str, tuple[Record, Vectors | None]] = {}
        self.changed: dict[str, tuple[Record, Vectors | None]] = {}
        self.replies: list[LearnReply] = []
        self._number = 0
        self._carriers: dict[str, int] = {}
        self._carried: dict[int, str] = {}
        self._by_digest: dict[str, dict[str, None]] = {}
        self._by_topic: dict[Topic, dict[str, None]] = {}
        self._records = len(index)
        self._bytes = index.text_bytes

    def take(self, drafted: Sequence[Drafted]) -> None:
        """Answer each draft."""
        if not drafted:
            return
        vectors = np.stack([vector for _, vector in drafted])
        there = self._index.near(vectors, NEAR, self._now_us, COMPARED)
        each_other: dict[int, list[tuple[int, float]]] = {}
        cosines = product(vectors, vectors)
        for one, other in np.argwhere(np.tril(cosines >= NEAR, -1)).tolist():
            each_other.setdefault(one, []).append((other, float(cosines[one, other])))
        for self._number, (draft, vector) in enumerate(drafted):
            near = self._near(there[self._number], each_other.get(self._number, ()))
            self.replies.append(self._one(draft, vector, near))

    def _one(self, draft: Draft, vector: Vectors, near: list[tuple[Record, float]]) -> LearnReply:
        lineage = self._lineage(draft)
        if lineage is None:
            return LearnReply(code=MemoryCode.SOURCE_GONE)
        if lineage != draft.lineage:
            draft = draft._replace(lineage=lineage)
        known = self._saying(Statement(topic_of(draft.candidate), draft.digest))
        if known is not None and known.state == "live":
            return self._met(known, draft, vector, MemoryCode.DUPLICATE)
        older: dict[str, Record] = {}
        about = self._about(draft.candidate)
        levels = [topical.sensitivity for topical in about]
        for topical in about:
            what = relation(draft.text, topical.text)
            if what == "same" and _mergeable(draft, topical):
                return self._met(topical, draft, vector, MemoryCode.MERGED)
            # Where several are so at once, one that says something else is one more of them.
            has_several = levels.count(topical.sensitivity) > 1
            if what == "contradicts" or (what != "distinct" and not has_several):
                older[topical.record_id] = topical
        for record, _ in near:
            if not _comparable(draft, record):
                continue
            if record.state == "quarantined":
                is_again = has_same_stems(fold_confusables(draft.text), fold_confusables(record.text))
                known = record if is_again and known is None else known
                continue
            sure = sure_relation(draft.text, record.text)
            if sure == "same" and _mergeable(draft, record):
                return self._met(record, draft, vector, MemoryCode.MERGED)
            if sure == "contradicts":
                older[record.record_id] = record
        return self._new(draft, vector, list(older.values()), known)

    def _lineage(self, draft: Draft) -> tuple[str, ...] | None:
        """Return what a draft derives from, None if a record its run was shown is gone.

        So what was erased between recalling and learning leaves nothing, whoever dies in between: what is not there
        needs no list of what was.  What has expired is not to live on in what was said of it either.
        """
        if not draft.candidate.shown and not draft.lineage:
            return ()
        shown = [self._present(record_id) for record_id in draft.candidate.shown]
        there = [record for record in shown if record is not None and record.expires_us > self._now_us]
        return united(lineage_of(there), draft.lineage) if len(there) == len(shown) else None

    def _present(self, record_id: str) -> Record | None:
        written = self.added.get(record_id) or self.changed.get(record_id)
        return written[0] if written is not None else self._index.records.get(record_id)

    def _new(self, draft: Draft, vector: Vectors, others: list[Record], known: Record | None) -> LearnReply:
        """Add a record beside those that say otherwise: the newer of those that are trusted most is right.

        `known` says the same and is not live: what would be kept aside again is not kept twice.
        """
        state: State = "live"
        code, by = MemoryCode.STORED, ""
        stronger = [r for r in others if TRUSTS.index(r.trust) > TRUSTS.index(draft.candidate.trust) or r.pinned]
        trusted = [r for r in others if TRUSTS.index(r.trust) >= TRUSTS.index(draft.candidate.trust)]
        newer = [r for r in trusted if r.observed_us > draft.observed_us]
        if stronger:
            state, code, by = "quarantined", MemoryCode.QUARANTINED, stronger[0].record_id
        elif newer:
            state, code, by = "superseded", MemoryCode.SUPERSEDED, newer[0].record_id
        if known is not None and _set_aside(known, draft):
            state, code, by = "quarantined", MemoryCode.QUARANTINED, ""
        if known is not None and state == known.state:
            both = msgspec.structs.replace(known, lineage=_joined(known, draft))
            if both != known and not self._grow(known, both, None, vector.nbytes):
                code = MemoryCode.QUOTA_BYTES
            return LearnReply(code=code, record_id=known.record_id)
        record = _record(self._mint(), draft, self._tenant, self._now_us, state, by)
        full = self._full(record, vector)
        if full is not None:
            return LearnReply(code=full)
        self.added[record.record_id] = (record, vector)
        self._carry(record.record_id)
        self._note(record)
        self._records += 1
        self._bytes += record.size_bytes
        if state != "live":
            return LearnReply(code=code, record_id=record.record_id)
        for other in others:
            self._change(msgspec.structs.replace(other, state="superseded", superseded_by=record.record_id), None)
        return LearnReply(code=code, record_id=record.record_id, superseded=tuple(r.record_id for r in others))

    def _met(self, record: Record, draft: Draft, vector: Vectors, code: MemoryCode) -> LearnReply:
        """Let a record that says the same carry both sources, and what both derive from.

        The text is that of the source trusted more, byte by byte: what a digest does not see is believed nobody.
        """
        c = draft.candidate
        trusted = TRUSTS.index(c.trust) - TRUSTS.index(record.trust)
        is_other = draft.text != record.text
        changes: dict[str, object] = {}
        if c.source not in record.sources and len(record.sources) < MAX_SOURCES:
            changes["sources"] = (*record.sources, c.source)
        is_longer_kept = draft.expires_us - self._now_us > LONGER * (record.expires_us - self._now_us)
        if trusted >= 0 and is_longer_kept and not record.pinned:
            changes["expires_us"] = draft.expires_us
        if set(draft.labels) - set(record.labels):
            changes["labels"] = tuple(sorted({*record.labels, *draft.labels}))
        lineage = _joined(record, draft)
        if lineage != record.lineage:
            changes["lineage"] = lineage
        is_longer = code is MemoryCode.MERGED and trusted == 0 and len(draft.text) > len(record.text)
        if is_other and not record.pinned and (trusted > 0 or is_longer):
            changes |= {"text": draft.text, "digest": draft.digest}
        if trusted > 0 and ("text" in changes or not is_other):
            changes |= {"trust": c.trust, "kind": c.kind, "importance": c.importance, "confidence": c.confidence}
            changes |= {} if record.pinned else {"expires_us": draft.expires_us}
        if changes:
            changes["met"] = record.met + 1
            if trusted >= 0:
                changes["observed_us"] = max(record.observed_us, draft.observed_us)
            changed = msgspec.structs.replace(record, **changes)
            if not self._grow(record, changed, vector if "text" in changes else None, vector.nbytes):
                is_there = code is MemoryCode.DUPLICATE and "lineage" not in changes  # but for one source more
                return LearnReply(code=code if is_there else MemoryCode.QUOTA_BYTES, record_id=record.record_id)
        return LearnReply(code=code, record_id=record.record_id)

    def _grow(self, old: Record, new: Record, vector: Vectors | None, vector_bytes: int) -> bool:
        """Note a record's new state if the quota has room for what it grows by; return whether it has."""
        grown = new.size_bytes - old.size_bytes
        if grown > 0 and self._bytes + grown + self._records * vector_bytes > self._quota.bytes:
            return False
        self._bytes += grown
        self._change(new, vector)
        return True

    def _change(self, record: Record, vector: Vectors | None) -> None:
        """Note a record's new state; with its old vector, unless it gets this draft's."""
        if vector is not None:
            self._carry(record.record_id)
        self._note(record)
        if record.record_id in self.added:
            old = self.added[record.record_id][1]
            self.added[record.record_id] = (record, old if vector is None else vector)
            return
        before = self.changed.get(record.record_id)
        old = before[1] if before is not None else self._index.vector(record.record_id)
        self.changed[record.record_id] = (record, old if vector is None else vector)

    def _full(self, record: Record, vector: Vectors) -> MemoryCode | None:
        vectors = (self._records + 1) * vector.nbytes
        if self._records + 1 > self._quota.records:
            return MemoryCode.QUOTA_RECORDS
        if self._bytes + record.size_bytes + vectors > self._quota.bytes:
            return MemoryCode.QUOTA_BYTES
        return None

    # What is there, as this plan leaves it.

    def _carry(self, record_id: str) -> None:
        """Note that a record has the vector of the draft that is looked at."""
        self._carriers[record_id] = self._number
        self._carried[self._number] = record_id

    def _note(self, record: Record) -> None:
        """Let a record that is written be found by what it says and by its topic."""
        self._by_digest.setdefault(record.digest, {})[record.record_id] = None
        if record.topic:
            self._by_topic.setdefault(topic_of(record), {})[record.record_id] = None

    def _written(self, record_id: str) -> Record:
        return (self.added.get(record_id) or self.changed[record_id])[0]

    def _saying(self, said: Statement) -> Record | None:
        """Return the record that says this; a live one, else one that a person put aside, else any."""
        noted = map(self._written, self._by_digest.get(said.digest, ()))
        mine = [r for r in noted if r.digest == said.digest and statement_of(r) == said]
        there = [r for r in self._index.saying(said, self._now_us) if r.record_id not in self.changed]
        order = {"live": 0, "quarantined": 1, "superseded": 2}
        return min((*mine, *there), key=lambda r: (order[r.state], bool(r.superseded_by)), default=None)

    def _about(self, candidate: Candidate) -> list[Record]:
        """Return the latest live records about a candidate's topic; whoever may not read them cannot supersede them."""
        if not candidate.topic:
            return []
        topics = [topic_of(candidate)._replace(sensitivity=level) for level in _levels(candidate)]
        mine = [self._written(i) for topic in topics for i in self._by_topic.get(topic, ())]
        there = [r for topic in topics for r in self._index.about(topic, self._now_us, ABOUT)]
        return [r for r in mine if r.state == "live"] + [r for r in there if r.record_id not in self.changed]

    def _near(
        self, there: Sequence[tuple[Record, float]], each_other: Sequence[tuple[int, float]]
    ) -> list[tuple[Record, float]]:
        """Return the records near a draft, of those there were and of those that carry another draft's vector.

        `each_other` are the drafts before it that are near it, by their numbers, with their cosines.
        """
        found = [(self._as_written(r), cosine) for r, cosine in there if r.record_id not in self._carriers]
        for number, cosine in each_other:
            record_id = self._carried.get(number)
            if record_id is not None and self._carriers[record_id] == number:
                found.append((self._written(record_id), cosine))
        near = [
            (r, cosine)
            for r, cosine in found
            if r.state == "live" or (r.state == "quarantined" and not r.superseded_by)
        ]
        return sorted(near, key=lambda pair: -pair[1])

    def _as_written(self, record: Record) -> Record:
        changed = self.changed.get(record.record_id)
        return changed[0] if changed is not None else record


def _joined(record: Record, draft: Draft) -> tuple[str, ...]:
    """Return the lineage of a record that a draft repeats: both, for nobody can tell who had it from whom.

    What an operator said stays what it is: whoever is trusted less and repeats it cannot have it erased.
    """
    if record.trust == "high" and draft.candidate.trust != "high":
        return record.lineage
    return united(record.lineage, tuple(mark for mark in draft.lineage if mark != record.record_id))


def _levels(candidate: Candidate) -> tuple[Clearance, ...]:
    return CLEARANCES[: CLEARANCES.index(candidate.sensitivity) + 1]


def _comparable(draft: Draft, record: Record) -> bool:
    """Whether two texts may be about one matter, as far as their subjects and topics say.

    What is more sensitive than a draft is not compared with it: it would be superseded, or told of, by whoever may not
    read it.
    """
    new, old = topic_of(draft.candidate), topic_of(record)
    return record.sensitivity in _levels(draft.candidate) and not (
        (new.subject and old.subject and new.subject != old.subject)
        or (new.topic and old.topic and new.topic != old.topic)
    )


def _mergeable(draft: Draft, record: Record) -> bool:
    """Whether two texts may become one: who erases a subject must find what was said about it, and nothing else."""
    return topic_of(draft.candidate) == topic_of(record)


def _set_aside(known: Record, draft: Draft) -> bool:
    """Whether a person put aside what a draft says: it stays so, unless somebody says it who is trusted more."""
    more = TRUSTS.index(draft.candidate.trust) > TRUSTS.index(known.trust)
    return known.state == "quarantined" and not known.superseded_by and not more


def _record(record_id: str, draft: Draft, tenant: TenantId, now_us: int, state: State, superseded_by: str) -> Record:
    c = draft.candidate
    return Record(
        record_id=record_id,
        tenant=tenant,
        text=draft.text,
        kind=c.kind,
        sources=(c.source,),
        sensitivity=c.sensitivity,
        trust=c.trust,
        subject=c.subject,
        topic=c.topic,
        importance=c.importance,
        confidence=c.confidence,
        labels=draft.labels,
        state=state,
        superseded_by=superseded_by,
        met=1,
        digest=draft.digest,
        created_us=now_us,
        observed_us=draft.observed_us,
        expires_us=draft.expires_us,
        pinned=False,
        lineage=draft.lineage,
    )
