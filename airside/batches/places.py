"""Where files are: on this machine or in an object store, one, all in a folder, or all that match a pattern.

Whatever `pyarrow.fs.FileSystem.from_uri` knows is a place (`s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`).  A
name that is shown or recorded has no user, password or query of its URI: those are credentials.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from airside.stack.canonical import as_text
from airside.stack.errors import InvalidInput

_KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_MAGIC = re.compile(r"[*?[]")
_REMOTE_MAGIC = re.compile(r"[*[]")
_HIDDEN = (".", "_")
"""How names begin that writers of folders give to what is no data (`_SUCCESS`, `.crc`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file of jobs: how it is opened, and what it is called."""

    shown: str
    """All of its name, without credentials."""

    name: str
    """What rows of it are told apart by: the last part of it, where no other file has the same."""

    kind: str
    is_gzip: bool
    size: int
    """When it was found."""

    opened: Callable[[], Any]
    """Opens it for reading bytes."""

    path: Path | None
    """On this machine; None in an object store."""


def is_uri(given: str) -> bool:
    """Whether text names a place by URI."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", given) is not None


def local_path(given: str | Path) -> Path | None:
    """Return the path that a path or a `file://` URI names; None for any other URI."""
    if isinstance(given, Path) or not is_uri(given):
        try:
            if "\0" in str(given) or not str(given):
                raise InvalidInput(f"{as_text(str(given))!r:.80} is no path")
            return Path(given).expanduser() if str(given).startswith("~") else Path(given)
        except RuntimeError as error:
            raise InvalidInput(f"{as_text(str(given))!r:.80}: {error}") from None
    scheme, _, rest = given.partition("://")
    if scheme.lower() != "file":
        return None
    path = unquote(rest.removeprefix("localhost"))
    if not path.startswith("/"):
        raise InvalidInput(f"{given}: a file URI has an absolute path, as in file:///data/jobs.jsonl")
    return Path(path)


def file_system(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it; raise `InvalidInput` for one that nobody knows."""
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InvalidInput(f"{shown_uri(uri)}: {reason_of(error)}") from None
    return system, path


def shown_uri(uri: str) -> str:
    """Return a URI without what may be a credential."""
    parts = urlsplit(uri)
    return as_text(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def reason_of(error: BaseException) -> str:
    """Return why something could not be read or written, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return as_text(" ".join(said.split()))[:500]


def find_files(given: Iterable[str | Path]) -> list[InputFile]:
    """Return the files that paths, URIs, folders and patterns name, in order; raise `InvalidInput` if none are."""
    found = [file for each in given for file in _found(each)]
    names = [file.name for file in found]
    return [file if names.count(file.name) == 1 else replace(file, name=file.shown) for file in found]


def _found(given: str | Path) -> list[InputFile]:
    if str(given) == "-":
        raise InvalidInput("-: stdin is read alone, not with other inputs")
    path = local_path(given)
    return _remote(str(given)) if path is None else _local(path)


def _local(path: Path) -> list[InputFile]:
    shown = as_text(str(path))
    try:
        if path.is_dir():
            names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(_HIDDEN))
            return _of_one_kind([_local_file(path / name, "") for name in names], shown)
        if not path.exists() and _MAGIC.search(str(path)):
            matches = sorted(glob.glob(str(path), recursive=True))
            paths = [match for match in map(Path, matches) if match.is_file() and not match.name.startswith(_HIDDEN)]
            return _of_one_kind([_local_file(match, "") for match in paths], shown)
        return [_local_file(path, "jsonl")]
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{shown}: {reason_of(error)}") from None


def _local_file(path: Path, otherwise: str) -> InputFile:
    shown = as_text(str(path))
    if path.is_dir():
        raise InvalidInput(f"{shown}: a folder within a folder; name the files, as in {shown}/*.jsonl")
    size = path.stat().st_size
    if not os.access(path, os.R_OK):
        raise InvalidInput(f"{shown}: it may not be read")
    return _file(shown, otherwise, size, lambda: path.open("rb"), path)


