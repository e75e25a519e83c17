"""A text as a person reads it: look-alikes become the letters they look like, what is not seen is dropped.

Wide, raised and circled characters, accents, digits of other scripts, dashes, quotation marks, and the Cyrillic and
Greek letters that look Latin are folded.  What reads the folded text need not know of any of them.
"""

from __future__ import annotations

import re
import unicodedata

from airside.stack.findings import INVISIBLE

_LOOK_ALIKES = dict(
    zip(
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405"  # Cyrillic
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u051b\u051d"
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"  # Greek
        "\u03bf\u03b1\u03bd\u03c1\u0131\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2212\u3002\u2028\u2029",
        "ABEKMHOPCTYXIJS" + "aeopcyxijsdhqw" + "ABEZHIKMNOPTYX" + 'oavpi\'\'\'"""""-.\n\n',
        strict=True,
    )
)
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
    return "-" if category == "Pd" else _LOOK_ALIKES.get(each, each)


_FOLDING = _Folding()


def folded(text: str) -> str:
    """Return a text as a person reads it; it may be shorter or longer."""
    return text.translate(_FOLDING)


class Folded:
    """A folded text that knows where each of its characters stands in the text as given."""

    def __init__(self, text: str) -> None:
        pieces = [_FOLDING[ord(char)] for char in text]
        self.text = "".join(pieces)
        self._same = len(self.text) == len(text) and all(len(piece) == 1 for piece in pieces)
        self._begins = () if self._same else tuple(at for at, piece in enumerate(pieces) for _ in piece)

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Return where what stands there, which is not empty, is in the text as given."""
        return (begin, end) if self._same else (self._begins[begin], self._begins[end - 1] + 1)
