"""Forms of arguments: what is not changed in them comes back as it was, and what hides something is seen."""

from __future__ import annotations

from html import unescape
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airside.actors.console.edits import Change, as_json, changes_of, fields_of, read_edit
from airside.actors.console.forms import Form
from airside.actors.console.render import exact
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES
from airside.stack.text.entities import INVISIBLE

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    f"a \n\r\t{INVISIBLE[:9]}\x00", max_size=9
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def sent(arguments: dict[str, Any], **changed: str) -> Form:
    """Return what a browser sends of a form that somebody changed in places."""
    pairs = []
    for field in fields_of(arguments, {}):
        text = changed.get(field.name, unescape(exact(field.text)))
        pairs += [(f"set:{field.name}", "1"), (f"value:{field.name}", text.replace("\r\n", "\n").replace("\n", "\r\n"))]
    return Form(pairs)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_a_form_that_nobody_changed_changes_nothing(arguments: dict[str, Any]) -> None:
    """Whatever stands in it, of what may stand in arguments."""
    try:
        parse_bounded(msgspec.json.encode(arguments), max_bytes=MAX_ARGUMENT_BYTES, where="arguments")
    except InvalidInput:
        assume(False)
    assert changes_of(arguments, read_edit(sent(arguments), fields_of(arguments, {}))) == []


@given(VALUES)
def test_what_is_edited_as_json_hides_nothing(value: Any) -> None:
    written = as_json(value)
    assert all(character == "\n" or character.isprintable() for character in written)
    assert not set(written) & set(INVISIBLE.replace("-", ""))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a", "text"),
        ("a" * 81, "lines"),
        ("a\nb", "lines"),
        ("\na", "json"),
        ("a\u202eb", "json"),
        ("a\rb", "json"),
        (True, "flag"),
        (5, "number"),
        (0.5, "number"),
        (None, "json"),
        ([1], "json"),
        ({}, "json"),
    ],
)
def test_how_a_value_is_edited(value: Any, kind: str) -> None:
    assert [field.kind for field in fields_of({"a": value}, {})] == [kind]


def test_what_an_edit_changes_is_told_from_what_it_leaves() -> None:
    before = {"a": 1, "b": "x", "c": [1], "d": True}
    found = changes_of(before, {"a": 1.0, "b": "x", "c": [1], "e": None})
    assert [(each.name, each.before, each.after) for each in found] == [
        ("a", "1", "1.0"),
        ("d", "true", None),
        ("e", None, "null"),
    ]


@pytest.mark.parametrize(
    ("arguments", "name", "text"),
    [
        ({"n": 1}, "n", "one"),
        ({"n": 1}, "n", "true"),
        ({"f": True}, "f", "maybe"),
        ({"j": []}, "j", "["),
        ({"j": []}, "j", ""),
    ],
)
def test_what_a_field_cannot_be_is_refused_by_its_name(arguments: dict[str, Any], name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_edit(sent(arguments, **{name: text}), fields_of(arguments, {}))


def test_many_arguments_are_edited_as_one() -> None:
    arguments = {f"a{n}": n for n in range(101)}
    (field,) = fields_of(arguments, {})
    assert read_edit(Form([("value:", field.text)]), [field]) == arguments
    with pytest.raises(InvalidInput):
        read_edit(Form([("value:", "[]")]), [field])


SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "description": "Whom it goes to."},
        "kind": {"type": "string", "enum": ["mail", "letter"]},
        "copies": {"type": "integer"},
        "loud": {"type": "boolean"},
        "tags": {"type": "array"},
    },
    "required": ["to"],
}


def test_a_tools_schema_says_what_else_it_takes() -> None:
    """Fields for what the call does not have, choices where there are some, and what each is for."""
    fields = fields_of({"to": "ann", "kind": "mail"}, SCHEMA)
    found = [(field.name, field.kind, field.text) for field in fields]
    assert found == [
        ("to", "text", "ann"),
        ("kind", "choice", "mail"),
        ("copies", "number", ""),
        ("loud", "flag", ""),
        ("tags", "json", ""),
    ]
    assert fields[0].says == "Whom it goes to." and fields[0].is_required and fields[1].choices == ("mail", "letter")


@pytest.mark.parametrize(
    ("more", "arguments"),
    [
        ({}, {}),
        ({"copies": "2", "loud": "true", "tags": '["x"]'}, {"copies": 2, "loud": True, "tags": ["x"]}),
        ({"kind": "letter"}, {"kind": "letter"}),
    ],
)
def test_what_is_left_empty_stays_away(more: dict[str, str], arguments: dict[str, Any]) -> None:
    given = {"kind": "", "copies": "", "loud": "", "tags": ""} | more
    form = Form([("set:to", "1"), ("value:to", "ann"), *((f"value:{name}", text) for name, text in given.items())])
    assert read_edit(form, fields_of({"to": "ann"}, SCHEMA)) == {"to": "ann"} | arguments


@pytest.mark.parametrize("properties", [5, {"a": 5}, {"a": {"enum": [1], "type": []}}])
def test_a_schema_that_is_none_stops_nobody(properties: Any) -> None:
    fields = fields_of({"a": "x"}, {"properties": properties, "required": 7})
    assert read_edit(Form([("set:a", "1"), ("value:a", "x")]), fields) == {"a": "x"}


def test_of_a_long_text_the_place_that_changes_is_shown() -> None:
    """However far on it is; what is left out is counted, and put together it is the text again."""
    text = "one line of it\n" * 200
    (change,) = changes_of({"body": text + "Pay 10.\n" + text}, {"body": text + "Pay 10,000.\n" + text})
    assert change.before is not None and change.after is not None
    assert "Pay 10.\n" in change.before and "Pay 10,000.\n" in change.after and len(change.after) < 200
    assert (
        text[: change.same_before] + change.before + text[len(text) - change.same_after :] == text + "Pay 10.\n" + text
    )
    (change,) = changes_of({"a": "x" * 500}, {"a": "x" * 501})
    assert (change.same_before, len(change.after or "")) == (420, 81)
    assert changes_of({"a": "b"}, {"a": "c"}) == [Change("a", "b", "c")]
