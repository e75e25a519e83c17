"""What may not be kept in an agent's memory, or must be labelled: secrets, and personal data with where it stands.

Found are email addresses, telephone numbers, IBANs, payment cards, national ids, IP addresses, and postal addresses and
days of birth where a word beside them makes it certain.  **Names of persons are not detected**, and neither is what
only somebody who knows them can tie to a person: a text without a finding is not one without personal data.

Numbers that have check digits count only if these are right; those whose form many other numbers have count only where
a word before them says what they are.  What telephone numbers there are is in `phonenumbers`; nothing asks a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from ipaddress import ip_address, ip_network
from typing import Literal, NamedTuple

from airside.memory.privacy.confusables import FoldedText, fold_confusables
from airside.memory.privacy.secrets import find_secret
from airside.stack.text.entities import DATE, DIGITS, MAIL, ip_addresses
from airside.stack.text.numbers import MONTH
from airside.stack.text.tokens import stands_alone

__all__ = ["PersonalDataKind", "PersonalDataSpan", "find_personal_data", "find_secret", "redacted"]

PersonalDataKind = Literal["email", "iban", "card", "national_id", "birth_date", "phone", "ip", "address"]
Span = tuple[int, int]


class PersonalDataSpan(NamedTuple):
    """Personal data of a kind, and where it stands: `text[start:end]`."""

    kind: PersonalDataKind
    start: int
    end: int


def find_personal_data(text: str) -> tuple[PersonalDataSpan, ...]:
    """Return the personal data of a text, in order and without overlaps: a value found once, wherever it stands."""
    whole = FoldedText(text)
    rest = whole.text
    digits = len(_DIGIT.findall(rest))
    spans: list[tuple[PersonalDataKind, Span]] = []
    for kind, least, search in _SEARCHES:
        if digits < least:
            continue
        for begin, end in list(search(rest)):
            if _TAKEN in rest[begin:end]:
                continue
            for again in _everywhere(rest, begin, end):
                spans.append((kind, again))
                rest = _without(rest, *again)
    return tuple(
        sorted((PersonalDataSpan(kind, *whole.span(*span)) for kind, span in spans), key=lambda found: found.start)
    )


def redacted(text: str, found: tuple[PersonalDataSpan, ...]) -> str:
    """Return a text with `[email]`, `[phone]`, ... in the place of what was found in it."""
    pieces, at = [], 0
    for kind, start, end in sorted(found, key=lambda each: each.start):
        pieces += [text[at:start], f"[{kind}]"]
        at = max(at, end)
    return "".join((*pieces, text[at:]))


_DIGIT = re.compile(r"\d")

_TAKEN = "\x00"
"""In the place of what was found already: a folded text has none, and no pattern goes on over it."""


def _without(text: str, begin: int, end: int) -> str:
    return text[:begin] + _TAKEN * (end - begin) + text[end:]


def _everywhere(text: str, begin: int, end: int) -> Iterator[Span]:
    yield begin, end
    value, at = text[begin:end], 0
    while (at := text.find(value, at)) >= 0:
        if (at >= end or at + len(value) <= begin) and stands_alone(text, at, at + len(value)):
            yield at, at + len(value)
        at += len(value)


# Addresses of mail and of the network.

_HOST = re.compile(r"(?:[\w\-]+\.)+(?:[^\W\d_]{2,24}|xn--[\w\-]+)|\[.*")
_SPELT_MAIL = re.compile(
    r"(?<![\w.+\-])[\w.+\-]{1,64}\s{0,2}[\[({<]\s?at\s?[\])}>]\s{0,2}[\w\-]{1,63}"
    r"(?:\s{0,2}(?:\.|[\[({<]\s?dot\s?[\])}>]|\sdot\s)\s{0,2}[\w\-]{1,63}){1,5}",
    re.IGNORECASE,
)
_BRACKET = re.compile(r"[\[({<]")
_BEFORE_MAIL = re.compile(r".*[=?&/{}|`]|['*_~]+", re.DOTALL)
"""What may stand before an address and be read as its beginning: `?to=`, a path, marks of emphasis."""


def _mails(text: str) -> Iterator[Span]:
    if "@" in text:
        for match in MAIL.finditer(text):
            at = text.index("@", match.start())
            before = _BEFORE_MAIL.match(text, match.start(), at)
            begin = before.end() if before is not None else match.start()
            if begin < at and _HOST.fullmatch(text, at + 1, match.end()):
                yield begin, match.end()
    if _BRACKET.search(text) is not None:
        yield from (match.span() for match in _SPELT_MAIL.finditer(text))


_OF_PERSONS = tuple(ip_network(each) for each in ("2000::/3", "fc00::/7", "fe80::/10"))
"""IPv6 addresses that hosts have: `a::b` and `x[::2]` are programs."""

_VERSION = re.compile(r"(?:version|release|build|firmware|\bv)\s{0,2}\.?\Z", re.IGNORECASE)


_DOTS, _COLONS = 3, 2
"""What an address of either version has at least."""


def _ips(text: str) -> Iterator[Span]:
    if text.count(".") < _DOTS and text.count(":") < _COLONS:
        return
    for match in ip_addresses(text):
        address = ip_address(match.group())
        if address.version == 6:
            fits = any(address in network for network in _OF_PERSONS)
        else:
            fits = not (address.is_loopback or address.is_unspecified or address.is_multicast)
        is_network = text[match.end() : match.end() + 1] == "/"
        if fits and not is_network and not _VERSION.search(text, max(0, match.start() - 12), match.start()):
            yield match.span()


# Numbers with check digits.

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ \-]?[A-Za-z0-9]){11,30}")
_CARD = re.compile(
    r"(?<![\d.,\-])[2-6]\d{3}(?:[ \-]?\d{4}){2}[ \-]?\d{1,7}(?![\d\-])"
    r"|(?<![\d.,\-])3\d{3}[ \-]?\d{6}[ \-]?\d{4,5}(?![\d\-])"
)
_ISSUER = re.compile(r"4|5[0-8]|6(?:011|4[4-9]|5|2|7|3)|2[2-7]|3[47]|3(?:0[0-5]|6|8|9)|35")


def _ibans(text: str) -> Iterator[Span]:
    from stdnum import iban

    for match in _IBAN.finditer(text):
        # An account's number ends where its country says, and words may follow it.
        for end in _ends(text, match.start() + 15, match.end()):
            if iban.is_valid(text[match.start() : end], check_country=False):
                yield match.start(), end
                break


def _ends(text: str, first: int, last: int) -> Iterator[int]:
    return (end for end in range(last, first - 1, -1) if text[end - 1].isalnum() and not text[end : end + 1].isalnum())


def _cards(text: str) -> Iterator[Span]:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if 13 <= len(digits) <= 19 and _ISSUER.match(digits) and len(set(digits)) > 1 and luhn.is_valid(digits):
            yield match.span()


_ID_WORD = (
    r"national id|identity|identification|\bid\b|\bid[- ]?(?:card|number|no)|passport|insurance|tax|social|citizen"
)
_IDS: tuple[tuple[str, str, str], ...] = (
    ("stdnum.us.ssn", r"\d{3}[ \-]\d{2}[ \-]\d{4}|\d{9}", r"ssn|social security"),
    ("stdnum.us.itin", r"9\d{2}-?\d{2}-?\d{4}", r"itin|taxpayer"),
    ("stdnum.ca.sin", r"\d{3}[ \-]?\d{3}[ \-]?\d{3}", r"\bsin\b|social insurance"),
    ("stdnum.gb.nhs", r"\d{3}[ \-]?\d{3}[ \-]?\d{4}", r"\bnhs\b"),
    ("stdnum.de.idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", r"steuer|identifikationsnummer|tax|idnr"),
    ("stdnum.fr.nir", r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", ""),
    ("stdnum.es.dni", r"\d{8}-?[A-Z]", ""),
    ("stdnum.es.nie", r"[XYZ]-?\d{7}-?[A-Z]", ""),
    ("stdnum.it.codicefiscale", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", ""),
    ("stdnum.nl.bsn", r"\d{9}", r"\bbsn\b|burgerservice"),
    ("stdnum.be.nn", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", ""),
    ("stdnum.ch.ssn", r"756\.\d{4}\.\d{4}\.\d{2}", ""),
    ("stdnum.se.personnummer", r"(?:19|20)?\d{6}[\-+]\d{4}", r"person|" + _ID_WORD),
    ("stdnum.fi.hetu", r"\d{6}[\-+A]\d{3}[0-9A-Y]", ""),
    ("stdnum.dk.cpr", r"\d{6}-?\d{4}", r"\bcpr\b|person"),
    ("stdnum.no.fodselsnummer", r"\d{6} ?\d{5}", r"fodsels|personnummer|" + _ID_WORD),
    ("stdnum.pl.pesel", r"\d{11}", r"pesel"),
    ("stdnum.br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", ""),
    ("stdnum.in_.aadhaar", r"\d{4} ?\d{4} ?\d{4}", r"aadhaar|adhar"),
    ("stdnum.in_.pan", r"[A-Z]{5}\d{4}[A-Z]", r"\bpan\b"),
    ("stdnum.tr.tckimlik", r"\d{11}", r"kimlik|tckn"),
    ("stdnum.za.idnr", r"\d{13}", _ID_WORD),
    ("stdnum.cn.ric", r"\d{17}[\dX]", ""),
)
"""What checks a national id, its form, and the word that must stand before it, if other numbers have that form."""

_DIGITS_OF = {
    "stdnum.us.ssn": 9, "stdnum.us.itin": 9, "stdnum.ca.sin": 9, "stdnum.gb.nhs": 10, "stdnum.de.idnr": 11,
    "stdnum.fr.nir": 14, "stdnum.es.dni": 8, "stdnum.es.nie": 7, "stdnum.it.codicefiscale": 7, "stdnum.nl.bsn": 9,
    "stdnum.be.nn": 11, "stdnum.ch.ssn": 13, "stdnum.se.personnummer": 10, "stdnum.fi.hetu": 9, "stdnum.dk.cpr": 10,
    "stdnum.no.fodselsnummer": 11, "stdnum.pl.pesel": 11, "stdnum.br.cpf": 11, "stdnum.in_.aadhaar": 12,
    "stdnum.in_.pan": 4, "stdnum.tr.tckimlik": 11, "stdnum.za.idnr": 13, "stdnum.cn.ric": 17,
}  # fmt: skip
"""Digits that each of them has at least: a text with fewer is not searched for it."""

_WORD_REACH = 40


@cache
def _ids_compiled() -> tuple[tuple[str, int, re.Pattern[str], re.Pattern[str] | None], ...]:
    return tuple(
        (
            name,
            _DIGITS_OF[name],
            re.compile(rf"(?<![\w.\-/])(?:{form})(?![\w\-/]|\.\d)"),
            re.compile(word, re.IGNORECASE) if word else None,
        )
        for name, form, word in _IDS
    )


@cache
def _check_of(name: str) -> Callable[[str], bool]:
    check: Callable[[str], bool] = import_module(name).is_valid
    return check


def _ids(text: str) -> Iterator[Span]:
    digits = len(_DIGIT.findall(text))
    for name, least, form, word in _ids_compiled():
        if digits < least or (word is not None and not word.search(text)):
            continue
        for match in form.finditer(text):
            named = word is None or word.search(text, max(0, match.start() - _WORD_REACH), match.start())
            if named and _check_of(name)(match.group()):
                yield match.span()


# Telephone numbers.

_CALLS = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|call|calls|called|calling|fax|text|texted|sms|whatsapp|dial|ring|reach|reached"
    r"|handy|telefon\w*|anrufen|mobil\w*|durchwahl|portable|appel\w*|movil|llama\w*|hotline|signal)\b",
    re.IGNORECASE,
)
_NO_CALL = re.compile(
    r"(?:order|invoice|ticket|account|booking|ref(?:erence)?|customer|case|number of|id|serial|version|#)"
    r"[\w .:#]{0,8}\Z",
    re.IGNORECASE,
)
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "AT", "CH", "IN", "AU", "BR", "JP")
"""Where a number without its country's code may be: it must be one in some of them, and be called one."""

