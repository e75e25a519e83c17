"""What a tool asks people before it completes a call, sealed by the executor that was asked.

It travels through runtimes and the journal to the gate, which has people asked exactly that, and back to an executor,
which tells the tool what was answered.  So nobody in between can put words into a tool's mouth, or hand it others.
"""

from __future__ import annotations

from typing import Any

import msgspec

from airside.stack.ids import RunId, TenantId
from airside.stack.security.seals import from_text, to_text, unwrap, wrap
from airside.stack.values import Value

_PURPOSE = "tool question"


class ToolQuestion(Value, array_like=True):
    """What is asked, of which call, in which of its rounds; the first is 1.

    `question` is what people are shown, `kept` what the tool is given back; both are JSON.
    """

    tenant: TenantId
    run_id: RunId
    step: int
    tool: str
    arguments_sha256: str
    round: int
    question: bytes
    kept: bytes


_decoder = msgspec.msgpack.Decoder(ToolQuestion)


def seal_question(key: bytes, asked: ToolQuestion) -> str:
    """Seal a question; only executors call this."""
    return to_text(wrap(key, _PURPOSE, msgspec.msgpack.encode(asked)))


def open_question(key: bytes, text: Any) -> ToolQuestion | None:
    """Return the question if its seal holds, else None."""
    body = unwrap(key, _PURPOSE, from_text(text)) if isinstance(text, str) else None
    return None if body is None else _decoder.decode(body)
