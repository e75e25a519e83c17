"""Tools that misbehave, each in a process of its own; they say who they are in `place`, so that a test finds them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import stat
import time
from pathlib import Path
from typing import Any

from airside.tools.tool import ProcessLimits, Tool, ToolContext, tool

LONG_S = 1e6


def _here(place: str, name: str) -> None:
    """Leave the number this process has in `/proc`."""
    pid = os.readlink("/proc/self")
    (Path(place) / f"{name}-{pid}").touch()


@tool(effect="read", process=True, timeout=0.5)
def spin(place: str) -> None:
    """Never return, in Python."""
    _here(place, "spin")
    while True:
        pass


@tool(effect="read", process=True, timeout=0.5)
def sleep(place: str) -> None:
    """Never return, asleep."""
    _here(place, "sleep")
    time.sleep(LONG_S)


@tool(effect="read", process=True, timeout=0.5)
def backtrack(place: str) -> None:
    """Never return, in C code that holds the interpreter's lock."""
    _here(place, "backtrack")
    re.match("(a+)+$", "a" * 64 + "b")


@tool(effect="read", process=True, timeout=0.5)
def deaf(place: str) -> None:
    """Ignore SIGTERM, and never return."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _here(place, "deaf")
    time.sleep(LONG_S)


@tool(effect="read", process=True, timeout=0.5)
def daemon(place: str) -> None:
    """Fork twice, into a session of its own, deaf to SIGTERM; never return."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _here(place, "daemon")
            time.sleep(LONG_S)
        os._exit(0)
    _here(place, "parent")
    time.sleep(LONG_S)


@tool(effect="read", process=True, timeout=20)
def left_behind(place: str) -> str:
    """Fork twice and return."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _here(place, "left")
            time.sleep(LONG_S)
        os._exit(0)
    while not list(Path(place).glob("left-*")):
        time.sleep(0.001)
    return "done"


@tool(effect="read", process=ProcessLimits(processes=20), timeout=20)
def bomb(place: str) -> None:
    """Fork without end."""
    _here(place, "bomb")
    while True:
        if os.fork() == 0:
            _here(place, "bomb")


@tool(effect="read", process=ProcessLimits(memory_bytes=1 << 30), timeout=20)
def hoard(place: str) -> int:
    """Take more memory than it may."""
    return len(bytearray(4 << 30))


@tool(effect="write", process=True, timeout=20)
def crash(place: str, how: str = "signal") -> None:
    """End without an answer."""
    if how == "signal":
        ctypes.string_at(0)
    os._exit(7)


def _answering() -> int:
    """Return the file this process is to answer through, which no tool is told of."""
    pipes = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and _is_pipe(int(fd))]
    (found,) = pipes
    return found


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False  # the one the folder was read through


@tool(effect="write", process=True, timeout=20)
def forge(place: str, hexadecimal: str, then: str = "exit") -> None:
    """Answer in the launcher's stead, then end, without leave or by a signal."""
    os.write(_answering(), bytes.fromhex(hexadecimal))
    if then == "signal":
        ctypes.string_at(0)
    os._exit(0)


@tool(effect="write", process=True, timeout=20)
def flood(place: str) -> None:
    """Answer without end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        os.write(_answering(), b"x" * 65536)


@tool(effect="write", process=True, timeout=20)
def close_everything(place: str) -> str:
    """Close every file, as a daemon does."""
    os.closerange(0, 1024)
    return "done"


@tool(effect="write", process=True, timeout=20)
def twice(place: str) -> str:
    """Return from two processes."""
    return "child" if os.fork() == 0 else (os.wait() and "parent")  # type: ignore[return-value]


@tool(effect="read", process=True, timeout=0.5)
def stopped(place: str) -> None:
    """Have a child that stops itself, and try to stop."""
    if os.fork() == 0:
        _here(place, "child")
        os.kill(os.getpid(), signal.SIGSTOP)
    _here(place, "stopped")
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(LONG_S)


@tool(effect="read", process=True, timeout=0.5)
def disguised(place: str) -> None:
    """Take another name, undo what ties it to its parent, leave its session and close every file; never return."""
    if os.fork() == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(15, b"kworker) Z 1", 0, 0, 0)
        libc.prctl(1, 0, 0, 0, 0)
        os.setsid()
        os.chdir("/")
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            _here(place, "disguised")
            os.closerange(0, 1024)
            time.sleep(LONG_S)
    _here(place, "parent")
    time.sleep(LONG_S)


def _take_back(context: ToolContext, arguments: dict[str, Any], output: Any) -> None:
    """Leave word of the process that takes back; of what was not wanted, never return."""
    _here(arguments["place"], f"undone-{output}")
    if arguments["stuck"]:
        time.sleep(LONG_S)


@tool(effect="write", process=True, timeout=0.5, undo=_take_back)
def undoable(place: str, stuck: bool = False) -> int:
    """Change something."""
    return 7


@tool(effect="read", process=True, timeout=20)
async def context_of(place: str, context: ToolContext) -> list[str]:
    """Say what it was given, from a coroutine."""
    return [context.tenant, context.idempotency_key, place]


TOOLS: tuple[Tool, ...] = (
    spin,
    sleep,
    backtrack,
    deaf,
    daemon,
    left_behind,
    bomb,
    hoard,
    crash,
    forge,
    flood,
    close_everything,
    twice,
    stopped,
    disguised,
    undoable,
    context_of,
)
