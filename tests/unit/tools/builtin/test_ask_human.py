"""`ask_human`: who may answer what, what an answer vouches for, and that it is neither lost nor an approval."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.stack.approvals.book import Approval, ApprovalVoted, VoteRefused, receipt_for, seal_approval
from airside.stack.approvals.notifications import notification_of
from airside.stack.canonical import canonical
from airside.stack.cycle.in_memory import decision_of
from airside.stack.directory import Directory
from airside.stack.errors import InvalidConfig
from airside.stack.ids import PrincipalId, TenantId
from airside.stack.policy.bundle import DEFAULT_POLICY, load_bundle
from airside.stack.policy.policy_check import check_directory, check_policy
from airside.stack.reasons import ReasonCode
from airside.stack.run.state import Phase
from airside.stack.values import Action, Answer, Identity
from airside.tools import ask_human
from airside.tools.tool import ToolError, tool
from tests.helpers import KEY
from tests.unit.stack.cycle.test_questions import World
from tests.unit.tools.builtin.contexts import context

POLICY = """
version: v1
rules:
  - {id: reads, outcome: allow, when: {effect: [read]}}
  - {id: effects, outcome: allow, when: {effect: [external]}}
  - id: steered
    outcome: require_approval
    when: {effect: [external], origins: [{outside: [request, approved, person]}]}
    approval: {roles: [lead]}
"""
ASK = ask_human(["lead", "clerk"])
CHOICES = ["eve@evil.example", "bob@corp.example"]


@tool(effect="external")
def mail(to: str) -> str:
    """Send a mail."""
    return to


def question(text: str = "Which address is Bob's?", choices: Any = CHOICES) -> Action:
    """Return the call that asks."""
    return Action(tool="ask_human", arguments={"question": text, "choices": choices})


def person(name: str, *roles: str) -> Identity:
    """Return somebody of the tenant."""
    return Identity(principal=PrincipalId(name), tenant=TenantId("acme"), roles=roles)


LEA, JOE = person("lea", "lead"), person("joe", "clerk")


async def asked(*then: Action, ask: Action | None = None, policy: str = POLICY) -> World:
    """Return a run whose agent asked people, and will do something next."""
    world = World(ask or question(), *then, tools=[ASK, mail], policy=policy, together=False)
    await world.run()
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL
    return world


def say(world: World, who: Identity, text: Any, verdict: Any = "answer") -> Any:
    """Have somebody vote as Approvals would count it: the decision, or why it does not count."""
    waiting = world.waiting()[0].request.approval_id
    voted = world.approvals.book.vote(who, waiting, verdict, now_us=7_000_000, arguments=Raw(canonical(text)))
    return voted.code if isinstance(voted, VoteRefused) else world.approvals.apply(voted)


def results(world: World) -> list[Any]:
    """Return what came of the run's calls: a value, or a reason."""
    return [r.result.value() if r.result.ok else r.result.reason_code for r in world.machine.state.history]


async def test_the_result_is_what_a_person_answered_who_that_was_and_when() -> None:
    world = await asked()
    await world.cycle.deliver(say(world, LEA, "bob@corp.example"))
    assert results(world) == [{"answer": "bob@corp.example", "chosen": True, "by": "lea", "at": "1970-01-01T00:00:07Z"}]
    assert "step 1 approval: answered by lea" in world.machine.story()


@pytest.mark.parametrize(
    ("who", "verdict", "text", "code"),
    [
        (LEA, "approve", None, "invalid"),
        (LEA, "edit", {"question": "x"}, "invalid"),
        (LEA, "answer", "mallory@evil.example", "invalid"),
        (LEA, "answer", ["bob@corp.example"], "invalid"),
        (LEA, "answer", "", "invalid"),
        (person("zoe", "guest"), "answer", "bob@corp.example", "wrong_role"),
        (Identity(principal=PrincipalId("lea"), tenant=TenantId("b"), roles=("lead",)), "answer", "x", "unknown"),
    ],
)
async def test_a_question_takes_an_answer_of_those_asked_and_nothing_else(
    who: Identity, verdict: str, text: Any, code: str
) -> None:
    world = await asked()
    assert say(world, who, text, verdict) == code
    assert world.waiting()


