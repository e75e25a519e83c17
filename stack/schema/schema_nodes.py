"""A schema as a graph of its parts, and what can be told of each part before any value is seen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from airside.stack.schema.schemas import Schema, at, pattern_of, pointer_of, steps_of, subschemas, validator_of

MAX_WEIGHT = 500
"""How often a compiled validator may look at one value: alternatives within alternatives multiply."""

_APPLIED = frozenset(
    {"additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems", "contains", "not"}
    | {"if", "then", "else", "contentSchema", "allOf", "anyOf", "oneOf", "prefixItems", "properties", "$ref"}
    | {"patternProperties", "dependentSchemas", "$defs", "definitions", "minContains", "maxContains", "default"}
    | {"title", "description", "examples", "$comment", "deprecated", "readOnly", "writeOnly"}
)
_ONE_OF_NODE = {
    "additionalProperties": "additional",
    "unevaluatedProperties": "other_properties",
    "propertyNames": "names",
    "items": "items",
    "unevaluatedItems": "other_items",
    "contains": "contains",
    "not": "negated",
    "if": "test",
    "then": "then",
    "else": "otherwise",
}
_LISTED_OF_NODE = {"allOf": "all_of", "anyOf": "any_of", "oneOf": "one_of", "prefixItems": "prefix"}


class Node:
    """One part of a schema; `key` is that of its compiled validator.

    `rules` checks what it says without other parts; a `$ref` is one of `all_of`.  `described` = it, or what describes
    the same value with it, names properties.  `needs` = a place that it begins is to be closed; `is_quiet` = there is
    nothing to close in it.  `is_plain` = closing it, and all within it, is `additionalProperties: false`.
    """

    __slots__ = (
        "additional",
        "all_of",
        "any_of",
        "contains",
        "dependents",
        "described",
        "is_plain",
        "is_quiet",
        "items",
        "key",
        "names",
        "needs",
        "negated",
        "one_of",
        "other_items",
        "other_properties",
        "otherwise",
        "patterns",
        "pointer",
        "prefix",
        "properties",
        "rules",
        "schema",
        "settled",
        "steps",
        "test",
        "then",
    )

    def __init__(self, steps: tuple[str, ...], schema: Schema) -> None:
        self.steps = steps
        self.pointer = pointer_of(steps)
        self.key = unquote(self.pointer)
        self.schema = schema if isinstance(schema, dict) else {}
        self.settled = schema if isinstance(schema, bool) else None
        own = {key: value for key, value in self.schema.items() if key not in _APPLIED}
        self.rules = validator_of(own) if own else None
        self.all_of: list[Node] = []
        self.any_of: list[Node] = []
        self.one_of: list[Node] = []
        self.prefix: list[Node] = []
        self.properties: dict[str, Node] = {}
        self.dependents: dict[str, Node] = {}
        self.patterns: list[tuple[Callable[[str], bool], Node]] = []
        self.negated: Node | None = None
        self.test: Node | None = None
        self.then: Node | None = None
        self.otherwise: Node | None = None
        self.names: Node | None = None
        self.additional: Node | None = None
        self.other_properties: Node | None = None
        self.items: Node | None = None
        self.other_items: Node | None = None
        self.contains: Node | None = None
        self.described = self.needs = self.is_plain = self.is_quiet = False

    @property
    def parts(self) -> Iterator[Node]:
        """The parts that describe the same value, if they apply to it."""
        yield from (*self.all_of, *self.any_of, *self.one_of, *self.dependents.values())
        yield from (each for each in (self.then, self.otherwise) if each is not None)

    @property
    def tests(self) -> Iterator[Node]:
        """The parts that only test: the same value, or the name of a property."""
        yield from (each for each in (self.negated, self.test, self.names) if each is not None)

    @property
    def below(self) -> Iterator[Node]:
        """The parts that begin a place of their own within the value."""
        yield from (*self.properties.values(), *(node for _, node in self.patterns), *self.prefix)
        rest = (self.additional, self.other_properties, self.items, self.other_items, self.contains)
        yield from (each for each in rest if each is not None)

    def of_property(self, key: str) -> list[Node]:
        """Return the parts below that describe a property, whatever others have evaluated."""
        found = [self.properties[key]] if key in self.properties else []
        found += [node for has, node in self.patterns if has(key)]
        return found if found or self.additional is None else [self.additional]

    def of_item(self, index: int) -> list[Node]:
        """Return the part below that describes an item, whatever others have evaluated."""
        if index < len(self.prefix):
            return [self.prefix[index]]
        return [] if self.items is None else [self.items]


class Graph:
    """The parts of a schema that was read.  `is_bounded` = a compiled validator looks at each value a few times only.

    A compiled validator repeats what it did whenever another part refers to the same one, and through a circle of
    references there is no end to it.
    """

    def __init__(self, schema: dict[str, Any], *, closed: bool) -> None:
        self._schema = schema
        self._nodes: dict[tuple[str, ...], Node] = {}
        self._targets: set[Node] = set()
        self.root = self._node(())
        nodes = list(self._nodes.values())
        for node in nodes:
            node.described = closed and any("properties" in each.schema or each.patterns for each in _with_parts(node))
            node.needs = node.described and not _says_what_else(node)
        self.is_bounded = not self._has_circle() and _weight(self.root, {}) <= MAX_WEIGHT
        for node in set(nodes) - _restless(nodes):
            node.is_quiet = not node.needs
        places = {self.root, *(child for node in nodes for child in node.below)}
        if self.is_bounded:
            known: dict[Node, bool] = {}
            for node in nodes:
                node.is_plain = node in places and self._plain(node, known)

    @property
    def nodes(self) -> Iterator[Node]:
        """Every part that the schema uses."""
        yield from self._nodes.values()

    def closed(self) -> dict[str, Any]:
        """Return the schema with its plain places closed."""
        made = copy.deepcopy(self._schema)
        for node in self._nodes.values():
            if node.is_plain and node.needs:
                at(made, node.steps)["additionalProperties"] = False
        return made

    def _node(self, steps: tuple[str, ...]) -> Node:
        if steps in self._nodes:
            return self._nodes[steps]
        schema = at(self._schema, steps)
        node = self._nodes[steps] = Node(steps, schema)
        for keyword, further, _ in subschemas(schema):
            if keyword in ("$defs", "definitions", "contentSchema"):
                continue
            child = self._node((*steps, *further))
            if keyword in _ONE_OF_NODE:
                setattr(node, _ONE_OF_NODE[keyword], child)
            elif keyword in _LISTED_OF_NODE:
                getattr(node, _LISTED_OF_NODE[keyword]).append(child)
            elif keyword == "patternProperties":
                node.patterns.append((pattern_of(further[-1]), child))
            else:
                (node.properties if keyword == "properties" else node.dependents)[further[-1]] = child
        if "$ref" in node.schema:
            target = self._node(steps_of(node.schema["$ref"]))
            self._targets.add(target)
            node.all_of.append(target)
        return node

    def _plain(self, node: Node, known: dict[Node, bool]) -> bool:
        if node not in known:
            alone = not any((*node.parts, *node.tests, node.contains, node.other_properties, node.other_items))
            if alone and node not in self._targets:
                known[node] = all(self._plain(child, known) for child in node.below)
            else:
                known[node] = node.is_quiet
        return known[node]

    def _has_circle(self) -> bool:
        done: set[Node] = set()
        above: set[Node] = set()

        def follow(node: Node) -> bool:
            if node in done or node in above:
                return node in above
            above.add(node)
            found = any(follow(each) for each in (*node.parts, *node.tests, *node.below))
            above.discard(node)
            done.add(node)
            return found

        return follow(self.root)


def _with_parts(node: Node) -> Iterator[Node]:
    """Yield a part and all that may describe the same value with it."""
    seen, todo = {node}, [node]
    while todo:
        found = todo.pop()
        yield found
        new = set(found.parts) - seen
        seen |= new
        todo += new


def _says_what_else(node: Node) -> bool:
    """Whether it says itself what becomes of properties that it does not name."""
    says = node.additional is not None or node.other_properties is not None
    return says or any(_says_what_else(part) for part in node.all_of)


def _restless(nodes: list[Node]) -> set[Node]:
    """Return the parts within which there is a place to close."""
    found = {node for node in nodes if any(child.needs for child in node.below)}
    while True:
        more = {
            node for node in nodes if node not in found and any(each in found for each in (*node.parts, *node.below))
        }
        if not more:
            return found
        found |= more


def _weight(node: Node, known: dict[Node, int]) -> int:
    """Return how often a compiled validator may look at one value, in or below what the part describes."""
    if node not in known:
        # What is unevaluated is found out by looking at the parts once more.
        again = 2 if node.other_properties is not None or node.other_items is not None else 1
        inside = sum(_weight(each, known) for each in (*node.parts, *node.tests))
        known[node] = max([1, *(_weight(each, known) for each in node.below)]) + again * inside
    return known[node]
