"""A person's no, and the refusal of a value that was nobody's word, are told to the agent within their own bound."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.client.results import PendingApproval
from airside.stack.approvals.book import ApprovalBook, ApprovalRequested, ApprovalVoted
from airside.stack.approvals.notifications import notification_of
from airside.stack.cycle.in_memory import decision_of
from airside.stack.ids import ApprovalId, PrincipalId
from airside.stack.operations.overview import detail_of
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.evaluator import Evaluator, Facts
from airside.stack.reasons import ReasonCode
from airside.stack.resources import ResourceFact
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import View
from airside.stack.run.events import decode_event, encode_event
from airside.stack.run.machine import RunMachine
from airside.stack.security.identity import IdentityChecker, seal_identity
from airside.stack.values import MAX_REJECTIONS, Action, ApprovalRule, Finish, Identity, Limits, ValueOrigin
from tests.contract.test_reasons import ASK, World
from tests.helpers import KEY, RUN, Driven, concluded, decision, identity, only, spec

R = ReasonCode


def started(**limits: int) -> Driven:
    """Return an activated run."""
    run = Driven(Limits(**limits))
    only(run.activate(), do.PlanRoute)
    return run


def reject(run: Driven, n: int) -> object:
    """Propose a call, and have a person reject it."""
    run.propose(n=n)
    run.gate("require_approval")
    return run.approval("rejected", note=f"not {n}")


def steer(run: Driven, n: int) -> object:
    """Propose a call, and have it denied for where its values come from."""
    run.propose(n=n)
    steered = msgspec.structs.replace(decision("deny", detail="nobody's word"), steered=True)
    return run.gate(decision=steered)


@pytest.mark.parametrize(("no", "reason"), [(reject, R.APPROVAL_REJECTED), (steer, R.POLICY_DENIED)])
@pytest.mark.parametrize("given", [None, 0, 1, 3])
def test_the_agent_is_told_of_as_many_as_the_bound_and_the_next_ends_the_run(
    no: object, reason: ReasonCode, given: int | None
) -> None:
    """Without a bound of its own it is ten; refusals, of which none is allowed, are not used up by it."""
    most = MAX_REJECTIONS if given is None else given
    run = started() if given is None else started(max_rejections=given)
    for n in range(most):
        only(no(run, n), do.PlanRoute)  # type: ignore[operator]
    assert [record.result.reason_code for record in run.state.history] == [reason] * most
    assert (run.state.usage.refusals, run.machine.remaining().max_rejections) == (0, 0)
    outcome = concluded(no(run, most))  # type: ignore[operator]
    assert (outcome.status, outcome.reason_code) == ("refused", reason)


def test_both_count_together_and_neither_counts_as_a_refusal() -> None:
    """A run that may not be refused is ended by the first ordinary denial, and not before."""
    run = started(max_rejections=3)
    reject(run, 1)
    steer(run, 2)
    assert (run.state.usage.rejections, run.state.usage.refusals) == (2, 0)
    run.propose(n=3)
    assert concluded(run.gate("deny")).reason_code == R.POLICY_DENIED


def test_an_expired_approval_stays_a_refusal() -> None:
    """Nobody said no: the run may not wait for people over and over."""
    run = started()
    run.propose(n=1)
    run.gate("require_approval")
    assert concluded(run.approval("expired")).reason_code == R.APPROVAL_EXPIRED


def again(run: Driven, n: int, outcome: str = "require_approval") -> object:
    """Propose a call once more, and have it gated."""
    run.propose(n=n)
    return run.gate(outcome)


def test_a_call_that_a_person_rejected_is_put_to_nobody_again() -> None:
    """It is refused at once, with who rejected it, and counts as a rejection; another call is asked about."""
    run = started()
    reject(run, 1)
    only(again(run, 1), do.PlanRoute)  # type: ignore[arg-type]
    assert run.state.history[-1].result.error == "was rejected before by bob"
    assert run.state.history[-1].result.reason_code == R.APPROVAL_REJECTED
    assert (run.state.usage.rejections, run.state.usage.refusals) == (2, 0)
    only(again(run, 2), do.AskApproval)  # type: ignore[arg-type]
    run.approval("approved")
    assert run.phase == "gating"


def test_a_rejected_call_that_a_rule_allows_by_now_needs_nobody() -> None:
    """What was rejected is that people be overruled, not what no person is needed for."""
    run = started()
    reject(run, 1)
    only(again(run, 1, "allow"), do.Execute)  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", ["expired", "approved"])
def test_what_nobody_rejected_may_be_asked_about_again(outcome: str) -> None:
    """An approval that expired was no no, nor was a yes."""
    run = started(max_refusals=1)
    again(run, 1)
    run.approval(outcome)
    if outcome == "approved":
        run.gate()
        run.executed()
    only(again(run, 1), do.AskApproval)  # type: ignore[arg-type]


def test_the_same_call_is_the_same_however_it_is_written_and_whoever_proposes_it() -> None:
    """By its tool and by what the gate decided on: defaults filled in, keys in any order."""
    run = started()
    run.propose(n=1)
    run.gate("require_approval", digest="d1", arguments=b"{}")
    run.approval("rejected")
    run.visit("b")
    run.decide(Action(tool="pay", arguments={"currency": "eur", "n": 1}))
    only(run.gate("require_approval", digest="d1", arguments=b"{}"), do.PlanRoute)
    run.propose(n=1)
    only(run.gate("require_approval", digest="d1", arguments=b"{}", tool="lend"), do.AskApproval)


def test_an_edit_to_what_was_rejected_is_asked_about_no_second_time() -> None:
    """Where the edited call needs more people: somebody said no to it before."""
    run = started()
    reject(run, 1)
    again(run, 2)
    only(run.approval("edited", arguments=b'{"n":1}'), do.GateCall)
    only(run.gate("require_approval"), do.PlanRoute)
    assert run.state.history[-1].result.error == "was rejected before by bob"


def test_a_call_that_is_proposed_for_ever_is_a_loop() -> None:
    """Also if nobody is asked about it any more."""
    run = started(max_repeats=2)
    reject(run, 1)
    again(run, 1)
    run.visit()
    last = run.decide(Action(tool="pay", arguments={"n": 1}))
    assert concluded(last).reason_code == R.LOOP_DETECTED


def test_a_call_that_was_rejected_before_ends_a_run_that_is_told_no_more() -> None:
    """With the same reason as the rejection."""
    run = started(max_rejections=1)
    reject(run, 1)
    outcome = concluded(again(run, 1))  # type: ignore[arg-type]
    assert (outcome.reason_code, outcome.detail) == (R.APPROVAL_REJECTED, "was rejected before by bob")


def test_what_was_rejected_is_known_to_a_run_that_is_taken_up_again() -> None:
    """From its events alone."""
    run = started()
    reject(run, 1)
    run.machine = RunMachine.replay(run.machine.events)
    only(again(run, 1), do.PlanRoute)  # type: ignore[arg-type]
    assert RunMachine.replay(run.machine.events).state == run.machine.state


def test_the_story_and_the_steps_say_that_nobody_was_asked() -> None:
    """The journal has the gate's decision, and why it was put to nobody."""
    run = started()
    reject(run, 1)
    again(run, 1)
    (line,) = [each for each in run.machine.story().splitlines() if "step 2 gate" in each]
    assert "require_approval by rule r of v1, which was rejected before by bob: nobody is asked" in line
    first, second, *_ = detail_of(run.machine.events).steps
    assert (first.outcome, first.detail) == ("approval_rejected", "rejected by bob: not 1")
    assert (second.outcome, second.detail) == ("approval_rejected", "was rejected before by bob")


