"""Recorded runs as plans: as many calls, of the same kinds, that take as long; nothing of what they said.

`airside.ReplayAgent` is no source of load: it proposes one run's own calls, which need that run's tools, and these
would have their effects again with every repetition.  So only the shape of a run is played, on the benchmark's tools.
A decision takes as long as it did, and a call as long as from its gate to its result, the recording stack's own time
included.  Branches are not in it: a run that fanned out is played as what its root did itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from airside.bench.mix import BLOCKED, MOST_CALLS, Call, Plan, approval_call, read_call, write_call
from airside.stack.errors import InvalidInput
from airside.stack.reasons import ReasonCode

MOST_RUNS = 1_000
"""The latest ones that ended; of each the first `MOST_CALLS` calls."""

QUERY = """
WITH latest AS (
    SELECT o.run_id, o.reason_code FROM outcomes o JOIN runs r ON r.run_id = o.run_id
    WHERE coalesce(r.parent, '') = '' ORDER BY o.ended_us DESC, o.run_id LIMIT $1),
timed AS (
    SELECT l.run_id, l.reason_code, e.step, e.type, e.body,
        e.at_us - lag(e.at_us) OVER (PARTITION BY e.stream ORDER BY e.seq) AS us
    FROM events e JOIN latest l ON l.run_id = e.stream)
SELECT run_id, any_value(reason_code) AS reason, step,
    max(json_extract_string(body, '$.effect')) FILTER (type = 'ActionGated') AS effect,
    CAST(coalesce(sum(us) FILTER (type = 'StepDecided'), 0) AS BIGINT) AS decide_us,
    CAST(coalesce(sum(us) FILTER (type = 'ToolExecuted'), 0) AS BIGINT) AS execute_us,
    count(*) FILTER (type = 'ToolExecuted') > 0 AS executed,
    count(*) FILTER (type = 'ApprovalDecided') > 0 AS asked
FROM timed GROUP BY run_id, step HAVING count(*) FILTER (type = 'ActionGated') > 0 ORDER BY run_id, step
"""


class Queried(Protocol):
    """A journal that can be asked."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Answer one SELECT."""


def recorded_plans(journal: Queried) -> list[Plan]:
    """Return the plans of the latest runs of a journal; raise `InvalidInput` if no run of it made a call."""
    steps: dict[str, list[dict[str, Any]]] = {}
    for row in journal.query(QUERY, [MOST_RUNS]).to_pylist():
        steps.setdefault(row["run_id"], []).append(row)
    plans = [plan for rows in steps.values() if (plan := _plan(rows)).calls]
    if not plans:
        raise InvalidInput("--replay: no run of that journal has ended and made a call")
    return plans


def _plan(rows: list[dict[str, Any]]) -> Plan:
    calls = tuple(_call(number, row) for number, row in enumerate(rows[:MOST_CALLS]) if row["executed"])
    last = rows[-1]
    if last["reason"] == ReasonCode.POLICY_DENIED.value and not last["executed"]:
        denied = (*calls[: MOST_CALLS - 1], write_call(len(rows), account=BLOCKED))
        return Plan(kind="replay", calls=denied, ending=ReasonCode.POLICY_DENIED, waits=_waits(rows))
    return Plan(kind="replay", calls=calls, waits=_waits(rows))


def _waits(rows: list[dict[str, Any]]) -> bool:
    return any(row["asked"] and row["executed"] for row in rows)


def _call(number: int, row: dict[str, Any]) -> Call:
    seconds = max(0, row["execute_us"]) / 1e6
    if row["asked"]:
        call = approval_call(number, seconds)
    else:
        call = read_call(number, seconds) if row["effect"] == "read" else write_call(number, seconds=seconds)
    return replace(call, decide_s=max(0, row["decide_us"]) / 1e6)
