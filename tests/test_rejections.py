"""A person's no, and the refusal of a value that was nobody's word, are told to the agent within their own bound."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack import events as ev
from airside.stack import instructions as do
from airside.stack.agents import View
from airside.stack.evaluator import Evaluator, Facts
from airside.stack.events import decode_event, encode_event
from airside.stack.identity import IdentityChecker, seal_identity
from airside.stack.ids import PrincipalId
from airside.stack.machine import RunMachine
from airside.stack.policy import load_bundle
from airside.stack.reasons import ReasonCode
from airside.stack.resources import ResourceFact
from airside.stack.values import MAX_REJECTIONS, Action, Finish, Identity, Limits, Traced
from tests.helpers import KEY, Driven, concluded, decision, identity, only, spec
from tests.test_reasons import ASK, World

R = ReasonCode


def started(**limits: int) -> Driven:
    """Return an activated run."""
    run = Driven(Limits(**limits))
    only(run.activate(), do.Plan)
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
        only(no(run, n), do.Plan)  # type: ignore[operator]
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


def test_the_same_call_is_not_put_to_people_for_ever() -> None:
    """A rejected call that is proposed again and again is a loop."""
    run = started(max_repeats=2)
    reject(run, 1)
    reject(run, 1)
    run.visit()
    again = run.decide(Action(tool="pay", arguments={"n": 1}))
    assert concluded(again).reason_code == R.LOOP_DETECTED


async def test_the_agent_sees_who_rejected_its_call_and_why_and_may_go_on() -> None:
    """The reason is in its history, under the call it is about; the run ends as the agent then ends it."""
    seen: list[tuple[str, str]] = []

    def agent(view: View) -> Action | Finish:
        seen.extend((record.result.reason_code, record.result.error) for record in view.history)
        return Finish(answer="without it") if view.history else Action(tool="pay", arguments={"amount": 3})

    world = await World(agent, policy=ASK).run()
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
    traced = Traced(path="to", value="x", part="authority", origin=origin)  # type: ignore[arg-type]
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
        origins=(Traced(path="to", value="x", part="authority", origin="tool"),),
        resources=(
            ResourceFact(kind="order", path="note", declared="note", state="found", id="x", sensitivity="public"),
        ),
    )
    found = evaluator.evaluate(facts)
    assert (found.rule, found.outcome, found.steered) == ("b", "deny", steered)


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


def test_a_run_that_waited_before_is_told_by_the_new_bound() -> None:
    """What is decided now counts apart, whatever the run's own events say."""
    run = started()
    run.propose(n=1)
    run.gate("require_approval")
    replayed = RunMachine.replay(as_before(event) for event in run.machine.events)
    gated = replayed.state.gated
    assert gated is not None and gated.approval_id is not None
    no = ev.ApprovalDecided(at_us=9, step=1, approval_id=gated.approval_id, outcome="rejected", apart=True)
    only(replayed.handle(no), do.Plan)


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
