"""Policy bundles: what loading refuses and where it points, what each condition means, and how rules combine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.errors import InvalidConfig
from airside.stack.policy.bundle import Bundle, load_bundle
from airside.stack.policy.evaluator import Evaluator, Facts
from airside.stack.reasons import ReasonCode
from airside.stack.values import Decision, Limits
from tests.helpers import identity, spec

HEAD = "version: v1\nrules:\n"


def facts(**fields: Any) -> Facts:
    """Return what ann of acme asks: pay(amount=5), a write."""
    given_facts = {
        "tool": spec(),
        "identity": identity(roles=("clerk",), attributes={"orders": ("o1", "o2")}),
        "arguments": {"amount": 5, "to": "bob@acme.example", "items": [{"n": 1}, {"n": 2}], "flag": True},
        "labels": frozenset(),
        "remaining": Limits(max_tool_calls=3),
        "now_us": 0,
    }
    return Facts(**(given_facts | fields))


def rule(name: str, outcome: str, when: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a rule as data."""
    made = {"id": name, "outcome": outcome, "when": when or {}} | fields
    if outcome == "require_approval":
        made.setdefault("approval", {"roles": ["boss"]})
    return made


def evaluate(*rules: dict[str, Any], **fields: Any) -> Decision:
    """Evaluate rules against `facts(**fields)`."""
    return Evaluator(Bundle(version="v1", rules=list(rules))).evaluate(facts(**fields))  # type: ignore[arg-type]


def allows(when: dict[str, Any], **fields: Any) -> bool:
    """Whether an allow rule with these conditions allows `facts(**fields)`; an error fails the test."""
    decided = evaluate(rule("r", "allow", when), **fields)
    assert decided.reason_code != ReasonCode.POLICY_ERROR, decided.detail
    return decided.outcome == "allow"


# Loading.


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("- {id: a, outcome: deny}\n- id: b\n  outcome: deny\n  colour: red\n", 6, "unknown field"),
        ("- id: a\n  outcome: deny\n  outcome: allow\n", 5, "'outcome' is given twice"),
        ("- id: a\n  outcome: deny\n  when:\n    arguments:\n    - {path: n, op: equals, value: 1}\n", 7, "op"),
        ("- id: a\n  outcome: deny\n  when:\n    time:\n      zone: Mars/Base\n", 7, "no time zone 'Mars/Base'"),
        ("- id: a\n  outcome: deny\n  when:\n    time:\n      zone: Europe\n", 7, "no time zone 'Europe'"),
        ("- id: a\n  outcome: deny\n  when:\n    time: {start: '24:00'}\n", 6, "start"),
        ("- id: a\n  outcome: deny\n  when:\n    time: {days: [monday]}\n", 6, "days"),
        ("- id: a\n  outcome: deny\n  when: {effect: [reads]}\n", 5, "effect"),
        ("- id: a\n  outcome: deny\n  when: {tool: []}\n", 5, "tool"),
        ("- id: a\n  outcome: deny\n  when: {tool: pay}\n", 5, "a list is needed"),
        ("- id: a\n  outcome: permit\n", 4, "outcome"),
        ("- id: a b\n  outcome: deny\n", 3, "id"),
        ("- id: a\n  outcome: deny\n  when:\n    remaining: [{unit: money, op: lt, value: 1}]\n", 6, "unit"),
        (
            "- id: a\n  outcome: deny\n  when:\n    remaining: [{unit: max_steps, op: lt, value: 1.5}]\n",
            6,
            "whole number",
        ),
        ("- id: a\n  outcome: deny\n  when:\n    arguments: [{path: n, op: eq}]\n", 6, "either value or identity"),
        ("- id: a\n  outcome: deny\n  when:\n    arguments: [{path: a..b, op: eq, value: 1}]\n", 6, "path"),
        (
            "- id: a\n  outcome: deny\n  when:\n    arguments: [{path: n, op: exists, value: 1}]\n",
            6,
            "exists takes bool",
        ),
        ("- id: a\n  outcome: deny\n  when:\n    arguments: [{path: n, op: eq, identity: roles}]\n", 6, "identity"),
        ("- id: a\n  outcome: require_approval\n", 3, "needs approval"),
        ("- id: a\n  outcome: allow\n  approval: {roles: [x]}\n", 3, "needs approval"),
        ("- id: a\n  outcome: require_approval\n  approval: {roles: [x], quorum: 0}\n", 5, "quorum"),
        ("- id: a\n  outcome: require_approval\n  approval: {roles: []}\n", 5, "roles"),
        ("- id: a\n  outcome: deny\n - x\n", 5, ""),
    ],
)
def test_a_wrong_bundle_names_its_file_and_line(tmp_path: Path, body: str, line: int, says: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + body)
    with pytest.raises(InvalidConfig) as caught:
        load_bundle(path)
    assert f"{path}:{line}" in caught.value.message and says in caught.value.message


