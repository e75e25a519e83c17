"""Used grants: what an executor has taken, for as long as it could be presented again."""

from __future__ import annotations

import heapq

from airside.stack.security.grants import GRANT_LIFE_US, Grant


class UsedGrants:
    """The nonces of used grants, each until it has expired.

    Should the clock go back, one that was forgotten as expired may have been used: none that expires as early is taken
    any more.  If that leaves none that is granted now, `is_void` says so: then the executor must be another one.
    """

    def __init__(self) -> None:
        self._nonces: set[bytes] = set()
        self._ends: list[tuple[int, bytes]] = []
        self._forgotten_us = 0

    def __contains__(self, grant: Grant) -> bool:
        return grant.nonce in self._nonces

    def has_expired(self, grant: Grant, now_us: int) -> bool:
        """Whether a grant is too old, or may have been used before the clock went back."""
        return grant.expires_us <= max(now_us, self._forgotten_us)

    def is_void(self, now_us: int) -> bool:
        """Whether every grant that is given now would be taken to be expired: the clock was ahead, and is no more."""
        return self._forgotten_us > now_us + GRANT_LIFE_US

    def add(self, grant: Grant, now_us: int) -> None:
        """Take a grant as used, and forget those that have expired."""
        self._nonces.add(grant.nonce)
        heapq.heappush(self._ends, (grant.expires_us, grant.nonce))
        while self._ends and self._ends[0][0] <= now_us:
            self._forgotten_us, nonce = heapq.heappop(self._ends)
            self._nonces.discard(nonce)
