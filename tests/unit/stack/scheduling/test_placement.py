"""`Placement` case by case: kills against timing, who is to blame, what is late, what becomes of what was parked."""

from __future__ import annotations

import pytest

from airside.stack.errors import InvariantBroken
from airside.stack.ids import RunId, TenantId
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.scheduling.attribution import BROKEN_AFTER
from airside.stack.scheduling.load import LEAST
from airside.stack.scheduling.placement import ENDING_AT_ONCE
from airside.stack.scheduling.placement_state import Operation, PlacementState, RunEntry
from tests.unit.stack.scheduling.cell import KILL, Cell


def cell_of(runs: int, *, deadline_s: int | None = None) -> tuple[Cell, list[RunId]]:
    """Return a cell with so many runs of one tenant at work."""
    cell = Cell(deadline_s=deadline_s, places=1000, concurrency=1000, most=100)
    made = [cell.submit("acme") for _ in range(runs)]
    cell.settle(ends=False)
    return cell, [run for run in made if run is not None]


def entry(cell: Cell, run_id: RunId) -> RunEntry:
    """Return what the machine knows of a run."""
    found = cell.placement.get(run_id)
    assert found is not None
    return found


def condemned(cell: Cell, runs: list[RunId]) -> list[RunId]:
    """Return who has ended or is to."""
    states = cell.states()
    return [run for run in runs if states.get(run) in (None, PlacementState.TERMINATING)]


def take(cell: Cell, kind: type[do.PlacementInstruction]) -> list[do.PlacementInstruction]:
    """Return what is to be done of one kind."""
    return [instruction for instruction in cell.todo if isinstance(instruction, kind)]


def test_a_run_goes_the_whole_way_and_each_step_is_waited_for() -> None:
    """Its admission, its process, its claim, its activation, its work."""
    cell = Cell()
    run = cell.submit("acme")
    assert run is not None
    waited = [cell.placement.waits_for(run)]
    while cell.todo or cell.owed:
        cell.settle_one()
        waited.append(cell.placement.waits_for(run))
    assert list(dict.fromkeys(waited)) == [
        "record to be answered",
        "start to be answered",
        "claim to be answered",
        "activate to be answered",
        "process acme/1",
    ]


def test_a_queue_that_a_new_driver_finds_goes_on_by_its_priorities() -> None:
    cell = Cell(places=0)
    runs = [RunId(f"run_{number:024x}") for number in range(3)]
    for run, priority in zip(runs, (0, -5, 7), strict=True):
        found = on.RunFound(
            at=cell.at(), run_id=run, tenant=TenantId("acme"), epoch=0, admitted_us=0, priority=priority
        )
        cell.placement.handle(found)
    cell.placement.queue.places = 3
    assert [run for _, run in cell.placement.queue.take()] == [runs[2], runs[0], runs[1]]


def test_a_kill_waits_for_a_run_that_is_on_its_way_to_a_process_and_is_told_there() -> None:
    cell = Cell()
    run = cell.submit("acme")
    assert run is not None
    while entry(cell, run).operation is not Operation.ACTIVATE:
        cell.settle_one()
    cell.kill(run)
    assert take(cell, do.Deliver) and not take(cell, do.EndRun)
    cell.settle(ends=False)
    assert run in cell.ended and cell.epochs[run] == 1, "it ended where it was, under no epoch of the driver's"


@pytest.mark.parametrize("operation", [Operation.RECORD, Operation.START, Operation.CLAIM])
def test_a_kill_ends_a_run_before_any_process_has_it(operation: Operation) -> None:
    cell = Cell()
    run = cell.submit("acme")
    assert run is not None
    while entry(cell, run).operation is not operation:
        cell.settle_one()
    cell.kill(run)
    cell.settle(ends=False)
    assert run in cell.ended and not cell.handed


