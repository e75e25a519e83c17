"""A text as a person reads it: look-alikes become the letters they look like, what is not seen is dropped.

Wide, raised and circled characters, accents, digits of other scripts, dashes, quotation marks, and the Cyrillic and
Greek letters that look Latin are folded.  What reads the folded text need not know of any of them.
"""

from __future__ import annotations

import re
import unicodedata

from airside.stack.text.entities import INVISIBLE
from airside.stack.text.spelling import LOOK_ALIKES

_KEPT = "\t\n"
_UNSEEN = re.compile(f"[{INVISIBLE}]")
_MAX_KNOWN = 20_000
"""Characters remembered: more than any language has, and fewer than Unicode."""

_MAX_PIECE = 3
"""Signs that stand for more (whole phrases, in Arabic) become a blank: a text must not grow much by being folded."""


class _Folding(dict[int, str]):
    def __missing__(self, code: int) -> str:
        result = _fold(chr(code))
        if len(self) < _MAX_KNOWN:
            self[code] = result
        return result


def _fold(char: str) -> str:
    plain = unicodedata.normalize("NFKC", char)
    if _UNSEEN.match(char) or len(plain) > _MAX_PIECE:
        return " " if len(plain) > _MAX_PIECE else ""
    return "".join(_bare(each) for each in plain)


def _bare(char: str) -> str:
    base = [each for each in unicodedata.normalize("NFD", char) if unicodedata.category(each)[0] != "M"]
    if len(base) != 1:
        return char if base else ""  # a syllable of several letters, as in Hangul; a mark by itself
    each = base[0]
    digit = unicodedata.decimal(each, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(each)
    if category in ("Cc", "Cf") and each not in _KEPT:
        return ""
    return "-" if category == "Pd" else LOOK_ALIKES.get(each, each)


_FOLDING = _Folding()


def fold_confusables(text: str) -> str:
    """Return a text as a person reads it; it may be shorter or longer."""
    return text if _is_plain(text) else text.translate(_FOLDING)


def _is_plain(text: str) -> bool:
    """Whether a text has nothing that is folded: of ASCII only what does not print is."""
    return text.isascii() and text.isprintable()


class FoldedText:
    """A folded text that knows where each of its characters stands in the text as given."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._begins: tuple[int, ...] | None = None
        if not _is_plain(text):
            pieces = [_FOLDING[ord(char)] for char in text]
            self.text = "".join(pieces)
            if not all(len(piece) == 1 for piece in pieces):
                self._begins = tuple(at for at, piece in enumerate(pieces) for _ in piece)

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Return where what stands there, which is not empty, is in the text as given."""
        return (begin, end) if self._begins is None else (self._begins[begin], self._begins[end - 1] + 1)
