"""A text as it is compared: its words in order, and of each what it is: a number, a day, a name, an opposite."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from airside.memory.comparison.languages import (
    LABELS,
    LANGUAGES,
    MARKS,
    SPACED,
    TITLES,
    UNITS,
    Vocabulary,
    word_set,
)
from airside.memory.text import stem, visible

Kind = Literal[
    "common", "changing", "denying", "unit", "word", "name", "label number", "number", "weekday", "month", "choice"
]

TELLING = frozenset(("word", "name", "label number"))
"""What a text is about; beside it stand values."""

VALUES = frozenset(("number", "weekday", "month", "choice"))

MAX_TOKENS = 120
"""Words from which on two texts are the same or not, and nothing else: they are no single statement any more."""

KEPT_CHARACTERS, _KEPT = 400, 4096
_MAX_NUMBER = 64

_SIGNS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_LETTER = rf"(?![{_SIGNS}])[^\W_]"
_TOKEN = re.compile(
    rf"[{_SIGNS}]|(?<!{_LETTER})\.\d[\d.,]*(?<=\d)|(?:{_LETTER})+(?:[.,:/'^-](?:{_LETTER})+)*"
    r"|[^\w\s.,;:!\"'()\u2018-\u201f\u2026\u3001-\u3003\u3008-\u3011\u00a1\u00bf\u00ab\u00bb]"
)
"""Words and numbers, and every sign that is no punctuation: -5 is not 5, .5 neither, nor C++ C#."""

_APOSTROPHES = re.compile("[\u2018\u2019\u02bc\u2032`\u00b4](?=\\w)")
_ELIDED = re.compile(r"(?:l|d|j|m|t|s|c|n|qu|un|dell|all|nell|dall|sull|dov)'(?=\w)")
_POSSESSIVE = re.compile(r"(?<=\w)'s?\Z")
_NOT = "n't"
_ARTICLES = frozenset(("a", "an", "the"))
_OF_SEVERAL = word_set("a an some one another there ein eine un une una uno een um uma")
_BEING = frozenset(("is", "are", "was", "were", "be", "been", "being"))
_HIRAGANA = re.compile(r"[\u3041-\u309f]")
_KANA = re.compile(r"[\u3041-\u30ff]")
_IDEOGRAPH = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_ZEROS = re.compile(r"(?<=\d)[:.,]0+\Z")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th|er|\u00ba|\u00aa)\Z")
_NO_PLURALS = word_set(
    "news goods customs arms glasses works means looks spirits savings earnings proceedings manners waters woods"
    " contents damages forces funds grounds papers quarters securities stocks terms premises series species physics"
    " lens gas bus always perhaps this his yes was has does plus less"
)
"""Words that mean something else without their s, or that have none to lose."""


class Token(NamedTuple):
    """A word: as it is written in lower case, what it counts as, and what it is."""

    word: str
    key: str
    kind: Kind


class Reading(NamedTuple):
    """A text read.

    `tokens` are all of its words but the articles, `singular` the same with English nouns in the singular.  `denials`
    are counted; `linked_at` is the first token that links what the text is about to what it says of it.  `many` are the
    words after which there may be several answers, and `subject` whom it is about, where it begins with a name;
    `is_of_several` = it begins as what is one of several does: a train leaves at 7.
    """

    tokens: tuple[Token, ...]
    singular: tuple[str, ...]
    language: str
    denials: int
    linked_at: int
    many: frozenset[str]
    subject: str
    is_of_several: bool

    @property
    def vocabulary(self) -> Vocabulary:
        """The words of its language."""
        return LANGUAGES[self.language]

    @property
    def words(self) -> tuple[str, ...]:
        """Its words."""
        return tuple(token.word for token in self.tokens)

    @property
    def is_long(self) -> bool:
        """Whether it is too long to be one statement."""
        return len(self.tokens) > MAX_TOKENS


def read(text: str, language: str = "") -> Reading:
    """Read a text, in this language, else in the one it seems to be in; short ones are remembered."""
    return _read_short(text, language) if len(text) <= KEPT_CHARACTERS else _read(text, language)


