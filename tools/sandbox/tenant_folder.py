"""A tenant's folder of a workspace, as a sandbox is given it: `give_folder`; `folder_bytes`, how full it is."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from airside.stack.ids import TenantId
from airside.tools.sandbox.command import SandboxUnavailable

WORKSPACE_UID = (1 << 30) - 1
"""Who works in tenants' folders, where root starts sandboxes: root's own tools reach them all the same."""

MAX_DEPTH = 64
"""Folders in one another, and `MAX_ENTRIES` files and folders, beyond which a workspace counts as too full."""

MAX_ENTRIES = 200_000

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def give_folder(root: str, tenant: TenantId) -> str:
    """Return the path of a tenant's folder, made if need be, all of which the sandbox's user may read and write.

    Links are left as they are, and so is a file of two names: the other may lie elsewhere.
    """
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileExistsError):
            os.mkdir(tenant, 0o700, dir_fd=parent)
        folder = os.open(tenant, _FOLDER, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        if os.geteuid() == 0:
            _give(folder)
    except OSError as error:
        raise SandboxUnavailable(f"the workspace cannot be given to a sandbox: {error}") from None
    finally:
        os.close(folder)
    return str(Path(root, tenant))


def _give(folder: int) -> None:
    os.fchown(folder, WORKSPACE_UID, WORKSPACE_UID)
    try:
        for parent, name, status in _walk(folder):
            is_ours = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
            if is_ours and status.st_uid != WORKSPACE_UID:
                os.chown(name, WORKSPACE_UID, WORKSPACE_UID, dir_fd=parent, follow_symlinks=False)
    except WorkspaceTooLarge:
        pass  # what lies deeper is the sandboxes' own; how full it is tells those that write


class WorkspaceTooLarge(Exception):
    """A folder is deeper, or has more entries, than is looked at."""


def _walk(folder: int, depth: int = 0, seen: list[int] | None = None) -> Iterator[tuple[int, str, os.stat_result]]:
    """Yield each entry below an open folder with its parent, each before what is in it; follows no link.

    Raises `WorkspaceTooLarge` at its bounds: a program can make a tree of any depth.
    """
    seen = seen if seen is not None else [0]
    for name in os.listdir(folder):
        seen[0] += 1
        if depth >= MAX_DEPTH or seen[0] > MAX_ENTRIES:
            raise WorkspaceTooLarge
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            yield folder, name, status
            if stat.S_ISDIR(status.st_mode):
                below = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    yield from _walk(below, depth + 1, seen)
                finally:
                    os.close(below)


def folder_bytes(path: str) -> float:
    """Return what a folder's files take together; without end where it cannot be told.

    What goes while it is looked at is not counted.
    """
    try:
        folder = os.open(path, _FOLDER)
        try:
            return sum(status.st_blocks * 512 for _, _, status in _walk(folder))
        finally:
            os.close(folder)
    except (OSError, WorkspaceTooLarge):
        return math.inf
