"""What a schema may be, and what is taken by one: examples that people write."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import AwareDatetime, BaseModel, Field
from typing_extensions import TypedDict

from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.provenance.tracer import subjects
from airside.stack.schema import validation
from airside.stack.schema.explanations import problems
from airside.stack.schema.schemas import read_schema, validator_of
from airside.stack.schema.toolspec import ArgumentValidator
from airside.stack.schema.validation import SchemaValidator, Validation
from airside.tools.tool import Tool, ToolContext, tool

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
WIRE = {
    "type": "object",
    "required": ["method", "cents"],
    "properties": {"method": TEXT, "iban": TEXT, "cents": WHOLE, "country": TEXT},
    "if": {"properties": {"method": {"const": "wire"}}},
    "then": {"required": ["iban"]},
    "not": {"properties": {"country": {"const": "KP"}}, "required": ["country"]},
}


def of(schema: dict[str, Any], function: Callable[..., Any] = lambda **given: given) -> Tool:
    return Tool.from_schema("pay", {"type": "object", **schema}, function, effect="write")


def taken(made: Tool, arguments: Any) -> Any:
    """Return the complete arguments, or why they are refused."""
    try:
        return json.loads(ArgumentValidator(made.spec).complete(arguments))
    except InvalidInput as error:
        return error.message


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


ADDRESS = {"address": obj(country=TEXT, zip=TEXT)}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            WIRE,
            [{"method": "cash", "cents": 5}, {"method": "wire", "cents": 5, "iban": "x"}],
            [{"method": "wire", "cents": 5}, {"method": "cash", "cents": 5, "country": "KP"}, {"method": "x", "z": 1}],
        ),
        (
            {
                "properties": {"a": WHOLE},
                "oneOf": [{"properties": {"b": TEXT}, "required": ["b"]}, obj(c=TEXT) | {"required": ["c"]}],
            },
            [{"a": 1, "b": "x"}, {"c": "x"}],
            [{"a": 1}, {"b": "x", "c": "x"}, {"b": "x", "d": 1}],
        ),
        (
            {
                "properties": {"a": WHOLE},
                "anyOf": [{"required": ["a"]}, {"properties": {"b": TEXT}, "required": ["b"]}],
            },
            [{"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}],
            [{}, {"a": 1, "z": 1}],
        ),
        (
            {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"more": TEXT}}], "$defs": {"base": obj(a=WHOLE)}},
            [{"a": 1, "more": "x"}, {"a": 1}],
            [{"a": 1, "z": 1}, {"more": 1}],
        ),
        (
            {
                "properties": {"card": TEXT},
                "dependentSchemas": {"card": {"properties": {"pin": WHOLE}, "required": ["pin"]}},
            },
            [{}, {"card": "x", "pin": 1}],
            [{"card": "x"}, {"pin": 1}],
        ),
        ({"properties": {"a": WHOLE}, "unevaluatedProperties": False}, [{"a": 1}], [{"b": 1}]),
        ({"properties": {"a": WHOLE}, "unevaluatedProperties": TEXT}, [{"a": 1, "b": "x"}], [{"b": 1}]),
        ({"properties": {"a": {"type": "object"}}}, [{"a": {"x": [{"y": 1}]}}], [{"b": 1}]),
        ({"properties": {"a": True, "b": False}}, [{"a": 1}, {"a": None}], [{"b": 1}]),
        ({"properties": {"a": {"items": obj(b=WHOLE)}}}, [{"a": [{"b": 1}]}, {"a": 5}], [{"a": [{"c": 1}]}]),
        ({"patternProperties": {"^x-": TEXT}}, [{"x-a": "1"}], [{"a": "1"}, {"x-a": 1}]),
        ({"properties": {}}, [{}], [{"a": 1}]),
        ({"additionalProperties": obj(n=WHOLE)}, [{"a": {"n": 1}}], [{"a": {"m": 1}}]),
        # What describes a place together is read together.
        (
            {
                "properties": ADDRESS,
                "if": {"properties": {"address": {"properties": {"country": {"const": "US"}}}}},
                "then": {"properties": {"address": {"properties": {"zip": {"pattern": "^[0-9]{5}$"}}}}},
            },
            [{"address": {"country": "US", "zip": "12345"}}, {"address": {"country": "DE", "zip": "x"}}],
            [{"address": {"country": "US", "zip": "x"}}, {"address": {"country": "DE", "street": "x"}}],
        ),
        (
            {"allOf": [{"properties": {"o": obj(a=WHOLE)}}, {"properties": {"o": obj(b=WHOLE)}}]},
            [{"o": {"a": 1, "b": 2}}],
            [{"o": {"a": 1, "c": 2}}, {"o": {"b": "x"}}],
        ),
        (
            {"properties": {"o": {"type": "object"}}, "allOf": [{"properties": {"o": obj(b=WHOLE)}}]},
            [{"o": {"b": 2}}],
            [{"o": {"c": 2}}],
        ),
        # Each alternative is one as it stands.
        (
            {"anyOf": [{"properties": {"o": obj(a=WHOLE)}}, {"properties": {"o": obj(b=WHOLE)}}]},
            [{"o": {"a": 1}}, {"o": {"b": 1}}],
            [{"o": {"a": 1, "b": 1}}, {"o": {"c": 1}}],
        ),
        (
            {"properties": {"l": {"items": obj(a=WHOLE, b=WHOLE), "contains": {"properties": {"a": {"const": 1}}}}}},
            [{"l": [{"a": 1, "b": 2}, {"b": 3}]}],
            [{"l": [{"a": 2}]}, {"l": [{"a": 1, "c": 2}]}],
        ),
        (
            {"properties": {"l": {"contains": obj(a=WHOLE) | {"required": ["a"]}}}},
            [{"l": [{"a": 1}, 5]}],
            [{"l": [{"a": 1, "b": 1}]}],
        ),
        (
            {
                "properties": {"tree": {"$ref": "#/$defs/node"}},
                "$defs": {"node": obj(n=WHOLE, sub={"items": {"$ref": "#/$defs/node"}})},
            },
            [{"tree": {"n": 1, "sub": [{"n": 2, "sub": []}]}}],
            [{"tree": {"sub": [{"sub": [{"m": 1}]}]}}],
        ),
        (
            {"properties": {"n": WHOLE, "next": {"$ref": "#"}}},
            [{"next": {"next": {"n": 1}}}],
            [{"next": {"next": {"m": 1}}}],
        ),
        # The test of a condition, and what is ruled out, mean what they say.
        (
            {
                "properties": {"o": {"type": "object"}},
                "not": {"properties": {"o": {"properties": {"a": {"const": 1}}}}, "required": ["o"]},
            },
            [{"o": {"a": 2}}, {}],
            [{"o": {"a": 1, "b": 2}}, {"o": {}}],
        ),
    ],
)
def test_a_schema_means_what_it_says(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    made = of(schema)
    assert [taken(made, each) for each in good] == good
    assert [taken(made, each) for each in bad if not isinstance(taken(made, each), str)] == []


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"$ref": "#/$defs/pay", "$defs": {"pay": obj(a=WHOLE)}}, {"a": 1}, {"b": 1}),
        ({"$ref": "#pay", "$defs": {"p": {"$anchor": "pay", **obj(a=WHOLE)}}}, {"a": 1}, {"a": "x"}),
        ({"$dynamicRef": "#pay", "$defs": {"p": {"$dynamicAnchor": "pay", **obj(a=WHOLE)}}}, {"a": 1}, {"a": "x"}),
        (
            {
                "$id": "https://corp.example/pay",
                "$ref": "https://corp.example/pay#/$defs/p",
                "$defs": {"p": obj(a=WHOLE)},
            },
            {"a": 1},
            {"b": 1},
        ),
        ({"type": ["object"], "properties": {"a": WHOLE}}, {"a": 1}, {"b": 1}),
        ({"type": ["object", "null"], "properties": {"a": WHOLE}}, {"a": 1}, {"b": 1}),
        ({"properties": {"a": WHOLE}}, {"a": 1}, {"b": 1}),
        (obj(a={"type": "string", "nullable": True}), {"a": None}, {"a": 1}),
        (obj(a={"type": "string", "enum": ["x"], "nullable": True}), {"a": None}, {"a": "y"}),
        (obj(a={"$ref": "#/$defs/b", "nullable": True}) | {"$defs": {"b": obj(c=WHOLE)}}, {"a": None}, {"a": {"d": 1}}),
        (obj(a={**obj(c=WHOLE), "nullable": True, "default": None}), {"a": {"c": 1}}, {"a": {"d": 1}}),
        (obj(a={"type": "string", "nullable": False}), {"a": "x"}, {"a": None}),
        ({"nullable": True, **obj(a=WHOLE)}, {"a": 1}, {"b": 1}),
        (obj(a={"minimum": 5, "exclusiveMinimum": True}), {"a": 6}, {"a": 5}),
        (obj(a={"maximum": 5, "exclusiveMaximum": False}), {"a": 5}, {"a": 6}),
        (obj(a={"items": [WHOLE], "additionalItems": False}), {"a": [1]}, {"a": [1, 2]}),
        (obj(a=WHOLE, b=WHOLE) | {"dependencies": {"a": ["b"]}}, {"b": 1}, {"a": 1}),
        (obj(a=WHOLE) | {"dependencies": {"a": {"properties": {"b": WHOLE}}}}, {"a": 1, "b": 1}, {"b": 1}),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "definitions": {"x": WHOLE},
                **obj(a={"$ref": "#/definitions/x"}),
            },
            {"a": 1},
            {"a": "1"},
        ),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "id": "urn:x", **obj(a=WHOLE)}, {"a": 1}, {"id": "1"}),
        (
            {"$schema": "https://json-schema.org/draft/2019-09/schema", **obj(n=WHOLE, next={"$recursiveRef": "#"})},
            {"next": {"n": 1}},
            {"next": {"m": 1}},
        ),
        (
            obj(a={"$ref": "#/components/schemas/b"}) | {"components": {"schemas": {"b": obj(c=WHOLE)}}},
            {"a": {"c": 1}},
            {"a": {"d": 1}},
        ),
        (obj(**{"a/b~c %41": WHOLE, "again": {"$ref": "#/properties/a~1b~0c%20%2541"}}), {"again": 1}, {"again": "1"}),
        (
            obj(**{"$ref": TEXT, "properties": TEXT, "if": TEXT}),
            {"$ref": "x", "properties": "y", "if": "z"},
            {"$ref": 1},
        ),
        (
            obj(a={"const": {"$ref": "http://x"}}, b={"enum": [{"type": "strng"}]}),
            {"a": {"$ref": "http://x"}},
            {"a": {}},
        ),
        (obj(a={"pattern": "^(a|aa)+$"}), {"a": "a" * 5000}, {"a": "a" * 5000 + "!"}),
    ],
)
def test_what_says_the_same_in_other_words_is_taken(schema: dict[str, Any], good: Any, bad: Any) -> None:
    made = Tool.from_schema("pay", schema, lambda **given: given, effect="write")
    read = made.spec.parameters
    assert read["type"] == "object"
    assert {key: value for key, value in taken(made, good).items() if key in good} == good
    assert isinstance(taken(made, bad), str)
    assert read_schema(read, "again") == read


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (obj(a={"type": "strng"}), "#/properties/a/type"),
        (obj(a={"required": "b"}), "#/properties/a/required"),
        (obj(a={"minLength": -1}), "#/properties/a/minLength"),
        (obj(a={"properties": 5}), "#/properties/a/properties"),
        (obj(a={"items": "x"}), "#/properties/a/items"),
        (obj(a={"$ref": 5}), r"#/properties/a/\$ref"),
        (obj(a={"allOf": []}), "#/properties/a/allOf"),
        (obj(a={"nullable": "yes"}), "#/properties/a: nullable 'yes'"),
        (obj(a={"default": nan}), "not JSON"),
        (obj(a={"default": {1, 2}}), "not JSON"),
        (obj(a={"$ref": "#/$defs/nothing"}), "names nothing"),
        (obj(a={"$ref": "#nothing"}), "names nothing"),
        (obj(a={"$ref": "#/type"}), "names no schema"),
        (obj(a={"$ref": "http://169.254.169.254/latest"}), "#/properties/a: .* leaves the schema"),
        (obj(a={"$ref": "file:///etc/passwd"}), "leaves the schema"),
        (obj(a={"$ref": "other.json#/x"}), "leaves the schema"),
        (obj(a={"$dynamicRef": "https://x.example/#y"}), "leaves the schema"),
        (obj(a={"$recursiveRef": "https://x.example/"}), "leaves the schema"),
        (obj(a={"$ref": "https://json-schema.org/draft/2020-12/schema"}), "leaves the schema"),
        ({"$id": "https://x.example/a", **obj(a={"$ref": "https://x.example/b"})}, "leaves the schema"),
        (obj(a={"$id": "https://x.example/a", "$ref": "b"}), "begins a document of its own"),
        (obj(a={"$schema": "http://json-schema.org/draft-07/schema#"}), r"a \$schema within"),
        ({"$schema": "https://x.example/mine", **obj()}, "no draft"),
        ({"$schema": 7, **obj()}, "no draft"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", **obj(a={"$ref": "#", "minimum": 1})}, "beside a"),
        (obj(a={"pattern": "^(?!x)"}), "#/properties/a/pattern: .*linear time"),
        (obj(a={"pattern": r"(a)\1"}), "linear time"),
        (obj(a={"pattern": "["}), "#/properties/a/pattern"),
        (obj(a={"patternProperties": {"(?=x)": TEXT}}), "linear time"),
        (obj(a={"propertyNames": {"pattern": "(?<=x)y"}}), "linear time"),
        ({"$ref": "#"}, "circle"),
        (obj(a={"anyOf": [TEXT, {"$ref": "#/properties/a"}]}), "#/properties/a.* circle"),
        ({"$ref": "#/$defs/x", "$defs": {"x": True}}, "it must be 'object'"),
        ({"$ref": "#/$defs/x", "$defs": {"x": TEXT}}, "it must be 'object'"),
        ({"allOf": [{"type": "array"}], "type": "object"}, "it must be 'object'"),
        ({"anyOf": [TEXT, WHOLE]}, "it must be 'object'"),
        ([], "a schema is an object"),
        (True, "a schema is an object"),
    ],
)
def test_a_schema_that_cannot_be_one_is_refused_when_it_is_declared(schema: Any, says: str) -> None:
    with pytest.raises(InvalidConfig, match=f"^tool pay: .*{says}"):
        Tool.from_schema("pay", schema, lambda **given: given, effect="write")


def test_a_schema_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"properties": {"a": deep}}
    for schema in (deep, obj(**{f"p{n}": {} for n in range(6000)})):
        with pytest.raises(InvalidConfig, match=r"^tool pay: "):
            of(schema)


@pytest.mark.parametrize("reference", ["http://127.0.0.1:1/x", "file:///etc/hostname"])
def test_no_validator_can_fetch_anything(reference: str) -> None:
    with pytest.raises(jsonschema_rs.ValidationError, match="Retrieval is disabled"):
        validator_of({"$ref": reference})


# Time.


def expressions(*, closed: bool) -> dict[str, Any]:
    """Return the schema of sums, whose two kinds differ in what their operation is called."""
    kinds = [
        {**obj(op={"enum": names}, args={"items": {"$ref": "#/$defs/e"}}), "required": ["op", "args"]}
        | ({"additionalProperties": False} if closed else {})
        for names in (["add", "mul"], ["add", "not"])
    ]
    return read_schema({**obj(e={"$ref": "#/$defs/e"}), "$defs": {"e": {"anyOf": [{"type": "number"}, *kinds]}}}, "t")


def nested(depth: int, leaf: Any) -> Any:
    return {"op": "add", "args": [nested(depth - 1, leaf)]} if depth else leaf


def lattice(keyword: str) -> dict[str, Any]:
    """Return a schema without circles that leads to one part in ever more ways."""
    steps = {f"s{n}": {keyword: [{"properties": {"a": {"$ref": f"#/$defs/s{n + 1}"}}}] * 2} for n in range(30)}
    return read_schema({**obj(a={"$ref": "#/$defs/s0"}), "$defs": {**steps, "s30": {"type": "number"}}}, "t")


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("leaf", ["x", 1, {"op": "add", "args": [], "further": 1}])
def test_checking_and_explaining_take_work_in_proportion(
    closed: bool, leaf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = SchemaValidator(expressions(closed=closed))
    work: list[int] = []
    monkeypatch.setattr(Validation, "_charge", lambda self, value: work.append(1))
    spent = {}
    for depth in (7, 14):
        work.clear()
        value = {"e": nested(depth, leaf)}
        assert judge.accepts(value) == (leaf == 1)
        told = problems(judge, value)
        spent[depth] = len(work)
        if leaf != 1:
            assert told[0].startswith(".".join(["e", *["args.0"] * depth]))
    assert spent[14] < 3 * spent[7]


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_a_schema_that_leads_everywhere_in_many_ways_is_checked_all_the_same(keyword: str) -> None:
    judge = SchemaValidator(lattice(keyword))
    value: Any = "x"
    for _ in range(31):
        value = {"a": value}
    assert not judge.accepts(value)
    assert problems(judge, value)


def test_a_check_that_would_take_too_long_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_WORK", 500)
    made = of(
        {"properties": {"e": {"$ref": "#/$defs/e"}}, "$defs": {"e": {"items": {"$ref": "#/$defs/e"}, **obj(n=WHOLE)}}}
    )
    assert taken(made, {"e": {"n": 1}}) == {"e": {"n": 1}}
    deep = of(
        {"properties": {"e": expressions(closed=False)["properties"]["e"]}, "$defs": expressions(closed=False)["$defs"]}
    )
    assert "takes too long" in taken(deep, {"e": nested(15, 1)})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"cents": 5}, '"method" is a required property'),
        ({"method": "cash", "cents": "5"}, 'cents: "5" is not of type "integer"'),
        ({"method": "cash", "cents": 5, "z": 1, "y": 2}, r"Additional properties are not allowed \('y', 'z' were"),
        ({"method": "wire", "cents": 5}, '"iban" is a required property'),
        ({"method": "cash", "cents": 5, "country": "KP"}, "rules out"),
    ],
)
def test_a_refusal_names_place_and_rule(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=f"^pay: .*{says}"):
        ArgumentValidator(of(WIRE).spec).complete(arguments)


# Defaults.


class Draft(BaseModel):
    text: str = Field(default="x", max_length=3)


class Loose(BaseModel):
    limit: int = None  # type: ignore[assignment]


class Row(TypedDict):
    a: int


NOON = time(12)


def defaults(
    limit: int = None,  # type: ignore[assignment]  # noqa: RUF013 - as people write it
    at: time = time(9),
    when: datetime = datetime(2026, 12, 25, 9, 30),
    day: date = date(2026, 12, 25),
    wait: timedelta = timedelta(hours=1),
    price: Decimal = Decimal("1.50"),
    where: Path = Path("/tmp"),
    draft: Draft = Draft(),  # noqa: B008
    rows: list[Row] = [],  # noqa: B006
    names: tuple[str, ...] = (),
) -> Any:
    return {**locals()}


def test_a_call_that_leaves_everything_out_gets_the_functions_own_defaults() -> None:
    made = tool(effect="read")(defaults)
    complete = taken(made, {})
    assert complete["at"] == "09:00:00"
    assert made.function(**made.convert(complete)) == defaults()
    assert taken(made, {"limit": 5, "at": "18:30", "when": "2026-12-24T18:00:00"})["at"] == "18:30"
    assert "at: " in taken(made, {"at": "noon"})
    assert "when: " in taken(made, {"when": "tomorrow"})


def test_a_time_that_must_have_a_zone_must_have_one() -> None:
    def meet(when: AwareDatetime) -> str:
        return str(when)

    made = tool(effect="read")(meet)
    assert "when: " in taken(made, {"when": "2026-12-24T18:00:00"})
    assert taken(made, {"when": "2026-12-24T18:00:00Z"}) == {"when": "2026-12-24T18:00:00Z"}


def with_default(annotation: Any, default: Any) -> Callable[..., Any]:
    def made(value: Any = default) -> Any:
        return value

    made.__annotations__["value"] = annotation
    return made


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (float, inf),
        (float, nan),
        (int, "5"),
        (str, 5),
        (list[int], ["x"]),
        (Any, object()),
        (bytes, b"\xff"),
        (int, 2**70),
        (str, "a\x00b"),
        (Draft, Draft(text="xyz").model_copy(update={"text": "too long"})),
        (Loose, Loose()),
        (timedelta, timedelta(days=-1, hours=3)),
    ],
)
def test_a_default_that_the_argument_may_not_be_is_refused(annotation: Any, default: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"^tool made: .*default"):
        tool(effect="read")(with_default(annotation, default))


@pytest.mark.parametrize(
    "schema",
    [
        obj(a={"type": "integer", "default": "5"}),
        obj(a={"type": "integer", "default": None}),
        obj(a=obj(b={"type": "integer", "default": "5"})),
        obj(a={**obj(b=WHOLE), "default": {"c": 1}}),
        obj(a={"items": {"enum": ["x"], "default": "y"}}),
        obj(a={"$ref": "#/$defs/x"}) | {"$defs": {"x": {"maximum": 5, "default": 6}}},
        obj(a={"default": "a\x00b"}),
        obj(a={"default": 2**70}),
    ],
)
def test_a_default_that_its_own_schema_refuses_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=r"^tool pay: .*"):
        of(schema)


def test_the_defaults_of_all_parts_that_apply_for_certain_are_filled_in() -> None:
    part = obj(b={"type": "integer", "default": 2})
    made = of({"allOf": [{"$ref": "#/$defs/part"}], **obj(a={"default": 1}, c=True), "$defs": {"part": part}})
    assert taken(made, {}) == {"a": 1, "b": 2}
    assert [each.path for each in subjects(made.spec, {"a": 1, "b": 2, "c": {"k": 1}})] == [
        ("a",),
        ("b",),
        ("c", "k"),
        ("c", "k"),
    ]


# Types of Python.


class Mail(BaseModel):
    to: str


class Chat(BaseModel):
    channel: str


def tell(how: Mail | Chat, also: list[Mail] | None = None) -> Any:
    return how, also


def test_of_two_types_that_fit_nothing_is_lost() -> None:
    made = tool(effect="write")(tell)
    assert taken(made, {"how": {"to": "a"}}) == {"how": {"to": "a"}, "also": None}
    assert "how: " in taken(made, {"how": {"to": "a", "channel": "b"}})
    assert "also.0" in taken(made, {"how": {"to": "a"}, "also": [{"to": "b", "z": 1}]})


def test_a_function_of_any_name_never_gets_one_in_place_of_its_context() -> None:
    def run(context: ToolContext, **given: Any) -> Any:
        return given

    made = of({}, run)
    assert taken(made, {"a": 1}) == {"a": 1}
    assert "context" in taken(made, {"context": 1})
    with pytest.raises(InvalidConfig, match=r"none by \*\*"):
        of({"additionalProperties": True}, lambda a: a)
    assert "Additional" in taken(of({}, lambda a=1: a), {"a": 1})
