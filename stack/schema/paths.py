r"""Dotted paths into a call's arguments: how rules and tools name a place, and how places are shown.

`order.lines.*.price`: keys joined by dots, a number for an item of a list, `*` for every item.  A key may hold any
characters; within one, `\.`, `\*` and `\\` stand for themselves, `\u{200b}` for the character of that code, and `\e`
alone for the empty key.  What `show_path` writes names one place: `a\.b` is one key, `a.b` a key within another.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Any, Final

from airside.stack.errors import InvalidConfig
from airside.stack.text.entities import visible

MAX_PARTS = 64
"""Twice as deep as arguments may be."""


class Every(enum.Enum):
    """The part of a path that stands for every item of a list."""

    EVERY = "*"


EVERY: Final = Every.EVERY
Parts = tuple[str | Every, ...]

_ESCAPE = re.compile(r"\\(?:([.*\\])|u\{([0-9a-fA-F]{1,6})\})")
_EMPTY_KEY = "\\e"


def parse_path(text: str) -> Parts:
    """Return the parts of a dotted path; raise `InvalidConfig` saying what is wrong with it."""
    parts = tuple(_part(segment, text) for segment in _segments(text))
    if len(parts) > MAX_PARTS:
        raise InvalidConfig(f"path {text!r:.80}: {len(parts)} parts are more than the {MAX_PARTS} there can be")
    return parts


def show_path(parts: Iterable[str | Every]) -> str:
    """Return a path as text: `parse_path` reads it back, and nothing in it is hidden or breaks a line."""
    return ".".join("*" if part is EVERY else _shown(part) for part in parts)


def select(value: Any, parts: Parts) -> list[Any]:
    """Return the values at a path; none if the path does not exist for every item that a `*` stands for.

    `*` at what is no list stands for that value itself: a tool may take one, or a list of them.
    """
    found = [value]
    for part in parts:
        following: list[Any] = []
        for item in found:
            if part is EVERY:
                following += item if isinstance(item, list) else [item]
            elif isinstance(item, dict) and part in item:
                following.append(item[part])
            elif isinstance(item, list) and (index := index_of(part)) is not None and index < len(item):
                following.append(item[index])
            else:
                return []
        found = following
    return found


def index_of(part: str) -> int | None:
    """Return the place in a list that a part names; None if it is no number."""
    return int(part) if part.isascii() and part.isdecimal() and len(part) < 10 else None


def _segments(text: str) -> list[str]:
    """Split at the dots that no backslash stands before."""
    segments, begin, at = [], 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 1  # whatever follows it is no separator
        elif text[at] == ".":
            segments.append(text[begin:at])
            begin = at + 1
        at += 1
    return [*segments, text[begin:]]


def _part(segment: str, text: str) -> str | Every:
    if segment == "*":
        return EVERY
    if segment == _EMPTY_KEY:
        return ""
    if not segment:
        raise InvalidConfig(f"path {text!r:.80}: there is nothing before, after or between dots; the empty key is \\e")
    rest = _ESCAPE.sub("", segment)
    if "\\" in rest:
        raise InvalidConfig(f"path {text!r:.80}: after a backslash comes ., *, \\ or u{{CODE}}")
    if "*" in rest:
        raise InvalidConfig(f"path {text!r:.80}: * stands for a whole part; a key that has one is written with \\*")
    return _ESCAPE.sub(lambda match: match[1] or _character(match[2], text), segment)


def _character(code: str, text: str) -> str:
    number = int(code, 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise InvalidConfig(f"path {text!r:.80}: there is no character {code}")
    return chr(number)


def _shown(key: str) -> str:
    if not key:
        return _EMPTY_KEY
    if key.isascii() and (key.isidentifier() or key.isdecimal()):
        return key  # as nearly every one is: nothing in it to escape
    escaped = visible(key.replace("\\", "\\\\").replace(".", "\\.").replace("*", "\\*"))
    return "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in escaped)
