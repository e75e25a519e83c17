"""Phrases: how tables say what people say, in words, and how a text is searched for them.

A text is read as its words, folded (`privacy/confusables.py`), in lower case, with a comma for every sign between two
clauses.  A phrase is elements with blanks between them:

    a|b_c|d*|*e     one of these words; `b_c` is two; `d*` begins so, `*e` ends so; `#` is a number; `@name` is a class
    ...?            an element that may be left out
    ~2 and ~~2      up to so many other words; the second may run over into the next clauses
    !a|b            not followed by one of these
    ^ and $ and ,   the begin and the end of a clause, and from one to the next; `^^` is the begin of all

Most phrases need words that most texts have not, so each is looked for only where all it needs are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from airside.memory.privacy.confusables import fold_confusables

_TOKEN = re.compile(
    r"[^\W_]+|(?<!\w)[@.#$%&/]|[@.#$%&/](?!\w)|[,:](?!\d)|(?<!\d)[,:]|[^\w\s'`\u00b4*~+@.#$%&/,:-]|(?<=\s)-+(?=\s)|\n"
)
_APOSTROPHE = re.compile(r"['`\u00b4]")
_CLASS = re.compile(r"@(\w+)")
_ANY_NUMBER = 30
_COMMON_FROM = 12
"""An element with so many words is no good key: too many texts have one of them."""

_EVERYWHERE = """
a an and are as at be by can de der die do does en es i ich il in is it la le me my no non not of on or que se sie so
that the these this to tu un una und we what will you your
"""
_VERY_COMMON = frozenset(_EVERYWHERE.split())


class Reading(NamedTuple):
    """A text as phrases see it: its words with a comma between clauses, and the set of them."""

    text: str
    words: frozenset[str]

    @property
    def clauses(self) -> list[str]:
        """Return the words of each clause."""
        return [clause for clause in self.text.split(",") if not clause.isspace()]


def folded(text: str) -> str:
    """Return a text without case, and as a person reads it."""
    return text.casefold() if text.isascii() else fold_confusables(text.casefold()).casefold()


def read(text: str) -> Reading:
    """Return a folded text as phrases see it."""
    return reading_of(_TOKEN.findall(_APOSTROPHE.sub(" ", text)))


class Reader:
    """Reads a text once for all who look at it: of one candidate, and no longer than it is looked at."""

    def __init__(self) -> None:
        self._read: dict[str, Reading] = {}

    def read(self, text: str) -> Reading:
        """Return a folded text as phrases see it."""
        found = self._read.get(text)
        if found is None:
            found = self._read[text] = read(text)
        return found


def reading_of(tokens: Iterable[str]) -> Reading:
    """Return tokens as phrases see them; what is no word ends a clause."""
    marked = [token if token[0].isalnum() else "," for token in tokens]
    return Reading(f" , {' '.join(marked)} , ", frozenset(marked))


class Phrase:
    """One phrase: what it is looked for as, and where."""

    def __init__(self, phrase: str, classes: Mapping[str, str]) -> None:
        self._elements = [_expanded(element, classes) for element in phrase.split()]
        self._compiled: re.Pattern[str] | None = None

    @property
    def needs(self) -> list[frozenset[str]]:
        """Return sets of words, the least common ones first: every text that has the phrase has a word of each."""
        return sorted(filter(None, map(_keys, self._elements)), key=_commonness)

    @property
    def pattern(self) -> re.Pattern[str]:
        """Return what finds it in a reading."""
        if self._compiled is None:
            begin = r"\A " if self._elements[0] == "^^" else " "
            self._compiled = re.compile(begin + "".join(map(_pattern, self._elements)))
        return self._compiled


class PhraseTable:
    """Phrases with labels: which label's is the first of the table that a text has."""

    def __init__(self, phrases: Mapping[str, Iterable[str]], classes: Mapping[str, str] | None = None) -> None:
        self._by_word: dict[str, list[int]] = {}
        self._phrases: list[tuple[str, Phrase]] = []
        self._needs: list[list[frozenset[str]]] = []
        self._keyless: list[int] = []
        for label, each in phrases.items():
            for text in each:
                self._add(label, Phrase(text, classes or {}))

    def _add(self, label: str, phrase: Phrase) -> None:
        number = len(self._phrases)
        self._phrases.append((label, phrase))
        first, *others = phrase.needs or [frozenset[str]()]
        self._needs.append(others)
        for word in first:
            self._by_word.setdefault(word, []).append(number)
        if not first:
            self._keyless.append(number)

    def _possible(self, reading: Reading) -> Iterator[tuple[str, Phrase]]:
        """Yield the phrases of whose needs a reading has a word each, in the table's order."""
        words = reading.words
        found = {*self._keyless, *(n for word in words & self._by_word.keys() for n in self._by_word[word])}
        for number in sorted(found):
            if not any(map(words.isdisjoint, self._needs[number])):
                yield self._phrases[number]

    def label(self, reading: Reading) -> str | None:
        """Return the label of a phrase that is there, None if none is."""
        return next((label for label, phrase in self._possible(reading) if phrase.pattern.search(reading.text)), None)

    def without(self, reading: Reading, *, to_clause_end: bool = False) -> tuple[Reading, str | None]:
        """Return a reading without the phrases that are there, and the label of one of them."""
        text, found = reading.text, None
        for label, phrase in self._possible(reading):
            at = 0
            while (match := phrase.pattern.search(text, at)) is not None:
                end = text.index(",", match.end() - 1) if to_clause_end else match.end()
                text = f"{text[: match.start()]} , {text[end:]}"
                at, found = match.start() + 2, found or label
        return (reading, None) if found is None else (Reading(text, frozenset(text.split())), found)


