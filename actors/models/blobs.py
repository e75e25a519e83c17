"""Blobs as files of the state directory: encrypted, each under the digest of its bytes, and never changed."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from pathlib import Path

from airside.stack.canonical import digest
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import TenantId
from airside.stack.security.encryption import TenantCipher

BLOBS = "blobs"
"""The folder of a state directory that has them."""

_NAME = re.compile(r"[0-9a-f]{64}")


def path_of_blob(folder: Path, name: str) -> Path:
    """Return where a blob is; raise `InvalidInput` for what is no name of one."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"{name!r:.80} is no name of a blob")
    return folder / name[:2] / name


def blob_problem(folder: Path, name: str) -> str:
    """Return what is wrong with a blob that somebody names, nothing if it is whole; no key is needed for that."""
    try:
        data = path_of_blob(folder, name).read_bytes()
    except InvalidInput as error:
        return error.message
    except OSError as error:
        return f"{name}: {error.strerror or error}"
    return "" if digest(data) == name else f"{name}: its bytes are not those it is named by"


class FileBlobs:
    """The blobs of a state directory."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._cipher = TenantCipher(key)
        self._is_rooted = False

    async def put(self, tenant: TenantId, data: bytes) -> str:
        """Keep data; return its name once it is durable."""
        return await asyncio.to_thread(self._put, tenant, data)

    async def get(self, tenant: TenantId, name: str) -> bytes:
        """Return the data of a name."""
        return await asyncio.to_thread(self.read, tenant, name)

    def read(self, tenant: TenantId, name: str) -> bytes:
        """Return the data of a name, and wait for it."""
        try:
            data = path_of_blob(self._folder, name).read_bytes()
        except FileNotFoundError:
            raise InvalidInput(f"there is no blob {name} in {self._folder}") from None
        except OSError as error:
            raise LayerUnavailable(f"blobs: {error.strerror or error}") from None
        if digest(data) != name:
            raise InvalidInput(f"the blob {name} in {self._folder} is damaged")
        return self._cipher.decrypt(tenant, data)

    def _put(self, tenant: TenantId, data: bytes) -> str:
        encrypted = self._cipher.encrypt(tenant, data)
        name = digest(encrypted)
        path = path_of_blob(self._folder, name)
        try:
            self._root()
            if blob_problem(self._folder, name):  # not there, or what a failing disk left of it
                self._write(path, encrypted)
            for folder in (path.parent, self._folder):
                _sync(folder)
        except OSError as error:
            raise LayerUnavailable(f"blobs: {error.strerror or error}") from None
        return name

    def _root(self) -> None:
        """Make the folder, for its owner alone, and its name durable."""
        if self._is_rooted and self._folder.is_dir():
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        _sync(self._folder.parent)
        self._is_rooted = True

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
