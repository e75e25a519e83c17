"""What a call of a server's tool returned, as the output of a tool: bounded, inert, never followed.

Texts are texts.  What is no text is a note of what it was: agents could do nothing with it, and a link is an address
somebody else chose.  A text is cut rather than refused, for the call has happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from airside.stack.canonical import check_bounds
from airside.stack.errors import InvalidInput
from airside.tools.builtin.texts import CONTROLS
from airside.tools.secrets.redaction import CutText, Redactor, distinct

_MAX_NOTES = 64
_MAX_NOTE_CHARS = 2_048
"""A part of a longer one is of no use, and may be one of a secret."""

_TOO_LONG = "(too long)"
_MAX_ROOM = 4_096
"""Left of the bound for what stands around the texts: names of fields, and that something was cut."""


def output_of(result: Mapping[str, Any], max_bytes: int, redactor: Redactor) -> dict[str, Any]:
    """Return a result, in the form of the protocol, as an output of at most `max_bytes` as JSON.

    `text` is all its texts, `structured` its value, `attached` a note of each part that is no text.  `is_error` says
    that the server called it a failure, `truncated` that something was left out.
    """
    texts, notes = [], []
    for part in result.get("content", ()):
        text, note = _read(part)
        texts += [text] if text is not None else []
        notes += [note] if note is not None else []
    output: dict[str, Any] = {}
    if result.get("isError"):
        output["is_error"] = True
    whole = redactor.text(CONTROLS.sub("", "\n".join(texts)))
    truncated = len(notes) > _MAX_NOTES
    room = max_bytes - min(_MAX_ROOM, max_bytes // 4)
    structured = _structured(result.get("structuredContent"), redactor)
    if structured is not None and (size := len(orjson.dumps(structured))) <= room:
        output["structured"] = structured
        room -= size
    else:
        truncated = truncated or result.get("structuredContent") is not None
    attached = _clean(notes[:_MAX_NOTES], redactor)
    if attached and (size := len(orjson.dumps(attached))) <= room:
        output["attached"] = attached
        room -= size
    else:
        truncated = truncated or bool(notes)
    text = _cut(whole, room)
    output["text"] = text if len(text) == len(whole) else CutText(redactor.end(text))
    return {**output, "truncated": True} if truncated or len(text) < len(whole) else output


def _read(part: Mapping[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
    """Return the text of one part of a result, and a note of what is none."""
    kind = part.get("type")
    if kind == "text":
        return str(part.get("text", "")), None
    if kind == "resource":
        resource = part.get("resource") or {}
        note = {"kind": "resource", "uri": resource.get("uri"), "media_type": resource.get("mimeType")}
        if isinstance(resource.get("text"), str):
            return resource["text"], note
        return None, {**note, "base64_characters": len(resource.get("blob") or "")}
    if kind == "resource_link":
        return None, {
            "kind": "link",
            "uri": part.get("uri"),
            "name": part.get("name"),
            "media_type": part.get("mimeType"),
        }
    return None, {
        "kind": kind,
        "media_type": part.get("mimeType"),
        "base64_characters": len(part.get("data") or ""),
    }


def _structured(value: Any, redactor: Redactor) -> Any:
    """Return a structured value without secrets; None for one that no output can carry."""
    try:
        check_bounds(value, where="structured")
        return _clean(value, redactor, None)
    except InvalidInput:
        return None


def _clean(value: Any, redactor: Redactor, most: int | None = _MAX_NOTE_CHARS) -> Any:
    """Return a value with the secrets, and what no output carries, taken out of its texts."""
    if isinstance(value, str):
        text = redactor.text(CONTROLS.sub("", value))
        return text if most is None or len(text) <= most else _TOO_LONG
    if isinstance(value, Mapping):
        names = distinct(redactor.text(CONTROLS.sub("", key)) for key in value)
        return {name: _clean(inner, redactor, most) for name, inner in zip(names, value.values(), strict=True)}
    if isinstance(value, list):
        return [_clean(inner, redactor, most) for inner in value]
    return value


def _cut(text: str, room: int) -> str:
    """Return the beginning of a text that takes at most `room` bytes as JSON."""
    text = text[: max(0, room)]
    while (size := len(orjson.dumps(text))) > room and text:
        text = text[: len(text) * room // size - 1] if room > 0 else ""
    return text
