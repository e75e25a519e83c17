"""Where one token of a text ends: what touches a value may make another name of it.

Whatever is unclear goes on: a value beside it is then no whole token, and counts as not there.
"""

from __future__ import annotations

import re
import unicodedata

BREAK = "\x00"
"""Between the texts of one source: no text has it (`check_bounds`), and no identifier goes on over it."""

QUOTED = re.compile(
    r"`([^`\x00]{1,4000})`|(?<!\w)\"(?=\S)([^\"\x00]{1,4000}?)(?<=\S)\"(?!\w)|[\u201c\u201e]([^\u201c\u201d\u201e\x00]{1,4000})"
    r"[\u201c\u201d]|\u00ab([^\u00ab\u00bb\x00]{1,4000})\u00bb|(?<!\w)'(?=\S)([^'\x00]{1,4000}?)(?<=\S)'(?!\w)"
)
"""What stands in quotation marks, which is one value."""

_JOINERS = frozenset("@.-+/:\\~#%&=?$")
_JOINERS_BEFORE = _JOINERS | frozenset("'\u2019!*^`|{")
"""A mail address may have these in front of what looks like a whole one: `o'neil@corp.com` is not `neil@corp.com`."""

_MAX_JOINERS = 8
_GROUP = re.compile(r"[0-9]{3}[ \u00a0\u202f][0-9]{3}")
_COUNTED = re.compile(r"(?<![^\W\d_])(?:no|nr|num)\Z")
"""Before a dot: `no.5521` is number 5521, and not the end of a host."""


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
