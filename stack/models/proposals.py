"""What a model's answer proposes.  Nothing of it is trusted: names, ids and arguments are as it wrote them.

What is no call (no JSON, a key twice, an answer of the wrong shape, one that was cut off) becomes a call of a tool that
there is none of, so that the gate refuses it like any other, the run counts it, and the model is told why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airside.stack.canonical import as_text, check_bounds, parse_bounded
from airside.stack.contracts.models import ModelReply, RequestedCall
from airside.stack.errors import InvalidInput
from airside.stack.models.prompts import REFUSED_CALL
from airside.stack.run.agents import Decided
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES
from airside.stack.values import MAX_CALLS, Action, Finish, Handoff

ANSWER_TOOL = "final_answer"
HANDOFF_PREFIX = "transfer_to_"

_MAX_NAME = 128
_MAX_WHY = 2_000


def proposed(
    reply: ModelReply,
    *,
    handoffs: frozenset[str],
    answer: Callable[[Any], Any] | None,
    only: str | None = None,
) -> Decided:
    """Return what an answer proposes.

    `answer` makes a run's answer of what the model gives as one, and raises `InvalidInput` for what is none; without it
    any text is one.  `only` is the one tool that may be called, if there is such a one: alone, as what ends the run is.
    """
    if reply.finish == "length":
        return _refused("answer", "the answer was cut off at its longest: make it shorter, or propose fewer calls")
    if reply.finish == "other" and not reply.calls:
        return _refused("answer", "the model ended without an answer: give one, or call a tool")
    if reply.finish == "content_filter":
        return _refused("answer", "the provider filtered the answer")
    if not reply.calls:
        if answer is not None:
            return _refused(ANSWER_TOOL, f"end by calling {ANSWER_TOOL}")
        return _finish(as_text(reply.text))
    if len(reply.calls) > MAX_CALLS:
        return _refused("calls", f"{len(reply.calls)} calls at once: propose at most {MAX_CALLS}")
    alone = [call for call in reply.calls if call.tool == only or _ends(call, handoffs, answer)]
    if alone and len(reply.calls) > 1:
        text = f"{alone[0].tool} comes alone: nothing was done of {len(reply.calls)} calls"
        return _refused(_name(alone[0]), text)
    if alone and alone[0].tool != only:
        return _end(alone[0], answer)
    if only is not None and not alone:
        return _refused(_name(reply.calls[0]), f"call {only}: tools are called in its code, and by nothing else")
    actions = [_action(call) for call in reply.calls]
    return actions[0] if len(actions) == 1 else actions


def _ends(call: RequestedCall, handoffs: frozenset[str], answer: Callable[[Any], Any] | None) -> bool:
    return (call.tool == ANSWER_TOOL and answer is not None) or call.tool.removeprefix(HANDOFF_PREFIX) in (
        handoffs if call.tool.startswith(HANDOFF_PREFIX) else ()
    )


def _end(call: RequestedCall, answer: Callable[[Any], Any] | None) -> Decided:
    try:
        arguments = _arguments(call)
        if call.tool == ANSWER_TOOL and answer is not None:
            return _finish(answer(arguments))
    except InvalidInput as error:
        return _refused(_name(call), error.message)
    agent = call.tool.removeprefix(HANDOFF_PREFIX)
    return Handoff(agent=agent, message=arguments.get("message"))


def _finish(answer: Any) -> Decided:
    """End with an answer; one that no run may have (a control character, say) is told to the model."""
    try:
        check_bounds(answer, where="answer")
        return Finish(answer=answer)
    except InvalidInput as error:
        return _refused("answer", error.message)


def _action(call: RequestedCall) -> Action:
    if _is_named_oddly(call):  # what is left of its name may be another tool's
        return _refused(_name(call), "there is no tool of that name")
    try:
        return Action(tool=call.tool, arguments=_arguments(call))
    except InvalidInput as error:
        return Action(tool=_name(call) + REFUSED_CALL, arguments={"why": error.message[:_MAX_WHY]})


def _arguments(call: RequestedCall) -> dict[str, Any]:
    """Return a call's arguments; raise `InvalidInput` for what is no JSON object, or has a key twice."""
    written = as_text(call.arguments).strip() or "{}"
    arguments = parse_bounded(written.encode(), max_bytes=MAX_ARGUMENT_BYTES, where="arguments")
    if not isinstance(arguments, dict):
        raise InvalidInput("arguments: a JSON object is expected")
    check_bounds(arguments, where="arguments")
    return arguments


def _name(call: RequestedCall) -> str:
    return as_text(call.tool)[:_MAX_NAME].rstrip(REFUSED_CALL) or "?"


def _is_named_oddly(call: RequestedCall) -> bool:
    return _name(call) != call.tool


def _refused(tool: str, why: str) -> Action:
    return Action(tool=tool + REFUSED_CALL, arguments={"why": why[:_MAX_WHY]})