_DECIMAL = re.compile(r"\+?\d+\.\d+")
_GROUPED = re.compile(r"\(\d{3}\) ?\d{3}[\-. ]\d{4}|1?[\-. ]?\d{3}([\-.])\d{3}\1\d{4}")
"""How North America writes its numbers, and little else."""

_PARTS = re.compile(r"(?:[+(]{0,2}\d)(?:[ \-./()]{0,2}\d){6,16}")
_CALL_REACH = 32


def _phones(text: str) -> Iterator[Span]:
    for run in DIGITS.finditer(text):
        # Several numbers may stand behind one another.
        for match in _PARTS.finditer(text, *run.span()):
            if stands_alone(text, *match.span()) and _is_phone(text, *match.span()):
                yield match.span()


def _is_phone(text: str, begin: int, end: int) -> bool:
    value = text[begin:end]
    if _DECIMAL.fullmatch(value):
        return False
    if value.lstrip("(").startswith("+") or value.startswith("00"):
        return _is_valid("+" + value.lstrip("(+0"), None)
    if DATE.fullmatch(value) or _NO_CALL.search(text, max(0, begin - 24), begin):
        return False
    if _GROUPED.fullmatch(value):
        return _is_valid(value, "US")
    called = _CALLS.search(text, max(0, begin - _CALL_REACH), begin)
    return called is not None and any(_is_valid(value, region) for region in _REGIONS)


