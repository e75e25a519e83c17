"""Whether a value occurs in a text: as a whole token, never as a part of a longer one.

An outsider's value that hides in something the principal did write must not pass for it: `alice@corp.co` is not in
"alice@corp.com", `corp.com` not in "alice@corp.com", `/home/user` not in "/home/user/report.txt", `12` not in "3125".
What a request has in quotation marks is one value: `DROP x` is not in "run `DROP x IF EMPTY`".  ASCII case is nothing
where there is no `/` or `\\`; nothing else of Unicode is folded, so look-alikes differ.  Numbers, days and times are
compared as such (`stack/text/numbers.py`, `stack/text/dates.py`).  Whatever is unclear does not occur: the price is
a question to a person.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any

from airside.stack.provenance.effort import spend_effort
from airside.stack.text.dates import DateTime, days_in, minutes_in, parse_any_form
from airside.stack.text.entities import FILES
from airside.stack.text.numbers import (
    NumberSpan,
    Role,
    amounts,
    find_numbers,
    fits,
    is_currency,
    names_currency,
    role_of,
)
from airside.stack.text.spelling import alike, caseless, plain
from airside.stack.text.tokens import BREAK, QUOTED, around, is_grouped, parted, stands_alone

Json = Any

_MAX_PLACES = 10_000
_MAX_TEXT = 256 * 1024
"""Characters of one source, and places and numbers in it, that are looked at: what is beyond does not occur."""

_ONE_LOOK, _ONE_PLACE = 2_000, 200
"""Characters that a look into a text, and one at a place in it, count for besides those of the text."""

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_SPACES = re.compile(r"[ \t\r\n]+")
_SCHEME = re.compile(r"https://", re.IGNORECASE | re.ASCII)
_SCHEME_OF_TOKEN = re.compile(r"(?<![^\s\x00(<\[\"'`\u201c\u201e\u00ab])https://", re.IGNORECASE | re.ASCII)
_HOST = re.compile(
    r"(?:(?:[\w\-]{1,63}\.)+(?P<ending>[^\W\d_]{2,24}|xn--[\w\-]{1,59})|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|localhost(?=:[0-9]))"
    r"(?![\w\-\\%&=+~$]|\.\w|[^\s/?#]*@)",
    re.IGNORECASE,
)
_FILES_TOO = re.compile(r"md|py|zip|mov|rs|sh|ps|tf|cab", re.IGNORECASE)
"""Top-level domains that are endings of files first."""

_NO_ID = re.compile("[^0-9a-z]+")
_SPACED_MIN, _SPACED_MAX, _SPACED_DIGITS = 8, 64, 4
_SPACED = re.compile(r"[0-9a-z+() -]+")
_GAP, _PHONE_GAP = "[ -]?", "[ ().-]{0,2}"
_GAPS = {_GAP: " -", _PHONE_GAP: " ().-"}
_GROUPS = re.compile(r"[0-9][0-9 -]*")
_NUMERIC = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,9})?")
_CHANNEL = re.compile(r"#[a-z][\w-]*", re.ASCII)
_MAILS = re.compile(r"[^\s,;<>@]+@[^\s,;<>@]+(?:, ?[^\s,;<>@]+@[^\s,;<>@]+)+")
_EDGES = " .,;:!?*_\u00a0\u202f"
"""What may stand between a quotation mark and the value it encloses."""


class SearchTerm:
    """A value that is looked for, read once for however many texts: booleans and null never occur.

    `role` is what it is used as.  `parts` = it may be a part of what is quoted.
    """

    def __init__(self, value: Json, role: Role = "", *, parts: bool = False) -> None:
        self.role = role
        self.parts = parts
        self.never = value is None or isinstance(value, bool)
        self.is_text = isinstance(value, str)
        self.value: str = value if isinstance(value, str) else ""
        is_written = isinstance(value, str) and _NUMERIC.fullmatch(value) is not None
        self.number = Decimal(value) if is_written else None if self.is_text or self.never else decimal_of(value)
        self.needle = fold(self.value)
        self.is_exact = is_exact(self.needle)
        self.is_word = any(char.isalnum() for char in self.needle)

    @cached_property
    def is_ragged(self) -> bool:
        """Whether there is white space at its ends."""
        return self.value != self.value.strip()

    @cached_property
    def amounts(self) -> list[Decimal]:
        """The numbers in what is an amount, and is written with more than its number."""
        return list(numbers_in(_lower(self.value))) if self.role in ("money", "quantity") else []

    @cached_property
    def is_letter(self) -> bool:
        return len(self.needle) == 1 and self.needle.isalpha()

    @cached_property
    def core(self) -> str:
        """An account or phone number without its gaps; nothing for what is none."""
        return compact(self.needle)

    @cached_property
    def is_group(self) -> bool:
        """Whether it may be a group of a longer number."""
        return _GROUPS.fullmatch(self.needle) is not None

    @cached_property
    def bare(self) -> SearchTerm | None:
        """A channel without its mark, for most chat programs write it either way."""
        if _CHANNEL.fullmatch(self.needle) is None:
            return None
        return SearchTerm(self.needle[1:], self.role, parts=self.parts)

    @cached_property
    def mails(self) -> list[SearchTerm]:
        """The addresses of a list of some."""
        if _MAILS.fullmatch(self.value) is None:
            return []
        return [SearchTerm(each.strip(), self.role, parts=self.parts) for each in self.value.split(",")]

    @cached_property
    def is_currency(self) -> bool:
        return is_currency(self.value)

    @cached_property
    def moment(self) -> DateTime | None:
        """The day or time that it is."""
        return parse_any_form(self.value)

    @cached_property
    def is_plain(self) -> bool:
        """Whether it occurs only as it is written: neither a number nor anything that has other ways to be said."""
        has_ways = self.core or self.is_letter or self.bare or self.mails or self.is_currency or self.moment
        return self.is_text and self.is_word and self.number is None and not self.amounts and not has_ways


class SearchableText:
    """The texts and numbers of one source.  `whole` = a value must equal one of them, not merely occur in one.

    `quotes` = what stands in quotation marks is one value, and no part of it occurs.  `written` is the day a text was
    written, for days without a year.  `verbatim` = a sentence without a blank before it stays joined.
    """

    __slots__ = (
        "_by_value",
        "_cores",
        "_dates",
        "_decimals",
        "_exact",
        "_folded",
        "_has_money",
        "_is_cut",
        "_leaves",
        "_loose",
        "_number_spans",
        "_quotations",
        "_quoted",
        "_quotes",
        "_tight",
        "_whole",
        "_written",
    )

    def __init__(
        self,
        *values: Json,
        whole: bool = False,
        quotes: bool = False,
        written: date | None = None,
        verbatim: bool = False,
    ) -> None:
        found, self._is_cut = _bounded(values, marked=not whole)
        texts = [spaced(text if whole or verbatim else parted(text)) for text in found]
        self._exact = BREAK.join(texts)
        self._folded = _lower(self._exact)
        self._whole = whole
        self._quotes = quotes
        self._written = written
        self._leaves = {fold(text) for text in texts} if whole else set()
        self._cores: set[str] | None = None
        self._decimals: set[Decimal] | None = None
        self._number_spans: list[NumberSpan] | None = None
        self._by_value: dict[Decimal, list[NumberSpan]] | None = None
        self._has_money = False
        self._quoted: list[tuple[int, int]] | None = None
        self._quotations: set[str] | None = None
        self._dates: dict[bool, tuple[set[date], set[int]]] = {}
        self._loose: tuple[str, str] | None = None
        self._tight: dict[str, _GaplessText] = {}

    def has(self, value: Json, role: Role = "", *, parts: bool = False) -> bool:
        """Whether a text or a number occurs (`SearchTerm`)."""
        return self.holds(SearchTerm(value, role, parts=parts))

    def holds(self, sought: SearchTerm) -> bool:
        """Whether what is looked for occurs."""
        if sought.never:
            return False
        spend_effort(_ONE_LOOK if self._whole else _ONE_LOOK + len(self._exact))
        if not sought.is_text:
            return self._has_number(sought.number, sought)
        if sought.is_ragged and not self._whole:
            return False
        if (
            sought.is_plain
            and not self._whole
            and sought.needle not in (self._exact if sought.is_exact else self._folded)
        ):
            return False  # as nearly always
        if sought.number is not None:
            is_name = sought.role in ("", "name")
            # Nobody writes "invoice two" for invoice 2.
            if self._has_number(sought.number, sought, words=not is_name):
                return True
            if sought.role:
                return is_name and self._spaced(sought)
        elif not all(self._has_number(number, sought) for number in sought.amounts):
            return False
        return self._has_text(sought) or (not self._whole and self._has_equivalent(sought))

    def may_have(self, value: str) -> bool:
        """Whether an id could have been read here, in any spelling and inside any word: for what must be new."""
        if self._is_cut or self.has(value):
            return True
        if self._loose is None:
            text = caseless(alike(plain(self._exact)))
            self._loose = text, _NO_ID.sub("", text)
        text, run_together = self._loose
        spend_effort(2 * len(run_together))
        core = _NO_ID.sub("", caseless(value))
        if not core.isdecimal():
            return core in run_together
        number = core.lstrip("0") or "0"
        return re.search(rf"(?<![0-9])0*{number}(?![0-9])", text) is not None

    def numbers(self) -> Iterator[tuple[Decimal, bool]]:
        """Yield the numbers that name nothing and are no dates, with whether each is a percentage."""
        for each in self._read_numbers():
            spend_effort(_ONE_PLACE)
            if each.mark in ("", "money", "word"):
                yield each.value, self._folded[each.end - 1] == "%"

    def _read_numbers(self) -> list[NumberSpan]:
        if self._number_spans is None:
            self._number_spans = amounts(self._folded, list(itertools.islice(find_numbers(self._folded), _MAX_PLACES)))
        return self._number_spans

    def quotes(self, value: str) -> bool:
        """Whether a folded text is all of what stands in one pair of quotation marks."""
        if self._quotations is None:
            found = (match.group(match.lastindex or 0) for match in QUOTED.finditer(self._exact))
            self._quotations = {fold(each.strip(_EDGES)) for each in found}
        return value.strip(_EDGES) in self._quotations and any(char.isalnum() for char in value)

    def _has_text(self, sought: SearchTerm) -> bool:
        needle, parts = sought.needle, sought.parts
        if not sought.is_word:
            return self._whole and needle in self._leaves
        if sought.is_letter and self._quotes and not parts:
            return self._has_letter(sought.value)
        if self._whole:
            if needle in self._leaves:
                return True
            if self._cores is None:
                self._cores = {compact(leaf) for leaf in self._leaves}
            return sought.core != "" and sought.core in self._cores
        text = self._exact if sought.is_exact else self._folded
        found = ((at, at + len(needle)) for at in _places(needle, text))
        if self._spaced(sought) or any(
            stands_alone(text, *span)
            and not (sought.is_group and is_grouped(text, *span))
            and self._counts(*span, parts)
            for span in found
        ):
            return True
        return sought.bare is not None and self._has_text(sought.bare)

    def _has_letter(self, letter: str) -> bool:
        """Whether one letter is meant: quoted, all of a text, or a capital that is no word (`seat C`, `plan A`)."""
        if self.quotes(fold(letter)) or letter in self._exact.split(BREAK):
            return True
        if not letter.isupper() or letter == "I":
            return False
        found = ((at, at + 1) for at in _places(letter, self._exact))
        return any(
            stands_alone(self._exact, *span) and self._counts(*span, False) and _is_within(self._exact, span[0])
            for span in found
        )

    def _counts(self, begin: int, end: int, parts: bool) -> bool:
        """Whether what stands there is all of what it is quoted in."""
        if parts or not self._quotes:
            return True
        if self._quoted is None:
            self._quoted = [match.span(match.lastindex or 0) for match in QUOTED.finditer(self._exact)]
        quoted = around(self._quoted, begin)
        if quoted is None or end > quoted[1]:
            return True
        first, last = quoted
        return not self._exact[first:begin].strip(_EDGES) and not self._exact[end:last].strip(_EDGES)

    def _spaced(self, sought: SearchTerm) -> bool:
        """Whether an account or phone number occurs with spaces or hyphens between its characters."""
        core, parts = sought.core, sought.parts
        if not core:
            return False
        text, gap = self._folded, _PHONE_GAP if core.removeprefix("+").isdigit() else _GAP
        pattern = gap.join(map(re.escape, core))
        for at in self._tightly(core, gap):
            match = re.compile(pattern).match(text, at)
            if match is None:
                continue
            before, after = text[max(0, match.start() - 3) : match.start()], text[match.end() : match.end() + 3]
            longer = re.search(rf"[0-9]{gap}\Z", before) or re.match(rf"{gap}[0-9]", after)
            if longer is None and stands_alone(text, *match.span()) and self._counts(*match.span(), parts):
                return True
        return False

    def _tightly(self, core: str, gap: str) -> Iterator[int]:
        """Yield where a text may begin that has gaps between its characters."""
        if gap not in self._tight:
            self._tight[gap] = _GaplessText(self._folded, frozenset(_GAPS[gap]))
        tight = self._tight[gap]
        yield from (tight.places[at] for at in _places(core, tight.text))

    def _has_number(self, value: Decimal | None, sought: SearchTerm, *, words: bool = True) -> bool:
        role, parts = sought.role, sought.parts
        if value is None:
            return False
        if self._whole:
            if self._decimals is None:
                self._decimals = {Decimal(leaf) for leaf in self._leaves if _NUMERIC.fullmatch(leaf)}
            return value in self._decimals
        if self._by_value is None:
            self._by_value = {}
            for each in self._read_numbers():
                self._by_value.setdefault(each.value, []).append(each)
                self._has_money = self._has_money or each.mark == "money"
        found = self._by_value.get(value)
        if found is None:
            return False
        spend_effort(_ONE_PLACE * len(found))
        return any(
            (words or each.mark != "word")
            and fits(each.mark, role, money_named=role == "money" and self._has_money)
            and self._counts(each.begin, each.end, parts)
            for each in found
        )

    def _has_equivalent(self, sought: SearchTerm) -> bool:
        """Whether a text says it in other words: a currency's sign, a day or time, addresses one by one."""
        if sought.mails:
            return all(map(self._has_text, sought.mails))
        return (sought.is_currency and names_currency(self._folded, sought.value)) or self._has_moment(sought)

    def _has_moment(self, sought: SearchTerm) -> bool:
        wanted, parts = sought.moment, sought.parts
        if wanted is None:
            return False
        if parts not in self._dates:
            text = self._folded if parts or not self._quotes else _lower(QUOTED.sub(_timely, self._exact))
            self._dates[parts] = set(days_in(text, self._written)), set(minutes_in(text))
        days, minutes = self._dates[parts]
        return (wanted.day is None or wanted.day in days) and (wanted.minute is None or wanted.minute in minutes)


