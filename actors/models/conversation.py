"""Prompts, answers and failures as `pydantic_ai` has them, and as everybody else does.

Imported by the model caller alone: a provider's client takes some 80 MiB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

import orjson
from pydantic_ai import exceptions as failures
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from airside.actors.models.keys import KeyRedaction
from airside.stack.contracts.models import FinishReason, OfferedTool, Prompt, RequestedCall, Turn
from airside.stack.errors import text_of
from airside.stack.models.provider import ProviderAnswer, ProviderFailure

_FINISH: Mapping[str | None, FinishReason] = {
    None: "stop",
    "stop": "stop",
    "tool_call": "tool_call",
    "length": "length",
    "content_filter": "content_filter",
}

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 64

_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "gaierror")
"""What clients raise before a request has left."""

_AT_A_GATEWAY = (502, 504)
"""What whoever stands before a provider answers: the provider itself may have done the work."""


class Conversation:
    """One prompt on the wire, and what comes back of it."""

    def __init__(self, prompt: Prompt, redaction: KeyRedaction) -> None:
        self._names = wire_names(prompt)
        self._redaction = redaction
        self.messages = _messages(prompt, self._names)
        self.parameters = ModelRequestParameters(function_tools=[_tool(each, self._names) for each in prompt.tools])

    def answer(self, response: ModelResponse) -> ProviderAnswer:
        """Return an answer with our tools' names, and without the key, which it may echo."""
        answer, tools = _answer(response), {wire: tool for tool, wire in self._names.items()}
        hidden = self._redaction.hidden
        calls = tuple(
            RequestedCall(
                tool=tools.get(call.tool) or hidden(call.tool),
                arguments=hidden(call.arguments),
                call_id=hidden(call.call_id),
            )
            for call in answer.calls
        )
        return replace(answer, text=hidden(answer.text), calls=calls, model=hidden(answer.model))


def wire_names(prompt: Prompt) -> dict[str, str]:
    """Return what each tool of a prompt is called on the wire: providers take few characters, and each name once."""
    used = [tool.name for tool in prompt.tools] + [call.tool for turn in prompt.turns for call in turn.calls]
    names: dict[str, str] = {}
    for name in dict.fromkeys(used):
        plain = _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME] or "_"
        number = 1
        while plain in names.values():
            number += 1
            plain = f"{plain[: _LONGEST_NAME - 4]}_{number}"
        names[name] = plain
    return names


def _tool(offered: OfferedTool, names: Mapping[str, str]) -> ToolDefinition:
    schema = orjson.loads(offered.parameters)
    return ToolDefinition(name=names[offered.name], description=offered.description, parameters_json_schema=schema)


def _messages(prompt: Prompt, names: Mapping[str, str]) -> list[ModelMessage]:
    """Return the conversation as the library has it: what the user and tools say in one message, up to the model's."""
    messages: list[ModelMessage] = []
    said: list[ModelRequestPart] = []
    for turn in prompt.turns:
        if turn.role == "assistant":
            messages.append(ModelRequest(parts=said, instructions=prompt.instructions or None))
            messages.append(ModelResponse(parts=_parts(turn, names)))
            said = []
        elif turn.role == "tool":
            said.append(ToolReturnPart(names.get(turn.tool, turn.tool), turn.text, turn.call_id))
        else:
            said.append(UserPromptPart(turn.text))
    messages.append(ModelRequest(parts=said, instructions=prompt.instructions or None))
    return messages


def _parts(turn: Turn, names: Mapping[str, str]) -> list[TextPart | ToolCallPart]:
    calls = [ToolCallPart(names[call.tool], call.arguments, call.call_id) for call in turn.calls]
    return [*([TextPart(turn.text)] if turn.text else []), *calls]


def _answer(answer: ModelResponse) -> ProviderAnswer:
    texts = [part.content for part in answer.parts if isinstance(part, TextPart)]
    calls = [
        RequestedCall(
            tool=part.tool_name,
            arguments=_written(part.args),
            call_id=part.tool_call_id,
        )
        for part in answer.parts
        if isinstance(part, ToolCallPart)
    ]
    usage = answer.usage
    is_measured = bool(usage.input_tokens or usage.output_tokens)
    return ProviderAnswer(
        text="".join(texts),
        calls=tuple(calls),
        finish=_FINISH.get(answer.finish_reason, "other"),
        model=answer.model_name or "",
        input_tokens=usage.input_tokens if is_measured else None,
        output_tokens=usage.output_tokens if is_measured else None,
    )


def _written(arguments: object) -> str:
    """Return arguments as the model wrote them, where the provider passes that on: a key may be there twice."""
    if arguments is None:
        return "{}"
    return arguments if isinstance(arguments, str) else json.dumps(arguments)  # NaN stays what it is, and is refused


def failure_of(error: failures.AgentRunError, url: str | None, redaction: KeyRedaction) -> ProviderFailure:
    """Return what a failure means: whether it is paid for, and whether the same may be asked again."""
    text, status = f"{type(error).__name__}: {text_of(error, 400)}", getattr(error, "status_code", None)
    if url is not None:
        text += f" (at {url}" + ("; a base_url ends before /chat/completions, mostly in /v1)" if status == 404 else ")")
    text = redaction.hidden(text)
    after_s = getattr(error, "retry_after", None)
    kind = str(status) if status else type(error).__name__
    if isinstance(error, failures.ModelRateLimitError):
        return ProviderFailure(text, is_sure=True, again=True, after_s=after_s, kind=kind)
    if isinstance(error, failures.ModelQuotaExceededError | failures.ModelRequestRejectedError):
        return ProviderFailure(text, is_sure=True, again=False, kind=kind)
    if isinstance(error, failures.ModelUnavailableError | failures.ModelServerError):
        is_sure = status not in _AT_A_GATEWAY and not getattr(error, "in_stream", False)
        return ProviderFailure(text, is_sure=is_sure, again=True, after_s=after_s, kind=kind)
    if isinstance(error, failures.ModelConnectionError):
        return ProviderFailure(text, is_sure=was_never_sent(error), again=True, kind=kind)
    return ProviderFailure(text, is_sure=False, again=False, kind=kind)


def was_never_sent(error: BaseException) -> bool:
    """Whether a connection failed before a request had left."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in _NEVER_SENT:
            return True
        cause = cause.__cause__ or cause.__context__
    return False
