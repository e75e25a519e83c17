"""YAML of people: read by the rules of YAML 1.2, so that a text is text; what is there by mistake is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from airside.stack.errors import InvalidConfig
from airside.stack.yaml_source import load_yaml, read_yaml


class Anything(BaseModel):
    """A file with one field of any kind."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: Any


def read(text: str) -> Any:
    """Return what `value` is in a file that has this text for it."""
    return load_yaml(f"value: {text}\n", Anything, name="file").value


@pytest.mark.parametrize(
    "text",
    [
        "NO",
        "no",
        "yes",
        "on",
        "Off",
        "y",
        "2026-12-25",
        "2026-12-25T10:00:00Z",
        "22:30",
        "1:30:00",
        "1_000",
        "0b101",
        "0o8",
        "+0x1F",
        "1e",
        "=",
        "nulL",
        "tRue",
        "1.2.3",
        "12e",
        "0x",
        "RU",
        "127.0.0.1",
        ".",
    ],
)
def test_what_is_no_number_true_false_or_null_by_yaml_1_2_is_text(text: str) -> None:
    """Countries, dates, times and switches of the day are what they look like."""
    assert read(text) == text
    assert read(f"[{text}]") == [text]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("012", 12),
        ("-7", -7),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("-.5e3", -500.0),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 012", "012"),
        ("!!int 12", 12),
        ("[]", []),
        ("{a: {b: [1, x]}}", {"a": {"b": [1, "x"]}}),
        ("{1: a, true: b, null: c}", {"1": "a", "true": "b", "null": "c"}),
        ("|\n  a\n  b", "a\nb\n"),
    ],
)
def test_numbers_true_false_and_null_are_those_of_the_core_schema(text: str, value: Any) -> None:
    """A key is always text."""
    found = read(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (".nan", "value: '.nan' is not a finite number"),
        ("[1, -.inf]", "is not a finite number"),
        ("1e999", "is not a finite number"),
        ("&a 1", "anchors"),
        ("*a", "anchors"),
        ("{<<: {a: 1}}", "merge keys"),
        ("!!timestamp 2026-12-25", "the tag"),
        ("!!python/object/apply:os.system [ls]", "the tag"),
        ("!mine {a: 1}", "the tag"),
        ("! 12", "the tag"),
        ("!!set {a, b}", "the tag"),
        ("!!int 1:30", "is no int"),
        ("!!bool yes", "is no bool"),
        ("{a: 1, a: 2}", "given twice"),
        ("{[a]: 1}", "must be plain text"),
        ("9" * 5000, "too long"),
        ("a # \u2028- b", "U+2028"),
        ("'a\u0085b'", "U+0085"),
    ],
)
def test_what_a_file_has_no_use_for_is_refused_with_its_line(text: str, says: str) -> None:
    """It is there by mistake."""
    with pytest.raises(InvalidConfig) as caught:
        load_yaml(f"# first\nvalue: {text}\n", Anything, name="file")
    assert caught.value.message.startswith("file:2: ") and says in caught.value.message


@pytest.mark.parametrize(("text", "line"), [("%YAML 1.1\n---\nvalue: no\n", 1), ("value: 1\n---\nvalue: 2\n", 2)])
def test_one_document_of_this_version_is_a_file(text: str, line: int) -> None:
    """A directive or a second document is refused."""
    with pytest.raises(InvalidConfig, match=rf"file:{line}: "):
        load_yaml(text, Anything, name="file")


@pytest.mark.parametrize("text", ["[" * 5000, "- " * 5000])
def test_absurd_nesting_is_refused(text: str) -> None:
    """As a typed error."""
    with pytest.raises(InvalidConfig, match="file"):
        load_yaml(text, Anything, name="file")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aNo:-#{\u00e9 .1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abn1~", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
def test_json_is_read_as_what_it_is(value: Any) -> None:
    """JSON is YAML 1.2."""
    assert load_yaml(json.dumps({"value": value}), Anything, name="file").value == value


@given(value=st.lists(st.text("aNo:-#~\u00e9 .1'", max_size=6), max_size=4))
def test_texts_that_a_yaml_library_quoted_are_read_back(value: list[str]) -> None:
    """However it breaks its lines."""
    text = yaml.safe_dump({"value": value}, allow_unicode=True)
    assert load_yaml(text, Anything, name="file").value == value


def test_lines_tell_where_a_place_stands() -> None:
    """The deepest part of it that the file has."""
    _, lines = read_yaml("value:\n  a:\n  - b: 1\n  - c: 2\n", Anything, name="file")
    assert lines.at(("value", "a", 1, "c")) == "file:4"
    assert lines.at(("value", "a", 0, "nothing")) == "file:3"
    assert lines.at(()) == "file:1"
