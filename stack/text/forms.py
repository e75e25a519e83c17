"""Unicode's normal forms, in time that is linear in the text.

Python sorts each run of combining marks by comparing neighbours, which takes a second for 40,000 of them, and a text of
an argument may have more.  Nobody writes more than thirty on one letter (Unicode's Stream-Safe Text Format bounds them
so): a longer run is taken in pieces, each in its normal form.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Literal

_MAX_MARKS = 30
_LAST = 0x1F000
"""No character beyond is a combining mark."""


def in_form(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """Return a text in a normal form of Unicode; marks beyond thirty in a row are taken by themselves."""
    if text.isascii():
        return text
    if _run().search(text) is None:
        return unicodedata.normalize(form, text)
    return "".join(unicodedata.normalize(form, piece) for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    begin = 0
    for run in _run().finditer(text):
        yield text[begin : run.end()]
        begin = run.end()
    yield text[begin:]


@cache
def _run() -> re.Pattern[str]:
    """Return what matches the first marks of too long a run, and then the next."""
    marks = "".join(chr(code) for code in range(0x300, _LAST) if unicodedata.combining(chr(code)))
    return re.compile(f"[{re.escape(marks)}]{{{_MAX_MARKS}}}")
