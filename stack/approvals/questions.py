"""Questions that agents and tools ask people: what a question is, and what is an answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airside.stack.approvals.forms import MAX_FORM_ANSWER_CHARS, filled
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput

MAX_CHOICES = 8
"""More than that nobody weighs against each other."""

MAX_CHOICE_CHARS = 200
"""As much as a person is shown of a value beside where it comes from: no part of a choice is out of sight."""

MAX_QUESTION_CHARS = 2000
MAX_ANSWER_CHARS = 2000

QUESTION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_QUESTION_CHARS,
            "description": "What you need to know, for somebody who sees nothing else of your work.",
        },
        "choices": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": MAX_CHOICE_CHARS},
            "maxItems": MAX_CHOICES,
            "uniqueItems": True,
            "default": [],
            "description": "The answers to choose from; without any, the answer is a text.",
        },
    },
    "required": ["question"],
    "additionalProperties": False,
}


def check_answer(question: Mapping[str, Any], answer: bytes) -> tuple[str, bool]:
    """Return an answer, and whether it is one of the question's choices; raise `InvalidInput` if it is none.

    `question` are the arguments of the call, or what its tool asks, which has a form of `fields`; `answer` is JSON.
    """
    text = parse_bounded(answer, max_bytes=16 * MAX_FORM_ANSWER_CHARS, where="answer")
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput("answer: give a text")
    if isinstance(fields := question.get("fields"), dict):
        filled(fields, text)
        return text, False
    choices = question.get("choices") or []
    if not choices and len(text) > MAX_ANSWER_CHARS:
        raise InvalidInput(f"answer: it has {len(text):,} characters; at most {MAX_ANSWER_CHARS:,} are taken")
    if choices and text not in choices:
        raise InvalidInput(f"answer: {text!a:.200} is none of the choices: {', '.join(map(ascii, choices))}")
    return text, bool(choices)
