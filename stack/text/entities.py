"""What in a text a reader may follow, pay to, call, or not see: links, addresses, account numbers, hidden characters.

Content may say anything, but what it points to must come from somewhere a principal or an operator stands for.  A
finding is the text as it stands; what hides one (`hxxp`, `[.]`, entities, percent signs, punycode, zero width) is one
itself.  Dates, times and plain amounts are none.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import unicodedata
from collections.abc import Iterator

from airside.stack.text.forms import in_form


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_FLAGS = re.IGNORECASE
_STOP = r"\s<>\"'()\[\]{}|\\^`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_HYPHENS = r"\-\u2010-\u2015\u2043\u2212"
_BLANKS = r" \t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_SCHEMES = "javascript|vbscript|file|blob|mailto|tel|sms|ftp|intent|ms-[a-z]+|view-source|jar|ldap|ssh|magnet"

_LINK = re.compile(rf"(?<![a-z0-9])[a-z][a-z0-9+.\-]{{1,30}}:\s?[/\\]{{2}}[^{_STOP}]+|(?<![\w:/])//[^{_STOP}]+", _FLAGS)
_SHARE = re.compile(r"\\\\[\w.\-]+\\\S*")
_URI = re.compile(rf"(?<![\w])(?:(?:{_SCHEMES}):[^{_STOP}]+|data:(?:[\w.+\-]+/|[,;])[^{_STOP}]*)", _FLAGS)
_TARGET = re.compile(
    r"\]\(\s{0,9}<?([^)\s>]{1,2000})|^[ ]{0,3}\[[^\]\n]{1,200}\]:\s{0,9}(\S{1,2000})", _FLAGS | re.MULTILINE
)
_ANCHOR = re.compile(r"<a\s{1,9}href\s{0,3}=\s{0,3}(?:\"([^\"]{1,2000})\"|'([^']{1,2000})')\s{0,9}>", _FLAGS)
_TAG = re.compile(
    r"<(?:script|iframe|object|embed|form|meta|base|link|style|svg|math|input|img)\b[^>]{0,2000}"
    r"|<[a-z!?][^<>=]{0,200}=[^>]{0,2000}",
    _FLAGS,
)
_LOCAL = r"[\w.+\-%!#$&*/=?^`{|}~']"
MAIL = re.compile(
    rf"(?<!{_LOCAL}){_LOCAL}++[@\uff20\ufe6b](?:[\w\-]++(?:[.\u3002\uff0e\uff61][\w\-]++)*|\[[^\]\s]{{1,60}}\])"
)
_DOMAIN = re.compile(
    rf"(?<![\w\-])(?P<host>[\w\-]{{1,63}}+(?:\.[\w\-]{{1,63}}+)++)(?P<rest>(?::\d{{1,5}})?(?:[/?#][^{_STOP}]*)?)",
    _FLAGS,
)
_ENDINGS = (
    "com|net|org|io|info|biz|app|dev|xyz|top|site|online|shop|link|click|cloud|bank|pay|co|uk|eu|ru|cn|tk|cc|example"
)
_MORE_ENDINGS = (
    "icu|vip|club|store|tech|live|buzz|cyou|cfd|sbs|monster|rest|mobi|pro|ws|bz|gg|ly|gl|pw|su|de|fr|nl|pl|es|ch|br|jp|kr"
    "|tv|fm|cam|bond|lol|world|zone|email|finance|money|support|help|center|market|website|space|fun|page|zip|mov"
)
"""Further ones, which stand beside a dot and a blank in no sentence."""

_DISGUISED = re.compile(
    r"[\[({<]\s{0,3}(?:\.|dot|d0t|at|@|:|://|slash)\s{0,3}[\])}>]|\s(?:dot|d0t)\s{1,3}[a-z]{2,24}\b"
    rf"|\s\.\s{{1,3}}(?:{_ENDINGS}|{_MORE_ENDINGS})\b|\s\.(?:{_MORE_ENDINGS})\b"
    rf"|(?<=\w)[\u00b7\u2022\u2027\u2219\u22c5\u30fb](?:{_ENDINGS}|{_MORE_ENDINGS})\b"
    r"|\u3002(?:\u4e2d\u56fd|\u4e2d\u570b|\u516c\u53f8|\u7f51\u7edc|\u7f51\u5740|\u5728\u7ebf|\u9999\u6e2f|\u53f0\u6e7e)(?!\w)"
    rf"|\s(?:\.(?!net\b)|(?:punkt|point|punto)\s{{1,3}})(?:{_ENDINGS})\b"
    r"|(?<=\w),(?:com|net|org|example)\b|\bhxxps?|h\*\*ps?"
    r"|&#x?[0-9a-f]{1,7}|&(?:period|commat|colon|sol|bsol|tab|newline|lowbar|hyphen|dash|equals|quest|lpar|rpar|zwn?j|shy"
    r"|lrm|rlm|nobreak);|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|%[0-9a-f]{2}|\bxn--|[\u3002\uff0e\uff61\u2024\ufe52][a-z]{2,24}\b",
    _FLAGS,
)
_HANDLE = re.compile(r"(?<![\w@.\-/])@([^\W\d]\w{2,}(?:[.\-]\w+)*)", _FLAGS)
_EVERYBODY = _set("channel here everyone everybody all group team room online")
"""Handles that are words as well: of these the sign is a part."""

_MENTION = re.compile(
    r"<(?:(?:![a-z]|[@#][!&]?[a-z0-9])[^<>\s|]{0,200}(?:\|[^<>]{0,200})?|at(?: id=[^<>]{0,200})?)>",
    _FLAGS,
)
"""Whom a chat program tells: `<!channel>`, `<@U024BE7LH>`, `<!subteam^S1|ops>`, `<at>Ann</at>`."""

_SPOKEN_WORDS = (
    "oh|zero|one|two|three|four|five|six|seven|eight|nine|double|triple|null|eins|zwei|drei|vier|f\u00fcnf|sechs|sieben"
    "|acht|neun|deux|trois|quatre|cinq|sept|huit|neuf"
)
_SPOKEN_MIN = 7
_SPOKEN = re.compile(rf"(?:\b(?:{_SPOKEN_WORDS})\b[\s,\-]{{0,3}}){{{_SPOKEN_MIN},}}", _FLAGS)
_SPOKEN_SET = frozenset(_SPOKEN_WORDS.split("|"))
_V4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_V6 = re.compile(r"(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])", _FLAGS)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0?[1-9]|1[0-2])"
_CLOCK = r"(?:[T ](?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?(?:Z|[+\-][01]\d:?[0-5]\d)?)?"
DATE = re.compile(
    rf"(?<![\w.\-/])(?:(?:19|20)\d\d[\-/]{_MONTH}[\-/]{_DAY}{_CLOCK}|{_DAY}[./]{_MONTH}[./](?:19|20)\d\d"
    rf"|{_MONTH}/{_DAY}/(?:19|20)\d\d|(?:19|20)\d\d\s?[\-/\u2013]\s?(?:19|20)\d\d)(?![\w\-/]|\.\d)"
)
_AMOUNT = re.compile(
    r"(?<![\w.,\-/])(?:\d{1,3}(?:,\d{3}){1,4}(?:\.\d{1,2})?|\d{1,3}(?:\.\d{3}){1,4},\d{1,2}|\d{1,7}[.,]\d{1,2})(?![\w\-/]|[.,]\d)"
)
_APART = rf"[{_BLANKS}{_HYPHENS}\r\n./:_|]{{1,3}}"
# One digit a turn: groups of one to four are divided in millions of ways before a text is given up.
_IBAN = re.compile(
    rf"\b[a-z]{{2}}\d{{2}}(?:(?:{_APART})?(?:[a-z]{{4}}{_APART})?[a-z]{{0,4}}\d){{6,40}}[a-z]{{0,4}}\b", _FLAGS
)
_IBAN_MIN, _IBAN_DIGITS = 15, 8
_WALLET = re.compile(rf"\b(?=[a-z]{{0,7}}\d)[a-z0-9]{{2,8}}(?:[{_BLANKS}{_HYPHENS}][a-z0-9]{{2,8}}){{4,15}}\b", _FLAGS)
_WALLET_MIN, _WALLET_GROUPS = 15, 3
DIGITS = re.compile(rf"(?<!\d)[+(]{{0,2}}\d(?:(?:[{_BLANKS}{_HYPHENS}./()_]{{0,3}}|[:*#~\u00b7\u2022])\d){{7,63}}")
_CLOCK_TIME = re.compile(r"(?<![\d:])(?:[01]?\d|2[0-4])(?::[0-5]\d){1,2}(?![\d:])")
_TOKEN = re.compile(r"[A-Za-z0-9]{8,}")
_TOKEN_DIGITS = 4
_HEX = re.compile(r"\b(?:0x)?[0-9a-f]{16,}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", _FLAGS)
_BASE58 = re.compile(r"[1-9A-HJ-NP-Za-km-z]{25,}")
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffc\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_HIDDEN_CHARACTER = re.compile(f"[{INVISIBLE}]")
_NOT_SHOWN = re.compile(rf"[{INVISIBLE}\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
"""Hidden characters, and those by which a terminal is told what to do."""
MAX_MARKS = 8
"""On one character: Burmese and Tibetan come near, and nothing that is read has more."""

_MAYBE_TOWER = re.compile(rf"[^\w\x00-\x7f]{{{MAX_MARKS + 1}}}")
"""No mark is part of a word as this sees it; texts that have no such run need not be looked at one by one."""


_STYLE, _JOIN = "\ufe0f", "\u200d"
FILES = re.compile(
    r"pdf|txt|docx?|xlsx?|pptx?|od[ts]|[ct]sv|jsonl?|ya?ml|xml|html?|png|jpe?g|gif|svg|bmp|webp|mpe?g|avi|wav|log|ini|cfg"
    r"|conf|toml|lock|bak|tmp|tar|gz|rar|iso|[jt]sx?|css|[ch]pp|java|cs|go|rb|sql|exe|dll|eml|ics|parquet|ipynb|tex|rtf"
)
"""Endings of file names that are no top-level domains; one that is both (zip, mov, md, py) is a domain."""

COMMON = re.compile(
    r"com|net|org|edu|gov|mil|int|info|biz|name|pro|app|dev|xyz|top|site|online|shop|store|club|live|link|click|page|cloud"
    r"|tech|space|website|work|email|bank|pay|finance|money|support|help|zip|mov"
)
_STARTERS = _set(
    "after again also although always and another any are aren ask because before both but can could dear did"
    " does don each either even every finally for from furthermore had has have having hello her his however"
    " indeed instead its just last later let many maybe meanwhile moreover most much must never nobody none nor"
    " not nothing often once only other otherwise our perhaps please regards second several shall she should since"
    " some still such sure thank thanks that the their them then there therefore these they this those though thus"
    " under unless until very was were what whatever when where whereas which while who whose why will with"
    " without would yesterday yet your monday tuesday wednesday thursday friday saturday sunday aber auch bitte"
    " danach danke dann das dem den der deshalb die dies diese dieser dort ein eine einen falls ich ihr ist jede"
    " jetzt kein mit nach nicht oder sie sind und uns vielen wenn wer wie wir aussi avec bonjour car cela ces cet"
    " cette dans des donc elle est les leur mais merci nos notre nous par pas pour puis quand que qui sans ses son"
    " sur une vos votre vous"
)
"""Words that begin the next sentence, and are no top-level domains: a blank is missing before `the end.Then`."""

_TITLES = _set("st ste mr mrs ms dr prof mt ft nr")
_TRAILING = ".,;:!?*_~\u2026"
_SPACE = re.compile(r"\S")
_WORD_BEFORE = re.compile(r"(?:\S++\s{0,3}+)?\Z")
_WORD_AFTER = re.compile(r"\s{0,3}\S{0,80}")
_JOINED = re.compile(r"[\w\-./+#]")
_NEAR = 80
"""How far what is joined to a finding is shown with it."""

MAX_SCANNED = 32 * 1024
"""Characters of a call's content that are looked at: some patterns take ten microseconds a character at worst."""

