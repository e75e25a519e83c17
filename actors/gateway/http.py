"""The gateway over streamable HTTP: who may speak to it, and how much.

Loopback unless it is told otherwise.  A `Host` that it was not told of, and any `Origin`, is refused: a page in a
browser reaches what listens on its machine, and no browser is a client.  There is no CORS, no cookie, no session and
no stream of the server's own: each request is a message with its bearer's token, and one that is not there in time is
none.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from airside.actors.gateway.calls import Caller, GatewayCalls
from airside.actors.gateway.server import Context, make_server
from airside.stack.errors import AirsideError, AuthRefused, Failed, Misuse
from airside.stack.reasons import ReasonCode
from airside.stack.values import MAX_REQUEST_BYTES

PATH = "/mcp"
MAX_BODY_BYTES = MAX_REQUEST_BYTES + 65_536
"""A call's arguments, and the protocol around them."""

BODY_S = 15.0
"""How long a request may take to arrive: its bytes count as nobody's until then."""

MAX_CONNECTIONS = 512
"""Each is a request that may wait for its call, and holds no more than its message."""

MAX_OF_TENANT = 128
"""Of these, requests of one tenant at once: others are served beside it."""

_BUSY_S = 1

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
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
            caller = scope[_CALLER] = await self._calls.identify(_bearer(scope))
        except AirsideError as error:
            await _refuse(error)(scope, receive, send)
            return
        if self._of_tenant[caller.tenant] >= MAX_OF_TENANT:
            await _too_many(caller.tenant)(scope, receive, send)
            return
        self._of_tenant[caller.tenant] += 1
        try:
            await self._app(scope, _in_time(receive), send)
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


def _bearer(scope: Scope) -> str:
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, credential = found[0].decode("latin-1").partition(" ") if len(found) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not credential:
        reason = ReasonCode.AUTH_MALFORMED
        raise AuthRefused(f"{reason.sentence} (give one header, Authorization: Bearer TOKEN)", reason=reason.value)
    return credential.strip()


def _refuse(error: AirsideError) -> ASGIApp:
    code = error.reason if isinstance(error, AuthRefused) else type(error).__name__
    status = 401 if isinstance(error, AuthRefused) else 503
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": code, "message": error.message}, status_code=status, headers=headers)


def _in_time(receive: Receive) -> Receive:
    """Return what gives the message's parts until it is whole; one that takes too long has gone away."""
    until = asyncio.get_running_loop().time() + BODY_S
    is_whole = False

    async def part() -> Message:
        nonlocal is_whole
        if is_whole:
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_whole = not message.get("more_body", False)
        return message

    return part


async def _who_calls(context: Context) -> Caller:
    scope = getattr(context.request, "scope", {})
    caller = scope.get(_CALLER)
    if not isinstance(caller, Caller):
        raise AuthRefused(ReasonCode.AUTH_FAILED.sentence, reason=ReasonCode.AUTH_FAILED.value)
    return caller


def http_app(calls: GatewayCalls, key: bytes, audience: str, hosts: Sequence[str] = ()) -> ASGIApp:
    """Return the gateway as an ASGI application; `hosts` are names it is reached by, beside those of loopback."""
    server = make_server(calls, _who_calls, key, audience)
    allowed = [name for host in (*_LOOPBACK, *hosts) for name in (host, f"{host}:*")]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(allowed_hosts=allowed, allowed_origins=[]),
    )
    return _Door(app, calls)


class Listener(msgspec.Struct, frozen=True):
    """A socket that takes connections, before anything is served on it."""

    socket: Any
    url: str


def listen(address: str, hosts: Sequence[str]) -> Listener:
    """Bind `HOST:PORT`; raise `Misuse` for what is none, and for one that others reach under a name nobody gave."""
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise Misuse(f"--http {address!r:.80}: write HOST:PORT, 127.0.0.1:8400 say")
    if not _is_loopback(host) and not hosts:
        raise Misuse(f"--http {address}: others reach this: give --host NAME for each name they reach it by")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
        made.listen(MAX_CONNECTIONS)  # whoever is told the address finds it open
    except OSError as error:
        made.close()
        raise Failed(f"--http {address}: {error.strerror or error}") from None
    shown = f"[{host}]" if ":" in host else host
    return Listener(socket=made, url=f"http://{shown}:{made.getsockname()[1]}{PATH}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Connection(H11Protocol):
    """A connection that ends if no request of it comes in time: who says nothing would hold a place of everybody's."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_expecting()

    def _expect(self) -> None:
        """Give a request that is not there time to arrive, from when it was first waited for."""
        if not self._is_between():
            self._stop_expecting()
        elif self._late is None:
            self._late = self.loop.call_later(BODY_S, self._end)

    def _stop_expecting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_between(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end(self) -> None:
        self._late = None
        if self._is_between():
            self.transport.close()


async def serve_http(app: ASGIApp, listener: Listener) -> None:
    """Serve until the process is told to stop."""
    await uvicorn.Server(_config(app)).serve(sockets=[listener.socket])


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=32_768,
    )
