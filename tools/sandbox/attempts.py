"""What a probe tries in a sandbox: `attempts.py FACTS`, where FACTS is JSON; it writes down what it could do, as JSON.

It stands alone, as `confine.py`.  Each attempt is one that a protection must refuse: it returns a sentence if it was
not refused.  By those of `namespaces` a sandbox is told from none, by those of `full` one whose programs are held by
Landlock and seccomp.  They read and reach what the probe put there for it, and harm nothing.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any

FACTS: dict[str, Any] = {}
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER = 0x10000000
_MEMFD_CREATE, _IO_URING_SETUP, _KEYCTL, _BPF, _PTRACE = 319, 425, 250, 321, 101
if os.uname().machine == "aarch64":
    _MEMFD_CREATE, _IO_URING_SETUP, _KEYCTL, _BPF, _PTRACE = 279, 425, 219, 280, 117
_REFUSED = (1, 38)
"""EPERM and ENOSYS: what a filter answers, while the kernel itself complains of the arguments."""


def read_a_file_of_the_machine() -> str:
    """Read one that anybody on the machine may read: the mounts leave it out."""
    with open(FACTS["file"]) as file:
        return f"read {file.read(20)!r}"


def write_among_the_systems_programs() -> str:
    """Write where programs lie, which are shown read-only."""
    with open("/usr/lib/airside-probe", "w"):
        return "wrote below /usr"


def share_a_namespace() -> str:
    """Be in one of the namespaces that the probe itself is in."""
    shared = [name for name, number in FACTS["namespaces"].items() if os.stat(f"/proc/self/ns/{name}").st_ino == number]
    return f"shares the namespaces {', '.join(shared)}" if shared else ""


def be_root() -> str:
    """Be root, or become it."""
    if 0 in (*os.getresuid(), *os.getresgid()):
        return "is root"
    os.setuid(0)
    return "became root"


def have_a_capability() -> str:
    """Hold any right of root."""
    with open("/proc/self/status") as file:
        held = [line.split()[1] for line in file if line.startswith(("CapEff", "CapPrm", "CapAmb"))]
    return "" if not any(int(each, 16) for each in held) else f"has the capabilities {held}"


def make_a_user_namespace() -> str:
    """Make one, to be root in it."""
    return "" if _libc.unshare(_CLONE_NEWUSER) else "made a user namespace, in which it is root"


def see_a_process_of_the_machine() -> str:
    """Signal the probe, by nothing that would harm it."""
    os.kill(FACTS["pid"], 0)
    return "signalled a process of the machine"


def read_the_environment() -> str:
    """Find the variable of the probe that was not passed on."""
    if FACTS["secret"] in os.environ.values():
        return "has a variable that was not given"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ") as file:
                if FACTS["secret"] in file.read():
                    return f"read the environment of process {pid}"
        except OSError:
            continue
    return ""


def connect_by_loopback() -> str:
    """Reach the probe's server by the machine's loopback."""
    with socket.create_connection(("127.0.0.1", FACTS["port"]), timeout=1):
        return "connected to a server of the machine"


def connect_by_a_path() -> str:
    """Reach the probe's server by the path of its socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(FACTS["path"])
        return "connected to a socket by its path"


def connect_by_an_abstract_name() -> str:
    """Reach the probe's server by a name that lies in no folder, but in the network's namespace."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + FACTS["abstract"])
        return "connected to a socket by its abstract name"


def fill_the_disk() -> str:
    """Write more than the sandbox may keep, in two files."""
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        for _ in range(2 * FACTS["disk_bytes"] // 65536):
            first.write(bytes(32768))
            second.write(bytes(32768))
        return "wrote more than its disk holds"


def take_memory() -> str:
    """Take as much memory as is the bound of all of it."""
    with mmap.mmap(-1, FACTS["memory_bytes"]):
        return "was given more memory than it may have"


def start_many_processes() -> str:
    """Start more than there may be; all are ended again."""
    started = []
    try:
        for _ in range(FACTS["processes"] + 32):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            started.append(pid)
        return "started more processes than it may"
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def list_the_root() -> str:
    """List a folder that is mounted, and that no rule of Landlock is about."""
    return f"listed / without a rule that allows it: {os.listdir('/')[:3]}"


def signal_who_confines_it() -> str:
    """Signal the process outside of Landlock's rules, in the same namespace and of the same user."""
    os.kill(os.getppid(), 0)
    return "signalled the process that holds its rules"


def _call(number: int, *arguments: int) -> bool:
    """Whether a system call was let through to the kernel, whatever that made of its arguments."""
    return _libc.syscall(number, *arguments) >= 0 or ctypes.get_errno() not in _REFUSED


def make_memory_that_no_bound_counts() -> str:
    """Make a file in memory, which the kernel grants everybody and seccomp does not."""
    name = ctypes.create_string_buffer(b"probe")
    return "called memfd_create" if _libc.syscall(_MEMFD_CREATE, name, 0) >= 0 else ""


def call_what_no_tool_calls() -> str:
    """Call what the kernel would answer otherwise than seccomp does."""
    calls = {"io_uring_setup": (_IO_URING_SETUP, 0, 0), "keyctl": (_KEYCTL, 0, -3, 0), "ptrace": (_PTRACE, 0, 0, 0, 0)}
    made = [name for name, (number, *arguments) in calls.items() if _call(number, *arguments)]
    return f"called {', '.join(made)}" if made else ""


ATTEMPTS: dict[str, list[Callable[[], str]]] = {
    "namespaces": [
        read_a_file_of_the_machine,
        write_among_the_systems_programs,
        share_a_namespace,
        be_root,
        have_a_capability,
        make_a_user_namespace,
        see_a_process_of_the_machine,
        read_the_environment,
        connect_by_loopback,
        connect_by_a_path,
        connect_by_an_abstract_name,
        fill_the_disk,
        take_memory,
        start_many_processes,
    ],
    "full": [
        list_the_root,
        signal_who_confines_it,
        make_memory_that_no_bound_counts,
        call_what_no_tool_calls,
    ],
}


def main() -> None:
    """Try everything of the levels up to one; write down what was not refused."""
    FACTS.update(json.loads(sys.argv[1]))
    found = []
    for level, attempts in ATTEMPTS.items():
        for attempt in attempts if level in FACTS["levels"] else ():
            try:
                text = attempt()
            except (OSError, ValueError):
                continue
            if text:
                found.append(text)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
