"""Lines of bytes that come in chunks: unpacked, read on as a file grows, and none longer than is kept of it.

Each step is an iterator over the one before: `chunks_of` or `growing_chunks`, `unpacked`, `lines_of`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from airside.actors.jobs import MAX_LINE_BYTES
from airside.batches.rows import MAX_ORIGINAL_BYTES
from airside.stack.errors import InvalidInput

BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

_CHUNK_BYTES = 128 * 2**10
_GZIP = 31
"""`wbits` of zlib for a gzip member with its header and checksum."""


class Line(NamedTuple):
    """A line with its end, as it was read; of one that is too long `data` is the beginning."""

    number: int
    """From 1."""

    data: bytes
    is_too_long: bool = False


@dataclass(frozen=True, slots=True)
class Following:
    """How long a file that grows is waited for, and by which clock."""

    follow_s: float
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    poll_s: float = 0.2


def chunks_of(file: Any) -> Iterator[bytes]:
    """Yield what a binary file has; of a pipe what there is, as soon as there is any."""
    read = getattr(file, "read1", file.read)
    while chunk := read(_CHUNK_BYTES):
        yield chunk


def growing_chunks(file: Any, size: Callable[[], int], following: Following) -> Iterator[bytes]:
    """Yield what a file has and what is written to it, until nothing has come for `follow_s`.

    Raises `InvalidInput` if the file gets shorter (`size` says how long it is): what was read is no longer there.
    """
    read = 0
    last = following.clock()
    while True:
        for chunk in chunks_of(file):
            read += len(chunk)
            last = following.clock()
            yield chunk
        left = following.follow_s - (following.clock() - last)
        if size() < read:
            raise InvalidInput(f"it was cut to {size():,} bytes after {read:,} had been read")
        if left <= 0:
            return
        following.pause(min(following.poll_s, left))


def unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what gzip members hold; raise `InvalidInput` at what is cut or damaged, after what could be read."""
    member = zlib.decompressobj(_GZIP)
    is_begun = False
    given = 0
    for chunk in chunks:
        data = chunk
        while data:
            if member.eof or not is_begun:
                data = data.lstrip(b"\0") if member.eof else data  # what some writers fill a block up with
                if not data:
                    break
                member, is_begun = zlib.decompressobj(_GZIP), True
            try:
                plain = member.decompress(data, _CHUNK_BYTES)
            except zlib.error as error:
                raise InvalidInput(f"its gzip data is damaged after {given:,} unpacked bytes ({error})") from None
            data = member.unused_data if member.eof else member.unconsumed_tail
            if plain:
                given += len(plain)
                yield plain
        # `data` is used up here; zlib itself may still hold what a full output left no room for
        while not member.eof and is_begun and (plain := member.decompress(b"", _CHUNK_BYTES)):
            given += len(plain)
            yield plain
    if is_begun and not member.eof:
        raise InvalidInput(f"its gzip data is cut after {given:,} unpacked bytes")


def lines_of(chunks: Iterator[bytes]) -> Iterator[Line]:
    """Yield lines with their ends, the last one with or without; a BOM at the beginning is no part of one.

    Of a line over `MAX_LINE_BYTES` no more than `MAX_ORIGINAL_BYTES` are kept.  Where the chunks break off with an
    error, every line that is whole was given before, and the error says after which.
    """
    number = 0
    pending = b""
    skipping = False
    is_first = True
    try:
        for chunk in chunks:
            if is_first:
                pending += chunk
                if len(pending) < len(BOM) and BOM.startswith(pending):
                    continue
                chunk, pending, is_first = pending.removeprefix(BOM), b"", False
                if chunk.startswith(_UTF16):
                    raise InvalidInput("it is UTF-16: write it as UTF-8")
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                number += 1
                line = pending + part + b"\n"
                yield Line(number, *((pending, True) if skipping else _bounded(line)))
                pending, skipping = b"", False
            if not skipping:
                pending += rest
                if len(pending) > MAX_LINE_BYTES + 2:
                    pending, skipping = pending[:MAX_ORIGINAL_BYTES], True
        if pending:
            number += 1
            yield Line(number, *((pending, True) if skipping else _bounded(pending)))
    except InvalidInput as error:
        raise InvalidInput(f"after line {number}: {error.message}") from None


def _bounded(line: bytes) -> tuple[bytes, bool]:
    if len(line) > MAX_LINE_BYTES + 2 or len(line.rstrip(b"\r\n")) > MAX_LINE_BYTES:
        return line[:MAX_ORIGINAL_BYTES], True
    return line, False