def _is_within(text: str, at: int) -> bool:
    """Whether a word comes before in the same sentence: at its beginning, `A` is no name."""
    return at > 1 and text[at - 1] == " " and text[at - 2].isalnum()


class _GaplessText:
    """A text without what may stand between the characters of a number, and where each of the others stands in it."""

    def __init__(self, text: str, gaps: frozenset[str]) -> None:
        self._full, self._gaps = text, gaps
        self.text = text.translate(dict.fromkeys(map(ord, gaps)))

    @cached_property
    def places(self) -> list[int]:
        return [at for at, char in enumerate(self._full) if char not in self._gaps]


def _timely(quoted: re.Match[str]) -> str:
    """Return what is quoted if it is a day or time and nothing else: no part of a phrase is one."""
    text = quoted[quoted.lastindex or 0].strip(_EDGES)
    return f" {text} " if parse_any_form(text) is not None else BREAK


def fold(value: str) -> str:
    """Return a value as it is looked for: a host without `https://`, ASCII in lower case unless it is a path."""
    text = _SPACES.sub(" ", value)
    if _SCHEME.match(text):
        text = _SCHEME.sub(_unless_host, text, count=1).rstrip("/")
    return text if is_exact(text) else _lower(text)


def _unless_host(scheme: re.Match[str]) -> str:
    """Return nothing before a host, which is one with `https://` or without it; of any other word that makes a link.

    A file's name is such a word (`https://invoice.zip`).
    """
    host = _HOST.match(scheme.string, scheme.end())
    if host is None:
        return scheme.group()
    ending, is_www = host["ending"] or "", host.group().lower().startswith("www.")
    is_file = not is_www and (FILES.fullmatch(ending.lower()) or _FILES_TOO.fullmatch(ending)) is not None
    return scheme.group() if is_file else ""