def test_who_is_asked_about_another_call_of_the_tool_is_told_what_was_rejected() -> None:
    """How many, by whom the last, and why; of another tool's calls nothing."""
    run = started()
    assert run.state.rejected.summary("pay") == ""
    reject(run, 1)
    assert run.state.rejected.summary("pay") == "1 call of this tool was rejected in this run, by bob: not 1"
    again(run, 1)
    run.propose(n=2)
    run.gate("require_approval")
    run.approval("rejected", by=(PrincipalId("cat"),), note="x" * 1000)
    told = run.state.rejected.summary("pay")
    assert told == f"2 calls of this tool were rejected in this run, the last by cat: {'x' * 300}"
    assert run.state.rejected.summary("lend") == ""


async def test_the_agent_sees_who_rejected_its_call_and_why_and_may_go_on() -> None:
    """The reason is in its history, under the call it is about; the run ends as the agent then ends it."""
    seen: list[tuple[str, str]] = []

    def agent(view: View) -> Action | Finish:
        seen.extend((record.result.reason_code, record.result.error) for record in view.history)
        return Finish(answer="without it") if view.history else Action(tool="pay", arguments={"amount": 3})

    world = await World(agent, policy=ASK).run()
    assert world.approvals.book.pending()[0].request.rejected_before == ""
    book = world.approvals.book
    boss = identity(principal=PrincipalId("bob"), roles=("boss",))
    vote = book.vote(boss, book.pending()[0].request.approval_id, "reject", now_us=0)
    vote = msgspec.structs.replace(vote, note="too dear")  # type: ignore[type-var]
    answer = world.approvals.apply(vote)  # type: ignore[arg-type]
    assert answer is not None
    await world.cycle.deliver(answer)
    assert world.reason is R.COMPLETED
    assert seen == [("approval_rejected", "rejected by bob: too dear")]


