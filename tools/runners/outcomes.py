"""What a call came to, as a result: refused, broken, of unfit arguments, or an output in bounds; what runners raise.

The text of an error and the JSON of an output are made by methods of the tool's own, which may raise or never return:
so that is done where the tool's code runs, under its deadline, and only plain values leave there.  None of them has a
secret that was given to the tenant's tools: it is taken out before they are bounded.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from airside.stack.canonical import check_bounds
from airside.stack.errors import AirsideError, InvalidInput
from airside.stack.reasons import ReasonCode
from airside.stack.values import ToolResult
from airside.tools.secrets.redaction import NO_SECRETS, CutText, Redactor
from airside.tools.tool import InDoubt, ToolError, unanswered

_OTHER_LOOP = ("different event loop", "different loop", "Event loop is closed")
_HINT = " (each tenant's coroutines have an event loop of their own: make clients and locks in a Toolset's open)"


class ToolRaised(AirsideError):
    """A tool raised something that says nothing about what it changed; its text is all that is kept of it."""


class InvalidArguments(InvalidInput):
    """The tool's types do not take the arguments; it was not called."""


class InvalidOutput(InvalidInput):
    """The tool was called, and returned what JSON or its bounds do not hold."""


class NotStarted(AirsideError):
    """Nothing of a call was started: there is nothing to run it, or its time was over before it had its turn."""


class NoSandbox(AirsideError):
    """Nothing of a call was started: no sandbox as its tool needs could be made."""


class ToolChanged(AirsideError):
    """Nothing of a call was started: its tool is no longer there as policy was checked with it."""


class ToolQuarantined(ToolChanged):
    """Nothing of a call was started: its server is not what a person approved."""


class InputNeeded(AirsideError):
    """A call is not complete: its tool asks people a `question`, and is given back what it `kept`; both are JSON."""

    def __init__(self, message: str, *, question: bytes, kept: bytes) -> None:
        super().__init__(message, question=question, kept=kept)


class LoopBlocked(AirsideError):
    """A call held its loop when its time was over."""


class LoopBlockedByAnother(AirsideError):
    """Somebody else held a call's loop when its time was over; it had begun."""


def own_error(error: BaseException, redactor: Redactor = NO_SECRETS) -> AirsideError:
    """Return what a tool raised as an error of ours that holds nothing but its text."""
    text = redactor.error(error)
    if issubclass(type(error), ToolError):
        return ToolError(text, retry_after_s=_retry_after_s(error), unanswered=_unanswered(error))
    if issubclass(type(error), InDoubt):
        return InDoubt(text, unanswered=_unanswered(error))
    if issubclass(type(error), ToolQuarantined):
        return ToolQuarantined(text)
    if type(error) is InputNeeded and all(type(each) is bytes for each in error.details.values()):
        return _asking(text, redactor, **error.details)
    return ToolRaised(text + _HINT if any(words in text for words in _OTHER_LOOP) else text)


def _asking(text: str, redactor: Redactor, *, question: bytes, kept: bytes) -> AirsideError:
    if redactor.data(kept) != kept:
        return ToolRaised("what it keeps until it is answered has a secret")
    try:
        clean = orjson.dumps(redactor.value(orjson.loads(question)))
    except ValueError as error:
        return ToolRaised(f"what it asks is no JSON: {error}")
    return InputNeeded(text, question=clean, kept=kept)


def _unanswered(error: BaseException) -> bool:
    try:
        return unanswered(error)  # type: ignore[arg-type]
    except BaseException:  # its own class has no details, or others
        return False


def _retry_after_s(error: BaseException) -> float | None:
    try:
        return ToolError.retry_after_s.fget(error)  # type: ignore[attr-defined, no-any-return]
    except BaseException:  # its own class has no details, or others
        return None


def refuse(reason: ReasonCode, text: str) -> ToolResult:
    """Return the result of a call that was not started."""
    return ToolResult(ok=False, error=text, reason_code=reason)


def normalise(output: Any, max_bytes: int, redactor: Redactor = NO_SECRETS) -> ToolResult:
    """Return a tool's output as a result: JSON within bounds, or `tool_output_invalid`.

    The call has happened either way, so an unfit output is a settled failure, not a doubt.
    """
    try:
        if redactor and isinstance(output, dict):
            output = {
                name: redactor.end(redactor.text(value)) if type(value) is CutText else value
                for name, value in output.items()
            }
        check_bounds(output, where="output")
        # A copy, for orjson leaves room behind what it wrote: answers are kept, and 60 bytes would keep 4 kB.
        data = b"%b" % orjson.dumps(output)
        if redactor:
            data = orjson.dumps(redactor.value(orjson.loads(data)))
    except Exception as error:  # a value may be of a class whose own methods raise
        return ToolResult(ok=False, error=redactor.error(error), reason_code=ReasonCode.TOOL_OUTPUT_INVALID)
    if len(data) > max_bytes:
        text = f"output of {len(data):,} bytes is over the bound of {max_bytes:,}"
        return ToolResult(ok=False, error=text, reason_code=ReasonCode.TOOL_OUTPUT_INVALID)
    return ToolResult(ok=True, output=msgspec.Raw(data))
