"""The days and times a text names, however it writes them: 3 June 2024 is 2024-06-03, 7 pm is 19:00.

A day without a year is the next one from the day the text was written.  What may be two days (03/06/2024) is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

from airside.stack.text.numbers import MONTH, MONTHS

_ISO = re.compile(r"(?<![\w.\-/])(\d{4})-(\d\d)-(\d\d)(?![\-/]?\w)", re.ASCII)
_DAY_FIRST = re.compile(
    rf"(?<![\w.,\-/:])(\d{{1,2}})(?:\.|st|nd|rd|th)? (?:of )?({MONTH})(?:\.|,)?(?: (\d{{4}}))?(?![\w\-/])", re.ASCII
)
_MONTH_FIRST = re.compile(
    rf"(?<![\w.\-/])({MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?(?![\w\-/:]|[.,]\d)", re.ASCII
)
_DOTTED = re.compile(r"(?<![\w.,\-/:])(\d{1,2})\.(\d{1,2})\.(\d{4})(?![\w\-/]|\.\d)", re.ASCII)
_SLASHED = re.compile(r"(?<![\w.\-/])(\d{1,2})/(\d{1,2})/(\d{4})(?![\w\-/])", re.ASCII)

_CLOCK = re.compile(
    r"(?<![\w.:\-+/])(\d{1,2})(?:([:.])(\d\d))? ?(a\.?m|p\.?m|uhr|h)?(?![\w\-]|[:/.@+#\\]\w)", re.ASCII | re.IGNORECASE
)
_FRENCH = re.compile(r"(?<![\w.:\-+/])(\d{1,2}) ?h ?(\d\d)(?![\w\-]|[:/.@+#\\]\w)", re.ASCII | re.IGNORECASE)
_SPAN = re.compile(r"(?<![\w.:\-+/])(\d{1,2}):(\d\d) ?[\-\u2013] ?(\d{1,2}):(\d\d)(?![\w\-:])", re.ASCII)
_NAMED = re.compile(r"(?<![\w\-])(?:at |until |from |to |and |um )(?:(noon|midday)|midnight)(?![\w\-])", re.ASCII)
_NOON = 12 * 60
_ISO_DATE_TIME = re.compile(r"(?:(\d{4})-(\d\d)-(\d\d))?(?:(?<=\d)[T ](?=\d))?(?:(\d\d):(\d\d)(?::00)?)?", re.ASCII)
_MAX_DATES = 500


class DateTime(NamedTuple):
    """A day, a time of day in minutes, or both."""

    day: date | None
    minute: int | None


def parse_iso(value: str) -> DateTime | None:
    """Return what a value of the form 2024-06-03, 19:00 or 2024-06-03T19:00 means; None for any other."""
    match = _ISO_DATE_TIME.fullmatch(value)
    if not value or match is None:
        return None
    year, month, day, hour, minute = match.groups()
    when = _date(year, month, day) if year else None
    clock = _minute(hour, minute) if hour else None
    return DateTime(when, clock) if (when or not year) and (clock is not None or not hour) else None


def parse_any_form(value: str) -> DateTime | None:
    """Return what a value means that is nothing but a day, a time of day or both, in whatever form."""
    return _parse_short(value) if len(value) <= _MAX_LOOSE else None


@lru_cache(maxsize=1024)  # one value is looked for in every text
def _parse_short(value: str) -> DateTime | None:
    exact = parse_iso(value)
    if exact is not None or not any(char.isdigit() for char in value):
        return exact
    text = value.lower()
    for at in [0, *(match.start() for match in _BETWEEN.finditer(text)), len(text)]:
        day, clock = text[:at], text[at:]
        rest = _BETWEEN.match(clock) if day else None
        clock = clock[rest.end() :] if rest else clock
        when, minute = _only_day(day), _only_minute(clock)
        if (when is not None or not day) and (minute is not None or not clock):
            return DateTime(when, minute)
    return None


_MAX_LOOSE = 40
_BETWEEN = re.compile(r",? (?:at |um )?|, ?|t(?=\d)")


def _only_day(text: str) -> date | None:
    """Return the day a text is nothing but."""
    patterns = (_ISO, _DAY_FIRST, _MONTH_FIRST, _DOTTED, _SLASHED)
    days = set(days_in(text, None)) if text and any(each.fullmatch(text) for each in patterns) else set()
    return days.pop() if len(days) == 1 else None


def _only_minute(text: str) -> int | None:
    """Return the time of day a text is nothing but."""
    minutes = set(minutes_in(text)) if text and (_CLOCK.fullmatch(text) or _FRENCH.fullmatch(text)) else set()
    return minutes.pop() if len(minutes) == 1 else None


def days_in(text: str, written: date | None) -> Iterator[date]:
    """Yield the days a text in lower case names; one without a year only if it is known when it was written."""
    found = [
        *(match.groups() for match in _ISO.finditer(text)),
        *((match[3], MONTHS[match[2]], match[1]) for match in _DAY_FIRST.finditer(text)),
        *((match[3], MONTHS[match[1]], match[2]) for match in _MONTH_FIRST.finditer(text)),
        *((match[3], match[2], match[1]) for match in _DOTTED.finditer(text)),
    ]
    for match in _SLASHED.finditer(text):
        first, second = int(match[1]), int(match[2])
        if first > 12 or first == second:
            found.append((match[3], second, first))
        elif second > 12:
            found.append((match[3], first, second))
    for year, month, day in found[:_MAX_DATES]:
        when = _date(year, month, day) if year else _next(month, day, written)
        if when is not None:
            yield when


def minutes_in(text: str) -> Iterator[int]:
    """Yield the times of day a text in lower case names, in minutes."""
    for match in _CLOCK.finditer(text):
        hour, mark, minute, half = match.groups()
        # "9.30" may be money, and 7 anything.
        if half is None and mark != ":":
            continue
        found = _minute(hour, minute or "00", (half or "").replace(".", ""))
        if found is not None:
            yield found
    yield from (_NOON if match[1] else 0 for match in _NAMED.finditer(text))
    ends = [match.groups() for match in _SPAN.finditer(text)]
    pairs = [*(match.groups() for match in _FRENCH.finditer(text)), *(e[:2] for e in ends), *(e[2:] for e in ends)]
    for hour, minute in pairs:
        found = _minute(hour, minute)
        if found is not None:
            yield found


def _minute(hour: str, minute: str, half: str = "") -> int | None:
    at = int(hour)
    if half in ("am", "pm"):
        if not 1 <= at <= 12:
            return None
        at = at % 12 + (12 if half == "pm" else 0)
    return at * 60 + int(minute) if at < 24 and int(minute) < 60 else None


def _date(year: str | int, month: str | int, day: str | int) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _next(month: str | int, day: str | int, written: date | None) -> date | None:
    if written is None:
        return None
    # A day earlier is still today somewhere.
    first = written - timedelta(days=1)
    for year in range(first.year, first.year + 2):
        when = _date(year, month, day)
        if when is not None and when >= first:
            return when
    return None
