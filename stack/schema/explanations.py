"""Why a value does not keep a schema: where, and by which rule, in bounded time.

What goes wrong inside of alternatives is told of the one that comes furthest.  Every part and value is explained once,
and what `judging.Check` has found out of them is not found out again; past `MAX_WORK` less is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from airside.stack.schema.schema_nodes import Node
from airside.stack.schema.validation import SchemaValidator, Validation, ValidationTooCostly

MAX_PROBLEMS = 5
_MAX_TEXT = 200
_SHOWN = 60

Steps = tuple[str | int, ...]
Problem = tuple[Steps, str]


def problems(
    validator: SchemaValidator, value: Any, node: Node | None = None, *, whole: str = "(arguments)"
) -> list[str]:
    """Return what is wrong with a value by a schema, or a part of it, each with its place; nothing if nothing is.

    `whole` is what the place of the value itself is called.
    """
    explainer, node = _Explainer(validator), node or validator.graph.root
    try:
        found = list(islice(explainer.explain(node, value), MAX_PROBLEMS))
    except ValidationTooCostly:
        return [f"{whole}: it breaks the schema, or may; to say where takes too long"]
    return [f"{'.'.join(map(str, steps)) or whole}: {text[:_MAX_TEXT]}" for steps, text in found]


class _Explainer:
    def __init__(self, validator: SchemaValidator) -> None:
        self._check = Validation(validator)
        self._found: dict[tuple[Node, int], list[Problem]] = {}

    def explain(self, node: Node, value: Any) -> Iterator[Problem]:
        if not self._check.holds(node, value):
            yield from self._broken(node, value)
        elif not self._check.is_closed([node], value):
            yield from self._unclosed([node], value)

    def _broken(self, node: Node, value: Any) -> list[Problem]:
        """Return how a value breaks a part as it is written."""
        key = node, id(value)
        if key not in self._found:
            self._found[key] = list(islice(self._breaks(node, value), MAX_PROBLEMS)) or [((), "breaks the schema")]
        return self._found[key]

    def _breaks(self, node: Node, value: Any) -> Iterator[Problem]:
        check = self._check
        if node.settled is False:
            yield (), f"False schema does not allow {_shown(value)}"
        if node.rules is not None:
            for error in islice(node.rules.iter_errors(value), MAX_PROBLEMS):
                yield tuple(error.instance_path), error.message
        for each in check.binding(node, value):
            if not check.holds(each, value):
                yield from self._broken(each, value)
        for keyword, branches in (("anyOf", node.any_of), ("oneOf", node.one_of)):
            holding = sum(check.holds(each, value) for each in branches)
            if branches and not holding:
                yield from self._nearest(branches, keyword, value)
            elif keyword == "oneOf" and holding > 1:
                yield (), f"{_shown(value)} is valid under more than one of the schemas listed in the 'oneOf' keyword"
        if node.negated is not None and check.holds(node.negated, value):
            yield (), f"{_shown(value)} is what the schema's 'not' rules out"
        yield from self._breaks_within(node, value)

    def _breaks_within(self, node: Node, value: Any) -> Iterator[Problem]:
        refused = [node.additional, node.other_properties]
        unexpected = []
        for each, key, inner in self._check.within(node, value):
            if self._check.holds(each, inner):
                continue
            if each in refused and each.settled is False:
                unexpected.append(str(key))
            elif each is node.names:
                yield from (((), f"the name {_shown(key)}: {text}") for _, text in self._broken(each, inner))
            else:
                yield from _below(key, self._broken(each, inner))
        if unexpected:
            yield _unexpected(unexpected)
        if not self._check.contains(node, value):
            yield (), "None of the items, or too many, are valid under the schema of 'contains'"

    def _nearest(self, branches: Sequence[Node], keyword: str, value: Any) -> list[Problem]:
        """Return what is wrong with the alternative that comes furthest, if one comes anywhere."""
        told = [self._broken(branch, value) for branch in branches]
        best = max(told, key=lambda each: max(len(steps) for steps, _ in each))
        if len(told) == 1 or any(steps for steps, _ in best):
            return best
        return [((), f"{_shown(value)} is not valid under any of the schemas listed in the '{keyword}' keyword")]

    def _unclosed(self, group: Sequence[Node], value: Any) -> Iterator[Problem]:
        """Yield what no part names in a value that keeps the schema as it is written."""
        check = self._check
        parts = check.applied(group, value)
        if parts is None:
            fixed, choices = check.expanded(group, value)
            for branch in (branch for choice in choices for branch in choice):
                found = list(self._unclosed_within([*fixed, *check.expanded([branch], value)[0]], value))
                yield from found
                if found:
                    return
            return
        if names := check.unnamed(group, parts, value):
            yield _unexpected(names)
        yield from self._unclosed_within(parts, value)

    def _unclosed_within(self, parts: Sequence[Node], value: Any) -> Iterator[Problem]:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            group = self._check.group(parts, key, value)
            if not self._check.is_closed(group, inner):
                yield from _below(key, list(self._unclosed(group, inner)))
        if not all(self._check.enough(part, parts, value) for part in parts):
            yield (), "None of the items are valid under the schema of 'contains'"


def _below(key: str | int, found: list[Problem]) -> Iterator[Problem]:
    return (((key, *steps), text) for steps, text in found)


def _unexpected(names: list[str]) -> Problem:
    shown = ", ".join(f"'{name[:_SHOWN]}'" for name in names[:MAX_PROBLEMS])
    return (), f"Additional properties are not allowed ({shown} {'was' if len(names) == 1 else 'were'} unexpected)"


def _shown(value: Any) -> str:
    text = repr(value)[: _SHOWN + 1] if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
