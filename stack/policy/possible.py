"""Whether a test of an argument can ever be met, as far as the tool's schema says cheaply.

A rule whose value has a type, a length or a choice that the argument never has is a mistake: a deny with it would let
every call through.  What the schema leaves open may be met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs

from airside.stack.canonical import MAX_DEPTH
from airside.stack.policy.bundle import ArgumentTest
from airside.stack.policy.comparisons import ArgumentCheck, compile_test
from airside.stack.schema.paths import EVERY, Every, index_of, parse_path
from airside.stack.schema.toolspec import Place, ToolSpec
from airside.stack.text.spelling import plain
from airside.stack.values import Identity

_OF_ONE = {"in": "eq", "not_in": "eq", "ne": "eq"}
_OWN = frozenset({"type", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems"}) | frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
"""Keywords that say of a value itself whether it fits."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
    "null": type(None),
}


def problem_with(test: ArgumentTest, spec: ToolSpec, *, forbids: bool) -> str:
    """Return why a test can never be met by the arguments of a tool, nothing if it may be."""
    places = places_at(test.path, spec, forbids=forbids)
    if not places:
        return f"has an argument {test.path!r}"
    if test.op in ("exists", "absent"):
        is_wanted = test.op == "exists" and test.value is not False
        return "" if is_wanted or not _is_always_there(test.path, spec) else f"can be called without {test.path!r}"
    if forbids:
        places = [inner for place in places for inner in _looked_through(place)]
    if test.caller is not None:
        fits = any(place.may_hold(_has_type("string")) for place in places)
        return "" if fits else f"can have a text as {test.path!r}, which {test.caller} is"
    if test.other is not None:
        return ""  # whether there is anything to compare with is another question
    for value in test.value if test.op in ("in", "not_in") else [test.value]:
        meets = [(place, _meets(test, test.op, value, forbids=forbids)) for place in places]
        if test.op == "contains":
            meets += [(item, _meets(test, "eq", value, forbids=forbids)) for place in places for item in _items(place)]
        if not any(place.may_hold(fits) for place, fits in meets):
            return f"can have a {test.path!r} that is {_OF_ONE.get(test.op, test.op)} {value!r:.60}"
    return ""


def names(spec: ToolSpec, argument: str) -> bool:
    """Whether a tool's own schema names an argument so."""
    return spec.place.is_named(argument)


def places_at(path: str, spec: ToolSpec, *, forbids: bool) -> list[Place]:
    """Return the places of a tool's arguments that a path may lead to; for what forbids, lists are looked through."""
    places = [spec.place]
    for part in parse_path(path):
        places = [inner for place in places for inner in _step(place, part, forbids=forbids)]
    return places


def _step(place: Place, part: str | Every, *, forbids: bool) -> list[Place]:
    """Return the places a part of a path may lead to; for what forbids, lists and objects are looked through."""
    items = _items(place)
    if part is EVERY:
        return [*items, place, *(_values(place) if forbids else [])]
    below = _keys(place, part)
    if index_of(part) is not None:
        return [*below, *items, *([place] if forbids and part == "0" else [])]
    if forbids and place.has_items:
        below += [inner for item in items for inner in _step(item, part, forbids=forbids)]
    return below


def _keys(place: Place, key: str) -> list[Place]:
    """Return the places of an object's key: what the schema says of it, and anything where it says nothing."""
    if not place.may_hold(_has_type("object")):
        return []
    described = [place.key(key)] if place.is_named(key) or place.takes_others else []
    is_open = place.may_hold(_is_silent("object", _KEYWORDS_OF_KEYS)) or (place.is_named(key) and place.takes_others)
    return [*described, *([place.anything()] if is_open else [])]


def _values(place: Place) -> list[Place]:
    """Return the places of all an object may have: what its schema names, and what a caller may name."""
    return [inner for key in (*sorted(place.names), _UNNAMED) for inner in _keys(place, key)]


def _items(place: Place) -> list[Place]:
    """Return the places of a list's items, none where no list can be."""
    described = [place.item()] if place.has_items else []
    is_open = place.may_hold(_is_silent("array", _KEYWORDS_OF_ITEMS))
    return [*described, *([place.anything()] if is_open else [])]