@cache
def load_table(name: str) -> dict[str, Any]:
    """Return one of the tables beside this module."""
    loaded: dict[str, Any] = yaml.safe_load(files("airside.memory.writing").joinpath(name).read_text("utf-8"))
    return loaded


def _expanded(element: str, classes: Mapping[str, str]) -> str:
    return _CLASS.sub(lambda match: "".join(classes[match[1]].split()), element)


def _words(alternatives: str) -> list[str]:
    """Return the words that an element is one of, folded as texts are."""
    return [word for word in (" ".join(folded(each).split("_")) for each in alternatives.split("|")) if word]


def _keys(element: str) -> frozenset[str]:
    """Return words one of which is in every text that has an element; none if there are no such words."""
    if element[0] in "^$~!," or element.endswith("?") or "*" in element or "#" in element:
        return frozenset()
    words = _words(element)
    return frozenset() if "$" in words else frozenset(min(word.split(), key=_rareness) for word in words)


def _rareness(word: str) -> tuple[bool, int]:
    return word in _VERY_COMMON, -len(word)


def _commonness(words: frozenset[str]) -> tuple[int, int]:
    return len(words & _VERY_COMMON), len(words) // _COMMON_FROM


def _pattern(element: str) -> str:
    if element.startswith("~"):
        most = element.strip("~") or _ANY_NUMBER
        return f"(?:(?:, )?[^ ,]+ ){{0,{most}}}?(?:, )?" if element.startswith("~~") else f"(?:[^ ,]+ ){{0,{most}}}?"
    if element in ("^", "^^", ","):
        return ", "
    if element.startswith("!"):
        return f"(?!{_one_of(element[1:])})"
    return f"{_one_of(element[:-1])}?" if element.endswith("?") else _one_of(element)


def _one_of(alternatives: str) -> str:
    return f"(?:{'|'.join(map(_alternative, _words(alternatives)))})"


def _alternative(word: str) -> str:
    if word == "$":
        return "(?=, )"
    if word == "#":
        return r"\d+ "
    return re.escape(word).replace(r"\*", "[^ ,]*").replace(r"\ ", " ") + " "
