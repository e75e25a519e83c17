"""For how long keys of an issuer are believed, and when they have to be fetched.  Who fetches them is a shell's matter.

Rules:

1. Keys are believed from the moment at which their fetch began, for `keys_max_age_s`, and until a later fetch succeeds:
   then its keys are, and no others.
2. They are due at half of `refresh_s`, beside whatever goes on, and at `refresh_s` what asks for them waits; unless a
   fetch has just failed: then the known ones go on, and the issuer is asked again meanwhile.
3. A key id that is not known has them fetched at once, and what asks waits.  Fetches of one issuer are at least
   `MIN_BETWEEN_S` apart, whatever came of the last one: what anybody can send makes no more of them than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum

from airside.stack.issuers import OidcIssuer
from airside.stack.security.key_sets import KeySet

MIN_BETWEEN_S = 10
"""A key that was published a moment after a fetch is known so much later; issuers publish keys before they use them."""

FAILURE_KEPT_S = 60
"""So long after a fetch that failed nobody waits for the next one where keys are known."""


class Need(Enum):
    """Whether keys have to be fetched before a token can be checked."""

    NONE = "none"  # They are known, and fresh.
    SOON = "soon"  # They go on meanwhile.
    NOW = "now"  # Without them the token is refused, or a key might be believed that was taken back.


class IssuerKeys:
    """The keys of the entry `name`; `clock_s` are seconds of a clock that nobody sets back."""

    def __init__(self, name: str, entry: OidcIssuer, clock_s: Callable[[], float]) -> None:
        self.name = name
        self.entry = entry
        self.problem = "they were not fetched yet"
        self._clock_s = clock_s
        self._keys: KeySet | None = None
        self._fetched_s = self._begun_s = self._failed_s = -math.inf

    def believed(self) -> KeySet | None:
        """Return the keys that are believed now; None if they are too old, or none were ever had."""
        return self._keys if self._age_s() < self.entry.keys_max_age_s else None

    def need(self, kid: object) -> Need:
        """Say whether keys have to be fetched for a token that names this key."""
        keys, age_s = self.believed(), self._age_s()
        if keys is None or kid not in keys.keys:
            return Need.NOW
        if age_s >= self.entry.refresh_s and self._since(self._failed_s) >= FAILURE_KEPT_S:
            return Need.NOW
        return Need.SOON if age_s >= self.entry.refresh_s / 2 else Need.NONE

    def may_fetch(self) -> bool:
        """Whether the last fetch began long enough ago."""
        return self._since(self._begun_s) >= MIN_BETWEEN_S

    def begin(self) -> None:
        """Take in that a fetch begins."""
        self._begun_s = self._clock_s()

    def take(self, keys: KeySet) -> bool:
        """Take the keys of the fetch that began last; return whether they are others than before."""
        self._fetched_s, self._failed_s, self.problem = self._begun_s, -math.inf, ""
        if self._keys is not None and self._keys.digest == keys.digest:
            return False  # the same set goes on, and with it what was checked with it
        self._keys = keys
        return True

    def fail(self, problem: str) -> None:
        """Take in that the fetch that began last failed."""
        self._failed_s, self.problem = self._clock_s(), problem

    def _age_s(self) -> float:
        return self._since(self._fetched_s)

    def _since(self, then_s: float) -> float:
        """Return how long ago it was; a time that is yet to come is too long ago to be believed."""
        now_s = self._clock_s()
        return now_s - then_s if then_s <= now_s else math.inf


def keys_of(issuers: Mapping[str, OidcIssuer], clock_s: Callable[[], float]) -> list[IssuerKeys]:
    """Return what holds the keys of each entry, as yet without any."""
    return [IssuerKeys(name, entry, clock_s) for name, entry in issuers.items()]