MAX_ENTITIES = 500
"""A text that has more is not read to its end."""


def find_entities(text: str) -> list[str]:
    """Return what a text points to or hides, each once.  A text that is not read to its end is a finding itself."""
    values = list(itertools.islice(_both(text), MAX_ENTITIES)) if len(text) <= MAX_SCANNED else [text]
    if len(values) == MAX_ENTITIES:
        values = [text]
    return [clean for clean in dict.fromkeys(value.strip().rstrip(_TRAILING) for value in values) if clean]


def visible(text: str) -> str:
    """Return a text for a person to see: hidden characters, and controls but tabs and line ends, are escapes.

    So are marks beyond `MAX_MARKS` on one character: a tower of them covers the lines around it, and breaks nowhere.
    """
    shown = _NOT_SHOWN.sub(lambda match: _escape(match.group()), text)
    return "".join(_without_towers(shown)) if _MAYBE_TOWER.search(shown) else shown


def _without_towers(text: str) -> Iterator[str]:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        yield character if marks <= MAX_MARKS else _escape(character)


def _escape(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"


def _both(text: str) -> Iterator[str]:
    """Yield what stands in a text, and what a reader or a browser makes of its wide, circled and raised characters."""
    raw = list(itertools.islice(_each(text), MAX_ENTITIES))
    yield from raw
    plain = text if text.isascii() else in_form("NFKC", text)
    if len(plain) > 2 * MAX_SCANNED:
        yield text
    elif plain != text:
        known = {in_form("NFKC", found) for found in raw}
        yield from (found for found in _each(plain) if found not in known)


def _each(text: str) -> Iterator[str]:
    yield from _hidden(text)
    if text.isalpha():
        return
    rest = text
    for pattern, marks in _LINKS:
        if marks.isdisjoint(text):
            continue
        found = list(pattern.finditer(rest))
        yield from (match.group() for match in found)
        rest = pattern.sub(_blank, rest) if found else rest
    yield from _marked_up(text)
    for match in _DISGUISED.finditer(text):
        before = _WORD_BEFORE.search(text, max(0, match.start() - _NEAR), match.start())
        after = _WORD_AFTER.match(text, match.end())
        assert before is not None and after is not None
        yield text[before.start() : after.end()]
    if "<" in rest:
        yield from (match.group() for match in _MENTION.finditer(rest))
    if "@" in rest:
        yield from (match.group() if match[1].lower() in _EVERYBODY else match[1] for match in _HANDLE.finditer(rest))
    if _counts(rest):
        yield from (match.group() for match in _SPOKEN.finditer(rest))
    yield from _domains(rest)
    yield from (match.group() for match in ip_addresses(rest))
    yield from _identifiers(rest)


_LINKS = (
    (_LINK, frozenset("/\\")),
    (_SHARE, frozenset("\\")),
    (_URI, frozenset(":")),
    (MAIL, frozenset("@\uff20\ufe6b")),
)
"""Each with the characters one of which a match has: most texts have none, and are read faster."""


def _counts(text: str) -> bool:
    """Whether a text has the words of a telephone number somewhere: most have not, and are read faster."""
    words = text.lower().replace(",", " ").replace("-", " ").split()
    return sum(word in _SPOKEN_SET for word in words) >= _SPOKEN_MIN - 1


def _marked_up(text: str) -> Iterator[str]:
    """Yield the targets of Markdown's and HTML's links, and tags that do something."""
    if "]" in text:
        yield from (next(group for group in match.groups() if group) for match in _TARGET.finditer(text))
    if "<" in text:
        yield from (next(group for group in match.groups() if group) for match in _ANCHOR.finditer(text))
        yield from (match.group() for match in _TAG.finditer(_ANCHOR.sub(" ", text)))


def _around(text: str, begin: int, end: int, within: re.Pattern[str] = _SPACE) -> str:
    """Return what stands there with all that is joined to it."""
    first, last = max(0, begin - _NEAR), min(len(text), end + _NEAR)
    while begin > first and within.match(text[begin - 1]):
        begin -= 1
    while end < last and within.match(text[end]):
        end += 1
    return text[begin:end]


def _hidden(text: str) -> Iterator[str]:
    if text.isascii():
        return
    for match in _HIDDEN_CHARACTER.finditer(text):
        if not _draws(text, match.start()):
            yield _around(text, *match.span())


def _draws(text: str, at: int) -> bool:
    """Whether an invisible character only joins or colours a symbol, as in emoji."""
    before = text[at - 1 : at]
    if text[at] == _JOIN and before == _STYLE:
        before = text[max(0, at - 2) : at - 1]
    drawn = before != "" and (unicodedata.category(before) in ("So", "Sk") or before in "#*0123456789")
    return drawn and text[at] in (_STYLE, _JOIN)


def _domains(text: str) -> Iterator[str]:
    at, lettered = 0, _lettered(text)
    while match := _DOMAIN.search(lettered, at):
        length = len(_domain(match))
        if length:
            yield text[match.start() : match.start() + length]
        # What follows a number or a file's name is no path of theirs, and is read on its own.
        at = match.end() if length else match.end("host")


def _lettered(text: str) -> str:
    """Return a text as long, with a letter for each mark and symbol that a name may be spelled with."""
    return text if text.isascii() else "".join("x" if _spells(char) else char for char in text)


def _spells(char: str) -> bool:
    # What is plainly another character is read as that (`_both`).
    return char > "\x7f" and unicodedata.category(char) in _SPELLING and unicodedata.normalize("NFKC", char) == char


_SPELLING = frozenset(("Mn", "Mc", "Me", "So", "Sk"))


def _domain(match: re.Match[str]) -> str:
    """Return what a reader could open of labels and dots; nothing for a file's name or the end of a sentence."""
    labels = match["host"].split(".")
    while len(labels) > 1 and not (
        re.fullmatch(r"[^\W\d_]{2,24}", labels[-1]) or labels[-1].lower().startswith("xn--")
    ):
        labels.pop()
    *before, last = labels
    if not before:
        return ""
    found = ".".join(labels) + (match["rest"] if len(".".join(labels)) == len(match["host"]) else "")
    if "/" in found or found.lower().startswith("www.") or COMMON.fullmatch(last.lower()):
        return found
    is_file = FILES.fullmatch(last.lower()) is not None
    return "" if is_file or _begins_a_sentence(before, last) else found


def _begins_a_sentence(before: list[str], word: str) -> bool:
    """Whether a word after a dot is the next sentence's, as in `the end.Then`, or a name's, as in `St.Gallen`."""
    if not (word[0].isupper() and word[1:].islower() and len(word) > 2):
        return False
    is_end = len(before) == 1 or FILES.fullmatch(before[-1].lower()) is not None
    return (is_end and word.lower() in _STARTERS) or (len(before) == 1 and before[0].lower() in _TITLES)


def ip_addresses(text: str) -> Iterator[re.Match[str]]:
    """Yield where IP addresses of either version stand in a text."""
    for pattern in (_V4, _V6):
        for match in pattern.finditer(text):
            try:
                ipaddress.ip_address(match.group())
            except ValueError:
                continue
            yield match


def _identifiers(text: str) -> Iterator[str]:
    rest = _AMOUNT.sub(_blank, DATE.sub(_blank, text))
    for pattern, fits in (
        (_HEX, None),
        (_IBAN, _is_account),
        (_BASE58, _has_digit),
        (_WALLET, _is_wallet),
        (_TOKEN, _is_mixed),
        (DIGITS, None),
    ):
        # Last, so that an account is none that is written as times of a day.
        rest = _CLOCK_TIME.sub(_blank, rest) if pattern is DIGITS else rest
        for match in pattern.finditer(rest):
            if fits is None or fits(match.group()):
                yield _around(rest, *match.span(), _JOINED)
                rest = rest[: match.start()] + " " * len(match.group()) + rest[match.end() :]


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _is_account(text: str) -> bool:
    core = [char for char in text if char.isalnum()]
    return len(core) >= _IBAN_MIN and sum(char.isdigit() for char in core) >= _IBAN_DIGITS


def _is_wallet(text: str) -> bool:
    """Whether groups are of letters and digits together, as nothing is but what is to be copied."""
    groups = re.findall(r"[a-z0-9]+", text, _FLAGS)
    mixed = sum(any(c.isdigit() for c in each) and any(c.isalpha() for c in each) for each in groups)
    return sum(map(len, groups)) >= _WALLET_MIN and mixed >= max(_WALLET_GROUPS, len(groups) // 2)


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _is_mixed(text: str) -> bool:
    return sum(char.isdigit() for char in text) >= _TOKEN_DIGITS and not text.isdigit()
