"""Tests of a call's arguments, compiled for the outcome of their rule, so that no spelling gets round a denial.

A rule that forbids or asks (deny, require_approval) is met as soon as any value at its path meets the test in any way
people may read it: as it is written, in its plain form, or by what it looks like (`stack/text/spelling.py`), white
space of any kind being one space.  A list counts as each of its items, and an item that lacks the path is skipped.  `*`
stands for the items of a list, for an object that is there in place of a list of them, and for each of its values: some
tools take rows in a list, some one row, some rows by their names.

A rule that allows is met if every value at its path meets the test as it is written, and every text among them is
written plainly.  One item that lacks the path is enough for no.

What is negated (`ne`, `not_in`) is the other way round in both: to allow what is not Eve is to forbid Eve.  Null and
objects, which may hold Eve, are allowed by neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from airside.stack.policy.bundle import ArgumentTest
from airside.stack.schema.paths import EVERY, Every, Parts, index_of, parse_path, select
from airside.stack.text.patterns import compile_pattern
from airside.stack.text.spelling import alike, caseless, is_plain, is_tidy, joined, over_texts, plain, unblanked
from airside.stack.values import Identity

Arguments = dict[str, Any]
ArgumentCheck = Callable[[Arguments, Identity, Arguments], bool]
"""Looks at a value for a caller, beside the call's arguments (which are the value, unless something else is tested)."""

Compare = Callable[[Any, Any], bool]

_POSITIVE = {"ne": "eq", "not_in": "in"}
_EXACT = ("eq", "ne", "in", "not_in")
_NO_READING = object()
_NOTHING = object()
_NO_TEXT = (int, float, type(None))


def compile_test(test: ArgumentTest, *, forbids: bool) -> ArgumentCheck:
    """Return the check of a test whose rule forbids (or asks), or allows."""
    parts = parse_path(test.path)
    if test.op in ("exists", "absent"):
        return _presence(parts, test.op == "exists" and test.value is not False, forbids)
    negated = test.op in _POSITIVE
    meets = _loosely(test) if forbids is not negated else _strictly(test)
    operand = _operand(test, loosely=forbids and not negated)

    if (
        forbids and test.other is None and len(parts) == 1 and parts[0] is not EVERY
    ):  # nearly every test, and at every step
        name, texts = parts[0], _texts(test)

        def forbidden_at(looked_at: Arguments, identity: Identity, arguments: Arguments) -> bool:
            if name not in looked_at:
                return False
            value = looked_at[name]
            if texts is not None and isinstance(value, str) and is_tidy(value):
                return (value in texts) is not negated  # what the readings below would come to
            return meets(value, operand(identity, arguments)) is not negated

        return forbidden_at

    def forbidden(looked_at: Arguments, identity: Identity, arguments: Arguments) -> bool:
        wanted, found = operand(identity, arguments), _select_any(looked_at, parts)
        if wanted is _NOTHING:
            return negated and bool(found)
        if isinstance(wanted, _Any):
            return any(meets(value, each) for value in found for each in wanted.values)
        return any(meets(value, wanted) is not negated for value in found)

    def allowed(looked_at: Arguments, identity: Identity, arguments: Arguments) -> bool:
        found = select(looked_at, parts)
        if not found or not is_plain(found) or (negated and any(map(_says_nothing, found))):
            return False
        wanted = operand(identity, arguments)
        if wanted is _NOTHING or (test.other is not None and not is_plain(wanted)):
            return False
        return all(meets(value, wanted) is not negated for value in found)

    return forbidden if forbids else allowed


def _says_nothing(value: Any) -> bool:
    """Whether a value is null or an object, or has one in a list: that it is not Eve is no reason to allow it."""
    if isinstance(value, list):
        return any(map(_says_nothing, value))
    return value is None or isinstance(value, dict)


def _texts(test: ArgumentTest) -> frozenset[str] | None:
    """Return which texts meet a test (its positive) by being written so, if all read as they are written."""
    if test.op not in _EXACT or test.caller is not None or test.other is not None or test.ignore_case:
        return None
    wanted = test.value if _POSITIVE.get(test.op, test.op) == "in" else [test.value]
    texts = [each for each in wanted if isinstance(each, str)]
    return frozenset(texts) if all(is_tidy(each) for each in texts) else None


