"""A sentence in which only words are left: what is quoted, what is no word, and idioms are masked.

A word that excludes is written plainly in it, however it stands in the text: `n0t`, `n o t`, `nooot`, `do-not-pay`.
"""

from __future__ import annotations

import re
import string
from functools import cache

from airside.stack.provenance.english import CUE, ORDERS
from airside.stack.provenance.languages import CUES
from airside.stack.text.forms import in_form
from airside.stack.text.spelling import plain
from airside.stack.text.tokens import QUOTED

_I = re.IGNORECASE

_NOT = r"(?:n['\u2019]?t| not)"
_IDIOMS = re.compile(
    rf"\b(?:do{_NOT} (?:forget|hesitate|worry|mind)|not (?:only|just|yet|sure|(?:later|more|less|earlier) than)"
    r"|no (?:later|more|less|fewer|earlier|sooner) than|no (?:problem|doubt|matter|worries|rush|hurry)"
    r"|(?:whether|why) or not|why not|without (?:delay|fail|further ado|question|hesitation)|not to mention"
    r"|n(?:o|r)[.:]? ?(?=#?\d)|(?:not|n['\u2019]t) exceed"
    rf"|i (?:do{_NOT}|ca(?:n['\u2019]?t|nnot)|could{_NOT}|have{_NOT}|did{_NOT}|had{_NOT}|am not) (?:\w+ly )?"
    r"(?:know|remember|recall|find|see|understand|certain|able|been|had|have|heard|received|got|recogni[sz]e)"
    r"|i['\u2019]m not (?:sure|certain|able|in)|nicht (?:nur|vergessen|z\u00f6gern)|vergiss nicht|kein problem"
    r"|n['\u2019](?:oublie|h\u00e9site)z? pas|(?:pas|non) seulement|no (?:te )?(?:olvides|dudes)|no s[o\u00f3]lo"
    r"|non dimenticare|n\u00e3o (?:se )?esque\u00e7a|vergeet niet|niet alleen)\b",
    _I,
)
"""What has a cue and excludes nothing."""

_APOSTROPHE = re.compile("(?<=\\w)[`\u00b4\u2032\u02bc\u2018\u02b9\uff07](?=\\w)")
_SIGN = "[\u2260\u00ac\u2717\u2718\u2716\u274c\u274e\u26d4\U0001f6ab\U0001f6d1\U0001f44e\U0001f645\U0001f6b7\u0336]"
SIGNS = re.compile(_SIGN)
_AS_SIGN = re.compile(r"~~(?=\S)|<(?:s|del|strike)>|!=|(?<!\S)!(?=\w)", _I)
"""What says not, and is no word: a crossed-out text, `!=`."""

_SPELT = re.compile(r"(?<![\w.\-*])[a-z](?:(?:[.\-_*] ?| )[a-z])+(?![\w\-])", _I)
_STRETCHED = re.compile("|".join(f"{letter * 3}+" for letter in string.ascii_lowercase), _I)
_LEFT = "([{\"'\u2018\u201c\u00ab*_~"
_DIGITS = {each: str.maketrans("0134578@$*", f"o{each}eastbaso") for each in "il"}
_JOINED_NOT = re.compile(r"(?:do[\-_])?(?:not|never|dont|don['\u2019]t)[\-_](?!reply\b)(?P<verb>[a-z]+)", _I)
_CHUNK = re.compile(r"[^\s\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_NO_WORD = re.compile(
    r"[@/\\_=#\d]|\w\.\w|(?<!\w)(?:do-not|no|non|not)-(?!one\b|body\b|where\b|go\b)[a-z]", _I | re.ASCII
)
_TRAILING = ".,;:!?)]}\"'\u2019\u201d\u00bb*_~"
_WITHOUT = ("w/o", "w/out")
VALUE = "\u01c2"
"""What a value, and an idiom, is masked with: a letter that no request has."""


def mask(text: str) -> str:
    """Return a text of the same length in which what is quoted, what is no word, and idioms are blanks of a kind."""
    text = _AS_SIGN.sub(lambda match: "\u2260".ljust(len(match.group())), _APOSTROPHE.sub("'", text))
    for pattern in (QUOTED, _IDIOMS):
        text = pattern.sub(lambda match: VALUE * len(match.group()), text)
    return _CHUNK.sub(_mask_chunk, _SPELT.sub(_put_together, text))


def _put_together(match: re.Match[str]) -> str:
    letters = "".join(char for char in match.group().lower() if char.isalpha())
    return letters.ljust(len(match.group())) if len(letters) > 1 and CUE.fullmatch(letters) else match.group()


def _mask_chunk(match: re.Match[str]) -> str:
    chunk = match.group()
    core = chunk.rstrip(_TRAILING)
    if _is_plain(core):
        return chunk
    bare = core.lstrip(_LEFT)
    left, right = core[: len(core) - len(bare)], chunk[len(core) :]
    cue = _cue_of(bare) or (bare if "_" in left + right and _is_cue(bare.lower()) else "")
    if cue:
        return (left + cue.ljust(len(bare)) + right).replace("_", " ")
    if bare.lower() in _WITHOUT or not _NO_WORD.search(bare):
        return chunk
    return "".join(char if SIGNS.match(char) else VALUE for char in core) + right


def _is_plain(core: str) -> bool:
    return core.isascii() and core.isalpha() and _STRETCHED.search(core) is None


def _cue_of(core: str) -> str:
    """Return the word that excludes as which people read another: `n0t`, `NOOO`, `do-not-pay`; else nothing."""
    seen = plain(core).lower() if len(core) <= _MAX_CUE else ""
    letters = sum(map(str.isalpha, seen))
    if not letters or (letters * 3 < len(seen) and len(seen) > len("n07")):  # an account's number is no word
        return ""
    joined = _JOINED_NOT.fullmatch(core)
    if joined is not None and joined["verb"].lower() in ORDERS:
        return re.sub("[-_]", " ", core)
    readings = {seen, *(seen.translate(digits) for digits in _DIGITS.values())}
    word = seen.rstrip("0123456789")
    readings |= {word} if len(word) > 3 else set()
    readings |= {_STRETCHED.sub(lambda match: match.group()[0], each) for each in readings}
    found = [each for each in sorted(readings - {core.lower()}) if len(each) <= len(core) and _is_cue(each)]
    if not found and not seen.isascii():
        bare = "".join(char for char in in_form("NFD", seen) if char.isalpha())
        found = [bare] if len(bare) > 2 and CUE.fullmatch(bare) else []
    return found[0] if found else ""


_MAX_CUE = 24
"""Characters of a word that may exclude."""


def _is_cue(word: str) -> bool:
    if not word.isascii() or not word.replace("'", "").isalpha():
        return False
    if CUE.fullmatch(word):
        return len(word) > 2 or word == "no"
    return len(word) > 2 and _any_cue().fullmatch(word) is not None


@cache
def _any_cue() -> re.Pattern[str]:
    return re.compile("|".join(CUES.values()))