def test_a_kill_ends_a_run_that_its_process_has_no_more() -> None:
    cell, (run,) = cell_of(1)
    del cell.live["acme/1"][run]
    cell.kill(run)
    cell.settle(ends=False)
    assert run in cell.ended and cell.epochs[run] == 2


def test_a_run_that_holds_its_process_is_killed_with_it_and_a_neighbour_is_placed_again() -> None:
    cell, (run, other) = cell_of(2)
    cell.kill(run)
    take(cell, do.Deliver)
    cell.todo = [i for i in cell.todo if not isinstance(i, do.Deliver)]  # it is never answered
    cell.carry_out()
    cell.hear()
    cell.carry_out(well=False)
    cell.hear()
    assert take(cell, do.KillProcess)
    cell.settle(ends=False)
    assert run in cell.ended and entry(cell, other).process == "acme/2" and cell.epochs[other] == 2


def test_a_kill_of_what_has_ended_does_nothing() -> None:
    cell, (run,) = cell_of(1)
    cell.settle(ends=True)
    cell.kill(run)
    assert not cell.todo


def test_what_is_to_end_is_never_anything_else() -> None:
    cell, (run,) = cell_of(1)
    cell.kill(run)
    with pytest.raises(InvariantBroken, match="is to end"):
        cell.placement._become(run, entry(cell, run), PlacementState.WORKING)


def test_what_a_run_asked_people_for_is_withdrawn_when_it_ends_also_after_a_restart_of_the_driver() -> None:
    cell, (run,) = cell_of(1)
    cell.report(run, "acme/1", "parked")
    cell.boot()
    assert cell.states() == {run: PlacementState.PARKED}
    assert any(isinstance(i, do.Withdraw) for i in cell.placement.handle(cell._end_of(run)))


def test_what_a_run_was_asking_people_for_as_it_was_killed_is_withdrawn_though_it_never_said_that_it_waits() -> None:
    cell = Cell(concurrency=1)
    run, queued = cell.submit("acme"), cell.submit("acme")
    assert run is not None and queued is not None
    cell.settle(ends=False)
    for killed, is_withdrawn in ((run, True), (queued, False)):
        entry(cell, killed)
        cell.placement.handle(on.TerminationRequested(at=cell.at(), run_id=killed, termination=KILL))
        ended = cell.placement.handle(cell._end_of(killed))
        assert any(isinstance(i, do.Withdraw) for i in ended) is is_withdrawn


def test_what_is_parked_holds_no_place_and_a_message_takes_it_up_wherever_it_is() -> None:
    cell, (run,) = cell_of(1)
    cell.report(run, "acme/1", "parked")
    cell.settle(ends=False)
    assert cell.placement.queue.running == 0
    cell.die("acme/1", excused=True)
    cell.settle(ends=False)
    assert (entry(cell, run).state, entry(cell, run).process) == (PlacementState.PARKED, "")
    cell.send(run)
    cell.settle(ends=False)
    assert (entry(cell, run).state, entry(cell, run).process) == (PlacementState.WORKING, "acme/2")
    assert cell.answered == {1} and cell.placement.queue.running == 1


def test_what_a_process_says_of_an_activation_that_is_over_counts_no_more() -> None:
    cell, (run,) = cell_of(1)
    late = on.RunReported(at=cell.at(), run_id=run, epoch=1, standing="lost")
    cell.die("acme/1", excused=True)
    cell.settle(ends=False)
    cell.handle(late)
    assert entry(cell, run).state is PlacementState.WORKING and cell.epochs[run] == 2


def test_a_report_that_is_sent_again_and_comes_late_counts_no_more() -> None:
    """Its run has been brought a message meanwhile, and works; were it taken for parked, its process's death would be
    its own."""
    cell, (run,) = cell_of(1)
    parked = on.RunReported(at=cell.at(), run_id=run, epoch=1, standing="parked", number=1)
    cell.handle(parked)
    cell.send(run)
    cell.settle(ends=False)
    cell.handle(parked)
    assert entry(cell, run).state is PlacementState.WORKING
    cell.die("acme/1", excused=True)
    cell.settle(ends=False)
    assert entry(cell, run).process == "acme/2"


