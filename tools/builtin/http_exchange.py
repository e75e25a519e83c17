"""One HTTP request over one connection to a checked address: what is sent, and an answer within its bounds.

Names are resolved once, by whoever asks; the connection is made to one of these addresses, and TLS is verified against
the name.  So there is no second look-up that could answer otherwise.  No proxies, no cookies, no kept connections.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address

import h11

from airside.stack.errors import AirsideError
from airside.tools.builtin.addresses import Address

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""Returns the addresses of a name; raises `OSError` for a name that has none."""

Connect = Callable[[str, int, str, str], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connects to an address and port, with TLS for a name ("": none) verified by the authorities of a file ("": usual)."""

MAX_ADDRESSES = 4
"""Of a name that has many, so that a dead service does not use up a call's time."""

CONNECT_TIMEOUT_S = 5.0
_MAX_HEADER_BYTES = 64 * 1024
_MAX_INTERIM = 16
"""Interim answers (1xx) before the final one; servers send one or two."""

_CHUNK_BYTES = 64 * 1024


class ExchangeFailed(AirsideError):
    """There was no answer, or none that is HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What is sent: headers in lower case, those that frame the request apart."""

    method: str
    authority: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def events(self) -> list[h11.Event]:
        """Return it as it is sent."""
        headers = [("host", self.authority), *self.headers, ("connection", "close")]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            headers.append(("content-length", str(len(self.body))))
        request = h11.Request(method=self.method, target=self.target, headers=headers)
        return [request, *([h11.Data(data=self.body)] if self.body else []), h11.EndOfMessage()]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What came back: `body` without its compression, `truncated` if there was more of it than was allowed."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool

    def header(self, name: str) -> str:
        """Return the values of a header, "" if it was not sent."""
        return ", ".join(value for each, value in self.headers if each == name)


@dataclass(slots=True)
class BoundedBody:
    """A body as it comes in, decompressed, never larger than `max_bytes` in any form."""

    encoding: str
    max_bytes: int
    data: bytearray = field(default_factory=bytearray)
    truncated: bool = False
    _received: int = 0
    _inflater: zlib._Decompress | None = None

    def add(self, chunk: bytes) -> None:
        """Take in what came; what is too much sets `truncated` and is dropped."""
        room = self.max_bytes - self._received
        self._received += len(chunk)
        if len(chunk) > room:
            chunk, self.truncated = chunk[:room], True
        if self.encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate(chunk)
        else:
            self.data += chunk

    def end(self) -> None:
        """Say that all has come: what is compressed and ends before its end was cut on the way."""
        self.truncated = self.truncated or (self._inflater is not None and not self._inflater.eof)

    def _inflate(self, chunk: bytes) -> None:
        while chunk and len(self.data) <= self.max_bytes:
            if self._inflater is None or self._inflater.eof:  # gzip may have several members, one after the other
                self._inflater = zlib.decompressobj(self._window(chunk))
            # One byte more than there is room for tells a body that fits from one that does not.
            self.data += self._inflater.decompress(chunk, self.max_bytes + 1 - len(self.data))
            chunk = self._inflater.unconsumed_tail or self._inflater.unused_data
        if len(self.data) > self.max_bytes:
            del self.data[self.max_bytes :]
            self.truncated = True

    def _window(self, chunk: bytes) -> int:
        if self.encoding != "deflate":
            return zlib.MAX_WBITS | 16
        return zlib.MAX_WBITS if chunk[0] & 0x0F == 8 else -zlib.MAX_WBITS  # with the header of zlib, or without


async def resolve(host: str, port: int) -> list[Address]:
    """Ask the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


async def connect(
    address: str, port: int, tls_host: str, ca_file: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an address; an `OSError` says why not."""
    if not tls_host:
        return await asyncio.open_connection(address, port)
    return await asyncio.open_connection(address, port, ssl=_tls(ca_file), server_hostname=tls_host)


@lru_cache(maxsize=8)
def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def connect_to_any(
    addresses: Sequence[Address], port: int, tls_host: str, ca_file: str, connect: Connect
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that answers; raise `ExchangeFailed` with what the last one said."""
    said: Exception | None = None
    for address in addresses[:MAX_ADDRESSES]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await connect(str(address), port, tls_host, ca_file)
        except TimeoutError:
            said = TimeoutError(f"no answer in {CONNECT_TIMEOUT_S:g} s")
        except OSError as error:  # refused, unreachable, or a certificate that is not the host's
            said = error
    raise ExchangeFailed(f"no connection: {said}")


async def exchange(
    request: HttpRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_bytes: int
) -> HttpAnswer:
    """Send a request and return the answer; the connection is closed, whatever came of it."""
    protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
    try:
        writer.write(b"".join(protocol.send(event) or b"" for event in request.events()))
        await writer.drain()
        return await _answer(protocol, reader, max_bytes)
    except (h11.ProtocolError, zlib.error, OSError, UnicodeError) as error:
        raise ExchangeFailed(f"the server's answer is broken: {error}") from None
    finally:
        writer.transport.abort()


async def _answer(protocol: h11.Connection, reader: asyncio.StreamReader, max_bytes: int) -> HttpAnswer:
    interim = 0
    while not isinstance(event := await _next(protocol, reader), h11.Response):
        interim += 1
        if interim > _MAX_INTERIM or not isinstance(event, h11.InformationalResponse):
            raise ExchangeFailed("the server gave no answer")
    headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
    encodings = [value.strip().lower() for name, value in headers if name == "content-encoding"]
    body = BoundedBody(encodings[0] if len(encodings) == 1 else "", max_bytes)
    while not body.truncated and isinstance(part := await _next(protocol, reader), h11.Data):
        body.add(bytes(part.data))
    body.end()
    return HttpAnswer(status=event.status_code, headers=headers, body=bytes(body.data), truncated=body.truncated)


async def _next(protocol: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := protocol.next_event()) is h11.NEED_DATA:
        protocol.receive_data(await reader.read(_CHUNK_BYTES))
    return event