def denied(*rules: str, origin: str) -> tuple[str, bool]:
    """Return the rule that denies a call whose only value has this origin, and whether it is for that alone."""
    bundle = load_bundle("version: v1\nrules: [{id: a, outcome: allow}, " + ", ".join(rules) + "]\n")
    traced = ValueOrigin(path="to", value="x", part="authority", origin=origin)  # type: ignore[arg-type]
    facts = Facts(
        tool=spec(),
        identity=identity(),
        arguments={},
        labels=frozenset(),
        remaining=Limits(),
        now_us=0,
        origins=(traced,),
    )
    found = Evaluator(bundle).evaluate(facts)
    return found.rule, found.steered


STEERED = "{id: b, outcome: deny, when: {origins: [{of: any, outside: [request]}]}}"
PLAIN = "{id: c, outcome: deny, when: {tool: [pay]}}"


def test_a_denial_is_steered_only_if_no_rule_denies_the_call_whatever_its_values() -> None:
    """Where both kinds of rule match, the ordinary one decides."""
    assert denied(STEERED, origin="tool") == ("b", True)
    assert denied(STEERED, PLAIN, origin="tool") == denied(PLAIN, STEERED, origin="tool") == ("c", False)
    assert denied(STEERED, origin="request") == ("a", False)
    asking = STEERED.replace("outcome: deny", "outcome: require_approval, approval: {roles: [boss]}")
    assert denied(asking, origin="tool") == ("b", False)


@pytest.mark.parametrize(
    ("more", "steered"),
    [
        ("tool: [pay], effect: [write], risk: [low, medium, high]", True),
        ("tenant: [acme], principal: [ann], roles: [clerk]", True),
        ("labels: [seen]", True),
        ("arguments: [{path: amount, op: gt, value: 500}]", False),
        ("tool: [pay], arguments: [{path: note, op: exists}]", False),
        ("remaining: [{unit: max_tool_calls, op: gt, value: 3}]", False),
        ("time: {zone: UTC}", False),
        ("resource: {kind: order, owner: other}", False),
    ],
)
def test_a_denial_is_steered_only_if_nothing_else_of_it_can_be_tried_out(more: str, steered: bool) -> None:
    """A bound on an amount is not to be found by trying amounts, one denial after the other."""
    written = f"{{id: b, outcome: deny, when: {{origins: [{{of: any, outside: [request]}}], {more}}}}}"
    bundle = load_bundle(f"version: v1\nrules: [{written}]\n")
    evaluator = Evaluator(bundle)
    facts = Facts(
        tool=spec(resources=(("order", "note"),)),
        identity=identity(roles=("clerk",)),
        arguments={"amount": 700, "note": "x"},
        labels=frozenset({"seen"}),
        remaining=Limits(),
        now_us=0,
        origins=(ValueOrigin(path="to", value="x", part="authority", origin="tool"),),
        resources=(
            ResourceFact(kind="order", path="note", declared="note", state="found", id="x", sensitivity="public"),
        ),
    )
    found = evaluator.evaluate(facts)
    assert (found.rule, found.outcome, found.steered) == ("b", "deny", steered)


async def test_an_approver_is_told_of_the_calls_that_were_rejected_before() -> None:
    """In what is asked, in what is shown, and in the notice."""

    def agent(view: View) -> Action:
        return Action(tool="pay", arguments={"amount": 3 + len(view.history)})

    world = await World(agent, policy=ASK).run()
    book = world.approvals.book
    boss = identity(principal=PrincipalId("bob"), roles=("boss",))
    vote = book.vote(boss, book.pending()[0].request.approval_id, "reject", now_us=0, note="too dear")
    answer = world.approvals.apply(vote)  # type: ignore[arg-type]
    assert answer is not None
    await world.cycle.deliver(answer)
    (waiting,) = book.pending()
    told = "1 call of this tool was rejected in this run, by bob: too dear"
    assert waiting.request.rejected_before == notification_of(waiting).data["rejected_before"] == told
    shown = PendingApproval.of(msgspec.json.encode(waiting))
    assert shown.rejected_before == told and f"  !! {told}" in shown.lines()


