"""What two texts whose vectors are close are to each other: the same, two answers to one question, or neither.

Closeness alone cannot tell: of pairs with a cosine of 0.9 or more one in twenty contradict each other, and "Ana's
flight is at 9" is as close to "Ben's flight is at 9" as to "Ana's flight is at 7".  So the words that differ decide,
and where they do not, both texts are kept: one too many is found by nobody's loss, one too few is lost.
"""

from __future__ import annotations

import re
from typing import Literal

from airside.memory.text import STOP_WORDS, normal, stem

Relation = Literal["same", "contradicts", "distinct"]

_TOKEN = re.compile(r"[^\W_]+(?:[.,:/'\u2019-][^\W_]+)*|[^\w\s.,;:!?\"'()\u2018-\u201f]")
"""Words and numbers, and every sign that is no punctuation: -5 is not 5, nor C++ C#."""
_DENYING = """
no not never none nothing nobody cannot can't don't doesn't didn't won't isn't aren't wasn't weren't shouldn't without
stopped cancelled canceled
"""
_NEGATIONS = frozenset(_DENYING.split())
_OPPOSITES = tuple(
    frozenset(pair.split())
    for pair in (
        "on off", "yes no", "true false", "open closed", "enabled disabled", "active inactive", "paid unpaid",
        "allowed forbidden", "approved rejected", "accepted declined", "married divorced", "online offline",
    )
)  # fmt: skip
_ARTICLES = frozenset(("a", "an", "the"))
_NAMING = frozenset(("is", "are", "was", "were", "equals"))
"""After one of these another name answers the same question: "the manager is Priya"; elsewhere both may be so."""

_COUNTING = _NAMING | {
    "at", "to", "in", "on", "by", "from", "until", "has", "due", "costs", "starts", "begins", "ends", "arrives",
    "leaves", "opens", "closes",
}  # fmt: skip
"""After one of these another number does."""

_TAIL = 1
"""Words that may follow the value: "at 9 am"."""


def relation(new: str, old: str) -> Relation:
    """Return what `new` is to `old`, whose vectors are close."""
    ours, theirs = _TOKEN.findall(new), _TOKEN.findall(old)
    ours_low, theirs_low = [t.casefold() for t in ours], [t.casefold() for t in theirs]
    if _stems(ours_low) == _stems(theirs_low):
        return "same"
    denied = [sum(t in _NEGATIONS for t in tokens) for tokens in (ours_low, theirs_low)]
    if sorted(denied) == [0, 1]:
        return "contradicts" if _content(ours_low) == _content(theirs_low) else "distinct"
    if denied[0] != denied[1]:
        return "distinct"
    before, after = _shared(ours_low, theirs_low), _shared(ours_low[::-1], theirs_low[::-1])
    after = min(after, len(ours) - before, len(theirs) - before)
    mine, other = ours[before : len(ours) - after], theirs[before : len(theirs) - after]
    return "contradicts" if _answers(mine, other, ours_low[:before], after) else "distinct"


def _shared(ours: list[str], theirs: list[str]) -> int:
    """Return how many tokens two texts begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))


def _opposed(ours: list[str], theirs: list[str]) -> bool:
    return frozenset(t.casefold() for t in (*ours, *theirs)) in _OPPOSITES


def _answers(ours: list[str], theirs: list[str], before: list[str], after: int) -> bool:
    """Whether the one stretch in which two texts differ holds two values for what stands before it."""
    if len(ours) != len(theirs) or not ours or len(before) < 2 or after > _TAIL:
        return False
    if _opposed(ours, theirs):
        return True
    forms = {_form(t) for t in (*ours, *theirs)}
    return (forms == {"number"} and before[-1] in _COUNTING) or (forms == {"name"} and before[-1] in _NAMING)


def _form(token: str) -> str:
    if any(c.isdigit() for c in token):
        return "number"
    return "name" if token[0].isupper() else "word"


def _stems(tokens: list[str]) -> list[str]:
    """Return the stems of all but the articles, in order: who does what to whom hangs on the small words too."""
    return [t if t in STOP_WORDS else stem(normal(t)) for t in tokens if t not in _ARTICLES]


def _content(tokens: list[str]) -> list[str]:
    """Return the stems that tell something, in order; a negation is told apart, and counts as nothing here."""
    return [stem(normal(t)) for t in tokens if t not in STOP_WORDS and t not in _NEGATIONS]
