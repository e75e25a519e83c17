"""`failure`: the result of a call that did not return one."""

from __future__ import annotations

import asyncio

import msgspec

from airside.stack.errors import text_of
from airside.stack.reasons import ReasonCode
from airside.stack.security.grants import Grant
from airside.stack.values import ToolResult
from airside.tools.circuit_breakers import CircuitOpen
from airside.tools.runners.deadlines import Deadline
from airside.tools.runners.jobs import ToolCall
from airside.tools.runners.outcomes import (
    InvalidArguments,
    InvalidOutput,
    LoopBlocked,
    LoopBlockedByAnother,
    NoSandbox,
    NotStarted,
    ToolChanged,
    ToolQuarantined,
    refuse,
)
from airside.tools.secrets.providers import SecretMissing
from airside.tools.tool import InDoubt, Tool, ToolError

_UNBEGUN = {
    ToolQuarantined: ReasonCode.TOOL_QUARANTINED,
    ToolChanged: ReasonCode.TOOL_CHANGED,
    NoSandbox: ReasonCode.SANDBOX_UNAVAILABLE,
}
"""The reasons of errors by which nothing was begun, the narrower kind first."""


MAX_RETRY_AFTER_S = 60
"""A run holds its place meanwhile; whether it is worth more than that is for its agent to say."""


def failure(
    error: BaseException, call: ToolCall, grant: Grant, deadline: Deadline, on_timeout: str = ""
) -> ToolResult | None:
    """Return what a call came to whose runner raised; None if its caller is cancelled, and there is nobody to tell.

    What nothing is known of is in doubt, if the tool changes anything.
    """
    found = call.tool
    match error:
        case TimeoutError() if deadline.expired():
            return refuse(ReasonCode.TOOL_TIMEOUT, _timeout_text(grant, found, deadline) + on_timeout)
        case LoopBlocked() | LoopBlockedByAnother():
            return _blocked(error, found) if deadline.expired() else None
        case asyncio.CancelledError():
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return None
            return _unexpected(RuntimeError("the tool cancelled itself"), found)
        case ToolChanged() | NoSandbox():
            # Of a later attempt the run has to know that it is not the earlier one that did not begin.
            certain = grant.nth == 1 or found.spec.effect == "read"
            reason = next(code for kind, code in _UNBEGUN.items() if isinstance(error, kind))
            return refuse(reason if certain else ReasonCode.TOOL_UNAVAILABLE, error.message)
        case SecretMissing():
            certain = call.context.attempt == 1 or found.spec.effect == "read"
            return refuse(ReasonCode.SECRET_UNAVAILABLE if certain else ReasonCode.TOOL_UNAVAILABLE, error.message)
        case CircuitOpen():
            return refuse(ReasonCode.CIRCUIT_OPEN, error.message)
        case NotStarted():
            return refuse(ReasonCode.TOOL_UNAVAILABLE, error.message)
        case ToolError():
            failed = refuse(ReasonCode.TOOL_FAILED, text_of(error))
            return msgspec.structs.replace(failed, retry_after_ms=_retry_after_ms(error, call, grant))
        case InvalidOutput():
            return refuse(ReasonCode.TOOL_OUTPUT_INVALID, error.message)
        case InvalidArguments() if grant.nth == 1:  # an earlier attempt may have changed something
            return refuse(ReasonCode.TOOL_INVALID_ARGUMENTS, text_of(error))
        case _:
            return _unexpected(error, found)


def _retry_after_ms(error: ToolError, call: ToolCall, grant: Grant) -> int | None:
    """Return after how long a call is sent again; None if it is not, or its run has no time for that."""
    if error.retry_after_s is None or call.what != "call" or grant.nth > call.tool.retries:
        return None
    after_ms = int(min(error.retry_after_s, MAX_RETRY_AFTER_S + 1) * 1000)
    return after_ms if after_ms <= MAX_RETRY_AFTER_S * 1000 and after_ms < grant.left_ms else None


def _timeout_text(grant: Grant, found: Tool, deadline: Deadline) -> str:
    text = f"{grant.tool} did not answer in {grant.timeout_ms / 1000} s, or was stopped"
    if grant.timeout_ms < found.spec.timeout_ms:
        text += f" (it may take {found.spec.timeout_ms / 1000:g} s; its run had no longer)"
    if deadline.waited_s:
        text += f"; it waited {deadline.waited_s:.1f} s for a thread"
    return text


def _blocked(error: LoopBlocked | LoopBlockedByAnother, found: Tool) -> ToolResult:
    text = error.message if error.message.startswith(found.name) else f"{found.name}: {error.message}"
    timed_out = refuse(ReasonCode.TOOL_TIMEOUT, text)
    return msgspec.structs.replace(timed_out, held=isinstance(error, LoopBlocked))


def _unexpected(error: BaseException, found: Tool) -> ToolResult:
    in_doubt = found.spec.effect != "read" or isinstance(error, InDoubt)
    return refuse(ReasonCode.TOOL_IN_DOUBT if in_doubt else ReasonCode.TOOL_FAILED, text_of(error))
