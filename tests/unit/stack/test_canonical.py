"""Canonical, bounded JSON: one byte string per value, and nothing that is not JSON gets in."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.canonical import MAX_DEPTH, canonical, check_bounds, digest, parse_bounded, parse_own, write_bounded
from airside.stack.errors import InvalidInput

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def nested(depth: int) -> Any:
    """Return a list `depth` deep."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def parse(data: bytes | str, max_bytes: int = 10_000) -> Any:
    """Parse bounded, as `x`."""
    return parse_bounded(data.encode() if isinstance(data, str) else data, max_bytes=max_bytes, where="x")


def shuffled(value: Any) -> Any:
    """Return an equal value whose keys come in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(value=values)
def test_a_value_has_one_encoding_whatever_the_order_of_its_keys(value: Any) -> None:
    data = canonical(value)
    assert canonical(shuffled(value)) == data and digest(canonical(shuffled(value))) == digest(data)
    assert canonical(parse(data, 100_000)) == data == canonical(parse_own(data, max_bytes=100_000, where="x"))
    check_bounds(value, where="x")


@given(value=values)
def test_spaces_and_escapes_do_not_change_the_canonical_form(value: Any) -> None:
    loose = json.dumps(value, indent=2, ensure_ascii=True)
    assert canonical(parse(loose, 100_000)) == canonical(value)


@given(one=values, other=values)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    if canonical(one) != canonical(other):
        assert digest(canonical(one)) != digest(canonical(other))
    else:
        assert one == other


@dataclass
class Point:
    """No JSON value, whatever its fields are."""

    x: int = 1


class Odd(Enum):
    """An enumeration of a number that is none."""

    NAN = math.nan


NO_JSON = [b"x", object(), {1: 2}, {1, 2}, 2**70, "\ud800", math.nan, [{"a": (1, -math.inf)}], Odd.NAN]
NO_JSON += [Point(), {"at": date(2026, 1, 1)}, {"at": datetime(2026, 1, 1)}]


@pytest.mark.parametrize("value", NO_JSON)
def test_what_json_cannot_hold_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(InvalidInput, match="not a JSON value"):
        canonical(value)


@pytest.mark.parametrize("value", NO_JSON)
def test_a_callers_value_that_json_cannot_hold_is_refused_saying_where(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^x\.inputs"):
        write_bounded({"inputs": value}, max_bytes=1000, where="x")


def test_null_is_null_and_only_that() -> None:
    assert canonical({"a": None, "b": "null", "c": [1.5, None]}) == b'{"a":null,"b":"null","c":[1.5,null]}'
    assert write_bounded((1, None), max_bytes=8, where="x") == b"[1,null]"
    with pytest.raises(InvalidInput, match="8 bytes are over the bound of 7"):
        write_bounded((1, None), max_bytes=7, where="x")


odd_numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 2**64, -(2**63) - 1, 1e308, -0.0])
odd_keys = texts | st.integers(0, 3) | st.sampled_from(["a", "\ud800", "\x00"]) | st.none()
anything = st.recursive(
    values | odd_numbers | st.text(max_size=4) | st.binary(max_size=3) | st.just(Point()) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(odd_keys, inner, max_size=3)
        | st.frozensets(st.integers(0, 3), max_size=2)
    ),
    max_leaves=8,
)


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: a tuple is a list."""
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, list | tuple) else value


@settings(max_examples=400)
@given(value=anything)
def test_a_callers_value_comes_out_the_same_or_is_refused(value: Any) -> None:
    try:
        data = write_bounded(value, max_bytes=100_000, where="x")
    except InvalidInput:
        return
    assert same(parse(data, 100_000), as_json(value))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types: 1, 1.0 and True are three."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


loose_numbers = st.sampled_from(
    ["NaN", "-Infinity", "1e400", "1E5", "-0.0", "12345678901234567890123", "01", "1.", "0x1"]
)
loose = st.recursive(
    st.sampled_from(["null", "true", '"a"', '"\\ud800"', '"\\u0000"', '"\x7f"', "1", "1.0"]) | loose_numbers,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"']), inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key} : {item}" for key, item in pairs) + "}"
        )
    ),
    max_leaves=6,
)


