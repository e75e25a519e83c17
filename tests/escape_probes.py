"""The probes of sandboxes: what they find on the machine, and what is seen of them from outside.

    python -m tests.escape_probes

prints one line of JSON: how many there are, how many were contained, how many processes they left, and the names of
those that were not contained.  They need no Ray.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from airside.stack.values import SandboxLevel
from airside.tools.sandbox import process as sandbox_process
from airside.tools.sandbox.command import package_folders, python_there, sandboxed_command
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.process import SandboxProcess
from airside.tools.sandbox.watching import descendants
from tests.escape_attempts import ATTEMPTS

ROOT = Path(__file__).parents[1]
_FILE = Path(__file__).with_name("escape_attempts.py")
BOUNDS = {"processes": 24, "memory_bytes": 256 * 1024 * 1024, "disk_bytes": 4 * 1024 * 1024, "open_files": 128}
ONLY_FULL = """
    read_a_file_by_a_handle list_a_home see_others_shared_memory signal_who_confines_it trace_who_confines_it
    trace_oneself write_the_memory_of_who_confines_it read_the_memory_of_who_confines_it use_io_uring
    take_a_descriptor_of_who_confines_it handle_page_faults use_the_kernels_keys make_memory_that_no_bound_counts
    share_memory_by_a_key use_a_message_queue_of_the_machine take_a_mount_away mount_by_the_new_calls
    load_a_program_into_the_kernel watch_the_kernels_counters make_a_user_namespace connect_to_the_hypervisor
    enter_another_namespace make_a_user_namespace_with_a_process attach_to_a_file watch_files
"""
"""Attempts that Landlock and seccomp hold, or of which the kernel alone, asked for nothing, need not say no."""


def limits_of(level: SandboxLevel) -> SandboxLimits:
    """Return the limits of a probe's sandbox."""
    return SandboxLimits(level=level, **BOUNDS)


class Machine:
    """What lies on the machine for a sandbox to find; what arrives at its sockets is an escape."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = folder
        folder.chmod(0o755)
        (folder / "file").write_text(self.secret)
        (folder / "ray").mkdir(mode=0o755)
        (folder / "ray" / "session").touch()
        self.shared_memory = Path("/dev/shm") / f"escape-{self.secret}"
        self.shared_memory.write_text(self.secret)
        self.server = socket.create_server(("0.0.0.0", 0))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.named, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.abstract_datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.named.bind(f"{folder}/socket")
        os.chmod(f"{folder}/socket", 0o777)
        self.abstract.bind(f"\0escape-{self.secret}")
        self.abstract_datagrams.bind(f"\0escape-datagrams-{self.secret}")
        for each in (self.named, self.abstract):
            each.listen()
        self.sockets = [self.server, self.datagrams, self.named, self.abstract, self.abstract_datagrams]
        self.host = socket.gethostname()

    @property
    def facts(self) -> dict[str, Any]:
        """What the attempts are told."""
        shown = {Path(path).parts[2] for path in (sys.base_prefix, *package_folders()) if path.startswith("/root/")}
        return BOUNDS | {
            "file": f"{self.folder}/file",
            "repository": str(ROOT),
            "shown": sorted(shown),
            "ray": f"{self.folder}/ray",
            "shared_memory": str(self.shared_memory),
            "packages": package_folders()[0],
            "secret": self.secret,
            "pid": os.getpid(),
            "port": self.server.getsockname()[1],
            "address": _own_address(),
            "datagrams": self.datagrams.getsockname()[1],
            "path": f"{self.folder}/socket",
            "abstract": f"escape-{self.secret}",
            "abstract_datagrams": f"escape-datagrams-{self.secret}",
            "free_port": 1 + self.server.getsockname()[1] % 60_000 + 1024,
        }

    def reached(self) -> str:
        """Return what of the machine was reached or changed, seen from here."""
        for each in self.sockets:
            each.setblocking(False)
            with suppress(BlockingIOError, OSError):
                each.recv(100) if each.type == socket.SOCK_DGRAM else each.accept()
                return f"something arrived at {each.getsockname()!r}"
        if socket.gethostname() != self.host:
            return "the machine has another name"
        return "" if (self.folder / "file").read_text() == self.secret else "a file was changed"

    def close(self) -> None:
        """Take away what lies elsewhere."""
        for each in self.sockets:
            each.close()
        self.shared_memory.unlink()


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.connect(("192.0.2.1", 9))  # sends nothing
        return str(sock.getsockname()[0])
    return "127.0.0.1"


@contextmanager
def machine() -> Iterator[Machine]:
    """Put things on the machine, and take them away."""
    with tempfile.TemporaryDirectory(prefix="escape-") as folder:
        made = Machine(Path(folder))
        try:
            yield made
        finally:
            made.close()


async def attempts(level: SandboxLevel) -> dict[str, str]:
    """Return what each attempt came to in one sandbox of this level: what it did, "" if it was contained."""
    names = [name for name in ATTEMPTS if level == "full" or name not in ONLY_FULL.split()]
    with machine() as place:
        argv = [python_there(), "-I", "-S", str(_FILE), json.dumps(place.facts), json.dumps(names)]
        command = sandboxed_command(argv, code=[str(_FILE)], limits=limits_of(level), wall_s=120)
        leaked = os.open(place.folder / "file", os.O_RDONLY)
        os.set_inheritable(leaked, True)
        running = await SandboxProcess.start(command, os.environ | {"SECRET": place.secret, "RAY_ADDRESS": "x"})
        os.close(leaked)
        found = {}
        try:
            while line := await running.reader.readline():
                name, text = json.loads(line)
                found[name] = text
        finally:
            await running.end()
        seen = place.reached()
    missing = {name: f"it was not tried: {bytes(running.log)!r}" for name in names if name not in found}
    return found | missing | ({"reach_the_machine": seen} if seen else {"reach_the_machine": ""})


# Probes that take a sandbox of their own: what they do is seen from outside.

_SPIN = "while True: pass"
_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
_DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        time.sleep(1000)
    os._exit(0)
print("begun", flush=True)
time.sleep(1000)
"""
_FLOOD = "import os\nwhile True: os.write(1, b'x' * 65536)"
_LOG = "import os\nwhile True: os.write(2, b'x' * 65536)"
_MEMORY = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(os.urandom(4096)) * (64 * 256)
        time.sleep(1000)
