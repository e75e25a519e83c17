"""What memory is asked and offered, what it answers, and how sensitive that is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from airside.stack.ids import TenantId
from airside.stack.reasons import MemoryCode
from airside.stack.values import CLEARANCES, UNTRUSTED, Clearance, Spoken, Trust, Value

MAX_SHOWN = 128
"""Records that a run may have been shown for what it offers to be kept: of more, what it derives from is not kept
track of.  A run is shown at most four for each decision, and mostly the same ones again."""

Only = Literal["", "own", "repeats"]
"""What an order to erase takes of what derives from its target: "" all; "own" nothing; "repeats" what repeats it."""


class Recalled(Value, array_like=True):
    """A memory record an agent is shown, with why it was chosen.

    `score` estimates the probability that the record is relevant, in [0, 1]; `cosine` and `bm25` are what it was
    estimated from.  `rank` is what the records are ordered by: the score, less for what is old, unimportant or of a
    source that is trusted little.  Times are UTC microseconds; `age_s` are seconds.
    `met` = how often it was changed by what was learned: one that has another number may say something else.
    """

    record_id: str
    text: str
    score: float
    source: str
    sensitivity: str
    kind: str
    created_us: int
    expires_us: int
    cosine: float = 0.0
    bm25: float = 0.0
    rank: float = 0.0
    age_s: float = 0.0
    trust: Trust = "low"
    importance: float = 0.5
    subject: str = ""
    labels: tuple[str, ...] = ()
    met: int = 0


class Warrant(Value, array_like=True):
    """By what right memory is asked: the identity of a run's owner with its proof, or the grant of a call."""

    identity: bytes = b""
    proof: str = ""
    run_id: str = ""
    grant: bytes = b""


NO_WARRANT = Warrant()
"""Good enough in one process; a Memory actor answers nothing to it."""


class RecallRequest(Value, array_like=True):
    """What memory is asked: at most `top_k` records of one tenant, at or above `min_score`, at or below `clearance`.

    `min_score` is a probability; with None a question that nothing answers gets nothing, and any other what is best.
    """

    tenant: TenantId
    query: str
    clearance: Clearance
    top_k: int = 4
    min_score: float | None = None
    warrant: Warrant = NO_WARRANT


class RecallReply(Value, array_like=True):
    """What memory found, best first; or why it could not look."""

    records: tuple[Recalled, ...] = ()
    error: str = ""


class Candidate(Spoken, array_like=True):
    """Something memory is offered.

    `source` says where it comes from and `trust` how far that is trusted.  `ttl_s` is how long it may stay (None: as
    long as its kind does).  `subject` is whom or what it is about, which can be erased as one; of two records of one
    subject and `topic` the newer is right.  `observed_us` is when it was so (0: now).  `confidence` and `importance`
    are in [0, 1].  `shown` are the ids of the records that whoever says it was shown: who erases one of them reaches
    what is kept of this too, and it is not kept if one of them is gone.
    """

    tenant: TenantId
    text: str
    kind: str
    source: str
    sensitivity: Clearance = "internal"
    ttl_s: int | None = None
    trust: Trust = "low"
    subject: str = ""
    topic: str = ""
    importance: float = 0.5
    confidence: float = 1.0
    observed_us: int = 0
    warrant: Warrant = NO_WARRANT
    shown: tuple[str, ...] = ()


class LearnReply(Value, array_like=True):
    """What memory did with a candidate: a `MemoryCode`, the record it became or met, and those it superseded."""

    code: str
    record_id: str = ""
    superseded: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether memory now holds what the candidate says, durably."""
        return self.code in (MemoryCode.STORED, MemoryCode.MERGED, MemoryCode.DUPLICATE)


class MemoryStanding(Value):
    """How many records are kept of a tenant, by what they are, and the bytes of their texts."""

    live: int = 0
    superseded: int = 0
    quarantined: int = 0
    pinned: int = 0
    text_bytes: int = 0


def sensitivity_of(labels: Collection[str]) -> Clearance:
    """Return the highest sensitivity a run has read: what it learned is as sensitive as that."""
    return next((level for level in reversed(CLEARANCES) if level in labels), "internal")


def labels_of(records: Iterable[Recalled]) -> tuple[str, ...]:
    """Return the labels of a run that was shown records.

    Their sensitivity where it is above everybody's, what they hold, and that an outsider may have written one, unless
    all of them are an operator's.
    """
    found: set[str] = set()
    for record in records:
        found |= {record.sensitivity} & {"confidential", "restricted"} | set(record.labels)
        if record.trust != "high":
            found.add(UNTRUSTED)
    return tuple(sorted(found))
