"""`workspace_tools`: files of a tenant, in a folder of its own, reached by descriptors alone.

Rules:

1. A path is opened part by part, each relative to the folder before it and never through a link: so it cannot leave
   the tenant's folder, whatever anybody makes of it meanwhile.
2. Files are regular ones with one name. A second name would be a way to what lies elsewhere.
3. A write is one rename. It is intended on disk before, with what was there, under its idempotency key: the same key
   writes once, and can be taken back while the file is still as it was written.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from airside.stack.errors import InvalidConfig
from airside.tools.builtin.texts import as_text
from airside.tools.tool import Tool, ToolContext, ToolError, tool

MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 10_000
MAX_TOTAL_BYTES = 256 * 1024 * 1024
MAX_ENTRIES = 1_000
"""Of a folder, as they are listed."""

_KEPT_WRITES = 1_000
"""Of how many writes of a tenant the keys are kept, with what was there before: a call's attempts are minutes apart."""

_OWN = ".airside"
"""Where keys and what was there before lie, beside the tenants' folders: no tenant may be called so."""

_MAX_PATH = 1_024
_MAX_PARTS = 16
_MAX_PART_BYTES = 255
_MAX_RECORD_BYTES = 16 * 1024
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def parse_path(path: str, *, folder: bool = False) -> tuple[str, ...]:
    """Return the parts of a path within a workspace; raise `ToolError` for one that is not plainly that."""
    if folder and path in ("", "."):
        return ()
    name = unicodedata.normalize("NFC", path)
    parts = name.removesuffix("/").split("/") if folder else name.split("/")
    if len(name) > _MAX_PATH or len(parts) > _MAX_PARTS:
        raise ToolError(f"path: at most {_MAX_PATH:,} characters in {_MAX_PARTS} parts")
    for part in parts:
        if part.strip() in ("", ".", "..") or part.strip() != part or "\\" in part or not part.isprintable():
            raise ToolError(f"path {path!a:.200}: give a path within the workspace, as 'reports/july.md'")
        if len(part.encode()) > _MAX_PART_BYTES:
            raise ToolError(f"path {path!a:.200}: a part of it has more than {_MAX_PART_BYTES} bytes")
    return tuple(parts)


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_folder(name: str, parent: int, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)


def _open_file(name: str, folder: int) -> int:
    """Open a regular file of one name, or raise `OSError`, or `ToolError` for another kind of thing."""
    descriptor = os.open(name, _FILE, dir_fd=folder)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise ToolError(f"{name!a:.200} is no regular file of one name")
    return descriptor


def _read_whole(name: str, folder: int, max_bytes: int) -> bytes | None:
    """Return a file's bytes, None if it is not there."""
    try:
        descriptor = _open_file(name, folder)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ToolError(f"{name!a:.200} has more than {max_bytes:,} bytes")
    return data


