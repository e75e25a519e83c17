"""What a dead process left running: programs that its tools or agents started, wherever these are now.

The kernel hands an orphan to somebody else, whatever its session and however often it forked; so every child carries a
mark from its start: a variable of its environment, if it is another program, the pulse's page among its files, if it
is a copy of the process.  A child that throws away both is not found: what must not outlive its call is a tool's that
is declared with `process=True`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from airside.actors.process.pulse import Where

MARK = "AIRSIDE_CHILD_OF"
_ROUND_S = 0.01


def mark_children(where: Where) -> None:
    """Have every program that this process starts from now on carry the mark."""
    os.environ[MARK] = _value(where)


def find_orphans(where: Where) -> list[int]:
    """Return the processes of this node that carry a process's mark."""
    marked = f"{MARK}={_value(where)}".encode()
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and int(path.name) not in (where.pid, os.getpid()) and _carries(path, marked, where)
    ]


async def sweep(where: Where, patience_s: float) -> bool:
    """End what a dead process left running; return whether nothing of it is left in time."""
    for _ in range(max(1, int(patience_s / _ROUND_S))):
        found = await asyncio.to_thread(find_orphans, where)
        if not found:
            return True
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        await asyncio.sleep(_ROUND_S)
    return False


def _value(where: Where) -> str:
    return f"{where.pid}-{where.born}"


def _carries(path: Path, marked: bytes, where: Where) -> bool:
    try:
        if (path / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
        if marked in (path / "environ").read_bytes().split(b"\0"):
            return True
        return os.stat(path / "fd" / str(where.page_fd)).st_ino == where.page_inode
    except (OSError, IndexError):
        return False  # it is gone, another user's, or has no such file
