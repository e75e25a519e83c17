"""Texts that people see as the same: what a rule that forbids must not be got round with, and one that allows not met.

`plain` is a text in its compatibility form (composed, wide and styled characters as the usual ones) without what is not
seen.  `alike` also makes the Latin letter of a Cyrillic or Greek one that looks like it, and drops marks that belong to
no letter.  `joined` makes one space of any white space and line breaks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from airside.stack.text.entities import INVISIBLE
from airside.stack.text.forms import in_form

LOOK_ALIKES = dict(
    zip(
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405"  # Cyrillic
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u051b\u051d"
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"  # Greek
        "\u03bf\u03b1\u03bd\u03c1\u0131\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2212\u3002\u2028\u2029",
        "ABEKMHOPCTYXIJS" + "aeopcyxijsdhqw" + "ABEZHIKMNOPTYX" + 'oavpi\'\'\'"""""-.\n\n',
        strict=True,
    )
)
"""Characters that look like ASCII ones."""

_UNSEEN = re.compile(f"[{INVISIBLE}\u007f-\u0084\u0086-\u009f\ufff0-\ufff8]")
_BLANK = re.compile(r"\s+")
_ALIKE = str.maketrans(LOOK_ALIKES | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2043", "-"))


def plain(text: str) -> str:
    """Return a text in its compatibility form, without characters that are not seen."""
    if text.isascii():
        return text.replace("\x7f", "")
    # Twice: what is not seen may have stood between a letter and its accent, or be what a form is made of.
    composed = in_form("NFKC", text)
    return in_form("NFKC", _UNSEEN.sub("", composed))


def alike(text: str) -> str:
    """Return a plain text with look-alikes of ASCII characters as those, and without marks that stand alone."""
    if text.isascii():
        return text
    # Apart, so that a letter under an accent is seen too.
    seen = plain(in_form("NFD", text).translate(_ALIKE))
    return plain("".join(char for char in seen if unicodedata.category(char) not in ("Mn", "Me")))


def joined(text: str) -> str:
    """Return a text with any white space as one space, and none at its ends."""
    return " ".join(text.split())


_latest: tuple[str, bool] = ("", True)


def is_tidy(text: str) -> bool:
    """Whether a text certainly reads as it is written, as nearly every one does."""
    global _latest
    known, found = _latest
    if text is not known:  # each rule of a policy asks about the same one
        found = text.isascii() and "\x7f" not in text and " ".join(text.split()) == text
        _latest = text, found
    return found


def unblanked(text: str) -> str:
    """Return a text with any white space as one space, at its ends too."""
    return _BLANK.sub(" ", text)


def caseless(text: str) -> str:
    """Return a text in which case is nothing."""
    return text.lower() if text.isascii() else in_form("NFKC", text.casefold())


def is_plain(value: Any) -> bool:
    """Whether every text of a JSON value is written as `plain` would write it."""
    if isinstance(value, str):
        return plain(value) == value
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    return True


def over_texts(change: Callable[[str], str], value: Any) -> Any:
    """Return a JSON value with every text changed, those of lists and objects too; keys stay."""
    if change is str:
        return value
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [over_texts(change, item) for item in value]
    if isinstance(value, dict):
        return {key: over_texts(change, item) for key, item in value.items()}
    return value
