"""What LanceDB leaves undone on a local disk: nothing is fsynced, and a manifest cut short keeps a table shut.

A commit writes its data first and its manifest last, and all of them are fsynced before it is acknowledged; so a
manifest that is empty, or without its last bytes, belongs to nothing that was acknowledged, and the one before it is
right.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

_LAST_BYTES = b"LANC"
"""What every whole manifest and data file of the Lance format ends with."""


class Durable:
    """The files of one table that are certainly on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, set[str]] = {}

    def sync(self) -> None:
        """Bring to disk every file that is new since the last time, and which names there are, and no longer are."""
        found: dict[str, set[str]] = {}
        for root, folders, names in os.walk(self._folder):
            known = self._known.get(root, set())
            there = {*folders, *names}
            for name in there - known:
                _fsync(os.path.join(root, name))
            # The one file whose name stays while what it says changes; it is a hint that LanceDB can do without.
            found[root] = {name for name in there if not name.endswith(".json")}
            if found[root] != known:
                _fsync(root)
        if not self._known:
            _fsync(self._folder.parent)
        self._known = found


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
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file so that it is gone after a crash too."""
    path.unlink(missing_ok=True)
    _fsync(path.parent)


def remove_folder_durably(folder: Path) -> None:
    """Remove a folder and all in it, so that it is gone after a crash too; raise `OSError` if it cannot be."""
    if folder.exists():
        shutil.rmtree(folder)
    _fsync(folder.parent)


def is_whole(path: Path) -> bool:
    """Whether a manifest or data file of the Lance format has its end."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() < len(_LAST_BYTES):
            return False
        file.seek(-len(_LAST_BYTES), os.SEEK_END)
        return file.read() == _LAST_BYTES


def drop_torn_manifests(table: Path) -> list[str]:
    """Remove the manifests that a crash of the machine left unfinished; return their names."""
    return _drop(table, [path for path in (table / "_versions").glob("*.manifest") if not is_whole(path)])


def drop_torn_version(table: Path) -> bool:
    """Remove the newest version if a crash of the machine left its data unfinished; return whether that was so.

    Data is fsynced before it is acknowledged, so a file without its end that only the newest version has is of the
    one commit which was under way.  Any other was whole once: that is for a person to look at.
    """
    # Names count down from the largest number there is, so that the newest sorts first.
    manifests = sorted((table / "_versions").glob("*.manifest"))
    if len(manifests) < 2:
        return False
    newest, before = (path.read_bytes() for path in manifests[:2])
    torn = [path.name.encode() for path in (table / "data").glob("*.lance") if not is_whole(path)]
    is_torn = any(name in newest and name not in before for name in torn)
    return is_torn and bool(_drop(table, manifests[:1]))


def _drop(table: Path, manifests: list[Path]) -> list[str]:
    for path in manifests:
        path.unlink()
    if manifests:
        names = [path.name for path in manifests]
        logger.warning("%s: unfinished versions were taken back: %s", table.name, names, extra={"action": "taken_back"})
        (table / "_versions" / "latest_version_hint.json").unlink(missing_ok=True)
        _fsync(table / "_versions")
    return sorted(path.name for path in manifests)
