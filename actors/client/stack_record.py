"""`stack.json`: by which other processes find the stack that runs on a state directory.

A directory speaks for itself: the record names the directory and the journal it was written for, so that a copy of it
leads nobody to the stack of the original.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from airside.actors.client.state_files import write_whole
from airside.actors.journal.log import JOURNAL
from airside.actors.process.pulse import born
from airside.stack.errors import Misuse

_NAME = "stack.json"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of the stack that runs on a directory, whole or not at all."""
    write_whole(folder / _NAME, json.dumps({**record, "directory": _directory(folder)}))


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a directory, empty if it has none that can be read.

    Raises `Misuse` if the record is another directory's: this one was copied, restored or moved since.
    """
    record = _read(folder)
    named = record.get("directory")
    if record and named != _directory(folder):
        whose = named.get("path") if isinstance(named, dict) else "another directory"
        raise Misuse(
            f"no stack runs on {folder}: it is a copy, or was moved; its stack.json is the record of a stack on {whose}"
        )
    return record


def remove_record(folder: Path, record_id: str) -> None:
    """Remove a stack's own record; that of another stack stays."""
    if _read(folder).get("id") == record_id:
        with contextlib.suppress(OSError):
            (folder / _NAME).unlink()


def keep(folder: Path, record_id: str) -> None:
    """Note that this process keeps the stack up, and ends when its record is removed."""
    record = _read(folder)
    if record.get("id") == record_id:
        write_record(folder, {**record, "keeper": this_process()})


def kept_by(record: dict[str, Any]) -> int:
    """Return the process that keeps a stack up, 0 if there is none (any more)."""
    return _alive(record.get("keeper"))


def started_by(folder: Path) -> int:
    """Return the process that started the stack a directory is written by, 0 if there is none (any more)."""
    return _alive(_read(folder).get("starter"))


def this_process() -> list[int]:
    """Return this process as a record names one: by its id, and when it began."""
    return [os.getpid(), born(os.getpid())]


def _alive(named: object) -> int:
    match named:
        case [int(pid), int(since)]:
            with contextlib.suppress(OSError):
                return pid if born(pid) == since else 0
    return 0


def is_recorded(folder: Path, record_id: str) -> bool:
    """Whether the record of a directory is still this stack's; so it is taken to be where the directory is away."""
    return not folder.is_dir() or _read(folder).get("id") == record_id


def _read(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _directory(folder: Path) -> dict[str, Any]:
    """Return what tells a directory from every copy of it: where it and its journal's file lie, and their inodes."""
    real = folder.resolve()
    found: dict[str, Any] = {"path": str(real)}
    for name, path in (("folder", real), ("journal", real / JOURNAL)):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found[name] = [status.st_dev, status.st_ino]
    return found
