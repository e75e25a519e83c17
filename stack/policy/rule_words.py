"""Rules in words: what an operator reads of a bundle who does not read YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from airside.stack.policy.bundle import DAYS, ArgumentTest, Comparison, OriginTest, ResourceTest, Rule, TimeWindow, When
from airside.stack.text.names import matcher

_OUTCOMES = {"allow": "Allow", "deny": "Deny", "require_approval": "Ask people about"}
_OPERATORS = {
    "eq": "is",
    "ne": "is not",
    "lt": "is below",
    "le": "is at most",
    "gt": "is above",
    "ge": "is at least",
    "in": "is one of",
    "not_in": "is none of",
    "matches": "matches",
    "contains": "contains",
    "starts_with": "begins with",
    "ends_with": "ends with",
    "exists": "is there",
    "absent": "is not there",
}
_NAMED = {
    "tenant": "of tenant",
    "principal": "for principal",
    "roles": "for who holds the role",
    "scopes": "for who holds the scope",
    "labels": "in a run labelled",
    "risk": "of risk",
    "lane": "that run in",
}
_PARTS = {"authority": "what says whom, where or how much", "content": "what it says", "any": "any value"}
_OWNERS = {
    "principal": "is the asker's own",
    "other": "is not the asker's own",
    "nobody": "is nobody's",
}
_CLEARED = {"cleared": "is what the asker may see", "above": "is above what the asker may see"}


def rule_in_words(rule: Rule) -> str:
    """Return a rule as one sentence."""
    said = [f"{_OUTCOMES[rule.outcome]} {_calls(rule.when)}", *_conditions(rule.when)]
    if rule.approval is not None:
        terms = rule.approval
        people = "person" if terms.quorum == 1 else "different people"
        said.append(
            f"which {terms.quorum} {people} of {_or(terms.roles)} must approve within {terms.expires_after_s:,} s"
        )
    if rule.require is not None:
        said.append(f"and only in a {rule.require}")
    return f"{', '.join(said)}."


def rule_of_tenant(rule: Rule, tenant: str) -> Rule | None:
    """Return a rule as it concerns one tenant, without the names of others; None if it does not."""
    named = rule.when.tenant
    if named is None:
        return rule
    own = [pattern for pattern in named if matcher([pattern])(tenant)]
    if not own:
        return None
    return rule.model_copy(update={"when": rule.when.model_copy(update={"tenant": own})})


def _or(names: Sequence[Any]) -> str:
    """Return some of which one is meant."""
    words = [name if isinstance(name, str) else json.dumps(name, ensure_ascii=False) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _calls(when: When) -> str:
    effects = f" whose effect is {_or(when.effect)}" if when.effect else ""
    if when.tool is None:
        return f"calls{effects}" if effects else "every call"
    return f"calls of {_or(when.tool)}{effects}"


def _conditions(when: When) -> Iterator[str]:
    for name, says in _NAMED.items():
        given = getattr(when, name)
        if given:
            yield f"{says} {_or(given)}"
    for test in when.arguments or ():
        yield f"where {_argument(test)}"
    for origin in when.origins or ():
        yield f"where {_origin(origin)}"
    for resource in when.resource or ():
        yield f"where {_resource(resource)}"
    for left in when.remaining or ():
        yield f"where what is left of {left.unit} {_OPERATORS[left.op]} {left.value:,}"
    if when.time is not None:
        yield _time(when.time)


def _argument(test: ArgumentTest) -> str:
    return f"{test.path} {_comparison(test)}"


def _comparison(test: Comparison) -> str:
    if test.op == "exists" and test.value is False:
        return _OPERATORS["absent"]
    says = _OPERATORS[test.op]
    if test.op in ("exists", "absent"):
        return says
    if test.caller is not None:
        return f"{says} the asker's {test.caller.removeprefix('attributes.')}"
    if test.other is not None:
        return f"{says} what {test.other} is"
    return f"{says} {_or(test.value if test.op in ('in', 'not_in') else [test.value])}"


def _origin(test: OriginTest) -> str:
    part = _PARTS[test.of]
    if test.within is not None:
        return f"{part} comes from {_or(test.within)}"
    return f"{part} comes from elsewhere than {_or(test.outside or ())}"


def _resource(test: ResourceTest) -> str:
    said = []
    if test.owner is not None:
        said.append(_OWNERS[test.owner] if isinstance(test.owner, str) else f"is owned by {_or(test.owner)}")
    if test.tenant is not None:
        said.append("is the asker's tenant's" if test.tenant == "own" else "is shared by all tenants")
    if test.sensitivity is not None:
        levels = test.sensitivity
        said.append(_CLEARED[levels] if isinstance(levels, str) else f"is {_or(levels)}")
    said += [f"has a {name} that {_comparison(each)}" for name, each in test.comparisons().items()]
    return f"its {test.kind}{f' at {test.path}' if test.path else ''} {' and '.join(said) or 'is known'}"


def _time(window: TimeWindow) -> str:
    days = "" if list(window.days) == list(DAYS) else f" on {', '.join(window.days)}"
    return f"from {window.start} to {window.end} {window.zone}{days}"