time.sleep(1000)
"""
_SOCKETS = """
import os, socket, time
while True:
    try:
        if os.fork() == 0:
            held = []
            while True:
                pair = socket.socketpair()
                pair[0].setblocking(False)
                held.append(pair)
                try:
                    while True: pair[0].send(bytes(65536))
                except BlockingIOError: pass
    except OSError: time.sleep(1000)
"""
_SHARED = """
import mmap, os, time
for i in range(8):
    if os.fork() == 0:
        shared = mmap.mmap(-1, 64 << 20)
        for at in range(0, 64 << 20, 1 << 20):
            shared[at:at + (1 << 20)] = bytes(b"x" * (1 << 20))
            shared.madvise(mmap.MADV_DONTNEED, at, 1 << 20)
        time.sleep(1000)
time.sleep(1000)
"""
_HEADLESS = """
import ctypes, os, threading, time
for _ in range(8):
    if os.fork() == 0:
        def hold():
            held = bytearray(os.urandom(4096)) * (64 * 256)
            time.sleep(1000)
        threading.Thread(target=hold).start()
        ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
time.sleep(1000)
"""
_RANGES = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
for _ in range(8):
    if os.fork() == 0:
        start = libc.mmap(None, 30000 * 4096, 0, 0x22, -1, 0)
        for at in range(0, 30000, 2):
            libc.mprotect(start + at * 4096, 4096, 1)
        time.sleep(1000)
time.sleep(1000)
"""
_FILES_IN_MEMORY = "import os\nfor n in range(10**7): os.close(os.open(f'/dev/shm/{n}', os.O_CREAT | os.O_WRONLY))"
_FILES = "import os\nfor n in range(10**7): os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY))"
_STOPPED = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"
_FORGES = """
import sys, time
sys.stdout.buffer.write((2**31).to_bytes(4, "big") + b"ok")
sys.stdout.flush()
time.sleep(1000)
"""


async def _until_it_says(running: SandboxProcess, level: SandboxLevel) -> str:
    """Wait until it has begun, and so has what it leaves behind."""
    return "" if await running.reader.readline() == b"begun\n" else "it did not begin"


async def _a_moment(running: SandboxProcess, level: SandboxLevel) -> str:
    """Let it be for a moment, as one that does not end."""
    await asyncio.sleep(0.3)
    return ""


