"""Where one token of a text ends: what touches a value may make another name of it.

Whatever is unclear goes on: a value beside it is then no whole token, and counts as not there.
"""

from __future__ import annotations

import bisect
import itertools
import re
import unicodedata
from collections.abc import Sequence

from airside.stack.text.entities import COMMON, FILES

BREAK = "\x00"
"""Between the texts of one source: no text has it (`check_bounds`), and no identifier goes on over it."""

QUOTED = re.compile(
    r"`([^`\x00]{1,4000})`|(?<!\w)\"(?=\S)([^\"\x00]{1,4000}?)(?<=\S)\"(?!\w)|[\u201c\u201e]([^\u201c\u201d\u201e\x00]{1,4000})"
    r"[\u201c\u201d]|\u00ab([^\u00ab\u00bb\x00]{1,4000})\u00bb|(?<!\w)'(?=\S)([^'\x00]{1,4000}?)(?<=\S)'(?!\w)"
)
"""What stands in quotation marks, which is one value."""

_RUN_ON = re.compile(r"\.(?=(?P<word>[A-Z][a-z]{2,}|[IA])(?:['\u2019][a-z]{1,4})?[\s,;:])")
_NAME_BEFORE = re.compile(r"[\w\-]\.(?P<ending>[a-z]{2,24})\Z")
_TESTING = frozenset({"example", "test", "invalid", "local"})
_BEFORE_DOT = 64

_JOINERS = frozenset("@.-+/:\\~#%&=?$")
_JOINERS_BEFORE = _JOINERS | frozenset("'\u2019!*^`|{")
"""A mail address may have these in front of what looks like a whole one: `o'neil@corp.com` is not `neil@corp.com`."""

_MAX_JOINERS = 8
_GROUP = re.compile(r"[0-9]{3}[ \u00a0\u202f][0-9]{3}")
_COUNTED = re.compile(r"(?<![^\W\d_])(?:no|nr|num)\Z")
"""Before a dot: `no.5521` is number 5521, and not the end of a host."""


def parted(text: str) -> str:
    """Return a text with a space where a sentence ends with the name of a host or a file, and the next one begins.

    `www.corp.example.Then` is a host and a word: nobody writes the end of a host with a capital, unless it may be one
    (`corp.com.Shop`).  What is quoted is left as it is.
    """
    ends = [match.end() for match in _RUN_ON.finditer(text) if _ends_a_name(text, match)]
    if not ends:
        return text
    quoted = [match.span() for match in QUOTED.finditer(text)]
    at = [0, *(end for end in ends if (span := around(quoted, end)) is None or end == span[0]), len(text)]
    return " ".join(text[begin:end] for begin, end in itertools.pairwise(at))


def _ends_a_name(text: str, dot: re.Match[str]) -> bool:
    name = _NAME_BEFORE.search(text, max(0, dot.start() - _BEFORE_DOT), dot.start())
    if name is None or COMMON.fullmatch(dot["word"].lower()):
        return False
    ending = name["ending"]
    return len(ending) == 2 or ending in _TESTING or (COMMON.fullmatch(ending) or FILES.fullmatch(ending)) is not None


def around(spans: Sequence[tuple[int, int]], at: int) -> tuple[int, int] | None:
    """Return the one of these spans, which are in order and apart, in which a place is."""
    last = bisect.bisect_right(spans, at, key=lambda span: span[0]) - 1
    return spans[last] if last >= 0 and at < spans[last][1] else None


def stands_alone(text: str, begin: int, end: int) -> bool:
    """Whether what stands there is a whole token."""
    return not continues(text, begin - 1, -1) and not continues(text, end, 1)


def is_grouped(text: str, begin: int, end: int) -> bool:
    """Whether digits are a group or two of a longer number that is written with spaces."""
    before, after = text[max(0, begin - 4) : begin + 3], text[end - 3 : end + 4] if end >= 3 else ""
    return _GROUP.fullmatch(before) is not None or _GROUP.fullmatch(after) is not None


def continues(text: str, at: int, step: int) -> bool:
    """Whether an identifier goes on at `at`, seen from a value beside it."""
    joiners = _JOINERS if step > 0 else _JOINERS_BEFORE
    if step < 0 and text[max(0, at) : at + 1] == "." and _COUNTED.search(text, max(0, at - 4), at):
        return False
    for _ in range(_MAX_JOINERS):
        if not 0 <= at < len(text) or text[at] == BREAK:
            return False
        char = text[at]
        if char not in joiners:
            # Marks and invisible characters belong to what they stand at.
            return char.isalnum() or char == "_" or (not char.isspace() and unicodedata.category(char)[0] in "MC")
        at += step
    return True
