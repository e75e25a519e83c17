"""No text makes what reads it work for more than its length: a request, an output or a value stalls nobody's loop."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from datetime import date
from types import FrameType
from typing import Any

import pytest

from airside.stack.provenance.directives import Directives
from airside.stack.provenance.exclusions import inputs_without_exclusions, without_exclusions
from airside.stack.provenance.matching import SearchableText
from airside.stack.text.dates import days_in, minutes_in
from airside.stack.text.durations import lengths_in, lengths_of
from airside.stack.text.entities import find_entities
from airside.stack.text.forms import in_form
from airside.stack.text.spelling import alike
from airside.stack.text.tokens import parted
from tests.backtracking import tried

READERS = (
    "provenance.english provenance.exclusions provenance.masking provenance.matching provenance.directives"
    " provenance.records provenance.titles schema.choices text.durations text.entities text.forms text.dates"
    " text.numbers text.spelling text.tokens"
)
CHARACTERS = [
    "a",
    "1",
    "A. ",
    "a@",
    "1 ",
    "1.",
    "a-",
    "'a ",
    '"',
    "`",
    "(",
    "[",
    "<a ",
    "/",
    ":",
    ", ",
    " ",
    "\n",
    "%2",
    "ǂ ",
]
_WORDS = re.compile(r"[^\W\d_]{2,}")


def patterns() -> Iterator[Any]:
    """Yield every pattern that a module has by name, with how it is used there."""
    for reader in READERS.split():
        module = importlib.import_module(f"airside.stack.{reader}")
        source = inspect.getsource(module)
        for name, pattern in vars(module).items():
            uses = set(re.findall(rf"(?<![\w.]){name}\.(search|finditer|sub|findall|split|match|fullmatch)\(", source))
            if isinstance(pattern, re.Pattern):
                for how in sorted({use if use in ("match", "fullmatch") else "search" for use in uses}):
                    yield pytest.param(pattern, how, id=f"{reader}.{name}.{how}")


def repeated(unit: str, length: int, end: str) -> str:
    return unit * (length // len(unit) + 1) + end


@pytest.mark.parametrize(("pattern", "how"), list(patterns()))
def test_a_pattern_tries_as_many_characters_as_a_text_has(pattern: re.Pattern[str], how: str) -> None:
    """Of texts that repeat a word of its own, or a character, and end in something else."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        words = sorted(
            set(_WORDS.findall(re.sub(r"\\[a-zA-Z]", " ", pattern.pattern))), key=lambda word: (len(word), word)
        )
        every = max(1, len(words) // 12)
        for unit in [*(f"{word} " for word in words[::every]), *CHARACTERS]:
            for end in ("!", "x"):
                short = tried(pattern, repeated(unit, 24, end), how)
                long = tried(pattern, repeated(unit, 96, end), how, limit=8 * short + 500)
                assert long <= 6 * short + 200, (unit, end)
    finally:
        sys.setrecursionlimit(limit)


def lines_run(read: Callable[[str], object], text: str) -> int:
    """Return how many lines of Python are run to read a text."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        read(text)
    finally:
        sys.settrace(before)
    return count


WRITTEN = date(2026, 1, 5)
READING: dict[str, Callable[[str], object]] = {
    "wanted": without_exclusions,
    "inputs": lambda text: inputs_without_exclusions([{"a": text}, text]),
    "orders": lambda text: Directives(text, WRITTEN),
    "findings": find_entities,
    "numbers": lambda text: list(SearchableText(text).numbers()),
    "days": lambda text: list(days_in(text, WRITTEN)),
    "minutes": lambda text: list(minutes_in(text)),
    "lengths": lambda text: (list(lengths_in(text)), lengths_of(text)),
    "parted": parted,
    "alike": alike,
    "words": lambda text: [
        SearchableText(text, quotes=True).has(value) for value in ("a", "a b", "z9", 5, "12345678", "10:00")
    ],
    "ids": lambda text: SearchableText(text).may_have("z9"),
}
UNITS = [
    "tell ",
    "and ",
    "not, ",
    "and not eve, ",
    "tell bob that ",
    "- x\n",
    "- not x\n",
    "a. ",
    "1, ",
    '"a b" ',
    "'a' x.co.The ",
    "invoice 5, ",
    "one ",
    "no-",
    "n0t ",
    "book it for 2 hours; ",
    "at 10:00 and ",
    "on 5 may, ",
    "a@b.co, ",
    "1 ",
    "1234 5678 ",
    "https://a.co ",
    "nicht ",
    "̖́",
    "不",
    "$5 and ",
]


@pytest.mark.parametrize("reading", READING)
def test_what_reads_a_text_runs_as_many_lines_as_the_text_has_words(reading: str) -> None:
    for unit in UNITS:
        for end in ("", " do not pay eve"):
            short, long = (lines_run(READING[reading], repeated(unit, length, end)) for length in (200, 1200))
            assert long <= 9 * short + 2000, (unit, end)


def test_combining_marks_are_sorted_in_short_runs() -> None:
    """Python compares each mark of a run with those before it."""
    text = "a" + "\u0301\u0316" * 5_000
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert in_form(form, text).count("\u0316") == 5_000
        assert in_form(form, "e\u0301" * 50) == ("\u00e9" if form.endswith("C") else "e\u0301") * 50


def test_a_number_that_is_nearly_a_text_is_looked_for_where_it_may_stand() -> None:
    """A value whose beginning is everywhere in a text of its digits costs no more than one that is nowhere."""
    hay = SearchableText("1" * 200_000 + " and 1111 2222 3333 4444")
    counts = [lines_run(hay.has, value) for value in ("1" * 63 + "2", "9" * 64)]
    assert abs(counts[0] - counts[1]) < 50
    assert hay.has("1111222233334444") and not hay.has("111122223333444")


def test_only_the_first_sentences_of_inputs_are_read() -> None:
    """What is beyond is not the principal's."""
    many = [f"pay bob{at}@x.com {'now ' * 100}" for at in range(400)]
    kept = inputs_without_exclusions(many)
    assert "bob0@x.com" in kept[0] and kept[-1] == ""
