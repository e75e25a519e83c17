"""`Activations`, case by case and played at random: what becomes of the runs of one process, and of their branches."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from airside.stack.errors import InternalError, LayerUnavailable
from airside.stack.ids import RunId, TenantId, child_run
from airside.stack.reasons import ReasonCode, RunStatus
from airside.stack.run import events as ev
from airside.stack.run.instructions import SpawnChildren
from airside.stack.run.topology import Branch
from airside.stack.scheduling import activation_events as on
from airside.stack.scheduling import activation_instructions as do
from airside.stack.scheduling.activations import Activations, ActivationState
from airside.stack.values import Limits, Outcome, Usage

PARENT = RunId("run_" + "0" * 32)
FIRST, SECOND = child_run(PARENT, 1, 0), child_run(PARENT, 1, 1)
ACME = TenantId("acme")
SPAWN = SpawnChildren(step=1, cause=0, branches=(Branch(route="x", text=""),) * 2, limits=Limits())
ENDED = ev.RunEnded(
    at_us=0, outcome=Outcome(status=RunStatus.COMPLETED, reason_code=ReasonCode.COMPLETED), usage=Usage()
)
APPROVED = ev.CancelRequested(at_us=0, by=ev.PrincipalId("someone"))
"""What a message brings: no matter what."""

GONE = LayerUnavailable("the journal is gone")


class Host:
    """The machine with what it asked for: nothing is carried out that a test does not carry out."""

    def __init__(self) -> None:
        self.machine = Activations()
        self.reported: list[tuple[RunId, str]] = []

    def happened(self, kind: type[on.ActivationEvent], run_id: RunId, epoch: int = 1, **what: Any) -> list[Any]:
        """Bring an event in; return what is to be done, reports apart."""
        out = self.machine.handle(kind(run_id=run_id, epoch=epoch, at_us=0, **what))
        self.reported += [(i.run_id, i.standing) for i in out if isinstance(i, do.Report)]
        return [i for i in out if not isinstance(i, do.Report)]

    def take_up(self, run_id: RunId, epoch: int = 1, parent: RunId | None = None) -> list[Any]:
        """Have a run here."""
        return self.happened(on.RunTakenUp, run_id, epoch, tenant=ACME, parent=parent)

    def fan_out(self, epoch: int = 1) -> None:
        """Have a run here that waits for two branches, whose claims are under way."""
        self.take_up(PARENT, epoch)
        (read,) = self.happened(on.BranchesWanted, PARENT, epoch, spawn=SPAWN)
        assert read.branches == (FIRST, SECOND)
        claims = self.happened(on.BranchesRead, PARENT, epoch, found={FIRST: (), SECOND: ()})
        assert [type(claim) for claim in claims] == [do.ClaimBranch] * 2

    def claim(self, branch: RunId, epoch: int = 1) -> list[Any]:
        """Have a claim succeed, and the branch taken up if it is to be."""
        out = self.happened(on.BranchClaimed, PARENT, epoch, branch=branch, events=())
        if any(isinstance(i, do.TakeUp) for i in out):
            self.take_up(branch, 1, PARENT)
        return out

    def ready(self) -> None:
        """Have a run here with both its branches."""
        self.fan_out()
        self.claim(FIRST)
        self.claim(SECOND)
        self.machine.check()

    def here(self) -> list[RunId]:
        """Return the runs that are here."""
        self.machine.check()
        return [entry.run_id for entry in self.machine]


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_claim_that_succeeds_after_its_parent_was_lost_begins_and_ends_nothing(host: Host) -> None:
    """Whoever takes the parent up next claims its branches anew: one that was told to end would be lost to it."""
    host.fan_out()
    host.happened(on.RunGivenUp, PARENT, error=GONE)
    assert host.claim(FIRST) == [] and host.here() == []


def test_a_claim_that_succeeds_after_its_parent_was_fenced_begins_and_ends_nothing(host: Host) -> None:
    host.fan_out()
    host.happened(on.RunFenced, PARENT, branches=(FIRST, SECOND))
    assert host.claim(FIRST) == [] and host.here() == [] and host.reported == []


def test_a_claim_that_succeeds_after_its_parent_was_taken_up_anew_is_left_to_the_next_one(host: Host) -> None:
    host.fan_out()
    assert [type(i) for i in host.take_up(PARENT, 2)] == [do.Drop]
    (read,) = host.happened(on.BranchesWanted, PARENT, 2, spawn=SPAWN)
    assert host.claim(FIRST, epoch=1) == [] and read.branches == (FIRST, SECOND)
    assert host.here() == [PARENT]


def test_a_run_that_ends_waits_for_the_claims_that_are_under_way_before_it_ends_what_is_left(host: Host) -> None:
    """One that succeeds begins nothing: it is ended with what is left, and only then is the run's end reported."""
    host.fan_out()
    host.claim(FIRST)
    (drop, cancel) = host.happened(on.RunConcluded, PARENT, ended=ENDED, open_branches=(FIRST, SECOND))
    assert (type(drop), cancel.run_id, type(cancel.event)) == (do.Drop, FIRST, ev.CancelRequested)
    assert [type(i) for i in host.happened(on.RunConcluded, FIRST, ended=ENDED)] == [do.Drop]
    assert (PARENT, "ended") not in host.reported
    assert [type(i) for i in host.claim(SECOND)] == [do.EndBranches]
    assert host.here() == []
    host.happened(on.BranchesEnded, PARENT)
    assert host.reported == [(FIRST, "ended"), (PARENT, "ended")]


