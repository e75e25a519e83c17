"""What two texts are to each other.  The words that differ decide, for closeness alone cannot tell.

Of pairs with a cosine of 0.9 or more one in twenty contradict each other, and "Ana's flight is at 9" is as close to
"Ben's flight is at 9" as to "Ana's flight is at 7".  Where the words do not tell for sure, both texts are kept: one too
many is found by nobody's loss, one too few is lost.  What is sure is little: one stretch differs, it is a number, a
name or one of two opposites, and it stands where there can be but one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from airside.memory.comparison.languages import word_set
from airside.memory.comparison.reading import KEPT_CHARACTERS, TELLING, VALUES, Reading, Token, read_both
from airside.memory.text import stem

Relation = Literal["same", "contradicts", "varies", "distinct", "unlike"]
"""The same; for sure another answer; perhaps another answer; of different things, or both so; too different to tell."""

_ALIKE, _ALIKE_AND_CHANGED = 0.5, 0.3
"""Share of the words that two texts about one matter have in common (Dice's coefficient); one that says of itself that
something changed ("moved to", "no longer") need not repeat as much."""

_TAIL = 4
"""Words that may follow the value: at 9 am on Mondays."""

_BEING = word_set("is are was were equals ist sind est sont es son est\u00e1 est\u00e1n \u00e8 sono \u00e9 s\u00e3o")
"""After one of these another name answers the same question: "the manager is Priya"; elsewhere both may be so."""

_PAST = frozenset(("was", "were"))
_AT = word_set("at in on by to from until within um bis \u00e0 a las alle om tot \u00e0s at\u00e9")
_DATED = word_set("due starts begins ends expires")
_STAYING = word_set("is lives located based resides stays sits")
_PEOPLES = tuple(word_set("ish ese ian ean ic ist can man swiss dutch french greek czech thai muslim"))
"""What ends so may be said beside another: she is Swiss, and Catholic."""

_SMALL = frozenset(("common", "changing", "denying"))
_AUXILIARIES = word_set("do does did is are was were be has have had will would can could any more there it")
"""What a denial may bring along, or take the place of."""

_WITHOUT = word_set("without ohne sans sin senza zonder sem")
_NOTATIONS = (
    re.compile(r"\d+"),
    re.compile(r"\d{1,3}(?:,\d{3})+"),
    re.compile(r"\d+[.,]\d{1,2}"),
    re.compile(r"\d{1,2}:\d\d"),
)
_HALF_A_DAY, _DAY = 12, 24


class _Difference(NamedTuple):
    """What two texts share and what only one has: words that tell something, and values."""

    shared: int
    words: tuple[list[int], list[int]]
    values: tuple[list[int], list[int]]

    @property
    def likeness(self) -> float:
        """Dice's coefficient of the words."""
        return 2 * self.shared / max(1, 2 * self.shared + sum(map(len, self.words)))


def relation(new: str, old: str) -> Relation:
    """Return what `new` is to `old`."""
    ours, theirs = read_both(new, old)
    sure = _sure(ours, theirs)
    if sure is not None:
        return sure
    difference = _difference(ours, theirs)
    if _both_hold(ours, theirs, difference):
        return "distinct"
    return "varies" if _vary(ours, theirs, difference) else "unlike"


def sure_relation(new: str, old: str) -> Relation | None:
    """Return what `new` is to `old` where one look at their words tells, as it tells "same" and "contradicts"; or None.

    It costs a fraction of what the rest does, which says how those are unlike that are neither.
    """
    return _sure(*read_both(new, old))


def _sure(ours: Reading, theirs: Reading) -> Relation | None:
    if _are_same(ours, theirs):
        return "same"
    if ours.is_long or theirs.is_long:
        return "unlike"
    if _are_different_matters(ours, theirs):
        return "distinct"
    return "contradicts" if _exclude_each_other(ours, theirs) else None


def is_other_value(new: str, old: str) -> bool:
    """Whether two texts say alike things, and each something of its own in the place of what the other does.

    Of long texts it is never so: they are no single statements, and a search does not wait for them to be read.
    """
    if max(len(new), len(old)) > KEPT_CHARACTERS:
        return False
    ours, theirs = read_both(new, old)
    if _are_same(ours, theirs) or ours.is_long or theirs.is_long:
        return False
    return _vary(ours, theirs, _difference(ours, theirs))


def has_same_stems(one: str, other: str) -> bool:
    """Whether two texts have the same words in the same order, however they are inflected."""
    first, second = read_both(one, other)
    return _are_same(first, second) or [*map(stem, first.words)] == [*map(stem, second.words)]


def _are_same(ours: Reading, theirs: Reading) -> bool:
    return ours.words == theirs.words or ours.singular == theirs.singular


# Alike, and different.


def _difference(ours: Reading, theirs: Reading) -> _Difference:
    words, values = (
        [Counter(t.key for t in each.tokens if t.kind in kinds) for each in (ours, theirs)]
        for kinds in (TELLING, VALUES)
    )
    return _Difference(
        (words[0] & words[1]).total(),
        (_only(ours, words[0] - words[1], TELLING), _only(theirs, words[1] - words[0], TELLING)),
        (_only(ours, values[0] - values[1], VALUES), _only(theirs, values[1] - values[0], VALUES)),
    )


def _only(reading: Reading, keys: Counter[str], kinds: frozenset[str]) -> list[int]:
    return [at for at, token in enumerate(reading.tokens) if token.kind in kinds and token.key in keys]


def _vary(ours: Reading, theirs: Reading, difference: _Difference) -> bool:
    if not difference.shared:
        return False
    has_changed = any(token.kind == "changing" for token in ours.tokens)
    if difference.likeness < (_ALIKE_AND_CHANGED if has_changed else _ALIKE):
        return False
    have_values = all(any(token.kind in VALUES for token in each.tokens) for each in (ours, theirs))
    is_denied = bool(ours.denials) != bool(theirs.denials)
    have_own = all(words or values for words, values in zip(difference.words, difference.values, strict=True))
    return have_own or is_denied or (have_values and any(difference.values))


def _are_different_matters(ours: Reading, theirs: Reading) -> bool:
    """Whether two texts begin with another name, or name another thing by its number."""
    if ours.subject and theirs.subject and ours.subject != theirs.subject:
        return True
    labels = [{token.key for token in each.tokens if token.kind == "label number"} for each in (ours, theirs)]
    return all(labels) and labels[0] != labels[1]


def _both_hold(ours: Reading, theirs: Reading, difference: _Difference) -> bool:
    """Whether two texts say what may be so beside each other."""
    is_denied = bool(ours.denials) != bool(theirs.denials)
    if ours.many & theirs.many and (not is_denied or all(difference.words) or all(difference.values)):
        return True
    if not any(difference.words) and not any(difference.values):
        return not is_denied  # the same words in another order, or with others of the small ones
    if difference.likeness < _ALIKE:
        return False
    if all(difference.words) and all(difference.values):
        return True  # another thing has another value
    if all(_places_apart(words) > 1 for words in difference.words):
        return True  # one is used for this, another for that
    if all(_are_counted(*each) for each in zip((ours, theirs), difference.words, strict=True)):
        return True
    return all(
        any(_is_before(reading, at) for at in (*words, *values))
        for reading, words, values in zip((ours, theirs), difference.words, difference.values, strict=True)
    )


def _places_apart(places: Sequence[int]) -> int:
    """Return in how many places of a text these words stand."""
    return sum(at - 1 not in places for at in places)


def _are_counted(reading: Reading, places: Sequence[int]) -> bool:
    """Whether one of these words is what a number before it counts: two children, two cars."""
    return any(at and reading.tokens[at - 1].kind == "number" for at in places)


def _is_before(reading: Reading, at: int) -> bool:
    """Whether a word belongs to what a text is about: dock 4 is closed, and not: 14 days are left."""
    if not at < reading.linked_at < len(reading.tokens):
        return False
    return reading.tokens[at].kind != "number" or "unit" not in (
        reading.tokens[i].kind for i in (at - 1, at + 1) if i >= 0
    )


# Another answer, for sure.


def _exclude_each_other(ours: Reading, theirs: Reading) -> bool:
    """Whether two texts differ in a denial, or in one stretch that holds two values of which but one can be."""
    if ours.denials != theirs.denials:
        return _is_denied(ours, theirs)
    if ours.many or theirs.many or ours.is_of_several:
        return False
    mine, other = ([t for t in each.tokens if t.kind != "changing"] for each in (ours, theirs))
    before = _shared(mine, other)
    after = min(_shared(mine[::-1], other[::-1]), len(mine) - before, len(other) - before)
    if before < 2 or after > _TAIL:
        return False
    if not ours.vocabulary.linking.isdisjoint(token.word for token in mine[len(mine) - after :]):
        return False
    found = mine[before : len(mine) - after], other[before : len(other) - after]
    return _is_one_place(mine[:before], *found, ours)


def _is_denied(ours: Reading, theirs: Reading) -> bool:
    """Whether one text is the other one, denied once."""
    told = [
        [form for form, token in zip(each.singular, each.tokens, strict=True) if token.kind not in _SMALL]
        for each in (ours, theirs)
    ]
    small = [{token.word for token in each.tokens if token.kind == "common"} for each in (ours, theirs)]
    is_plain = _WITHOUT.isdisjoint((*ours.words, *theirs.words)) and small[0] ^ small[1] <= _AUXILIARIES
    return told[0] == told[1] and sorted((ours.denials, theirs.denials)) == [0, 1] and is_plain


def _shared(ours: Sequence[Token], theirs: Sequence[Token]) -> int:
    """Return how many words two texts begin with in common."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a.word != b.word), min(len(ours), len(theirs)))


def _is_one_place(before: Sequence[Token], mine: Sequence[Token], other: Sequence[Token], reading: Reading) -> bool:
    """Whether what stands before two values leaves room for but one of them."""
    kinds = [[token.kind for token in each] for each in (mine, other)]
    if kinds[0] != kinds[1] or not mine:
        return False
    words = [token.word for token in before if token.kind != "unit"]
    last, ahead = words[-1] if words else "", words[-2] if len(words) > 1 else ""
    told = set(kinds[0])
    if told == {"choice"} and len(mine) == 1:
        is_opposite = frozenset((mine[0].word, other[0].word)) in reading.vocabulary.opposites
        return is_opposite and last in _BEING
    if told == {"number"} and len(mine) == 1:
        linking = reading.vocabulary.linking | _DATED
        is_placed = last in reading.vocabulary.counting and (
            last not in _AT or (ahead in linking and ahead not in _PAST)
        )
        return is_placed and _differ_for_sure(mine[0].word, other[0].word)
    if told <= {"number", "month", "weekday"}:
        is_set = {token.key for token in mine} != {token.key for token in other} and len(told) == len(mine)
        return is_set and last in _AT and ahead in _DATED
    return told == {"name"} and _is_one_name(words, mine, other)


def _is_one_name(words: Sequence[str], mine: Sequence[Token], other: Sequence[Token]) -> bool:
    names = [[token.word for token in each] for each in (mine, other)]
    if any(a[:3] == b[:3] for a in names[0] for b in names[1]) or any(
        n.endswith(_PEOPLES) for n in (*names[0], *names[1])
    ):
        return False
    return words[-1] in _BEING - _PAST or (words[-1] == "in" and words[-2] in _STAYING)


def _differ_for_sure(mine: str, other: str) -> bool:
    """Whether two numbers are written alike and are not the same; 9 may be 21 o'clock."""
    notation = next((each for each in _NOTATIONS if each.fullmatch(mine)), None)
    if notation is None or not notation.fullmatch(other):
        return False
    first, second = (
        Decimal(number.replace(",", "" if notation is _NOTATIONS[1] else ".").replace(":", "."))
        for number in (mine, other)
    )
    is_clock = max(first, second) <= _DAY and abs(first - second) == _HALF_A_DAY
    return first != second and not is_clock
