"""The words by which texts are compared: `languages.yaml`, read once."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import Any

import yaml

Words = frozenset[str]


def word_set(words: str) -> Words:
    """Return the words of a list."""
    return frozenset(words.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """One language's words, in lower case; what each list is for stands at the head of the file."""

    pronouns: Words
    common: Words
    changing: Words
    denying: Words
    linking: Words
    counting: Words
    many: Words
    phrases: frozenset[tuple[str, ...]]
    having: Words
    one: Words
    weekdays: dict[str, int]
    months: dict[str, int]
    numbers: dict[str, str]
    opposites: tuple[Words, ...]
    choices: Words

    @property
    def marks(self) -> Words:
        """The words by which its language is known."""
        values = {*self.weekdays, *self.months, *self.numbers}
        return self.pronouns | self.common | self.changing | self.denying | self.linking | values


def _vocabulary(lists: dict[str, str]) -> Vocabulary:
    words = {name: word_set(lists.get(name, "")) for name in Vocabulary.__dataclass_fields__}
    opposites, choices = (tuple(map(word_set, lists.get(name, "").split(","))) for name in ("opposites", "choices"))
    days, months, numbers = (lists.get(name, "").split() for name in ("weekdays", "months", "numbers"))
    ordered: dict[str, Any] = {
        "weekdays": {word: at for at, names in enumerate(days) for word in names.split("|")},
        "months": {word: at for at, word in enumerate(months)},
        "numbers": {word: str(at) for at, word in enumerate(numbers) if word != "-"},
        "opposites": opposites,
        "phrases": frozenset(tuple(each.split()) for each in lists.get("phrases", "").split(",")),
        "choices": frozenset[str]().union(*opposites, *choices),
    }
    return Vocabulary(**{**words, **ordered})


_LISTS: dict[str, dict[str, str]] = yaml.safe_load(
    (importlib.resources.files(__package__) / "languages.yaml").read_text("utf-8")
)
_ALL = _LISTS.pop("all")
LABELS, UNITS, TITLES = (word_set(_ALL[name]) for name in ("labels", "units", "titles"))
LANGUAGES = {name: _vocabulary(lists) for name, lists in _LISTS.items()}
SPACED = {name: words for name, words in LANGUAGES.items() if name not in ("zh", "ja")}
"""The languages that part their words by spaces; a text that is none's for sure is read as English, the first."""

MARKS = {name: words.marks for name, words in SPACED.items()}
"""The words by which each of them is known."""
