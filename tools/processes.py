"""`Processes`: an executor's side of its launcher.  A call that is cancelled has no process left when that is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import cloudpickle
import msgspec
import orjson

from airside.stack.errors import InvalidInput
from airside.tools.launcher import Call, Ended, Kill
from airside.tools.tool import NOT_DONE, InDoubt, Tool, ToolContext, ToolError

DEATH_S = 3.0
"""Longest wait for a killed call to be reported dead; the launcher takes milliseconds, unless it is gone itself."""


class ProcessDied(RuntimeError):
    """The tool's process ended without an answer: killed, crashed, or over one of its limits."""


class InvalidArguments(InvalidInput):
    """The tool's types do not take the arguments; it was not called."""


class InvalidOutput(InvalidInput):
    """The tool was called, and returned what JSON or its bounds do not hold."""


class _Line:
    """A launcher and the calls it has."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, process: subprocess.Popen[bytes]):
        self._reader = reader
        self._writer = writer
        self._process = process
        self._last = 0
        self._calls: dict[int, asyncio.Future[Ended]] = {}
        self._no = ""
        self.reading = asyncio.ensure_future(self._read())

    async def run(self, call: Call) -> Ended:
        """Have a call made; if the caller is cancelled, the call's processes are dead before that goes on."""
        self._last += 1
        call_id = self._last
        ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = ended
        try:
            await self._send(msgspec.structs.replace(call, call_id=call_id))
            return await asyncio.shield(ended)
        except OSError:
            return await ended  # the launcher is gone, and `_read` says so
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(DEATH_S):
                    await self._send(Kill(call_id))
                    await ended
            raise
        finally:
            self._calls.pop(call_id, None)

    async def send_tools(self, tools: Mapping[str, Tool]) -> None:
        """Give the launcher what it runs; what it imports for them is its own."""
        body = cloudpickle.dumps(dict(tools))
        self._writer.write(len(body).to_bytes(4) + body)
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def _send(self, message: Call | Kill) -> None:
        body = msgspec.msgpack.encode(message)
        self._writer.write(len(body).to_bytes(4) + body)
        await self._writer.drain()

    async def _read(self) -> None:
        """Hand answers to their calls; when the launcher is gone, so are its calls' processes."""
        decode = msgspec.msgpack.Decoder(Ended).decode
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(4))
                ended = decode(await self._reader.readexactly(size))
                if ended.kind == "no_namespaces":
                    self._no = f"this machine lets its user make no PID namespace ({ended.data.decode()})"
                elif (future := self._calls.get(ended.call_id)) is not None and not future.done():
                    future.set_result(ended)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.close()
            await asyncio.to_thread(self._process.wait)
            for call_id, future in self._calls.items():
                if not future.done():
                    future.set_result(
                        Ended(call_id, "tool_error", self._no.encode())
                        if self._no
                        else Ended(call_id, "died", b"the launcher of its process died, and its process with it")
                    )

    def close(self) -> None:
        """Let the launcher end, and with it everything it started."""
        self._writer.close()


class Processes:
    """Starts the launcher at the first call, and another one should it die."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = {name: tool for name, tool in tools.items() if tool.process is not None}
        self._line: _Line | None = None
        self._starting = asyncio.Lock()

    async def run(
        self,
        found: Tool,
        context: ToolContext,
        arguments: bytes,
        *,
        what: Literal["call", "reconcile"] = "call",
    ) -> Any:
        """Run a tool in a process of its own and return its output.

        Raises what the tool raised (`ToolError`, `InDoubt`, else `RuntimeError` with its text), `InvalidArguments`,
        `InvalidOutput` and `ProcessDied`.  If the caller is cancelled, the process is seen dead before that goes on.
        """
        async with self._starting:
            if self._line is None or self._line.reading.done():
                self._line = await self._start()
        fields = asdict(context) | {"state": None}
        return _outcome(await self._line.run(Call(0, found.name, what, fields, arguments, found.spec.max_output_bytes)))

    async def _start(self) -> _Line:
        ours, theirs = socket.socketpair()
        with theirs:
            # The thread that starts it must live as long as the executor: it is the one that runs the event loop.
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once, and is this interpreter
                [sys.executable, "-m", "airside.tools.launcher", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        line = _Line(reader, writer, process)
        await line.send_tools(self._tools)
        return line

    def close(self) -> None:
        """End the launcher, and with it everything it started."""
        if self._line is not None:
            self._line.close()


def _outcome(ended: Ended) -> Any:
    text = ended.data.decode(errors="replace") if ended.kind != "ok" else ""
    match ended.kind:
        case "ok":
            return orjson.loads(ended.data)
        case "not_done":
            return NOT_DONE
        case "tool_error":
            raise ToolError(text)
        case "in_doubt":
            raise InDoubt(text)
        case "invalid":
            raise InvalidArguments(text)
        case "unfit":
            raise InvalidOutput(text)
        case "died":
            raise ProcessDied(text)
        case _:
            raise RuntimeError(text)
