"""What LanceDB leaves undone on a local disk: nothing is fsynced, and a manifest cut short keeps a table shut.

A commit writes its data first and its manifest last, and all of them are fsynced before it is acknowledged; so a
manifest that is empty, or without its last bytes, belongs to nothing that was acknowledged, and the one before it is
right.
"""

from __future__ import annotations

import os
from pathlib import Path

_LAST_BYTES = b"LANC"
"""What every whole manifest of the Lance format ends with."""


class Durable:
    """The files of one table that are certainly on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()

    def sync(self) -> None:
        """Bring every file that is new since the last time to disk, and the names of all of them."""
        found: set[str] = set()
        for root, _, names in os.walk(self._folder):
            paths = {os.path.join(root, name) for name in names}
            for path in paths - self._known:
                _fsync(path)
            if paths - self._known:
                _fsync(root)
            found |= paths
        if not self._known:
            _fsync(self._folder.parent)
        # The one file whose name stays while what it says changes; it is a hint that LanceDB can do without.
        self._known = {path for path in found if not path.endswith(".json")}


def _fsync(path: str | Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # it was of an old version, and is gone
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file's content; after a crash it is the old one or the new one."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _fsync(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file so that it is gone after a crash too."""
    path.unlink(missing_ok=True)
    _fsync(path.parent)


def drop_torn_manifests(table: Path) -> list[str]:
    """Remove the manifests that a crash of the machine left unfinished; return their names."""
    versions = table / "_versions"
    torn = [path for path in versions.glob("*.manifest") if not path.read_bytes().endswith(_LAST_BYTES)]
    for path in torn:
        path.unlink()
    if torn:
        (versions / "latest_version_hint.json").unlink(missing_ok=True)
        _fsync(versions)
    return sorted(path.name for path in torn)
