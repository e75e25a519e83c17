"""Forms that tools have people fill in: what is one, and what fills it in."""

from __future__ import annotations

from typing import Any

import pytest

from airside.stack.approvals.forms import MAX_FIELDS, filled, read_fields
from airside.stack.errors import InvalidInput


def form(required: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the schema of a form."""
    return {"type": "object", "properties": fields, "required": required or []}


EVERY = read_fields(
    form(
        ["seat"],
        seat={"type": "string", "oneOf": [{"const": "a", "title": "Aisle"}, {"const": "w", "title": "Window"}]},
        bags={"type": "integer", "minimum": 0, "maximum": 3},
        weight={"type": "number"},
        meal={"type": "boolean", "default": True},
        extras={"type": "array", "items": {"type": "string", "enum": ["wifi", "lounge"]}, "maxItems": 1},
        day={"type": "string", "format": "date"},
        mail={"type": "string", "format": "email", "minLength": 3},
    )
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"seat": "a"}', {"seat": "a"}),
        (
            '{"seat":"w","bags":3,"weight":1.5,"meal":false,"extras":["wifi"],"day":"2026-11-30","mail":"a@b"}',
            {"seat": "w", "bags": 3, "weight": 1.5, "meal": False, "extras": ["wifi"], "day": "2026-11-30"}
            | {"mail": "a@b"},
        ),
    ],
)
def test_what_fills_in_a_form_is_an_object_of_its_fields(text: str, value: Any) -> None:
    assert filled(EVERY, text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "give a JSON object of its fields"),
        ("{}", "'seat' is missing"),
        ('{"seat": "A"}', "is one of 'a', 'w'"),
        ('{"seat": "a", "bags": true}', "is a whole number"),
        ('{"seat": "a", "bags": 1.0}', "is a whole number"),
        ('{"seat": "a", "bags": 4}', "is at most 3"),
        ('{"seat": "a", "weight": NaN}', "give a JSON object"),
        ('{"seat": "a", "weight": "1"}', "is a number"),
        ('{"seat": "a", "meal": 1}', "is true or false"),
        ('{"seat": "a", "extras": ["wifi", "lounge"]}', "is at most 1 entries"),
        ('{"seat": "a", "extras": ["wifi", "wifi"]}', "each once"),
        ('{"seat": "a", "extras": [["wifi"]]}', "is a list of some of"),
        ('{"seat": "a", "day": "tomorrow"}', "is no date"),
        ('{"seat": "a", "mail": "ab"}', "is at least 3 characters"),
        ('{"seat": "a", "mail": "abc"}', "is no email"),
        ('{"seat": null}', "is a text"),
        ('{"seat": "a", "\\u202e": 1}', r"'\u202e' is no field"),
        ("x" * 8_001, "at most 8,000 are taken"),
    ],
)
def test_what_does_not_fill_it_in_is_said(text: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        filled(EVERY, text)
    assert why in caught.value.message


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ({"type": "string"}, "as it is", "as it is"),
        ({"type": "string"}, "17", "17"),
        ({"type": "integer"}, "17", 17),
        ({"type": "boolean"}, "true", True),
    ],
)
def test_where_there_is_one_field_its_value_alone_will_do(field: Any, text: str, value: Any) -> None:
    assert filled(read_fields(form(x=field)), text) == {"x": value}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        {"type": "string"},
        {"type": "object"},
        {"type": "object", "properties": [1]},
        {"type": "object", "properties": {}, "patternProperties": {}},
        form(["y"], x={"type": "string"}),
        {**form(x={"type": "string"}), "required": "x"},
        form(x="string"),
        form(x={"type": "string", "title": "Seat\x1b[2K"}),
        form(**{"x\x9b2K": {"type": "string"}}),
        form(x={"type": "string", "enum": ["a\x07"]}),
        form(x={"type": "integer", "minimum": 10**400}),
        form(x={"type": "object"}),
        form(x={"type": ["string"]}),
        form(x={"type": "string", "pattern": "(a+)+"}),
        form(x={"type": "string", "format": "regex"}),
        form(x={"type": "string", "format": ["date"]}),
        form(x={"type": "string", "minLength": "1"}),
        form(x={"type": "integer", "minimum": True}),
        form(x={"type": "string", "enum": []}),
        form(x={"type": "string", "enum": [1]}),
        form(x={"type": "string", "oneOf": ["a"]}),
        form(x={"type": "array"}),
        form(x={"type": "array", "items": {"type": "string"}}),
        form(x={"type": "array", "items": "wifi"}),
        form(x={"type": "string", "title": "t" * 501}),
        form(**{"n" * 501: {"type": "string"}}),
        form(**{f"x{n}": {"type": "string"} for n in range(MAX_FIELDS + 1)}),
    ],
)
def test_what_is_no_form_that_a_person_fills_in_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidInput, match="form"):
        read_fields(schema)
