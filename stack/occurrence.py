"""Whether a value occurs in a text: as a whole token, never as a part of a longer one.

An outsider's value that hides in something the principal did write must not pass for it: `alice@corp.co` is not in
"alice@corp.com", `corp.com` not in "alice@corp.com", `/home/user` not in "/home/user/report.txt", `12` not in "3125".
ASCII case is nothing where there is no `/` or `\\`; nothing else of Unicode is folded, so look-alikes differ.  Numbers
are compared as numbers.  Whatever is unclear does not occur: the price is a question to a person.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

Json = Any

_BREAK = "\x00"
"""Between the texts of one source: no text has it (`check_bounds`), and no identifier goes on over it."""

_JOINERS = frozenset("@.-+/:\\~#%&=?$")
_JOINERS_BEFORE = _JOINERS | frozenset("'\u2019!*^`|{")
"""A mail address may have these in front of what looks like a whole one: `o'neil@corp.com` is not `neil@corp.com`."""

_MAX_JOINERS = 8
_MAX_PLACES = 10_000
_MAX_TEXT = 256 * 1024
"""Characters of one source, and places in it, that are looked at: what is beyond does not occur."""

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_SPACES = re.compile(r"[ \t\r\n]+")
_SCHEME = re.compile(r"https://", re.IGNORECASE | re.ASCII)
_SCHEME_OF_TOKEN = re.compile(r"(?<![^\s\x00(<\[\"'])https://", re.IGNORECASE | re.ASCII)
_SPACED_MIN, _SPACED_MAX, _SPACED_DIGITS = 8, 64, 4
_SPACED = re.compile(r"[0-9a-z+() -]+")
_GROUPS = re.compile(r"[0-9][0-9 -]*")
_GROUP = re.compile(r"[0-9]{3} [0-9]{3}")
_NUMERIC = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,9})?")
_ZEROS = re.compile(r"0[0-9]")
"""What begins so is a name: 007 is not 7."""

_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_WORD = re.compile(r"[a-z]+")
_CURRENCY = re.compile(r"(?:\b(?:us|a|c|nz|hk|s)?[$]|[\u20ac\u00a3\u00a5]|\b(?:eur|usd|gbp|chf|jpy) ?)\Z")
_UNIT = re.compile(r"(?:eur|usd|gbp|chf|jpy|%)(?![\w%])|[\u20ac\u00a3\u00a5]")
_TEENS = [
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", *_TEENS]
_NUMBER_WORDS = {word: Decimal(number) for number, word in enumerate(_WORDS, 1)}


class Haystack:
    """The texts and numbers of one source.  `whole` = a value must equal one of them, not merely occur in one."""

    __slots__ = ("_exact", "_folded", "_leaves", "_numbers", "_whole")

    def __init__(self, *values: Json, whole: bool = False) -> None:
        texts = [spaced(text) for value in values for text in _bounded(_texts(value))]
        self._exact = _BREAK.join(texts)
        self._folded = _lower(self._exact)
        self._whole = whole
        self._leaves = {fold(text) for text in texts} if whole else set()
        self._numbers: set[Decimal] | None = None

    def has(self, value: Json) -> bool:
        """Whether a text or a number occurs; booleans and null never do."""
        if isinstance(value, bool) or value is None:
            return False
        if not isinstance(value, str):
            return decimal_of(value) in self._known_numbers()
        return self._has_text(value) or (_NUMERIC.fullmatch(value) is not None and self._has_numeric(value))

    def _has_text(self, value: str) -> bool:
        needle = fold(value)
        if not any(char.isalnum() for char in needle):
            return self._whole and needle in self._leaves
        if self._whole:
            return needle in self._leaves or compact(needle) in {compact(leaf) for leaf in self._leaves} - {""}
        text = self._exact if is_exact(needle) else self._folded
        found = ((at, at + len(needle)) for at in _places(needle, text))
        is_number = _GROUPS.fullmatch(needle) is not None
        return self._spaced(needle) or any(
            _stands_alone(text, *span) and not (is_number and _is_grouped(text, *span)) for span in found
        )

    def _has_numeric(self, value: str) -> bool:
        return Decimal(value) in self._known_numbers()

    def _spaced(self, needle: str) -> bool:
        """Whether an account or phone number occurs with single spaces or hyphens between its characters."""
        core = compact(needle)
        if not core:
            return False
        text = self._folded
        for match in re.finditer("[ -]?".join(map(re.escape, core)), text):
            before, after = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 2]
            longer = re.search(r"[0-9][ -]?\Z", before) or re.match(r"[ -]?[0-9]", after)
            if longer is None and _stands_alone(text, match.start(), match.end()):
                return True
        return False

    def _known_numbers(self) -> set[Decimal]:
        if self._numbers is None:
            if self._whole:
                self._numbers = {Decimal(leaf) for leaf in self._leaves if _NUMERIC.fullmatch(leaf)}
            else:
                self._numbers = set(numbers_in(self._folded))
        return self._numbers


def fold(value: str) -> str:
    """Return a value as it is looked for: without `https://`, ASCII in lower case unless it is a path."""
    text = _SPACES.sub(" ", value)
    if _SCHEME.match(text):
        text = text[len("https://") :].rstrip("/")
    return text if is_exact(text) else _lower(text)


def is_exact(value: str) -> bool:
    """Whether case matters: it does in paths."""
    return "/" in value or "\\" in value


def spaced(text: str) -> str:
    """Return a text with runs of white space as one space, and its tokens without `https://`."""
    return _SCHEME_OF_TOKEN.sub("", _SPACES.sub(" ", text))


def compact(value: str) -> str:
    """Return an account or phone number without its spaces and hyphens; nothing for what is none."""
    core = value.replace(" ", "").replace("-", "")
    digits = sum(char in "0123456789" for char in core)
    fits = _SPACED_MIN <= len(core) <= _SPACED_MAX and digits >= _SPACED_DIGITS
    return core if fits and _SPACED.fullmatch(core) else ""


def decimal_of(value: Json) -> Decimal | None:
    """Return a JSON number for comparison."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def numbers_in(text: str) -> Iterator[Decimal]:
    """Yield the numbers of a text in lower case: whole tokens, grouped or not, with or without a currency."""
    for match in _NUMBER.finditer(text):
        begin, end = match.span()
        currency = _CURRENCY.search(text, max(0, begin - 5), begin)
        begin = currency.start() if currency else begin
        unit = _UNIT.match(text, end)
        end = unit.end() if unit else end
        minus = text[begin - 1 : begin] in ("-", "\u2212") and not _continues(text, begin - 2, -1)
        number = _number(match.group())
        is_whole = _stands_alone(text, begin - minus, end) and not _is_grouped(text, *match.span())
        if number is not None and is_whole:
            yield -number if minus else number
    for match in _WORD.finditer(text):
        word = _NUMBER_WORDS.get(match.group())
        if word is not None and _stands_alone(text, *match.span()):
            yield word


