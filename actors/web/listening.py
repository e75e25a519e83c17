"""Listening for HTTP: loopback unless it is told otherwise, and connections that say nothing are ended."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from airside.stack.errors import Failed, Misuse

BODY_S = 15.0
"""How long a request may take to arrive: its bytes count as nobody's until then."""

MAX_CONNECTIONS = 512
"""Each is a request that may wait for what it asked, and holds no more than its message."""


class Listener(msgspec.Struct, frozen=True):
    """A socket that takes connections, before anything is served on it; `url` is of its root."""

    socket: Any
    url: str


class Tls(msgspec.Struct, frozen=True):
    """Where a certificate, with those above it, and its key lie, as PEM."""

    certificate: Path
    key: Path


def listen(address: str, hosts: Sequence[str], *, option: str, name_option: str, scheme: str = "http") -> Listener:
    """Bind `HOST:PORT`; raise `Misuse` for what is none, and for one that others reach under a name nobody gave.

    `option` and `name_option` are what the command calls the address and a name; a refusal says them.
    """
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise Misuse(f"{option} {address!r:.80}: write HOST:PORT, 127.0.0.1:8400 say")
    if not is_loopback(host) and not hosts:
        raise Misuse(f"{option} {address}: others reach this: give {name_option} NAME for each name they reach it by")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
        made.listen(MAX_CONNECTIONS)  # whoever is told the address finds it open
    except OSError as error:
        made.close()
        raise Failed(f"{option} {address}: {error.strerror or error}") from None
    shown = f"[{host}]" if ":" in host else host
    return Listener(socket=made, url=f"{scheme}://{shown}:{made.getsockname()[1]}")


def is_loopback(host: str) -> bool:
    """Whether what listens there is reached from this machine alone."""
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


async def serve_http(
    app: ASGIApp, listener: Listener, *, tls: Tls | None = None, trusted_proxies: Sequence[str] = ()
) -> None:
    """Serve until the process is told to stop.

    Who a request comes from is believed of a proxy alone that is named.  Raises `Misuse` for a certificate that cannot
    be read.
    """
    config = _config(app, tls, trusted_proxies)
    try:
        config.load()
    except OSError as error:  # `ssl.SSLError` is one
        assert tls is not None
        raise Misuse(f"{tls.certificate} and {tls.key}: no certificate with its key: {error}") from None
    await uvicorn.Server(config).serve(sockets=[listener.socket])


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
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=32_768,
    )