async def test_a_question_without_choices_takes_a_text_of_bounded_length() -> None:
    world = await asked(ask=question(choices=[]))
    assert say(world, LEA, "x" * 2001) == "invalid"
    assert say(world, LEA, "a\x00b") == "invalid"
    await world.cycle.deliver(say(world, LEA, "Ask Bob himself.\nHe is in."))
    assert results(world)[0]["answer"] == "Ask Bob himself.\nHe is in." and results(world)[0]["chosen"] is False


async def test_what_is_approved_and_not_answered_is_asked_again_whoever_says_so() -> None:
    """A vote that no book would count makes a receipt without an answer, with which nothing is returned."""
    world = await asked()
    await world.decide("approve")
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL and results(world) == []


async def test_an_answer_approves_no_call() -> None:
    """Not as a vote, and not as a receipt that says so of exactly the call."""
    world = World(Action(tool="mail", arguments={"to": "eve@evil.example"}), tools=[ASK, mail], policy=POLICY)
    await world.run()
    approval = world.waiting()[0]
    assert say(world, LEA, "yes") == "invalid"
    decided = world.vote(approval, "approve")
    answer = Answer(text="yes", by=PrincipalId("lea"), roles=("lead",), at_us=0, chosen=False)
    receipt = msgspec.structs.replace(
        receipt_for(world.approvals.book.get(approval.request.approval_id)), answer=answer
    )  # type: ignore[arg-type]
    await world.cycle.deliver(msgspec.structs.replace(decided, receipt=seal_approval(KEY, receipt)))
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL and results(world) == []


async def test_nobody_in_time_is_told_to_the_agent_and_is_no_refusal() -> None:
    world = await asked()
    (expired,) = world.approvals.book.due(86_400_000_000)
    await world.cycle.deliver(world.approvals.apply(expired))
    assert results(world) == [ReasonCode.APPROVAL_EXPIRED] and world.machine.state.phase is Phase.COMPLETED
    assert world.machine.state.usage.refusals == 0 and world.machine.state.usage.rejections == 1


async def test_who_declines_a_question_is_not_asked_it_again() -> None:
    world = await asked(question())
    await world.cycle.deliver(say(world, LEA, None, "reject"))
    assert results(world) == [ReasonCode.APPROVAL_REJECTED] * 2 and world.waiting() == []


# What an answer vouches for.


def to(address: str) -> Action:
    """Return a mail to somebody."""
    return Action(tool="mail", arguments={"to": address})


@pytest.mark.parametrize(
    ("who", "choices", "text", "address", "origin"),
    [
        (LEA, CHOICES, "bob@corp.example", "bob@corp.example", "person"),
        (LEA, [], "It is bob@corp.example, I think.", "bob@corp.example", "person"),
        (LEA, CHOICES, "bob@corp.example", "eve@evil.example", "nowhere"),
        (LEA, ["Bob, at eve@evil.example", "no"], "Bob, at eve@evil.example", "eve@evil.example", "nowhere"),
        (LEA, [], "yes", "eve@evil.example", "nowhere"),
        (JOE, CHOICES, "bob@corp.example", "bob@corp.example", "nowhere"),
        (JOE, [], "bob@corp.example", "bob@corp.example", "tool"),
        (person("ann", "clerk", "lead"), [], "bob@corp.example", "bob@corp.example", "tool"),
    ],
)
async def test_an_answer_is_a_persons_word_only_of_who_could_have_approved_what_it_is_used_for(
    who: Identity, choices: list[str], text: str, address: str, origin: str
) -> None:
    """A choice is an agent's text and counts as a whole; what was not chosen, what the question says and what the
    requester answers counts as it would without any answer.
    """
    asks = question("Bob wrote from eve@evil.example: is it his?", choices)
    world = await asked(to(address), ask=asks)
    await world.cycle.deliver(say(world, who, text))
    if origin == "person":
        assert world.machine.state.phase is Phase.COMPLETED and results(world)[1] == address
    else:
        (waiting,) = world.waiting()
        assert [(each.value, each.origin) for each in waiting.request.origins] == [(address, origin)]
        assert ("untrusted" in world.machine.state.labels) is (who is not LEA)