def _is_valid(value: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(value, region))
    except phonenumbers.NumberParseException:
        return False


# What only a word beside it makes certain.

_BORN = re.compile(
    r"\b(?:born|birth ?days?|birth ?dates?|date of birth|d\.?o\.?b\.?|geboren|geburts(?:tag|datum)|geb\.|nee? le"
    r"|nacid[oa]|fecha de nacimiento|date de naissance|nat[oa] il|data di nascita)(?!\w)",
    re.IGNORECASE,
)
_MONTH = fold_confusables(MONTH)
_DAY = re.compile(
    rf"\b\d{{1,2}}(?:\.|st|nd|rd|th)?[ \-](?:of |de )?(?:{_MONTH})\b\.?,?(?:[ \-](?:de )?(?:19|20)\d\d)?"
    rf"|\b(?:{_MONTH})\.? \d{{1,2}}(?:st|nd|rd|th)?\b(?:,? (?:19|20)\d\d)?"
    r"|\b\d{1,2}[./\-]\d{1,2}[./\-](?:\d{4}|\d\d)\b",
    re.IGNORECASE,
)
_BORN_REACH = 40
_ELSE = re.compile(r"[;\n]|[.!?] |\b(?:and|but|who|while|since|then|came|joined)\b", re.IGNORECASE)
"""After it a day is that of something else."""


