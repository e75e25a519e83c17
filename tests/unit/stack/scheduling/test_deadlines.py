"""`Deadlines`: the smaller of two holds, what is late is found once and in time, and what has ended leaves nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airside.stack.directory import load_directory
from airside.stack.errors import InvalidConfig
from airside.stack.ids import RunId, TenantId
from airside.stack.scheduling.deadlines import _STALE, Deadlines, OverdueRun, RunDeadline

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")
SECOND = 1_000_000


class DeadlinesMachine(RuleBasedStateMachine):
    """Runs that are admitted, end and become late at random, against a table that is looked through whole."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = Deadlines(5, {"a": 2, "b": 9})
        self.now_us = 0
        self.count = 0
        self.live: dict[RunId, int] = {}

    @rule(tenant=st.sampled_from([A, B, C]), ago_us=st.integers(0, 7 * SECOND))
    def admit(self, tenant: TenantId, ago_us: int) -> None:
        """Watch a run; one that a restarted driver finds may have been admitted long ago."""
        self.count += 1
        run, admitted_us = RunId(f"run{self.count}"), self.now_us - ago_us
        self.deadlines.watch(run, tenant, admitted_us)
        self.live[run] = admitted_us + {A: 2, B: 5, C: 5}[tenant] * SECOND

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.live:
            run = data.draw(st.sampled_from(sorted(self.live)))
            self.deadlines.forget(run)
            del self.live[run]

    @rule()
    def end_what_nobody_knows(self) -> None:
        self.deadlines.forget(RunId("unknown"))

    @rule(later_us=st.integers(0, 3 * SECOND))
    def look(self, later_us: int) -> None:
        self.now_us += later_us
        late = [run for run, _ in self.deadlines.late(self.now_us)]
        due = {run: at_us for run, at_us in self.live.items() if at_us <= self.now_us}
        assert set(late) == set(due) and len(late) == len(due), "exactly those, once"
        assert [due[run] for run in late] == sorted(due.values()), "the one longest over first"
        for run in late:
            del self.live[run]

    @invariant()
    def nothing_is_kept_of_what_has_ended(self) -> None:
        assert len(self.deadlines) == len(self.live)
        assert len(self.deadlines._heap) <= 2 * len(self.live) + _STALE + 1


TestDeadlines = DeadlinesMachine.TestCase
TestDeadlines.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    ("tenant", "holds"),
    [(A, RunDeadline(A, 2)), (B, RunDeadline(None, 5)), (C, RunDeadline(None, 5))],
)
def test_the_smaller_of_two_holds(tenant: TenantId, holds: RunDeadline) -> None:
    assert Deadlines(5, {"a": 2, "b": 9}).of(tenant) == holds


def test_where_there_is_none_nothing_is_watched() -> None:
    deadlines = Deadlines(None, {"a": 1})
    deadlines.watch(RunId("r"), B, 0)
    assert deadlines.of(B) is None and len(deadlines) == 0 and deadlines.late(10**18) == []


def test_a_run_is_late_from_the_moment_on_and_told_once() -> None:
    deadlines = Deadlines(None, {"a": 3})
    deadlines.watch(RunId("r"), A, 7)
    assert deadlines.late(3 * SECOND + 6) == []
    assert deadlines.late(3 * SECOND + 7) == [OverdueRun(RunId("r"), RunDeadline(A, 3))]
    assert deadlines.late(10**18) == []


def test_a_run_that_comes_back_after_its_end_is_judged_by_its_new_moment() -> None:
    """A submission that is sent again after its run has ended is on the books until the journal is read."""
    deadlines = Deadlines(1)
    deadlines.watch(RunId("r"), A, 0)
    deadlines.forget(RunId("r"))
    deadlines.watch(RunId("r"), A, SECOND)
    assert deadlines.late(SECOND) == []
    assert [late.run_id for late in deadlines.late(10**18)] == ["r"]


def test_it_says_whose_it_is_and_how_long() -> None:
    assert str(RunDeadline(A, 90)) == "the deadline of tenant a, 90 s from the admission, is over"
    assert str(RunDeadline(None, 5)) == "the deadline of all tenants, 5 s from the admission, is over"


def test_the_directory_names_them() -> None:
    deadlines = load_directory("deadline_s: 60\ntenants: {a: {deadline_s: 1}, b: {}}\n").deadlines()
    assert (deadlines.of(A), deadlines.of(B)) == (RunDeadline(A, 1), RunDeadline(None, 60))
    assert load_directory("tenants: {a: {}}\n").deadlines().of(A) is None


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "'60'", "true", ".inf"])
def test_a_deadline_is_a_whole_number_of_seconds_from_one_on(wrong: str) -> None:
    for text in (f"deadline_s: {wrong}\ntenants: {{a: {{}}}}\n", f"tenants:\n  a:\n    deadline_s: {wrong}\n"):
        with pytest.raises(InvalidConfig, match="deadline_s"):
            load_directory(text)