async def _bounded_processes(running: SandboxProcess, level: SandboxLevel) -> str:
    """Count its processes while it makes as many as it can."""
    most = 0
    for _ in range(10):
        await asyncio.sleep(0.05)
        most = max(most, len(list(descendants(running.pid))))
    return "" if most <= BOUNDS["processes"] + 16 else f"it had {most} processes"


async def _is_ended_by_the_watch(running: SandboxProcess, level: SandboxLevel) -> str:
    """It takes more than it may, and that is seen."""
    try:
        return "" if await asyncio.wait_for(running.watch(limits_of(level)), 30) else "?"
    except TimeoutError:
        return "nobody saw what it took"


async def _bounded_log(running: SandboxProcess, level: SandboxLevel) -> str:
    """Nobody keeps what it prints without end."""
    await asyncio.sleep(0.5)
    kept = len(running.log)
    return "" if kept <= sandbox_process.MAX_LOG_BYTES else f"{kept:,} bytes were kept"


async def _bounded_answer(running: SandboxProcess, level: SandboxLevel) -> str:
    """A message that says it is two gigabytes long is not waited for."""
    return "" if await asyncio.wait_for(running.receive(65_536), 30) is None else "it was read"


async def _frozen(running: SandboxProcess, level: SandboxLevel) -> str:
    """Who made it was stopped before it is killed."""
    said = await _until_it_says(running, level)
    os.kill(running.pid, signal.SIGSTOP)
    return said


Seen = Callable[[SandboxProcess, SandboxLevel], Coroutine[Any, Any, str]]
ALONE: dict[str, tuple[str, Seen]] = {
    "spin": (_SPIN, _a_moment),
    "bomb_with_forks": (_BOMB, _bounded_processes),
    "leave_a_daemon_that_heeds_no_signal": (_DAEMON, _until_it_says),
    "leave_a_daemon_while_who_made_it_is_stopped": (_DAEMON, _frozen),
    "stop_itself": (_STOPPED, _a_moment),
    "flood_its_output": (_FLOOD, _bounded_answer),
    "flood_its_log": (_LOG, _bounded_log),
    "say_that_it_says_much": (_FORGES, _bounded_answer),
    "take_memory_by_many_processes": (_MEMORY, _is_ended_by_the_watch),
    "hold_memory_in_sockets": (_SOCKETS, _is_ended_by_the_watch),
    "make_files_without_end": (_FILES, _is_ended_by_the_watch),
    "make_files_in_shared_memory": (_FILES_IN_MEMORY, _is_ended_by_the_watch),
    "hide_memory_that_is_shared": (_SHARED, _is_ended_by_the_watch),
    "take_memory_in_processes_without_a_first_thread": (_HEADLESS, _is_ended_by_the_watch),
    "make_ranges_of_memory": (_RANGES, _is_ended_by_the_watch),
}
"""Programs, each with what is looked at while it runs; after all of them nothing may be left."""


async def alone(name: str, level: SandboxLevel) -> str:
    """Run one of `ALONE`; return what was not contained of it, "" for nothing."""
    code, seen = ALONE[name]
    command = sandboxed_command([python_there(), "-I", "-c", code], limits=limits_of(level), wall_s=120)
    running = await SandboxProcess.start(command)
    try:
        async with asyncio.timeout(30):
            # Nothing says that a process has begun.
            while len(list(descendants(running.pid))) < 4 and not running.is_over:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        found = await seen(running, level)
        there = list(descendants(running.pid))
    finally:
        await running.end()
    alive = list(filter(is_alive, there))
    return found or (f"it left {alive}" if alive else "")


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not only still to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def left() -> int:
    """Count processes of this one that are still there."""
    return len(list(descendants(os.getpid()))) - 1


async def probe(levels: list[SandboxLevel]) -> dict[str, Any]:
    """Run all of them, at each level, and say what became of them."""
    escaped, count = {}, 0
    for level in levels:
        found = await attempts(level)
        for name in ALONE:
            found[name] = await alone(name, level)
        count += len(found)
        escaped |= {f"{level}: {name}": text for name, text in found.items() if text}
    return {"probes": count, "contained": count - len(escaped), "left": left(), "escaped": escaped}


def main() -> int:
    """Print what became of them as one line of JSON; 1 if one was not contained, or left a process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--level", action="append", choices=["namespaces", "full"], help="only this one (default: full)"
    )
    result = asyncio.run(probe(parser.parse_args().level or ["full"]))
    print(json.dumps(result))
    return int(bool(result["escaped"] or result["left"]))


if __name__ == "__main__":
    sys.exit(main())
