"""How a number that stands nowhere may have been worked out, for a person who is asked about it.

It is still asked about: that 37.50 is 12.50 x 3 does not say that anybody wanted it.  What can be had in many ways is
not explained, for one of them would look like a reason.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

MAX_OPERANDS = 200
MAX_WAYS = 3
"""Ways to come to a number that are told; more of them tell nothing."""

_CENT = Decimal("0.01")


class Operand(NamedTuple):
    """A number that somebody gave, and who; `is_percent` = it has a percent sign."""

    value: Decimal
    whose: str
    is_percent: bool = False


def find_sums(value: Decimal, operands: Iterable[Operand]) -> str:
    """Return the ways in which two of the operands make the value, with whose each is; nothing for none, or many."""
    known: dict[Decimal, Operand] = {}
    for each in operands:
        if len(known) == MAX_OPERANDS:
            break
        if each.value > 0:
            known.setdefault(each.value, each)
    if value <= 0:
        return ""
    ways = list(dict.fromkeys(_ways(value, known)))
    return f"{_plain(value)} = {' or '.join(ways)}" if 0 < len(ways) <= MAX_WAYS else ""


def _ways(value: Decimal, known: dict[Decimal, Operand]) -> Iterator[str]:
    """Yield ways once each; the first operand of a sum or product is the greater."""
    ordered, places = sorted(known), {number: place for place, number in enumerate(known)}
    for one in known.values():
        near = {number for low, high in _near(value, one) for number in _within(ordered, low, high)}
        for number in sorted(near, key=places.__getitem__):
            yield from _ways_of_two(value, one, known[number])


def _near(value: Decimal, one: Operand) -> Iterator[tuple[Decimal, Decimal]]:
    """Yield between which numbers an operand lies that may make the value together with one.

    So that each is tried with a few, and not with all: a tool may have returned hundreds of numbers.
    """
    low, high = value - _CENT, value + _CENT
    if one.is_percent:
        yield low * 100 / one.value, high * 100 / one.value
        return
    yield low - one.value, high - one.value
    yield one.value - high, one.value - low
    yield low / one.value, high / one.value
    yield one.value / high, one.value / low if low > 0 else Decimal("Infinity")


def _within(ordered: Sequence[Decimal], low: Decimal, high: Decimal) -> Sequence[Decimal]:
    return ordered[bisect_left(ordered, low) : bisect_right(ordered, high)]


def _ways_of_two(value: Decimal, one: Operand, other: Operand) -> Iterator[str]:
    if one.is_percent and one != other and not other.is_percent:
        if _is_cents(other.value * one.value / 100, value):
            yield f"{_plain(one.value)} % ({one.whose}) of {_shown(other)}"
        return
    if one.is_percent or other.is_percent:
        return
    is_first = one.value >= other.value
    if is_first and one.value + other.value == value:
        yield f"{_shown(one)} + {_shown(other)}"
    if one.value - other.value == value:
        yield f"{_shown(one)} - {_shown(other)}"
    if 1 not in (one.value, other.value):
        if is_first and one.value * other.value == value:
            yield f"{_shown(one)} x {_shown(other)}"
        if one != other and _is_cents(one.value / other.value, value):
            yield f"{_shown(one)} / {_shown(other)}"


def _is_cents(exact: Decimal, value: Decimal) -> bool:
    return exact == value or (value == value.quantize(_CENT) and exact.quantize(_CENT) == value)


def _shown(operand: Operand) -> str:
    return f"{_plain(operand.value)} ({operand.whose})"


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
