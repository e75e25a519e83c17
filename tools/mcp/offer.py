"""`ServerOffer`: all that a tool server says of itself and its tools, as one value with one digest.

One digest for all: a tool that is renamed, or one that is new, changes no other tool's own.  What of it is shown to
people is escaped, for whoever runs the server wrote it, and what cannot be seen is there to be read by models alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from airside.stack.canonical import canonical, check_bounds, digest
from airside.stack.errors import InvalidInput
from airside.stack.run.story import printable
from airside.stack.values import Value

MAX_TOOLS = 512
MAX_OFFER_BYTES = 4 * 1024 * 1024
"""Of all tools together.  The largest servers known have some 100 tools and 300 kB; models are shown all of it."""

_OF_SERVER = ("launch", "identity", "instructions")
_PINNED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "icons", "execution")


class ServerOffer(Value):
    """What a server said: who it is, its instructions to models, and its tools by name.

    `launch` is the command or URL by which it was reached.  Tools are as they were listed, but for `_meta`, which is
    addressed to programs and may differ each time.
    """

    launch: dict[str, Any]
    identity: dict[str, Any]
    instructions: str
    tools: tuple[dict[str, Any], ...]

    @classmethod
    def of(
        cls, launch: dict[str, Any], identity: dict[str, Any], instructions: str, tools: list[dict[str, Any]]
    ) -> ServerOffer:
        """Make it of what was listed; raise `InvalidInput` for what is over its bounds, no JSON, or named twice."""
        if len(tools) > MAX_TOOLS:
            raise InvalidInput(f"it offers more than {MAX_TOOLS} tools")
        kept = [{key: tool[key] for key in _PINNED if tool.get(key) is not None} for tool in tools]
        names = [tool["name"] for tool in kept]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput(f"it offers two tools of the name {twice[0]!r:.80}")
        made = cls(
            launch=launch,
            identity=identity,
            instructions=instructions,
            tools=tuple(sorted(kept, key=lambda tool: str(tool["name"]))),
        )
        if size_of(msgspec.to_builtins(made)) > MAX_OFFER_BYTES:
            raise too_large()
        return made

    @property
    def digest(self) -> str:
        """The sha256 of all of it."""
        return digest(canonical(msgspec.to_builtins(self)))

    def differences(self, now: ServerOffer) -> list[str]:
        """Return what is otherwise `now`, as lines that people can read; empty if nothing is."""
        return list(self._differences(now))

    def summary(self, now: ServerOffer) -> str:
        """Return in one line what is otherwise `now`: which tools came, went or changed, and what else."""
        before, after = _by_name(self), _by_name(now)
        changed = [name for name in before if name in after and not _same(before[name], after[name])]
        parts = [
            *(f"{name} is gone" for name in before if name not in after),
            *(f"{name} is new" for name in after if name not in before),
            *(f"{name} changed ({', '.join(_changed_fields(before[name], after[name]))})" for name in changed),
            *(each for each in _OF_SERVER if not _same(getattr(self, each), getattr(now, each))),
        ]
        return printable("; ".join(parts[:8]) + (f"; {len(parts) - 8} more" if len(parts) > 8 else ""))[:1_000]

    def _differences(self, now: ServerOffer) -> Iterator[str]:
        for each in _OF_SERVER:
            yield from _changed(each, getattr(self, each), getattr(now, each))
        before, after = _by_name(self), _by_name(now)
        for name in sorted(before.keys() | after.keys()):
            shown = printable(f"tool {name}")
            if name not in after:
                yield f"{shown}: is gone"
            elif name not in before:
                yield f"{shown}: is new"
                for field, value in after[name].items():
                    yield from (f"  + {field}: {line}" for line in _lines(value))
            else:
                for field in _changed_fields(before[name], after[name]):
                    yield from _changed(f"{shown}: {field}", before[name].get(field), after[name].get(field))


def size_of(said: Any) -> int:
    """Return how many bytes something a server said takes; raise `InvalidInput` for what is over its bounds."""
    check_bounds(said, where="its tools")
    return len(canonical(said))


def too_large() -> InvalidInput:
    """Return the error of an offer that is over its bound."""
    return InvalidInput(f"what it says of its tools is over the bound of {MAX_OFFER_BYTES:,} bytes")


def _by_name(offer: ServerOffer) -> dict[str, dict[str, Any]]:
    return {tool["name"]: tool for tool in offer.tools}


def _changed_fields(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [field for field in _PINNED if not _same(before.get(field), after.get(field))]


def _same(before: Any, after: Any) -> bool:
    """Whether two values are one in JSON, where 1 is neither 1.0 nor true."""
    return canonical(before) == canonical(after)


def _changed(what: str, before: Any, after: Any) -> Iterator[str]:
    if _same(before, after):
        return
    yield f"{what} changed"
    found = list(difflib.unified_diff(_lines(before), _lines(after), n=0, lineterm=""))[2:]
    lines = [f"{line[0]} {line[1:]}" for line in found if not line.startswith("@@")]
    yield from ("  " + line for line in lines or ["? in spaces alone, or in what is no text"])


def _lines(value: Any) -> list[str]:
    """Return a value as lines on which nothing is hidden."""
    if value is None:
        return []
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    text = value if isinstance(value, str) else orjson.dumps(value, option=option).decode()
    return [_escaped(line) for line in text.split("\n")]


def _escaped(line: str) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return " " * indent + printable(line)