def test_a_run_that_was_brought_a_message_is_taken_up_again_should_its_process_die_before_it_says_so() -> None:
    """The report that it waits is from before, and what it was brought is nowhere but in that process."""
    cell, (run,) = cell_of(1)
    cell.report(run, "acme/1", "parked")
    cell.send(run)
    cell.carry_out()
    parked, _, answered = cell.owed
    cell.owed = []
    cell.handle(answered)
    cell.handle(parked)
    assert cell.answered == {1}
    cell.die("acme/1", excused=True)
    cell.settle(ends=False)
    assert (entry(cell, run).state, entry(cell, run).process) == (PlacementState.WORKING, "acme/2")


@pytest.mark.parametrize("heard_first", ["parked", "the answer"])
def test_a_process_is_not_put_down_for_a_report_from_before_the_message_it_was_brought(heard_first: str) -> None:
    """Its message is answered and nobody sends it again: had the process gone, and died before it could say that the
    run works, the run would have waited for ever."""
    cell = Cell(most=1, concurrency=10, places=10)
    run = cell.submit("acme")
    assert run is not None
    cell.settle(ends=False)
    cell.report(run, "acme/1", "parked")
    cell.send(run)
    cell.carry_out()
    parked, _, answered = cell.owed
    cell.owed = []
    for event in (parked, answered) if heard_first == "parked" else (answered, parked):
        cell.handle(event)
    assert cell.answered == {1} and entry(cell, run).state is PlacementState.WORKING
    cell.submit("beta")
    cell.hear()
    assert not take(cell, do.PutDownProcess) and cell.placement.queue.running == 2
    cell.die("acme/1", excused=True)
    cell.settle(ends=True)
    assert run in cell.ended


def test_a_run_that_waits_for_a_person_again_is_taken_up_for_nothing_less_than_a_message() -> None:
    cell, (run,) = cell_of(1)
    cell.send(run)
    cell.settle(ends=False)
    cell.report(run, "acme/1", "parked")
    cell.settle(ends=False)
    cell.die("acme/1", excused=True)
    cell.settle(ends=False)
    assert (entry(cell, run).state, entry(cell, run).process) == (PlacementState.PARKED, "")


def put_down_after_a_decision() -> tuple[Cell, RunId]:
    """Return a run whose decision arrived while "parked" was on its way, and which was put down on hearing that."""
    cell = Cell(most=1, concurrency=10, places=10)
    run = cell.submit("acme")
    assert run is not None
    cell.settle(ends=False)
    cell.submit("beta")
    cell.settle(ends=False)
    cell.report(run, "acme/1", "parked")
    parked = cell.owed.pop()
    cell.send(run)
    cell.carry_out()
    cell.handle(parked)
    assert take(cell, do.PutDownProcess) and entry(cell, run).process == ""
    return cell, run


@pytest.mark.parametrize("standing", ["working", "in_doubt"])
def test_a_run_that_works_where_it_was_put_down_is_taken_up_again(standing: on.Standing) -> None:
    """Somebody decided while the report that it waits was on its way; what it makes of that ends with the process."""
    cell, run = put_down_after_a_decision()
    cell.report(run, "acme/1", standing)
    cell.settle(ends=True)
    assert run in cell.ended and not cell.states()


def test_what_is_sent_again_of_a_run_that_was_put_down_since_takes_up_nothing() -> None:
    cell, run = put_down_after_a_decision()
    cell.owed = []
    late = on.RunReported(at=cell.at(), run_id=run, epoch=1, standing="working", number=entry(cell, run).reported)
    cell.handle(late)
    assert (entry(cell, run).state, entry(cell, run).process) == (PlacementState.PARKED, "")


