"""Whether an app's code can be sent to the processes that run it, said before any of them is started."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterable
from typing import Any

from ray import cloudpickle
from ray.util import inspect_serializability

from airside.stack.errors import InvalidConfig, text_of

_DEPTH = 6
"""How far a variable is followed through functions and objects to the one that cannot be pickled."""


def check_picklable(parts: Iterable[tuple[str, Any]]) -> None:
    """Raise `InvalidConfig` naming the part (`agent planner`) that cannot be pickled, and the variable it is for."""
    for name, part in parts:
        try:
            cloudpickle.dumps(part)
        except Exception as error:
            held = _held_by(part)
            why = f"{held}, which cannot be pickled" if held else text_of(error, 300)
            raise InvalidConfig(
                f"{name} cannot be sent to the process that runs it: it holds {why}. "
                "Make that inside the function, or in a Toolset's open"
            ) from None


def _held_by(part: Any) -> str:
    """Return the path of the variable that cannot be pickled, and its type; "" if it is not found."""
    owner = part.__self__ if inspect.ismethod(part) else part
    # Of an object its variables are looked at, for every bound method of it would be a failure too.
    named = {"": owner} if inspect.isfunction(owner) else dict(getattr(owner, "__dict__", {}))
    for name, value in named.items():
        _, failures = inspect_serializability(value, name=name, depth=_DEPTH, print_file=io.StringIO())
        for failure in sorted(failures, key=lambda failure: failure.path):
            path = ".".join(str(step) for step in failure.path if step)
            if path and not inspect.ismethod(failure.obj):
                return f"{path} ({type(failure.obj).__name__})"
    return ""
