"""What the journal is asked, on tables as it has them."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from airside.bench.journaled import by_phase
from airside.bench.mix import BLOCKED
from airside.bench.replay import recorded_plans
from airside.stack.reasons import ReasonCode

EVENTS = "tenant TEXT, stream TEXT, seq BIGINT, epoch BIGINT, step BIGINT, at_us BIGINT, type TEXT, body TEXT"
Happened = tuple[str, int, float]
"""An event's type and step, and when it happened, in milliseconds."""

ASKED: list[Happened] = [
    ("RunSubmitted", 0, 0),
    ("RunActivated", 0, 10),
    ("RoutePlanned", 0, 11),
    ("StepDecided", 0, 31),
    ("ActionGated", 0, 34),
    ("RunSuspended", 0, 40),
    ("RunActivated", 0, 1_034),
    ("ApprovalDecided", 0, 1_034),
    ("ActionGated", 0, 1_039),
    ("ToolExecuted", 0, 1_139),
    ("RunEnded", 1, 1_150),
]
DENIED: list[Happened] = [
    ("RunSubmitted", 0, 0),
    ("RunActivated", 0, 10),
    ("StepDecided", 0, 12),
    ("ActionGated", 0, 14),
    ("ToolExecuted", 0, 20),
    ("StepDecided", 1, 22),
    ("ActionGated", 1, 23),
    ("RunEnded", 1, 25),
]


class Journal:
    """The tables, with two runs of one tenant."""

    def __init__(self) -> None:
        self._database = duckdb.connect()
        self._database.execute(f"CREATE TABLE events ({EVENTS})")
        self._database.execute(
            "CREATE TABLE runs (run_id VARCHAR, tenant VARCHAR, parent VARCHAR, submitted_us BIGINT)"
        )
        self._database.execute("CREATE TABLE outcomes (run_id VARCHAR, reason_code VARCHAR, ended_us BIGINT)")
        self.add("run_a", ASKED, "completed", begin_us=0)
        self.add("run_b", DENIED, "policy_denied", begin_us=10_000_000)

    def add(self, run_id: str, events: list[Happened], reason: str, *, begin_us: int) -> None:
        """Put a run in."""
        epoch = 0
        for seq, (kind, step, at_ms) in enumerate(events):
            epoch += kind == "RunActivated"
            row = ["t", run_id, seq, epoch, step, begin_us + int(at_ms * 1000), kind, '{"effect": "write"}']
            self._database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._database.execute("INSERT INTO runs VALUES (?, 't', '', ?)", [run_id, begin_us])
        self._database.execute("INSERT INTO outcomes VALUES (?, ?, ?)", [run_id, reason, begin_us + 2_000_000])

    def query(self, sql: str, parameters: Any = ()) -> Any:
        """Answer."""
        return self._database.sql(sql, params=list(parameters)).to_arrow_table()


def test_the_time_between_events_is_that_of_the_phase_that_the_later_one_ends() -> None:
    """What was waited for people is theirs, however often the run was put down meanwhile; other runs are left out."""
    found = {phase: histogram for (_, phase), histogram in by_phase(Journal().query, 0, 1_000_000).items()}
    assert set(found) == {"queueing", "decide", "gate", "people", "execute", "conclude"}
    known = {"queueing": 0.010, "decide": 0.020, "people": 1.0, "execute": 0.1, "conclude": 0.011}
    for phase, seconds in known.items():
        assert found[phase].count == 1 and found[phase].percentile_s(50) == pytest.approx(seconds, rel=0.011)
    assert found["gate"].count == 2 and found["gate"].percentile_s(99) == pytest.approx(0.005, rel=0.011)


def test_recorded_runs_are_read_with_what_became_of_each_call() -> None:
    """The latest first: one that policy denied, and one that people were asked about."""
    plans = {plan.ending: plan for plan in recorded_plans(Journal())}
    denied, asked = plans[ReasonCode.POLICY_DENIED], plans[ReasonCode.COMPLETED]
    assert [call.tool for call in denied.calls] == ["post_entry", "post_entry"]
    assert denied.calls[-1].arguments["account"] == BLOCKED and not denied.waits
    assert len(asked.calls) == 1 and asked.waits
    assert asked.calls[0].decide_s == 0.02 and asked.calls[0].arguments["seconds"] == 0.1
