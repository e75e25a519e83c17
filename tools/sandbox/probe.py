"""`probe_sandbox`: how far this machine can make a sandbox, found out by trying to break out of one.

That a kernel has Landlock, or a package is installed, says nothing of whether it holds: a probe that is refused does.
The level is the highest at which every attempt was refused, those of the levels below among them.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airside.stack.errors import AirsideError, text_of
from airside.stack.values import SandboxLevel
from airside.tools.sandbox.command import python_there, sandboxed_command
from airside.tools.sandbox.limits import LEVELS, SandboxLimits
from airside.tools.sandbox.process import SandboxProcess

PROBE_S = 30.0
"""Longest wait for what a probe says; it takes a third of a second, on a busy machine several."""

_ATTEMPTS = Path(__file__).with_name("attempts.py")
_MAX_BYTES = 65_536
_MEMORY_BYTES, _DISK_BYTES, _PROCESSES = 128 * 1024 * 1024, 1024 * 1024, 24
_NAMESPACES = ("pid", "net", "ipc", "uts", "mnt", "user")


@dataclass(frozen=True, slots=True)
class Reached:
    """The level a machine reaches, and why no higher one ("" at the highest)."""

    level: SandboxLevel
    reason: str = ""

    def problem_with(self, limits: SandboxLimits) -> str:
        """Return why no sandbox with these limits can be made here, "" if one can."""
        if LEVELS[self.level] >= LEVELS[limits.level]:
            return ""
        return f"this machine makes sandboxes of level {self.level}, and {limits.level} is needed: {self.reason}"


_known: list[Reached] = []
"""What this process has found out."""


async def reached_level() -> Reached:
    """Return the level this machine reaches, which is found out once in a process."""
    if not _known:
        _known.append(await probe_sandbox())
    return _known[0]


async def probe_sandbox() -> Reached:
    """Return the level this machine reaches; never raises.

    Each level is tried by itself: what the rules within refuse must not hide that a namespace is missing.
    """
    reached: SandboxLevel = "none"
    for level in ("namespaces", "full"):
        try:
            wrong = await asyncio.wait_for(_escapes(level), PROBE_S)
        except TimeoutError:
            wrong = f"the probe did not end in {PROBE_S:g} s"
        except (AirsideError, OSError) as error:
            wrong = text_of(error)
        if wrong:
            return Reached(reached, wrong)
        reached = level
    return Reached(reached)


async def _escapes(level: SandboxLevel) -> str:
    """Return what could be done in a sandbox of a level that should be refused, "" for nothing."""
    limits = SandboxLimits(level=level, memory_bytes=_MEMORY_BYTES, disk_bytes=_DISK_BYTES, processes=_PROCESSES)
    secret = secrets.token_hex(16)
    with _bait(secret) as facts:
        facts |= {"memory_bytes": _MEMORY_BYTES, "disk_bytes": _DISK_BYTES, "processes": _PROCESSES}
        facts["levels"] = [each for each in LEVELS if LEVELS[each] <= LEVELS[level]]
        argv = [python_there(), "-I", "-S", str(_ATTEMPTS), json.dumps(facts)]
        process = await SandboxProcess.start(
            sandboxed_command(argv, code=[str(_ATTEMPTS)], limits=limits, wall_s=PROBE_S),
            {**os.environ, "AIRSIDE_PROBE": secret},
        )
        try:
            said = await process.reader.read(_MAX_BYTES)
        finally:
            await process.end()
    try:
        return "; ".join(map(str, json.loads(said)))
    except ValueError:
        return process.log.decode(errors="replace").strip()[:500] or "the probe said nothing"


@contextmanager
def _bait(secret: str) -> Iterator[dict[str, Any]]:
    """Make what a program must not reach from a sandbox: a file and three servers that anybody on the machine may."""
    with (
        tempfile.TemporaryDirectory(prefix="airside-probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        os.chmod(folder, 0o755)  # noqa: S103 - the mounts are to keep it out, not the owner of a file
        Path(folder, "file").write_text(secret)
        named.bind(f"{folder}/socket")
        os.chmod(f"{folder}/socket", 0o777)  # noqa: S103
        abstract.bind(f"\0airside-probe-{secret}")
        for each in (named, abstract):
            each.listen()
        yield {
            "file": f"{folder}/file",
            "path": f"{folder}/socket",
            "abstract": f"airside-probe-{secret}",
            "port": server.getsockname()[1],
            "pid": os.getpid(),
            "secret": secret,
            "namespaces": {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in _NAMESPACES},
        }


def main() -> None:
    """Print the level of this machine, and why it is no higher one."""
    reached = asyncio.run(probe_sandbox())
    sys.stdout.write(f"{reached.level}\n{reached.reason}\n" if reached.reason else f"{reached.level}\n")


if __name__ == "__main__":
    main()
