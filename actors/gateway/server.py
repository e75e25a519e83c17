"""The protocol's methods over a stack's calls, for any transport.

Every message is authenticated anew, and every answer about a call is checked to be its own caller's.  What a client
keeps for us (`requestState`) is sealed with a key of the stack, to the caller and the call.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from airside.actors.gateway.answers import KEY_META, TASKS, refusal, result_of, task_of, tool_of, unfinished
from airside.actors.gateway.calls import Caller, GatewayCalls, nonce_of
from airside.actors.rpc.layer import logger
from airside.stack.errors import AirsideError, InvalidInput, Refused
from airside.stack.ids import RunId, parse_principal, parse_tenant
from airside.stack.run.gateway_call import CallStanding, GatewayCall

PATIENCE_S = 20.0
"""How long one request waits for its call: shorter than what proxies and clients give up after."""

STATE_S = 30 * 86_400.0
"""How long what a client keeps is good: longer than approvals wait."""

INSTRUCTIONS = (
    "Each call is decided by the policy of whoever runs these tools. One may wait for a person; then its result comes "
    "later. An error names a reason code; a call that was denied is denied again."
)

Context = ServerRequestContext[Any, Any]
WhoCalls = Callable[[Context], Awaitable[Caller]]
"""Says who sent a message; raises `Refused` for nobody we know."""

_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def make_server(calls: GatewayCalls, who_calls: WhoCalls, key: bytes, audience: str) -> Server[Any]:
    """Return a server that carries calls to a stack; `key` seals what clients keep, for the stack `audience`."""
    methods = _Methods(calls)
    server: Server[Any] = Server(
        "airside",
        version=version("airside"),
        instructions=INSTRUCTIONS,
        on_list_tools=methods.list_tools,
        on_call_tool=methods.call_tool,
    )
    server.extensions = {TASKS: {}}
    server.add_request_handler("tasks/get", types.GetTaskRequestParams, methods.get_task)
    server.add_request_handler("tasks/cancel", types.CancelTaskRequestParams, methods.cancel_task)
    server.add_request_handler("tasks/update", types.GetTaskRequestParams, methods.update_task)

    async def identified(ctx: Context, call_next: CallNext) -> HandlerResult:
        try:
            _caller.set(await who_calls(ctx))
            return await call_next(ctx)
        except (MCPError, ValidationError):
            raise
        except InvalidInput as error:
            raise MCPError(types.INVALID_PARAMS, error.message) from None
        except Refused as error:
            raise MCPError(types.INVALID_REQUEST, error.message, {"reason_code": error.reason}) from None
        except AirsideError as error:
            logger.warning("A message of a client could not be answered.", extra={"action": "gateway_failed"})
            raise MCPError(types.INTERNAL_ERROR, error.message) from None
        except Exception:
            logger.exception("A message of a client was not handled.", extra={"action": "gateway_failed"})
            raise MCPError(types.INTERNAL_ERROR, "something went wrong here, which the gateway's log says") from None

    security = RequestStateSecurity(keys=[key], ttl=STATE_S, bind_principal=_principal)
    server.middleware += [identified, RequestStateBoundary(security, default_audience=audience)]
    return server


def _principal(_: Context) -> str:
    caller = _caller.get()
    return f"{caller.tenant}/{caller.principal}"


class _Methods:
    """What each method does, for the caller of the message."""

    def __init__(self, calls: GatewayCalls) -> None:
        self._calls = calls

    async def list_tools(self, _: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool_of(each) for each in await self._calls.tools(_caller.get())])

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> Any:
        caller = _caller.get()
        run, is_asked_again = params.request_state, params.request_state is not None
        if run is None:
            call = GatewayCall(tool=params.name, arguments=params.arguments or {})
            try:
                run = await self._calls.begin(caller, call, _key_of(context))
            except Refused as refused:
                return refusal(refused.reason, refused.message)
        try:
            standing = await self._calls.wait(caller, run, seconds=PATIENCE_S, for_people=is_asked_again)
        except AirsideError as error:
            if is_asked_again:
                raise
            # The call was begun: a client that were told of an error would make it once more.
            logger.warning(f"A call that was begun is not seen: {error.message}", extra={"action": "gateway_unseen"})
            now_us = time.time_ns() // 1_000
            standing = CallStanding(
                run_id=RunId(run),
                tenant=parse_tenant(caller.tenant),
                principal=parse_principal(caller.principal),
                call=call,
                phase="working",
                created_us=now_us,
                updated_us=now_us,
            )
        if standing.is_over:
            return result_of(standing)
        return unfinished(standing, context.protocol_version, context.session.client_capabilities)

    async def get_task(self, context: Context, params: types.GetTaskRequestParams) -> dict[str, Any]:
        _check_modern(context)
        return task_of(await self._calls.standing(_caller.get(), params.task_id))

    async def cancel_task(self, context: Context, params: types.CancelTaskRequestParams) -> dict[str, Any]:
        _check_modern(context)
        await self._calls.cancel(_caller.get(), params.task_id)
        return {}

    async def update_task(self, context: Context, params: types.GetTaskRequestParams) -> dict[str, Any]:
        """Take what a client says to a task, which asks its client nothing: people answer, not who called."""
        _check_modern(context)
        await self._calls.standing(_caller.get(), params.task_id)
        return {}


def _check_modern(context: Context) -> None:
    """Raise for a client of a revision that knows no such tasks."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found", context.method)


def _key_of(context: Context) -> str:
    """Return the idempotency key of a call, "" without one; raise `InvalidInput` for what is none."""
    key: Any = dict(context.meta or {}).get(KEY_META, "")
    if key != "":
        nonce_of(key)
    return str(key)
