"""The gateway over streamable HTTP: who may speak to it, and how much.

Loopback unless it is told otherwise.  A `Host` that it was not told of, and any `Origin`, is refused: a page in a
browser reaches what listens on its machine, and no browser is a client.  There is no CORS, no cookie, no session and
no stream of the server's own: each request is a message with its bearer's token, and one that is not there in time is
none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from airside.actors.gateway.calls import Caller, GatewayCalls
from airside.actors.gateway.server import Context, make_server
from airside.actors.web.listening import BODY_S
from airside.actors.web.requests import LOOPBACK, bearer_of, in_time
from airside.stack.errors import AirsideError, AuthRefused
from airside.stack.reasons import ReasonCode
from airside.stack.values import MAX_REQUEST_BYTES

PATH = "/mcp"
MAX_BODY_BYTES = MAX_REQUEST_BYTES + 65_536
"""A call's arguments, and the protocol around them."""

MAX_OF_TENANT = 128
"""Requests of one tenant at once: others are served beside it."""

_BUSY_S = 1

_CALLER = "airside.caller"


class _Door:
    """Lets in who has a credential, and what comes in time."""

    def __init__(self, app: ASGIApp, calls: GatewayCalls) -> None:
        self._app = app
        self._calls = calls
        self._of_tenant: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if refused := _refusal_of(scope):
            await refused(scope, receive, send)
            return
        try:
            caller = scope[_CALLER] = await self._calls.identify(bearer_of(scope))
        except AirsideError as error:
            await _refuse(error)(scope, receive, send)
            return
        if self._of_tenant[caller.tenant] >= MAX_OF_TENANT:
            await _too_many(caller.tenant)(scope, receive, send)
            return
        self._of_tenant[caller.tenant] += 1
        try:
            await self._app(scope, in_time(receive, BODY_S), send)
        finally:
            self._of_tenant[caller.tenant] -= 1
            if not self._of_tenant[caller.tenant]:
                del self._of_tenant[caller.tenant]


def _refusal_of(scope: Scope) -> ASGIApp | None:
    """Return the refusal of what is no message, or is a browser's, whoever sends it; None for what may be one."""
    if scope["method"] != "POST":  # a stream would stay open for as long as its client likes, and say nothing
        message = "send messages by POST: there is no stream and no session here"
        return JSONResponse({"error": "method", "message": message}, status_code=405, headers={"Allow": "POST"})
    if any(name == b"origin" for name, _ in scope["headers"]):
        return JSONResponse({"error": "origin", "message": "no page in a browser is a client"}, status_code=403)
    return None


def _too_many(tenant: str) -> ASGIApp:
    message = f"{tenant} has {MAX_OF_TENANT} requests at once here: try again later"
    headers = {"Retry-After": str(_BUSY_S)}
    return JSONResponse({"error": "too_many", "message": message}, status_code=429, headers=headers)


def _refuse(error: AirsideError) -> ASGIApp:
    code = error.reason if isinstance(error, AuthRefused) else type(error).__name__
    is_refused = isinstance(error, AuthRefused) and error.reason != ReasonCode.AUTH_KEYS_UNAVAILABLE
    status = 401 if is_refused else 503
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": code, "message": error.message}, status_code=status, headers=headers)


async def _who_calls(context: Context) -> Caller:
    scope = getattr(context.request, "scope", {})
    caller = scope.get(_CALLER)
    if not isinstance(caller, Caller):
        raise AuthRefused(ReasonCode.AUTH_FAILED.sentence, reason=ReasonCode.AUTH_FAILED.value)
    return caller


def http_app(calls: GatewayCalls, key: bytes, audience: str, hosts: Sequence[str] = ()) -> ASGIApp:
    """Return the gateway as an ASGI application; `hosts` are names it is reached by, beside those of loopback."""
    server = make_server(calls, _who_calls, key, audience)
    allowed = [name for host in (*LOOPBACK, *hosts) for name in (host, f"{host}:*")]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(allowed_hosts=allowed, allowed_origins=[]),
    )
    return _Door(app, calls)