def test_ids_given_twice_are_named() -> None:
    with pytest.raises(InvalidConfig, match="rule ids given twice: a"):
        load_bundle(HEAD + "- {id: a, outcome: deny}\n- {id: a, outcome: allow}\n")


@pytest.mark.parametrize("text", ["", "version: v1\nrules: []\n", "rules: [{id: a, outcome: deny}]\n", "- 1\n", "5\n"])
def test_a_bundle_without_a_version_or_rules_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"policy:[12]"):
        load_bundle(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"missing\.yaml: cannot be read"):
        load_bundle(tmp_path / "missing.yaml")


def test_a_pattern_that_is_not_one_is_named_with_its_line() -> None:
    with pytest.raises(InvalidConfig, match=r"policy:4: .*'\(' is not a regular expression"):
        load_bundle(HEAD + '- id: a\n  when: {arguments: [{path: n, op: matches, value: "("}]}\n  outcome: deny\n')


def test_a_key_that_is_a_list_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidConfig):
        load_bundle("version: v1\n? [a]\n: b\n")


def test_a_file_that_is_not_utf8_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"version: \xe9\n")
    with pytest.raises(InvalidConfig, match=r"policy\.yaml"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("op", "value", "kind"),
    [
        ("exists", "1", "bool"),
        ("exists", "'yes'", "bool"),
        ("exists", "null", "bool"),
        ("in", "5", "list"),
        ("in", "text", "list"),
        ("not_in", "{a: 1}", "list"),
        ("lt", "x", "int or float"),
        ("le", "true", "int or float"),
        ("gt", "null", "int or float"),
        ("ge", "[1]", "int or float"),
        ("starts_with", "1", "str"),
        ("ends_with", "[a]", "str"),
        ("matches", "5", "str"),
    ],
)
def test_an_operand_the_operator_cannot_take_is_refused_at_load(op: str, value: str, kind: str) -> None:
    test = f"- {{path: n, op: {op}, value: {value}}}"
    with pytest.raises(InvalidConfig) as caught:
        load_bundle(HEAD + f"- id: a\n  outcome: deny\n  when:\n    arguments:\n    {test}\n")
    message = caught.value.message
    assert message.startswith("policy:7: rules.0.when.arguments.0") and f"{op} takes {kind}, not" in message


@pytest.mark.parametrize(
    ("op", "value"),
    [("exists", False), ("in", [None]), ("lt", 1), ("ge", 1.5), ("matches", "a+"), ("eq", None), ("contains", 5)],
)
def test_an_operand_the_operator_can_take_is_loaded(op: str, value: Any) -> None:
    Bundle(version="v", rules=[rule("a", "deny", {"arguments": [{"path": "n", "op": op, "value": value}]})])  # type: ignore[list-item]


# Combining.


def test_nothing_matched_is_a_deny_naming_the_version() -> None:
    decided = evaluate(rule("r", "allow", {"tool": ["other"]}))
    assert (decided.outcome, decided.reason_code, decided.rule) == ("deny", "policy_denied", "default-deny")
    assert decided.policy_version == "v1"


def test_deny_overrides_approval_which_overrides_allow() -> None:
    allow, ask, deny = rule("a", "allow"), rule("q", "require_approval"), rule("d", "deny", code="no_way")
    assert evaluate(allow).rule == "a"
    assert evaluate(allow, ask).outcome == "require_approval"
    decided = evaluate(allow, ask, deny)
    assert (decided.outcome, decided.rule, decided.code) == ("deny", "d", "no_way")


def test_among_approvals_the_largest_quorum_wins() -> None:
    one = rule("one", "require_approval", approval={"roles": ["boss"], "quorum": 1})
    two = rule("two", "require_approval", approval={"roles": ["boss"], "quorum": 2, "expires_after_s": 60})
    for decided in (evaluate(one, two), evaluate(two, one)):
        assert decided.rule == "two" and decided.approval is not None
        assert (decided.approval.quorum, decided.approval.expires_after_s) == (2, 60)


def test_a_condition_that_cannot_be_evaluated_denies_as_policy_error() -> None:
    compare = {"arguments": [{"path": "to", "op": "lt", "value": 5}]}
    decided = evaluate(rule("r", "deny", compare), rule("a", "allow"))
    assert (decided.outcome, decided.reason_code) == ("deny", "policy_error")
    assert "not a number" in decided.detail


