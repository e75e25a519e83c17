"""What of a text counts: one normal form, by which two texts are the same, and the stems by which they are compared.

The terms by which a text is found, in its own language, are those of `search/vocabulary.py`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

from airside.stack.text.forms import in_form

MAX_QUERY_CHARACTERS = 2_000
"""A longer query is cut: the embedder reads some 1,000 characters, and a request is not a document."""

MAX_WORD = 64
"""Characters of a word that count: longer ones are no words, and would be kept in RAM as such."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_ELIDED = frozenset(("all", "dall", "dell", "jusqu", "lorsqu", "nell", "puisqu", "quest", "quell", "sull", "un"))
"""What stands before an apostrophe in French and Italian, longer than two letters, and tells nothing."""

_LOWERED = re.compile(r"(?<=\d)[\u2080-\u2089]+")
_FRACTION = re.compile(r"(?<=\d)[\u00bc-\u00be\u2150-\u215e]")

ENGLISH = "english"

_COMMON = """
a an and are as at be been being but by can could did do does doing for from had has have having he her hers him his how
i if in into is it its me my of on or our ours she should so than that the their them then there these they this those
to too was we were what when where which who whom whose why will with would you your yours
"""
STOP_WORDS = frozenset(_COMMON.split())
"""Words so common that they tell nothing about what a text is about."""


def visible(text: str) -> str:
    """Return what a reader sees: look-alikes of Unicode folded, invisible characters dropped, space even.

    What stands higher or lower than a number stays apart: 10\u2076 is 10^6 and not 106, 1\u00bd is 1 1/2.
    """
    if not text.isascii():
        text = _LOWERED.sub(r"_\g<0>", _raised().sub(r"^\g<0>", text))
        folded = in_form("NFKC", _FRACTION.sub(r" \g<0>", text))
        text = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return " ".join(text.split())


def normal(text: str) -> str:
    """Return a text's normal form, by which two are the same: what is visible of it, in lower case."""
    return visible(text).casefold() if text else text


@lru_cache(maxsize=1)
def _raised() -> re.Pattern[str]:
    """Return what matches a run of superscripts."""
    raised = "".join(chr(code) for code in range(0x80, 0x3200) if _form_of(chr(code)) == "<super>")
    return re.compile(f"[{re.escape(raised)}]+")


def _form_of(char: str) -> str:
    return unicodedata.decomposition(char).partition(" ")[0]


def words(text: str) -> list[str]:
    """Return the words of a text, in order, normal; those of a script without blanks are found by a dictionary."""
    even = normal(text)
    if text.isascii():
        return _WORD.findall(even)
    even = even.replace("^", "")  # m\u00b2 is found by m2
    if even.isascii():
        return _WORD.findall(even)
    found = []
    for piece in _breaker()(even, "root"):
        if piece.isascii():
            found += _WORD.findall(piece)
        elif any(map(str.isalnum, piece)):
            found.append(piece)
    return found


def stems(text: str) -> list[str]:
    """Return the English stems of a text's words that tell something, in order, repeated as they are."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def named_stems(text: str) -> list[str]:
    """Return the stems of what a text calls by name, as `capitalised` has it."""
    return [stem(word) for word in capitalised(text) if word not in STOP_WORDS]


def capitalised(text: str) -> list[str]:
    """Return the words of a text with digits, and those with a capital, but for the first; in order, normal."""
    found = _WORD.findall(in_form("NFKC", text))
    names = [word for at, word in enumerate(found) if (at and word[0].isupper()) or any(map(str.isdigit, word))]
    return [word.casefold() for word in names]


def bare(word: str) -> str:
    """Return a word without what an apostrophe parts from it: "l'" in front, or "'s" behind."""
    if "'" not in word and "\u2019" not in word:
        return word
    before, after = word.replace("\u2019", "'").split("'", 1)
    return after if before in _ELIDED or len(before) <= 2 < len(after) else before


def stem(word: str, language: str = ENGLISH) -> str:
    """Return a word's stem in a language, by its Snowball name; English leaves most of other languages' as they are."""
    return _stem(word[:MAX_WORD], language)


def forget_words() -> None:
    """Forget which words were stemmed."""
    _stem.cache_clear()


@lru_cache(maxsize=50_000)
def _stem(word: str, language: str) -> str:
    stemmed: str = _stemmer(language).stemWord(bare(word))
    return stemmed


@lru_cache(maxsize=1)
def _breaker() -> Any:
    from icu4py.breakers import WordBreaker

    return WordBreaker


@lru_cache(maxsize=16)
def _stemmer(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(language, 0)  # without a cache of its own, in which words would outlive `forget_words`
