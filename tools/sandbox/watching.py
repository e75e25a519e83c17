"""`excess_of`: what a sandbox has too much of, of what no bound of a single process holds.

It reads what the kernel tells of each process, which a program can make costly, so a look is bounded as well: call it
in a thread.  What cannot be read is too much.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from airside.tools.sandbox.limits import SandboxLimits

MAX_INODES = 65_536
"""Files in `/tmp`, and in `/dev/shm`: one of no bytes takes memory of the kernel's all the same."""

MAX_SOCKETS = 512
"""Sockets in a sandbox: each may hold some hundred kilobytes of the kernel's memory."""

MAX_MAPS = 65_536
"""Ranges of memory of all processes together: each takes some hundred bytes of the kernel's."""

MAX_LOOK_S = 0.5
"""Of the processor, that a look may take."""

_OF_ITS_OWN = 3
"""Processes that make a sandbox: bubblewrap outside, bubblewrap within, and `confine.py`."""

_T = TypeVar("_T")
_SHARED = b"/dev/zero (deleted)"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def excess_of(pid: int, limits: SandboxLimits, *, closely: bool) -> str:
    """Return what the sandbox of a process has too much of, "" for nothing.

    `closely` looks for what takes longer, too: ranges of memory, what is shared without a name, sockets.
    """
    try:
        return _excess(list(descendants(pid)), limits, _Bounded(), closely=closely)
    except TimeoutError:
        return f"it took over {MAX_LOOK_S:g} s to look at"
    except (OSError, ValueError) as error:
        return f"it cannot be looked at: {error}"


def _excess(pids: Sequence[int], limits: SandboxLimits, bounded: _Bounded, *, closely: bool) -> str:
    inner = [_Process(pid) for pid in bounded(pids[_OF_ITS_OWN:])]
    most = limits.memory_bytes
    resident = sum(each.resident for each in inner)  # counts what they share several times
    if closely or resident > most:
        maps, shared = 0, dict[str, int]()
        for each in bounded(inner):
            maps += each.add_maps(shared)
            if maps > MAX_MAPS:
                return f"it had more than {MAX_MAPS:,} ranges of memory"
        if sum(shared.values()) > most:
            return f"it shared {sum(shared.values()):,} bytes of memory, of {most:,} it may use"
    if resident > most and (used := sum(each.proportional for each in bounded(inner))) > most:
        return f"it used {used:,} bytes of memory, of {most:,} it may"
    if len(pids) > _OF_ITS_OWN:
        return _too_many(pids, inner, limits, bounded, closely=closely)
    return ""


def _too_many(
    pids: Sequence[int], inner: Sequence[_Process], limits: SandboxLimits, bounded: _Bounded, *, closely: bool
) -> str:
    if not limits.network:
        sockets = _sockets(pids[1])
    else:  # the machine's are in the same namespace
        sockets = len({name for each in bounded(inner) for name in each.sockets()}) if closely else 0
    if sockets > MAX_SOCKETS:
        return f"it had more than {MAX_SOCKETS} sockets"
    for folder in ("tmp", "dev/shm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = os.statvfs(f"/proc/{pids[2]}/root/{folder}")
            if found.f_files - found.f_ffree > MAX_INODES:
                return f"it made more than {MAX_INODES:,} files"
    return ""


class _Bounded:
    """Goes through processes as long as this thread has not taken its time of the processor."""

    def __init__(self) -> None:
        self._until_s = time.thread_time() + MAX_LOOK_S

    def __call__(self, items: Sequence[_T]) -> Iterator[_T]:
        for each in items:
            if time.thread_time() > self._until_s:
                raise TimeoutError
            yield each


class _Process:
    """What is told of a process, by a thread of it that lives: of a first one that ended the kernel tells nothing."""

    def __init__(self, pid: int) -> None:
        self._task, self.resident = pid, _resident_bytes(f"/proc/{pid}/statm")
        if not self.resident:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for task in map(int, os.listdir(f"/proc/{pid}/task")):
                    if found := _resident_bytes(f"/proc/{pid}/task/{task}/statm"):
                        self._task, self.resident = task, found
                        break

    def add_maps(self, shared: dict[str, int]) -> int:
        """Return how many ranges of memory it has; add the bytes of what is shared without a name, by what it is."""
        maps = _read(f"/proc/{self._task}/maps")
        for line in maps.splitlines() if _SHARED in maps else ():
            if line.endswith(_SHARED):
                where, _, offset, _, inode, *_ = line.decode().split()
                start, end = (int(each, 16) for each in where.split("-"))
                size = int(offset, 16) + end - start
                with contextlib.suppress(OSError):  # root alone sees all of it, though most is mapped no more
                    size = max(size, os.stat(f"/proc/{self._task}/map_files/{where}").st_blocks * 512)
                shared[inode] = max(size, shared.get(inode, 0))
        return maps.count(b"\n")

    @property
    def proportional(self) -> int:
        """Its memory, of what several share its part."""
        for line in _read(f"/proc/{self._task}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
        return 0

    def sockets(self) -> Iterator[str]:
        """Yield the sockets it has open."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for name in os.listdir(f"/proc/{self._task}/fd"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if (target := os.readlink(f"/proc/{self._task}/fd/{name}")).startswith("socket:"):
                        yield target


def _read(path: str) -> bytes:
    """Return what the kernel tells of a process, b"" of one that is gone."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _resident_bytes(path: str) -> int:
    return int((_read(path).split() or [b"0", b"0"])[1]) * _PAGE_BYTES


def _sockets(pid: int) -> int:
    """Count the sockets of a process's network namespace."""
    told = _read(f"/proc/{pid}/net/sockstat").split()
    return int(told[2]) if len(told) > 2 else 0


def descendants(pid: int) -> Iterator[int]:
    """Yield a process and all below it, each after its parent; of processes of several threads the children of all."""
    found = [pid]
    for each in found:
        yield each
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                found += map(int, Path(f"/proc/{each}/task/{task}/children").read_text().split())