# Conditions.


def test_a_rule_without_conditions_always_matches() -> None:
    assert allows({})


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({"tool": ["pay"]}, True),
        ({"tool": ["p?y"]}, True),
        ({"tool": ["pa"]}, False),
        ({"tool": ["PAY"]}, False),
        ({"tool": ["x", "p*"]}, True),
        ({"effect": ["read", "write"]}, True),
        ({"effect": ["external"]}, False),
        ({"risk": ["medium"]}, True),
        ({"risk": ["high"]}, False),
        ({"tenant": ["acme"]}, True),
        ({"tenant": ["acme2"]}, False),
        ({"principal": ["a*"]}, True),
        ({"principal": ["bob"]}, False),
        ({"roles": ["boss", "clerk"]}, True),
        ({"roles": ["boss"]}, False),
        ({"scopes": ["read", "write"]}, True),
        ({"scopes": ["read", "admin"]}, False),
        ({"labels": ["restricted"]}, False),
        ({"remaining": [{"unit": "max_tool_calls", "op": "ge", "value": 3}]}, True),
        ({"remaining": [{"unit": "max_tool_calls", "op": "lt", "value": 3}]}, False),
        ({"tool": ["pay"], "tenant": ["other"]}, False),
    ],
)
def test_each_condition_on_the_call_and_its_caller(when: dict[str, Any], holds: bool) -> None:
    assert allows(when) is holds


def test_any_of_the_labels_of_a_run_satisfies_labels() -> None:
    assert allows({"labels": ["restricted", "x"]}, labels=frozenset({"restricted"}))


@pytest.mark.parametrize(
    ("path", "op", "value", "holds"),
    [
        ("amount", "eq", 5, True),
        ("amount", "eq", 5.0, True),
        ("amount", "eq", "5", False),
        ("amount", "ne", 6, True),
        ("amount", "lt", 5, False),
        ("amount", "le", 5, True),
        ("amount", "gt", 4, True),
        ("amount", "ge", 6, False),
        ("amount", "in", [1, 5], True),
        ("amount", "not_in", [1, 5], False),
        ("flag", "eq", True, True),
        ("flag", "eq", 1, False),
        ("flag", "ne", 1, True),
        ("to", "matches", r".*@acme\.example", True),
        ("to", "matches", "bob", False),
        ("to", "contains", "@acme", True),
        ("to", "starts_with", "bob@", True),
        ("to", "ends_with", ".example", True),
        ("items.0.n", "eq", 1, True),
        ("items.9.n", "eq", 1, False),
        ("items.*.n", "ge", 1, True),
        ("items.*.n", "ge", 2, False),
        ("missing", "eq", None, False),
        ("missing", "ne", 1, False),
        ("missing", "not_in", [1], False),
        ("amount.deeper", "eq", 5, False),
        ("missing", "exists", False, True),
        ("missing", "exists", True, False),
        ("items.1", "exists", True, True),
    ],
)
def test_each_operator_on_arguments(path: str, op: str, value: Any, holds: bool) -> None:
    assert allows({"arguments": [{"path": path, "op": op, "value": value}]}) is holds


def test_every_one_of_several_argument_tests_must_hold() -> None:
    tests = [{"path": "amount", "op": "gt", "value": 1}, {"path": "amount", "op": "lt", "value": 5}]
    assert not allows({"arguments": tests})


def test_a_star_over_an_empty_list_satisfies_nothing() -> None:
    assert not allows({"arguments": [{"path": "items.*.n", "op": "ge", "value": 0}]}, arguments={"items": []})


def test_a_star_is_not_satisfied_by_an_item_that_lacks_the_path() -> None:
    test = {"path": "items.*.n", "op": "le", "value": 10}
    assert not allows({"arguments": [test]}, arguments={"items": [{"n": 1}, {"m": 99}]})


def test_true_is_not_among_whole_numbers() -> None:
    assert not allows({"arguments": [{"path": "flag", "op": "in", "value": [1]}]})


@pytest.mark.parametrize(
    ("path", "op", "fact", "holds"),
    [
        ("who", "eq", "principal", True),
        ("where", "eq", "tenant", True),
        ("where", "eq", "principal", False),
        ("order", "in", "attributes.orders", True),
        ("other", "in", "attributes.orders", False),
        ("order", "in", "attributes.unheard_of", False),
        ("other", "not_in", "attributes.orders", True),
    ],
)
def test_arguments_are_compared_with_facts_about_the_caller(path: str, op: str, fact: str, holds: bool) -> None:
    given_arguments = {"who": "ann", "where": "acme", "order": "o2", "other": "o9"}
    assert allows({"arguments": [{"path": path, "op": op, "identity": fact}]}, arguments=given_arguments) is holds


