"""Calls that do not fit what is called: said in one way, whatever it is that people call.

`explain_misuse` is for functions and classes; `stack/values.py` and `stack/input/models.py` have it for those that are
made by other libraries.  A call that fits costs one frame more.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, TypeVar

from airside.stack.errors import WrongCall, plain

Called = TypeVar("Called", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

_PLACED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def explain_misuse(what: str = "", *, how: str = "", signature: Signature | None = None) -> Callable[[Called], Called]:
    """Have wrong calls of a function or a class raise `WrongCall`, which says what is wrong and how to write it.

    `what` is what people call it, its own name if empty; `how` a call as it should be, made of its signature if empty.
    With a `signature` calls are held to that one: of a function that takes any name and passes it on.
    """

    def decorate(called: Called) -> Called:
        name = what or called.__name__
        if isinstance(called, type):
            called.__init__ = _wrapped(called.__init__, name, how, signature)  # type: ignore[misc]
            return called
        return _wrapped(called, name, how, signature)  # type: ignore[return-value]

    return decorate


def explain_misuse_of_methods(cls: Class) -> Class:
    """Have wrong calls of every public method of a class raise `WrongCall`, as `explain_misuse` does."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, _wrapped(method, f"{cls.__name__}.{name}", "", None))
    return cls


def explain_absent(**instead: str) -> Callable[[Class], Class]:
    """Have names that a class's values do not have raise an `AttributeError` that says what to write.

    `instead` says it of names that are taken for granted elsewhere (`id="run_id"`); of others it is a name like them.
    A property that raises an `AttributeError` of its own raises that.
    """

    def decorate(cls: Class) -> Class:
        def absent(self: object, name: str) -> Any:
            there = inspect.getattr_static(cls, name, None)
            if isinstance(there, property | functools.cached_property):  # it failed: once more, to say how
                return there.__get__(self, cls)
            meant = [instead[name]] if name in instead else []
            if not meant and not name.startswith("_"):  # whoever copies or draws it asks for many that are
                meant = close_names(name, [each for each in dir(cls) if not each.startswith("_") and each != name])[:1]
            hint = f": write .{meant[0]}" if meant else ""
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}{hint}")

        cls.__getattr__ = absent  # type: ignore[attr-defined]  # set here, so that type checkers see names as they are
        return cls

    return decorate


def _wrapped(function: Callable[..., Any], what: str, how: str, signature: Signature | None) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*args: Any, **named: Any) -> Any:
            try:
                begun = function(*args, **named)
            except TypeError as error:
                raise _wrong(function, what, how, args, named) or error from None
            return await begun

        return later

    @functools.wraps(function)
    def now(*args: Any, **named: Any) -> Any:
        if signature is not None and (wrong := wrong_call(what, signature, args, named, how=how)) is not None:
            raise wrong
        try:
            return function(*args, **named)
        except WrongCall:  # said already: a method may say it in its own way
            raise
        except TypeError:
            wrong = _wrong(function, what, how, args, named)
            if wrong is None:
                raise
            raise wrong from None

    return now


def _wrong(
    function: Callable[..., Any], what: str, how: str, args: Sequence[Any], named: Mapping[str, Any]
) -> WrongCall | None:
    signature = inspect.signature(function)
    own = next(iter(signature.parameters), "") in ("self", "cls")
    return wrong_call(what, signature, args[1:] if own else args, named, how=how)


def wrong_call(
    what: str, signature: Signature, args: Sequence[Any], named: Mapping[str, Any], *, how: str = ""
) -> WrongCall | None:
    """Return what is wrong with a call, None if it fits: names and types, never a value, which may be a secret."""
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    kinds = {p.kind for p in parameters}
    placed = [p.name for p in parameters if p.kind in _PLACED]
    names = [p.name for p in parameters if p.kind in _NAMED]
    over = () if Parameter.VAR_POSITIONAL in kinds else args[len(placed) :]
    unknown = [] if Parameter.VAR_KEYWORD in kinds else [name for name in named if name not in names]
    filled = {*placed[: len(args)], *named}
    near = {name: close for name in unknown for close in close_names(name, [n for n in names if n not in filled])[:1]}
    required = [p.name for p in parameters if p.default is Parameter.empty and p.kind in (*_PLACED, *_NAMED)]
    missing = [name for name in required if name not in filled and name not in near.values()]
    problems = [f"a value of type {_type(value)} has no name: {_bare(placed)}" for value in over[:1]]
    problems += [f"{name} is given twice" for name in placed[: len(args)] if name in named and name in names]
    problems += [
        f"no argument {name!r:.60}" + (f" (do you mean {near[name]}?)" if name in near else "") for name in unknown
    ]
    if missing and not over:
        problems.append(f"{', '.join(missing)}: required, and not given")
    if not problems:
        return None
    parts = dict.fromkeys((*required, *near.values()), "...")
    free = [name for name in names if name not in placed and name not in named]
    parts |= dict.fromkeys(free[: len(over)], "...")
    return WrongCall(wrong_call_text(what, problems, names, how or example_call(what, parts, placed)))


def wrong_call_text(what: str, problems: Iterable[str], names: Iterable[str], how: str) -> str:
    """Return what is wrong with a call, as every such error says it."""
    there = ", ".join(names)
    return f"{what}: {'; '.join(problems)}" + (f"; there are {there}" if there else "") + f": write {how}"


def close_names(name: str, names: Iterable[str], *, alike: float = 0.6) -> list[str]:
    """Return the names that may be meant by one that does not exist, the nearest first; `alike` in [0, 1]."""
    return difflib.get_close_matches(name, list(names), n=2, cutoff=alike)


def _bare(placed: Sequence[str]) -> str:
    return f"only {', '.join(placed)} may stand without" if placed else "give every argument by its name"


def example_call(what: str, given: Mapping[str, str], placed: Sequence[str] = ()) -> str:
    """Return a call as it should be; `placed` are the arguments that may stand without their names."""
    parts = [name if name in placed else f"{name}={value}" for name, value in given.items()]
    return f"{what}({', '.join(parts)})"


def _type(value: object) -> str:
    return plain(type(value).__name__, 40)