def test_a_message_to_a_process_that_was_put_down_meanwhile_is_brought_to_the_next_one() -> None:
    """The process may be gone before the run has done anything about it, or could say so."""
    cell, run = put_down_after_a_decision()
    assert not cell.answered
    cell.owed = [event for event in cell.owed if not isinstance(event, on.RunReported)]
    cell.settle(ends=True)
    assert (cell.answered, cell.handed[(run, 2)], run in cell.ended) == ({1}, "acme/3", True)


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_is_killed_as_the_answer_to_its_activation_gets_lost_ends_where_it_may_be(there: bool) -> None:
    """Ended from outside it would begin its branches all the same, if its process had taken it up."""
    cell = Cell()
    run = cell.submit("acme")
    assert run is not None
    while not take(cell, do.Activate):
        cell.settle_one()
    cell.carry_out(cell.todo.index(*take(cell, do.Activate)), well=there, answered=False)
    cell.kill(run)
    (order,) = take(cell, do.Deliver)
    cell.todo.remove(order)  # it is on its way
    cell.hear()
    assert not take(cell, do.EndRun) and entry(cell, run).process == "acme/1" and take(cell, do.Deliver)
    while not take(cell, do.EndRun) and not cell.told:
        cell.settle_one()
    assert bool(cell.told) is there, "it is ended from outside once its process says that it is not there"
    cell.settle(ends=False)
    assert run in cell.ended


def test_a_run_that_is_killed_as_it_is_handed_back_to_its_process_ends_though_an_older_activation_is_there() -> None:
    """The newer one never arrives; the older one is told, is fenced as it ends, and is let go."""
    cell, (run,) = cell_of(1)
    cell.handle(on.RunReported(at=cell.at(), run_id=run, epoch=1, standing="lost"))  # it is there all the same
    while not take(cell, do.Activate):
        cell.settle_one()
    cell.carry_out(cell.todo.index(*take(cell, do.Activate)), well=False)
    cell.kill(run)
    cell.settle(ends=False)
    assert run in cell.ended


def test_a_report_before_the_answer_to_an_activation_stands() -> None:
    cell = Cell()
    run = cell.submit("acme")
    assert run is not None
    while entry(cell, run).operation is not Operation.ACTIVATE:
        cell.settle_one()
    cell.carry_out()
    cell.report(run, "acme/1", "parked")
    cell.hear(1)
    cell.hear()
    assert entry(cell, run).state is PlacementState.PARKED


def test_no_death_that_is_explained_is_ever_counted_against_a_run() -> None:
    cell, runs = cell_of(4)
    for _ in range(50):
        cell.die(entry(cell, runs[0]).process, excused=True)
        cell.settle(ends=False)
    assert condemned(cell, runs) == [] and cell.placement.attribution.suspects.suspected(0) == 0
    assert [cell.epochs[run] for run in runs] == [51] * 4


def test_a_run_whose_processes_die_is_found_among_its_neighbours_and_none_of_these_is_ended() -> None:
    cell, runs = cell_of(32)
    guilty = runs[21]
    for _ in range(12):
        if guilty not in condemned(cell, runs):
            cell.die(entry(cell, guilty).process, excused=False)
            cell.settle(ends=False)
    assert condemned(cell, runs) == [guilty]


def test_a_run_whose_activations_fail_of_themselves_is_ended_after_a_few() -> None:
    cell, runs = cell_of(2)
    for _ in range(BROKEN_AFTER):
        cell.report(runs[0], entry(cell, runs[0]).process, "broken")
        cell.settle(ends=False)
    assert condemned(cell, runs) == [runs[0]]


def stalled(cell: Cell, run_id: str = "") -> on.ProcessStalled:
    """Return that a loop is held."""
    return on.ProcessStalled(at=cell.at(), process="acme/1", run_id=run_id, held_s=3.0, where="somewhere")


