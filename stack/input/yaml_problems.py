"""What the YAML library finds wrong with a file, in plain words: at which line, what, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

_KEY = re.compile(r"\s*(?:- )*([\w.@ -]{1,60}?)\s*:(?:\s|$)")

_Explanation = tuple[str, Callable[[re.Match[str], int], str], bool]
"""A problem as the library has it, what to say of it and the line it began at, and whether that line is the place."""

_EXPLANATIONS: tuple[_Explanation, ...] = (
    (r"found character '\\t'.*", lambda found, line: "a tab stands before the text: indent by spaces", False),
    (r"found character '(.)'.*", lambda found, line: f"a text that begins with {found[1]} stands in quotes", False),
    (
        r"expected ',' or '(.)', but got (.*)",
        lambda found, line: f"{_open(found[1])} of line {line} is open at {_what(found[2])}: write {found[1]} before",
        False,
    ),
    (
        r"expected <block end>, but found .*",
        lambda found, line: f"indented as nothing above it: what belongs together begins at one column, as line {line}",
        False,
    ),
    (
        r"mapping values are not allowed here",
        lambda found, line: (
            "a second `name:` in one line: put the text in quotes, or the mapping into lines of its own"
        ),
        False,
    ),
    (r"found unexpected end of stream", lambda found, line: "the quote that begins here is not closed", True),
    (r"could not find expected ':'", lambda found, line: "there is no `: ` after the name: write name: value", True),
    (r"but found another document", lambda found, line: "one document is read: leave out what follows ---", False),
    (
        r"expected the node content, but found (.*)",
        lambda found, line: f"there is nothing before {_what(found[1])}",
        False,
    ),
    (
        r"found unknown escape character '(.)'",
        lambda found, line: f"no escape is written \\{found[1]}: write \\\\{found[1]}, or single quotes around it",
        False,
    ),
)


def explain_yaml(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """Return the line of what is wrong with a text, 0 if none is known, and what; with the key of that line."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return line, f"the character U+{int(error.character):04X} is not read: write an escape in double quotes"
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    line = mark.line + 1 if mark else 0
    first = begun.line + 1 if begun else line
    for pattern, said, is_first in _EXPLANATIONS:
        found = re.fullmatch(pattern, problem, re.DOTALL)
        if found is not None:
            line = first if is_first else line
            return line, _with_key(said(found, first), text, line)
    return line, problem


def _with_key(said: str, text: str, line: int) -> str:
    lines = text.split("\n")
    key = _KEY.match(lines[line - 1]) if 0 < line <= len(lines) else None
    return f"{key[1].strip()}: {said}" if key else said


def _open(bracket: str) -> str:
    return {"]": "[", "}": "{"}.get(bracket, bracket)


def _what(token: Any) -> str:
    """Return what stands there, as the library names it."""
    name = str(token).strip("'")
    return {"<stream end>": "the end of the file", "?": "a name", "<block mapping start>": "a mapping"}.get(name, name)
