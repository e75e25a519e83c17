"""What is traced before Policy is asked: no decision is another for it, and none that needs origins is made without."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.canonical import canonical
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.policy.bundle import Bundle, load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.policy.trace_predictor import TracePredictor
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Limits, ValueOrigin
from tests.helpers import EXECUTOR, KEY, RUN, identity, spec

NOW_US = 1_000_000
LEFT = Limits(max_tool_calls=5)

CONDITIONS: list[dict[str, Any]] = [
    {"effect": ["write"]},
    {"effect": ["external", "read"]},
    {"risk": ["high"]},
    {"tool": ["p*"]},
    {"tool": ["mail"]},
    {"labels": ["untrusted"]},
    {"roles": ["clerk"]},
    {"scopes": ["write"]},
    {"principal": ["bob"]},
    {"remaining": [{"unit": "max_tool_calls", "op": "lt", "value": 3}]},
    {"arguments": [{"path": "amount", "op": "gt", "value": 10}]},
    {"arguments": [{"path": "currency", "op": "eq", "value": "eur"}]},
    {"time": {"start": "00:00", "end": "12:00"}},
    {"origins": [{"outside": ["request"]}]},
    {"origins": [{"of": "authority", "within": ["request", "approved"]}]},
    {"origins": [{"of": "content", "outside": ["request"]}]},
]
"""Of each kind there is, some that hold for the calls below and some that do not."""


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    """Draw up to five rules, each of up to three conditions."""
    rules = []
    for number in range(draw(st.integers(1, 5))):
        outcome = draw(st.sampled_from(["allow", "deny", "require_approval"]))
        when: dict[str, Any] = {}
        for condition in draw(st.lists(st.sampled_from(CONDITIONS), max_size=3)):
            when |= condition
        rule: dict[str, Any] = {"id": f"r{number}", "outcome": outcome, "when": when}
        if outcome == "require_approval":
            rule["approval"] = {"roles": ["boss"], "quorum": draw(st.integers(1, 2))}
        rules.append(rule)
    return Bundle.model_validate({"version": "v1", "rules": rules})


CALLS = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["read", "write", "external", "irreversible"]),
        "arguments": st.sampled_from(
            [{"amount": 5}, {"amount": 50}, {"amount": 50, "currency": "usd"}, {"amount": "5"}]
        ),
        "labels": st.sampled_from([(), ("untrusted",)]),
        "remaining": st.sampled_from([LEFT, Limits(max_tool_calls=1)]),
    }
)


def asked(bundle: Bundle, call: dict[str, Any], origins: tuple[ValueOrigin, ...] | None) -> GateReply:
    """Return what the gate says of a call of `pay`."""
    who = identity(roles=("clerk",))
    gate = Gate(
        bundle=bundle,
        tools=[spec(effect=call["effect"])],
        seal_key=KEY,
        now_us=lambda: NOW_US,
        random=lambda n: b"n" * n,
    )
    request = GateRequest(
        identity=msgspec.msgpack.encode(who),
        proof=seal_identity(KEY, who, run_subject(RUN)),
        run_id=RUN,
        step=1,
        attempt=1,
        epoch=1,
        tool="pay",
        arguments=canonical(call["arguments"]),
        labels=call["labels"],
        remaining=call["remaining"],
        executor=EXECUTOR,
        origins=origins,
    )
    return gate.decide(msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=GateRequest))


def traces(arguments: dict[str, Any], origin: str) -> tuple[ValueOrigin, ...]:
    """Return the traces of the given arguments, all of one origin."""
    return tuple(
        ValueOrigin(path=path, value=str(value), part="authority", origin=origin)  # type: ignore[arg-type]
        for path, value in arguments.items()
    )


def expects(bundle: Bundle, call: dict[str, Any]) -> bool:
    """Whether a runtime expects to be asked about a call."""
    return TracePredictor(bundle, [spec(effect=call["effect"])]).expects(
        "pay",
        call["arguments"],
        identity=identity(roles=("clerk",)),
        labels=frozenset(call["labels"]),
        remaining=call["remaining"],
        now_us=NOW_US,
    )


@given(bundle=bundles(), call=CALLS)
def test_what_is_decided_of_an_untraced_call_is_so_wherever_its_values_come_from(
    bundle: Bundle, call: dict[str, Any]
) -> None:
    untraced = asked(bundle, call, None)
    if untraced.untraced:
        assert (untraced.decision.outcome, untraced.grant, untraced.approval_id) == ("deny", b"", None)
        return
    assert untraced.decision.outcome != "require_approval"
    for origins in ((), traces(call["arguments"], "request"), traces(call["arguments"], "tool")):
        traced = asked(bundle, call, origins)
        assert msgspec.structs.replace(traced, origins=()) == untraced


@given(bundle=bundles(), call=CALLS)
def test_a_runtime_expects_every_question_of_the_gate(bundle: Bundle, call: dict[str, Any]) -> None:
    """A call that it does not trace is not sent back, where its clock and what it knows of the run are the gate's."""
    if asked(bundle, call, None).untraced:
        assert expects(bundle, call)


@pytest.mark.parametrize(
    ("when", "is_expected"),
    [
        ("{arguments: [{path: amount, op: gt, value: 10}]}", False),
        ("{arguments: [{path: amount, op: gt, value: 1}]}", True),
        ("{arguments: [{path: currency, op: eq, value: eur}]}", True),  # the schema's default
        ("{labels: [untrusted]}", False),
        ("{effect: [read]}", False),
        ("{}", True),
    ],
)
@pytest.mark.parametrize(
    "asks",
    [
        "outcome: require_approval, approval: {roles: [boss]}, when: WHEN",
        "outcome: deny, when: {origins: [{outside: [request]}], MORE",
    ],
)
def test_what_a_runtime_expects_is_what_a_rule_says_of_the_call(when: str, is_expected: bool, asks: str) -> None:
    """Only a call that a rule asks about costs its tracing, whatever else the bundle asks about."""
    rule = asks.replace("WHEN", when).replace("MORE", when[1:])
    bundle = load_bundle(f"version: v1\nrules: [{{id: all, outcome: allow}}, {{id: asks, {rule}}}]\n")
    call = {"effect": "write", "arguments": {"amount": 5}, "labels": (), "remaining": LEFT}
    assert expects(bundle, call) is is_expected
    assert asked(bundle, call, None).untraced is is_expected


def test_a_call_that_comes_without_origins_is_no_decision_where_a_rule_asks_for_them() -> None:
    """A runtime that never traces gets no grant."""
    text = "version: v1\nrules: [{id: a, outcome: allow, when: {origins: [{within: [request]}]}}]\n"
    call = {"effect": "external", "arguments": {"amount": 5}, "labels": (), "remaining": LEFT}
    reply = asked(load_bundle(text), call, None)
    assert reply.untraced and reply.grant == b"" and reply.decision.outcome == "deny"


def test_a_condition_that_cannot_be_evaluated_is_expected_to_ask() -> None:
    """The gate denies such a call; a runtime does not fall over it."""
    text = (
        "version: v1\nrules: [{id: a, outcome: require_approval, approval: {roles: [x]}, "
        "when: {arguments: [{path: amount, op: gt, value: 1}]}}]\n"
    )
    call = {"effect": "write", "arguments": {"amount": "many"}, "labels": (), "remaining": LEFT}
    assert expects(load_bundle(text), call)
