"""Listening for HTTP: loopback unless it is told otherwise.

Whoever is connected holds a place of everybody's.  So a connection ends that says nothing, or takes nothing of what it
is sent; and no address holds more than half of the places.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from airside.actors.http_settings import is_loopback
from airside.actors.web.requests import header_of, network_of
from airside.stack.errors import Failed, Misuse

BODY_S = 15.0
"""How long a request may take to arrive: its bytes count as nobody's until then."""

SEND_S = 15.0
"""How often it is looked whether a client takes what it is sent; who has taken nothing since is not waited for."""

MAX_CONNECTIONS = 4_096
"""Each is a request that may wait for what it asked, or a stream, and holds no more than its message."""

MAX_OF_ADDRESS = MAX_CONNECTIONS // 2
"""Of those, by one address: it leaves room for others.  A proxy, which all come by, has its own bounds."""

_SPARE_FILES = 256
"""Files of the process beside its connections."""

_LEAST_TAKEN_BYTES = 4_096
"""What a client is to take between two looks."""


class Listener(msgspec.Struct, frozen=True):
    """A socket that takes connections, before anything is served on it; `url` is of its root."""

    socket: Any
    url: str


class Tls(msgspec.Struct, frozen=True):
    """Where a certificate, with those above it, and its key lie, as PEM."""

    certificate: Path
    key: Path


def listen(
    address: str,
    hosts: Sequence[str],
    *,
    option: str,
    name_option: str,
    scheme: str = "http",
    is_shared: bool = False,
) -> Listener:
    """Bind `HOST:PORT`; raise `Misuse` for what is none, and for one that others reach under a name nobody gave.

    `option` and `name_option` are what the command calls the address and a name; a refusal says them.  What `is_shared`
    several processes of one user may listen on, each taking its part of the connections.
    """
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise Misuse(f"{option} {address!r:.80}: write HOST:PORT, 127.0.0.1:8400 say")
    if not is_loopback(host) and not hosts:
        raise Misuse(f"{option} {address}: others reach this: give {name_option} NAME for each name they reach it by")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of a socket that says it is TCP's asyncio sends what is written at once (TCP_NODELAY); of another what follows
    # the head of an answer may wait 40 ms for the client's acknowledgement.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, int(port)))
        made.listen(MAX_CONNECTIONS)  # whoever is told the address finds it open
    except OSError as error:
        made.close()
        raise Failed(f"{option} {address}: {error.strerror or error}") from None
    shown = f"[{host}]" if ":" in host else host
    return Listener(socket=made, url=f"{scheme}://{shown}:{made.getsockname()[1]}")


class _Connection(H11Protocol):
    """A connection that ends if no request of it comes in time, or nobody takes what it is sent."""

    _late: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None
    _left_bytes: float = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_one_too_many():
            transport.abort()
            return
        self._expect()
        self._look = self.loop.call_later(SEND_S, self._check_it_is_taken)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_expecting()
        if self._look is not None:
            self._look.cancel()

    def _is_one_too_many(self) -> bool:
        if len(self.connections) > _places():
            return True
        if self.config.proxy_headers or self.client is None:
            return False
        mine = network_of(self.client[0])
        others = [each.client for each in self.connections if isinstance(each, _Connection)]
        return sum(each is not None and network_of(each[0]) == mine for each in others) > MAX_OF_ADDRESS

    def _check_it_is_taken(self) -> None:
        """End a connection whose client has stopped reading; look again later at one that is read.

        What waits to be sent grows no more while it waits, or once the connection is to close: it is less each time.
        """
        left = self.transport.get_write_buffer_size()
        is_waiting = bool(left) and (self.flow.write_paused or self.transport.is_closing())
        if is_waiting and left > self._left_bytes - _LEAST_TAKEN_BYTES:
            self.transport.abort()
            return
        self._left_bytes = left if is_waiting else math.inf
        self._look = self.loop.call_later(SEND_S, self._check_it_is_taken)

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


async def serve_http(
    app: ASGIApp, listener: Listener, *, tls: Tls | None = None, trusted_proxies: Sequence[str] = ()
) -> None:
    """Serve until the process is told to stop; raise what `server_of` does."""
    await server_of(app, tls=tls, trusted_proxies=trusted_proxies).serve(sockets=[listener.socket])


def server_of(app: ASGIApp, *, tls: Tls | None, trusted_proxies: Sequence[str]) -> uvicorn.Server:
    """Return what serves an application, ready to.

    Who a request comes from is believed of a proxy alone that is named.  Raises `Misuse` for a certificate that cannot
    be read.
    """
    _allow_files()
    config = _config(_with_one_length(app), tls, trusted_proxies)
    try:
        config.load()
    except OSError as error:  # `ssl.SSLError` is one
        assert tls is not None
        raise Misuse(f"{tls.certificate} and {tls.key}: no certificate with its key: {error}") from None
    return uvicorn.Server(config)


def _with_one_length(app: ASGIApp) -> ASGIApp:
    """Return what refuses a request with two lengths: who stands before may have read the other one (RFC 9112, 6.1)."""
    refused = PlainTextResponse(
        "A request has Content-Length or Transfer-Encoding, not both.", 400, {"Connection": "close"}
    )

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        is_request = scope["type"] == "http"
        is_both = is_request and header_of(scope, b"content-length") and header_of(scope, b"transfer-encoding")
        await (refused if is_both else app)(scope, receive, send)

    return served


def _allow_files() -> None:
    """Let the process have a file for each connection, as far as the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _places() -> int:
    """Return how many connections there may be: those for which there are files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - _SPARE_FILES))


def _config(app: ASGIApp, tls: Tls | None, trusted_proxies: Sequence[str]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=32_768,
    )
