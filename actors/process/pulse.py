"""A process's pulse: a page of memory that it writes and its node's Warden reads, whatever holds the interpreter.

A ping proves little: a loop with a thousand ready runs answers late though nobody is to blame, and C code that holds
the interpreter's lock lets no thread answer at all.  The pulse says, without asking, whether the event loop turns,
whether agents are entered and left, which run's code it is in, and whether other threads get the interpreter; and a
signal makes the process write down where its loop's thread is, for that signal's handler needs no interpreter.  Both
are anonymous files, gone with the process.

The page also carries what the Warden writes: that it looks after the process, and the process's lease, until when it
may live.  A thread of the process keeps a timer of the kernel's set to the lease's end, which sends SIGKILL.  So it
ends itself where nobody can reach it, even when C code lets no thread set the timer anew; and the timer is no one that
`signal.alarm` or `setitimer` sets, and its signal none that can be ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import mmap
import os
import re
import signal
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

from airside.actors.process.stalls import Reading, Usage
from airside.stack.ids import RunId

_PAGE = struct.Struct("<QQ128p")
_BEATS, _BEATS_AT = struct.Struct("<Q"), 192
_LEASE, _LEASE_AT = struct.Struct("<d"), 256
_WATCHED_AT = 320
_KEEP_S = 0.1
"""How often a process's keeper beats and sets its timer: several times within the shortest useful lease."""

FAVOURED = -10
"""Niceness of what keeps processes alive: it takes next to no time, but it must have it."""

_TICKS = os.sysconf("SC_CLK_TCK")
_DUMP = signal.SIGUSR2
_DUMP_WAIT_S = 0.02
_DEATH_WAIT_S = 0.005
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')


class Where(NamedTuple):
    """Where a process's pulse can be read, on its node; plain numbers, so that it travels.

    `thread` is the event loop's thread as Python names it, `native` as the kernel does.  `born` is when the process
    started, in the kernel's ticks: it tells it from a later one under its number.  `page_inode` tells the page from any
    other file.
    """

    pid: int
    page_fd: int
    dump_fd: int
    thread: int
    native: int
    born: int
    page_inode: int


def boot_s() -> float:
    """Return seconds since this machine booted, sleep included: a lease is no longer for the machine having slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Sigevent(ctypes.Structure):
    """The kernel's `struct sigevent`, of 64 bytes."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("_rest", ctypes.c_byte * 48),
    ]


