"""A tenant's folder of a workspace, as a sandbox is given it: `give_folder`; `folder_bytes`, how full it is."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from airside.stack.ids import TenantId
from airside.tools.sandbox.command import SandboxUnavailable

WORKSPACE_UID = (1 << 30) - 1
"""Who works in tenants' folders, where root starts sandboxes: root's own tools reach them all the same."""

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
    for _, folders, names, descriptor in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        for name in (*folders, *names):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            is_ours = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
            if is_ours and status.st_uid != WORKSPACE_UID:
                os.chown(name, WORKSPACE_UID, WORKSPACE_UID, dir_fd=descriptor, follow_symlinks=False)


def folder_bytes(path: str) -> int:
    """Return what a folder's files take together; what goes while it is looked at is not counted."""
    used, look = 0, [path]
    while look:
        try:
            with os.scandir(look.pop()) as entries:
                for entry in entries:
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        look.append(entry.path)
        except OSError:
            continue
    return used