def _presence(parts: Parts, wanted: bool, forbids: bool) -> ArgumentCheck:
    """Return the check of whether something is there; null is nothing."""

    def anywhere(looked_at: Arguments, identity: Identity, arguments: Arguments) -> bool:
        return any(value is not None for value in _select_any(looked_at, parts)) is wanted

    def everywhere(looked_at: Arguments, identity: Identity, arguments: Arguments) -> bool:
        found = select(looked_at, parts)
        return (bool(found) and None not in found) is wanted

    return anywhere if forbids is wanted else everywhere


def _operand(test: ArgumentTest, *, loosely: bool) -> Callable[[Identity, Arguments], Any]:
    """Return what finds the value to compare with; it finds `_NOTHING` where the arguments have none."""
    name, value = test.caller, test.value
    if test.other is not None:
        return _other_values(parse_path(test.other)) if loosely else _other_value(parse_path(test.other))
    if name is None:
        return lambda identity, arguments: value
    if name.startswith("attributes."):
        attribute = name.removeprefix("attributes.")
        return lambda identity, arguments: identity.attributes.get(attribute, ())
    return lambda identity, arguments: getattr(identity, name)


def _other_value(parts: Parts) -> Callable[[Identity, Arguments], Any]:
    several = EVERY in parts

    def find(identity: Identity, arguments: Arguments) -> Any:
        found = [value for value in select(arguments, parts) if value is not None]
        return _NOTHING if not found else found if several else found[0]

    return find


@dataclass(frozen=True, slots=True)
class _Any:
    """Several values to compare with, of which any will do."""

    values: tuple[Any, ...]


def _other_values(parts: Parts) -> Callable[[Identity, Arguments], Any]:
    """Return what finds every value a path may lead to: an item that lacks it hides none of the others'."""
    several = EVERY in parts

    def find(identity: Identity, arguments: Arguments) -> Any:
        found = [value for value in _select_any(arguments, parts) if value is not None]
        if not found:
            return _NOTHING
        return found if several else _Any(tuple(found))

    return find


def _strictly(test: ArgumentTest) -> Compare:
    """Return whether a value meets a test (its positive) as both are written, but for case if that is nothing."""
    compare, fold = OPERATORS[_POSITIVE.get(test.op, test.op)], test.ignore_case
    if test.op == "matches":
        fits = compile_pattern(test.value, ignore_case=fold)
        return lambda value, _: fits(_string(value))
    if not fold:
        return lambda value, operand: is_plain(value) and compare(value, operand)
    return lambda value, operand: (
        is_plain(value) and compare(over_texts(caseless, value), over_texts(caseless, operand))
    )


def _loosely(test: ArgumentTest) -> Compare:
    """Return whether a value, or an item of a list, meets a test (its positive) in any reading."""
    op = _POSITIVE.get(test.op, test.op)
    if op in ("lt", "le", "gt", "ge"):
        return _of_any_item(OPERATORS[op])
    of_one = _in_any_reading(op, test)
    of_item = _in_any_reading("eq", test) if op == "contains" else None

    def meets(value: Any, operand: Any) -> bool:
        if not isinstance(value, list):
            return of_one(value, operand)
        if op in ("eq", "in") and of_one(value, operand):
            return True
        if of_item is not None and any(of_item(item, operand) for item in value):
            return True
        return any(
            meets(item, operand)
            for item in value
            if of_item is None or isinstance(item, list) or _are_texts(item, operand)
        )

    return meets


def _are_texts(value: Any, operand: Any) -> bool:
    return isinstance(value, str) and isinstance(operand, str)


def _of_any_item(compare: Compare) -> Compare:
    def meets(value: Any, operand: Any) -> bool:
        if isinstance(value, list):
            return any(meets(item, operand) for item in value)
        return compare(value, operand)

    return meets


