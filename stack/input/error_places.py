"""Where people's code failed: its own function and line, not the line of Airside or of a library it called.

Looking never raises, whatever their objects do.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from airside.stack.errors import plain, text_of

_OURS = "airside"
_APPS = "airside.demo"
"""Apps that ship with Airside are people's code too."""

_INSTALLED = ("site-packages", "dist-packages")


def place_of(error: BaseException, code: object = None) -> str:
    """Return where an error comes from, empty if nobody knows: `file:line in function`, innermost of people's code.

    Where a library raised it, that line comes after it; where no line of theirs was reached (the call itself did not
    fit, or what was returned was wrong) it is where `code`, which was called, begins.
    """
    steps = [(trace.tb_frame, trace.tb_lineno) for trace in _traces(error.__traceback__)]
    foreign = [step for step in steps if not _is_ours(step[0])]
    own = [step for step in foreign if not _is_installed(step[0])] or foreign[:1]
    if own:
        raised = steps[-1]
        through = f"; raised at {_shown(raised)}" if raised is not own[-1] and not _is_ours(raised[0]) else ""
        return _shown(own[-1]) + through
    return definition_place(code) or (_shown(steps[-1]) if steps else "")


def definition_place(code: object) -> str:
    """Return where something that is called is defined, empty if nobody knows."""
    try:
        found = getattr(_inner(code), "__code__", None)
        return "" if found is None else f"{found.co_filename}:{found.co_firstlineno} in {found.co_name}"
    except Exception:
        return ""


def _inner(code: Any) -> Any:
    """Return the function that a call of something runs."""
    while isinstance(code, functools.partial):
        code = code.func
    if not inspect.isroutine(code):
        code = type(code).__call__
    return inspect.unwrap(getattr(code, "__func__", code))


def _traces(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _is_ours(frame: FrameType) -> bool:
    name = _module(frame)
    return (name == _OURS or name.startswith(f"{_OURS}.")) and not (name == _APPS or name.startswith(f"{_APPS}."))


def _is_installed(frame: FrameType) -> bool:
    """Whether it is a library's, of Python or installed."""
    path = frame.f_code.co_filename
    return (
        _module(frame).partition(".")[0] in sys.stdlib_module_names - {"__main__"}
        or path.startswith("<frozen ")
        or any(f"/{folder}/" in path or f"\\{folder}\\" in path for folder in _INSTALLED)
    )


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if type(name) is str else ""


def _shown(step: tuple[FrameType, int]) -> str:
    frame, line = step
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


MAX_ERROR_CHARS = 1_500
"""Of what an agent raised; the place where it did comes after it."""

MAX_PLACE_CHARS = 400


class UserCodeError(RuntimeError):
    """What people's code raised that is no ordinary exception, an exit say: its text is told already."""


def describe_error(error: BaseException, code: object = None) -> str:
    """Return an exception of people's code as text, with the place of theirs; `code` is what was called."""
    if isinstance(error, UserCodeError):
        return plain(error.args[0])
    place = place_of(error, code)
    return text_of(error, MAX_ERROR_CHARS) + (f" ({plain(place, MAX_PLACE_CHARS)})" if place else "")
