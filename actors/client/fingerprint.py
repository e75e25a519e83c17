"""Whether an app's code is still what a stack was started with: what a cell that is run again changes.

A stack runs the agents and tools it was given.  A name that is defined anew in the notebook, and a global that is set
anew, are another program, which the stack does not have; `Drift` says so, by comparing fingerprints.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

from airside.actors.app import App
from airside.stack.run.agents import FunctionAgent
from airside.tools.resolving import Resolver
from airside.tools.tool import Tool, flatten

_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_PLAIN = (str, bytes, int, float, complex, bool, type(None))
_MAX_ITEMS = 1_000
"""Values of one collection that are compared; of a larger one only that it is the same object."""


class Drift:
    """Compares what an app's names mean now with what they meant when its stack was started."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._started = dict(_fingerprints(app))

    def changed(self) -> dict[str, str]:
        """Return the agents, tools and resolvers (`agent clerk`) that are defined otherwise now, each with how."""
        return {name: found for name, found in _fingerprints(self._app) if found != self._started.get(name)}


def _fingerprints(app: App) -> Iterator[tuple[str, str]]:
    tools, toolsets = flatten(app.tools)
    for name, agent in app.agents.items():
        yield f"agent {name}", _digest(agent.function if isinstance(agent, FunctionAgent) else agent)
    for name, tool in tools.items():
        yield f"tool {name}", _digest(tool)
    for name, toolset in toolsets.items():
        yield f"toolset {name}", _digest((toolset.open, toolset.close))
    for kind, resolver in app.resolvers.items():
        yield f"resolver of {kind}", _digest(resolver.function if isinstance(resolver, Resolver) else resolver)


def _digest(part: Any) -> str:
    return hashlib.sha256("\n".join(_parts(_as_of_now(part), {})).encode(errors="replace")).hexdigest()


def _as_of_now(part: Any) -> Any:
    """Return what stands under a function's, tool's or class's name in its module now; itself if nothing does."""
    if isinstance(part, types.FunctionType):
        found = _named(part.__module__, part.__qualname__)
        inner = found.function if isinstance(found, Tool) else found
        return inner if isinstance(inner, types.FunctionType) else part
    if isinstance(part, Tool):
        function = _as_of_now(part.function)
        found = _named(getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
        return found if isinstance(found, Tool) and found.function is function else part
    return part


def _named(module: str, qualified_name: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualified_name.split("."):
        found = getattr(found, name, None)
    return found


def _parts(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    """Yield texts that differ where what the value does differs, as far as that can be told without running it.

    `seen` holds what was looked at, so that no later object has the id of one that is gone.
    """
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
        return
    if id(value) in seen:
        yield "again"
        return
    seen[id(value)] = value
    if isinstance(value, types.FunctionType):
        yield from _of_function(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _parts(value.__func__, seen)
        yield from _parts(value.__self__, seen)
    elif isinstance(value, functools.partial):
        yield from _parts((value.func, value.args, value.keywords), seen)
    elif isinstance(value, Tool):
        yield value.spec.version
        yield from _parts((value.function, value.reconcile, value.undo), seen)
    elif isinstance(value, types.CodeType):
        yield from _of_code(value, seen)
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(value, list | tuple | set | frozenset | dict):
        yield from _of_collection(value, seen)
    elif isinstance(value, type):
        yield from _of_class(value, seen)
    elif _is_own(sys.modules.get(type(value).__module__)):
        # An agent's or a setting's object: what it is made of, and what its class does now.
        now = _named(type(value).__module__, type(value).__qualname__)
        yield from _of_class(now if isinstance(now, type) else type(value), seen)
        yield from _parts(getattr(value, "__dict__", {}), seen)
    else:
        yield f"{type(value).__qualname__} {id(value)}"


def _of_function(function: types.FunctionType, seen: dict[int, Any]) -> Iterator[str]:
    if function.__code__.co_filename.startswith(_LIBRARIES):
        yield f"{function.__module__}.{function.__qualname__}"
        return
    yield from _parts(function.__code__, seen)
    yield from _parts((function.__defaults__, function.__kwdefaults__), seen)
    for cell in function.__closure__ or ():
        try:
            yield from _parts(cell.cell_contents, seen)
        except ValueError:  # not assigned yet
            yield "empty"
    for name in sorted(_globals_in(function.__code__)):
        if name in function.__globals__:
            yield name
            yield from _parts(_as_of_now(function.__globals__[name]), seen)


def _of_code(code: types.CodeType, seen: dict[int, Any]) -> Iterator[str]:
    yield f"code {code.co_code.hex()} {code.co_names} {code.co_varnames}"
    yield from _parts(code.co_consts, seen)


@functools.lru_cache(maxsize=1_000)
def _globals_in(code: types.CodeType) -> frozenset[str]:
    """Return the names a code reads as globals; attributes and what it imports are among `co_names` too."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return frozenset(found).union(*(_globals_in(each) for each in inner))


def _of_collection(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    yield f"{type(value).__name__} {len(value)}"
    if len(value) > _MAX_ITEMS:
        yield str(id(value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _parts(key, seen)
            yield from _parts(inner, seen)
    elif isinstance(value, set | frozenset):
        yield from sorted("\n".join(_parts(inner, seen)) for inner in value)
    else:
        for inner in value:
            yield from _parts(inner, seen)


def _of_class(kind: type, seen: dict[int, Any]) -> Iterator[str]:
    yield f"class {kind.__module__}.{kind.__qualname__}"
    if _is_own(sys.modules.get(kind.__module__)):
        for name, member in sorted(vars(kind).items()):
            if isinstance(member, types.FunctionType | classmethod | staticmethod | property | int | float | str):
                yield name
                yield from _parts(getattr(member, "__func__", getattr(member, "fget", member)), seen)
        for base in kind.__bases__:
            yield from _of_class(base, seen)


def _is_own(module: types.ModuleType | None) -> bool:
    """Whether a module is the user's: the notebook, or a file that is no library's."""
    file = getattr(module, "__file__", None)
    return module is not None and (
        module.__name__ == "__main__" or (file is not None and not str(file).startswith(_LIBRARIES))
    )
