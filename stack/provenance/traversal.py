"""The values of a call's arguments one by one, each with its path and whether its tool declares it as content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airside.stack.schema.paths import EVERY, Every, Parts
from airside.stack.schema.toolspec import Place
from airside.stack.values import Part

Json = Any
Path = tuple[str, ...]


def walk_values(
    value: Json, path: Path, place: Place, patterns: list[Parts] | None
) -> Iterator[tuple[Path, Json, Part]]:
    """Yield the values without parts of their own, and the keys no schema names; `patterns` is None within content."""
    part: Part = "content" if patterns is None else "authority"
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            below = _below(patterns, key)
            if not place.is_named(key) and (patterns is None or below == []):
                yield (*path, key), key, part
            yield from walk_values(inner, (*path, key), place.key(key), below)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from walk_values(inner, (*path, str(index)), place.item(), _below(patterns, EVERY))
    else:
        yield path, value, part


def _below(patterns: list[Parts] | None, part: str | Every) -> list[Parts] | None:
    """Return what is left of the patterns one level down; None once one of them is used up."""
    if patterns is None:
        return None
    left = [pattern[1:] for pattern in patterns if pattern[0] == part]
    return None if () in left else left
