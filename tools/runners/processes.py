"""`ProcessRunner`: a process for each call.  A call that is cancelled has no process left when that is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import cloudpickle
import msgspec
import orjson

from airside.stack.errors import text_of
from airside.tools.runners.fair_slots import FairSlots
from airside.tools.runners.jobs import ToolCall
from airside.tools.runners.launcher import ProcessCall, ProcessEnded, ProcessKill
from airside.tools.runners.outcomes import InvalidArguments, InvalidOutput
from airside.tools.tool import NOT_DONE, InDoubt, Tool, ToolError

DEATH_S = 3.0
"""Longest wait for a killed call to be reported dead; the launcher takes milliseconds, unless it is gone itself."""


START_S = 30.0
"""Longest wait for a launcher to serve: it imports the app, which takes a second, on a busy machine several."""


class ProcessDied(RuntimeError):
    """The tool's process ended without an answer: killed, crashed, or over one of its limits."""


class _Line:
    """A launcher and the calls it has.  `problem` is why it takes none, "" if it does, as soon as that is known."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, process: subprocess.Popen[bytes]):
        self._reader = reader
        self._writer = writer
        self._process = process
        self._last = 0
        self._calls: dict[int, asyncio.Future[ProcessEnded]] = {}
        self._inner = -1
        self.is_over = False
        self.problem: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.reading = asyncio.ensure_future(self._read())

    async def run(self, call: ProcessCall) -> ProcessEnded:
        """Have a call made; if the caller is cancelled, the call's processes are dead before that goes on."""
        self._last += 1
        call_id = self._last
        ended: asyncio.Future[ProcessEnded] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = ended
        try:
            await self._send(msgspec.structs.replace(call, call_id=call_id))
            return await asyncio.shield(ended)
        except OSError:
            return await ended  # the launcher is gone, and `_read` says so
        except asyncio.CancelledError:
            await self._see_dead(call_id, ended)
            raise
        finally:
            self._calls.pop(call_id, None)

    async def _see_dead(self, call_id: int, ended: asyncio.Future[ProcessEnded]) -> None:
        """Have a call ended; a launcher that does not say it is dead is killed, which ends all it has."""
        try:
            async with asyncio.timeout(DEATH_S):
                await self._send(ProcessKill(call_id))
                await asyncio.shield(ended)
        except (OSError, TimeoutError):
            self._kill()
            await ended

    def _kill(self) -> None:
        if self._inner < 0:
            self._process.kill()  # it has no calls yet, or says so no more; the inner one dies with it
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._inner, signal.SIGKILL)

    def send_tools(self, tools: Mapping[str, Tool]) -> None:
        """Give the launcher what it runs; what it imports for them is its own."""
        body = cloudpickle.dumps(dict(tools))
        self._writer.write(len(body).to_bytes(4) + body)

    async def _send(self, message: ProcessCall | ProcessKill) -> None:
        body = msgspec.msgpack.encode(message)
        self._writer.write(len(body).to_bytes(4) + body)
        await self._writer.drain()

    async def _read(self) -> None:
        """Hand answers to their calls; when the launcher is gone, so are its calls' processes."""
        decode = msgspec.msgpack.Decoder(ProcessEnded).decode
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(4))
                ended = decode(await self._reader.readexactly(size))
                if ended.kind == "no_namespaces":
                    text = f"this machine lets its user make no PID namespace ({ended.data.decode()})"
                    self.problem.set_result(text)
                elif ended.kind == "ready":
                    self._inner = os.pidfd_open(int(ended.data))
                    self.problem.set_result("")
                elif (future := self._calls.get(ended.call_id)) is not None and not future.done():
                    future.set_result(ended)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.is_over = True
            self.close()
            await asyncio.to_thread(self._wait)
            if self._inner >= 0:
                os.close(self._inner)
                self._inner = -1
            if not self.problem.done():
                self.problem.set_result("the launcher of its process ended before it could serve")
            for call_id, future in self._calls.items():
                if not future.done():
                    gone = b"the launcher of its process died, and its process with it"
                    future.set_result(ProcessEnded(call_id, "died", gone))

    def _wait(self) -> None:
        """Wait until the launcher is gone: its inner process is only when everything it started is."""
        if self._inner >= 0:
            with selectors.DefaultSelector() as select:
                select.register(self._inner, selectors.EVENT_READ)
                select.select()
        self._process.wait()

    def close(self) -> None:
        """Let the launcher end, and with it everything it started."""
        self._writer.close()


