"""Whether a value keeps a schema whose objects admit nothing that no part of the schema names.

A place (a property's, an item's) may be described by several parts of a schema: by references, by `allOf`, by the
alternatives that hold, by what a condition leads to.  An object there that any of them could describe has only
properties that one of them names, unless one says what else it may have.

 1. What the schema as written refuses stays refused: closing only ever refuses more.
 2. An alternative of `anyOf` counts only if what is within it is closed as well.
 3. What is within `not` and `if` is a test: it is not closed, and describes nothing.
 4. An object that nothing describes is free.

Where closing is `additionalProperties: false` at each place, one compiled validator says it all.  All else is validated
here, each part and each value once, with no more than `MAX_WORK`: no schema and no value make a check exponential.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import jsonschema_rs

from airside.stack.schema.schema_nodes import Graph, Node
from airside.stack.schema.schemas import validator_of, validators_of

MAX_WORK = 2_000_000
"""Values looked at in one check: about half a second.  Arguments of 256 KiB have some 50,000."""

_STEP = 10
"""What a step here costs, in values that a compiled validator looks at."""


class ValidationTooCostly(Exception):
    """A check would take more than `MAX_WORK`."""


class SchemaValidator:
    """Judges values by one schema that was read.  With `closed=False` by the schema as it is written."""

    def __init__(self, schema: dict[str, Any], *, closed: bool = True) -> None:
        self._schema = schema
        self.graph = Graph(schema, closed=closed)
        self.schema = self.graph.closed() if self.graph.root.is_plain else schema
        self._whole = validator_of(self.schema) if self.graph.root.is_plain else None

    def accepts(self, value: Any) -> bool:
        """Whether a value keeps the schema; raise `ValidationTooCostly` if that takes too long to tell."""
        return self._whole.is_valid(value) if self._whole is not None else Validation(self).accepts(value)

    @cached_property
    def written(self) -> jsonschema_rs.ValidatorMap | None:
        """The compiled validators of every part as it is written; None if they could take too long."""
        return validators_of(self._schema) if self.graph.is_bounded else None

    @cached_property
    def closed(self) -> jsonschema_rs.ValidatorMap:
        """The compiled validators of the parts that are plain, closed."""
        return validators_of(self.graph.closed())


class Validation:
    """One value being validated.  What was found out of a part and a value is kept: no value is changed meanwhile."""

    def __init__(self, validator: SchemaValidator) -> None:
        self._validator = validator
        self._work = MAX_WORK
        self._sizes: dict[int, int] = {}
        self._held: dict[tuple[Node, int], bool] = {}
        self._closed: dict[tuple[frozenset[Node], int], bool] = {}

    def accepts(self, value: Any) -> bool:
        """Whether a value keeps the whole schema."""
        root = self._validator.graph.root
        return self.holds(root, value) and self.is_closed([root], value)

    # The schema as it is written.

    def holds(self, node: Node, value: Any) -> bool:
        """Whether a value keeps a part as it is written."""
        if node.settled is not None:
            return node.settled
        key = node, id(value)
        if key not in self._held:
            self._charge(value)
            written = self._validator.written
            self._held[key] = self._keeps(node, value) if written is None else written[node.key].is_valid(value)
        return self._held[key]

    def _keeps(self, node: Node, value: Any) -> bool:
        if node.rules is not None and not node.rules.is_valid(value):
            return False
        if not all(self.holds(each, value) for each in self.binding(node, value)):
            return False
        if node.any_of and not any(self.holds(each, value) for each in node.any_of):
            return False
        if node.one_of and sum(self.holds(each, value) for each in node.one_of) != 1:
            return False
        if node.negated is not None and self.holds(node.negated, value):
            return False
        return all(self.holds(each, inner) for each, _, inner in self.within(node, value)) and self.contains(
            node, value
        )

    def binding(self, node: Node, value: Any) -> list[Node]:
        """Return the parts that a value of this part must keep, whatever else."""
        found = list(node.all_of)
        if node.test is not None:
            outcome = node.then if self.holds(node.test, value) else node.otherwise
            found += [] if outcome is None else [outcome]
        return found + [each for key, each in node.dependents.items() if isinstance(value, dict) and key in value]

    def within(self, node: Node, value: Any) -> Iterable[tuple[Node, str | int, Any]]:
        """Yield the parts that describe what is within a value, each with its key and the inner value."""
        for key, inner in _inner(value):
            for each in self._below(node, key, value):
                yield each, key, inner
            if node.names is not None and isinstance(key, str):
                yield node.names, key, key

    def _below(self, node: Node, key: str | int, value: Any) -> list[Node]:
        """Return the parts that describe what a value has at a key."""
        found = node.of_property(key) if isinstance(key, str) else node.of_item(key)
        other = node.other_properties if isinstance(key, str) else node.other_items
        return found if other is None or key in self._evaluated(node, value, others=False) else [*found, other]

    def contains(self, node: Node, value: Any) -> bool:
        """Whether as many items are as `contains` says."""
        if node.contains is None or not isinstance(value, list):
            return True
        count = sum(self.holds(node.contains, inner) for inner in value)
        return bool(node.schema.get("minContains", 1) <= count <= node.schema.get("maxContains", count))

    def _evaluated(self, node: Node, value: Any, *, others: bool = True) -> set[str | int]:
        """Return the keys of a value that a part it keeps has evaluated, in the sense of `unevaluatedProperties`."""
        self._charge(None)
        if others and _has_others(node, value):
            return {key for key, _ in _inner(value)}
        found = {
            key for key, _ in _inner(value) if (node.of_property(key) if isinstance(key, str) else node.of_item(key))
        }
        if node.contains is not None and isinstance(value, list):
            found |= {index for index, inner in enumerate(value) if self.holds(node.contains, inner)}
        parts = [*self.binding(node, value), *node.any_of, *node.one_of, *([] if node.test is None else [node.test])]
        for part in parts:
            if self.holds(part, value):
                found |= self._evaluated(part, value)
        return found

    # Closed.

    def is_closed(self, group: Sequence[Node], value: Any) -> bool:
        """Whether there is nothing in a value, which keeps all of these parts, that none of them names."""
        if not isinstance(value, dict | list) or all(node.is_quiet for node in group):
            return True
        key = frozenset(group), id(value)
        if key not in self._closed:
            self._charge(value)
            self._closed[key] = self._is_closed(group, value)
        return self._closed[key]

    def _is_closed(self, group: Sequence[Node], value: Any) -> bool:
        if len(group) == 1 and group[0].is_plain:
            return self._validator.closed[group[0].key].is_valid(value)
        parts = self.applied(group, value)
        return parts is not None and not self.unnamed(group, parts, value) and self._is_closed_within(parts, value)

    def applied(self, group: Sequence[Node], value: Any) -> list[Node] | None:
        """Return all parts that describe a value; None if there is no alternative within which it is closed."""
        fixed, choices = self.expanded(group, value)
        found = list(fixed)
        for choice in choices:
            fitting = [each for branch in choice if (each := self._fitting(fixed, branch, value)) is not None]
            if not fitting:
                return None
            found += (part for each in fitting for part in each)
        return list(dict.fromkeys(found))

    def _fitting(self, base: Sequence[Node], branch: Node, value: Any) -> list[Node] | None:
        """Return the parts that an alternative adds; None if the value is not closed within it."""
        own, choices = self.expanded([branch], value)
        for choice in choices:
            fitting = [each for inner in choice if (each := self._fitting([*base, *own], inner, value)) is not None]
            if not fitting:
                return None
            own += (part for each in fitting for part in each)
        return own if self._is_closed_within([*base, *own], value) else None

    def expanded(self, group: Sequence[Node], value: Any) -> tuple[list[Node], list[list[Node]]]:
        """Return the parts that apply to a value for certain, and the alternatives of which some do."""
        fixed: dict[Node, None] = {}
        choices: list[list[Node]] = []
        todo = list(group)
        while todo:
            node = todo.pop()
            if node in fixed:
                continue
            self._charge(None)
            fixed[node] = None
            todo += self.binding(node, value)
            todo += (each for each in node.one_of if self.holds(each, value))
            holding = [each for each in node.any_of if self.holds(each, value)]
            if len(holding) == 1:
                todo += holding
            elif holding:
                choices.append(holding)
        return list(fixed), choices

    def unnamed(self, group: Sequence[Node], parts: Sequence[Node], value: Any) -> list[str]:
        """Return the properties of an object that no part names."""
        if not isinstance(value, dict) or not any(node.described for node in group):
            return []
        left = set(value)
        for node in parts:
            tested = node.test is not None and self.holds(node.test, value)
            if tested and node.test is not None:
                left -= self._evaluated(node.test, value)
            left -= left if _has_others(node, value) else {key for key in left if node.of_property(key)}
        return sorted(left)

    def _is_closed_within(self, parts: Sequence[Node], value: Any) -> bool:
        for key, inner in _inner(value):
            if not self.is_closed(self.group(parts, key, value), inner):
                return False
        return all(self.enough(part, parts, value) for part in parts)

    def group(self, parts: Sequence[Node], key: str | int, value: Any) -> list[Node]:
        """Return the parts that describe what a value has at a key."""
        return list(dict.fromkeys(each for part in parts for each in self._below(part, key, value)))

    def enough(self, part: Node, parts: Sequence[Node], value: Any) -> bool:
        """Whether enough items are, and are closed, as `contains` says."""
        if part.contains is None or not isinstance(value, list):
            return True
        count = 0
        for index, inner in enumerate(value):
            group = [*self.group(parts, index, value), part.contains]
            count += self.holds(part.contains, inner) and self.is_closed(list(dict.fromkeys(group)), inner)
        return bool(count >= part.schema.get("minContains", 1))

    # What it costs.

    def _charge(self, value: Any) -> None:
        self._work -= _STEP + self._size(value)
        if self._work < 0:
            raise ValidationTooCostly

    def _size(self, value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._sizes:
            self._sizes[id(value)] = 1 + sum(self._size(inner) for _, inner in _inner(value))
        return self._sizes[id(value)]


def _inner(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _has_others(node: Node, value: Any) -> bool:
    """Whether a part says what becomes of all that nothing else evaluates."""
    return (node.other_properties if isinstance(value, dict) else node.other_items) is not None