def test_a_stall_that_names_somebody_ends_that_run_and_parts_nobody() -> None:
    cell, runs = cell_of(8)
    cell.handle(stalled(cell, runs[3]))
    event = entry(cell, runs[3]).termination
    assert isinstance(event, ev.KillRequested) and event.reason_code is ReasonCode.KILLED_RUNAWAY
    assert "held the event loop for 3.0 s at somewhere" in event.why
    assert cell.placement.attribution.suspects.suspected(0) == 0 and condemned(cell, runs) == [runs[3]]
    cell.settle(ends=False)
    assert {entry(cell, run).process for run in runs if run != runs[3]} == {"acme/2"}


def test_a_stall_that_names_a_run_which_is_over_ends_and_parts_nobody() -> None:
    cell, runs = cell_of(8)
    cell.handle(stalled(cell, "run_over_already"))
    assert (
        cell.placement.attribution.suspects.suspected(0) == 0
        and condemned(cell, runs) == []
        and take(cell, do.KillProcess)
    )


def test_a_stall_that_names_nobody_parts_the_runs() -> None:
    cell, runs = cell_of(8)
    cell.handle(stalled(cell))
    assert {cell.placement.attribution.suspects.group(run) for run in runs} != {""} and condemned(cell, runs) == []
    cell.settle(ends=False)
    assert len({entry(cell, run).process for run in runs}) == 2


def test_a_process_that_was_ordered_to_end_is_blamed_no_more() -> None:
    cell, runs = cell_of(2)
    cell.handle(stalled(cell, "run_over_already"))
    cell.handle(stalled(cell, runs[0]))
    assert condemned(cell, runs) == [] and len(take(cell, do.KillProcess)) == 1


def test_a_run_whose_request_held_a_layer_twice_is_ended_and_nobody_for_a_layer_that_names_nobody() -> None:
    cell, (guilty, other) = cell_of(2)
    for who in ("", guilty, other, "run_over_already", ""):
        cell.handle(on.LayerStalled(at=cell.at(), layer="policy", run_id=who, held_s=3.0, where="x"))
    assert condemned(cell, [guilty, other]) == []
    branch = f"{guilty}.1-0"  # which is its root's
    cell.handle(on.LayerStalled(at=cell.at(), layer="policy", run_id=branch, held_s=3.0, where="x"))
    event = entry(cell, guilty).termination
    assert event is not None and "held policy" in event.why and "the second time" in event.why
    assert condemned(cell, [guilty, other]) == [guilty] and cell.placement.killed_runaways == 1


def test_what_is_late_takes_up_no_more_runs_until_it_is_in_time() -> None:
    cell = Cell(places=2_000, concurrency=1000, most=100)
    cell.handle(on.LatenessMeasured(at=cell.at(), late_s=9.0))
    runs = [cell.submit("acme") for _ in range(LEAST + 1)]
    assert None not in runs and cell.placement.queue.running == LEAST, "the others wait"
    assert list(cell.states().values()).count(PlacementState.QUEUED) == 1


def test_what_is_past_its_deadline_ends_and_no_more_at_once_than_leave_the_journal_to_others() -> None:
    cell = Cell(deadline_s=60, concurrency=1, most=100)
    runs = [cell.submit("acme") for _ in range(40)]
    cell.settle(ends=False)
    cell.now_s = 61.0
    cell.handle(on.Ticked(at=cell.at()))
    event = entry(cell, runs[5]).termination if runs[5] else None
    assert isinstance(event, ev.KillRequested) and event.reason_code is ReasonCode.DEADLINE_EXCEEDED
    assert len(take(cell, do.EndRun)) == ENDING_AT_ONCE
    cell.settle(ends=False)
    assert not cell.states()


def test_what_an_operator_ends_waits_for_nobody() -> None:
    cell = Cell(concurrency=1, most=100)
    runs = [cell.submit("acme") for _ in range(40)]
    cell.settle(ends=False)
    for run in runs:
        assert run is not None
        cell.kill(run)
    assert len(take(cell, do.EndRun)) == 39


