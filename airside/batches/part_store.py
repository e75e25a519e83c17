"""Where parts lie: a folder on this machine, or one in an object store.  A name that is there is whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import fs

from airside.batches.places import file_system, local_path, reason_of, shown_uri
from airside.batches.target import sync
from airside.stack.canonical import as_text
from airside.stack.errors import Failed, InvalidInput

TEMPORARY = ".tmp"

_OURS = (".part-", "._manifest.json", "._rejects")
"""How the names begin of what is written here: whatever else lies in the folder is somebody else's."""


class PartStore(Protocol):
    """Files of bytes under names, in one place; what cannot be written raises `Failed`, which says which file."""

    shown: str

    def names(self) -> list[str]:
        """Return the names of what is there whole, in order."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all, and durably."""

    def put_new(self, name: str, data: bytes) -> bool:
        """Write a file as `put` does, unless there is one of this name; return whether it was written."""

    def append(self, name: str, data: bytes) -> str:
        """Add to a file, or write what stands for that; return the name of what was written."""

    def opened(self, name: str) -> Any:
        """Open a file for reading bytes."""


def part_store(place: Path | str, *, makes: bool) -> PartStore:
    """Return the store at a path or URI; `makes` = it is made if it is not there, and cleaned of what was left."""
    path = local_path(place)
    if path is None:
        return RemoteStore(str(place))
    store = LocalStore(path)
    if makes:
        store.make()
    elif not path.is_dir():
        raise InvalidInput(f"{store.shown}: there is no such folder")
    return store


class LocalStore:
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shown = as_text(str(folder))

    def make(self) -> None:
        """Make the folder; remove what a writer that died left half-written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            sync(self._folder.parent)
            for each in self._folder.iterdir():
                if each.name.startswith(_OURS) and each.name.endswith(TEMPORARY):
                    each.unlink(missing_ok=True)
        except OSError as error:
            raise InvalidInput(f"{self.shown}: {reason_of(error)}") from None

    def names(self) -> list[str]:
        """Return the names of what is there whole, in order."""
        try:
            names = sorted(os.listdir(self._folder))
        except OSError as error:
            raise InvalidInput(f"{self.shown}: {reason_of(error)}") from None
        return [name for name in names if _is_whole(name)]

    def put(self, name: str, data: bytes) -> None:
        """Write beside, and rename."""
        self._put(name, data, lambda part: part.replace(self._folder / name))

    def put_new(self, name: str, data: bytes) -> bool:
        """Write beside, and link, which only one of several writers can."""
        try:
            self._put(name, data, lambda part: os.link(part, self._folder / name))
        except FileExistsError:
            return False
        return True

    def _put(self, name: str, data: bytes, publish: Callable[[Path], object]) -> None:
        part = self._folder / f".{name}-{secrets.token_hex(4)}{TEMPORARY}"
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            publish(part)
            sync(self._folder)
        except FileExistsError:
            raise
        except OSError as error:
            raise _not_written(f"{self.shown}/{name}", error) from None
        finally:
            part.unlink(missing_ok=True)

    def append(self, name: str, data: bytes) -> str:
        """Add at the end; what was added in part is taken back."""
        path = self._folder / name
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), size)
                    raise
            sync(self._folder)
        except OSError as error:
            raise _not_written(f"{self.shown}/{name}", error) from None
        return name

    def opened(self, name: str) -> Any:
        """Open a file for reading."""
        return (self._folder / name).open("rb")


class RemoteStore:
    """A folder in an object store, where a file is there when it was closed."""

    def __init__(self, uri: str) -> None:
        self._system, self._path = file_system(uri)
        self.shown = shown_uri(uri)

    def names(self) -> list[str]:
        """Return the names of what is there, in order; none, if there is no folder."""
        try:
            infos = self._system.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(f"{self.shown}: {reason_of(error)}") from None
        return sorted(info.base_name for info in infos if info.is_file and _is_whole(info.base_name))

    def put(self, name: str, data: bytes) -> None:
        """Put it whole, in one write."""
        try:
            self._system.create_dir(self._path, recursive=True)
            with self._system.open_output_stream(f"{self._path}/{name}", compression=None) as file:
                file.write(data)
        except (OSError, pa.ArrowException) as error:
            raise _not_written(f"{self.shown}/{name}", error) from None

    def put_new(self, name: str, data: bytes) -> bool:
        """Put it if it is not there by now; of two who do so at the same moment one is not noticed."""
        if name in self.names():
            return False
        self.put(name, data)
        return True

    def append(self, name: str, data: bytes) -> str:
        """Write a file more: an object takes nothing at its end."""
        stem, _, ending = name.rpartition(".")
        taken = [each for each in self.names() if each.startswith(f"{stem}-") and each.endswith(f".{ending}")]
        last = max(
            (int(number) for each in taken if (number := each[len(stem) + 1 : -len(ending) - 1]).isdigit()), default=0
        )
        more = f"{stem}-{last + 1:06d}.{ending}"
        self.put(more, data)
        return more

    def opened(self, name: str) -> Any:
        """Open a file for reading."""
        return self._system.open_input_file(f"{self._path}/{name}")


def _is_whole(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(TEMPORARY)


def _not_written(shown: str, error: BaseException) -> Failed:
    return Failed(f"{shown}: it cannot be written: {reason_of(error)}")
