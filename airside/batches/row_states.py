"""How each row of a batch stands, in a few bytes a row: what the parts say when a batch is taken up again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from airside.batches.parts import read_parts
from airside.stack.reasons import ReasonCode, RunStatus

Standing = Literal["none", "completed", "may_pass", "final", "unsure"]
_STANDINGS: tuple[Standing, ...] = ("none", "completed", "may_pass", "final", "unsure")

_MAY_PASS = frozenset(
    {
        *(ReasonCode.BUDGET_EXHAUSTED, ReasonCode.DEADLINE_EXCEEDED, ReasonCode.APPROVAL_EXPIRED),
        *(ReasonCode.SWITCHED_OFF, ReasonCode.ADMISSION_REJECTED, ReasonCode.AUTH_EXPIRED),
        *(ReasonCode.RESOURCE_UNAVAILABLE, ReasonCode.POLICY_ERROR),
        *(ReasonCode.TENANT_UNKNOWN, ReasonCode.PRINCIPAL_UNKNOWN),
    }
)
"""Reasons, beside every failure, that are not there for ever: budgets are filled up, people get listed."""


WITHDRAWN = "withdrawn with its batch"
"""How the problem of a row begins whose run was withdrawn for no reason of its own."""


def standing_of(status: str, reason_code: str, problem: str) -> Standing:
    """Return how a row stands after a result: whether running it again may give another.

    `unsure`: nobody knows whether its job was admitted, so that it may only be sent again as the same run.
    """
    if status == RunStatus.COMPLETED:
        return "may_pass" if problem else "completed"  # an answer that is not as it should be may come out otherwise
    if problem.startswith(WITHDRAWN):
        return "may_pass"
    if reason_code == ReasonCode.INTERNAL_ERROR and problem:
        return "unsure"
    return "may_pass" if status == RunStatus.FAILED or reason_code in _MAY_PASS else "final"


class RowStates:
    """By row: how many attempts have ended, how it stands after the last, and the digest of its job.

    Eleven bytes a row, whatever its job and its answer are.
    """

    def __init__(self) -> None:
        self._attempts = np.zeros(0, np.uint16)
        self._standings = np.zeros(0, np.uint8)
        self._digests = np.zeros(0, np.uint64)
        self._unsure = dict[int, int]()
        """By row, as which attempt the job was submitted of which nobody knows whether it was admitted."""
        self.ended = 0
        """Rows that have a result."""

    @classmethod
    def of(cls, place: Path | str) -> RowStates:
        """Read what parts say."""
        states = cls()
        columns = ("row", "attempt", "status", "reason_code", "problem", "digest")
        for batch in read_parts(place, columns):
            for row, attempt, status, reason, problem, digest in zip(
                *(batch.column(name).to_pylist() for name in columns), strict=True
            ):
                states.note(row, attempt, standing_of(status or "", reason or "", problem or ""), digest or bytes(8))
        return states

    @property
    def rows(self) -> int:
        """How many rows there are, up to the last that has a result."""
        found = np.flatnonzero(self._attempts)
        return int(found[-1]) + 1 if len(found) else 0

    def attempts(self, row: int) -> int:
        """Return how many attempts at a row have ended."""
        return int(self._attempts[row]) if row < len(self._attempts) else 0

    def next_submission(self, row: int) -> int:
        """Return as which attempt a row's job is to be submitted next: as before, if that may have been admitted."""
        return self._unsure.get(row, self.attempts(row) + 1)

    def standing(self, row: int) -> Standing:
        """Return how a row stands."""
        return _STANDINGS[self._standings[row]] if row < len(self._standings) else "none"

    def is_digest(self, row: int, digest: bytes) -> bool:
        """Whether a row that has a result has this digest."""
        return bool(self._digests[row] == int.from_bytes(digest, "little"))

    def note(self, row: int, attempt: int, standing: Standing, digest: bytes) -> None:
        """Take a result in; one of an earlier attempt than is known changes nothing."""
        if row >= len(self._attempts):
            more = max(1024, row + 1, 2 * len(self._attempts)) - len(self._attempts)
            for name in ("_attempts", "_standings", "_digests"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros(more, array.dtype)]))
        if attempt < self._attempts[row]:
            return
        self.ended += self._attempts[row] == 0
        if standing == "unsure":
            self._unsure.setdefault(row, attempt)
        else:
            self._unsure.pop(row, None)
        self._attempts[row] = attempt
        self._standings[row] = _STANDINGS.index(standing)
        self._digests[row] = int.from_bytes(digest, "little")

    def count(self, standing: Standing) -> int:
        """Return how many rows stand so; of `none`, only those before the last that has a result."""
        return int(np.count_nonzero(self._standings == _STANDINGS.index(standing)))

    @property
    def may_pass(self) -> int:
        """How many rows may end otherwise when they are run again."""
        return self.count("may_pass") + self.count("unsure")

    @property
    def failed(self) -> int:
        """How many rows have a result, and have not completed."""
        return self.may_pass + self.count("final")

    def that_may_pass(self) -> Iterator[int]:
        """Yield the rows that may end otherwise when they are run again."""
        yield from map(int, np.flatnonzero(np.isin(self._standings, [*map(_STANDINGS.index, ("may_pass", "unsure"))])))