def test_a_run_whose_branches_cannot_be_ended_is_lost_so_that_the_driver_ends_them(host: Host) -> None:
    host.ready()
    host.happened(on.RunConcluded, PARENT, ended=ENDED, open_branches=(FIRST, SECOND))
    for branch in (FIRST, SECOND):
        host.happened(on.RunConcluded, branch, ended=ENDED)
    host.happened(on.RunGivenUp, PARENT, error=GONE)
    assert host.reported[-1] == (PARENT, "lost") and host.here() == []


def test_a_run_that_ends_early_has_what_is_left_ended_once_its_branches_are_gone(host: Host) -> None:
    """However they go: one ends as it was told, another is fenced by who has it now."""
    host.ready()
    host.happened(on.RunConcluded, PARENT, ended=ENDED, open_branches=(FIRST, SECOND))
    host.happened(on.RunConcluded, FIRST, ended=ENDED)
    assert [type(i) for i in host.happened(on.RunFenced, SECOND)] == [do.Drop, do.EndBranches]


@pytest.mark.parametrize("state", ["reading", "paused"])
def test_a_run_that_has_ended_claims_no_branch_any_more(host: Host, state: str) -> None:
    host.fan_out()
    for branch in (FIRST, SECOND):
        host.happened(on.ClaimLost, PARENT, branch=branch)
        if state == "reading":
            host.happened(on.BranchDue, PARENT, branch=branch)
    out = host.happened(on.RunConcluded, PARENT, ended=ENDED, open_branches=(FIRST, SECOND))
    assert [type(i) for i in out] == [do.Drop, do.EndBranches]
    assert host.happened(on.BranchDue, PARENT, branch=FIRST) == []
    assert host.happened(on.BranchesRead, PARENT, found={FIRST: (), SECOND: ()}, parent_epoch=2) == []


def test_a_branch_whose_end_its_parent_knows_is_not_looked_at_again(host: Host) -> None:
    host.take_up(PARENT)
    (read,) = host.happened(on.BranchesWanted, PARENT, spawn=SPAWN, known=frozenset({0}))
    assert read.branches == (SECOND,)


def test_a_branch_tells_its_parent_its_end_once_wherever_that_is_seen(host: Host) -> None:
    host.ready()
    (drop, post) = host.happened(on.RunConcluded, FIRST, ended=ENDED)
    assert (drop.run_id, post.run_id, post.event.branch, post.event.run_id) == (FIRST, PARENT, 0, FIRST)
    assert host.happened(on.BranchesRead, PARENT, found={FIRST: (ENDED,)}) == []


