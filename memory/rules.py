"""What a stack's memory keeps, for how long, and how it weighs what it finds: `App(memory=MemoryRules(...))`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from airside.stack.calling import explain_misuse
from airside.stack.errors import InvalidConfig

DAY_S = 86_400
MAX_TTL_S = 10 * 366 * DAY_S

PersonalData = Literal["label", "redact", "refuse"]


@explain_misuse()
@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How long records of a kind stay, and after how long they count half as fresh."""

    ttl_s: int
    half_life_s: int


KINDS: Mapping[str, Kind] = {
    "fact": Kind(ttl_s=365 * DAY_S, half_life_s=180 * DAY_S),
    "preference": Kind(ttl_s=365 * DAY_S, half_life_s=180 * DAY_S),
    "decision": Kind(ttl_s=180 * DAY_S, half_life_s=90 * DAY_S),
    "event": Kind(ttl_s=90 * DAY_S, half_life_s=30 * DAY_S),
    "answer": Kind(ttl_s=30 * DAY_S, half_life_s=14 * DAY_S),
    "result": Kind(ttl_s=7 * DAY_S, half_life_s=3 * DAY_S),
}
"""What an app's records are unless it says otherwise: what somebody is or wants lasts, what a tool said does not."""


@explain_misuse()
@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one tenant may keep: records, and bytes of texts and vectors."""

    records: int = 100_000
    bytes: int = 512 * 1024 * 1024


@explain_misuse()
@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much of its rank a record loses for being old, unimportant or of a source trusted little: at most so much.

    They are small: in measurements here and elsewhere a bonus of 0.1 for freshness cost 7 to 10 % of the right answers.
    `diversity` is how much a record loses for being like one that is ranked before it.
    """

    freshness: float = 0.03
    importance: float = 0.03
    trust: float = 0.1
    diversity: float = 1.0


@explain_misuse()
@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRules:
    """What memory keeps and how it ranks; `quotas` are by tenant, `quota` everybody else's.

    `kinds` gives every kind its end; a candidate of another kind must bring a `ttl_s`.  `personal_data` says what
    becomes of text with addresses, telephone or account numbers: labelled, redacted before it is kept, or refused.
    `min_score` is the probability below which nothing is recalled where nobody says another (None: a question that
    nothing here seems to answer gets nothing, and any other what is best, however improbable).  `hot_bytes` is how
    much of the tenants' records is held in RAM at once; `sweep_s` is the time between two sweeps of what has expired.
    """

    kinds: Mapping[str, Kind] = field(default_factory=lambda: dict(KINDS))
    personal_data: PersonalData = "label"
    quota: Quota = field(default_factory=Quota)
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    min_confidence: float = 0.3
    min_score: float | None = None
    hot_bytes: int = 2 * 1024**3
    sweep_s: float = 300.0

    def checked(self) -> MemoryRules:
        """Return the rules; raise `InvalidConfig` naming the field that is not what it must be."""
        if self.personal_data not in get_args(PersonalData):
            raise InvalidConfig(f"memory: personal_data {self.personal_data!r}: one of {get_args(PersonalData)}")
        for name, kind in self.kinds.items():
            if not (0 < kind.ttl_s <= MAX_TTL_S and kind.half_life_s > 0):
                raise InvalidConfig(f"memory: kind {name}: ttl_s within 1 and {MAX_TTL_S}, half_life_s above 0")
        for name in Weights.__dataclass_fields__:
            if not 0 <= getattr(self.weights, name) <= 1:
                raise InvalidConfig(f"memory: weight {name} must be within 0 and 1")
        for tenant, quota in {"": self.quota, **self.quotas}.items():
            if quota.records < 0 or quota.bytes < 0:
                raise InvalidConfig(f"memory: the quota of {tenant or 'all'} must not be negative")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise InvalidConfig(f"memory: min_score {self.min_score}: a probability, within 0 and 1, or None")
        if not (0 <= self.min_confidence <= 1 and self.hot_bytes > 0 and self.sweep_s > 0):
            raise InvalidConfig("memory: min_confidence within 0 and 1; hot_bytes and sweep_s above 0")
        return self

    def quota_of(self, tenant: str) -> Quota:
        """Return what a tenant may keep."""
        return self.quotas.get(tenant, self.quota)

    def kind_of(self, kind: str) -> Kind:
        """Return a kind's end and half-life; one that is no more in the rules ages as events do."""
        return self.kinds.get(kind, KINDS["event"])
