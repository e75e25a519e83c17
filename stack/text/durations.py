"""How long something lasts, as a request says it: an hour and a half, 90 minutes, 5 nights, two weeks.

A start and a length make an end that nobody need have written.  A length is none that says when, how often or how old
something is: `in 2 hours`, `every two weeks`, `30 minutes before`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from airside.stack.text.dates import DateTime, parse_any_form

_DAY_S = 86_400
_SECONDS = {"minute": 60, "hour": 3600, "day": _DAY_S, "night": _DAY_S, "week": 7 * _DAY_S}
_UNITS = {
    "minute": "minutes?|mins?|minuten?",
    "hour": "hours?|hrs?|h|stunden?|heures?",
    "day": "days?|tage?n?|jours?",
    "night": "nights?|n\u00e4chten?|nuits?",
    "week": "weeks?|wochen?|semaines?",
}
_UNIT = "|".join(f"(?P<{name}>{pattern})" for name, pattern in _UNITS.items())
_WORDS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "forty-five": 45,
    "sixty": 60, "ninety": 90, "eine": 1, "zwei": 2, "drei": 3, "vier": 4, "f\u00fcnf": 5, "une": 1, "deux": 2,
    "trois": 3, "quatre": 4, "cinq": 5,
}  # fmt: skip
_NUMBER = rf"[0-9]{{1,4}}(?:[.,](?:5|25|75|50))?|{'|'.join(sorted(_WORDS, key=len, reverse=True))}"
_PIECE = re.compile(
    r"(?:(?P<part>half|three[ -]quarters of|(?:a )?quarter of)[ -](?:an?[ -])?"
    rf"|(?P<number>{_NUMBER})(?P<more> and a half)?[ -]?)"
    rf"(?:{_UNIT})(?P<half> and a half)?(?!\w)",
    re.ASCII,
)
_PARTS = {"half": "0.5", "three quarters of": "0.75", "quarter of": "0.25", "a quarter of": "0.25"}
_JOINED = re.compile(r",? (?:and )?|", re.ASCII)
_COMPACT = re.compile(r"(?<![\w.,:\-/])([0-9]{1,2}) ?h ?([0-5][0-9]) ?m(?:in)?(?!\w)", re.ASCII)
_BEFORE = re.compile(
    r"(?:(?<!\w)(?:in|every|within|after|before|each|per|(?:the|these|in|during|over|from) last|past|previous|first"
    r"|another|by|at least|at most|up to|under|over|about|around|than|at|um|gegen|alle|vor|nach|pro|dans|apr\u00e8s"
    r"|avant) (?:the |next )*)\Z"
)
"""Before what is no length: when, how often, or not exactly."""

_LASTS = re.compile(
    r"(?<!\w)(?:for|(?:last|take|run|stay|need)(?:s|ing)?|taking|is|be|of|f\u00fcr|dauert|pour|pendant|dure) \Z"
)
"""Before `an hour`, which else is a rate (`20 euros an hour`, `once an hour`) or any (`pick a day`)."""

_LONG = re.compile(r"[ -]long(?!\w)")
_AFTER = re.compile(
    r" ?(?:before|after|ago|earlier|later|prior|in advance|ahead|notice|from now|old|each|per|every|beforehand"
    r"|(?<=[a-z] )an?|vorher|sp\u00e4ter|avant|apr\u00e8s)(?!\w)"
)
_STARTS_ALONE = re.compile(r"[\w.,:\-/$\u20ac]\Z")

_WORDS_OF = re.compile(r"[a-z]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_STARTS = "start starts starting begin begins beginning from checkin in depart departure since von"
_ENDS = "end ends ending until till finish finishes stop to checkout out return through bis"
_START, _END = frozenset(_STARTS.split()), frozenset(_ENDS.split())


class Length(NamedTuple):
    """Where a text says how long something lasts, and that."""

    begin: int
    end: int
    lasts: timedelta


def lengths_in(text: str) -> Iterator[Length]:
    """Yield the lengths of a text in lower case."""
    at = 0
    for compact in _COMPACT.finditer(text):
        yield Length(*compact.span(), timedelta(hours=int(compact[1]), minutes=int(compact[2])))
    masked = _COMPACT.sub(lambda found: " " * len(found.group()), text)
    while match := _PIECE.search(masked, at):
        begin, at = match.start(), match.end()
        if _STARTS_ALONE.search(masked, max(0, begin - 1), begin):
            continue
        total, unit = _worth(match)
        while (joined := _JOINED.match(masked, at)) and (more := _PIECE.match(masked, joined.end())):
            further, smaller = _worth(more)
            if _SECONDS[smaller] >= _SECONDS[unit]:
                break
            total, unit, at = total + further, smaller, more.end()
        lasts = match["number"] not in ("a", "an") or _LASTS.search(masked, max(0, begin - 12), begin)
        lasts = lasts or _LONG.match(masked, at)
        if lasts and not _BEFORE.search(masked, max(0, begin - 24), begin) and not _AFTER.match(masked, at):
            yield Length(begin, at, total)


def _worth(match: re.Match[str]) -> tuple[timedelta, str]:
    unit = next(name for name in _UNITS if match[name])
    if match["part"]:
        number = Decimal(_PARTS[match["part"].replace("-", " ")])
    else:
        said = match["number"]
        number = Decimal(_WORDS[said] if said in _WORDS else said.replace(",", "."))
        number += Decimal("0.5") if match["more"] or match["half"] else 0
    return timedelta(seconds=float(number * _SECONDS[unit])), unit


def lengths_of(said: str) -> set[timedelta] | None:
    """Return how long an order in lower case says that it lasts; None if a length in it may be of something else."""
    found = list(lengths_in(said))
    if found and _OF_ELSE.search(said):
        return None
    is_own = all(
        _is_own(said[max(0, each.begin - _NEAR) : each.begin], said[each.end : each.end + _NEAR]) for each in found
    )
    return {each.lasts for each in found} if is_own else None


def _is_own(before: str, after: str) -> bool:
    """Whether what stands around a length says it of all that is ordered."""
    if _ACCOMPANIED.search(before):
        return False
    if _SAID_OF_ALL.search(before) or _LONG.match(after):
        return _LONG.match(after) is not None or _VERB_AFTER.match(after) is not None
    if _CLAUSE_START.search(before):
        return _CLAUSE_END.match(after) is not None
    is_at_the_verb = _VERB_BEFORE.fullmatch(before) is not None and _VERB_AFTER.match(after) is not None
    return is_at_the_verb or (_NOUN_BEFORE.fullmatch(before) is not None and _NOUN_AFTER.match(after) is not None)


_NEAR = 80
_ACCOMPANIED = re.compile(r"\bwith (?!\S*[@\d\x00])|, (?!lasting|starting|beginning)[a-z]+ing\b")
"""Before a length that may be of what comes with it: `with a coach for 2 hours`."""

_SAID_OF_ALL = re.compile(
    r"(?<!\w)(?:for|lasting|(?:it|this|that|which) (?:lasts?|takes?|(?:will|must|is to) (?:last|take|be))"
    r"|(?:duration|length)(?: of| is| ?[:=])?) (?:the next )?\Z"
)
_CLAUSE_START, _CLAUSE_END = re.compile(r"(?:\A|,)\s*\Z"), re.compile(r"\s*(?:[.,;!]|\Z)")
_VERB_BEFORE = re.compile(r"\W*(?:[a-z]+,? ){1,2}(?:it )?")
_VERB_AFTER = re.compile(r"\s*(?:[.,;!]|\Z|(?:at|in|from|with|on|for|and|starting|beginning|today|tomorrow)\b)")
_NOUN_BEFORE = re.compile(r"\W*(?:[a-z]+,? ){1,3}(?:(?:an?|the|my|our|one) (?:new )?)?")
_NOUN_AFTER = re.compile(r"[ -](?!before|after|notice|advance)[a-z]")
_OF_ELSE = re.compile(
    r"\b(?:breaks?|pauses?|notice|buffer|delay|rest|warranty|guarantee|travel|drive|walk|flight|parking|warning|timeout"
    r"|trial|deadline|reminder|too long|own)\b"
)
"""In an order in which a length may be that of a part of it."""


def ends(start: DateTime, length: timedelta, end: DateTime) -> bool:
    """Whether what begins at `start` and lasts so long ends at `end`, over midnight too."""
    if length <= timedelta(0):
        return False
    if start.minute is None or end.minute is None:
        is_days = start.minute is None and end.minute is None and length.seconds == 0
        return is_days and start.day is not None and end.day == start.day + length
    days, minute = divmod(start.minute + length // timedelta(minutes=1), 24 * 60)
    if length % timedelta(minutes=1) or minute != end.minute:
        return False
    if end.day is None:
        # Only times: the end is the next one of that time.
        return length < timedelta(days=1)
    return start.day is not None and end.day == start.day + timedelta(days=days)


def sibling_start(name: str, siblings: Mapping[str, Any]) -> str:
    """Return the argument that says when that begins whose end the argument `name` is; nothing if that is unclear."""
    own = _words(name)
    if not own & _END or own & _START:
        return ""
    starts = [
        key
        for key, value in siblings.items()
        if _words(key) & _START and not _words(key) & _END and isinstance(value, str) and parse_any_form(value)
    ]
    alike = [key for key in starts if _words(key) - _START == own - _END]
    found = alike or starts
    return found[0] if len(found) == 1 else ""


def unit_of(name: str) -> timedelta | None:
    """Return the unit in which an argument says how long something lasts, if all of its name says so.

    `duration_minutes`, `nights`, `length_of_stay_in_days`; but neither `min_amount` nor `hour`, which is one of a day.
    """
    words = _words(name)
    units = [unit for unit in _UNITS if words & _NAMES_OF[unit]]
    is_length = bool(words & _OF_LENGTH) or not words <= _SINGULAR
    if len(units) != 1 or not is_length or not words <= (_NAMES_OF[units[0]] | _OF_LENGTH | _NEAR_LENGTH):
        return None
    spelled = _WORDS_OF.findall(_CAMEL.sub(" ", name[:128]).lower())
    if "min" in words and spelled[-1] != "min":  # the least
        return None
    return timedelta(seconds=_SECONDS[units[0]])


_NAMES_OF = {unit: {unit, f"{unit}s", *(("min", "mins") if unit == "minute" else ())} for unit in _UNITS}
_OF_LENGTH = frozenset({"duration", "length", "long"})
_KINDS = "stay meeting event booking reservation appointment call session trip slot rental visit lesson shift"
_NEAR_LENGTH = frozenset(f"in of the how for total number num count n {_KINDS}".split())
_SINGULAR = frozenset({*_UNITS, *_NEAR_LENGTH, "min"})


def _words(name: str) -> set[str]:
    return set(_WORDS_OF.findall(_CAMEL.sub(" ", name[:128]).lower()))
