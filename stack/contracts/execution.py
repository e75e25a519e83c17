"""What an executor is asked to carry out, and what became of it."""

from __future__ import annotations

from airside.stack.values import ToolResult, Value


class ExecuteRequest(Value, array_like=True):
    """A granted call.

    `traceparent` is the run's W3C trace context; `output` is what a call to undo returned, and `asked` what the tool
    asked before it completes the call, as the executor sealed it.
    """

    grant: bytes
    arguments: bytes
    traceparent: str = ""
    output: bytes = b"null"
    asked: str = ""


class ExecuteReply(Value, array_like=True):
    """What became of it.  A refusal before anything started has the reason `grant_invalid` or `grant_stale`."""

    result: ToolResult
