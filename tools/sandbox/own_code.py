"""Airside's own code, as a sandbox of another user can read it: `CODE_FOLDERS`, `readable`, `can_read`."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import stat
import tempfile
from pathlib import Path

AIRSIDE_FOLDER = Path(os.path.abspath(__file__)).parents[2]

CODE_FOLDERS = (AIRSIDE_FOLDER, *(path.resolve() for path in AIRSIDE_FOLDER.iterdir() if path.is_symlink()))
"""The folders of Airside's own modules, which a function may use."""


def can_read(path: str | Path) -> bool:
    """Whether every user may read a file, or enter and read a folder."""
    mode = os.stat(path).st_mode
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return mode & needed == needed


@functools.cache
def readable(path: str) -> str:
    """Return where every user can read a file or folder of code: there, or in a copy that ends with this process.

    Code that was laid down for its owner alone, by an `umask` of 077 say, is no secret: it is Airside's.
    """
    if can_read(path) and all(can_read(each) for each in _below(path)):
        return path
    folder = tempfile.mkdtemp(prefix="airside-code-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder, os.path.basename(path))
    if os.path.isdir(path):
        shutil.copytree(path, copy, symlinks=True)
    else:
        shutil.copy(path, copy)
    for each in (folder, str(copy), *_below(str(copy))):
        os.chmod(each, 0o755 if os.path.isdir(each) else 0o644)
    return str(copy)


def _below(path: str) -> list[str]:
    return [
        os.path.join(folder, name)
        for folder, folders, files in os.walk(path)
        for name in (*folders, *files)
        if not os.path.islink(os.path.join(folder, name))
    ]
