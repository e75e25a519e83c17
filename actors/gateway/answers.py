"""What clients are answered of calls, in the protocol's words.

What a tool returned is the result, as text and as a value.  Whatever ends otherwise (policy, a budget, a person, an
operator said no; the tool failed) is a result with `isError`, which names the reason code.  What has not ended is a
task for clients that know the extension, `input_required` for others of revision 2026-07-28, and for older ones
a result with `isError` that says how to ask again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import mcp_types as types
import msgspec
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from airside.stack.canonical import as_text
from airside.stack.operations.messages import ServedTool
from airside.stack.run.gateway_call import CallStanding

TASKS: Final = "io.modelcontextprotocol/tasks"
KEY_META: Final = "io.airside/idempotencyKey"
RUN_META: Final = "io.airside/run"
CHANGED_META: Final = "io.airside/argumentsChangedTo"

_POLL_MS = 1_000
"""How often a client is asked to look at a task: people take longer, and each look is a read of the journal."""


def tool_of(served: ServedTool) -> types.Tool:
    """Return a tool as it is listed.  The hints are the effect that policy sees, which clients cannot vouch for."""
    return types.Tool(
        name=served.name,
        description=served.description or None,
        input_schema=msgspec.json.decode(served.parameters),
        annotations=types.ToolAnnotations(
            read_only_hint=served.effect == "read",
            destructive_hint=served.effect == "irreversible",
            idempotent_hint=served.effect == "read" or served.repeatable,
            open_world_hint=served.effect in ("external", "irreversible"),
        ),
    )


def result_of(standing: CallStanding) -> types.CallToolResult:
    """Return the result of a call that is over."""
    meta: dict[str, Any] = {RUN_META: standing.run_id}
    if standing.phase != "done":
        return refusal(standing.reason_code.value, standing.message, meta)
    output = standing.output
    text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
    content: list[Any] = [types.TextContent(type="text", text=text)]
    if standing.changed_to is not None:
        meta[CHANGED_META] = standing.changed_to
        said = msgspec.json.encode(standing.changed_to).decode()
        content.append(types.TextContent(type="text", text=f"A person changed the arguments to {said}"))
    structured = output if isinstance(output, dict) else {"result": output}
    return types.CallToolResult(content=content, structured_content=structured, is_error=False, _meta=meta)


def refusal(code: str, message: str, meta: dict[str, Any] | None = None) -> types.CallToolResult:
    """Return the result of a call that was refused, or failed."""
    message = as_text(message)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=f"{code}: {message}")],
        structured_content={"reason_code": code, "message": message},
        is_error=True,
        _meta=meta or {},
    )


def unfinished(
    standing: CallStanding, version: str, capabilities: types.ClientCapabilities | None
) -> types.CallToolResult | types.InputRequiredResult | dict[str, Any]:
    """Return what a client is given for a call that goes on, by which it finds that again."""
    if version not in MODERN_PROTOCOL_VERSIONS:
        message = (
            f"{_status(standing)}; the call goes on as {standing.run_id}: for its result send the same call again with "
            f"the same {KEY_META} in its _meta"
        )
        return refusal("unfinished", message, {RUN_META: standing.run_id})
    if capabilities is not None and TASKS in (capabilities.extensions or {}):
        return {"resultType": "task", **_task(standing, "working")}
    return types.InputRequiredResult(request_state=standing.run_id)


def task_of(standing: CallStanding) -> dict[str, Any]:
    """Return a call as a task, with its result if it is over."""
    if standing.phase == "cancelled":
        return _task(standing, "cancelled")
    if not standing.is_over:
        return _task(standing, "working")
    result = result_of(standing).model_dump(by_alias=True, mode="json", exclude_none=True)
    return {**_task(standing, "completed"), "result": result}


def _task(standing: CallStanding, status: str) -> dict[str, Any]:
    return {
        "taskId": standing.run_id,
        "status": status,
        "statusMessage": _status(standing),
        "createdAt": _time(standing.created_us),
        "lastUpdatedAt": _time(standing.updated_us),
        "ttlMs": None,
        "pollIntervalMs": _POLL_MS,
        "_meta": {RUN_META: standing.run_id},
    }


def _status(standing: CallStanding) -> str:
    if standing.phase == "waiting":
        return "it waits for a person"
    return "it is at work" if not standing.is_over else as_text(standing.message) or "it has a result"


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
