"""Patterns that meet tenants' values: linear in the text, and refused at load if they cannot be."""

from __future__ import annotations

import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.policy.bundle import load_bundle
from airside.stack.text.names import matcher
from airside.stack.text.patterns import compile_pattern

BACKTRACKING = [
    r"([a-z0-9._-]+)+@corp\.example",
    r"(a+)+",
    r"(a|aa)+",
    r"(a|a?)+",
    r"(.*a){20}",
    r"(a*)*b",
    r"(\w+\s?)*z",
    r"(x+x+)+y",
    r"((a+)+)+",
    r"(?i)(A+)+",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(.+)+,(.+)+,(.+)+",
]


@pytest.mark.parametrize("pattern", BACKTRACKING)
def test_a_pattern_that_would_backtrack_for_ever_answers(pattern: str) -> None:
    """An engine that tried every way would not come back from these."""
    matches = compile_pattern(pattern, across_lines=True)
    assert not matches("a" * 50_000 + "!")
    assert not matches("x" * 50_000 + "!")


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("a|b", "b", True),
        ("a|b", "ab", False),
        ("a", "a\n", False),
        (r"\d+", "12", True),
        (r"\p{Greek}+", "\u03b1\u03b2", True),
        (r"(?P<user>[^@]+)@x", "ann@x", True),
        (r"(?m)^a$.^b$", "a\nb", False),
        (r"(?ms)^a$.^b$", "a\nb", True),
        (r"\u{200b}x", "\u200bx", True),
        ("", "", True),
    ],
)
def test_a_pattern_is_of_the_whole_text(pattern: str, text: str, fits: bool) -> None:
    """Flags may be written in it."""
    assert compile_pattern(pattern)(text) is fits


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "unclosed group"),
        ("a)|(b", "unopened group"),
        (r"(?<=a)b", "look-around"),
        (r"(?!a)b", "look-around"),
        (r"(a)\1", "backreferences"),
        (r"a\Z", "escape"),
        ("[z-a]", "range"),
        ("a{3,2}", "repetition"),
        ("([a-z]{1,255}){1,255}", "written out"),
        ("a{1001}", "written out"),
        ("x" * 2001, "at most 2,000"),
        ("(?x)a # ", "unclosed group"),
        ("e\u0301", "plainer form"),
        ("\u200b", "not seen"),
    ],
)
def test_what_the_engine_cannot_compile_is_refused_at_load_with_line_and_reason(pattern: str, why: str) -> None:
    """Before any call is decided."""
    text = "version: v1\nrules:\n- id: a\n  outcome: deny\n  when:\n    arguments:\n"
    with pytest.raises(InvalidConfig) as caught:
        load_bundle(f"{text}    - {{path: n, op: matches, value: '{pattern}'}}\n")
    assert caught.value.message.startswith("policy:7:") and why in caught.value.message


def test_patterns_of_names_are_linear_too() -> None:
    """Many stars, and a name that almost fits."""
    fits = matcher(["*a" * 60 + "*b"])
    assert not fits("a" * 20_000) and fits("a" * 60 + "b")