def _births(text: str) -> Iterator[Span]:
    for word in _BORN.finditer(text):
        for form in (DATE, _DAY):
            match = form.search(text, word.end(), word.end() + _BORN_REACH)
            if match is not None and not _ELSE.search(text, word.end(), match.start()):
                yield match.span()
                break


_STREETS = r"Street|Avenue|Boulevard|Blvd\.?|Road|Lane|Drive|Terrace|Crescent|St\.?|Ave\.?|Rd\.?|Ln\.?"
_WIDER = rf"{_STREETS}|Court|Place|Square|Way|Close|Row|Parkway|Pkwy|Dr\.?|Ct\.?|Pl\.?|Circle|Highway|Hwy|Gardens|Mews"
_STREET_NAME = r"(?:[NSEW]\.? )?(?:[A-Z][\w']{1,20}|\d{1,3}(?:st|nd|rd|th))(?: [A-Z][\w']{1,20}){0,2}"
_TAIL = (
    r"(?:,? (?:Apt|Apartment|Unit|Suite|Ste|Flat|Floor|#)\.? ?\w{1,6})?(?:, [A-Z][a-z]{2,20}(?: [A-Z][a-z]{2,20})?)?"
    r"(?:,? (?:[A-Z]{2} \d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}))?"
)
_POSTCODE = r"(?:, ?(?:[A-Z]{1,2}-)?\d{4,5} [A-Z][\w\-]{2,24})?"
_GERMAN = r"[A-Z][\w\-]{1,30}(?:str(?:asse|a\u00dfe|\.)|gasse|weg|platz|allee) \d{1,4} ?[a-z]?(?!\w)"
_FRENCH = r"\d{1,4},? (?:bis )?(?:rue|avenue|boulevard|place|chemin) (?:d[eu]s? |d'|de la )?[A-Z][\w\- ]{1,30}\w"
_ROMANCE = r"(?:Calle|Via|Viale|Rua|Avenida|Plaza) (?:de(?:l| la)? )?[A-Z]\w{1,20}(?: [A-Z]\w{1,20})?,? \d{1,4}(?!\w)"
_POSTAL = (
    re.compile(rf"(?<![\w$.,\-])\d{{1,5}}[A-Za-z]? {_STREET_NAME} (?:{_STREETS})(?!\w){_TAIL}"),
    re.compile(rf"(?<!\w)(?:{_GERMAN}|{_FRENCH}|{_ROMANCE}){_POSTCODE}"),
    re.compile(r"(?<!\w)P\.? ?O\.? Box \d{1,6}(?!\w)", re.IGNORECASE),
)
_LIVES = re.compile(
    r"\b(?:address(?:es)?(?: is| was|:)|lives? (?:at|in)|lived at|living at|resid(?:es|ing) at|moved to"
    r"|(?:ship(?:ped)?|deliver(?:ed)?|send) (?:it |them )?to|home (?:is )?at)\s",
    re.IGNORECASE,
)
_LIVES_REACH = 90
_AT_HOME = re.compile(rf"\d{{1,5}}[A-Za-z]? {_STREET_NAME} (?:{_WIDER})(?!\w){_TAIL}")


