"""A server that is reached by its URL: connections to addresses that were checked, and answers within bounds.

Each connection's addresses are resolved once and checked, and it is made to one of them.  The SDK follows redirects
of what is read within the server's origin alone, and these are connected to in the same way; a call is sent once, to
where it was approved.  What was not sent, because there was no connection, comes back as an error that no server can
write: it holds a word that was drawn for this session.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import httpcore2
import httpx2

from airside.tools.builtin.addresses import embedded, refused_address
from airside.tools.builtin.http_exchange import CONNECT_TIMEOUT_S, MAX_ADDRESSES, Resolve
from airside.tools.builtin.urls import WebUrl

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of one answer that is JSON; of a stream the SDK bounds each event."""

MAX_READS_A_MINUTE = 60
"""Streams of one session.  The SDK opens one anew whenever a server ends it, and as soon as that says; after two that
fail it lets it be, and what the server would have said there is asked for every minute in any case."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

NOT_SENT = -32_099
"""The code of an error in place of an answer to what was not sent; it counts with the session's own word alone."""


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to a server's host, if all of its addresses may be connected to."""

    def __init__(self, url: WebUrl, *, private: bool, resolve: Resolve) -> None:
        self._url = url
        self._private = private
        self._resolve = resolve
        self._plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as the library has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that answers; raise `ConnectError` if none may or does."""
        literal = self._url.address
        try:
            found = [literal] if literal is not None else await self._resolve(self._url.host, port)
        except (OSError, ValueError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} is not resolved: {error}") from None
        for address in found:
            if problem := refused_address(address, private=self._private):
                raise httpcore2.ConnectError(f"{host}: {problem}: the mapping may say private: true")
        said: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in found[:MAX_ADDRESSES]:
            try:
                return await self._plain.connect_tcp(str(embedded(address)), port, CONNECT_TIMEOUT_S)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                said = error
        raise said

    async def sleep(self, seconds: float) -> None:
        """Sleep, for the connection pool."""
        await self._plain.sleep(seconds)


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Sends requests over checked connections; what goes wrong with one is an answer that says so."""

    def __init__(self, network: CheckedNetwork, tls: ssl.SSLContext, word: str) -> None:
        self._pool = httpcore2.AsyncConnectionPool(ssl_context=tls, network_backend=network, max_connections=64)
        self._word = word
        self._reads: deque[float] = deque(maxlen=MAX_READS_A_MINUTE)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its answer, or one of ours in its place."""
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        if request.method == "GET" and not self._may_read():
            return self._instead(-32_000, f"it had more than {MAX_READS_A_MINUTE} streams opened within a minute")
        url = httpcore2.URL(
            scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
        )
        sent = httpcore2.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self._pool.handle_async_request(sent)
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout) as error:
            return self._instead(NOT_SENT, f"no connection: {error}")
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as error:
            return self._instead(-32_000, f"the connection was lost: {error or type(error).__name__}")
        if _header(answer.headers, b"content-encoding") not in ("", "identity"):
            await answer.aclose()
            return self._instead(-32_000, "the answer is compressed, which was not asked for")
        if request.method == "POST" and answer.status in _REDIRECTS:
            await answer.aclose()
            return self._instead(-32_000, "a redirect of what was sent is not followed")
        is_stream = _header(answer.headers, b"content-type").startswith("text/event-stream")
        return httpx2.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_BoundedStream(answer.stream, None if is_stream else MAX_ANSWER_BYTES),
            extensions=answer.extensions,
        )

    def _may_read(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        if len(self._reads) == MAX_READS_A_MINUTE and now_s - self._reads[0] < 60:
            return False
        self._reads.append(now_s)
        return True

    def _instead(self, code: int, text: str) -> httpx2.Response:
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text, "data": self._word}}
        return httpx2.Response(502, headers={"content-type": "application/json"}, content=json.dumps(error))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends with an error the SDK takes for one of this answer, and not of the session."""

    def __init__(self, stream: Any, bound: int | None) -> None:
        self._stream = stream
        self._bound = bound

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for part in self._stream:
                size += len(part)
                if self._bound is not None and size > self._bound:
                    raise httpx2.StreamError(f"the answer is over {self._bound:,} bytes")
                yield part
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as error:
            raise httpx2.StreamError(f"the answer was cut: {error or type(error).__name__}") from None

    async def aclose(self) -> None:
        await self._stream.aclose()


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    return ", ".join(value.decode("latin-1").lower() for name, value in headers if name.lower() == wanted)


def checked_client(
    url: WebUrl, *, private: bool, resolve: Resolve, headers: Mapping[str, str], word: str, ca_file: str = ""
) -> httpx2.AsyncClient:
    """Return the client of a session: no proxies, no cookies, nothing from the environment."""
    tls = ssl.create_default_context(cafile=ca_file or None)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    transport = CheckedTransport(CheckedNetwork(url, private=private, resolve=resolve), tls, word)
    timeout = httpx2.Timeout(CONNECT_TIMEOUT_S * MAX_ADDRESSES, read=None)
    ours = {"user-agent": "airside", "accept-encoding": "identity"}
    return httpx2.AsyncClient(transport=transport, headers={**headers, **ours}, timeout=timeout, trust_env=False)
