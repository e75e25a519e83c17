"""What is worth keeping: a candidate passes, or is refused with a code."""

from __future__ import annotations

import re
from typing import Literal

from airside.stack.ports import Candidate

MIN_WORDS = 4
"""Fewer words hold no fact that could be found again."""

MAX_CHARACTERS = 8_000
"""About four windows of the embedder; what is longer is a document, and belongs in a store of documents."""

MAX_TTL_S = 366 * 86_400

Code = Literal["stored", "too_short", "too_long", "no_content", "ttl_invalid", "duplicate"]

_WORD = re.compile(r"[^\W\d_]{2,}")


def objection(candidate: Candidate) -> Code | None:
    """Return why a candidate is not worth keeping, or None."""
    text = candidate.text.strip()
    if len(text) > MAX_CHARACTERS:
        return "too_long"
    words = _WORD.findall(text)
    if not words:
        return "no_content"
    if len(words) < MIN_WORDS:
        return "too_short"
    if len({word.lower() for word in words}) * 5 < len(words):
        return "no_content"  # the same few words over and over
    if not 0 < candidate.ttl_s <= MAX_TTL_S:
        return "ttl_invalid"
    return None
