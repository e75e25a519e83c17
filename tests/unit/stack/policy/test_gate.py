"""The gate: what a grant is bound to, which receipts count, and what is refused before policy is asked."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.stack.approvals.book import (
    ApprovalBook,
    ApprovalReceipt,
    ApprovalRequested,
    call_digest,
    receipt_for,
    seal_approval,
)
from airside.stack.canonical import canonical, digest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.cycle.in_memory import decision_of
from airside.stack.errors import InvalidConfig
from airside.stack.ids import NO_ISSUER, ApprovalId, PrincipalId, effect_key
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.grants import GRANT_LIFE_US, Grant, open_grant
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.security.seals import from_text, to_text
from airside.stack.values import Identity, Limits
from tests.helpers import EXECUTOR, KEY, RUN, gate_request, identity, spec

NOW = 1_000_000
ALLOW = "version: v1\nrules: [{id: all, outcome: allow}]\n"
ASK = (
    "version: v1\nrules: [{id: ask, outcome: require_approval, "
    "approval: {roles: [boss], quorum: QUORUM, expires_after_s: 60}}]\n"
)
BOB = (PrincipalId("bob"), ("boss",))
EVE = (PrincipalId("eve"), ("boss", "clerk"))
JOE = (PrincipalId("joe"), ("clerk",))


def gate(bundle: str = ALLOW, tools: tuple[ToolSpec, ...] = (), quorum: int = 1) -> Gate:
    """Return a gate with the tool `pay` and a counter for nonces."""
    count = iter(range(10_000))
    return Gate(
        bundle=load_bundle(bundle.replace("QUORUM", str(quorum))),
        tools=tools or (spec(),),
        seal_key=KEY,
        now_us=lambda: NOW,
        random=lambda n: next(count).to_bytes(n, "big"),
    )


def request(
    arguments: Any = None, *, who: Identity | None = None, raw: bytes | None = None, **fields: Any
) -> GateRequest:
    """Return ann's request to pay 5."""
    data = raw if raw is not None else canonical({"amount": 5} if arguments is None else arguments)
    given = {"tool": "pay", "step": 3, "attempt": 2, "epoch": 7, "remaining": Limits(tool_ms=9_000)} | fields
    return gate_request(given.pop("tool"), data, who=who, **given)


def grant_of(reply: GateReply) -> Grant:
    """Return the grant of an allow."""
    assert reply.decision.outcome == "allow", reply.decision
    grant = open_grant(KEY, reply.grant)
    assert grant is not None
    return grant


def code(reply: GateReply) -> str:
    """Return the reason of a deny, which must come without a grant."""
    assert reply.decision.outcome == "deny" and reply.grant == b""
    return str(reply.decision.reason_code)


# Grants.


def test_a_grant_is_bound_to_everything_its_docstring_lists() -> None:
    reply = gate().decide(request())
    grant = grant_of(reply)
    full = b'{"amount":5,"currency":"eur"}'
    assert grant == Grant(
        tenant=identity().tenant,
        principal=identity().principal,
        run_id=RUN,
        step=3,
        attempt=2,
        epoch=7,
        tool="pay",
        tool_version=spec().version,
        arguments_sha256=digest(full),
        key=effect_key(RUN, 3),
        policy_version="v1",
        approval_id="",
        executor=EXECUTOR,
        timeout_ms=9_000,
        expires_us=NOW + GRANT_LIFE_US,
        issuer=NO_ISSUER,
        nonce=grant.nonce,
        left_ms=601_000,
    )
    assert reply.arguments == full and reply.digest == digest(full)


def test_two_grants_for_the_same_call_have_different_nonces() -> None:
    one = gate()
    assert grant_of(one.decide(request())).nonce != grant_of(one.decide(request())).nonce


def test_a_grant_gives_the_smaller_of_the_tools_and_the_runs_deadline() -> None:
    short = gate(tools=(spec(timeout_ms=50),))
    assert grant_of(short.decide(request())).timeout_ms == 50