class ProcessRunner:
    """Runs each call in a process of its own, which is killed at the deadline with all it started.

    Starts the launcher at the first call, and another one should it die.
    """

    level = None
    on_timeout = "; its process is dead"

    def __init__(self, tools: Mapping[str, Tool], slots: FairSlots) -> None:
        self._tools = {name: tool for name, tool in tools.items() if tool.process is not None}
        self._slots = slots
        self._line: _Line | None = None
        self._starting = asyncio.Lock()

    async def ready(self) -> None:
        """Have a launcher serve: its start is not the call's time."""
        with contextlib.suppress(OSError):
            await self._open()

    async def run(self, job: ToolCall) -> Any:
        """Return what a call comes to; if the caller is cancelled, the process is seen dead before that goes on.

        Raises what the tool raised (`ToolError`, `InDoubt`, else `RuntimeError` with its text), `InvalidArguments`,
        `InvalidOutput` and `ProcessDied`.
        """
        try:
            async with self._slots.place(job.tenant, job.waiting):
                return job.finish(_outcome(await self._ended(job), job.context.attempt))
        finally:
            job.over()

    async def _ended(self, job: ToolCall) -> ProcessEnded:
        try:
            line, problem = await self._open()
        except OSError as error:  # the machine has no process or file left for a launcher
            problem = f"the launcher of its process could not be started: {text_of(error)}"
        if problem:
            return ProcessEnded(0, "not_started", problem.encode())
        job.begin()
        return await line.run(
            ProcessCall(
                tool=job.tool.name,
                what=job.what,
                arguments=job.arguments,
                output=job.output,
                context=asdict(job.context) | {"state": None},
                max_output_bytes=job.tool.spec.max_output_bytes,
            )
        )

    async def _open(self) -> tuple[_Line, str]:
        """Return a launcher, starting one if need be, and why it takes no calls ("": it does)."""
        async with self._starting:
            if self._line is None or self._line.is_over:
                self._line = await self._start()
        line = self._line
        await asyncio.wait({line.problem}, timeout=START_S)
        if not line.problem.done():
            line.close()
            return line, f"the launcher of its process did not begin to serve in {START_S} s"
        return line, line.problem.result()

    async def _start(self) -> _Line:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(ours.close)
            # The thread that starts it must live as long as the executor: it is the one that runs the event loop.
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once, and is this interpreter
                [sys.executable, "-m", "airside.tools.runners.launcher", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            unless_started.pop_all()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        line = _Line(reader, writer, process)
        line.send_tools(self._tools)
        return line

    def close(self) -> None:
        """End the launcher, and with it everything it started."""
        if self._line is not None:
            self._line.close()


def _outcome(ended: ProcessEnded, attempt: int) -> Any:
    text = ended.data.decode(errors="replace") if ended.kind != "ok" else ""
    if ended.kind == "not_started" and attempt > 1:
        raise InDoubt(text)  # this attempt changed nothing; an earlier one may have
    match ended.kind:
        case "ok":
            return orjson.loads(ended.data)
        case "not_done":
            return NOT_DONE
        case "tool_error" | "not_started":
            raise ToolError(text)
        case "not_now":
            seconds, _, said = text.partition(" ")
            raise ToolError(said, retry_after_s=float(seconds))
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