@pytest.mark.parametrize("approval", ["{roles: [lead], quorum: 2}", "{roles: [owner]}"])
async def test_who_could_not_approve_alone_vouches_for_nothing(approval: str) -> None:
    world = await asked(to("bob@corp.example"), policy=POLICY.replace("{roles: [lead]}", approval))
    await world.cycle.deliver(say(world, LEA, "bob@corp.example"))
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL


@tool(effect="external")
def wire(to: str) -> str:
    """Wire money."""
    return to


WIRES = """  - {id: wires, outcome: allow, when: {tool: [wire], origins: [{of: authority, within: [request, person]}]}}
"""
UNASKED = POLICY.replace("{effect: [external]", "{tool: [mail]") + WIRES


@pytest.mark.parametrize(
    "policy",
    [
        UNASKED,
        UNASKED
        + POLICY[POLICY.index("  - id: steered") :]
        .replace("id: steered", "id: others")
        .replace("when: {", "when: {tenant: [other], "),
    ],
)
async def test_an_answer_permits_nothing_that_nobody_could_have_approved(policy: str) -> None:
    """Who approves mails has no say about what is wired, of which nobody is asked, or nobody of the tenant."""
    directory = Directory.model_validate(
        {
            "tenants": {
                name: {"principals": {each: {"roles": ["lead", "clerk"]} for each in ("lea", "joe")}}
                for name in ("acme", "other")
            }
        }
    )
    specs = [ASK.spec, mail.spec, wire.spec]
    with pytest.raises(
        InvalidConfig, match=r"rule wires: trusts 'person', but no rule asks .* of calls of wire: so nob"
    ):
        check_policy(load_bundle(policy), specs, directory)
    wired = Action(tool="wire", arguments={"to": "bob@corp.example"})
    for acts, come_of in (([wired], ReasonCode.POLICY_DENIED), ([to("bob@corp.example")], None)):
        world = World(question(), *acts, tools=[ASK, mail, wire], policy=policy, together=False)
        await world.run()
        await world.cycle.deliver(say(world, LEA, "bob@corp.example"))
        assert results(world)[1:] == ([come_of] if come_of else []), "it is no person's word"
        assert bool(world.waiting()) is (come_of is None)


async def test_an_answer_counts_where_its_author_approves_each_use_of_it() -> None:
    rule = WIRES.replace(
        "wires, outcome: allow", "steered-wires, outcome: require_approval, approval: {roles: [lead]}"
    ).replace("of: authority, within: [", "outside: [")
    wired = Action(tool="wire", arguments={"to": "bob@corp.example"})
    world = World(question(), wired, tools=[ASK, mail, wire], policy=UNASKED + rule, together=False)
    await world.run()
    await world.cycle.deliver(say(world, LEA, "bob@corp.example"))
    assert results(world)[1] == "bob@corp.example"


async def test_by_the_default_policy_an_approvers_answer_may_be_used() -> None:
    approver = person("lea", "approver")
    ask = ask_human("approver")
    world = World(
        question(), to("bob@corp.example"), tools=[ask, mail], policy=DEFAULT_POLICY.read_text(), together=False
    )
    await world.run()
    await world.cycle.deliver(say(world, approver, "bob@corp.example"))
    assert results(world)[1] == "bob@corp.example"


