"""How many characters Python's `re` tries on a text: a matcher over the same parse tree, that counts.

Time says nothing on a busy machine.  What grows faster than the text does so in this count too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

# The parser of `re` has no public name.
_parser: Any = __import__("re._parser", fromlist=["parse"])
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


class Counter:
    """Counts what a pattern tries on one text, from every place where a match may begin."""

    def __init__(self, pattern: re.Pattern[str], text: str, limit: int) -> None:
        self._flags, self._text, self._limit = pattern.flags, text, limit
        self._tree = _parsed(pattern)
        self.count = 0

    def search(self, at: int = 0) -> int | None:
        """Return where the first match from `at` ends; None for none."""
        for begin in range(at, len(self._text) + 1):
            end = next(self._all(self._tree, 0, begin), None)
            if end is not None:
                return max(end, begin + 1)
        return None

    def match(self, *, whole: bool) -> None:
        """Try to match at the beginning, or the whole text."""
        next((end for end in self._all(self._tree, 0, 0) if not whole or end == len(self._text)), None)

    def _all(self, items: Sequence[Any], which: int, at: int) -> Iterator[int]:
        """Yield where a sequence may end, in the order in which `re` tries."""
        if which == len(items):
            yield at
            return
        for end in self._one(items[which], at):
            yield from self._all(items, which + 1, end)

    def _one(self, item: Any, at: int) -> Iterator[int]:
        op, value = str(item[0]), item[1]
        if op in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            self.count += 1
            if self.count > self._limit:
                raise OverflowError(f"over {self._limit:,} characters tried on {len(self._text):,}")
            if at < len(self._text) and _is_one(op, value, self._text[at], self._flags):
                yield at + 1
        elif op == "BRANCH":
            for branch in value:
                yield from self._all(branch, 0, at)
        elif op == "SUBPATTERN":
            yield from self._all(value, 0, at)
        elif op in ("MAX_REPEAT", "MIN_REPEAT"):
            yield from self._repeat(value, at, 0, is_greedy=op == "MAX_REPEAT")
        elif op == "POSSESSIVE_REPEAT":
            yield from self._first(self._repeat(value, at, 0, is_greedy=True))
        elif op == "ATOMIC_GROUP":
            yield from self._first(self._all(value, 0, at))
        elif op in ("ASSERT", "ASSERT_NOT"):
            begin = at if value[0] > 0 else at - value[1]
            found = begin >= 0 and next(self._all(value[2], 0, begin), None) is not None
            if found is (op == "ASSERT"):
                yield at
        elif op == "AT":
            if self._is_at(value, at):
                yield at
        elif op != "FAILURE":
            raise NotImplementedError(op)

    @staticmethod
    def _first(ends: Iterator[int]) -> Iterator[int]:
        end = next(ends, None)
        if end is not None:
            yield end

    def _repeat(self, value: Any, at: int, done: int, *, is_greedy: bool) -> Iterator[int]:
        least, most, body = value
        if not is_greedy and done >= least:
            yield at
        if done < most:
            for end in self._all(body, 0, at):
                if end > at or done < least:
                    yield from self._repeat(value, end, done + 1, is_greedy=is_greedy)
        if is_greedy and done >= least:
            yield at

    def _is_at(self, where: str, at: int) -> bool:
        text = self._text
        if where in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return at == 0 or (where == "AT_BEGINNING" and self._flags & re.M != 0 and text[at - 1] == "\n")
        if where in ("AT_END", "AT_END_STRING"):
            return at == len(text) or (where == "AT_END" and text[at] == "\n")
        around = (text[at - 1 : at] if at else "", text[at : at + 1])
        is_boundary = sum(re.match(r"\w", char) is not None for char in around) == 1
        return is_boundary is (where == "AT_BOUNDARY")


@cache
def _parsed(pattern: re.Pattern[str]) -> tuple[Any, ...]:
    return _tuple_of(_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))


def _tuple_of(tree: Any) -> tuple[Any, ...]:
    """Return a parse tree as tuples of names, numbers and texts."""
    return tuple((str(op), _value_of(str(op), value)) for op, value in tree)


def _value_of(op: str, value: Any) -> Any:
    if op == "IN":
        return tuple((str(kind), str(of) if str(kind) == "CATEGORY" else of) for kind, of in value)
    if op == "BRANCH":
        return tuple(_tuple_of(branch) for branch in value[1])
    if op == "SUBPATTERN":
        return _tuple_of(value[3])
    if op in ("ASSERT", "ASSERT_NOT"):
        return value[0], value[1].getwidth()[0], _tuple_of(value[1])
    if op.endswith("REPEAT"):
        return int(value[0]), int(value[1]), _tuple_of(value[2])
    return _tuple_of(value) if op == "ATOMIC_GROUP" else str(value) if op == "AT" else value


@cache
def _is_one(op: str, value: Any, char: str, flags: int) -> bool:
    """Whether a character is one of those that one element of a pattern takes."""
    if op == "ANY":
        return char != "\n" or bool(flags & re.S)
    forms = {char, *(form for form in (char.lower(), char.upper()) if flags & re.I and len(form) == 1)}
    if op != "IN":
        return any(ord(form) == value for form in forms) is (op == "LITERAL")
    found, is_negated = False, False
    for kind, of in value:
        if kind == "NEGATE":
            is_negated = True
        elif kind == "LITERAL":
            found = found or any(ord(form) == of for form in forms)
        elif kind == "RANGE":
            found = found or any(of[0] <= ord(form) <= of[1] for form in forms)
        else:
            found = found or re.match(_CATEGORIES[of], char, flags & re.A) is not None
    return found is not is_negated


def tried(pattern: re.Pattern[str], text: str, how: str = "search", *, limit: int = 2_000_000) -> int:
    """Return how many characters are tried to find every match, or what `match` or `fullmatch` does.

    Raises `OverflowError` over the limit.
    """
    counter, at = Counter(pattern, text, limit), 0
    if how != "search":
        counter.match(whole=how == "fullmatch")
    while how == "search" and at <= len(text):
        end = counter.search(at)
        if end is None:
            break
        at = end
    return counter.count
