"""Requests as they come in: the credential they carry, the name they were sent to, and the time they may take."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope

from airside.stack.errors import AuthRefused
from airside.stack.reasons import ReasonCode

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine, by which it is reached without being told of them."""


def header_of(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header, one for each time it is given; `name` is in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def bearer_of(scope: Scope) -> str:
    """Return the credential of a request; raise `AuthRefused` unless it is said once, as a bearer's."""
    found = header_of(scope, b"authorization")
    scheme, _, credential = found[0].partition(" ") if len(found) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not credential.strip():
        reason = ReasonCode.AUTH_MALFORMED
        raise AuthRefused(f"{reason.sentence} (give one header, Authorization: Bearer TOKEN)", reason=reason.value)
    return credential.strip()


def is_named(host: str, names: Iterable[str]) -> bool:
    """Whether a `Host` header is one of these names, with any port: a page of another's may lead a browser here."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        name = host.lower()
    return name in {each.lower() for each in names}


def network_of(address: str) -> str:
    """Return what of an address says who it is: of IPv6 the 64 bits of a network, of which one has all addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found.packed[:8] + bytes(8), 64)))


def in_time(receive: Receive, seconds: float) -> Receive:
    """Return what gives the message's parts until it is whole; one that takes too long has gone away."""
    until = asyncio.get_running_loop().time() + seconds
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
