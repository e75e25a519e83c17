"""Labels: what a run has taken in, or is about; rules ask for them by name.

A label is tidy: small letters, digits and `_ - . : / @ +`, words parted by one space.  Requests may write it otherwise;
it is tidied where it enters the stack, so that `Untrusted` is `untrusted`, and what only nearly is a label of the
stack's own is refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

from airside.stack.errors import InvalidInput
from airside.stack.text.spelling import caseless, joined, plain
from airside.stack.values import CLEARANCES, PERSONAL, UNTRUSTED

SYSTEM_LABELS = (UNTRUSTED, PERSONAL, *CLEARANCES)
"""The labels the stack itself gives runs, or reads."""

_SIGNS = frozenset(" _-.:/@+")
_MAX_LABEL = 64


def tidy_label(text: str) -> str:
    """Return a label as it is compared."""
    return caseless(joined(plain(text)))


def check_label(text: str, *, declared: Collection[str] | None = None) -> str:
    """Return a label, tidied; raise `InvalidInput` for what is none, is not declared, or nearly is one of the stack's.

    `declared` are the labels an app names; None: it names none, and any will do.
    """
    label = tidy_label(text)
    if label in SYSTEM_LABELS:
        return label
    if not label or len(label) > _MAX_LABEL or not all(_is_word(char) or char in _SIGNS for char in label):
        signs = " ".join(sorted(_SIGNS - {" "}))
        raise InvalidInput(f"label {text!r:.80}: a label is 1 to {_MAX_LABEL} letters, digits, spaces and {signs}")
    if declared is None:
        for other in SYSTEM_LABELS:
            if _nearly(label, other):
                raise InvalidInput(
                    f"label {text!r:.80} is nearly {other!r}, one of the stack's: write that, or another"
                )
    elif label not in declared:
        known = ", ".join(sorted({*declared, *SYSTEM_LABELS}))
        raise InvalidInput(f"label {text!r:.80} is none of the app's: {known}")
    return label


def _is_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"


def _nearly(label: str, other: str) -> bool:
    """Whether two labels are the same but for signs, or one letter that is missing, added, another or misplaced."""
    one, two = ("".join(filter(_is_word, each)) for each in (label, other))
    begin = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    rest, rest_of_other = one[begin:], two[begin:]
    return (
        rest[1:] == rest_of_other[1:]
        or rest[1:] == rest_of_other
        or rest == rest_of_other[1:]
        or (rest[:2] == rest_of_other[1::-1] and rest[2:] == rest_of_other[2:])
    )