def is_exact(value: str) -> bool:
    """Whether case matters: it does in paths."""
    return "/" in value or "\\" in value


def spaced(text: str) -> str:
    """Return a text with runs of white space as one space, and its hosts without `https://`."""
    return _SCHEME_OF_TOKEN.sub(_unless_host, _SPACES.sub(" ", text))


def compact(value: str) -> str:
    """Return an account or phone number without its spaces and hyphens; nothing for what is none."""
    core = value.replace(" ", "").replace("-", "")
    # The cheapest first: nearly every value is none.
    if not _SPACED_MIN <= len(core) <= _SPACED_MAX or _SPACED.fullmatch(core) is None:
        return ""
    return core if sum(char in "0123456789" for char in core) >= _SPACED_DIGITS else ""


def decimal_of(value: Json) -> Decimal | None:
    """Return a JSON number for comparison."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def numbers_in(text: str) -> Iterator[Decimal]:
    """Yield the numbers of a text in lower case, whatever they stand for."""
    return (each.value for each in find_numbers(text))


def _texts(value: Json, *, marked: bool) -> Iterator[str]:
    """Yield every text of a JSON value, keys too, and its numbers as text; `marked` = as a name, if the key says so."""
    stack = [(value, False)]
    while stack:
        item, is_name = stack.pop()
        if isinstance(item, str):
            yield f"id {item}" if is_name and _NUMERIC.fullmatch(item) else item
        elif isinstance(item, dict):
            yield from item
            stack.extend((inner, marked and role_of(key) == "name") for key, inner in item.items())
        elif isinstance(item, list | tuple):
            stack.extend((inner, is_name) for inner in item)
        elif item is not None and not isinstance(item, bool):
            number = decimal_of(item)
            text = str(item) if number is None else f"{number:f}"
            yield f"id {text}" if is_name else text


def leaves(value: Json) -> Iterator[Json]:
    """Yield the texts and numbers of a JSON value that have no parts of their own; keys are none."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif item is not None and not isinstance(item, bool):
            yield item


def _bounded(values: Iterable[Json], *, marked: bool) -> tuple[list[str], bool]:
    """Return the texts of values as far as they are read, and whether there are more."""
    found: list[str] = []
    is_cut = False
    for value in values:
        room = _MAX_TEXT
        for text in _texts(value, marked=marked):
            if len(text) > room:
                is_cut = True
                break
            room -= len(text)
            found.append(text)
    return found, is_cut


def _lower(text: str) -> str:
    # `lower` would make the Kelvin sign a k.
    return text.lower() if text.isascii() else text.translate(_LOWER)


def _places(needle: str, text: str) -> Iterator[int]:
    at = text.find(needle)
    for _ in range(_MAX_PLACES):
        if at < 0:
            return
        spend_effort(_ONE_PLACE)
        yield at
        at = text.find(needle, at + 1)
