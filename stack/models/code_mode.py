"""Code mode: a model writes Python, and each call that its code makes is a call of the run.

The call of `python_code` puts the code on record, and does nothing else: what follows it in the history are the calls
that the code made.  So where a snippet stands is known from the history alone, in any process: it is run again with
their results, and proposes its next calls, or is over and the model is told its value.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from airside.stack.contracts.models import OfferedTool
from airside.stack.errors import InvalidInput
from airside.stack.models.interpreter import interpreter
from airside.stack.models.prompts import Exchange, exchanges_of
from airside.stack.models.snippets import (
    MAX_SNIPPET_CALLS,
    PYTHON_CODE,
    SnippetEnded,
    SnippetWaits,
    called_by_name,
)
from airside.stack.models.tool_stubs import stub_of
from airside.stack.run.agents import View
from airside.stack.run.state import StepRecord
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import UNTRUSTED

_HOW = f"""Run a snippet of Python. Its tools are the async functions below: await each call, or several at once with \
`await asyncio.gather(...)` where none rests on another's result. Each call is checked by policy: one that is refused \
did not happen and raises PermissionError, one that failed raises RuntimeError. The value of the last expression, and \
what is printed, are told to you. Only what is imported from asyncio, json, math, re and typing is there: no files, no \
network, no clock, no randomness, no classes with bases. At most {MAX_SNIPPET_CALLS} calls. Call this tool alone."""

_PARAMETERS = orjson.dumps(
    {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"], "additionalProperties": False}
)

_ABANDONED = orjson.dumps({"ok": False, "trust": UNTRUSTED, "error": "the code was left before its end"}).decode()


def offered_code(tools: Sequence[ToolSpec]) -> OfferedTool:
    """Return `python_code` as a model is offered it, with the tools that code may call."""
    if all(spec.name != PYTHON_CODE for spec in tools):
        raise InvalidInput(f"code_mode: whoever asks may not use {PYTHON_CODE}")
    stubs = "\n\n".join(stub_of(spec) for spec in called_by_name(tools).values())
    return OfferedTool(name=PYTHON_CODE, description=f"{_HOW}\n\n{stubs}", parameters=_PARAMETERS)


async def play_snippets(view: View) -> tuple[list[Exchange], SnippetWaits | None]:
    """Return what a model is told of the agent's calls, and the calls that its latest snippet waits for, if any."""
    history = view.own_history()
    tools = called_by_name(view.tools)
    exchanges: list[Exchange] = []
    at = 0
    while at < len(history):
        record, at = history[at], at + 1
        if record.tool != PYTHON_CODE or not record.result.ok:
            exchanges += exchanges_of(view, [record])
            continue
        following = _until_next_snippet(history, at)
        state = await interpreter().run(view.tenant, record.arguments["code"], tools, following)
        if isinstance(state, SnippetWaits) and at + len(following) == len(history) and _is_open(view, record):
            return exchanges, state
        if isinstance(state, SnippetWaits):  # it had ended otherwise: something else was decided after it
            state = SnippetEnded(calls_made=len(following), result=_ABANDONED)
        exchanges.append(Exchange(record, state.result))
        at += state.calls_made
    return exchanges, None


def _until_next_snippet(history: Sequence[StepRecord], at: int) -> Sequence[StepRecord]:
    end = next((place for place in range(at, len(history)) if history[place].tool == PYTHON_CODE), len(history))
    return history[at:end]


def _is_open(view: View, record: StepRecord) -> bool:
    """Whether only calls were decided on since a snippet began: an end or a handoff is a step without one."""
    return sum(each.step >= record.step for each in view.history) == view.step - record.step
