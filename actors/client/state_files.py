"""Small files of a state directory, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from airside.stack.errors import Failed


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place, and put it there; raise `Failed` saying which cannot be written, and what to do.

    What was there before stays then: an error of a write itself does not say of which file it is.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        full = f"the disk of {path.parent} is full: make room, and start again. " if error.errno == errno.ENOSPC else ""
        raise Failed(f"{full}{path}: it cannot be written: {error.strerror or error}") from None
