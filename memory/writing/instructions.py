"""Whether a text instructs whoever reads it: a memory is shown to agents, and must not tell them what to do.

What is looked for stands in `instructions.yaml`: to pass over what one was told, to be somebody else, to let
something through, to keep silent, to give something away.  A text is also read as a reader would decode it: written in
look-alikes, apart, backwards, with its letters in disorder or as digits, in base64, in escapes.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Iterator
from functools import cache
from urllib.parse import unquote

from airside.memory.privacy.confusables import fold_confusables
from airside.memory.text import normal
from airside.memory.writing.phrases import PhraseTable, Reading, folded, load_table, read, reading_of

MAX_READINGS = 12
"""Ways one text is read: what is encoded may be encoded again, but a text is not read for ever."""

_MARKER = re.compile(
    r"<\s*\|[^<>\n]{1,60}\|\s*>|\[/?(?:inst|sys|system|system_prompt|assistant)\]|<<\s*/?\s*sys\s*>>"
    r"|</?\s*(?:system|assistant|instructions?|prompt|tool_calls?|function_calls?|invoke|human|im_start|im_end"
    r"|start_of_turn|end_of_turn|system-reminder|system_prompt|developer|important)(?:\s[^<>]{0,100})?/?>"
    r"|(?:^|\n)\W{0,6}#{1,6}\s*(?:system|(?:new )?instructions?|assistant|human|user|developer)\b[^\n:]{0,20}:"
    r"|\b(?:begin|start of|end of)\W{0,3}(?:the )?(?:system|admin|hidden|new)\b.{0,12}"
    r"\b(?:message|prompts?|instructions?)"
    r"|\b(?:call|run|invoke|execute|use|trigger)\s+[`\"']?\w+(?:\(|_\w+\()"
    r"|[\"'](?:tool|function|tool_name|name|action)[\"']\s*:\s*[\"'][\w.-]+[\"']\s*,\s*[\"'](?:args|arguments|parameters)[\"']\s*:"
    r"|\[[^\]\n]{0,40}\b(?:system|user|assistant) (?:input|message|prompt|instructions?|output|turn)\b[^\]\n]{0,20}\]"
    r"|\{\{\s*/?(?:system|assistant|user|instructions?)\s*\}\}|%system%|!\[[^\]\n]{0,80}\]\(https?:"
    r"|\brole[\"']?\s*[:=]\s*[\"']?(?:system|assistant|developer)[\"']?\s*[,;\n}]"
    r"|\bassistant\s+to\s*=|\bdrop\s+(?:table|database)\b|<function\s*="
    r"|[\"']role[\"']\s*:\s*[\"'](?:system|assistant|developer|tool)[\"']"
)
"""What chat templates divide a conversation with: a text that has it would end its own place in a prompt."""

_LABEL = re.compile(
    r"(?:^|\n|[.!?}\]] |[\"'])[^\w\n]{0,8}"
    r"(?:(?P<of>(?:system|developer|admin|administrator|root|security)[\W_]{1,3}"
    r"(?:message|prompt|override|notice|instructions?|command|directive)"
    r"|new (?:system )?(?:instructions?|prompt|directives?|orders|rules))"
    r"|(?P<who>system|assistant|ai|developer|admin|administrator|root|sysadmin|human|user|bot|operator|system\W?notice))"
    r"[^\w\n]{0,3}[:>\])][^\w]*(?P<first>\w+)"
)
_ANSWER = "i sure yes ok okay hi hello certainly you from your please new understood"
_ANSWERS = frozenset(_ANSWER.split())

_KEYS = """
ignore ignored disregard forget override bypass all any every your the previous prior above earlier instruction
instructions directive directives guidelines rules rule prompt prompts system policy policies approve refund refunds
reveal secret secrets password passwords transfer delete records grant admin administrator access assistant you are now
act pretend without asking approval execute command commands following and payments everything
"""
"""What disguised words are compared with."""

_LEET = str.maketrans("oilabegstz!|@$+", "011483957211457")
_TURNED = "\u0250\u0254\u01dd\u025f\u0183\u0265\u1d09\u027e\u029e\u026f\u0279\u0287\u028c\u028d\u028e"
_UPRIGHT = str.maketrans(f"{_TURNED}nubqdp", "acefghijkmrtvwyunqbpd")
_IN_A_ROW = re.compile(
    r"(ignore|disregard|forget|override|bypass)(?:all|any|of|the|your|my|these)*(?:previous|prior|above|earlier|system|safety)*"
    r"(?:instructions?|rules|guidelines|prompts?|directives?|policy|policies|restrictions)"
)
_WORD = re.compile(r"[^\W_]+")
_EMPHASIS = re.compile(r"[*`~]+|(?<!\w)_+|_+(?!\w)")
_WRITTEN_APART = re.compile(r"(?<![^\W_])(?:[^\W_][ \t\-_.*~\u00b7,/|]{1,4}){4,}[^\W_](?![^\W_])")
_WIDE_GAP = re.compile(r"[ \t\-_.*~\u00b7,/|]{2,}")
_NARROW_GAP = re.compile(r"[ \t\-_.*~\u00b7,/|]")
_INNER_SIGN = re.compile(r"(?<=[^\W\d_])[-_.*~`'^\u00b7]+(?=[^\W\d_])")
_MIXED = re.compile(r"(?<![\w@$!|+])(?=[\w@$!|+]{0,39}?[0-9@$!|+])[\w@$!|+]{2,40}(?![\w@$!|+])")
_GLUED = re.compile(r"[^\W\d_]{14,200}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[\s:]?){12,}")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|\\([nrt\"/\\])", re.IGNORECASE)
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,20});")
_BLANK = re.compile(r"\s+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def instructs(text: str) -> bool:
    """Whether a text, however it is written, tells its reader what to do with what it was told or may do."""
    todo = [text] if text.isascii() else [text, fold_confusables(text)]
    seen = set(todo)
    while todo:
        each = todo.pop(0)
        if _says_so(each):
            return True
        for other in _decoded(each):
            if other not in seen and len(seen) < MAX_READINGS:
                seen.add(other)
                todo.append(other)
    return False


def _says_so(text: str) -> bool:
    forms = {folded(text)}
    if not text.isascii():
        forms.add(fold_confusables(text).casefold())  # a capital may look Latin where its small letter does not
    return any(map(_folded_says_so, forms)) or _unspaced_says_so(text)


def _folded_says_so(text: str) -> bool:
    plain = _EMPHASIS.sub("", text)
    if _MARKER.search(text) or (plain != text and _MARKER.search(plain)):
        return True
    if any(_is_order(match) for match in _LABEL.finditer(plain)):
        return True
    return any(_has_phrase(reading) for reading in _readings(plain)) or _is_broken_up(plain)


def _is_order(label: re.Match[str]) -> bool:
    """Whether what follows a label is an order, or an answer put into the reader's mouth."""
    return label["of"] is not None or label["first"] in _ANSWERS or label["first"] in _orders()


