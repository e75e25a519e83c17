"""`SandboxLimits`: what a sandbox may use and must hold; `LEVELS`: how far a machine can make one."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Literal

from airside.stack.calling import explain_misuse
from airside.stack.errors import InvalidConfig
from airside.stack.values import SandboxLevel

LEVELS: dict[SandboxLevel, int] = {"none": 0, "namespaces": 1, "full": 2}
"""The levels of sandboxes, each with all that stands before it.

`namespaces`: a user, processes, network, mounts, host name and IPC of its own, no file of the machine's but what
programs need, bounds of memory, disk, processes and time.  `full`: Landlock's and seccomp's rules within, which take
most of the kernel away that a program could try."""

_MEGABYTE = 1024 * 1024
_LARGEST = {
    "processes": 4096,
    "memory_bytes": 1 << 46,
    "disk_bytes": 1 << 46,
    "workspace_bytes": 1 << 46,
    "open_files": 65_536,
}


@explain_misuse()
@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What the sandbox of one call may use, and the level it must have: on a machine with less no call is begun.

    `processes` counts threads, too; `memory_bytes` is of all its processes together; `disk_bytes` is of `/tmp`, where
    it may write, and is memory besides.  `network=True` leaves it the machine's network, but for the machine itself and
    its neighbours.  `readonly` are folders and files that it is shown where they are.  With `workspace` it begins in
    the tenant's folder below that one (as `workspace_tools` has it), which it sees as `/workspace`, and with access
    `write` may fill up to `workspace_bytes`.
    """

    level: SandboxLevel = "full"
    processes: int = 64
    memory_bytes: int = 512 * _MEGABYTE
    disk_bytes: int = 64 * _MEGABYTE
    open_files: int = 256
    network: bool = False
    readonly: tuple[str, ...] = ()
    workspace: str = ""
    access: Literal["read", "write"] = "read"
    workspace_bytes: int = 256 * _MEGABYTE

    def __post_init__(self) -> None:
        if self.level not in ("namespaces", "full"):
            raise InvalidConfig(f"SandboxLimits: level {self.level!r:.40} is not 'namespaces' or 'full'")
        if self.access not in ("read", "write"):
            raise InvalidConfig(f"SandboxLimits: access {self.access!r:.40} is not 'read' or 'write'")
        for path in (*self.readonly, *([self.workspace] if self.workspace else [])):
            if not isinstance(path, str) or not os.path.isabs(path):
                raise InvalidConfig(f"SandboxLimits: {path!r:.200} is no absolute path")
        if type(self.network) is not bool:
            raise InvalidConfig(f"SandboxLimits: network {self.network!r:.40} is not True or False")
        if self.network and self.level != "full":
            raise InvalidConfig("SandboxLimits: network=True takes level 'full': what it may not reach is held there")
        for each in fields(self):
            value, largest = getattr(self, each.name), _LARGEST.get(each.name)
            if largest is not None and (type(value) is not int or not 1 <= value <= largest):
                raise InvalidConfig(f"SandboxLimits: {each.name} {value!r:.40} is not between 1 and {largest:,}")
        if self.memory_bytes < 64 * _MEGABYTE or self.processes < 2:
            raise InvalidConfig("SandboxLimits: memory_bytes is 67,108,864 at least, processes 2: Python takes as much")