@pytest.mark.parametrize(("error", "standing"), [(GONE, "lost"), (None, "lost"), (InternalError("x"), "broken")])
def test_a_branch_that_is_given_up_takes_its_parent_with_it(host: Host, error: Exception | None, standing: str) -> None:
    """Its sibling goes on, and is found by the parent's next activation."""
    host.ready()
    host.happened(on.RunGivenUp, FIRST, error=error)
    assert host.reported == [(FIRST, standing), (PARENT, standing)] and host.here() == [SECOND]
    host.take_up(PARENT, 2)
    (read,) = host.happened(on.BranchesWanted, PARENT, 2, spawn=SPAWN)
    assert read.branches == (FIRST,)


def test_a_fenced_run_takes_its_branches_along_and_reports_nothing(host: Host) -> None:
    host.ready()
    drops = host.happened(on.RunFenced, PARENT, branches=(FIRST, SECOND))
    assert [(type(i), i.run_id) for i in drops] == [(do.Drop, run) for run in (PARENT, FIRST, SECOND)]
    assert host.reported == [] and host.here() == []


def test_a_fenced_branch_is_looked_at_again_by_the_parent_that_waits_for_it(host: Host) -> None:
    host.ready()
    (drop, read) = host.happened(on.RunFenced, FIRST)
    assert (drop.run_id, read.branches, read.is_contended) == (FIRST, (FIRST,), True)
    (claim,) = host.happened(on.BranchesRead, PARENT, found={FIRST: ()}, parent_epoch=1)
    assert claim.branch == FIRST


def test_a_parent_that_somebody_else_has_claims_no_branch_back(host: Host) -> None:
    """Else two processes would take it from each other until one of them is dead."""
    host.ready()
    host.happened(on.RunFenced, FIRST)
    drops = host.happened(on.BranchesRead, PARENT, found={FIRST: ()}, parent_epoch=2)
    assert [i.run_id for i in drops] == [PARENT, SECOND] and host.here() == [] and host.reported == []


def test_a_lost_claim_is_looked_at_again_after_a_while(host: Host) -> None:
    host.fan_out()
    (look,) = host.happened(on.ClaimLost, PARENT, branch=FIRST)
    assert (look.branch, look.seconds > 0) == (FIRST, True)
    (read,) = host.happened(on.BranchDue, PARENT, branch=FIRST)
    assert (read.branches, read.is_contended) == ((FIRST,), True)


def test_a_message_has_a_run_that_waits_work_and_says_so_with_a_later_number(host: Host) -> None:
    """A driver that hears late that it waits knows by that which one is true."""
    host.take_up(PARENT)
    host.happened(on.RunRested, PARENT, standing="parked")
    before = host.machine.reports
    (post,) = host.happened(on.MessageBrought, PARENT, message=APPROVED)
    assert (post.event, host.reported) == (APPROVED, [(PARENT, "parked"), (PARENT, "working")])
    assert host.machine.reports > before


def test_a_run_that_is_put_down_does_not_say_that_it_works(host: Host) -> None:
    """The driver would take it up again, which has just put it down."""
    host.take_up(PARENT)
    host.happened(on.RunRested, PARENT, standing="parked")
    (post,) = host.happened(on.PutDownRequested, PARENT)
    host.happened(on.RunRested, PARENT, standing="working")
    host.happened(on.RunGivenUp, PARENT)
    assert isinstance(post.event, ev.RunSuspended) and host.reported == [(PARENT, "parked"), (PARENT, "lost")]


def test_what_happened_to_an_activation_that_is_over_changes_nothing(host: Host) -> None:
    host.take_up(PARENT, 1)
    host.take_up(PARENT, 2)
    for kind, what in ((on.RunGivenUp, {"error": GONE}), (on.RunFenced, {}), (on.RunConcluded, {"ended": ENDED})):
        assert host.happened(kind, PARENT, 1, **what) == []
    assert host.here() == [PARENT] and host.reported == []


INDEX = st.integers(0, 50)


