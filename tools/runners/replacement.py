"""Replacing: when an executor whose event loops are all held ends, for another to take its place.

Nothing lets a held thread go but the end of its process.  Until then no tenant's coroutine can begin there, and those
who held nothing would be refused for as long as the executor lives.
"""

from __future__ import annotations

SPENT_S = 10.0
"""How long calls that are under way beside the held loops may take to end; then they are lost as in any death of an
executor, so that one call with a long deadline does not keep all tenants waiting."""

QUIET_LOOKS = 2
"""Looks at which nothing is under way: an answer that was just made is on its way to whoever asked."""


class ReplacementPolicy:
    """Told again and again how its executor is, it says whether that is to end now."""

    def __init__(self) -> None:
        self.since_s: float | None = None
        self._quiet = 0

    def is_due(self, now_s: float, *, spent: bool, busy: bool) -> bool:
        """Say it; `spent` = no loop is to be had, `busy` = calls, answers or records are under way."""
        if not spent:
            self.since_s = None
            return False
        if self.since_s is None:
            self.since_s, self._quiet = now_s, 0
        self._quiet = 0 if busy else self._quiet + 1
        return self._quiet >= QUIET_LOOKS or now_s - self.since_s >= SPENT_S