def test_a_deny_and_a_request_for_approval_come_without_a_grant() -> None:
    denied = gate("version: v1\nrules: [{id: never, outcome: deny}]\n").decide(request())
    assert code(denied) == "policy_denied" and denied.decision.rule == "never"
    asked = gate(ASK).decide(request())
    assert asked.decision.outcome == "require_approval" and asked.grant == b"" and asked.approval_id


def test_a_call_without_an_executor_is_not_granted() -> None:
    assert code(gate().decide(request(executor=""))) == "policy_error"


def test_a_reply_tells_what_the_tool_is() -> None:
    tool = spec(effect="external", repeatable=True, cost_microusd=12)
    reply = gate(tools=(tool,)).decide(request())
    assert (reply.effect, reply.risk, reply.repeatable, reply.cost_microusd) == ("external", "high", True, 12)
    assert reply.tool_version == tool.version


def test_a_gate_without_tools_is_a_mistake_of_the_app() -> None:
    with pytest.raises(InvalidConfig, match="no tools"):
        Gate(bundle=load_bundle(ALLOW), tools=[], seal_key=KEY, now_us=lambda: 0, random=bytes)


# Identity and scopes.


def test_an_identity_whose_seal_does_not_hold_is_a_policy_error() -> None:
    forged = msgspec.msgpack.encode(identity(roles=("boss",)))
    assert code(gate().decide(request(identity=forged))) == "policy_error"


@pytest.mark.parametrize(
    "proof", ["", "x", "\udc80", to_text(b"\0" * 32), seal_identity(b"j" * 32, identity(), run_subject(RUN))]
)
def test_a_forged_proof_is_a_policy_error(proof: str) -> None:
    assert code(gate().decide(request(proof=proof))) == "policy_error"


def test_a_proof_that_held_before_does_not_carry_another_identity() -> None:
    one = gate()
    good = request()
    grant_of(one.decide(good))
    other = msgspec.msgpack.encode(identity(tenant="globex"))
    assert code(one.decide(msgspec.structs.replace(good, identity=other))) == "policy_error"


def test_a_tool_whose_scopes_the_principal_lacks_does_not_exist_for_it() -> None:
    hidden = gate(tools=(spec(scopes=("write", "admin")),)).decide(request())
    absent = gate().decide(request(tool="nope"))
    assert code(hidden) == code(absent) == "tool_unknown"
    assert hidden.decision.detail.replace("'pay'", "X") == absent.decision.detail.replace("'nope'", "X")
    grant_of(gate(tools=(spec(scopes=("write",)),)).decide(request()))


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"amount": "5"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": 5.5}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": 0}, "amount"),
        ({}, "amount"),
        ({"amount": 5, "extra": 1}, "extra"),
        ({"amount": 5, "note": "a\x00b"}, "pay.note"),
        ({"amount": 5, "note": 7}, "note"),
        ([1], "list"),
        ("x", "str"),
    ],
)
def test_invalid_arguments_name_the_tool_and_the_place(arguments: Any, place: str) -> None:
    reply = gate().decide(request(arguments))
    assert code(reply) == "tool_invalid_arguments"
    assert "pay" in reply.decision.detail and place in reply.decision.detail


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"amount":NaN}', b'{"amount":5}x'])
def test_arguments_that_are_not_json_are_invalid_arguments(raw: bytes) -> None:
    assert code(gate().decide(request(raw=raw))) == "tool_invalid_arguments"


def test_an_argument_of_10_mb_is_refused_naming_it_and_the_bound() -> None:
    reply = gate().decide(request({"amount": 5, "note": "x" * 10_000_000}))
    assert code(reply) == "tool_invalid_arguments"
    assert "pay.note" in reply.decision.detail and "262,144" in reply.decision.detail
    assert len(reply.decision.detail) < 500


