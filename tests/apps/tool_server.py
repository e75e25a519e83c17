"""A program that offers tools over its standard streams, a line of JSON each way, and a toolset of its tools.

It is what a server of tools is: its tools are its own to change, it may die, and it takes a while to start.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from airside.tools.tool import Tool, ToolContext, Toolset

TOOLS: dict[str, dict[str, Any]] = {
    "add": {"number": {"type": "integer"}},
    "who": {},
    "change": {"tool": {"type": "string"}, "argument": {"type": "string"}},
    "die": {},
}


def _listing(arguments: dict[str, dict[str, Any]]) -> list[Tool]:
    """Return the tools that a server's list describes."""
    return [_tool(name, properties) for name, properties in arguments.items()]


def _tool(name: str, properties: dict[str, Any]) -> Tool:
    async def call(context: ToolContext, **arguments: Any) -> Any:
        return await context.state.call(name, arguments)

    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return Tool.from_schema(name, schema, call, effect="read", description=f"{name} of the server")


class Client:
    """One server's process, and what it last said it offers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turns = asyncio.Lock()
        self.offered: list[Tool] = []

    @classmethod
    async def open(cls, context: ToolContext) -> Client:
        """Start a server for a tenant, and have it say what it offers."""
        pipe = asyncio.subprocess.PIPE
        made = cls(
            await asyncio.create_subprocess_exec(sys.executable, __file__, context.tenant, stdin=pipe, stdout=pipe)
        )
        await made.call("", {})
        return made

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Have a tool called; what the server offers comes with every answer."""
        async with self._turns:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps([name, arguments]).encode() + b"\n")
            line = await self._process.stdout.readline()
        if not line:
            self.offered = []
            raise ConnectionError("the server is gone")
        answer, tools = json.loads(line)
        self.offered = _listing(tools)
        return answer

    def offers(self) -> Iterable[Tool]:
        """Return what it offers; raise if it is gone."""
        if self._process.returncode is not None or not self.offered:
            raise ConnectionError("the server is gone")
        return self.offered

    async def close(self) -> None:
        """End the server."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


def served() -> Toolset:
    """Return the server's tools, as they were when somebody read what it offers."""
    return Toolset(
        "server", tuple(_listing(TOOLS)), Client.open, Client.close, lifetime="executor", offers=Client.offers
    )


def main() -> None:
    """Serve until standard input ends."""
    tools, total = dict(TOOLS), 0
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer: Any = None
        match name:
            case "add":
                total += arguments["number"]
                answer = total
            case "who":
                answer = [sys.argv[1], os.getpid()]
            case "change":
                tools = {**tools, arguments["tool"]: {arguments["argument"]: {"type": "string"}}}
            case "die":
                os._exit(1)
        print(json.dumps([answer, tools]), flush=True)


if __name__ == "__main__":
    main()