def _has_phrase(reading: Reading) -> bool:
    allowed, forbidden = _tables()
    rest, _ = allowed.without(reading)
    return forbidden.label(rest) is not None


def _unspaced_says_so(text: str) -> bool:
    if not _UNSPACED.search(text):
        return False
    even = normal(_EMPHASIS.sub("", text))
    return any(_anywhere().search(each) for each in (even, _BLANK.sub("", even)))


# How a text is read.


def _readings(text: str) -> Iterator[Reading]:
    """Yield a folded text as its words, and as the words that are disguised in it."""
    plain = read(text)
    yield plain
    if "\n" in text:
        yield read(text.replace("\n", " "))
    if plain.text.count(",") * 3 > len(plain.text.split()):
        yield reading_of(word for word in plain.text.split() if word != ",")  # a sign after every word
    tokens = plain.text.split()
    clear = [_unscrambled(token) for token in tokens]
    if clear != tokens:
        yield reading_of(clear)
    if _MIXED.search(text):
        yield read(_MIXED.sub(_in_letters, text))
    if _WRITTEN_APART.search(text):
        yield read(_split(_WRITTEN_APART.sub(_joined, text)))
    elif _INNER_SIGN.search(text):
        yield read(_INNER_SIGN.sub("", text))
    if _GLUED.search(text):
        yield read(_split(text))