def test_a_tenant_that_idles_has_its_process_put_down_and_what_waits_there_is_taken_up_elsewhere() -> None:
    cell, (run,) = cell_of(1)
    cell.report(run, "acme/1", "parked")
    cell.settle(ends=False)
    for now_s in (0.0, 10.5):
        cell.now_s = now_s
        cell.handle(on.Ticked(at=cell.at()))
    assert take(cell, do.PutDownProcess) == [do.PutDownProcess(process="acme/1")]
    cell.send(run)
    cell.settle(ends=False)
    assert entry(cell, run).process == "acme/2" and list(cell.live) == ["acme/2"]


def test_a_process_of_the_pool_is_never_put_down_for_idling() -> None:
    cell = Cell(pool_size=1)
    cell.submit("acme")
    cell.settle(ends=True)
    for now_s in (0.0, 1000.0):
        cell.now_s = now_s
        cell.handle(on.Ticked(at=cell.at()))
    assert list(cell.live) == ["pool-0/1"] and not cell.todo


def test_an_idle_process_makes_room_and_none_is_made_before_there_is() -> None:
    cell = Cell(most=1, concurrency=10, places=10)
    run = cell.submit("acme")
    cell.settle(ends=False)
    other = cell.submit("beta")
    assert run is not None and other is not None
    cell.settle(ends=False)
    assert entry(cell, other).operation is Operation.START and list(cell.live) == ["acme/1"]
    cell.report(run, "acme/1", "parked")
    cell.settle(ends=False)
    assert entry(cell, other).state is PlacementState.WORKING and list(cell.live) == ["beta/2"]


def test_a_run_is_not_handed_to_a_process_that_is_about_to_end() -> None:
    cell = Cell(concurrency=10, places=10, most=10)
    cell.submit("acme")
    cell.settle(ends=False)
    run = cell.submit("acme")
    assert run is not None
    while not take(cell, do.Claim):
        cell.settle_one()
    cell.handle(stalled(cell, "run_over_already"))
    cell.carry_out(cell.todo.index(take(cell, do.Claim)[0]))
    cell.hear()
    assert not take(cell, do.Activate) and entry(cell, run).operation is Operation.START


def test_an_admission_that_can_never_be_durable_leaves_nothing() -> None:
    cell = Cell()
    run = cell.submit("acme")
    assert run is not None
    cell.handle(on.AdmissionFailed(at=cell.at(), run_id=run))
    assert not cell.states() and cell.placement.queue.running == 0 and not list(cell.placement.processes)


def test_a_full_queue_refuses_with_the_time_after_which_to_come_back() -> None:
    cell = Cell(queue=0)
    submitted = on.Submitted(at=cell.at(), run_id=RunId("run_1"), tenant=TenantId("acme"), admitted_us=0)
    assert cell.placement.handle(submitted) == [do.Refuse(run_id=RunId("run_1"), retry_after_s=1.0)]
    assert len(cell.placement) == 0


def test_a_process_that_comes_up_when_nobody_knows_of_it_is_killed() -> None:
    cell = Cell()
    killed = [do.KillProcess(process="acme/9")]
    assert cell.placement.handle(on.ProcessStarted(at=cell.at(), process="acme/9")) == killed


def test_a_second_kill_takes_the_place_of_a_cancellation() -> None:
    cell, (run,) = cell_of(1)
    cancel = ev.CancelRequested(at_us=1, by=ev.PrincipalId("ann"))
    cell.handle(on.TerminationRequested(at=cell.at(), run_id=run, termination=cancel))
    cell.kill(run)
    assert entry(cell, run).termination is KILL
    assert [i.event for i in take(cell, do.Deliver) if isinstance(i, do.Deliver)][-1] == ev.encode_event(KILL)
