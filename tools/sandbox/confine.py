"""The first program in a sandbox: `confine.py RULES COMMAND...`, where RULES is JSON (`Rules` of `command.py`).

It stands alone: it is given to the sandbox as a file, where nothing of Airside is.  It gives up what its user may do,
sets the bounds, takes away what it was not told to keep of the environment, and runs the command under Landlock's and
seccomp's rules, which sandlock makes.  It waits for the command, and ends when its time is over, or when nobody has the
other end of its standard error any more, for who started it is gone then; everything ends with it.  Whatever fails here
ends it before the command is begun: exit code 125, and a line that says what.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

FAILED = 125
_DNS_PORT = 53
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER = 0x10000000
_OWN_THREADS = 8
"""Of this process and of sandlock, which count among those of its user."""

DENIED = """memfd_create memfd_secret userfaultfd perf_event_open bpf keyctl add_key request_key ptrace kcmp
process_vm_readv process_vm_writev process_madvise pidfd_getfd mount umount2 pivot_root chroot setns unshare move_mount
mount_setattr fsopen fsmount fsconfig fspick open_tree kexec_load kexec_file_load init_module finit_module delete_module
open_by_handle_at name_to_handle_at io_uring_setup io_uring_enter io_uring_register personality quotactl syslog swapon
swapoff reboot acct settimeofday clock_settime adjtimex clock_adjtime fanotify_init iopl ioperm modify_ldt mq_open
mq_unlink shmget shmat msgget semget mbind migrate_pages move_pages lookup_dcookie vhangup uselib ustat sysfs
sethostname setdomainname nfsservctl setxattr lsetxattr fsetxattr setxattrat
inotify_init inotify_init1"""
"""What no tool calls; `memfd_create`, attributes of files and `inotify` for memory that no bound counts."""

SERVING = "listen accept accept4"
"""What is denied besides where the network is the machine's: nobody is to connect to a sandbox."""

PRIVATE = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 ::/127 ::ffff:0:0/96 64:ff9b::/32
64:ff9b:1::/48 2001:db8::/32 2002::/16 fc00::/7 fe80::/10 ff00::/8"""
"""Networks that a sandbox with a network does not reach: the machine itself, its neighbours, clouds' own services."""

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _become(uid: int) -> None:
    """Be another user, where this one is root; then have a user namespace in which none can be made.

    What the kernel forgets with the user is said again: that it dies with its parent, and gains no privilege.
    """
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        _must(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")
        _must(_libc.unshare(_CLONE_NEWUSER), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{uid} {uid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
    _must(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")
    _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise PermissionError("it is still root")


def _bound(rules: dict[str, Any]) -> None:
    for name, most in (
        ("CORE", 0),
        ("NPROC", rules["processes"] + _OWN_THREADS),
        ("FSIZE", rules["disk_bytes"]),
        ("NOFILE", rules["open_files"]),
        ("CPU", rules["cpu_s"]),
        ("MEMLOCK", 65536),
        ("MSGQUEUE", 0),
        ("SIGPENDING", 256),
    ):
        if most is not None:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def _watch(lifeline: int, wall_s: float | None) -> None:
    """End everything once nobody has the other end of a stream, or the time is over.

    The kernel tells the death of a starter only to who was there already when it died: this one sees it later, too.
    """
    poll = select.poll()
    poll.register(lifeline, 0)  # its end is told without being asked for
    os._exit(FAILED if poll.poll(None if wall_s is None else wall_s * 1000) else 124)


def _own_addresses() -> Iterator[str]:
    """Yield the addresses that are the machine's, public ones among them."""
    last = ""
    with open("/proc/self/net/fib_trie") as file:
        for line in file:
            if "|--" in line:
                last = line.split()[-1]
            elif "host LOCAL" in line:
                yield last
    if os.path.exists("/proc/self/net/if_inet6"):
        with open("/proc/self/net/if_inet6") as file:
            for line in file:
                digits = line.split()[0]
                yield ":".join(digits[at : at + 4] for at in range(0, 32, 4))


def _unreachable() -> list[str]:
    """Return sandlock's rules of what is not reached: of a server of names in such a network, all but its one port."""
    import ipaddress  # it takes milliseconds, and few sandboxes have a network

    def rule(network: Any, ports: str = "*") -> str:
        return f"[{network}]:{ports}" if network.version == 6 else f"{network}:{ports}"

    networks: list[Any] = [ipaddress.ip_network(each) for each in PRIVATE.split()]
    others = []
    for own in map(ipaddress.ip_network, _own_addresses()):
        if not any(own.version == each.version and own.subnet_of(each) for each in networks):
            networks.append(own)
    with open("/etc/resolv.conf") as file:
        names = [line.split()[1] for line in file if line.startswith("nameserver ")]
    for server in (ipaddress.ip_network(name.partition("%")[0]) for name in names):
        for network in [each for each in networks if each.version == server.version and server.subnet_of(each)]:
            networks.remove(network)
            networks += network.address_exclude(server)
            others.append(rule(server, ",".join(str(port) for port in range(1, 65536) if port != _DNS_PORT)))
    return [*map(rule, networks), *others]


def _sandboxed(rules: dict[str, Any], command: list[str]) -> Callable[[], int]:
    """Return a function that waits for the command, which was begun."""
    # A shell sets the bound that this process, with its own threads, would not keep.
    kib = rules["memory_bytes"] // 1024
    command = ["/bin/sh", "-c", 'ulimit -v "$0" && exec "$@"', str(kib), *command]
    if rules["level"] != "full":
        return subprocess.Popen(command).wait  # noqa: S603 - the command is what the sandbox is for
    sys.path.append(rules["sandlock"])
    import sandlock

    child = sandlock.Sandbox(
        fs_readable=rules["readable"],
        fs_writable=rules["writable"],
        extra_deny_syscalls=(f"{DENIED} {SERVING}" if rules["network"] else DENIED).split(),
        no_coredump=True,
        net_deny=_unreachable() if rules["network"] else [],
    ).popen(command)

    def wait() -> int:
        result = child.wait()
        if result.signal > 0:
            return -int(result.signal)
        return -int(signal.SIGKILL) if result.exit_code < 0 else int(result.exit_code)

    return wait


def main() -> None:
    """Confine, run, wait."""
    try:
        rules, command = json.loads(sys.argv[1]), sys.argv[2:]
        os.closerange(3, 65536)
        _become(rules["uid"])
        _bound(rules)
        os.chdir(rules["folder"])
        kept = {name: os.environ[name] for name in rules["environment"] if name in os.environ}
        os.environ.clear()
        os.environ.update(rules["variables"] | kept)
        threading.Thread(target=_watch, args=(os.dup(2), rules["wall_s"]), daemon=True).start()
        wait = _sandboxed(rules, command)
    except BaseException as error:
        print(f"sandbox: {type(error).__name__}: {error}"[:1000], file=sys.stderr, flush=True)
        os._exit(FAILED)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # the command's alone from now on: who reads it sees its end
        os.dup2(null, descriptor)
    code = wait()
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
