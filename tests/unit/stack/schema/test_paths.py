"""Dotted paths: every place of a call's arguments has one name, and every name one place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import InvalidConfig
from airside.stack.provenance.tracer import complete, subjects
from airside.stack.schema.paths import EVERY, Parts, parse_path, select, show_path
from airside.stack.schema.toolspec import ToolSpec

keys = st.text(max_size=6) | st.sampled_from(
    ["a.b", "*", "\\", "\\.", "\\e", "", "größe", "$filter", "user-id", "\u200b"]
)
parts = st.lists(keys | st.just(EVERY), min_size=1, max_size=5).map(tuple)


@given(path=parts)
def test_a_path_that_is_shown_reads_back_as_the_same_path(path: Parts) -> None:
    """So no two paths are shown alike."""
    text = show_path(path)
    assert parse_path(text) == path
    assert text.isprintable()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("to", ("to",)),
        ("lines.*.text", ("lines", EVERY, "text")),
        ("user-id.$filter", ("user-id", "$filter")),
        ("größe", ("größe",)),
        (r"a\.b.c", ("a.b", "c")),
        (r"a.\*", ("a", "*")),
        (r"a\\.b", ("a\\", "b")),
        (r"a\u{2e}b", ("a.b",)),
        (r"\e.x y", ("", "x y")),
    ],
)
def test_any_key_can_be_named(text: str, path: Parts) -> None:
    """With an escape where a character means something else."""
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", "a*", "**", "a\\", r"a\x", r"\u{}", r"\u{110000}", r"\u{d800}", r"a\e", "a." * 70],
)
def test_what_is_no_path_is_refused_with_itself_named(text: str) -> None:
    """As a typed error."""
    with pytest.raises(InvalidConfig, match=r"^path "):
        parse_path(text)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", [1]),
        (r"a\.b", [2]),
        ("rows.*.n", [3, 4]),
        ("rows.1.n", [4]),
        ("rows.2.n", []),
        ("a.*.b", [1]),
        ("rows.*.m", []),
        (r"\*", [5]),
        ("one.*", ["x"]),
    ],
)
def test_select_finds_what_is_at_a_path(path: str, found: list[Any]) -> None:
    """A star at what is no list is that value."""
    value = {"a": {"b": 1}, "a.b": 2, "rows": [{"n": 3}, {"n": 4}], "*": 5, "one": "x"}
    assert select(value, parse_path(path)) == found


FREE = {"type": "object", "properties": {"lines": {"type": "array", "items": {}}, "box": {}}, "required": []}


@given(outer=keys, inner=keys)
def test_a_key_with_a_dot_never_takes_the_origin_of_a_key_within_another(outer: str, inner: str) -> None:
    """Of two places that differ, each has an origin of its own."""
    spec = ToolSpec.build(name="send", effect="external", parameters=FREE)
    arguments = {"box": {outer: {inner: "eve"}, f"{outer}.{inner}": "eve"}}
    traced = [each.traced("request") for each in subjects(spec, arguments)]
    places = {(each.path, each.value) for each in traced if each.value == "eve"}
    assert len(places) >= 2
    asked = [each for each in traced if each.path == show_path(("box", outer, inner))]
    told = complete(spec, arguments, arguments, asked)
    crafted = show_path(("box", f"{outer}.{inner}"))
    assert {each.origin for each in told if each.path == crafted} == {"nowhere"}


def test_a_key_called_star_is_no_item_of_a_list() -> None:
    """A caller who may choose keys cannot make content of what carries authority."""
    spec = ToolSpec.build(name="send", effect="external", parameters=FREE, content=("lines.*.text",))
    as_list = [each.part for each in subjects(spec, {"lines": [{"text": "hello"}]})]
    as_keys = [each.part for each in subjects(spec, {"box": {"*": {"text": "hello"}}})]
    assert as_list == [] and set(as_keys) == {"authority"}