def _remote(uri: str) -> list[InputFile]:
    shown = shown_uri(uri)
    place, mark, query = uri.partition("?")
    found = _REMOTE_MAGIC.search(place)
    folder = place[: place.rfind("/", 0, found.start())] if found else place
    system, path = file_system(folder + mark + query)
    try:
        if found:
            pattern = _pattern(unquote(place[len(folder) + 1 :]))
            infos = [
                info for info in _listed(system, path, recursive=True) if pattern(info.path[len(path) :].strip("/"))
            ]
            infos = [info for info in infos if info.is_file]
        else:
            (info,) = system.get_file_info([path])
            if info.type == fs.FileType.NotFound:
                raise InvalidInput(f"{shown}: there is no such file")
            if info.is_file:
                return [_remote_file(system, info, shown, "jsonl")]
            infos = _listed(system, path, recursive=False)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{shown}: {reason_of(error)}") from None
    beneath = shown_uri(folder).rstrip("/")
    seen = [info for info in infos if not info.base_name.startswith(_HIDDEN)]
    named = [(info, f"{beneath}/{info.path[len(path) :].strip('/')}") for info in seen]
    return _of_one_kind([_remote_file(system, info, name, "") for info, name in named], shown)


def _listed(system: Any, path: str, *, recursive: bool) -> list[Any]:
    infos = system.get_file_info(fs.FileSelector(path, recursive=recursive))
    return sorted(infos, key=lambda info: info.path)


def _remote_file(system: Any, info: Any, shown: str, otherwise: str) -> InputFile:
    if not info.is_file:
        raise InvalidInput(f"{shown}: a folder within a folder; name the files, as in {shown}/*.jsonl")
    return _file(shown, otherwise, info.size, lambda: system.open_input_file(info.path), None)


def _file(shown: str, otherwise: str, size: int, opened: Callable[[], Any], path: Path | None) -> InputFile:
    name = shown.rpartition("/")[2]
    is_gzip = name.lower().endswith(".gz")
    ending = os.path.splitext(name.lower().removesuffix(".gz"))[1]
    kind = _KINDS.get(ending, "" if ending else otherwise)
    if not kind:
        raise InvalidInput(
            f"{shown}: jobs are read from {', '.join(_KINDS)} and those with .gz; name the files that are"
        )
    if kind == "parquet" and is_gzip:
        raise InvalidInput(f"{shown}: a Parquet file is compressed within; unpack it")
    return InputFile(shown=shown, name=name, kind=kind, is_gzip=is_gzip, size=size, opened=opened, path=path)


def _of_one_kind(files: list[InputFile], shown: str) -> list[InputFile]:
    kinds = sorted({file.kind for file in files})
    if not files:
        raise InvalidInput(f"{shown}: there are no files of jobs")
    if len(kinds) > 1:
        raise InvalidInput(f"{shown}: files of several kinds ({', '.join(kinds)}); name those of one")
    return files


def _pattern(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a path matches: `*` within one part of it, `**` over any number of parts."""

    def matches(parts: list[str], wanted: list[str]) -> bool:
        if not wanted:
            return not parts
        if wanted[0] == "**":
            return any(matches(parts[at:], wanted[1:]) for at in range(len(parts) + 1))
        return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and matches(parts[1:], wanted[1:])

    return lambda path: matches(path.split("/"), pattern.split("/"))


def bytes_of(file: InputFile, limit: int) -> Iterator[bytes]:
    """Yield the first `limit` bytes of a file, in pieces; raise `InvalidInput` if it cannot be read."""
    try:
        with file.opened() as opened:
            while limit > 0 and (data := opened.read(min(limit, 2**20))):
                limit -= len(data)
                yield data
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{file.shown}: {reason_of(error)}") from None
