"""One memory record."""

from __future__ import annotations

import re
import secrets
from typing import Literal

from airside.stack.ids import TenantId
from airside.stack.values import Clearance, Trust, Value

State = Literal["live", "superseded", "quarantined"]
FOREVER_US = 2**62
"""When a pinned record expires."""

MAX_SOURCES = 8
"""Sources a merged record names; the others are counted."""

_RECORD_ID = re.compile(r"mem_[0-9a-f]{24}")


class Record(Value):
    """A record.  Only one that is `live` is ever recalled; the others are kept for audit until they expire.

    `digest` is of the text's normal form.  `sources` are those of what was merged into it, `met` how often it
    was offered and changed by it.  `lineage` is what it derives from (`memory/lineage.py`).  Times are UTC
    microseconds.
    """

    record_id: str
    tenant: TenantId
    text: str
    kind: str
    sources: tuple[str, ...]
    sensitivity: Clearance
    trust: Trust
    subject: str
    topic: str
    importance: float
    confidence: float
    labels: tuple[str, ...]
    state: State
    superseded_by: str
    met: int
    digest: str
    created_us: int
    observed_us: int
    expires_us: int
    pinned: bool
    lineage: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts, and of the marks of its lineage."""
        texts = (self.text, *self.sources, self.kind, self.subject, self.topic, *self.lineage)
        return sum(len(text) if text.isascii() else len(text.encode()) for text in texts)


def mint_record() -> str:
    """Mint a record's id of 96 random bits."""
    return "mem_" + secrets.token_hex(12)


def is_record_id(text: object) -> bool:
    """Whether a text can be a record's id."""
    return isinstance(text, str) and _RECORD_ID.fullmatch(text) is not None
