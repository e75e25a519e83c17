"""YAML of people: read by the rules of YAML 1.2, so that a text is text; what is there by mistake is refused."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from airside.stack.directory import load_directory
from airside.stack.errors import InvalidConfig
from airside.stack.input.yaml_source import load_yaml, read_yaml


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


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a:\n\tb: 1\n", 2, "b: a tab stands before the text: indent by spaces"),
        ("a:\n  b: {c: {}\n", 3, "{ of line 2 is open at the end of the file: write } before"),
        ("a:\n  b: [c, d}\n", 2, "b: [ of line 2 is open at }: write ] before"),
        ("a:\n   b:\n     c: 1\n    d: 1\n", 4, "d: indented as nothing above it"),
        ("a: b: c\n", 1, "a: a second `name:` in one line"),
        ("a: 'b\nc: d\n", 1, "a: the quote that begins here is not closed"),
        ("a:\n  b: 1\n  c\n", 3, "there is no `: ` after the name: write name: value"),
        ("a: @b\n", 1, "a: a text that begins with @ stands in quotes"),
        ("a: 1\n---\nb: 2\n", 2, "one document is read"),
        ("a: {b: 1, : }\n", 1, "a: there is nothing before :"),
        ('a: "\\q"\n', 1, "a: no escape is written \\q: write \\\\q, or single quotes"),
        ("a: 1\nb: \x00\n", 2, "the character U+0000 is not read: write an escape in double quotes"),
    ],
)
def test_what_is_no_yaml_is_said_with_its_line_its_key_and_what_to_do(text: str, line: int, says: str) -> None:
    """In the words of whoever writes it, not the parser's."""
    with pytest.raises(InvalidConfig) as caught:
        load_yaml(text, Anything, name="file")
    assert caught.value.message.startswith(f"file:{line}: ") and says in caught.value.message


class Inner(BaseModel):
    """What stands deeper."""

    model_config = ConfigDict(extra="forbid", strict=True)

    number: Annotated[int, Field(ge=1, le=5)] = 1
    share: float = 0.5
    text: Annotated[str, Field(min_length=2, max_length=4, pattern="^[a-z]+$")] = "ab"
    flag: bool = False
    names: Annotated[list[str], Field(max_length=2)] = []
    choice: Literal["one", "two"] = "one"


class Outer(BaseModel):
    """What has others in every way."""

    model_config = ConfigDict(extra="forbid", strict=True)

    one: Inner | None = None
    many: list[Inner] = []
    named: dict[str, Annotated[Inner, Field(description="x")]] = {}


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        ("number: x", "number: a whole number is needed, not text"),
        ("number: '3'", "number: a whole number is needed, not text: write it without quotes"),
        ("number: 1.5", "number: a whole number is needed, not a number with a fraction"),
        ("number: true", "number: a whole number is needed, not true or false"),
        ("number: 0", "number: at least 1 is needed"),
        ("number: 6", "number: at most 5 is taken"),
        ("share: x", "share: a number is needed, not text"),
        ("text: 5", "text: text is needed, not a number: write it in quotes"),
        ("text: [a]", "text: text is needed, not a list"),
        ("text: a", "text: at least 2 characters are needed"),
        ("text: abcde", "text: at most 4 characters are taken"),
        ("text: AB", "text: the text must have the form ^[a-z]+$"),
        ("flag: yes", "flag: true or false is needed, not text"),
        ("names: x", "names: a list is needed, not text: write [a, b]"),
        ("names: [a, 5]", "names.1: text is needed, not a number"),
        ("names: [a, b, c]", "names: at most 2 may be there"),
        ("names: {a: b}", "names: a list is needed, not a mapping"),
        ("choice: three", "choice: it must be 'one' or 'two'"),
        ("nubmer: 5", "nubmer: unknown field (do you mean number?)"),
        ("zzz: 5", "zzz: unknown field; there are choice, flag, names, number, share, text"),
    ],
)
@pytest.mark.parametrize(
    ("before", "place"),
    [("one:\n  ", "one."), ("many:\n-\n  ", "many.0."), ("named:\n  x:\n    ", "named.x.")],
)
def test_what_a_model_refuses_is_said_in_plain_words(before: str, place: str, inner: str, says: str) -> None:
    """Where, what is needed, of what kind what is there is, and how to write it; never what is there."""
    line = before.count("\n") + 1
    with pytest.raises(InvalidConfig) as caught:
        load_yaml(f"{before}{inner}\n", Outer, name="file")
    (said,) = [text for text in caught.value.message.split("\n") if says in text] or [caught.value.message]
    assert said.startswith(f"file:{line}: {place}{says}")


PYDANTICS = (
    "Input should",
    "String should",
    "Value error",
    "Expected `",
    "block end",
    "valid dictionary",
    "errors.pydantic",
)
lives = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(-2, 2) | st.text("ab:,{}[]'\"- ", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "acme", "roles"]), inner, max_size=2)
    ),
    max_leaves=5,
)
fields = st.sampled_from(
    ["tenants", "budgets", "keys", "deadline_s", "principals", "roles", "limits", "open", "unit", "acme", "api_keys"]
)


@given(st.recursive(lives, lambda inner: st.dictionaries(fields, inner, max_size=4), max_leaves=12))
def test_no_library_speaks_to_whoever_writes_a_directory(data: Any) -> None:
    """Every line of an error names the file, the line and the place."""
    try:
        load_directory(json.dumps(data, indent=1))
    except InvalidConfig as error:
        for line in error.message.split("\n"):
            assert re.match(r"directory(:[0-9]+)?: ", line), line
            assert not any(text in line for text in PYDANTICS), line
