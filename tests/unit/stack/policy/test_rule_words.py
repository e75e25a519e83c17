"""Rules in words: what each condition says, and what a tenant is shown of rules that are of several."""

from __future__ import annotations

import pytest

from airside.stack.policy.bundle import DEFAULT_POLICY, load_bundle
from airside.stack.policy.rule_words import rule_in_words, rule_of_tenant

ASKS = "approval: {roles: [lead, boss], quorum: 2, expires_after_s: 60}"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("outcome: allow", "Allow every call."),
        ("outcome: allow, when: {effect: [read, write]}", "Allow calls whose effect is read or write."),
        ("outcome: deny, when: {tool: [pay, 'send_*']}", "Deny calls of pay or send_*."),
        (
            f"outcome: require_approval, {ASKS}",
            "Ask people about every call, which 2 different people of lead or boss must approve within 60 s.",
        ),
        (
            "outcome: deny, when: {arguments: [{path: amount, op: gt, value: 100}, {path: to, op: exists}]}",
            "Deny every call, where amount is above 100, where to is there.",
        ),
        (
            "outcome: deny, when: {arguments: [{path: to, op: ne, identity: principal}]}",
            "Deny every call, where to is not the asker's principal.",
        ),
        (
            "outcome: deny, when: {arguments: [{path: to, op: in, value: [a, 1, null]}]}",
            "Deny every call, where to is one of a, 1 or null.",
        ),
        (
            "outcome: deny, when: {arguments: [{path: least, op: gt, of: most}]}",
            "Deny every call, where least is above what most is.",
        ),
        (
            "outcome: allow, when: {origins: [{of: authority, within: [request]}]}",
            "Allow every call, where what says whom, where or how much comes from request.",
        ),
        (
            "outcome: deny, when: {resource: {kind: order, owner: other, attributes: {state: [sent, lost]}}}",
            "Deny every call, where its order is not the asker's own and has a state that is one of sent or lost.",
        ),
        (
            "outcome: allow, require: sandbox, when: {roles: [agent], "
            "remaining: [{unit: max_steps, op: le, value: 3}]}",
            "Allow every call, for who holds the role agent, where what is left of max_steps is at most 3, "
            "and only in a sandbox.",
        ),
        (
            "outcome: deny, when: {time: {start: '22:00', end: '06:00', days: [sat, sun]}}",
            "Deny every call, from 22:00 to 06:00 UTC on sat, sun.",
        ),
    ],
)
def test_a_rule_is_a_sentence(rule: str, words: str) -> None:
    bundle = load_bundle(f"version: v1\nrules: [{{id: r, {rule}}}]")
    assert rule_in_words(bundle.rules[0]) == words


def test_every_rule_that_ships_is_a_sentence() -> None:
    for rule in load_bundle(DEFAULT_POLICY).rules:
        assert rule_in_words(rule).endswith(".") and "None" not in rule_in_words(rule)


def test_a_tenant_is_shown_its_rules_without_the_names_of_others() -> None:
    rules = "[{id: a, outcome: deny, when: {tenant: [acme, 'b*']}}, {id: b, outcome: allow}]"
    first, second = load_bundle(f"version: v1\nrules: {rules}").rules
    own = rule_of_tenant(first, "acme")
    assert (
        own is not None
        and own.when.tenant == ["acme"]
        and own.model_dump(exclude_unset=True)["when"] == {"tenant": ["acme"]}
    )
    assert rule_of_tenant(first, "cedar") is None and rule_of_tenant(second, "cedar") is second