def test_only_who_rejected_is_named_where_others_had_approved() -> None:
    """With the reason that they gave."""
    request = ApprovalRequested(
        at_us=0,
        approval_id=ApprovalId("apr_1"),
        tenant=identity().tenant,
        requester=identity().principal,
        run_id=RUN,
        step=1,
        tool="pay",
        tool_version="1",
        policy_version="v1",
        rule="r",
        effect="write",
        arguments=msgspec.Raw(b"{}"),
        binding="",
        terms=ApprovalRule(roles=("boss",), quorum=2),
        expires_us=9,
    )
    book = ApprovalBook([request])
    for name, verdict in (("bob", "approve"), ("cat", "reject")):
        who = identity(principal=PrincipalId(name), roles=("boss",))
        vote = book.vote(who, request.approval_id, verdict, now_us=1, note=name)  # type: ignore[arg-type]
        assert isinstance(vote, ApprovalVoted)
        approval = book.apply(vote)
    decided = decision_of(approval, KEY, 2)
    assert decided is not None and (decided.by, decided.note) == (("cat",), "cat")


# What was journaled before there was this bound.


def as_before(event: ev.Event) -> ev.Event:
    """Return an event as a journal from before gives it back: without the fields that came with the bound."""
    fields = msgspec.json.decode(encode_event(event))
    fields.pop("apart", None)
    fields.get("decision", {}).pop("steered", None)
    fields.get("usage", {}).pop("rejections", None)
    assert "max_rejections" not in str(fields)
    return decode_event(msgspec.json.encode(fields))  # type: ignore[no-any-return]


@pytest.mark.parametrize("allowed", [0, 2])
@pytest.mark.parametrize("over", [True, False])
def test_a_run_from_before_replays_to_where_it_stood(allowed: int, over: bool) -> None:
    """Its rejections were refusals: the one that ended it still does, and those it was told of are told."""
    run = started(max_refusals=allowed)
    for n in range(allowed + over):
        run.propose(n=n)
        run.gate("require_approval")
        run.approval("rejected", apart=False)
    if over:
        run.end()
    replayed = RunMachine.replay(as_before(event) for event in run.machine.events)
    assert (replayed.state.phase, replayed.is_over) == (run.machine.state.phase, over)
    assert replayed.state.outcome == run.machine.state.outcome and replayed.usage() == run.machine.usage()


def test_a_run_from_before_that_asked_about_one_call_twice_replays_as_it_went() -> None:
    """Nothing said then that a rejection holds."""
    run = started(max_refusals=3)
    for _ in range(2):
        run.propose(n=1)
        only(run.gate("require_approval"), do.AskApproval)
        run.approval("rejected", apart=False)
    again(run, 1)
    run.approval("approved")
    replayed = RunMachine.replay(as_before(event) for event in run.machine.events)
    assert (replayed.state.phase, replayed.state.history) == (run.machine.state.phase, run.machine.state.history)


def test_a_run_that_waited_before_is_told_by_the_new_bound() -> None:
    """What is decided now counts apart, whatever the run's own events say."""
    run = started()
    run.propose(n=1)
    run.gate("require_approval")
    replayed = RunMachine.replay(as_before(event) for event in run.machine.events)
    gated = replayed.state.gated
    assert gated is not None and gated.approval_id is not None
    no = ev.ApprovalDecided(at_us=9, step=1, approval_id=gated.approval_id, outcome="rejected", apart=True)
    only(replayed.handle(no), do.PlanRoute)


def test_an_identity_that_was_sealed_before_keeps_its_seal() -> None:
    """What nobody gave is not encoded, so that a run that waits can go on after an upgrade."""
    encoded = msgspec.msgpack.encode(identity())
    assert b"max_rejections" not in encoded
    again = msgspec.msgpack.encode(msgspec.msgpack.decode(encoded, type=Identity))
    assert IdentityChecker(KEY).check(again, seal_identity(KEY, identity(), "run:x"), "run:x") is not None


@given(ceiling=st.none() | st.integers(0, 40), asked=st.integers(0, 40))
def test_a_request_can_only_lower_the_bound(ceiling: int | None, asked: int) -> None:
    """Also where nobody gave one, and it is the usual one."""
    limits = Limits() if ceiling is None else Limits(max_rejections=ceiling)
    assert limits.lowered({"max_rejections": asked}).rejections == min(asked, limits.rejections)
    assert limits.lowered({"max_steps": 3}).rejections == limits.rejections
