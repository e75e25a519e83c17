"""One encoding for what is hashed, approved, granted and executed: canonical, bounded JSON.

Canonical = UTF-8, keys sorted, no spaces, no NaN or infinity, no repeated key.  What passes `parse_bounded` and is
written by `canonical` has one byte string and so one digest, whoever computes it.  JSON from outside comes in through
`parse_bounded` and a caller's own values through `write_bounded`, everywhere: what comes in is what was meant, or it
is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from enum import Enum
from typing import Any

import orjson

from airside.stack.errors import InvalidInput

Json = Any
"""What `json.loads` returns: None, bool, int, float, str, list and dict with str keys."""

MAX_DEPTH = 32
"""Deeper values come from attacks, not from tools; checked when a value enters the stack."""

MAX_NODES = 1_000_000
"""Values in one value; 10 MB of JSON have fewer, unless they are made to have many."""

_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_ALLOWED_CONTROLS = frozenset("\t\n\r")
_NOT_ALLOWED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def canonical(value: Json) -> bytes:
    """Encode canonically; raise `InvalidInput` for what JSON cannot hold."""
    try:
        data = orjson.dumps(value, option=_CANONICAL)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise InvalidInput(f"not a JSON value: {error}") from None
    if b"null" in data:  # which orjson also writes for what is no finite number
        _check_finite(value)
    return data


def _check_finite(value: Json) -> None:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
        elif isinstance(item, Enum):
            left.append(item.value)
        elif isinstance(item, float) and not math.isfinite(item):
            raise InvalidInput(f"not a JSON value: {item} is not a finite number")


def write_bounded(value: Json, *, max_bytes: int, where: str) -> bytes:
    """Encode a caller's value canonically; raise `InvalidInput` for what `parse_bounded` would not give back."""
    check_bounds(value, where=where)
    try:
        data = canonical(value)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.message}") from None
    if len(data) > max_bytes:
        raise InvalidInput(f"{where}: {len(data):,} bytes are over the bound of {max_bytes:,}")
    return data


def digest(data: bytes) -> str:
    """Return the sha256 of canonical bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def check_bounds(value: Json, *, where: str) -> None:
    """Raise `InvalidInput` naming the place of a value too deep, not finite, or with control characters."""
    if not _is_plain(value, 0, [MAX_NODES]):
        _check_each(value, where)


def _is_plain(value: Json, depth: int, room: list[int]) -> bool:
    """Whether a value is certainly within bounds: what nearly every value is, told without noting where things are.

    `room` is how many values there may still be: lists that hold one another twice over are few in memory and 2**depth
    when written out.
    """
    kind = type(value)
    if kind is str:
        return bool(value.isprintable()) or _NOT_ALLOWED.search(value) is None
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind is float:
        return bool(-1.8e308 < value < 1.8e308)
    if kind is bool or value is None:
        return True
    if depth >= MAX_DEPTH or kind not in (dict, list, tuple):
        return False
    room[0] -= len(value)
    if room[0] < 0:
        return False
    if kind is dict:
        for key, inner in value.items():
            if type(key) is not str or not _is_plain(key, depth, room) or not _is_plain(inner, depth + 1, room):
                return False
        return True
    return all(_is_plain(inner, depth + 1, room) for inner in value)


def _check_each(value: Json, where: str) -> None:
    stack: list[tuple[Any, str, int]] = [(value, where, 0)]
    nodes = 0
    while stack:
        item, path, depth = stack.pop()
        nodes += 1
        if nodes > MAX_NODES:
            raise InvalidInput(f"{where}: more than {MAX_NODES:,} values")
        if depth > MAX_DEPTH:
            raise InvalidInput(f"{path[:200]}: nested more than {MAX_DEPTH} deep")
        if isinstance(item, str):
            _check_text(item, path)
        elif isinstance(item, dict):
            for key, inner in dict.items(item):  # its own method, if it has one, is not what is encoded
                if not isinstance(key, str):
                    raise InvalidInput(f"{path}: a key is not text but {type(key).__name__}")
                _check_text(key, path)
                stack.append((inner, f"{path}.{str.__str__(key)[:40]}", depth + 1))
        elif type(item) in (list, tuple):
            stack.extend((inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(item))
        elif type(item) is float and not -1.8e308 < item < 1.8e308:
            raise InvalidInput(f"{path}: {item} is not a finite number")
        elif type(item) is int and not -(2**63) <= item < 2**64:
            raise InvalidInput(f"{path}: a number of {item.bit_length()} bits does not fit into 64 bits")
        elif item is not None and type(item) not in (bool, int, float):
            raise InvalidInput(f"{path}: {type(item).__name__} is not a JSON type")


def _check_text(text: str, path: str) -> None:
    if str.isprintable(text):
        return
    for char in str.__iter__(text):
        if ord(char) < 32 and char not in _ALLOWED_CONTROLS:
            raise InvalidInput(f"{path}: control character U+{ord(char):04X}")
        if 0xD800 <= ord(char) <= 0xDFFF:
            raise InvalidInput(f"{path}: a lone surrogate is not text")


def as_text(said: str) -> str:
    """Return what somebody said as text that can be encoded: what is no Unicode is shown by its escape."""
    return said.encode("utf-8", "backslashreplace").decode("utf-8")


def parse_bounded(data: bytes, *, max_bytes: int, where: str) -> Json:
    """Parse JSON from outside; raise `InvalidInput` for size, depth, NaN, repeated keys or control characters."""
    if len(data) > max_bytes:
        raise InvalidInput(f"{where}: {len(data):,} bytes are over the bound of {max_bytes:,}")
    try:
        # As text: of bytes, `json` would guess UTF-16 and UTF-32 as well.
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constants)
    except RecursionError:
        raise InvalidInput(f"{where}: nested too deep") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{where}: {error}") from None
    check_bounds(value, where=where)
    return value


def parse_own(data: bytes, *, max_bytes: int, where: str) -> Json:
    """Parse JSON another layer encoded: as `parse_bounded`, but faster, and the last of a repeated key wins.

    That is safe where the canonical form of the result is what is hashed and used from here on.
    """
    if len(data) > max_bytes:
        raise InvalidInput(f"{where}: {len(data):,} bytes are over the bound of {max_bytes:,}")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{where}: {error}") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r:.60} is given twice")
    return found


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