def _write_whole(name: str, folder: int, data: bytes) -> None:
    with open(os.open(name, _NEW, 0o600, dir_fd=folder), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Write:
    """A write as it is intended on disk: where, what it writes (by its digest and `_stamp`), what is answered."""

    path: str
    digest: str
    replaces: bool
    output: dict[str, Any]
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of tenants below `root`, and how large one may be; its methods are tools."""

    root: str
    max_file_bytes: int
    max_files: int
    max_total_bytes: int

    @contextmanager
    def _folder(self, context: ToolContext, parts: Iterable[str], *, make: bool = False) -> Iterator[int]:
        """Open a folder within the tenant's; what the system says against it is a `ToolError`."""
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(_opened(os.open(self.root, _ROOT)))
                folder = stack.enter_context(_opened(_open_folder(str(context.tenant), folder, make=True)))
                for part in parts:
                    folder = stack.enter_context(_opened(_open_folder(part, folder, make=make)))
            except OSError as error:
                raise ToolError(f"no such folder in the workspace: {_said(error)}") from None
            yield folder

    @contextmanager
    def _records(self, context: ToolContext) -> Iterator[int]:
        """Open the tenant's records of writes; whoever has them is the only one that writes."""
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(_opened(os.open(self.root, _ROOT)))
                for part in (_OWN, str(context.tenant)):
                    folder = stack.enter_context(_opened(_open_folder(part, folder, make=True)))
                lock = stack.enter_context(_opened(os.open("lock", _NEW, 0o600, dir_fd=folder)))
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if context.attempt > 1:
                    raise  # what became of the attempt before cannot be seen
                raise ToolError(f"the workspace cannot be written: {_said(error)}") from None
            yield folder

    def read_file(
        self, context: ToolContext, path: str, offset: Annotated[int, Field(ge=0, le=2**53)] = 0
    ) -> dict[str, Any]:
        """Read a file of the workspace, from `offset` on in bytes; of a longer one go on at `next_offset`."""
        *folders, name = parse_path(path)
        with self._folder(context, folders) as folder:
            try:
                with open(_open_file(name, folder), "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    file.seek(offset)
                    data = file.read(self.max_file_bytes)
            except OSError as error:
                raise ToolError(f"{path!a:.200}: {_said(error)}") from None
        cut = offset + len(data) < size
        text, taken = as_text(data, "utf-8", cut=cut)
        result: dict[str, Any] = {"path": path, "bytes": size}
        result |= {"base64": base64.b64encode(data).decode()} if text is None else {"text": text}
        return {**result, "next_offset": offset + taken} if cut else result

    def list_files(self, context: ToolContext, path: str = "") -> dict[str, Any]:
        """List a folder of the workspace: its files, with their sizes, and its folders."""
        with self._folder(context, parse_path(path, folder=True)) as folder, os.scandir(folder) as entries:
            found = [
                {"name": entry.name, "bytes": entry.stat(follow_symlinks=False).st_size}
                if entry.is_file(follow_symlinks=False)
                else {"name": entry.name + "/"}
                for entry in islice(entries, self.max_files)
                if entry.name.isprintable() and not entry.is_symlink()
                if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
            ]
        found.sort(key=lambda each: str(each["name"]))
        return {"path": path, "entries": found[:MAX_ENTRIES], "truncated": len(found) > MAX_ENTRIES}

    def write_file(self, context: ToolContext, path: str, text: str, overwrite: bool = False) -> dict[str, Any]:
        """Write a whole file of the workspace; with `overwrite` also one that is there."""
        *folders, name = parse_path(path)
        data = text.encode()
        if len(data) > self.max_file_bytes:
            raise ToolError(f"text: {len(data):,} bytes are more than a file may have: {self.max_file_bytes:,}")
        key = _record_of(context)
        with self._records(context) as records:
            known = _intended(key, records)
            if known is not None and not _exists(f"{key}.new", records):
                return known.output
            with self._folder(context, ()) as home:
                self._check_room(home, len(data))
            with self._folder(context, folders, make=True) as folder:
                try:
                    before = _read_whole(name, folder, self.max_file_bytes)
                    if before is not None and not overwrite:
                        raise ToolError(f"{path!a:.200} is there already: say overwrite=true, or take another name")
                    output = {"path": path, "bytes": len(data), "replaced": before is not None}
                    write = _Write(path=path, digest=_digest(data), replaces=before is not None, output=output)
                    _intend(key, records, write, data, before)
                    os.rename(f"{key}.new", name, src_dir_fd=records, dst_dir_fd=folder)
                except (
                    OSError
                ) as error:  # before the rename, which is the last that can fail and changes all or nothing
                    raise ToolError(f"{path!a:.200}: {_said(error)}") from None
                os.fsync(folder)
            _prune(records, self.max_total_bytes // 2)
            return output

    def undo_write(self, context: ToolContext, arguments: dict[str, Any], output: Any) -> None:
        """Put back what was there before a write, if the file is still as it was written."""
        key = _record_of(context)
        with self._records(context) as records:
            known = _intended(key, records)
            if known is None or _exists(f"{key}.new", records):
                raise ToolError("it was not written, or too long ago to be taken back")
            if known.replaces and not _exists(f"{key}.old", records):
                return  # an earlier attempt put it back
            *folders, name = parse_path(known.path)
            with self._folder(context, folders) as folder:
                now = _read_whole(name, folder, self.max_file_bytes)
                if now is None and not known.replaces:
                    return
                if now is None or _digest(now) != known.digest or _stamp(name, folder) != known.stamp:
                    raise ToolError(f"{known.path!a:.200} was changed since, and is left as it is")
                if known.replaces:
                    os.rename(f"{key}.old", name, src_dir_fd=records, dst_dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)
                os.fsync(folder)

    def _check_room(self, home: int, more: int) -> None:
        files, size = 1, more
        for _, folders, names, descriptor in os.fwalk(".", dir_fd=home, follow_symlinks=False):
            files += len(folders) + len(names)
            size += sum(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size for name in names)
            if files > self.max_files:
                raise ToolError(f"the workspace has its {self.max_files:,} files and folders")
        if size > self.max_total_bytes:
            raise ToolError(f"the workspace would have more than its {self.max_total_bytes:,} bytes")


def _record_of(context: ToolContext) -> str:
    return hashlib.sha256(context.original_key.encode()).hexdigest()[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _said(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _stamp(name: str, folder: int) -> str:
    """Return what tells a file from another of the same content: a rename keeps it."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return f"{status.st_ino} {status.st_mtime_ns}"


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _intended(key: str, records: int) -> _Write | None:
    data = _read_whole(f"{key}.json", records, _MAX_RECORD_BYTES)
    return None if data is None else _Write(**json.loads(data))


def _intend(key: str, records: int, write: _Write, data: bytes, before: bytes | None) -> None:
    """Put down what is to be written and what is there; `.new` is gone as soon as it was renamed, and no sooner."""
    if before is not None:
        _write_whole(f"{key}.old", records, before)
    _write_whole(f"{key}.new", records, data)
    write = replace(write, stamp=_stamp(f"{key}.new", records))
    _write_whole(f"{key}.tmp", records, json.dumps(asdict(write)).encode())
    os.rename(f"{key}.tmp", f"{key}.json", src_dir_fd=records, dst_dir_fd=records)
    os.fsync(records)


def _prune(records: int, max_bytes: int) -> None:
    """Forget the oldest writes, beyond so many and so large."""
    with os.scandir(records) as entries:
        found = [(entry.stat(follow_symlinks=False), entry.name) for entry in entries if entry.name != "lock"]
    ages: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for status, name in found:
        key = name.partition(".")[0]
        ages[key] = max(ages.get(key, 0), status.st_mtime_ns)
        sizes[key] = sizes.get(key, 0) + status.st_size
    kept = size = 0
    for key in sorted(ages, key=lambda each: ages[each], reverse=True):
        kept, size = kept + 1, size + sizes[key]
        if kept > _KEPT_WRITES or size > max_bytes:
            for ending in ("json", "new", "old", "tmp"):
                _remove(f"{key}.{ending}", records)


def workspace_tools(
    root: str | Path,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_files: int = MAX_FILES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
    scopes: Iterable[str] = (),
) -> list[Tool]:
    """Make `read_file`, `write_file` and `list_files` of files below `root`, where each tenant has a folder.

    `root` is a folder of every machine on which tools run, which all of them share.  A read returns at most
    `max_file_bytes`; a tenant has at most `max_files` files and folders, of `max_total_bytes` together.
    """
    if not Path(root).is_absolute():
        raise InvalidConfig(f"workspace_tools: root {str(root)!r:.200} is no absolute path")
    if not (0 < max_file_bytes <= MAX_FILE_BYTES and 2 * max_file_bytes <= max_total_bytes and max_files > 0):
        text = f"max_file_bytes is up to {MAX_FILE_BYTES:,}, max_total_bytes twice that at least, max_files 1 or more"
        raise InvalidConfig(f"workspace_tools: {text}")
    workspace = Workspace(str(root), max_file_bytes, max_files, max_total_bytes)
    scopes = tuple(scopes)
    # A byte of text is two of JSON at most, and there is the path.
    read = tool(effect="read", scopes=scopes, max_output_bytes=2 * max_file_bytes + 16 * 1024)(workspace.read_file)
    write = tool(
        effect="write",
        idempotent=True,
        undo=workspace.undo_write,
        content=("text",),
        scopes=scopes,
        max_argument_bytes=2 * max_file_bytes + 16 * 1024,
    )(workspace.write_file)
    return [read, write, tool(effect="read", scopes=scopes)(workspace.list_files)]