def test_the_bound_on_arguments_is_inclusive_and_counts_the_defaults() -> None:
    size = len(b'{"amount":5,"currency":"eur"}')
    grant_of(gate(tools=(spec(max_argument_bytes=size),)).decide(request()))
    assert code(gate(tools=(spec(max_argument_bytes=size - 1),)).decide(request())) == "tool_invalid_arguments"


def test_defaults_are_completed_before_hashing_so_that_saying_them_changes_nothing() -> None:
    short, full = gate().decide(request()), gate().decide(request({"currency": "eur", "amount": 5}))
    assert short.arguments == full.arguments and short.digest == full.digest
    assert gate().decide(request({"amount": 5, "currency": "usd"})).digest != short.digest


def test_policy_sees_the_completed_arguments() -> None:
    rules = "version: v1\nrules: [{id: a, outcome: allow, when: {arguments: [{path: currency, op: eq, value: eur}]}}]\n"
    grant_of(gate(rules).decide(request()))


@pytest.mark.parametrize("kind", [{"type": ["object", "null"]}, {}])
def test_every_object_that_names_its_properties_refuses_any_other(kind: dict[str, Any]) -> None:
    inner = {**kind, "properties": {"a": {"type": "integer"}}}
    tool = spec(parameters={"type": "object", "properties": {"o": inner}})
    assert code(gate(tools=(tool,)).decide(request({"o": {"b": 1}}))) == "tool_invalid_arguments"


def test_a_nested_object_refuses_what_it_does_not_name() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tool = spec(parameters={"type": "object", "properties": {"o": {"type": "array", "items": inner}}})
    assert code(gate(tools=(tool,)).decide(request({"o": [{"b": 1}]}))) == "tool_invalid_arguments"


def test_closing_a_schema_leaves_its_values_alone() -> None:
    parameters = {"type": "object", "properties": {"o": {"default": {"type": "object"}}}}
    assert spec(parameters=parameters).parameters["properties"]["o"]["default"] == {"type": "object"}


# Receipts.


def binding(arguments: bytes = b'{"amount":5,"currency":"eur"}', **fields: Any) -> str:
    """Return the digest of the call of `request()`."""
    given = {
        "tenant": identity().tenant,
        "run_id": RUN,
        "step": 3,
        "tool": "pay",
        "tool_version": spec().version,
        "policy_version": "v1",
        "arguments": arguments,
    }
    return call_digest(**(given | fields))


def receipt(*approvers: Any, bound_to: str | None = None, key: bytes = KEY) -> str:
    """Return a sealed receipt of these people."""
    bound = binding() if bound_to is None else bound_to
    return seal_approval(
        key, ApprovalReceipt(approval_id=ApprovalId("apr_x"), binding=bound, approvers=tuple(approvers))
    )


def test_a_receipt_for_exactly_this_call_turns_the_question_into_a_grant_naming_it() -> None:
    reply = gate(ASK).decide(request(receipt=receipt(BOB)))
    assert grant_of(reply).approval_id == "apr_x" and reply.decision.approval is None


def test_an_approval_covers_the_call_whether_or_not_its_defaults_are_spelled_out() -> None:
    edited = receipt(BOB, bound_to=binding(b'{"amount":5}'))
    grant_of(gate(ASK).decide(request(receipt=edited)))


@pytest.mark.parametrize(
    "bound_to",
    [
        binding(b'{"amount":6,"currency":"eur"}'),
        binding(step=4),
        binding(tool="refund"),
        binding(tool_version="0"),
        binding(policy_version="v0"),
        binding(tenant="globex"),
        binding(run_id="run_" + "1" * 24),
        "",
    ],
)
def test_a_receipt_for_any_other_call_does_not_count(bound_to: str) -> None:
    assert gate(ASK).decide(request(receipt=receipt(BOB, bound_to=bound_to))).decision.outcome == "require_approval"


