"""Where the results of a batch go: a folder or a URI of parts, or a file that is made of them at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from airside.batches.assembly import assemble
from airside.batches.places import is_uri, local_path, reason_of, shown_uri
from airside.batches.target import ENDINGS, Target
from airside.stack.canonical import as_text
from airside.stack.errors import Failed, InvalidInput

PARTS = ".batch"
"""What the folder of a file's parts ends with, beside the file."""


_PROBE_BYTES = 64 * 2**10
"""A manifest and a small part have room in that."""


@dataclass(frozen=True, slots=True)
class Output:
    """The place of the parts, and the file that is made of them, if one is asked for."""

    place: Path | str
    file: Path | None
    inputs: tuple[Path, ...] = ()

    @classmethod
    def of(cls, out: Path | str, inputs: Iterable[Path] = ()) -> Output:
        """Return an output; raise `InvalidInput` for one that cannot be written, before the first job runs."""
        if isinstance(out, str) and is_uri(out) and local_path(out) is None:
            return cls(out, None)
        path = local_path(out)
        assert path is not None
        if path.is_dir():
            return cls(path, None)
        if path.suffix.lower() not in ENDINGS and not path.resolve().exists():
            if path.suffix and not str(out).endswith(("/", path.name + "/")):
                raise InvalidInput(
                    f"--out {out}: results are written as what the name ends with ({', '.join(ENDINGS)}), or to a "
                    "folder: one with a dot in its name is made before, or named with a / at its end"
                )
            return cls(path, None)
        given = tuple(inputs)
        with Target.opened(path, given):
            pass
        return cls(path.with_name(path.name + PARTS), path, given)

    @property
    def shown(self) -> str:
        """What it is called where people read it."""
        if self.file is not None:
            return str(self.file)
        return shown_uri(self.place) if isinstance(self.place, str) else str(self.place)

    @property
    def whole(self) -> str:
        """What it is called wherever one stands."""
        return self.shown if isinstance(self.place, str) else as_text(str((self.file or self.place).resolve()))

    def check_room(self) -> None:
        """Raise `Failed` where nothing can be written now, as on a full disk, of what is on this machine.

        It writes a little where the parts lie, or will; nothing of that stays.
        """
        path = local_path(self.place)
        if path is None:
            return
        folder = next(each for each in (path.resolve(), *path.resolve().parents) if each.is_dir())
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Failed(f"{self.shown}: it cannot be written: {reason_of(error)}") from None

    def assemble(self) -> None:
        """Make the file of what parts there are, if one is asked for."""
        if self.file is not None:
            assemble(self.place, self.file, self.inputs)