def _number(digits: str) -> Decimal | None:
    """Return what digits with dots and commas mean, None where that is unclear."""
    if _ZEROS.match(digits):
        return None
    last = max(digits.rfind("."), digits.rfind(","))
    if "." in digits and "," in digits:
        whole, fraction = digits[:last], digits[last + 1 :]
        mark = "," if digits[last] == "." else "."
        return Decimal(f"{whole.replace(mark, '')}.{fraction}") if _grouped(whole, mark) else None
    if "," in digits:
        return Decimal(digits.replace(",", "")) if _grouped(digits, ",") else None
    return Decimal(digits) if digits.count(".") <= 1 else None


def _grouped(digits: str, mark: str) -> bool:
    first, *rest = digits.split(mark)
    return first.isdigit() and 1 <= len(first) <= 3 and all(len(group) == 3 and group.isdigit() for group in rest)


def _texts(value: Json) -> Iterator[str]:
    """Yield every text of a JSON value, keys too, and its numbers as text."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif item is not None and not isinstance(item, bool):
            number = decimal_of(item)
            yield str(item) if number is None else f"{number:f}"


def _bounded(texts: Iterator[str]) -> Iterator[str]:
    room = _MAX_TEXT
    for text in texts:
        if len(text) > room:
            return
        room -= len(text)
        yield text


def _lower(text: str) -> str:
    # `lower` would make the Kelvin sign a k.
    return text.lower() if text.isascii() else text.translate(_LOWER)


def _places(needle: str, text: str) -> Iterator[int]:
    at = text.find(needle)
    for _ in range(_MAX_PLACES):
        if at < 0:
            return
        yield at
        at = text.find(needle, at + 1)


def _stands_alone(text: str, begin: int, end: int) -> bool:
    return not _continues(text, begin - 1, -1) and not _continues(text, end, 1)


def _is_grouped(text: str, begin: int, end: int) -> bool:
    """Whether digits are a group or two of a longer number that is written with spaces."""
    before, after = text[max(0, begin - 4) : begin + 3], text[end - 3 : end + 4] if end >= 3 else ""
    return _GROUP.fullmatch(before) is not None or _GROUP.fullmatch(after) is not None


def _continues(text: str, at: int, step: int) -> bool:
    """Whether an identifier goes on at `at`, seen from a value beside it."""
    joiners = _JOINERS if step > 0 else _JOINERS_BEFORE
    for _ in range(_MAX_JOINERS):
        if not 0 <= at < len(text) or text[at] == _BREAK:
            return False
        char = text[at]
        if char not in joiners:
            # Marks and invisible characters belong to what they stand at.
            return char.isalnum() or char == "_" or (not char.isspace() and unicodedata.category(char)[0] in "MC")
        at += step
    return True