# Time.

WEDNESDAY = datetime(2025, 1, 1, tzinfo=UTC)


def at(day: int, hour: int, minute: int = 0, second: int = 0) -> int:
    """Return a time of January 2025 in UTC, in microseconds; the 1st is a Wednesday."""
    return int(WEDNESDAY.replace(day=day, hour=hour, minute=minute, second=second).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("window", "now", "holds"),
    [
        ({"start": "09:00", "end": "17:00"}, at(1, 9), True),
        ({"start": "09:00", "end": "17:00"}, at(1, 8, 59, 59), False),
        ({"start": "09:00", "end": "17:00"}, at(1, 17, 0, 59), True),
        ({"start": "09:00", "end": "17:00"}, at(1, 17, 1), False),
        ({"days": ["wed"]}, at(1, 23, 59, 59), True),
        ({"days": ["wed"]}, at(2, 0), False),
        ({"start": "22:00", "end": "06:00"}, at(1, 23), True),
        ({"start": "22:00", "end": "06:00"}, at(1, 5), True),
        ({"start": "22:00", "end": "06:00"}, at(1, 12), False),
        ({"start": "22:00", "end": "06:00", "days": ["wed"]}, at(2, 3), True),
        ({"start": "22:00", "end": "06:00", "days": ["wed"]}, at(1, 3), False),
        ({"start": "22:00", "end": "06:00", "days": ["sun"]}, at(6, 3), True),
        ({"start": "09:00", "end": "17:00", "zone": "America/New_York"}, at(1, 14), True),
        ({"start": "09:00", "end": "17:00", "zone": "America/New_York"}, at(1, 10), False),
        ({"days": ["tue"], "zone": "America/New_York"}, at(1, 3), True),
    ],
)
def test_time_windows_in_their_zone_and_over_midnight(window: dict[str, Any], now: int, holds: bool) -> None:
    assert allows({"time": window}, now_us=now) is holds


# Properties.

NEVER = {"tool": ["other"]}
conditions = st.sampled_from([{}, {"tool": ["pay"]}, {"roles": ["clerk"]}, NEVER, {"labels": ["x"]}])
RAISES = {"arguments": [{"path": "to", "op": "lt", "value": 5}]}
outcomes = st.sampled_from(["allow", "deny", "require_approval"])


@st.composite
def rule_lists(draw: st.DrawFn, when: st.SearchStrategy[Any] = conditions) -> list[dict[str, Any]]:
    """Draw up to seven rules with ids of their own."""
    made = []
    for index in range(draw(st.integers(1, 7))):
        outcome = draw(outcomes)
        extra = {"approval": {"roles": ["boss"], "quorum": draw(st.integers(1, 3))}}
        made.append(rule(f"r{index}", outcome, draw(when), **(extra if outcome == "require_approval" else {})))
    return made


@settings(deadline=None, max_examples=80)
@given(rules=rule_lists(conditions | st.just(RAISES)), place=st.integers(0, 7))
def test_adding_a_matching_deny_rule_always_denies(rules: list[dict[str, Any]], place: int) -> None:
    rules.insert(place, rule("added", "deny"))
    assert evaluate(*rules).outcome == "deny"


@settings(deadline=None, max_examples=80)
@given(data=st.data(), rules=rule_lists())
def test_the_order_of_rules_never_changes_the_outcome(data: st.DataObject, rules: list[dict[str, Any]]) -> None:
    one, other = evaluate(*rules), evaluate(*data.draw(st.permutations(rules)))
    assert one.outcome == other.outcome
    assert (one.approval and one.approval.quorum) == (other.approval and other.approval.quorum)


@pytest.mark.parametrize("outcome", ["allow", "require_approval"])
def test_a_rule_that_cannot_be_evaluated_denies_wherever_it_stands(outcome: str) -> None:
    good, bad = rule("good", outcome), rule("bad", outcome, RAISES)
    assert evaluate(bad, good).outcome == "deny"
    assert evaluate(good, bad).outcome == "deny"


@settings(deadline=None, max_examples=80)
@given(rules=rule_lists())
def test_without_a_matching_allow_or_approval_nothing_is_allowed(rules: list[dict[str, Any]]) -> None:
    only_deny = [item for item in rules if item["outcome"] == "deny" or item["when"] == NEVER]
    if only_deny:
        assert evaluate(*only_deny).outcome == "deny"
