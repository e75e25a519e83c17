"""What is said to be denied before any run: it is, whatever is called with; and what may pass is not said to be."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airside.stack.directory import Directory, load_directory
from airside.stack.policy.bundle import Bundle
from airside.stack.policy.evaluator import Evaluator, Facts
from airside.stack.policy.never_allowed import find_never_allowed
from airside.stack.values import Limits
from tests.helpers import identity, spec

PEOPLE = load_directory(
    "tenants: {acme: {principals: {ann: {roles: [clerk], scopes: [pay]}, bob: {roles: [boss]}}}, "
    "shop: {open: true, open_roles: [clerk], principals: {eve: {}}}}"
)
TOOLS = [spec("look", effect="read"), spec("pay"), spec("wire", scopes=("pay",))]


def never(*rules: dict[str, Any], directory: Directory = PEOPLE) -> dict[str, dict[str, list[str]]]:
    """Return what no rule lets through."""
    bundle = Bundle(version="v1", rules=[{"id": f"r{i}", **rule} for i, rule in enumerate(rules)])  # type: ignore[arg-type]
    return find_never_allowed(bundle, directory, TOOLS)


def test_what_no_rule_allows_somebody_is_named() -> None:
    found = never({"outcome": "allow", "when": {"effect": ["read"]}}, {"outcome": "allow", "when": {"roles": ["boss"]}})
    assert found["acme"] == {"ann": ["pay", "wire"], "bob": ["wire"]}
    assert found["shop"] == {"eve": ["pay", "wire"], "": ["pay", "wire"]}


def test_a_rule_that_denies_whatever_is_called_with_counts_and_one_that_looks_at_it_does_not() -> None:
    allow = {"outcome": "allow", "when": {"tool": ["pay"]}}
    deny = {"outcome": "deny", "when": {"tool": ["pay"], "tenant": ["acme"]}}
    assert never(allow, deny)["acme"] == {"ann": ["look", "pay", "wire"], "bob": ["look", "pay", "wire"]}
    looks = {**deny, "when": {**deny["when"], "arguments": [{"path": "amount", "op": "gt", "value": 100}]}}
    assert never(allow, looks)["acme"] == {"ann": ["look", "wire"], "bob": ["look", "wire"]}


def test_of_whom_an_open_tenant_does_not_list_only_what_holds_for_everybody_is_said() -> None:
    allow: dict[str, Any] = {"outcome": "allow"}
    assert never(allow, {"outcome": "deny", "when": {"roles": ["clerk"], "tool": ["pay"]}})["shop"][""] == ["wire"]
    assert never(allow, {"outcome": "deny", "when": {"tool": ["pay"]}})["shop"][""] == ["pay", "wire"]


conditions = st.fixed_dictionaries(
    {},
    optional={
        "tool": st.sampled_from([["pay"], ["look", "wire"], ["*"], ["p*"]]),
        "effect": st.sampled_from([["read"], ["write"]]),
        "tenant": st.sampled_from([["acme"], ["s*"]]),
        "principal": st.sampled_from([["ann"], ["*b*"]]),
        "roles": st.sampled_from([["clerk"], ["boss", "clerk"]]),
        "scopes": st.just(["pay"]),
        "arguments": st.just([{"path": "amount", "op": "gt", "value": 5}]),
    },
)
rules = st.lists(
    st.fixed_dictionaries({"outcome": st.sampled_from(["allow", "deny"]), "when": conditions}), min_size=1, max_size=6
)


@given(rules, st.sampled_from(TOOLS), st.integers(0, 10))
def test_every_call_of_a_tool_that_is_said_to_be_denied_is(given_rules: Any, tool: Any, amount: int) -> None:
    """Of whoever it is; that a call is denied for another reason is not promised to be known."""
    made = [{"id": f"r{i}", **rule} for i, rule in enumerate(given_rules)]
    evaluator = Evaluator(Bundle(version="v1", rules=made))  # type: ignore[arg-type]
    found = never(*given_rules)
    for tenant, name, roles, scopes in (
        ("acme", "ann", ("clerk",), ("pay",)),
        ("acme", "bob", ("boss",), ()),
        ("shop", "eve", (), ()),
        ("shop", "", ("clerk",), ()),
        ("shop", "", (), ()),
    ):
        if tool.name not in found.get(tenant, {}).get(name, ()):
            continue
        if not set(tool.scopes) <= set(scopes):
            continue  # denied before any rule is looked at
        who = identity(principal=name or "zoe", tenant=tenant, roles=roles, scopes=scopes)
        call = Facts(
            tool=tool,
            identity=who,
            arguments={"amount": amount},
            labels=frozenset(),
            remaining=Limits(),
            now_us=0,
        )
        assert evaluator.evaluate(call).outcome == "deny"