class Play(RuleBasedStateMachine):
    """Anything may happen at any time; at last no branch is left that somebody here would have to see to."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.epoch = 0
        self.owed: list[tuple[type[on.ActivationEvent], RunId, int, dict[str, Any]]] = []
        self.cycles: dict[RunId, int] = {}
        self.ended: set[RunId] = set()

    def happen(self, kind: type[on.ActivationEvent], run_id: RunId, epoch: int, **what: Any) -> None:
        for i in self.host.happened(kind, run_id, epoch, **what):
            self.carry_out(i)

    def carry_out(self, i: Any) -> None:
        match i:
            case do.Drop():
                self.cycles.pop(i.run_id, None)
            case do.Post():
                assert i.run_id in self.cycles, "what is posted to is here"
                if isinstance(i.event, ev.CancelRequested):
                    self.owed.append((on.RunConcluded, i.run_id, self.cycles[i.run_id], {"ended": ENDED}))
            case do.TakeUp():
                self.take_up(i.branch, i.run_id)
            case do.ReadBranches():
                found = {run: (ENDED,) if run in self.ended else () for run in i.branches}
                self.owed.append((on.BranchesRead, i.run_id, i.epoch, {"found": found}))
            case do.ClaimBranch():
                self.owed.append((on.BranchClaimed, i.run_id, i.epoch, {"branch": i.branch, "events": ()}))
            case do.LookAgain():
                self.owed.append((on.BranchDue, i.run_id, i.epoch, {"branch": i.branch}))
            case do.EndBranches():
                assert not [run for run in self.cycles if run.startswith(f"{i.run_id}.")], "first those that are here"
                self.owed.append((on.BranchesEnded, i.run_id, i.epoch, {}))

    def take_up(self, run_id: RunId, parent: RunId | None = None) -> None:
        self.epoch += 1
        self.happen(on.RunTakenUp, run_id, self.epoch, tenant=ACME, parent=parent)
        self.cycles[run_id] = self.epoch

    @rule(anew=st.sampled_from((False, False, False, False, True)))
    def activate(self, anew: bool) -> None:
        if PARENT not in self.ended and (anew or PARENT not in self.cycles):
            self.take_up(PARENT)
            known = frozenset(n for n in (0, 1) if child_run(PARENT, 1, n) in self.ended)
            self.happen(on.BranchesWanted, PARENT, self.epoch, spawn=SPAWN, known=known)

    @rule(times=st.integers(1, 6))
    def go_on_well(self, times: int) -> None:
        for _ in range(times):
            self.go_on(0, True)

    @rule(index=INDEX, well=st.sampled_from((True, True, False)))
    def go_on(self, index: int, well: bool) -> None:
        if self.owed:
            kind, run_id, epoch, what = self.owed.pop(index % len(self.owed))
            if kind is on.RunConcluded:
                self.ended.add(run_id)
            elif kind is on.BranchClaimed and not well:
                kind, what = on.ClaimLost, {"branch": what["branch"]}
            elif not well and kind is not on.BranchDue:
                kind, what = on.RunGivenUp, {"error": GONE}
            self.happen(kind, run_id, epoch, **what)

    @rule(index=INDEX, how=st.sampled_from(("ends", "ends", "lost", "fenced")))
    def stop(self, index: int, how: str) -> None:
        if not self.cycles:
            return
        run_id, epoch = sorted(self.cycles.items())[index % len(self.cycles)]
        branches = (FIRST, SECOND) if run_id == PARENT else ()
        if how == "ends":
            self.ended.add(run_id)
            left = tuple(branch for branch in branches if branch not in self.ended)
            self.happen(on.RunConcluded, run_id, epoch, ended=ENDED, open_branches=left)
        elif how == "lost":
            self.happen(on.RunGivenUp, run_id, epoch, error=GONE)
        else:
            self.happen(on.RunFenced, run_id, epoch, branches=branches)

    @invariant()
    def what_is_here_is_what_has_a_cycle(self) -> None:
        self.host.machine.check()
        assert {(entry.run_id, entry.epoch) for entry in self.host.machine} == set(self.cycles.items())

    def teardown(self) -> None:
        """When nothing goes wrong any more, a run that has ended is reported, and one that waits has its branches."""
        for _ in range(200):
            if self.owed:
                self.go_on(0, True)
        assert not self.owed
        assert all(entry.state is not ActivationState.ENDING for entry in self.host.machine._runs.values())
        if PARENT in self.cycles:
            assert {FIRST, SECOND} <= self.ended | set(self.cycles), "no branch is left to nobody"


TestActivations = Play.TestCase
TestActivations.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
