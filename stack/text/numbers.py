"""The numbers a text names, what each may stand for, and what an argument takes: an invoice's number is no amount.

A number that is marked as one thing is not found as another: money, the name of something (`invoice 2231`, `#17`), a
part of a date or time, a word (`two`, `3-day`).  What nothing marks may be anything.  A part of a longer number is
none, and neither is what has marks in odd places (`1,23,4`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

from airside.stack.text.tokens import continues, is_grouped, stands_alone

Mark = Literal["", "money", "name", "place", "date", "word"]
Role = Literal["", "money", "quantity", "name"]


class NumberSpan(NamedTuple):
    """A number of a text, where it stands with its currency or unit, and what marks it."""

    value: Decimal
    begin: int
    end: int
    mark: Mark


_KEPT_CHARACTERS = 128
"""Characters of a name whose role is kept: longer ones are no arguments that come again."""


def role_of(name: str) -> Role:
    """Return what the argument of this name takes, as far as the name tells."""
    return _role_of_short(name) if len(name) <= _KEPT_CHARACTERS else _role_of(name)


def _role_of(name: str) -> Role:
    words = re.split(r"[^a-z\u00e9]+", _SPLIT.sub(" ", name).lower())
    for word in reversed(words):  # an order's total is a total
        for role, pattern in _ROLES.items():
            if pattern.fullmatch(word):
                # The id of a room is the number of a room.
                is_place = role == "name" and any(re.fullmatch(_PLACES, each) for each in words)
                return "" if is_place else role
    return ""


_role_of_short = lru_cache(maxsize=4096)(_role_of)


def fits(mark: Mark, role: Role, *, money_named: bool) -> bool:
    """Whether a number so marked may be an argument of this role; `money_named` = the text marks some as money."""
    if role == "name":
        return mark in ("", "name")
    if role == "money":
        return mark == "money" or (not money_named and mark in ("", "word"))
    return role == "" or mark not in ("name", "place", "date")


def is_currency(code: str) -> bool:
    """Whether a currency of this code is known by a sign or a word."""
    return code.lower() in _SIGNS_OF


def names_currency(text: str, code: str) -> bool:
    """Whether a text in lower case means the currency of this code by a sign or a word."""
    signs = _SIGNS_OF.get(code.lower())
    return signs is not None and signs.search(text) is not None


def find_numbers(text: str) -> Iterator[NumberSpan]:
    """Yield the numbers of a text in lower case: whole tokens, grouped or not, with or without a currency."""
    for match in _NUMBER.finditer(text):
        found = _digits(text, match)
        if found is not None:
            yield found
    yield from _spoken(text)


def amounts(text: str, found: Sequence[NumberSpan]) -> list[NumberSpan]:
    """Return the numbers of a text with those marked as money that are said in one breath with money.

    `12, 18 and 25 EUR`, and `$50 to Ann and 20 to Bob`: what a number that nothing marks is followed by tells whether
    it is said of the same thing.
    """
    ordered = sorted(found, key=lambda each: each.begin)
    if not any(each.mark == "money" for each in ordered):
        return ordered
    for group in _listed(text, ordered):
        members = [ordered[at] for at in group]
        if any(each.mark == "money" for each in members) and all(_is_bare(text, each) for each in members):
            for at in group:
                ordered[at] = ordered[at]._replace(mark="money")
    for at, each in enumerate(ordered):
        others = (*ordered[max(0, at - _NEAR) : at], *ordered[at + 1 : at + 1 + _NEAR])
        if each.mark != "money" and _is_bare(text, each) and any(_is_parallel(text, each, other) for other in others):
            ordered[at] = each._replace(mark="money")
    return ordered


_COMMA = re.compile(r" ?, ?")
_OR = re.compile(r" ?(?:&|\+|,? ?(?:and|or|und|oder|et|ou)) ?")
_ENDED = re.compile(
    r" ?(?:$|[.,;:!?)\x00]|(?:to|for|from|on|by|at|in|an|f\u00fcr|\u00e0|pour|respectively|and|or|each)(?!\w))"
)
_OF_WHAT = re.compile(r" (?:to|an|\u00e0) (?![0-9])")
_AND = re.compile(
    r"(?:[,;]|(?<!\w)(?:and|then|or|plus|und|oder|et|ou)|(?<!\w)[-*\u2022])(?: (?:also|then|another))?"
    r"(?: (?:send|pay|give|transfer|wire|credit|refund))? \Z"
)
_FROM = re.compile(r"(?<!\w)(?:from|between|at|by|than|until|under|over|about|in|on|of) \Z")
_STOP = re.compile(r"[.!?] |\x00")
_APART, _NEAR = 200, 8
"""Characters and numbers between two numbers that may be said of the same thing."""


def _is_bare(text: str, each: NumberSpan) -> bool:
    """Whether nothing marks a number as anything but money."""
    is_measure = each.mark == "word" and text[each.begin : each.begin + 1].isdigit()
    return each.mark in ("", "word", "money") and not is_measure and text[each.end - 1] != "%"


def _listed(text: str, ordered: Sequence[NumberSpan]) -> Iterator[list[int]]:
    """Yield the numbers that are one list with an `and` or `or`, after which nothing else is counted."""
    group, has_or = [0], False
    for at in range(1, len(ordered) + 1):
        gap = text[ordered[at - 1].end : ordered[at].begin] if at < len(ordered) else "-"
        if _OR.fullmatch(gap) or (_COMMA.fullmatch(gap) and not has_or):
            has_or = has_or or _COMMA.fullmatch(gap) is None
            group.append(at)
            continue
        if has_or and _ENDED.match(text, ordered[at - 1].end):
            yield group
        group, has_or = [at], False


def _is_parallel(text: str, each: NumberSpan, money: NumberSpan) -> bool:
    """Whether a number is said as an amount is: `and 20 to Bob` after, or `20 to Bob` before `and $50 to Ann`."""
    first, last = sorted((each, money), key=lambda one: one.begin)
    what = _OF_WHAT.match(text, each.end)
    if money.mark != "money" or what is None or not text.startswith(what.group(), money.end):
        return False
    if last.begin - first.end > _APART or _STOP.search(text, first.end, last.begin):
        return False
    is_joined = _AND.search(text, max(0, last.begin - 30), last.begin) is not None
    return is_joined and _FROM.search(text, max(0, each.begin - 10), each.begin) is None


# Numbers in digits.

_GAP = "'\u2019\u00a0\u202f"
_NUMBER = re.compile(rf"[0-9]{{1,3}}(?: [0-9]{{3}}){{1,4}},[0-9]{{1,2}}(?![0-9])|[0-9]+(?:[.,{_GAP}][0-9]+)*", re.ASCII)
_CODES = r"eur|usd|gbp|chf|jpy|cad|aud|nzd|sek|nok|dkk|pln|czk|inr|cny|kr|z\u0142"
_SIGNS = r"\u20ac\u00a3\u00a5\u20b9"
_BEFORE = re.compile(rf"(?:(?:\b(?:us|a|c|nz|hk|s))?[$]|[{_SIGNS}]|\b(?:{_CODES}|rs)) ?\Z")
_SIGNS_OF = {
    "eur": re.compile(r"\u20ac|(?<!\w)euros?(?!\w)"),
    "usd": re.compile(r"(?<![a-z])[$]|(?<!\w)dollars?(?!\w)"),
    "gbp": re.compile(r"\u00a3"),
    "inr": re.compile(r"\u20b9|(?<!\w)rupees?(?!\w)"),
}
_TIMES = re.compile(r" ?(k|hundred|thousand|million)(?!\w)")
_AFTER = re.compile(rf" ?(?:{_CODES}|euros?|dollars?|pounds?|francs?|franken|cents?)(?!\w)| ?[{_SIGNS}$]")
_PERCENT = re.compile(r"%(?![\w%])")
_MEASURE = re.compile(
    r"(?:-(?:minute|hour|day|night|week|month|year|person|people|page|seat|room|bed|star|way|euro|dollar)s?|min|mins|h|hrs?"
    r"|km|kg|gb|mb|ml|cm|pcs|x)(?![\w\-])"
)
_CENTS = re.compile(r".*[0-9][.,][0-9]{2}")
_ZEROS = re.compile(r"0[0-9]")
"""What begins so is a name: 007 is not 7."""

_POWERS = {"dozen": 12, "hundred": 100, "k": 1000, "thousand": 1000, "million": 1_000_000}


def _digits(text: str, match: re.Match[str]) -> NumberSpan | None:
    begin, end = match.span()
    currency = _BEFORE.search(text, max(0, begin - 6), begin)
    times = _TIMES.match(text, end)
    last = times.end() if times else end
    unit = _AFTER.match(text, last) or _PERCENT.match(text, last)
    measure = _MEASURE.match(text, last) if unit is None else None
    is_thousands = times is not None and times[1] == "k"
    is_money = currency is not None or is_thousands or (unit is not None and unit.group() != "%")
    number = _number(match.group(), is_money=is_money)
    first = currency.start() if currency else begin
    last = next((each.end() for each in (unit, measure) if each), last)
    minus = text[first - 1 : first] in ("-", "\u2212") and not continues(text, first - 2, -1)
    if number is None or not stands_alone(text, first - minus, last) or is_grouped(text, begin, end):
        return None
    value = number * _POWERS[times[1]] if times else number
    if unit is not None and unit.group().lstrip().startswith("cent"):
        value /= 100
    mark: Mark = "money" if is_money else "word" if measure else _mark(text, begin, end)
    if not mark and unit is None and _CENTS.fullmatch(match.group()):
        mark = "money"
    return NumberSpan(-value if minus else value, first, last, mark)


def _number(digits: str, *, is_money: bool) -> Decimal | None:
    """Return what digits with marks between them mean, None where that is unclear."""
    if _ZEROS.match(digits):
        return None
    for mark in (" ", *_GAP):
        if mark in digits:
            whole, comma, fraction = re.fullmatch(r"([^.,]*)([.,]?)(.*)", digits).groups()  # type: ignore[union-attr]
            sure = mark != " " or is_money
            fits = sure and _grouped(whole, mark) and bool(comma) == fraction.isdigit()
            return Decimal(f"{whole.replace(mark, '')}.{fraction or 0}") if fits else None
    last = max(digits.rfind("."), digits.rfind(","))
    if "." in digits and "," in digits:
        whole, fraction = digits[:last], digits[last + 1 :]
        mark = "," if digits[last] == "." else "."
        return Decimal(f"{whole.replace(mark, '')}.{fraction}") if _grouped(whole, mark) else None
    if "," in digits:
        if _grouped(digits, ","):
            return Decimal(digits.replace(",", ""))
        # Nobody groups by one or two: 12,50 is what most of Europe writes.
        return Decimal(digits.replace(",", ".")) if re.fullmatch(r"[0-9]+,[0-9]{1,2}", digits) else None
    if is_money and "." in digits and _grouped(digits, "."):
        return Decimal(digits.replace(".", ""))
    return Decimal(digits) if digits.count(".") <= 1 else None


def _grouped(digits: str, mark: str) -> bool:
    first, *rest = digits.split(mark)
    return first.isdigit() and 1 <= len(first) <= 3 and all(len(group) == 3 and group.isdigit() for group in rest)


# What marks them.

MONTHS = {
    "january": 1, "february": 2, "march": 3, "april": 4, "may": 5, "june": 6, "july": 7, "august": 8, "september": 9,
    "october": 10, "november": 11, "december": 12, "jan": 1, "feb": 2, "mar": 3, "apr": 4, "jun": 6, "jul": 7, "aug": 8,
    "sep": 9, "sept": 9, "oct": 10, "nov": 11, "dec": 12, "januar": 1, "februar": 2, "m\u00e4rz": 3, "mai": 5,
    "juni": 6, "juli": 7, "oktober": 10, "dezember": 12, "janvier": 1, "f\u00e9vrier": 2, "mars": 3, "avril": 4,
    "juin": 6, "juillet": 7, "ao\u00fbt": 8, "septembre": 9, "octobre": 10, "novembre": 11, "d\u00e9cembre": 12,
}  # fmt: skip
MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))

_THINGS = (
    "invoice|bill|receipt|ticket|case|booking|reservation|claim|contract|account|acct|card|customer|client|member|employee"
    "|user|flight|item|article|part|ref|reference|id|number|no|nr|num|code|task|issue|project|rechnung|auftrag|kunde|konto"
    "|buchung|vertrag|facture|commande|dossier|compte|\\w{2,20}nummer|\\w{2,20}number"
)
_PLACES = (
    "room|gate|seat|table|page|chapter|version|release|floor|building|apartment|section|step|zimmer|raum|seite|etage"
    "|chambre"
)
_NAMED = re.compile(
    rf"(?:(?<!\w)(?:{_THINGS})\.?:? ?[(#]?|#)\Z"
    # "Order 12 chairs": where a sentence begins it is something to do.
    r"|(?<=[a-z] )(?<!please )(?<!and )(?<!then )(?<!also )(?<!to )order ?[(#]?\Z"
)
_PLACED = re.compile(rf"(?<!\w)(?:{_PLACES})\.? ?[(#]?\Z")
_DATE_BEFORE = re.compile(rf"(?<!\w)(?:(?:{MONTH})\.?|in|since|until|year|jahre?|q[1-4]) \Z")
_DATE_AFTER = re.compile(
    rf"(?:\.|st|nd|rd|th)? ?(?:of )?(?:{MONTH})(?!\w)| ?(?:a\.m|p\.m|am|pm|uhr|o'clock)(?!\w)", re.IGNORECASE
)
_YEAR = re.compile(r"(?:19|20)[0-9][0-9]")


def _mark(text: str, begin: int, end: int) -> Mark:
    if _NAMED.search(text, max(0, begin - 30), begin):
        return "name"
    if _PLACED.search(text, max(0, begin - 30), begin):
        return "place"
    before = _DATE_BEFORE.search(text, max(0, begin - 14), begin)
    if before is not None and _YEAR.fullmatch(text, begin, end):
        return "date"
    is_month = before is not None and before.group().strip(" .") in MONTHS
    # "300 March rent", "500 am Montag": no day and no hour is that large.
    return "date" if end - begin <= 2 and (is_month or _DATE_AFTER.match(text, end)) else ""


# What arguments take.

_SPLIT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MONEY = re.compile(
    "amount|price|cost|fee|total|sum|salary|budget|refund|payment|tip|betrag|preis|summe|gehalt|montant|prix"
)
_QUANTITIES = re.compile(
    "quantity|qty|count|limit|percent|percentage|discount|days|nights|hours|minutes|seats|rooms|people|guests|persons|size"
    "|anzahl|menge|tage|nombre|quantit\u00e9"
)
_NAMES = re.compile(
    "ids?|number|no|nr|code|ref|reference|key|account|iban|invoice|order|ticket|booking|reservation|employee|customer|user"
    "|card"
)
_ROLES: dict[Role, re.Pattern[str]] = {"name": _NAMES, "money": _MONEY, "quantity": _QUANTITIES}


# Numbers in words.

_UNITS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_TEENS = {
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_ALONE = {
    "zwei": 2, "drei": 3, "vier": 4, "f\u00fcnf": 5, "sechs": 6, "sieben": 7, "acht": 8, "neun": 9, "zehn": 10,
    "zw\u00f6lf": 12, "deux": 2, "trois": 3, "quatre": 4, "cinq": 5, "huit": 8, "neuf": 9, "dix": 10, "douze": 12,
}  # fmt: skip
_WORTH = _UNITS | _TEENS | _TENS | _ALONE
_TO_99 = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_UNITS)}))?|{'|'.join([*_TEENS, *_UNITS])})(?!\w)"
_TO_999 = rf"(?:(?:{_TO_99} )?hundred(?!\w)(?:(?: and)? {_TO_99})?|{_TO_99})"
_PHRASE = re.compile(
    rf"(?<!\w)(?:(?:{_TO_999} )?(?:thousand|million)(?!\w)(?:(?: and)? {_TO_999})?|(?:{_TO_99} )?dozen(?!\w)|{_TO_999}"
    rf"|(?:{'|'.join(_ALONE)})(?!\w))"
)
_PRONOUN = re.compile(
    r"(?<!\w)(?:the|this|that|no|any|some|every|each|which|another|last|next|first|other|only) \Z", re.ASCII
)
"""Before `one`: it then stands for something else."""

_DIGITS_BEFORE = re.compile(r"[0-9] \Z")


def _spoken(text: str) -> Iterator[NumberSpan]:
    for match in _PHRASE.finditer(text):
        (begin, end), words = match.span(), match.group().replace("-", " ").split()
        is_pronoun = words == ["one"] and _PRONOUN.search(text, max(0, begin - 9), begin)
        # "5 hundred" is one number, which is found by its digits.
        is_rest = words[0] in _POWERS and _DIGITS_BEFORE.search(text, max(0, begin - 2), begin)
        if not is_pronoun and not is_rest and stands_alone(text, begin, end):
            money = _AFTER.match(text, end)
            yield NumberSpan(_worth(words), begin, money.end() if money else end, "money" if money else "word")


def _worth(words: list[str]) -> Decimal:
    total = group = 0
    for word in words:
        if word in ("thousand", "million"):
            total, group = total + (group or 1) * _POWERS[word], 0
        elif word in _POWERS:
            group = (group or 1) * _POWERS[word]
        else:
            group += _WORTH.get(word, 0)
    return Decimal(total + group)
