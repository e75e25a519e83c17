"""Whether a text instructs whoever reads it: a memory is shown to agents, and must not tell them what to do.

What is looked for stands in `instructions.yaml`: to pass over what one was told, to be somebody else, to let
something through, to keep silent, to give something away.  A text is also read as a reader would decode it: written in
look-alikes, apart, backwards, with its letters in disorder or as digits, in base64, in escapes.

Most texts have nothing of all this, so whatever is dear is looked for only in a text that has a sign or a length of
word without which it cannot be there.  What those are stands beneath each pattern, and changes no verdict.
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
from airside.memory.writing.phrases import PhraseTable, Reader, Reading, folded, load_table, read, reading_of

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

_MARKING = re.compile(r"[<\[#({%:=]")
_MARKING_WORDS = ("drop", "begin", "start of", "end of")
"""One of these signs or words is in whatever `_MARKER` matches."""

_LABEL = re.compile(
    r"(?:^|\n|[.!?}\]] |[\"'])[^\w\n]{0,8}"
    r"(?:(?P<of>(?:system|developer|admin|administrator|root|security)[\W_]{1,3}"
    r"(?:message|prompt|override|notice|instructions?|command|directive)"
    r"|new (?:system )?(?:instructions?|prompt|directives?|orders|rules))"
    r"|(?P<who>system|assistant|ai|developer|admin|administrator|root|sysadmin|human|user|bot|operator|system\W?notice))"
    r"[^\w\n]{0,3}[:>\])][^\w]*(?P<first>\w+)"
)
_LABELLING = re.compile(r"[:>\])]")
"""One of these signs is in whatever `_LABEL` matches."""

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
_EMPHASIS = re.compile(r"[*`~]+|(?<!\w)_+|_+(?!\w)")
_EMPHASISING = re.compile(r"[*`~_]")
_WRITTEN_APART = re.compile(r"(?<![^\W_])(?:[^\W_][ \t\-_.*~\u00b7,/|]{1,4}){4,}[^\W_](?![^\W_])")
_LETTERS_APART = 5
"""Words of one letter at least in what `_WRITTEN_APART` matches."""

_WIDE_GAP = re.compile(r"[ \t\-_.*~\u00b7,/|]{2,}")
_NARROW_GAP = re.compile(r"[ \t\-_.*~\u00b7,/|]")
_INNER_SIGN = re.compile(r"(?<=[^\W\d_])[-_.*~`'^\u00b7]+(?=[^\W\d_])")
_INNER = re.compile(r"[-_.*~`'^\u00b7]")
_MIXED = re.compile(r"(?<![\w@$!|+])(?=[\w@$!|+]{0,39}?[0-9@$!|+])[\w@$!|+]{2,40}(?![\w@$!|+])")
_MIXING = re.compile(r"[0-9@$!|+]")
_GLUED_FROM = 14
_GLUED = re.compile(rf"[^\W\d_]{{{_GLUED_FROM},200}}")
_BASE64_FROM = 16
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{_BASE64_FROM},}}={{0,2}}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[\s:]?){12,}")
_HEX_DIGITS = bytes(ord("0") if chr(code) in "0123456789abcdefABCDEF" else ord(".") for code in range(256))
_HEX_GAPS = bytes(code for code in range(128) if chr(code).isspace() or chr(code) == ":")
_HEX_LEAST = b"0" * 24
"""What is left of an ASCII text that `_HEX` matches, with its digits made one and its gaps left out."""

_ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|\\([nrt\"/\\])", re.IGNORECASE)
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,20});")
_BLANK = re.compile(r"\s+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def instructs(text: str, reader: Reader | None = None) -> bool:
    """Whether a text, however it is written, tells its reader what to do with what it was told or may do."""
    reader = reader or Reader()
    todo = [text] if text.isascii() else [text, fold_confusables(text)]
    seen = set(todo)
    while todo:
        each = todo.pop(0)
        if _says_so(each, reader):
            return True
        for other in _decoded(each, reader):
            if other not in seen and len(seen) < MAX_READINGS:
                seen.add(other)
                todo.append(other)
    return False


def _says_so(text: str, reader: Reader) -> bool:
    if text.isascii():
        return _folded_says_so(folded(text), reader)
    # A capital may look Latin where its small letter does not.
    forms = {folded(text), fold_confusables(text).casefold()}
    return any(_folded_says_so(form, reader) for form in forms) or _unspaced_says_so(text)


def _folded_says_so(text: str, reader: Reader) -> bool:
    plain = _EMPHASIS.sub("", text) if _EMPHASISING.search(text) else text
    if _is_marked(text) or (plain != text and _is_marked(plain)):
        return True
    if _LABELLING.search(plain) and any(map(_is_order, _LABEL.finditer(plain))):
        return True
    reading = reader.read(plain)
    return any(map(_has_phrase, _readings(plain, reading))) or _is_broken_up(reading)


def _is_marked(text: str) -> bool:
    may_be = _MARKING.search(text) or any(map(text.__contains__, _MARKING_WORDS))
    return bool(may_be and _MARKER.search(text))


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


def _readings(text: str, plain: Reading) -> Iterator[Reading]:
    """Yield a folded text as its words, `plain`, and as the words that are disguised in it."""
    yield plain
    if "\n" in text:
        yield read(text.replace("\n", " "))
    tokens = plain.text.split()
    if plain.text.count(",") * 3 > len(tokens):
        yield reading_of(word for word in tokens if word != ",")  # a sign after every word
    meant = {word: clear for word in plain.words if (clear := _unscrambled(word)) != word}
    if meant:
        yield reading_of(meant.get(token, token) for token in tokens)
    if _MIXING.search(text) and _MIXED.search(text):
        yield read(_MIXED.sub(_in_letters, text))
    letters = sum(len(word) == 1 and word != "," for word in tokens)
    if letters >= _LETTERS_APART and _WRITTEN_APART.search(text):
        yield read(_split(_WRITTEN_APART.sub(_joined, text)))
    elif _INNER.search(text) and _INNER_SIGN.search(text):
        yield read(_INNER_SIGN.sub("", text))
    if max(map(len, tokens), default=0) >= _GLUED_FROM and _GLUED.search(text):
        yield read(_split(text))


def _is_broken_up(reading: Reading) -> bool:
    """Whether an order is there when all letters are read in a row, and its verb is not there as a word."""
    found = _IN_A_ROW.search(reading.text.replace(",", "").replace(" ", ""))
    return found is not None and found[1] not in reading.words


def _unscrambled(token: str) -> str:
    """Return the word whose inner letters a token has in another order, else the token."""
    if len(token) < 5 or token[0] + token[-1] not in _ends():
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


def _decoded(text: str, reader: Reader) -> Iterator[str]:
    """Yield what a reader would make of what is encoded in a text."""
    if "\\" in text:
        # A character beyond the first 65,536 is escaped as two halves, which are made one again.
        yield _ESCAPED.sub(_unescaped, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "%" in text and _PERCENT.search(text):
        yield unquote(text, errors="replace")
    if "&" in text and _ENTITY.search(text):
        yield html.unescape(text)
    if max(map(len, text.split()), default=0) >= _BASE64_FROM:
        for match in _BASE64.finditer(text):
            yield from _as_text(_from_base64(match.group()))
    if _may_be_hex(text):
        for match in _HEX.finditer(text):
            yield from _as_text(binascii.unhexlify(re.sub(r"[\s:]", "", match.group())))
    words = reader.read(folded(text)).words
    if len(words & _turned()) >= 2:
        yield text[::-1]
    if not text.isascii() and len(set(text.casefold()).intersection(_TURNED)) > 2:
        upright = text.casefold().translate(_UPRIGHT)
        yield upright
        yield upright[::-1]
    if len(words & _rotated()) >= 2:
        yield codecs.encode(text, "rot13")


def _may_be_hex(text: str) -> bool:
    return not text.isascii() or _HEX_LEAST in text.encode().translate(_HEX_DIGITS, _HEX_GAPS)


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
def _ends() -> frozenset[str]:
    """Return the first and last letters of the words whose inner ones may be in another order."""
    return frozenset(first + last for first, _, last in _scrambled())


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