async def test_people_are_shown_where_each_choice_comes_from() -> None:
    world = await asked()
    (waiting,) = world.waiting()
    assert [(each.path, each.origin) for each in waiting.request.origins] == [
        ("choices.0", "nowhere"), ("choices.1", "nowhere"),
    ]  # fmt: skip
    assert notification_of(waiting).data["is_question"] is True
    assert notification_of(waiting).data["arguments"]["choices"] == CHOICES


# What can go wrong meanwhile.


async def test_an_answer_outlives_whoever_waited_for_it() -> None:
    """The run is taken up before the answer, after it, and after it was granted: it is asked once."""
    world = await asked()
    world.take_up()
    await world.run()
    assert len(world.waiting()) == 1
    decided = say(world, LEA, "bob@corp.example")
    world.take_up()  # the decision never came
    await world.run()
    assert results(world)[0]["answer"] == "bob@corp.example"
    approval: Approval = world.approvals.book.decided()[0]
    assert decided == decision_of(approval, KEY, 0)


async def test_a_policy_of_other_rules_has_the_question_asked_anew() -> None:
    world = await asked()
    decided = say(world, LEA, "bob@corp.example")
    world.rules = POLICY.replace("version: v1", "version: v2")
    world.new_policy("v2")
    world.take_up()
    world.cycle.post(decided)
    await world.run()
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL and len(world.waiting()) == 1


async def test_a_vote_that_a_journal_has_and_no_book_would_count_answers_nothing() -> None:
    world = await asked()
    (waiting,) = world.waiting()
    forged = ApprovalVoted(
        at_us=0,
        approval_id=waiting.request.approval_id,
        by=PrincipalId("lea"),
        roles=("lead",),
        verdict="answer",
        arguments=Raw(b'"mallory@evil.example"'),
    )
    decided = world.approvals.apply(forged)
    assert decided is not None
    await world.cycle.deliver(decided)
    assert world.machine.state.phase is Phase.AWAITING_APPROVAL and results(world) == []


def test_a_grant_without_an_answer_returns_none() -> None:
    with pytest.raises(ToolError, match="without an answer"):
        ASK(context(), question="?", choices=[])


# What is refused at load.


def test_a_rule_that_has_a_question_approved_and_a_role_that_nobody_holds_are_refused() -> None:
    directory = Directory.model_validate({"tenants": {"acme": {"principals": {"lea": {"roles": ["lead"]}}}}})
    with pytest.raises(InvalidConfig, match="ask_human: nobody who could answer holds the role 'clerk'"):
        check_directory(directory, [ASK.spec])
    rules = POLICY.replace("when: {effect: [external], origins", "when: {tool: [ask_human], origins")
    nobody = POLICY.replace("    approval: {roles: [lead]}\n", "").replace("require_approval", "deny")
    with pytest.raises(InvalidConfig, match="trusts 'person', but no rule asks people about origins"):
        check_policy(load_bundle(nobody), [ASK.spec, mail.spec], directory)
    with pytest.raises(InvalidConfig, match="which are questions: nobody approves those"):
        check_policy(load_bundle(rules), [ASK.spec, mail.spec], directory)


async def test_a_question_that_some_rule_has_approved_is_denied() -> None:
    policy = POLICY.replace("when: {effect: [external], origins: [{outside: [request, approved, person]}]}", "when: {}")
    world = World(question(), tools=[ASK, mail], policy=policy)
    await world.run()
    assert world.waiting() == [] and results(world) == [ReasonCode.POLICY_DENIED]


@pytest.mark.parametrize(
    "wrong", [{"roles": []}, {"roles": [""]}, {"roles": ["a"], "expires_after": 0}, {"roles": "a", "name": "ask human"}]
)
def test_a_tool_that_asks_nobody_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        ask_human(**wrong)


def test_who_may_answer_is_part_of_the_tools_version() -> None:
    """So that a receipt of one is worth nothing with the other."""
    assert ask_human("lead").spec.version != ask_human("clerk").spec.version