@settings(max_examples=400)
@given(text=loose)
def test_json_from_outside_comes_out_the_same_or_is_refused(text: str) -> None:
    try:
        value = parse(text)
    except InvalidInput:
        return
    pairs: list[int] = []
    again = json.loads(
        text, object_pairs_hook=lambda found: (pairs.append(len(found) - len(dict(found))), dict(found))[1]
    )
    assert not any(pairs) and same(value, again) and same(parse(canonical(value)), value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_json_is_utf_8(encoding: str) -> None:
    with pytest.raises(InvalidInput, match=r"^x: "):
        parse('{"a": 1}'.encode(encoding))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a":1,"a":1}', "'a' is given twice"),
        (b'{"o":[{"b":1,"c":2,"b":3}]}', "'b' is given twice"),
        (b'{"a":1,"\\u0061":2}', "'a' is given twice"),
        (b"NaN", "NaN is not a JSON number"),
        (b"[Infinity]", "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b"1e999", "not a finite number"),
        (b'{"a":[0,-1e999]}', r"x\.a\[1\]"),
        (b'"\\u0000"', r"control character U\+0000"),
        (b'{"a":{"b":"\\u001b[31m"}}', r"x\.a\.b: control character U\+001B"),
        (b'{"\\u0007":1}', r"U\+0007"),
        (b'"a\nb"', "control character"),
        (b'"\\ud800"', "surrogate"),
        (b"", "x: "),
        (b"{", "x: "),
        (b"1 2", "x: "),
        (b"\xff", "x: "),
        (b"[" * 100_000 + b"]" * 100_000, "deep|bound"),
        (b"[" * 4000 + b"]" * 4000, "deep"),
    ],
)
def test_what_is_not_bounded_json_is_refused_saying_where(data: bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        parse(data)
    assert caught.value.message.startswith("x") and len(caught.value.message) < 500


def test_tabs_and_newlines_are_text() -> None:
    assert parse(b'"a\\tb\\nc\\rd"') == "a\tb\nc\rd"


def test_the_bound_in_bytes_is_inclusive_and_checked_before_parsing() -> None:
    assert parse(b"[1,2]", 5) == [1, 2]
    with pytest.raises(InvalidInput, match="6 bytes are over the bound of 5"):
        parse(b"[1,2,,", 5)
    with pytest.raises(InvalidInput, match="6 bytes are over the bound of 5"):
        parse_own(b"[1,23]", max_bytes=5, where="x")


def test_the_bound_in_depth_is_inclusive() -> None:
    check_bounds(nested(MAX_DEPTH), where="x")
    with pytest.raises(InvalidInput, match=f"more than {MAX_DEPTH} deep"):
        check_bounds(nested(MAX_DEPTH + 1), where="x")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, float("nan")]}, "x.a[1]"),
        ({"a": {"b": object()}}, "x.a.b"),
        ((1, {"k": b"x"}), "x[1].k"),
        ({"a": {1: 2}}, "x.a"),
        ([{1, 2}], "x[0]"),
        ([1j], "x[0]"),
        ({"a": "\x7f\x00"}, "x.a"),
    ],
)
def test_check_bounds_names_the_place(value: Any, place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_bounds(value, where="x")
    assert caught.value.message.startswith(f"{place}: ")


@pytest.mark.parametrize("data", [b"NaN", b"{", b"", b"\xff", b"[1"])
def test_parse_own_refuses_what_is_not_json(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^x: "):
        parse_own(data, max_bytes=100, where="x")


class Pair(NamedTuple):
    one: int
    other: int


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, Pair(1, 2), numpy.float64(0.5)], ids=repr)
def test_whatever_passes_the_bounds_has_a_canonical_form(value: Any) -> None:
    try:
        check_bounds(value, where="x")
    except InvalidInput:
        return
    assert canonical(value)


@pytest.mark.parametrize("digits", [100, 400, 4000])
def test_a_number_of_any_length_is_refused_naming_the_place(digits: int) -> None:
    with pytest.raises(InvalidInput, match=r"^x\.n: .*64 bits"):
        check_bounds({"n": 10**digits}, where="x")
    with pytest.raises(InvalidInput, match=r"^x"):
        parse(f'{{"n":1{"0" * digits}}}')
