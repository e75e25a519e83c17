"""Whole answers of models as the streams of server-sent events that OpenAI and Anthropic make of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]

_PIECE = re.compile(r"\S+\s*|\s+")


def pieces(text: str) -> list[str]:
    """Return a text word by word."""
    return _PIECE.findall(text)


def openai_stream(answer: Body) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a stream, and whether each has text of the answer."""
    (choice,) = answer["choices"]
    message, head = choice["message"], {key: answer[key] for key in ("id", "created", "model")}

    def chunk(delta: Body, finish: str | None = None) -> str:
        said = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return _line(head | {"object": "chat.completion.chunk"} | said)

    yield chunk({"role": "assistant", "content": ""}), False
    for piece in pieces(message["content"] or ""):
        yield chunk({"content": piece}), True
    for index, call in enumerate(message.get("tool_calls", ())):
        yield chunk({"tool_calls": [{"index": index, **call}]}), False
    yield chunk({}, choice["finish_reason"]), False
    if "usage" in answer:
        yield _line(head | {"object": "chat.completion.chunk", "choices": [], "usage": answer["usage"]}), False
    yield "data: [DONE]\n\n", False


def anthropic_stream(answer: Body) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a stream, and whether each has text of the answer."""
    used = answer["usage"]
    began = answer | {"content": [], "stop_reason": None, "usage": used | {"output_tokens": 0}}
    yield _event({"type": "message_start", "message": began}), False
    for index, block in enumerate(answer["content"]):
        is_text = block["type"] == "text"
        nothing: Body = {"text": ""} if is_text else {"input": {}}
        empty = block | nothing
        yield _event({"type": "content_block_start", "index": index, "content_block": empty}), False
        if is_text:
            deltas: list[Body] = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        else:
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        for delta in deltas:
            yield _event({"type": "content_block_delta", "index": index, "delta": delta}), is_text
        yield _event({"type": "content_block_stop", "index": index}), False
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    yield _event({"type": "message_delta", "delta": ended, "usage": {"output_tokens": used["output_tokens"]}}), False
    yield _event({"type": "message_stop"}), False


def _line(body: Body) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _event(body: Body) -> str:
    return f"event: {body['type']}\n{_line(body)}"