def _in_any_reading(op: str, test: ArgumentTest) -> Compare:
    """Return the comparison of a value that is no list, in every reading of it."""
    compare = OPERATORS[op]
    readings = _readings(op, test.ignore_case)
    is_fixed = test.caller is None and test.other is None
    fixed = None if not is_fixed else [_read(of_operand, test.value) for _, of_operand in readings]
    if op == "matches":
        fits = compile_pattern(test.value, ignore_case=test.ignore_case, across_lines=True)
        compare, fixed = (lambda value, _: fits(_string(value))), [None] * len(readings)
    one_operand = fixed is not None and all(operand == fixed[0] for operand in fixed)
    as_written = readings[0][0]

    def holds(value: Any, operand: Any) -> bool:
        operands = fixed if fixed is not None else [_read(of_operand, operand) for _, of_operand in readings]
        first = over_texts(as_written, value)
        if compare(first, operands[0]):
            return True
        if isinstance(value, _NO_TEXT):
            return False
        if one_operand and isinstance(value, str) and is_tidy(value):
            return False
        others = zip(readings[1:], operands[1:], strict=True)
        return any(
            wanted is not _NO_READING and compare(over_texts(of_value, value), wanted)
            for (of_value, _), wanted in others
        )

    return holds


Reading = Callable[[str], str]


def _readings(op: str, ignore_case: bool) -> Sequence[tuple[Reading, Reading]]:
    """Return how a value is read, and how the operand beside it."""
    fold = caseless if ignore_case else str
    # At the ends of what is searched for, white space is part of it.
    tidy = joined if op in _EXACT else unblanked
    return (
        (str if op == "matches" else fold, fold),
        (lambda text: fold(joined(plain(text))), lambda text: fold(tidy(plain(text)))),
        # Alike again: the small letter of one under a dot is a letter and a dot.
        (lambda text: joined(alike(fold(alike(plain(text))))), lambda text: tidy(alike(fold(alike(plain(text)))))),
    )


def _read(reading: Reading, operand: Any) -> Any:
    """Return an operand as it is read; `_NO_READING` if nothing is left to look for."""
    read = over_texts(reading, operand)
    return _NO_READING if read == "" != operand else read


def _select_any(value: Any, parts: Parts) -> list[Any]:
    """Return every value at a path, whatever lists and objects of rows are on the way; what lacks it is skipped."""
    if len(parts) == 1 and isinstance(value, dict) and parts[0] is not EVERY:
        return [value[parts[0]]] if parts[0] in value else []
    found = [value]
    for part in parts:
        found = [inner for item in found for inner in _step(item, part)]
    return found


def _step(item: Any, part: str | Every) -> Iterator[Any]:
    if isinstance(item, list):
        index = None if part is EVERY else index_of(part)
        if part is EVERY:
            yield from item
        elif index is None:
            for each in item:
                yield from _step(each, part)
        elif index < len(item):
            yield item[index]
    elif part is EVERY:
        yield item
        if isinstance(item, dict):
            yield from item.values()
    elif isinstance(item, dict) and part in item:
        yield item[part]
    elif part == "0":
        yield item  # one, where a tool takes one or a list


OPERATORS: dict[str, Compare] = {
    "eq": lambda a, b: same(a, b),
    "lt": lambda a, b: _number(a) < _number(b),
    "le": lambda a, b: _number(a) <= _number(b),
    "gt": lambda a, b: _number(a) > _number(b),
    "ge": lambda a, b: _number(a) >= _number(b),
    "in": lambda a, b: a in _collection(b) if isinstance(a, str) else any(same(a, item) for item in _collection(b)),
    "matches": lambda a, b: b(_string(a)),
    "contains": lambda a, b: b in a if isinstance(a, str) else any(same(item, b) for item in _collection(a)),
    "starts_with": lambda a, b: _string(a).startswith(b),
    "ends_with": lambda a, b: _string(a).endswith(b),
}
"""The comparisons that are not negated."""


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal; true is not 1, in a list or object neither."""
    if isinstance(a, str):
        return bool(a == b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(one, other) for one, other in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} is not a number")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def _collection(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r:.40} is not a list")
    return value
