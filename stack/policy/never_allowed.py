"""Which of an app's tools a principal's runs can never call, whatever the arguments: known before any run."""

from __future__ import annotations

from collections.abc import Sequence

from airside.stack.directory import Directory, Principal
from airside.stack.policy.approvers import UNLISTED, may_ask, people_of
from airside.stack.policy.bundle import Bundle, Rule, may_match
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.names import matcher

_OF_WHO_AND_WHAT = {"tool", "effect", "risk", "lane", "tenant", "principal", "roles", "scopes"}
"""Conditions that do not depend on a call's arguments, its run, or the time."""


def find_never_allowed(
    bundle: Bundle, directory: Directory, specs: Sequence[ToolSpec]
) -> dict[str, dict[str, list[str]]]:
    """Return, by tenant and principal, the tools of which every call is denied.

    They are those that no rule could allow or ask people about, and those that a rule denies to whoever it is.
    `UNLISTED` stands for all whom an open tenant does not list.
    """
    known: dict[tuple[object, ...], list[str]] = {}
    found: dict[str, dict[str, list[str]]] = {}
    for tenant, entry in directory.tenants.items():
        rules = [rule for rule in bundle.rules if rule.when.tenant is None or matcher(rule.when.tenant)(tenant)]
        ids = tuple(rule.id for rule in rules)
        for name, who in people_of(entry):
            named = tuple(rule.id for rule in rules if rule.when.principal and matcher(rule.when.principal)(name))
            key = (ids, named, name == UNLISTED, frozenset(who.roles), frozenset(who.scopes))
            if key not in known:
                known[key] = [spec.name for spec in specs if not _may_call(rules, spec, name, who)]
            if known[key]:
                found.setdefault(tenant, {})[name] = known[key]
    return found


def _may_call(rules: Sequence[Rule], spec: ToolSpec, name: str, who: Principal) -> bool:
    meant = [rule for rule in rules if may_match(rule.when, spec) and may_ask(rule.when, [spec], name, who)]
    return any(rule.outcome != "deny" for rule in meant) and not any(_denies_all(rule, name) for rule in meant)


def _denies_all(rule: Rule, name: str) -> bool:
    """Whether a rule that may match denies whatever is called; of whom is not listed only a rule for everybody does."""
    when = rule.when
    given = {field for field in when.model_fields_set if getattr(when, field) is not None}
    is_of_some = given & {"principal", "roles", "scopes"}
    return rule.outcome == "deny" and given <= _OF_WHO_AND_WHAT and not (name == UNLISTED and is_of_some)
