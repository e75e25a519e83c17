"""The gateway over standard streams: of whoever starts it, with the credential that its environment has."""

from __future__ import annotations

from mcp.server.stdio import stdio_server

from airside.actors.gateway.calls import Caller, GatewayCalls
from airside.actors.gateway.server import Context, make_server


async def serve_stdio(calls: GatewayCalls, credential: str, key: bytes, audience: str) -> None:
    """Serve until standard input ends; raise `AuthRefused` at once for a credential that is none."""
    await calls.identify(credential)

    async def who_calls(_: Context) -> Caller:
        return await calls.identify(credential)  # it may have ended since

    server = make_server(calls, who_calls, key, audience)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())
