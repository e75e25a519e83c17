"""`Placement` under any order of what may happen: nothing is forgotten, nothing works twice, every kill ends."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airside.stack.ids import RunId, TenantId, child_run
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling.placement_state import PlacementState
from tests.unit.stack.scheduling.cell import CONCURRENCY, Cell

INDEX = st.integers(0, 10_000)


class PlacementCell(RuleBasedStateMachine):
    """A cell in which anything may happen, at any time, in any order."""

    @initialize(
        pool_size=st.sampled_from((0, 0, 2)), deadline_s=st.sampled_from((None, 60)), most=st.sampled_from((1, 2, 3))
    )
    def boot(self, pool_size: int, deadline_s: int | None, most: int) -> None:
        self.cell = Cell(pool_size, deadline_s=deadline_s, queue=6, most=most)
        self.terminating: set[RunId] = set()

    @rule(tenant=st.sampled_from("abc"))
    def submit(self, tenant: str) -> None:
        self.cell.submit(tenant)

    @precondition(lambda self: self.cell.todo)
    @rule(index=INDEX, well=st.sampled_from((True, True, True, False)), answered=st.sampled_from((True, True, False)))
    def carry_out(self, index: int, well: bool, answered: bool) -> None:
        self.cell.carry_out(index % len(self.cell.todo), well=well, answered=answered)

    @rule(times=st.integers(1, 20))
    def go_on(self, times: int) -> None:
        """Let what is under way come well to its end, in order."""
        for _ in range(times):
            if self.cell.todo:
                self.cell.carry_out()
            if self.cell.owed:
                self.cell.hear()

    @precondition(lambda self: self.cell.owed)
    @rule(index=INDEX, times=st.integers(1, 4))
    def hear(self, index: int, times: int) -> None:
        for _ in range(min(times, len(self.cell.owed))):
            self.cell.hear(index % len(self.cell.owed))

    @precondition(lambda self: self.cell.at_work())
    @rule(index=INDEX, standing=st.sampled_from(("parked", "parked", "in_doubt", "working", "lost", "broken")))
    def report(self, index: int, standing: on.Standing) -> None:
        work = self.cell.at_work()
        self.cell.report(*work[index % len(work)], standing)

    @precondition(lambda self: self.cell.at_work())
    @rule(index=INDEX)
    def end(self, index: int) -> None:
        work = self.cell.at_work()
        self.cell.end(*work[index % len(work)])

    @precondition(lambda self: self.cell.told)
    @rule()
    def obey(self) -> None:
        self.cell.obey(self.cell.told.pop())

    @precondition(lambda self: self.cell.live)
    @rule(index=INDEX, excused=st.booleans())
    def die(self, index: int, excused: bool) -> None:
        self.cell.die(sorted(self.cell.live)[index % len(self.cell.live)], excused=excused)

    @precondition(lambda self: self.cell.live)
    @rule(index=INDEX, run=INDEX, named=st.booleans())
    def stall(self, index: int, run: int, named: bool) -> None:
        key = sorted(self.cell.live)[index % len(self.cell.live)]
        here = list(self.cell.live[key])
        who = here[run % len(here)] if named and here else ""
        self.cell.handle(on.ProcessStalled(at=self.cell.at(), process=key, run_id=who, held_s=3.0, where="x"))

    @precondition(lambda self: self.cell.admitted)
    @rule(index=INDEX)
    def hold_a_layer(self, index: int) -> None:
        run_id = sorted(self.cell.admitted)[index % len(self.cell.admitted)]
        self.cell.handle(on.LayerStalled(at=self.cell.at(), layer="policy", run_id=run_id, held_s=3.0, where="x"))

    @precondition(lambda self: self.cell.admitted)
    @rule(index=INDEX, of_branch=st.booleans())
    def send(self, index: int, of_branch: bool) -> None:
        run_id = sorted(self.cell.admitted)[index % len(self.cell.admitted)]
        self.cell.send(child_run(run_id, 1, 0) if of_branch else run_id)

    @precondition(lambda self: self.cell.admitted)
    @rule(index=INDEX)
    def kill(self, index: int) -> None:
        self.cell.kill(sorted(self.cell.admitted)[index % len(self.cell.admitted)])

    @rule(seconds=st.sampled_from((1, 11, 61)))
    def tick(self, seconds: int) -> None:
        self.cell.now_s += seconds
        self.cell.handle(on.Ticked(at=self.cell.at()))

    @rule(late_s=st.sampled_from((0.0, 9.0)))
    def be_late(self, late_s: float) -> None:
        self.cell.handle(on.LatenessMeasured(at=self.cell.at(), late_s=late_s))

    @rule()
    def restart_the_driver(self) -> None:
        self.cell.boot()
        self.terminating = set()

    @invariant()
    def what_is_to_end_never_does_anything_else(self) -> None:
        if not hasattr(self, "cell"):
            return
        states = self.cell.states()
        for run_id in self.terminating & set(states):
            assert states[run_id] is PlacementState.TERMINATING
        self.terminating = {run_id for run_id, state in states.items() if state is PlacementState.TERMINATING}

    @invariant()
    def what_was_admitted_ends_or_waits_for_something(self) -> None:
        if hasattr(self, "cell"):
            missing = set(self.cell.admitted) - self.cell.ended - set(self.cell.states())
            assert not missing, "nothing that was admitted is forgotten"

    @invariant()
    def only_what_is_queued_is_in_the_queue(self) -> None:
        if not hasattr(self, "cell"):
            return
        for tenant, stats in self.cell.placement.queue.stats().items():
            of_tenant = [entry for _, entry in self.cell.placement.runs() if entry.tenant == TenantId(tenant)]
            assert stats["waiting"] == sum(entry.state is PlacementState.QUEUED for entry in of_tenant)
            free = (PlacementState.QUEUED, PlacementState.PARKED, PlacementState.TERMINATING)
            assert stats["running"] >= sum(entry.state not in free for entry in of_tenant)
            assert stats["running"] <= len(of_tenant)

    def teardown(self) -> None:
        """When nothing goes wrong any more, all end but what waits for a person; and what is killed ends too."""
        if not hasattr(self, "cell"):
            return
        cell = self.cell
        cell.settle(ends=True)
        left = cell.states()
        assert set(left.values()) <= {PlacementState.PARKED}, f"{left} wait for nothing that would come"
        assert left.keys() <= cell.parked, "what is taken for waiting asked somebody for something"
        assert cell.sent <= cell.answered, "every message arrives, or its run is over"
        for run_id in list(cell.states()):
            cell.kill(run_id)
        cell.settle(ends=False)
        assert not cell.states() and set(cell.admitted) == cell.ended, "every kill ends"


TestPlacement = PlacementCell.TestCase
TestPlacement.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_no_more_runs_begin_than_a_tenant_may_have_at_work() -> None:
    cell = Cell(places=100)
    runs = [cell.submit("a") for _ in range(6)]
    cell.settle(ends=False)
    assert [cell.states()[run] for run in runs if run is not None].count(PlacementState.WORKING) == CONCURRENCY
    cell.settle(ends=True)
    assert not cell.states()
