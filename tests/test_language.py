"""The language of the code, held by reading the source: `docs/glossary.md` says what each thing is called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(
    path
    for folder in ("stack", "memory", "tools", "actors", "airside")
    for path in (ROOT / folder).rglob("*.py")
    if not path.is_symlink()
)
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")
_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def words_of(identifier: str) -> tuple[str, ...]:
    """Return the words of an identifier, in lower case."""
    return tuple(word.lower() for word in _WORD.findall(identifier))


def forbidden() -> dict[tuple[str, ...], str]:
    """Return what is not said, by its words, with what is said instead."""
    _, _, section = GLOSSARY.partition("## Words that are not used")
    rows = [row for row in _ROW.findall(section) if not row[0].startswith(("instead of", "---"))]
    return {words_of(part.strip(" `")): instead for old, instead in rows for part in old.split(",")}


def definitions(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the name of a module, and line and name of what it defines: classes, functions, fields and constants."""
    yield 1, path.stem
    tree = ast.parse(path.read_text("utf-8"))
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
    for statement in (statement for body in bodies for statement in body):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        yield from ((statement.lineno, target.id) for target in targets if isinstance(target, ast.Name))


FORBIDDEN = forbidden()


def said(identifier: str) -> Iterator[tuple[str, ...]]:
    """Yield the forbidden words that an identifier has, one after the other."""
    words = words_of(identifier)
    for old in FORBIDDEN:
        if any(words[at : at + len(old)] == old for at in range(len(words) - len(old) + 1)):
            yield old


def test_the_glossary_says_what_is_not_said() -> None:
    """Each word once, and something instead of it that is not forbidden either."""
    assert len(FORBIDDEN) >= 40 and all(FORBIDDEN) and all(FORBIDDEN.values())
    assert [new for new in FORBIDDEN.values() if any(list(said(name)) for name in re.findall(r"`(\w+)`", new))] == []


@pytest.mark.parametrize(
    ("identifier", "found"),
    [
        ("DoubtDesk", [("doubt", "desk")]),
        ("_objection", [("objection",)]),
        ("is_in_doubt", []),
        ("told", [("told",)]),
        ("untold_runs", [("untold",)]),
        ("stolen", []),
    ],
)
def test_a_forbidden_word_is_found_as_a_whole_word(identifier: str, found: list[tuple[str, ...]]) -> None:
    """In camel case, snake case, and behind underscores."""
    assert list(said(identifier)) == found


def test_every_term_of_the_glossary_is_in_the_code() -> None:
    """A name that it gives, as class, function, field or module, exists."""
    there = {name for path in SHIPPED for _, name in definitions(path)}
    terms = GLOSSARY.partition("## Words that are not used")[0]
    named = {name for row in terms.splitlines() if row.startswith("| ") for name in re.findall(r"`(\w+)`", row)}
    assert len(named) >= 40
    assert sorted(named - there) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_defined_is_called_by_the_glossarys_words(path: Path) -> None:
    """One name for one thing, the field's standard one, so that a reader can search for it."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}: say {FORBIDDEN[old]}"
        for line, name in definitions(path)
        for old in said(name)
    ]
    assert wrong == [], "\n".join(wrong)