class _Itimerspec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Deadline:
    """A timer that ends this process by SIGKILL, which nothing in it can catch; raises `OSError` if there is none."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Sigevent(signo=signal.SIGKILL, notify=0)  # SIGEV_SIGNAL
        made = self._libc.timer_create(time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer))
        self._check(made)

    def set(self, at_s: float) -> None:
        """Let it end the process when `boot_s` is `at_s`; at once if that is over."""
        at_ns = max(1, int(at_s * 1e9))
        spec = _Itimerspec(at_s=at_ns // 10**9, at_ns=at_ns % 10**9)
        self._check(self._libc.timer_settime(self._timer, 1, ctypes.byref(spec), None))  # TIMER_ABSTIME

    def _check(self, result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), "no timer for the lease")


class PulseWriter:
    """The `Pulse` of a process, made by the thread that runs its event loop; `where` tells how to read it.

    With `lease_s` the process lives for so long, and on for as long as its Warden says.
    """

    def __init__(self, *, lease_s: float = 0.0) -> None:
        page_fd = os.memfd_create("airside-pulse", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        dump_fd = os.memfd_create("airside-stack")
        os.ftruncate(page_fd, mmap.PAGESIZE)
        # A page that shrank under its reader would kill the reader.
        fcntl.fcntl(page_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._page = mmap.mmap(page_fd, mmap.PAGESIZE)
        self._turns = self._left = 0
        faulthandler.register(_DUMP, file=dump_fd, all_threads=True, chain=False)
        pid = os.getpid()
        thread, inode = (threading.get_ident(), threading.get_native_id()), os.fstat(page_fd).st_ino
        self.where = Where(pid, page_fd, dump_fd, *thread, born(pid), inode)
        deadline = Deadline() if lease_s else None
        if deadline is not None:
            _LEASE.pack_into(self._page, _LEASE_AT, boot_s() + lease_s)
            deadline.set(boot_s() + lease_s)
        threading.Thread(target=self._keep, args=(deadline,), name="pulse", daemon=True).start()

    def _keep(self, deadline: Deadline | None) -> None:
        beats = 0
        favour(threading.get_native_id())  # a lease is not to end because the machine is busy
        while True:
            beats += 1
            _BEATS.pack_into(self._page, _BEATS_AT, beats)
            if deadline is not None:
                deadline.set(_LEASE.unpack_from(self._page, _LEASE_AT)[0])
            time.sleep(_KEEP_S)

    @property
    def watched(self) -> bool:
        """Whether a Warden has come to look after this process, and so will end what the process leaves behind."""
        return self._page[_WATCHED_AT] != 0

    def turn(self) -> None:
        """Say that the loop turns."""
        self._turns += 1
        _PAGE.pack_into(self._page, 0, self._turns, self._left, b"")

    def enter(self, run_id: RunId) -> None:
        """Say whose code is about to take the loop."""
        _PAGE.pack_into(self._page, 0, self._turns, self._left, run_id.encode())

    def leave(self) -> None:
        """Say that it gave the loop back."""
        self._left += 1
        _PAGE.pack_into(self._page, 0, self._turns, self._left, b"")


class PulseReader:
    """Reads the pulse of a process of this node; raises `OSError` when made if it cannot be read.

    That does not mean that the process is gone: `lives` says that.
    """

    def __init__(self, where: Where) -> None:
        self._where = where
        if not lives(where):
            raise ProcessLookupError(errno.ESRCH, "no such process", f"/proc/{where.pid}")
        fd = os.open(f"/proc/{where.pid}/fd/{where.page_fd}", os.O_RDWR)
        try:
            self._page = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def read(self) -> Reading:
        """Return the latest reading."""
        turns, left, inside = _PAGE.unpack_from(self._page, 0)
        return Reading(turns, left, inside.decode(errors="replace"))

    def beats(self) -> int:
        """Return how often a thread of the process that only counts got the interpreter."""
        return int(_BEATS.unpack_from(self._page, _BEATS_AT)[0])

    def extend(self, until_s: float) -> None:
        """Let the process live until `until_s` (as `boot_s` counts), if it may not live longer already.

        The first time it is that and no longer: what the process gave itself was for the time until it is looked after.
        """
        if not self._page[_WATCHED_AT] or until_s > _LEASE.unpack_from(self._page, _LEASE_AT)[0]:
            _LEASE.pack_into(self._page, _LEASE_AT, until_s)
        self._page[_WATCHED_AT] = 1

    def usage(self) -> Usage:
        """Return what the event loop's thread has used; nothing if the process is gone."""
        return self._usage(self._where.native)

    def usages(self) -> dict[int, Usage]:
        """Return what every thread of the process has used, by the kernel's number."""
        try:
            threads = [int(name) for name in os.listdir(f"/proc/{self._where.pid}/task")]
        except OSError:
            return {}
        return {thread: self._usage(thread) for thread in threads}

    def _usage(self, thread: int) -> Usage:
        task = f"{self._where.pid}/task/{thread}"
        try:
            ran, waited, _ = Path(f"/proc/{task}/schedstat").read_text().split()
            return Usage(int(ran) / 1e9, int(waited) / 1e9)
        except (OSError, ValueError):  # gone, or a kernel that does not count waits
            pass
        try:
            fields = _stat(task)
        except OSError:
            return Usage(0.0, 0.0)
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, 0.0)

    def is_ready(self, thread: int) -> bool:
        """Whether a thread runs or waits for a CPU just now."""
        try:
            return _stat(f"{self._where.pid}/task/{thread}")[0] == "R"
        except OSError:
            return False

    @property
    def lease_until_s(self) -> float:
        """Until when the process may live, as its page says, also after its death."""
        return float(_LEASE.unpack_from(self._page, _LEASE_AT)[0])

    async def innermost(self) -> str:
        """Return the line of code the loop's thread is at ("" if the process is gone), even inside C code."""
        return next(iter(await self.frames()), "")

    async def frames(self) -> list[str]:
        """Return the lines of code the loop's thread is in, innermost first; none if the process is gone."""
        path = Path(f"/proc/{self._where.pid}/fd/{self._where.dump_fd}")
        try:
            before = path.stat().st_size  # noqa: ASYNC240 - memory, not disk
            os.kill(self._where.pid, _DUMP)
            await asyncio.sleep(_DUMP_WAIT_S)
            dump = path.read_bytes()[before:]  # noqa: ASYNC240 - memory, not disk
        except OSError:
            return []
        return frames(dump.decode(errors="replace"), self._where.thread)


def favour(thread: int) -> None:
    """Let a thread of this process go before others, if this user may do that (root may)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, FAVOURED)


def lives(where: Where) -> bool:
    """Whether a process exists and is neither a zombie nor another one under its number.

    Raises `OSError` if that cannot be told, for want of a file say: then nobody may take it for dead.
    """
    try:
        return born(where.pid) == where.born
    except (FileNotFoundError, ProcessLookupError):
        return False


async def kill(where: Where, patience_s: float) -> bool:
    """End a process by SIGKILL, and no other one under its number; return whether it is certainly dead in time.

    Raises `OSError` as `lives` does.
    """
    try:
        process = os.pidfd_open(where.pid)
    except ProcessLookupError:
        return True
    try:
        for _ in range(max(1, int(patience_s / _DEATH_WAIT_S))):
            if not lives(where):
                return True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            await asyncio.sleep(_DEATH_WAIT_S)
        return not lives(where)
    finally:
        os.close(process)


def _stat(path: str) -> list[str]:
    """Return the fields of a process's or thread's `stat` after its name, the state first."""
    return Path(f"/proc/{path}/stat").read_text().rpartition(")")[2].split()


def born(pid: int) -> int:
    """Return when a process started, in the kernel's ticks; raise `OSError` if there is none or it is a zombie."""
    fields = _stat(str(pid))
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def frames(dump: str, thread: int) -> list[str]:
    """Return the frames of a thread in what `faulthandler` wrote, innermost first, as `file:line in function`."""
    _, _, rest = dump.partition(f"0x{thread:016x}")
    found = _FRAME.finditer(rest.partition("\n\n")[0])
    return [f"{frame['file']}:{frame['line']} in {frame['function']}" for frame in found]
