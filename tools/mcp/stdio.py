"""A server that is started: its process, and the frames to and from it, each of them bounded.

The SDK's own transport gathers a line of any length, and ends a process group, which a child that has left it survives.
Here a frame has a bound, what the server writes beside its frames goes to the log, a little of it, and the process is
one whose end is the end of all it started (`tools/sandbox/command.py`).
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from airside.stack.run.story import printable
from airside.tools.mcp.address import ServerAddress
from airside.tools.sandbox.command import SandboxUnavailable, sandboxed_command
from airside.tools.sandbox.probe import reached_level
from airside.tools.sandbox.process import SandboxProcess
from airside.tools.secrets.redaction import Redactor

logger = logging.getLogger("airside")

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Of one message.  An output is cut to its own bound, 1 MiB if nothing is said; lists of tools are smaller."""

MAX_BAD_FRAMES = 100
"""Lines that are no message: some servers greet on standard output, and are forgiven; one that goes on is ended."""

MAX_LOG_BYTES = 64 * 1024
"""Of what a server writes to standard error in one session."""

_MAX_LOG_LINE = 500
_ENDED = "its process ended, or closed its standard output"
_CLOSE_S = 2.0
"""How long a server may take to end once its standard input has: what the protocol asks of clients."""

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@dataclass(slots=True)
class StdioEnd:
    """Why a server's frames ended, once they have, and the last line it wrote to standard error."""

    why: str = ""
    said: str = ""


@contextlib.asynccontextmanager
async def stdio_streams(
    address: ServerAddress, variables: Mapping[str, str], end: StdioEnd, redactor: Redactor
) -> AsyncIterator[Streams]:
    """Start a server in a sandbox and yield its frames; ends it and all it started, whatever happens.

    Raises `SandboxUnavailable` where there is no sandbox, or none of the level that its limits name.
    """
    if problem := (await reached_level()).problem_with(address.limits):
        raise SandboxUnavailable(problem)
    command = sandboxed_command(
        address.command,
        environment=list(variables),
        readonly=address.read,
        workspace=address.workspace or None,
        limits=address.limits,
    )
    child = await SandboxProcess.start(
        command, variables, line_bytes=MAX_FRAME_BYTES, on_log=_logger_of(address.name, end, redactor)
    )
    received, reader = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    writer, to_send = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.ensure_future(_read(child, received, end)),
        asyncio.ensure_future(_write(child, to_send)),
        asyncio.ensure_future(_watch(child, address, end)),
    ]
    try:
        yield reader, writer
    finally:
        for stream in (reader, writer):
            stream.close()
        await asyncio.shield(_end(child, tasks))
        for kept in (received, to_send):
            kept.close()


async def _end(child: SandboxProcess, tasks: Sequence[asyncio.Future[None]]) -> None:
    """Let a server end by itself, for a moment; then end it."""
    try:
        with contextlib.suppress(OSError, RuntimeError):
            child.writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await child.over()
    finally:
        await child.end()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _watch(child: SandboxProcess, address: ServerAddress, end: StdioEnd) -> None:
    """End a server that takes more than it may; its workspace is as large as who gave it made it."""
    problem = await child.watch(address.limits)
    end.why = end.why or f"its sandbox was ended: {problem}"
    await child.end()


async def _read(
    child: SandboxProcess, received: MemoryObjectSendStream[SessionMessage | Exception], end: StdioEnd
) -> None:
    """Pass on what the server says until it says no more, or what is too much."""
    bad = 0
    async with received:
        try:
            while line := await child.reader.readline():
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    bad += 1
                    if bad > MAX_BAD_FRAMES:
                        end.why = f"more than {MAX_BAD_FRAMES} lines of its standard output were no message"
                        return
                    continue
                await received.send(SessionMessage(message))
            end.why = end.why or _ENDED
        except ValueError:
            end.why = end.why or f"it sent a message of over {MAX_FRAME_BYTES:,} bytes"
        except ConnectionError:  # it ended before it read all it was sent
            end.why = end.why or _ENDED
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            return


async def _write(child: SandboxProcess, to_send: MemoryObjectReceiveStream[SessionMessage]) -> None:
    with contextlib.suppress(OSError):  # which the reader learns, too
        async for each in to_send:
            child.writer.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await child.writer.drain()


def _logger_of(name: str, end: StdioEnd, redactor: Redactor) -> Callable[[bytes], None]:
    """Return what logs what a server writes to standard error, up to a bound; b"" is its end."""
    room, said = MAX_LOG_BYTES, StandardError(name, end, redactor)

    def log(data: bytes) -> None:
        nonlocal room
        if not data:
            said.finish()
        if data and room > 0:
            said.write(data[:room])
        if 0 < room <= len(data):
            said.finish()
            logger.warning("server %s: no more of its standard error is kept", name, extra={"action": "mcp_stderr"})
        room -= len(data)

    return log


class StandardError:
    """What a server writes to standard error, logged by whole lines: a secret that was cut is one nobody recognises.

    What may be the beginning of one is held back; of a line that has no end no more is kept than is logged of it, and
    what tells a secret that is cut off there.
    """

    def __init__(self, name: str, end: StdioEnd, redactor: Redactor) -> None:
        self._name = name
        self._end = end
        self._redactor = redactor
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def write(self, data: bytes) -> None:
        """Log the lines that are whole."""
        text = self._redactor.text(self._held + self._decoder.decode(data))
        whole = text.rfind("\n", 0, self._redactor.held_from(text)) + 1
        self._log(text[:whole])
        self._held = text[whole:][: _MAX_LOG_LINE + 1 + 4 * self._redactor.longest]

    def finish(self) -> None:
        """Log what is held back: no more comes."""
        self._log(self._redactor.end(self._held))
        self._held = ""

    def _log(self, text: str) -> None:
        for line in text.splitlines():
            self._end.said = printable(line)[:_MAX_LOG_LINE] or self._end.said
            logger.info("server %s: %s", self._name, self._end.said, extra={"action": "mcp_stderr"})
