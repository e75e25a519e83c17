"""What the tests of tool servers share: the server of `tests/apps/mcp_server.py`, approved, behind a dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mcp.shared.memory import create_client_server_memory_streams

from airside.stack.ids import RunId
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.mcp.offer import ServerOffer
from airside.tools.mcp.pins import ApprovedOffer, write_pin
from airside.tools.mcp.server import McpServer
from airside.tools.mcp.session import McpSession
from airside.tools.runners.toolset_states import ToolsetState
from airside.tools.sandbox.command import package_folders, python_there
from airside.tools.secrets.providers import EnvironmentSecrets, SecretsProvider
from tests.apps import mcp_server
from tests.helpers import EXECUTOR, KEY, RUN, SECOND, granted

OTHER_RUN = RunId("run_" + "1" * 24)
PROGRAM = [python_there(), mcp_server.__file__]
_SANDBOX_USER = 12_345

MAPPING: dict[str, Any] = {
    "total": {"effect": "read"},
    "who": {"effect": "read"},
    "parts": {"effect": "read"},
    "add": {"effect": "write"},
    "lose": {"effect": "write"},
    "die": {"effect": "write"},
    "flood": {"effect": "read", "max_output_bytes": 20_000},
}


def declared(folder: Path, tools: Mapping[str, Any] = MAPPING, **fields: Any) -> McpServer:
    """Return the server that is started, whose effects are in a folder, and its pins beside them."""
    mapping = {"read": [mcp_server.__file__], "workspace": str(folder), "tools": dict(tools)}
    env = {"FOLDER": "/workspace", "PYTHONPATH": ":".join(package_folders()), "PYTHONDONTWRITEBYTECODE": "1"}
    given = {"command": PROGRAM, "mapping": mapping, "pin": folder / "mcp.lock.json", "env": env}
    return McpServer("tests", **(given | fields))


def give_to_sandbox(folder: Path) -> None:
    """Make a folder one that a server may write in: no sandbox runs as root."""
    folder.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(folder, _SANDBOX_USER, _SANDBOX_USER)


async def offer_of(server: McpServer, secrets: Mapping[str, str] = MappingProxyType({})) -> ServerOffer:
    """Return what a server offers now."""
    offers: list[Any] = []
    session = await McpSession.open(server.address(server.read_mapping()[0]), secrets, offers.append, 30)
    await session.close()
    assert isinstance(offers[0], ServerOffer)
    return offers[0]


def approve(server: McpServer, offer: ServerOffer) -> None:
    """Pin an offer for a server, as it is reached."""
    launch = server.address(server.read_mapping()[0]).launch
    offer = ServerOffer(launch=launch, identity=offer.identity, instructions=offer.instructions, tools=offer.tools)
    pin = ApprovedOffer(digest=offer.digest, approved_at="2026-01-01T00:00:00Z", approved_by="ann", offer=offer)
    write_pin(Path(server.pin), server.name, pin)


@contextlib.asynccontextmanager
async def in_process(served: mcp_server.Served) -> AsyncIterator[Any]:
    """Yield the streams of a session with a server in this process."""
    async with create_client_server_memory_streams() as (ours, (read, write)):
        options = served.server.create_initialization_options()
        serving = asyncio.ensure_future(served.server.run(read, write, options))
        try:
            yield ours
        finally:
            serving.cancel()
            await asyncio.wait({serving})


TOKEN = EnvironmentSecrets({each: {"token": "SERVER_TOKEN"} for each in ("acme", "globex")})
"""The secrets of two tenants, of a variable that a test sets."""


class Behind:
    """An executor with an approved server's tools."""

    def __init__(
        self,
        server: McpServer,
        folder: Path,
        *,
        in_threads: bool = False,
        secrets: SecretsProvider | None = None,
    ) -> None:
        self.folder = folder
        toolset = server.read_toolset()
        self.tools = {each.name.removeprefix("tests."): each for each in toolset.tools}
        self.dispatcher = Dispatcher(
            [toolset],
            seal_key=KEY,
            executor_id=EXECUTOR,
            now_us=lambda: 10 * SECOND,
            in_threads=in_threads,
            secrets=secrets,
        )

    async def run(self, name: str, arguments: Mapping[str, Any] | None = None, **fields: Any) -> ToolResult:
        """Have a tool called under a grant and a key of its own."""
        data = json.dumps(arguments or {}).encode()
        given = {"nonce": os.urandom(12), "key": os.urandom(4).hex(), "run_id": RUN, "timeout_ms": 60_000} | fields
        return (await self.dispatcher.execute(granted(self.tools[name].spec, data, **given))).result

    def effects(self) -> list[str]:
        """Return the effects there were, without the processes."""
        file = self.folder / "effects"
        return [line.rsplit(" ", 1)[0] for line in file.read_text().splitlines()] if file.exists() else []

    def states(self) -> list[ToolsetState]:
        """Return the sessions there are."""
        return list(self.dispatcher._states._states.values())

    async def settled(self) -> None:
        """Wait until the sessions that are closed have ended."""
        await asyncio.gather(*self.dispatcher._states._closing)

    async def close(self) -> None:
        """End every session."""
        for state in self.states():
            self.dispatcher._states._close_later(state)
        await self.settled()
        self.dispatcher.close()