@pytest.mark.parametrize(
    ("quorum", "approvers", "enough"),
    [
        (1, (BOB,), True),
        (1, (JOE,), False),
        (1, (), False),
        (2, (BOB,), False),
        (2, (BOB, BOB), False),
        (2, (BOB, JOE), False),
        (2, (BOB, EVE), True),
    ],
)
def test_a_receipt_needs_enough_different_people_in_the_right_roles(quorum: int, approvers: Any, enough: bool) -> None:
    reply = gate(ASK, quorum=quorum).decide(request(receipt=receipt(*approvers)))
    assert (reply.decision.outcome == "allow") is enough and bool(reply.grant) is enough


def test_the_requester_is_not_among_the_people_whoever_the_receipt_says_has_asked() -> None:
    ann: Any = (identity().principal, ("boss",))
    assert gate(ASK).decide(request(receipt=receipt(ann))).decision.outcome == "require_approval"
    grant_of(gate(ASK).decide(request(receipt=receipt(ann, BOB))))


def test_a_receipt_altered_in_any_byte_does_not_count() -> None:
    one, good = gate(ASK), from_text(receipt(BOB))
    for index in range(len(good)):
        bad = good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :]
        assert one.decide(request(receipt=to_text(bad))).decision.outcome == "require_approval", index


def test_a_receipt_sealed_with_another_key_or_for_another_purpose_does_not_count() -> None:
    one = gate(ASK)
    wrong_key = receipt(BOB, key=b"j" * 32)
    body = from_text(receipt(BOB))[32:]
    from airside.stack.security.seals import wrap

    wrong_purpose = to_text(wrap(KEY, "grant", body))
    for text in (wrong_key, wrong_purpose, "???"):
        assert one.decide(request(receipt=text)).decision.outcome == "require_approval"


def test_a_receipt_does_not_lift_a_deny() -> None:
    both = ASK.replace("rules: [", "rules: [{id: never, outcome: deny}, ")
    assert code(gate(both).decide(request(receipt=receipt(BOB)))) == "policy_denied"


def test_the_same_call_asks_for_the_same_approval_and_another_for_another() -> None:
    one = gate(ASK)
    first = one.decide(request()).approval_id
    assert first == one.decide(request({"amount": 5, "currency": "eur"}, attempt=9)).approval_id
    assert first != one.decide(request({"amount": 6})).approval_id
    assert first != one.decide(request(step=4)).approval_id


def test_an_edit_that_changes_nothing_does_not_go_round_for_ever() -> None:
    one, book, text = gate(ASK, quorum=2), ApprovalBook(), ""
    rounds = 0
    while (reply := one.decide(request(receipt=text, attempt=rounds + 1))).decision.outcome != "allow" and rounds < 9:
        rounds += 1
        assert reply.approval_id is not None and reply.decision.approval is not None
        approval = book.apply(
            ApprovalRequested(
                at_us=NOW,
                approval_id=reply.approval_id,
                tenant=identity().tenant,
                requester=identity().principal,
                run_id=RUN,
                step=3,
                tool="pay",
                tool_version=reply.tool_version,
                policy_version="v1",
                rule="ask",
                effect="write",
                arguments=Raw(reply.arguments),
                binding=binding(reply.arguments),
                terms=reply.decision.approval,
                expires_us=NOW * 100,
            )
        )
        if not approval.outcome:
            if rounds > 1:
                return  # people are asked anew, which is what should happen
            boss = identity(principal="bob", roles=("boss",))
            arguments = Raw(json.dumps(json.loads(reply.arguments)).encode())
            vote = book.vote(boss, reply.approval_id, "edit", now_us=NOW, arguments=arguments)
            approval = book.apply(vote)  # type: ignore[arg-type]
        assert decision_of(approval, KEY, NOW) is not None
        text = seal_approval(KEY, receipt_for(approval))
    assert rounds < 9


def test_what_is_no_request_is_denied() -> None:
    assert code(gate().deny_unreadable()) == "policy_error"