def read_both(one: str, other: str) -> tuple[Reading, Reading]:
    """Read two texts in one language."""
    first, second = read(one), read(other)
    if first.language == second.language:
        return first, second
    language = _language([token.word for token in (*first.tokens, *second.tokens)])
    return read(one, language), read(other, language)


def forget_readings() -> None:
    """Forget which texts were read."""
    _read_short.cache_clear()


def _read(text: str, language: str) -> Reading:
    written = _TOKEN.findall(_APOSTROPHES.sub("'", visible(text)))
    last = len(written) - 1
    forms = [f for at, f in enumerate(written) if f.casefold() not in _ARTICLES and (f != "?" or at == last)]
    low = [form.casefold() for form in forms]
    if len(forms) > MAX_TOKENS:
        tokens = tuple(Token(word, word, "word") for word in low)
        return Reading(tokens, tuple(map(_without_s, low)), "en", 0, 0, frozenset(), "", False)
    language = language or _language(low)
    words = LANGUAGES[language]
    small = words.common - TITLES
    has_names = language != "de" and not any(form[0].isupper() and form.casefold() in small for form in forms[1:])
    tokens = tuple(_token(forms, low, at, language, has_names=has_names) for at in range(len(low)))
    linked_at = next((at for at, word in enumerate(low) if at and word in words.linking), len(low))
    return Reading(
        tokens=tokens,
        singular=tuple(_singular(form, word, language) for form, word in zip(forms, low, strict=True)),
        language=language,
        denials=_denials(low, language),
        linked_at=linked_at,
        many=_many(written, low, language),
        subject=_subject(written, language),
        is_of_several=bool(written) and written[0].casefold() in _OF_SEVERAL,
    )


_read_short = lru_cache(maxsize=_KEPT)(_read)


def _language(low: Sequence[str]) -> str:
    """Return the language of which a text has the most words that tell nothing; of none for sure, English."""
    joined = "".join(low)
    if _KANA.search(joined):
        return "ja"
    if _IDEOGRAPH.search(joined):
        return "zh"
    known = set(low)
    return max(SPACED, key=lambda name: len(known & MARKS[name]))


def _denials(low: Sequence[str], language: str) -> int:
    denying = LANGUAGES[language].denying
    if language not in SPACED:
        return sum("".join(low).count(each) for each in denying)
    found = [word for word in low if word in denying or word.endswith(_NOT) or word.startswith("n'")]
    return min(1, len(found)) if language == "fr" else len(found)  # ne ... pas is one


def _many(written: Sequence[str], low: Sequence[str], language: str) -> frozenset[str]:
    words = LANGUAGES[language]
    if language not in SPACED:
        return frozenset(each for each in words.many if each in "".join(low))
    found = {word for at, word in enumerate(low) if word in words.many and not _is_passive(low, at)}
    lower = [form.casefold() for form in written]
    pairs = list(itertools.pairwise(lower))
    if any(a in words.having and b in words.one for a, b in pairs):
        found.add("having")
    found |= {" ".join(pair) for pair in pairs if pair in words.phrases}
    if language == "en":  # what somebody did may be done again: the lab counted
        found |= {
            word for before, word in pairs if _is_past(word) and before not in words.common and before not in _BEING
        }
    return frozenset(found)


def _is_past(word: str) -> bool:
    return len(word) > 4 and word.endswith("ed") and word not in _NO_PAST


def _is_passive(low: Sequence[str], at: int) -> bool:
    """Whether something is said to have been done, and not by whom: the parcels are delivered."""
    return low[at].endswith(("ed", "t")) and not _BEING.isdisjoint(low[max(0, at - 2) : at])


_NO_PAST = word_set(
    "based located need speed hundred indeed moved changed switched updated planned scheduled closed called named"
)
_HONOURED = re.compile(r"\A(\w{1,6}?)(?:\u5148\u751f|\u5973\u58eb|\u5c0f\u59d0|\u3055\u3093|\u69d8|\u6c0f)")