_STREET_PARTS = tuple(word.removesuffix(r"\.?") for word in _WIDER.split("|"))
_OTHER_PARTS = (
    "str", "gasse", "weg", "platz", "allee", "rue ", "avenue ", "boulevard ", "place ", "chemin ",
    "Calle ", "Via", "Rua ", "Avenida ", "Plaza ",
)  # fmt: skip
"""One of these is in whatever the first and the last, and the second of the forms above match."""


def _addresses(text: str) -> Iterator[Span]:
    has_street = any(map(text.__contains__, _STREET_PARTS))
    has_other = any(map(text.__contains__, _OTHER_PARTS))
    for form, may_be in zip(_POSTAL, (has_street, has_other, "box" in text.lower()), strict=True):
        if may_be:
            yield from (match.span() for match in form.finditer(text))
    if not has_street:
        return
    for word in _LIVES.finditer(text):
        match = _AT_HOME.search(text, word.end(), word.end() + _LIVES_REACH)
        if match is not None:
            yield match.span()


_SEARCHES: tuple[tuple[PersonalDataKind, int, Callable[[str], Iterator[Span]]], ...] = (
    ("email", 0, _mails),
    ("iban", 2, _ibans),
    ("card", 13, _cards),
    ("birth_date", 1, _births),
    ("national_id", 4, _ids),
    ("ip", 0, _ips),
    ("phone", 7, _phones),
    ("address", 1, _addresses),
)
"""What is looked for where a text has that many digits at least, as every one of its kind does.

In this order: what has a check digit or a form of its own is not read as a telephone number.
"""
