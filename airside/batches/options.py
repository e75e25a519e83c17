"""How a batch is run, as its caller says: checked once, where it is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from airside.actors.client.job_stream import WINDOW
from airside.actors.jobs import batch_job, check_lane
from airside.batches.columns import Columns
from airside.stack.calling import explain_misuse
from airside.stack.canonical import as_text
from airside.stack.errors import InvalidInput
from airside.stack.ids import PrincipalId, TenantId, parse_principal, parse_tenant
from airside.stack.operations.batches import MOST_CONCURRENCY
from airside.stack.values import Limits, ModelLane

ERRORS_LEAST = 20
"""Results there must be before a share of errors stops a batch: of three, one is a third."""

_LONGEST_S = 100 * 366 * 86_400
"""A hundred years; no rate is higher, either."""

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")


@explain_misuse()
@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How a batch is run; raises `InvalidInput` for what makes no sense.

    `concurrency` jobs are under way at once, `rate_per_s` submitted a second (0: as many as there is room for); a
    job's run begins before those of its tenant of a lower `priority` (-100 to 100); `limits` lower those of each run.
    `stop_after_errors` is a number of results that are none of a completed run, or a share of all (`"5%"`, of 20 at
    least): from then on no job is submitted.  A job that has not ended `item_deadline_s` after its submission is
    withdrawn (its result: `cancelled`); `deadline_s` after its begin the batch submits no more, and withdraws what is
    under way.  Answers are held against `answer_schema`.  A part of the results is committed every `part_results`
    results, or `part_s` seconds.
    """

    concurrency: int = WINDOW
    rate_per_s: float = 0.0
    priority: int = 0
    limits: Mapping[str, int] | None = None
    lane: ModelLane | None = None
    stop_after_errors: int | str | None = None
    item_deadline_s: float | None = None
    deadline_s: float | None = None
    answer_schema: Mapping[str, Any] | None = None
    part_results: int = 1000
    part_s: float = 5.0

    def __post_init__(self) -> None:
        batch_job("x", 1, self.priority)
        check_lane(self.lane)
        Limits().lowered(dict(self.limits or {}))
        for name, least in (("concurrency", 1), ("part_results", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InvalidInput(f"{name}: {value!r:.40} is no whole number of at least {least}")
        if self.concurrency > MOST_CONCURRENCY:  # all that are under way are in memory
            raise InvalidInput(f"concurrency: {self.concurrency!r:.40} is more than {MOST_CONCURRENCY:,}")
        for name in ("rate_per_s", "item_deadline_s", "deadline_s", "part_s"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 <= value <= _LONGEST_S):
                raise InvalidInput(f"{name}: {value!r:.40} is no number from 0 to {_LONGEST_S:,}")
        self.errors()
        self.validator()

    def errors(self) -> tuple[float, float]:
        """Return how many errors stop the batch, and which share of its results; infinite for no such rule."""
        rule = self.stop_after_errors
        if rule is None:
            return float("inf"), float("inf")
        if type(rule) is int and rule >= 1:
            return float(rule), float("inf")
        if isinstance(rule, str):
            share = _SHARE.fullmatch(rule.strip())
            if share and 0 < float(share[1]) <= 100:
                return float("inf"), float(share[1]) / 100
            if rule.strip().isdecimal() and int(rule) >= 1:
                return float(int(rule)), float("inf")
        raise InvalidInput(f"stop_after_errors: {rule!r:.40} is neither a number of errors (20) nor a share (5%)")

    def validator(self) -> Any:
        """Return what checks answers; None if any will do."""
        if self.answer_schema is None:
            return None
        try:
            return jsonschema_rs.validator_for(dict(self.answer_schema), offline=True)  # it is in the manifest: whole
        except (ValueError, TypeError, jsonschema_rs.ValidationError) as error:
            raise InvalidInput(f"answer_schema: {str(error)[:300]}") from None


def owner_of(named: str, columns: Columns) -> tuple[TenantId, PrincipalId]:
    """Return whose a batch is: as it is said (`acme`, `acme/ana`), else the one whose all its jobs are; or nobody's.

    Raises `InvalidId` for what names nobody.
    """
    if named:
        tenant, slash, principal = as_text(named).partition("/")
    else:
        tenant, principal = (str(columns.constants.get(field, "")) for field in ("tenant", "principal"))
        slash = principal
        if not tenant:
            return TenantId(""), PrincipalId("")
    return parse_tenant(tenant), parse_principal(principal) if slash else PrincipalId("")