def _is_broken_up(text: str) -> bool:
    """Whether an order is there when all letters are read in a row, and its verb is not there as a word."""
    words = _WORD.findall(text)
    found = _IN_A_ROW.search("".join(words))
    return found is not None and found[1] not in words


def _unscrambled(token: str) -> str:
    """Return the word whose inner letters a token has in another order, else the token."""
    if len(token) < 5 or not token.isascii():
        return token
    return _scrambled().get((token[0], "".join(sorted(token[1:-1])), token[-1]), token)


def _in_letters(match: re.Match[str]) -> str:
    """Return the word that is written with digits and signs for some of its letters, else what is there."""
    written = match.group()
    return _letters().get(written.translate(_LEET), written) if any(map(str.isalpha, written)) else written


def _joined(match: re.Match[str]) -> str:
    """Return letters that were written apart as words, where wider gaps tell them; else as one."""
    parts = _WIDE_GAP.split(match.group()) if "  " in match.group() else [match.group()]
    return " ".join(_NARROW_GAP.sub("", part) for part in parts)


def _split(text: str) -> str:
    """Return a text with the words apart that were written as one."""
    return _GLUED.sub(lambda match: _known().sub(r" \g<0> ", match.group()), text)


def _decoded(text: str) -> Iterator[str]:
    """Yield what a reader would make of what is encoded in a text."""
    if "\\" in text:
        yield _ESCAPED.sub(_unescaped, text)
    if _PERCENT.search(text):
        yield unquote(text, errors="replace")
    if "&" in text and _ENTITY.search(text):
        yield html.unescape(text)
    for match in _BASE64.finditer(text):
        yield from _as_text(_from_base64(match.group()))
    for match in _HEX.finditer(text):
        yield from _as_text(binascii.unhexlify(re.sub(r"[\s:]", "", match.group())))
    words = set(_WORD.findall(folded(text)))
    if len(words & _turned()) >= 2:
        yield text[::-1]
    if not text.isascii() and len(set(text.casefold()).intersection(_TURNED)) > 2:
        upright = text.casefold().translate(_UPRIGHT)
        yield upright
        yield upright[::-1]
    if len(words & _rotated()) >= 2:
        yield codecs.encode(text, "rot13")


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    if code:
        return chr(int(code, 16))
    return {"n": "\n", "r": "\n", "t": "\t"}.get(match[3].lower(), match[3])


def _from_base64(text: str) -> bytes:
    plain = text.strip("=_-").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        return b""


def _as_text(data: bytes) -> Iterator[str]:
    """Yield what bytes are if they are a text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if text and text.isprintable():
        yield text


# Tables, each made once.


@cache
def _tables() -> tuple[PhraseTable, PhraseTable]:
    table = load_table("instructions.yaml")
    allowed = PhraseTable({"allowed": table["allowed"]}, table["classes"])
    return allowed, PhraseTable({"forbidden": table["forbidden"]}, table["classes"])


@cache
def _anywhere() -> re.Pattern[str]:
    return re.compile("|".join(load_table("instructions.yaml")["anywhere"]))


@cache
def _orders() -> frozenset[str]:
    classes = load_table("instructions.yaml")["classes"]
    return frozenset("|".join(classes[name] for name in ("speak", "privileged", "override", "approve")).split("|"))


@cache
def _keys() -> tuple[str, ...]:
    return tuple(_KEYS.split())


@cache
def _scrambled() -> dict[tuple[str, str, str], str]:
    return {(key[0], "".join(sorted(key[1:-1])), key[-1]): key for key in _keys() if len(key) >= 5}


@cache
def _letters() -> dict[str, str]:
    return {key.translate(_LEET): key for key in reversed(_keys())}


@cache
def _known() -> re.Pattern[str]:
    return re.compile("|".join(sorted((key for key in _keys() if len(key) >= 3), key=len, reverse=True)))


@cache
def _turned() -> frozenset[str]:
    return frozenset(key[::-1] for key in _keys() if len(key) >= 3)


@cache
def _rotated() -> frozenset[str]:
    return frozenset(codecs.encode(key, "rot13") for key in _keys() if len(key) >= 3)