def _looked_through(place: Place) -> list[Place]:
    """Return a place with those of the items of lists within it."""
    found, latest = [place], [place]
    for _ in range(MAX_DEPTH):
        latest = [item for each in latest if not each.is_undescribed for item in _items(each)]
        found += latest
    return found


_UNNAMED = "\x00"
"""A key that no schema names: no arguments have one."""

_KEYWORDS_OF_KEYS = frozenset({"properties", "additionalProperties", "patternProperties"})
_KEYWORDS_OF_ITEMS = frozenset({"items", "prefixItems"})


def _is_silent(kind: str, keywords: frozenset[str]) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether one schema takes values of a type, and says nothing of what is in them."""
    takes = _has_type(kind)
    return lambda schema: takes(schema) and keywords.isdisjoint(schema)


def _is_always_there(path: str, spec: ToolSpec) -> bool:
    parts, given = parse_path(path), spec.parameters
    if len(parts) != 1 or parts[0] is EVERY:
        return False
    described = given.get("properties", {}).get(parts[0])
    if Place(given).key(parts[0]).may_hold(_has_type("null")):
        return False
    return parts[0] in given.get("required", ()) or (isinstance(described, Mapping) and "default" in described)


def _has_type(*kinds: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether the keywords of one schema take values of one of these types."""

    def fits(schema: Mapping[str, Any]) -> bool:
        named = schema.get("type", kinds)
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        return not set(kinds).isdisjoint([named] if isinstance(named, str) else named) and (
            choices is None or any(isinstance(choice, _KINDS[kind]) for choice in choices for kind in kinds)
        )

    return fits


def _meets(test: ArgumentTest, op: str, value: Any, *, forbids: bool) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether the keywords of one schema leave room for a value that meets the test with this operand."""
    op = _OF_ONE.get(op, op)
    asked = ArgumentTest(path="x", op=op, value=value, ignore_case=test.ignore_case)  # type: ignore[arg-type]
    check = compile_test(asked, forbids=forbids)

    def by_choice(schema: Mapping[str, Any]) -> bool:
        choices = [schema["const"]] if "const" in schema else schema["enum"]
        return any(_safely(check, choice) for choice in choices)

    def by_value(schema: Mapping[str, Any]) -> bool:
        if isinstance(value, str) and (test.ignore_case or plain(value) != value or value != value.strip()):
            return _has_type("string")(schema)
        return _fits({key: schema[key] for key in _OWN & schema.keys()}, value)

    def fits(schema: Mapping[str, Any]) -> bool:
        if "const" in schema or "enum" in schema:
            return by_choice(schema)
        if op == "eq":
            return by_value(schema)
        if op in ("lt", "le", "gt", "ge"):
            return _has_type("integer", "number")(schema) and _in_bounds(schema, op, value)
        return (
            isinstance(value, str)
            and _has_type("string")(schema)
            and (op == "matches" or _is_short_enough(schema, value))
        )

    return fits


def _safely(check: ArgumentCheck, value: Any) -> bool:
    try:
        return check({"x": value}, _NOBODY, {})
    except TypeError:
        return False


_NOBODY = Identity(principal="nobody", tenant="nobody")  # type: ignore[arg-type]


def _fits(schema: dict[str, Any], value: Any) -> bool:
    try:
        return jsonschema_rs.is_valid(schema, value, pattern_options=jsonschema_rs.RegexOptions(), offline=True)
    except (ValueError, jsonschema_rs.ValidationError):
        return True  # what is wrong with a tool's schema is said elsewhere


def _in_bounds(schema: Mapping[str, Any], op: str, value: float) -> bool:
    """Whether a number that compares so with `value` may lie within the schema's bounds."""
    upward = op in ("gt", "ge")
    bound, beyond = ("maximum", "exclusiveMaximum") if upward else ("minimum", "exclusiveMinimum")
    sign = 1 if upward else -1
    room = [sign * (schema[name] - value) for name in (bound, beyond) if isinstance(schema.get(name), int | float)]
    if op in ("gt", "lt") or beyond in schema:
        return all(each > 0 for each in room)
    return all(each >= 0 for each in room)


def _is_short_enough(schema: Mapping[str, Any], value: Any) -> bool:
    longest = schema.get("maxLength")
    return not isinstance(longest, int) or not isinstance(value, str) or len(value.strip()) <= longest
