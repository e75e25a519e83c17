"""How long something lasts, as a request says it: an hour and a half, 90 minutes, 5 nights, two weeks.

A start and a length make an end that nobody need have written.  A length is none that says when, how often or how old
something is: `in 2 hours`, `every two weeks`, `30 minutes before`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from airside.stack.moments import Moment, days_in, minutes_in, read_moment

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
_SENTENCES = re.compile(r"(?<=[.!?])\s|\x00|\n")

_WORDS_OF = re.compile(r"[a-z]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_STARTS = "start starts starting begin begins beginning from checkin in depart departure since von"
_ENDS = "end ends ending until till finish finishes stop to checkout out return through bis"
_START, _END = frozenset(_STARTS.split()), frozenset(_ENDS.split())


def lengths_in(text: str) -> Iterator[tuple[int, timedelta]]:
    """Yield where a text in lower case says how long something lasts, and that."""
    at = 0
    for compact in _COMPACT.finditer(text):
        yield compact.start(), timedelta(hours=int(compact[1]), minutes=int(compact[2]))
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
            yield begin, total


def _worth(match: re.Match[str]) -> tuple[timedelta, str]:
    unit = next(name for name in _UNITS if match[name])
    if match["part"]:
        number = Decimal(_PARTS[match["part"].replace("-", " ")])
    else:
        said = match["number"]
        number = Decimal(_WORDS[said] if said in _WORDS else said.replace(",", "."))
        number += Decimal("0.5") if match["more"] or match["half"] else 0
    return timedelta(seconds=float(number * _SECONDS[unit])), unit


def length_of(text: str, start: Moment, written: date | None) -> timedelta | None:
    """Return how long what begins at `start` lasts: the one length of the sentences that name it, or of the text."""
    sentences = [each for each in _SENTENCES.split(text) if each]
    near = {length for each in sentences if _names(each, start, written) for _, length in lengths_in(each)}
    found = near or {length for each in sentences for _, length in lengths_in(each)}
    return found.pop() if len(found) == 1 else None


def _names(text: str, start: Moment, written: date | None) -> bool:
    if start.minute is not None:
        return start.minute in set(minutes_in(text))
    return start.day in set(days_in(text, written))


def ends(start: Moment, length: timedelta, end: Moment) -> bool:
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


def start_beside(name: str, siblings: Mapping[str, Any]) -> str:
    """Return the argument that says when that begins whose end the argument `name` is; nothing if that is unclear."""
    own = _words(name)
    if not own & _END or own & _START:
        return ""
    starts = [
        key
        for key, value in siblings.items()
        if _words(key) & _START and not _words(key) & _END and isinstance(value, str) and read_moment(value)
    ]
    alike = [key for key in starts if _words(key) - _START == own - _END]
    found = alike or starts
    return found[0] if len(found) == 1 else ""


def unit_of(name: str) -> timedelta | None:
    """Return the unit in which an argument of this name says how long something lasts (`duration_minutes`)."""
    units = [
        unit for unit in _UNITS if _words(name) & {unit, f"{unit}s", *(("min", "mins") if unit == "minute" else ())}
    ]
    return timedelta(seconds=_SECONDS[units[0]]) if len(units) == 1 else None


def _words(name: str) -> set[str]:
    return set(_WORDS_OF.findall(_CAMEL.sub(" ", name[:128]).lower()))
