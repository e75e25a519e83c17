"""What of a text tells something: what only greets, offers, refuses, asks, guesses or reports nothing is passed over.

The phrases stand in `speech_acts.yaml`.  Whatever is left must have words that inform; else the text is refused with
the code of what it is.  A guess and a question take their sentence with them, a greeting only its own clause.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from airside.memory.text import normal, words
from airside.memory.writing.phrases import PhraseTable, Reader, Reading, folded, load_table
from airside.stack.reasons import MemoryCode

_SENTENCE_END = re.compile(
    r"(?<=[.!?\u2026\u0964\u061f])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])|[\n\r\u2028\u2029]+"
)
_CLAUSE_END = re.compile(r"[,;:\uff0c\u3001\uff1b\uff1a]")
_ENDING = re.compile("[\u3041-\u309f]{1,2}")
"""What Japanese ends words with, and what binds them."""

_ASKS = re.compile(r"[?\uff1f\u061f\u037e]\W*\Z")
_QUOTES = re.compile(r"[?\uff1f]\s*[\"'\u201d\u2019\u300d\u00bb]\W*\Z")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
MIN_WORDS = 2
"""One of a subject and one of what is said of it: "rent" and "900", "allergic" and "latex"."""

_KEYBOARD = "qwertyuiop qwertzuiop azertyuiop asdfghjkl qsdfghjklm zxcvbnm yxcvbnm wxcvbn"
_KEYS_IN_A_ROW = f"{_KEYBOARD} {_KEYBOARD[::-1]}"

_CODES = {
    "courtesy": MemoryCode.COURTESY,
    "offer": MemoryCode.OFFER,
    "promise": MemoryCode.OFFER,
    "no_answer": MemoryCode.NO_ANSWER,
    "question": MemoryCode.QUESTION,
    "hedge": MemoryCode.GUESS,
    "acknowledgement": MemoryCode.ACKNOWLEDGEMENT,
    "no_result": MemoryCode.NO_RESULT,
    "error_text": MemoryCode.ERROR_TEXT,
    "boilerplate": MemoryCode.MACHINE_TEXT,
}


class Said(NamedTuple):
    """What a text tells: the words that inform, those that do beside one of them, and why the rest was passed over."""

    informing: set[str]
    helping: set[str]
    passed_over: MemoryCode | None

    @property
    def is_something(self) -> bool:
        """Whether it tells something: of a subject, something else."""
        return bool(self.informing) and len(self.informing) + len(self.helping) >= MIN_WORDS


def what_is_said(text: str, reader: Reader | None = None) -> Said:
    """Return what of a text tells something."""
    reader = reader or Reader()
    told: set[str] = set()
    code: MemoryCode | None = None
    for sentence in _SENTENCE_END.split(text):
        if sentence.strip():
            found, label = _sentence(sentence, reader)
            told.update(found)
            code = code or (_CODES[label] if label else None)
    talk = _words_in("talk_words.yaml")
    helping = {word for word in told if word in talk or any(map(str.isdigit, word))}
    return Said(told - helping, helping, code)


def _sentence(sentence: str, reader: Reader) -> tuple[list[str], str | None]:
    """Return the words of a sentence that inform, and what was passed over."""
    reading = reader.read(folded(sentence))
    label = _table("sentence").label(reading) or _found_anywhere("sentence", sentence)
    if label is None and _ASKS.search(sentence) and not _QUOTES.search(sentence):
        label = "question"
    if label is not None:
        return [], label
    if not sentence.isascii() and _UNSPACED.search(sentence):
        return _clauses(sentence)
    rest, opened = _table("words").without(reading)
    rest, passed = _table("clause").without(rest, to_clause_end=True)
    return _informing(rest), opened or passed


def _clauses(sentence: str) -> tuple[list[str], str | None]:
    """Return the same of a sentence that is written without blanks."""
    found: list[str] = []
    label = None
    for clause in _CLAUSE_END.split(sentence):
        passed = _found_anywhere("clause", clause)
        label = label or passed
        if passed is None:
            found += [word for word in words(clause) if _tells(word)]
    return found, label


def _informing(reading: Reading) -> list[str]:
    return [word for word in reading.text.split() if word != "," and _tells(word)]


def _tells(word: str) -> bool:
    """Whether a word is more than grammar."""
    is_grammar = word in _grammar() or (not word.isascii() and _ENDING.fullmatch(word))
    return not is_grammar and not _typed(word)


def _typed(word: str) -> bool:
    """Whether somebody ran his fingers along a row of keys."""
    return len(word) >= 4 and word in _KEYS_IN_A_ROW


def _found_anywhere(scope: str, text: str) -> str | None:
    if text.isascii() or not _UNSPACED.search(text):
        return None
    even = normal(text)
    return next((label for label, pattern in _anywhere(scope) if pattern.search(even)), None)


# Tables, each made once.


@cache
def _table(scope: str) -> PhraseTable:
    """Return the phrases that take so much with them."""
    acts = load_table("speech_acts.yaml")
    return PhraseTable({label: act[scope] for label, act in acts.items() if scope in act})


@cache
def _anywhere(scope: str) -> list[tuple[str, re.Pattern[str]]]:
    acts = load_table("speech_acts.yaml")
    return [
        (label, re.compile("|".join(act["anywhere"])))
        for label, act in acts.items()
        if scope in act and "anywhere" in act
    ]


@cache
def _grammar() -> frozenset[str]:
    return _words_in("stop_words.yaml") - _words_in("talk_words.yaml")


@cache
def _words_in(name: str) -> frozenset[str]:
    every = " ".join(load_table(name).values())
    return frozenset(every.split()) | frozenset(folded(every).split())
