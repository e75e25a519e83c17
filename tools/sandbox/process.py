"""`SandboxProcess`: a sandbox at work; what it says is read within bounds, and when it was ended nothing of it is left.

It is watched from outside for what no bound of a single process holds: the memory of all of them, and how many files
there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.tenant_folder import folder_bytes
from airside.tools.sandbox.watching import excess_of

WATCH_EVERY_S = 0.02
"""How often a sandbox is looked at: at full speed a machine fills some tens of megabytes meanwhile."""

LOOK_CLOSELY_EVERY_S = 0.1
"""How often it is looked at for what takes longer to see."""

LOOK_S = 2.0
"""How long a look may take; of the processor it has less."""

MEASURE_EVERY_S = 0.25
"""How often the folder in which it may write is measured, which takes longer."""

MAX_LOG_BYTES = 64 * 1024
"""Of what is printed in a sandbox, that is kept."""

_BUFFER_BYTES = 65_536
"""Of a line that is read; messages of a size are not bounded by it."""

MARK = b"/run/airside/confine.py"
"""What bubblewrap's command line has that makes a sandbox of ours."""


class SandboxProcess:
    """A sandbox whose standard input and output are one socket, and whose standard error is read as a log."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self.reader = reader
        self.writer = writer
        self.log = bytearray()
        self._logging: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        line_bytes: int = _BUFFER_BYTES,
        on_log: Callable[[bytes], None] | None = None,
    ) -> SandboxProcess:
        """Start a command of `sandboxed_command`; raise `OSError` if this machine has no process or file left.

        Call it on the thread that lives as long as the sandbox may: it ends with that.  What is printed is given to
        `on_log`, b"" at its end, or kept as `log`.  If the caller is cancelled, nothing was started.
        """
        ours, theirs = socket.socketpair()
        log, its_log = socket.socketpair()
        with contextlib.ExitStack() as unless_started, theirs, its_log:
            unless_started.callback(ours.close)
            unless_started.callback(log.close)
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once, and is ours
                list(command),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=its_log.fileno(),
                env=dict(environment) if environment else {},
            )
            unless_started.pop_all()
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=line_bytes)
        except BaseException:
            _close_all(kill_sandbox(process.pid))
            process.wait()
            raise
        made = cls(process, reader, writer)
        made._logging = asyncio.ensure_future(made._read_log(log, on_log or made._keep_log))
        return made

    def _keep_log(self, data: bytes) -> None:
        self.log += data[: MAX_LOG_BYTES - len(self.log)]

    async def _read_log(self, log: socket.socket, on_log: Callable[[bytes], None]) -> None:
        """Read what is printed; what is more than is kept is read too, so that nobody waits for that."""
        reader, writer = await asyncio.open_unix_connection(sock=log)
        try:
            while data := await reader.read(MAX_LOG_BYTES):
                on_log(data)
        except OSError:
            pass
        finally:
            on_log(b"")
            writer.close()

    @property
    def pid(self) -> int:
        """The process that is to be killed."""
        return self._process.pid

    async def send(self, data: bytes) -> None:
        """Send a message; raise `OSError` if nobody is there any more."""
        self.writer.write(len(data).to_bytes(4) + data)
        await self.writer.drain()

    async def receive(self, max_bytes: int) -> bytes | None:
        """Return the next message; None for one that is larger, of which nothing is read.

        Raises `asyncio.IncompleteReadError` or `OSError` if there will be none.
        """
        size = int.from_bytes(await self.reader.readexactly(4))
        return None if size > max_bytes else await self.reader.readexactly(size)

    async def watch(self, limits: SandboxLimits, folder: str | None = None) -> str:
        """Return what the sandbox has too much of, as soon as it has; never, if it keeps its bounds.

        `folder` is one of the machine's in which it may write.
        """
        loop = asyncio.get_running_loop()
        measured_s, looked_s = loop.time(), -LOOK_CLOSELY_EVERY_S
        thread = ThreadPoolExecutor(1, "sandbox-watch")  # no other's waits for it, however long a look takes
        try:
            while True:
                await asyncio.sleep(WATCH_EVERY_S)
                closely = loop.time() - looked_s > LOOK_CLOSELY_EVERY_S
                looked_s = loop.time() if closely else looked_s
                looking = loop.run_in_executor(thread, partial(excess_of, self.pid, limits, closely=closely))
                if not (await asyncio.wait({looking}, timeout=LOOK_S))[0]:
                    return f"it took over {LOOK_S:g} s to look at"
                if problem := looking.result():
                    return problem
                if folder is not None and loop.time() - measured_s > MEASURE_EVERY_S:
                    if await asyncio.to_thread(folder_bytes, folder) > limits.workspace_bytes:
                        return f"it filled its workspace: {limits.workspace_bytes:,} bytes it may"
                    measured_s = loop.time()
        finally:
            thread.shutdown(wait=False)

    @property
    def is_over(self) -> bool:
        """Whether it ended by itself."""
        return self._process.poll() is not None

    async def over(self) -> None:
        """Wait until it ended by itself."""
        if self._process.poll() is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                await _readable(asyncio.get_running_loop(), pidfd)
            finally:
                os.close(pidfd)

    def kill(self) -> None:
        """Kill the sandbox without waiting for its end; it is not used any more."""
        if self._process.poll() is None:
            _close_all(kill_sandbox(self._process.pid))
            self._process.wait()
        if self._logging is not None:
            self._logging.cancel()
        self.writer.close()

    async def end(self) -> None:
        """Kill the sandbox; nothing of it is left when this returns, though the caller is cancelled meanwhile."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        killed = kill_sandbox(self.pid) if self._process.poll() is None else []
        try:
            for pidfd in killed:
                await _readable(loop, pidfd)
        finally:
            _close_all(killed)
        self._process.wait()
        self.writer.close()
        if self._logging is not None:
            await self._logging


def kill_sandbox(pid: int) -> list[int]:
    """Kill a child of this process that is a sandbox; return pidfds of what made it, for whoever waits for their end.

    It is stopped first: bubblewrap's inner process waits for a word of the outer one before it dies with it, and would
    wait for ever if that were killed between the two.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        while _state(pid) not in "TtZX":
            os.sched_yield()
    found = []
    for each in (pid, *_children(pid)):
        with contextlib.suppress(OSError):
            found.append(os.pidfd_open(each))
    for pidfd in reversed(found):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return found


def kill_orphans() -> None:
    """Kill what is left of sandboxes whose starter died as it started them: it waits for a word that nobody says.

    It is the first process of a namespace of its own, and its parent, whoever takes in orphans here, makes no sandbox.
    """
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            pid = int(entry.name)
            if _makes_sandboxes(pid) and _is_first(pid):
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if not _makes_sandboxes(parent):
                    os.kill(pid, signal.SIGKILL)


def _makes_sandboxes(pid: int) -> bool:
    return MARK in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _is_first(pid: int) -> bool:
    """Whether a process is the first of a namespace below this one's."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    ids = next(line for line in status if line.startswith("NSpid:")).split()[1:]
    return len(ids) > 1 and ids[-1] == "1"


def _close_all(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def _state(pid: int) -> str:
    """Return the letter of a process's state, X if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    """Wait until a process is over: the first of a namespace is only when all in it are."""
    over: asyncio.Future[None] = loop.create_future()

    def is_over() -> None:
        if not over.done():
            over.set_result(None)

    loop.add_reader(descriptor, is_over)
    try:
        await over
    finally:
        loop.remove_reader(descriptor)


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
