"""Attempts to break out of a sandbox, run within one: `escape_attempts.py FACTS NAMES`, both JSON.

Each is a function that returns a sentence if it got out, and raises or returns "" if it was held.  Each runs in a
process of its own, and what became of it is printed as a line of JSON.  This file stands alone: the sandbox has nothing
else of the repository.  FACTS are what `tests/escape_probes.py` put on the machine for them to find.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

F: dict[str, Any] = {}
ATTEMPTS: dict[str, Callable[[], str]] = {}
_libc = ctypes.CDLL(None, use_errno=True)
_X86 = os.uname().machine == "x86_64"


def attempt(function: Callable[[], str]) -> Callable[[], str]:
    """Have a function tried."""
    ATTEMPTS[function.__name__] = function
    return function


def syscall(number: int, *arguments: Any) -> int:
    """Call the kernel; raise what it says against it."""
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def filtered(number: int, *arguments: Any) -> str:
    """Say that a system call was let through, though the kernel itself may have refused its arguments."""
    try:
        syscall(number, *arguments)
    except OSError as error:
        return "" if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES) else f"let through: {error}"
    return "let through"


def read(path: str) -> str:
    """Read a file that must not be read."""
    with open(path, "rb") as file:
        return f"read {path}: {file.read(40)!r}"


def write(path: str) -> str:
    """Write a file that must not be written."""
    with open(path, "ab") as file:
        file.write(b"escaped")
    return f"wrote {path}"


# Files.


@attempt
def read_the_shadow() -> str:
    return read("/etc/shadow")


@attempt
def read_a_file_by_its_path() -> str:
    return read(F["file"])


@attempt
def read_a_file_by_dots() -> str:
    return read("/tmp/../../../../.." + F["file"])


@attempt
def read_a_file_by_a_link() -> str:
    os.symlink(F["file"], "/tmp/link")
    return read("/tmp/link")


@attempt
def read_a_file_by_a_second_name() -> str:
    os.link(F["file"], "/tmp/hard")
    return read("/tmp/hard")


@attempt
def read_a_file_by_the_root_of_a_process() -> str:
    for pid in ("self", "1", "2", str(os.getppid())):
        try:
            return read(f"/proc/{pid}/root{F['file']}")
        except OSError:
            continue
    return ""


@attempt
def read_a_file_by_a_handle() -> str:
    handle = struct.pack("Ii", 8, 1) + struct.pack("II", 2, 0)
    return filtered(304 if _X86 else 265, -100, handle, os.O_RDONLY)


@attempt
def read_the_repository() -> str:
    return read(f"{F['repository']}/pyproject.toml")


@attempt
def read_a_home() -> str:
    return read("/root/.bashrc")


@attempt
def list_a_home() -> str:
    hidden = {name for name in os.listdir("/root") if name not in F["shown"]}
    return f"listed {hidden}" if hidden else ""


@attempt
def list_rays_sessions() -> str:
    found = os.listdir(F["ray"])
    return f"listed {found}"


@attempt
def read_shared_memory() -> str:
    return read(F["shared_memory"])


@attempt
def see_others_shared_memory() -> str:
    found = os.listdir("/dev/shm")
    return f"saw {found}" if found else ""


@attempt
def write_among_the_systems_programs() -> str:
    return write("/usr/bin/escaped")


@attempt
def write_the_systems_settings() -> str:
    return write("/etc/ld.so.preload")


@attempt
def write_this_python() -> str:
    return write(os.__file__)


@attempt
def write_an_installed_package() -> str:
    return write(f"{F['packages']}/escaped.pth")


@attempt
def write_what_confines_it() -> str:
    return write("/run/airside/confine.py")


@attempt
def write_at_the_root() -> str:
    return write("/escaped")


@attempt
def make_a_device() -> str:
    os.mknod("/tmp/disk", 0o660 | 0o060000, os.makedev(254, 0))
    return read("/tmp/disk")


@attempt
def read_the_machines_disk() -> str:
    for path in ("/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore"):
        try:
            return read(path)
        except OSError:
            continue
    return ""


@attempt
def read_the_kernels_log() -> str:
    for path in ("/dev/kmsg", "/proc/kmsg"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            return f"read {path}: {os.read(descriptor, 100)!r}"
        except OSError:
            continue
    return filtered(103 if _X86 else 116, 3, ctypes.create_string_buffer(100), 100)


@attempt
def set_the_kernels_handler_of_core_dumps() -> str:
    return write("/proc/sys/kernel/core_pattern")


@attempt
def press_the_kernels_keys() -> str:
    return write("/proc/sysrq-trigger")


@attempt
def use_a_descriptor_that_was_left_open() -> str:
    for fd in range(3, 1024):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if not target.startswith("/proc/") and fd != F["own"]:
            return f"descriptor {fd} is {target}"
    return ""


# Environment and processes.


@attempt
def read_the_environment_of_who_started_it() -> str:
    if F["secret"] in os.environ.values() or any(name.startswith("RAY_") for name in os.environ):
        return "has a variable that was not given"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if F["secret"].encode() in file.read():
                    return f"read that of process {pid}"
        except OSError:
            continue
    return ""


@attempt
def see_processes_of_the_machine() -> str:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found.append(file.read())
        except OSError:
            continue
    return f"saw {found[:3]}" if any(b"pytest" in line or b"escape_probes" in line for line in found) else ""


@attempt
def signal_a_process_of_the_machine() -> str:
    os.kill(F["pid"], 0)
    return f"signalled {F['pid']}"


@attempt
def signal_who_confines_it() -> str:
    os.kill(F["confiner"], 0)
    return "signalled it"


@attempt
def trace_who_confines_it() -> str:
    syscall(101 if _X86 else 117, 16, F["confiner"], 0, 0)
    return "traced it"


@attempt
def trace_oneself() -> str:
    return filtered(101 if _X86 else 117, 0, 0, 0, 0)


@attempt
def write_the_memory_of_who_confines_it() -> str:
    return write(f"/proc/{F['confiner']}/mem")


@attempt
def read_the_memory_of_who_confines_it() -> str:
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("PN", ctypes.addressof(buffer), 8)
    return filtered(310 if _X86 else 270, F["confiner"], vector, 1, vector, 1, 0)


@attempt
def take_a_descriptor_of_who_confines_it() -> str:
    pidfd = os.pidfd_open(F["confiner"])
    return f"took {syscall(438, pidfd, 0, 0)}"


@attempt
def be_root() -> str:
    os.setresuid(0, 0, 0)
    return f"is {os.getresuid()}"


@attempt
def be_another_user() -> str:
    os.setgroups([0])
    os.setresgid(0, 0, 0)
    return f"is in {os.getresgid()}"


@attempt
def be_root_by_a_program() -> str:
    for command in (["/usr/bin/su", "-c", "id -u"], ["/usr/bin/sudo", "-n", "id", "-u"], ["/usr/bin/newgrp"]):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5)
        if done.stdout.strip() == "0":
            return f"is root by {command[0]}"
    return ""


@attempt
def have_a_capability() -> str:
    with open("/proc/self/status") as file:
        held = [line.split()[1] for line in file if line.startswith(("CapEff", "CapPrm", "CapInh", "CapAmb"))]
    return f"has {held}" if any(int(each, 16) for each in held) else ""


@attempt
def take_a_capability() -> str:
    header = struct.pack("Ii", 0x20080522, 0)
    data = struct.pack("6I", *[0xFFFFFFFF] * 6)
    syscall(126 if _X86 else 91, header, data)
    return "took all of them"


@attempt
def raise_a_bound() -> str:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "may use any memory"


@attempt
def be_scheduled_before_all() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "is a real-time process"


# Namespaces and mounts.


@attempt
def make_a_user_namespace() -> str:
    return filtered(272 if _X86 else 97, 0x10000000)


@attempt
def make_a_user_namespace_with_a_process() -> str:
    pid = syscall(56 if _X86 else 220, 0x10000000 | int(signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return "made one"


@attempt
def make_a_mount_namespace() -> str:
    return filtered(272 if _X86 else 97, 0x00020000)


@attempt
def mount_a_file_system() -> str:
    return filtered(165 if _X86 else 40, b"none", b"/tmp", b"tmpfs", 0, 0)


@attempt
def mount_the_cgroups() -> str:
    return filtered(165 if _X86 else 40, b"none", b"/tmp", b"cgroup", 0, b"memory")


@attempt
def mount_by_the_new_calls() -> str:
    return filtered(430, b"tmpfs", 0)


@attempt
def take_a_mount_away() -> str:
    return filtered(166 if _X86 else 39, b"/tmp", 2)


@attempt
def mount_the_root_writable() -> str:
    return filtered(165 if _X86 else 40, b"none", b"/", b"", 32 | 4096, 0)


@attempt
def enter_another_namespace() -> str:
    for pid in (1, F["confiner"]):
        try:
            descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        except OSError:
            continue
        return filtered(308 if _X86 else 268, descriptor, 0)
    return ""


@attempt
def change_the_root() -> str:
    os.chroot("/tmp")
    return "changed it"


@attempt
def exchange_the_root() -> str:
    return filtered(155 if _X86 else 41, b"/tmp", b"/tmp")


# Networks.


@attempt
def connect_to_the_machine_by_loopback() -> str:
    with socket.create_connection(("127.0.0.1", F["port"]), timeout=2):
        return "connected"


@attempt
def connect_to_the_machine_by_its_address() -> str:
    with socket.create_connection((F["address"], F["port"]), timeout=2):
        return "connected"


@attempt
def send_a_datagram_to_the_machine() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"escaped", ("127.0.0.1", F["datagrams"]))
    return ""  # whether it arrived is seen outside


@attempt
def connect_to_the_internet() -> str:
    with socket.create_connection(("1.1.1.1", 53), timeout=2):
        return "connected"


@attempt
def ask_the_clouds_own_service() -> str:
    with socket.create_connection(("169.254.169.254", 80), timeout=2):
        return "connected"


@attempt
def send_raw_packets() -> str:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "made a raw socket"


@attempt
def hear_all_packets() -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)
    return "made a packet socket"


@attempt
def see_the_machines_interfaces() -> str:
    found = [name for _, name in socket.if_nameindex() if name not in ("lo", "sit0", "tunl0", "ip6tnl0")]
    return f"saw {found}" if found else ""


@attempt
def connect_to_the_hypervisor() -> str:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.connect((2, 1024))
    return "connected"


@attempt
def connect_to_a_socket_by_its_path() -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(F["path"])
        return "connected"


@attempt
def connect_to_a_socket_by_its_name() -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + F["abstract"])
        return "connected"


@attempt
def send_to_a_socket_by_its_name() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"escaped", "\0" + F["abstract_datagrams"])
        return "sent"


@attempt
def be_connected_to_from_outside() -> str:
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", F["free_port"]))
        sock.listen()
        sock.settimeout(0.2)
        sock.accept()
        return "was"


# The kernel's further doors.


@attempt
def use_io_uring() -> str:
    return filtered(425, 4, ctypes.create_string_buffer(256))


@attempt
def load_a_program_into_the_kernel() -> str:
    return filtered(321 if _X86 else 280, 0, ctypes.create_string_buffer(128), 72)


@attempt
def watch_the_kernels_counters() -> str:
    return filtered(298 if _X86 else 241, ctypes.create_string_buffer(struct.pack("II", 1, 112), 112), 0, -1, -1, 0)


@attempt
def handle_page_faults() -> str:
    return filtered(323 if _X86 else 282, 1)


@attempt
def use_the_kernels_keys() -> str:
    return filtered(250 if _X86 else 219, 0, -3, 0)


@attempt
def make_memory_that_no_bound_counts() -> str:
    return filtered(319 if _X86 else 279, b"x", 0)


@attempt
def share_memory_by_a_key() -> str:
    return filtered(29 if _X86 else 194, 0x41495253, 4096, 0o666)


@attempt
def use_a_message_queue_of_the_machine() -> str:
    return filtered(240 if _X86 else 180, b"airside", os.O_RDWR, 0, 0)


@attempt
def attach_to_a_file() -> str:
    with open("/tmp/attached", "wb"):
        return filtered(188 if _X86 else 5, b"/tmp/attached", b"user.x", b"x", 1, 0)


@attempt
def watch_files() -> str:
    return filtered(294 if _X86 else 26, 0)


@attempt
def start_another_kernel() -> str:
    return filtered(246 if _X86 else 104, 0, 0, 0, 0)


@attempt
def load_a_module() -> str:
    return filtered(175 if _X86 else 105, b"", 0, b"")


@attempt
def restart_the_machine() -> str:
    return filtered(169 if _X86 else 142, 0, 0, 0, 0)


@attempt
def set_the_clock() -> str:
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return "set it"


@attempt
def rename_the_machine() -> str:
    socket.sethostname("escaped")
    return ""  # of the sandbox that would be no harm; the machine's is looked at outside


@attempt
def type_at_the_terminal() -> str:
    with open("/dev/tty", "wb") as terminal:
        terminal.write(b"escaped")
    return "has one"


# Bounds.


@attempt
def take_a_gigabyte() -> str:
    with mmap.mmap(-1, 1 << 30) as taken:
        taken.write(bytes(1 << 20))
        return "was given it"


@attempt
def fill_the_disk_by_a_file() -> str:
    with tempfile.TemporaryFile() as file:
        for _ in range(2 * F["disk_bytes"] // 65536):
            file.write(bytes(65536))
        return "wrote it"


@attempt
def fill_the_disk_by_several_files() -> str:
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second, tempfile.TemporaryFile() as third:
        for _ in range(F["disk_bytes"] // 65536 // 2 + 8):
            for file in (first, second, third):
                file.write(bytes(65536))
                file.flush()
        return "wrote them"


@attempt
def fill_shared_memory() -> str:
    with open("/dev/shm/large", "wb") as file:
        try:
            for _ in range(64):
                file.write(bytes(1 << 20))
            return "wrote 64 MiB"
        finally:
            os.truncate("/dev/shm/large", 0)
            os.unlink("/dev/shm/large")


@attempt
def write_into_the_devices_folder() -> str:
    return write("/dev/escaped")


@attempt
def open_many_files() -> str:
    held = [os.dup(0) for _ in range(F["open_files"] + 10)]
    return f"holds {len(held)}"


@attempt
def start_many_processes() -> str:
    started = []
    try:
        for _ in range(F["processes"] + 40):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            started.append(pid)
        return f"started {len(started)}"
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def main() -> None:
    """Try each, in a process of its own."""
    F.update(json.loads(sys.argv[1]))
    F["confiner"] = os.getppid()
    for name in json.loads(sys.argv[2]):
        got, put = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(got)
            F["own"] = put
            signal.alarm(20)
            try:
                text = ATTEMPTS[name]() or ""
            except BaseException:
                text = ""
            os.write(put, text.encode()[:2000])
            os._exit(0)
        os.close(put)
        with open(got, "rb") as file:
            print(json.dumps([name, file.read().decode(errors="replace")]), flush=True)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
