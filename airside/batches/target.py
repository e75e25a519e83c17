"""Where a whole file of results goes: beside the one that is asked for, which it replaces when it is whole."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from airside.stack.errors import InvalidInput

PARQUET = ".parquet"
ENDINGS = (PARQUET, ".csv", ".jsonl")
"""How results can be written, by the end of the file's name; Parquet, if it has none."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file that is written, and the one it replaces."""

    path: Path
    part: Path
    """What is written to; it is gone if `replace` was not called."""

    ending: str

    @classmethod
    @contextlib.contextmanager
    def opened(cls, out: Path, inputs: Iterable[Path] = ()) -> Iterator[Target]:
        """Yield a target that can be written, known before the first job runs; raise `InvalidInput` otherwise.

        Only a regular file is replaced: a device, a pipe or a folder is not, and none of the inputs is.
        """
        path = out.resolve()
        ending = (out.suffix or path.suffix).lower() or PARQUET
        if ending not in ENDINGS:
            raise InvalidInput(f"--out {out}: results are written as what the name ends with: {', '.join(ENDINGS)}")
        try:
            if path.exists():
                _check_replaceable(out, path, inputs)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
        except OSError as error:
            raise InvalidInput(f"--out {out}: {error.strerror}") from None
        os.close(handle)
        part = Path(name)
        try:
            yield cls(path, part, ending)
        finally:
            part.unlink(missing_ok=True)

    def replace(self) -> None:
        """Put what was written in the place of what was there, with its mode; durable when this returns."""
        mask = os.umask(0)
        os.umask(mask)
        self.part.chmod(stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0o666 & ~mask)
        sync(self.part)
        self.part.replace(self.path)
        sync(self.path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_replaceable(out: Path, path: Path, inputs: Iterable[Path]) -> None:
    if path.is_dir():
        raise InvalidInput(f"--out {out}: that is a folder")
    if not path.is_file():
        raise InvalidInput(f"--out {out}: that is no regular file, and is not replaced")
    if not os.access(path, os.W_OK):
        raise InvalidInput(f"--out {out}: it may not be written")
    if any(each.exists() and path.samefile(each) for each in inputs):
        raise InvalidInput(f"--out {out}: that is the jobs file")
