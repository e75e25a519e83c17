"""How long runs were in which phase, by what the journal has: one query over the runs of a span of time.

The time between two events of a run is that of the phase which the later one ends.  Events are stamped when they
happen, so the wait until one is durable is in the phase that follows it.  The query counts by values of 1 % precision,
so that what it answers has a bound however many runs there were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airside.bench.latencies import Latencies

PHASES = {
    "queueing": "from the admission to where a runtime takes the run up",
    "decide": "the agent",
    "gate": "policy, with the approval's receipt where a person was asked",
    "people": "from the question to the decision that is put to the run",
    "execute": "the intent's append, the executor and the tool",
    "conclude": "the last appends",
}

QUERY = """
WITH mine AS (
    SELECT e.tenant, e.stream, e.seq, e.step, e.epoch, e.type, e.at_us
    FROM events e JOIN runs r ON e.stream = r.run_id
    WHERE r.submitted_us >= $1 AND r.submitted_us < $2),
gaps AS (
    SELECT tenant, at_us - lag(at_us) OVER (PARTITION BY stream ORDER BY seq) AS us,
        CASE WHEN type = 'RunActivated' AND epoch = 1 THEN 'queueing'
             WHEN type IN ('StepDecided', 'DecideFailed') THEN 'decide'
             WHEN type = 'ActionGated' THEN 'gate'
             WHEN type IN ('ToolExecuted', 'ExecutionLost') THEN 'execute'
             WHEN type = 'RunEnded' THEN 'conclude' END AS phase
    FROM mine
    UNION ALL
    SELECT any_value(tenant), min(at_us) FILTER (type = 'ApprovalDecided') - min(at_us) FILTER (type = 'ActionGated'),
        'people'
    FROM mine GROUP BY stream, step HAVING count(*) FILTER (type = 'ApprovalDecided') > 0),
sized AS (
    SELECT tenant, phase, greatest(us, 1) AS us, greatest(0, CAST(floor(log2(greatest(us, 1))) AS INTEGER) - 7) AS bits
    FROM gaps WHERE phase IS NOT NULL AND us IS NOT NULL)
SELECT tenant, phase, (us >> bits) << bits AS us, count(*) AS runs FROM sized GROUP BY ALL
"""


def by_phase(query: Callable[[str, list[Any]], Any], begin_us: int, end_us: int) -> dict[tuple[str, str], Latencies]:
    """Return the histograms of the runs that were submitted in a span of time, by tenant and phase."""
    found: dict[tuple[str, str], Latencies] = {}
    for row in query(QUERY, [begin_us, end_us]).to_pylist():
        histogram = found.setdefault((row["tenant"], row["phase"]), Latencies())
        histogram.record(row["us"] / 1e6, row["runs"])
    return found
