"""What a tool takes is what its author's schema takes, closed: closing adds nothing, and nothing else is lost."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from airside.stack.canonical import canonical
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.schema import schema_nodes
from airside.stack.schema.explanations import problems
from airside.stack.schema.schemas import read_schema
from airside.stack.schema.toolspec import ArgumentValidator
from airside.stack.schema.validation import SchemaValidator
from airside.tools.tool import Tool

KEYS = ("a", "b", "c", "d", "e")
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.sampled_from(["", "a", "ab", "z"]))
RULES: list[Any] = [
    True,
    {},
    {"type": "integer"},
    {"type": ["string", "null"]},
    {"type": "number", "minimum": 1},
    {"const": 1},
    {"enum": ["a", 2, None]},
    {"pattern": "^a"},
    {"minLength": 1, "maxLength": 1},
    {"type": "object"},
    {"type": "array", "maxItems": 1},
    {"required": ["a"]},
    {"not": {"const": 2}},
    {"not": {"properties": {"a": {"const": 1}}, "required": ["a"]}},
    {"maxProperties": 1},
]


@st.composite
def schemas(draw: st.DrawFn, depth: int, keys: tuple[str, ...] = KEYS, *, whole: bool = True) -> Any:
    """Draw a schema.  Parts that may apply to one value describe the insides of different properties of it."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(RULES))
    made: dict[str, Any] = {}
    if draw(st.booleans()):
        made["type"] = draw(st.sampled_from(["object", "object", "array", ["object", "null"]]))
    own, parts = keys[: max(1, len(keys) // 2)], keys[max(1, len(keys) // 2) :]
    for keyword in draw(st.lists(st.sampled_from(["properties", "items", "prefixItems", "other"]), max_size=3)):
        if keyword == "properties":
            made["properties"] = {
                key: draw(schemas(depth - 1)) if key in own else draw(st.sampled_from(RULES))
                for key in draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
            }
        elif keyword == "other":
            which = draw(st.sampled_from(["additionalProperties", "unevaluatedProperties", "patternProperties"]))
            rule = draw(st.sampled_from([*RULES, False]))
            made[which] = {draw(st.sampled_from(["^[ab]", "z"])): rule} if which == "patternProperties" else rule
        else:
            inner = draw(schemas(depth - 1) if whole else st.sampled_from(RULES))
            made[keyword] = inner if keyword == "items" else [inner]
    if draw(st.booleans()):
        made["required"] = draw(st.lists(st.sampled_from(KEYS), max_size=1))
    if parts and draw(st.booleans()):
        made |= draw(compositions(depth - 1, parts))
    return made


@st.composite
def compositions(draw: st.DrawFn, depth: int, keys: tuple[str, ...]) -> dict[str, Any]:
    keyword = draw(st.sampled_from(["anyOf", "oneOf", "allOf", "if", "dependentSchemas", "not", "$ref"]))
    if keyword in ("anyOf", "oneOf"):
        return {keyword: [draw(schemas(depth, keys, whole=False)) for _ in range(draw(st.integers(1, 3)))]}
    if keyword == "allOf":
        half = max(1, len(keys) // 2)
        shares = [each for each in (keys[:half], keys[half:]) if each]
        return {keyword: [draw(schemas(depth, share, whole=False)) for share in shares]}
    if keyword == "if":
        outcome = draw(st.sampled_from([("then",), ("else",), ("then", "else")]))
        return {
            "if": draw(st.sampled_from(RULES)),
            **{each: draw(schemas(depth, keys, whole=False)) for each in outcome},
        }
    if keyword == "dependentSchemas":
        return {keyword: {draw(st.sampled_from(KEYS)): draw(schemas(depth, keys, whole=False))}}
    return (
        {"not": draw(st.sampled_from(RULES))} if keyword == "not" else {"$ref": draw(schemas(depth, keys, whole=False))}
    )


def with_definitions(schema: Any, found: dict[str, Any]) -> Any:
    """Return a schema with what stands under `$ref` moved to definitions."""
    if isinstance(schema, list):
        return [with_definitions(each, found) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: with_definitions(value, found) for key, value in schema.items()}
    if isinstance(made.get("$ref"), dict | bool):
        name = f"d{len(found)}"
        found[name], made["$ref"] = made["$ref"], f"#/$defs/{name}"
    return made


@st.composite
def whole_schemas(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {}
    root = with_definitions(draw(schemas(3)), found)
    root = {**(root if isinstance(root, dict) else {}), "type": "object"}
    if draw(st.booleans()):
        root["properties"] = {**root.get("properties", {}), "f": {"$ref": "#"}}
    return {**root, "$defs": found} if found else root


def values(depth: int = 3) -> st.SearchStrategy[Any]:
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=2), st.dictionaries(st.sampled_from([*KEYS, "f", "z"]), inner, max_size=4)
        ),
        max_leaves=8,
    )


OBJECTS = st.dictionaries(st.sampled_from([*KEYS, "f", "z"]), values(), max_size=4)

# The oracle: a plain validator of another make, and places closed by writing it into the schema.

_PLACES_MAP, _PLACES = ("properties", "patternProperties"), ("items", "additionalProperties", "unevaluatedProperties")


def parts_of(schema: Any, root: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas that may describe what this one describes."""
    if not isinstance(schema, dict):
        return []
    found = [schema]
    for keyword in ("allOf", "anyOf", "oneOf"):
        found += [part for each in schema.get(keyword, []) for part in parts_of(each, root)]
    for keyword in ("then", "else"):
        found += parts_of(schema.get(keyword), root)
    found += [part for each in schema.get("dependentSchemas", {}).values() for part in parts_of(each, root)]
    if "$ref" in schema:
        found += parts_of(root if schema["$ref"] == "#" else root["$defs"][schema["$ref"].split("/")[-1]], root)
    return found


def says(schema: Any, root: dict[str, Any]) -> bool:
    """Whether a schema says for certain what further properties there may be."""
    if not isinstance(schema, dict):
        return False
    if "additionalProperties" in schema or "unevaluatedProperties" in schema:
        return True
    target = schema.get("$ref")
    followed = [] if target is None else [root if target == "#" else root["$defs"][target.split("/")[-1]]]
    return any(says(each, root) for each in (*schema.get("allOf", []), *followed))


def closed_by_hand(schema: Any, root: dict[str, Any], *, whole: bool) -> Any:
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for keyword in _PLACES_MAP:
        if keyword in made:
            made[keyword] = {key: closed_by_hand(each, root, whole=True) for key, each in made[keyword].items()}
    for keyword in _PLACES:
        if keyword in made:
            made[keyword] = closed_by_hand(made[keyword], root, whole=True)
    if "prefixItems" in made:
        made["prefixItems"] = [closed_by_hand(each, root, whole=True) for each in made["prefixItems"]]
    for keyword in ("allOf", "anyOf", "oneOf"):
        if keyword in made:
            made[keyword] = [closed_by_hand(each, root, whole=False) for each in made[keyword]]
    for keyword in ("then", "else"):
        if keyword in made:
            made[keyword] = closed_by_hand(made[keyword], root, whole=False)
    for keyword in ("dependentSchemas", "$defs"):
        if keyword in made:
            made[keyword] = {key: closed_by_hand(each, root, whole=False) for key, each in made[keyword].items()}
    named = any("properties" in part or part.get("patternProperties") for part in parts_of(schema, root))
    if whole and named and not says(schema, root):
        made["unevaluatedProperties"] = False
    return made


def plainly(schema: Any, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def takes(schema: dict[str, Any], value: dict[str, Any]) -> bool:
    """Whether a tool of this schema takes these arguments; one that is refused takes none."""
    try:
        made = Tool.from_schema("t", schema, lambda **given: given, effect="read")
    except InvalidConfig as error:
        if "it must be 'object'" not in error.message:
            raise
        return False
    try:
        return ArgumentValidator(made.spec).complete(value) == canonical(value)
    except InvalidInput:
        return False


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(whole_schemas(), st.lists(OBJECTS, min_size=1, max_size=8))
def test_a_tool_takes_what_a_plain_validator_takes_whose_objects_are_closed(
    schema: dict[str, Any], given_values: list[dict[str, Any]]
) -> None:
    closed = closed_by_hand(schema, schema, whole=True)
    event(f"compiled: {SchemaValidator(read_schema(schema, 't')).graph.root.is_plain}")
    for value in given_values:
        event(f"taken: {plainly(closed, value)}, as written: {plainly(schema, value)}")
        assert takes(schema, value) == (plainly(schema, value) and plainly(closed, value)), (closed, value)


@pytest.mark.parametrize(
    ("target", "taken"), [(True, True), (False, False), ({"required": ["a"]}, False), ({"type": "integer"}, False)]
)
def test_a_reference_at_the_root_may_be_to_anything_or_to_nothing(target: Any, taken: bool) -> None:
    """What stands beside it says that it is an object, and takes nothing from what the reference says."""
    assert takes({"$ref": "#/$defs/d", "type": "object", "$defs": {"d": target}}, {}) is taken


@pytest.fixture(params=[schema_nodes.MAX_WEIGHT, -1], ids=["compiled", "interpreted"])
def weight(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Judge with compiled validators where that is bounded, or without any."""
    monkeypatch.setattr(schema_nodes, "MAX_WEIGHT", request.param)
    return int(request.param)


CONTAINS = [{"const": 1}, {"type": "string"}, {"properties": {"a": {}}}, {"required": ["a"]}, False]


@st.composite
def any_schemas(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a schema whose parts may describe anything together, of the whole vocabulary."""
    made: dict[str, Any] = draw(whole_schemas())
    for _ in range(draw(st.integers(0, 2))):
        further = draw(st.sampled_from(["contains", "names", "items", "if", "parallel"]))
        if further == "contains":
            array = {"contains": draw(st.sampled_from(CONTAINS)), "minContains": draw(st.integers(0, 2))}
            array |= {"maxContains": 2} if draw(st.booleans()) else {}
            array |= (
                {"unevaluatedItems": draw(st.sampled_from([False, {"type": "integer"}]))} if draw(st.booleans()) else {}
            )
            made = {**made, "allOf": [*made.get("allOf", []), {"properties": {"a": array}}]}
        elif further == "names":
            made["propertyNames"] = draw(st.sampled_from([{"pattern": "[abcf]"}, {"not": {"const": "a"}}]))
        elif further == "items":
            made = {**made, "allOf": [*made.get("allOf", []), {"properties": {"b": {"unevaluatedItems": False}}}]}
        elif further == "if":
            made["if"] = {"properties": {"a": draw(st.sampled_from(RULES))}}
            made["unevaluatedProperties"] = draw(st.sampled_from([False, {"type": "integer"}]))
        else:
            made["allOf"] = [*made.get("allOf", []), draw(schemas(2)) if "$defs" not in made else True]
    return made if _follows(made) else draw(whole_schemas())


def _follows(schema: Any) -> bool:
    """Whether every reference is a text: parts drawn late are not moved to definitions."""
    if isinstance(schema, list):
        return all(map(_follows, schema))
    return not isinstance(schema, dict) or (
        isinstance(schema.get("$ref", ""), str) and all(_follows(each) for each in schema.values())
    )


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(schema=any_schemas(), given_values=st.lists(OBJECTS, min_size=1, max_size=6))
def test_closing_only_ever_refuses_more_and_whatever_is_refused_is_explained(
    schema: dict[str, Any], given_values: list[dict[str, Any]], weight: int
) -> None:
    read = read_schema(schema, "t")
    written, closed = SchemaValidator(read, closed=False), SchemaValidator(read)
    for value in given_values:
        before = copy.deepcopy(value)
        assert written.accepts(value) == plainly(schema, value)
        assert written.accepts(value) or not closed.accepts(value)
        for judge in (written, closed):
            assert judge.accepts(value) == (problems(judge, value) == [])
        assert canonical(value) == canonical(before)
