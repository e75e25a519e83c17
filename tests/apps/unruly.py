"""Tools that misbehave, each in a process of its own; they say who they are in `place`, so that a test finds them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from pathlib import Path

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
    context_of,
)
