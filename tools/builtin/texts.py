"""What tools read, as text that a result can carry, or as no text."""

from __future__ import annotations

import codecs
import re

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""What no output carries, but `\\x7f`, which only terminals see."""


def as_text(data: bytes, charset: str, *, cut: bool) -> tuple[str | None, int]:
    """Return bytes as text, and how many of them it is of: where they were cut, the last character may be missing.

    The text is None for what is none, or has control characters.
    """
    decoder = codecs.getincrementaldecoder(charset)()
    try:
        text = decoder.decode(data, final=not cut)
    except ValueError:
        return None, len(data)
    left = len(decoder.getstate()[0]) if cut else 0
    return (None, len(data)) if CONTROLS.search(text) else (text, len(data) - left)
