"""What is wrong with a batch: the rows that have not completed, by what is said of them, as its parts have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from airside.actors.client.display.batches import draw_problems
from airside.actors.client.display.bundle import bundle
from airside.actors.client.display.drawing import Drawing, facts
from airside.actors.client.display.listed import Kinds
from airside.batches.parts import read_parts
from airside.batches.row_states import WITHDRAWN, RowStates
from airside.stack.reasons import ReasonCode, RunStatus

SHOWN = 20
"""Kinds of problems that are said, the commonest."""

_MOST_KINDS = 1_000
"""Kinds that are counted: of each the text is in memory."""

_MOST_CHARS = 500
_COLUMNS = ("row", "attempt", "job_id", "run_id", "status", "reason_code", "detail", "problem")


@dataclass(slots=True)
class ProblemKind:
    """Problems that are alike: the first of them, as a line, and how many rows have it."""

    first: str
    count: int = 1

    def __str__(self) -> str:
        return self.first + (f" (and {self.count - 1:,} more like it)" if self.count > 1 else "")


@dataclass(frozen=True, slots=True)
class Problems:
    """The commonest problems of a batch, of how many rows they are not (`more`), and how many rows are `no_jobs`.

    `rejected` rows are among the rejects by their last attempt: no jobs, refused, or of an answer that does not fit.
    """

    kinds: tuple[ProblemKind, ...] = ()
    more: int = 0
    no_jobs: int = 0
    rejected: int = 0

    def drawn(self) -> Drawing:
        """Return them, to be seen: the first of each kind, and how many rows have it."""
        parts = (draw_problems([(each.first, each.count) for each in self.kinds]),) if self.kinds else ()
        also = f"other problems, of {self.more:,} rows" if self.more else ""
        return Drawing(
            title=f"{len(self.kinds):,} kinds of problems" if self.kinds else "no problems",
            facts=facts(("not shown", also), ("rows that are no jobs", f"{self.no_jobs:,}" if self.no_jobs else "")),
            parts=parts,
        )

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        return bundle(self.drawn, include, exclude)


def problems_of(place: Path | str, states: RowStates) -> Problems:
    """Return what the parts say of the rows that have not completed, each by its last attempt."""
    if not states.failed:
        return Problems()
    kinds: dict[tuple[str, str, str], ProblemKind] = {}
    rows = no_jobs = rejected = 0
    for batch in read_parts(place, _COLUMNS):
        is_well = pc.and_(pc.equal(batch.column("status"), RunStatus.COMPLETED), pc.equal(batch.column("problem"), ""))
        for each in batch.filter(pc.invert(pc.fill_null(is_well, False))).to_pylist():
            if each["attempt"] != states.attempts(each["row"]):
                continue
            status, reason, detail, problem = (each[name] or "" for name in _COLUMNS[4:])
            rows += 1
            no_jobs += is_no_job(each["run_id"] or "", reason, detail, problem)
            rejected += bool(problem) and not problem.startswith(WITHDRAWN)
            kind = status, reason, (problem or detail)[:_MOST_CHARS]
            if kind in kinds:
                kinds[kind].count += 1
            elif len(kinds) < _MOST_KINDS:
                first = f"{each['job_id']}: {status} [{reason}] {detail or problem}"
                kinds[kind] = ProblemKind(first[:_MOST_CHARS])
    common = sorted(kinds.values(), key=lambda each: -each.count)[:SHOWN]
    return Problems(tuple(common), rows - sum(each.count for each in common), no_jobs, rejected)


def is_no_job(run_id: str, reason_code: str, detail: str, problem: str) -> bool:
    """Whether a row could not be read as a job: its detail says where it stands, which nobody says of a job."""
    is_refused = not run_id and reason_code == ReasonCode.REQUEST_INVALID
    return is_refused and detail != problem and detail.endswith(f": {problem}")
