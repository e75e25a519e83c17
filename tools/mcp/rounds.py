"""What a server asks before it completes a call, as a question to people, and their answer as it takes one.

One form at a time (`elicitation/create`): a server that wants a model asked, folders named, a page visited, or several
things at once is not served.  What it keeps with us until the next round (`requestState`) goes to the journal, sealed,
so it holds no secret of the tenant's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from airside.stack.approvals.forms import filled, read_fields
from airside.stack.approvals.questions import MAX_QUESTION_CHARS
from airside.stack.canonical import canonical
from airside.stack.errors import AirsideError, InvalidInput
from airside.stack.values import Answer
from airside.tools.builtin.texts import CONTROLS
from airside.tools.runners.outcomes import InputNeeded
from airside.tools.secrets.redaction import Redactor
from airside.tools.tool import AskedBefore

MAX_STATE_CHARS = 32_768
"""Of what a server keeps with us: each round's is journaled, and sent to it again."""

MAX_FORM_BYTES = 32_768
"""Of a question and its form: a person reads all of it, and each reader of the inbox is sent it."""

_SHOWN_CALL = 2_000
"""Characters of the call's arguments that whoever is asked is shown."""

_WHAT = {
    "sampling/createMessage": "have a model asked",
    "roots/list": "be told of folders",
}


class AskedFor(AirsideError):
    """A server answered that it needs more before it completes a call: `requests` by their keys, and its `state`."""


def input_needed(
    asked: AskedFor, server: str, tool: str, arguments: Mapping[str, Any], number: int, redactor: Redactor
) -> InputNeeded:
    """Return the question to people; raise `InvalidInput` for what none of them is asked, with why."""
    requests, state = asked.details["requests"], asked.details["state"]
    if len(requests) != 1:
        what = "several things at once" if requests else "to be asked again"
        raise InvalidInput(f"it asks for {what} before it completes the call")
    if state is not None and (len(state) > MAX_STATE_CHARS or redactor.text(state) != state):
        raise InvalidInput(f"its requestState has over {MAX_STATE_CHARS:,} characters, or a secret")
    ((name, request),) = requests.items()
    if len(name) > MAX_STATE_CHARS:
        raise InvalidInput("it asks under a key that is too long")
    params = request.get("params") or {}
    if request["method"] != "elicitation/create":
        raise InvalidInput(f"it asks to {_WHAT.get(request['method'], 'be told more')}, which nobody does for a server")
    if params.get("mode") == "url":
        raise InvalidInput("it asks that a person visits a page, which nobody is sent to")
    question = {
        "question": _shown(str(params.get("message") or "")),
        "server": server,
        "call": f"{tool}({canonical(dict(arguments)).decode()[:_SHOWN_CALL]})",
        "fields": read_fields(params.get("requestedSchema")),
        **({"round": number} if number > 1 else {}),
    }
    kept = {"key": name, "state": state}
    text = f"{server}.{tool} asks a person before it completes the call"
    try:
        asking, keeping = orjson.dumps(redactor.value(question)), orjson.dumps(kept)
    except orjson.JSONEncodeError:
        raise InvalidInput("it asks in what is no text") from None
    if len(asking) > MAX_FORM_BYTES:
        raise InvalidInput(f"its question and form take {len(asking):,} bytes, of at most {MAX_FORM_BYTES:,}")
    return InputNeeded(text, question=asking, kept=keeping)


def _shown(message: str) -> str:
    text = CONTROLS.sub("", message)
    if not 0 < len(text.strip()) <= MAX_QUESTION_CHARS:
        raise InvalidInput(f"its question has not 1 to {MAX_QUESTION_CHARS:,} characters")
    return text


def responses_of(before: AskedBefore, answer: Answer | None) -> tuple[dict[str, Any], str | None]:
    """Return what a server is told in the round after it asked, and what it kept with us."""
    kept = orjson.loads(before.kept)
    response: dict[str, Any] = {"action": before.declined or "cancel"}
    if answer is not None:
        content = filled(orjson.loads(before.question)["fields"], answer.text)
        response = {"action": "accept", "content": content}
    return {kept["key"]: response}, kept["state"]