def _subject(written: Sequence[str], language: str) -> str:
    """Return whom a text is about, if it begins with a name; nothing where that is unclear."""
    if language not in SPACED:
        found = _HONOURED.match("".join(written))
        return found[1] if found else ""
    low = [form.casefold() for form in written[:3]] + ["", "", ""]
    if low[0] in TITLES or low[1] in TITLES:
        return low[1] if low[0] in TITLES else low[2]
    words = LANGUAGES[language]
    if low[0] in words.pronouns:
        return low[0]
    if not written or not written[0][0].isupper() or low[0] in words.common or low[0] in _ARTICLES:
        return ""
    if _POSSESSIVE.search(low[0]):
        return _POSSESSIVE.sub("", low[0])
    is_plural = language == "en" and low[0].endswith("s")
    follows = low[1] in words.linking or low[1] in words.many
    return low[0] if follows and language != "de" and not is_plural else ""


# What words are compared as.


def unelided(word: str) -> str:
    """Return a French or Italian word without what was drawn to it: l'ufficio, n'accepte."""
    return _ELIDED.sub("", word)


def _singular(form: str, word: str, language: str) -> str:
    """Return an English noun in the singular; what may be a name stays: Andrews is not Andrew."""
    may_be_name = form[0].isupper() and word not in LANGUAGES["en"].weekdays
    return word if may_be_name or language != "en" else _without_s(word)


def _without_s(word: str) -> str:
    """Return a noun without its plural, a verb without its third person's s."""
    if len(word) < 4 or not word.endswith("s") or word in _NO_PLURALS or word.endswith(("ss", "us", "is", "'s")):
        return word
    if any(char.isdigit() for char in word):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "zes", "sses")) else word[:-1]


def _token(forms: Sequence[str], low: Sequence[str], at: int, language: str, *, has_names: bool) -> Token:
    """Return what one word is; `has_names` = those with a capital are names."""
    form, word, words = forms[at], low[at], LANGUAGES[language]
    base = unelided(word) if language in ("fr", "it") else word
    if word.endswith(_NOT) or base in words.denying:
        return Token(word, word, "denying")
    if word == "?" or (language == "ja" and _HIRAGANA.match(base)):
        return Token(word, word, "common")
    is_name = has_names and at > 0 and form[0].isupper()
    found = _value(base, low, at, language, is_capital=form[0].isupper(), is_name=is_name)
    if found is not None:
        return found
    if base in words.changing:
        return Token(word, word, "changing")
    if base in words.common:
        return Token(word, word, "common")
    if language not in SPACED:
        return Token(word, base, "word")
    return Token(word, stem(_POSSESSIVE.sub("", base)), "name" if is_name else "word")


def _value(word: str, low: Sequence[str], at: int, language: str, *, is_capital: bool, is_name: bool) -> Token | None:
    """Return what is a value by itself: a number, a unit, a day, a month, one of several that exclude each other."""
    if word in UNITS:
        return Token(low[at], word, "unit")
    number = _number(word, language)
    if number is not None:
        return Token(low[at], number, "label number" if _is_label(low, at) else "number")
    words = LANGUAGES[language]
    weekday, month = words.weekdays.get(word), words.months.get(word)
    if weekday is not None:
        return Token(low[at], f"weekday {weekday}", "weekday")
    if month is not None and (language not in ("en", "de") or is_capital):
        return Token(low[at], f"month {month}", "month")
    return Token(low[at], word, "choice") if word in words.choices and not is_name else None


def _number(word: str, language: str) -> str | None:
    """Return one form of a number in digits or words; None for what is none."""
    if any(char.isdigit() for char in word):
        if len(word) > _MAX_NUMBER:
            return word
        plain = _ORDINAL.sub(r"\1", word)
        return re.sub("[.,]", "", plain) if _GROUPED.fullmatch(plain) else _ZEROS.sub("", plain)
    return LANGUAGES[language].numbers.get(word)


def _is_label(low: Sequence[str], at: int) -> bool:
    """Whether a number names a thing: invoice 17, order no. 4, #12."""
    before = low[max(0, at - 4) : at]
    if not before or before[-1] in LABELS or before[-1] == "#":
        return bool(before)
    return len(before[-1]) == 1 and "".join(before).endswith(_SIGNED_LABELS)


_SIGNED_LABELS = tuple(label for label in LABELS if not _TOKEN.fullmatch(label))
