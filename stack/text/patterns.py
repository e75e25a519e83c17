r"""Patterns that operators write and tenants' values meet, in an engine whose time is linear in the text.

Python's `re` can take for ever over forty characters, and nobody else is decided about meanwhile.  The engine is Rust's
`regex`, which Pydantic brings: without look-around and back references, `\z` for Python's `\Z`, otherwise as usual.
A pattern it cannot compile is refused where it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic_core import SchemaError, SchemaValidator, core_schema

from airside.stack.errors import InvalidConfig

MAX_PATTERN = 2000
"""Characters of a pattern: a longer one is a list, which `in` takes."""

MAX_WEIGHT = 1000
"""Characters and classes of a pattern, with its counted repetitions written out: each may cost its time once for every
character of a text, two seconds for the longest text there is."""


def compile_pattern(pattern: str, *, ignore_case: bool = False, across_lines: bool = False) -> Callable[[str], bool]:
    """Return whether a whole text matches; `across_lines` = a dot takes a line break too.

    Raises `InvalidConfig` saying what the engine refuses.
    """
    if len(pattern) > MAX_PATTERN:
        raise InvalidConfig(f"{pattern!r:.60}: a pattern has at most {MAX_PATTERN:,} characters")
    # By itself first, so that no parenthesis in it can close the group around it.
    _compiled(pattern, pattern)
    weight = _weight(pattern)
    if weight > MAX_WEIGHT:
        raise InvalidConfig(
            f"{pattern!r:.60}: with its repetitions written out it has {weight:,} parts, over {MAX_WEIGHT:,}: "
            f"bound lengths in the tool's schema"
        )
    flags = ("i" if ignore_case else "") + ("s" if across_lines else "")
    return _compiled(rf"\A(?{flags}:{pattern})\z", pattern)


def _compiled(pattern: str, shown: str) -> Callable[[str], bool]:
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        raise InvalidConfig(f"{shown!r:.60} is not a regular expression that can be used: {_why(error)}") from None
    return validator.isinstance_python


def _why(error: SchemaError) -> str:
    return str(error).splitlines()[-1].strip().removeprefix("error: ").removeprefix("SchemaError: ")


def _weight(pattern: str) -> int:
    """Return how many parts a valid pattern has, those of a counted repetition as often as they may come."""
    open_groups, last, at = [0], 0, 0
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            open_groups.append(0)
            last = 0
        elif char == ")" and len(open_groups) > 1:
            last = open_groups.pop()
            open_groups[-1] += last
        elif char == "{":
            end = pattern.find("}", at)
            counts = [int(part) for part in pattern[at + 1 : end].split(",") if part.strip().isdecimal()]
            open_groups[-1] += last * (max(counts, default=1) - 1)
            last, at = last * max(counts, default=1), end
        elif char not in "|?*+^$":
            at = _end_of_part(pattern, at)
            last = 1
            open_groups[-1] += 1
        at += 1
    return sum(open_groups)


def _end_of_part(pattern: str, at: int) -> int:
    """Return where the character, escape or class that begins there ends."""
    if pattern[at] == "\\":
        is_named = pattern[at + 1 : at + 3] in ("p{", "P{", "x{", "u{", "U{", "b{")
        return pattern.index("}", at) if is_named else at + 1
    if pattern[at] != "[":
        return at
    depth = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
            at += 1 if pattern[at + 1 : at + 2] == "]" else 2 if pattern[at + 1 : at + 3] == "^]" else 0
        elif pattern[at] == "]":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return at
