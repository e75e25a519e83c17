"""What models refuse, in the words of whoever wrote it: what is needed there, of what kind what is there is, and how to
write it.

Never what is there itself, which may be a key or a person's.  What a model says in its own words stays as it is, and
so do the rare kinds of problems that are not told here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

from pydantic import BaseModel
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from airside.stack.calling import close_names
from airside.stack.errors import text_of

Location = tuple[int | str, ...]
Problem = Mapping[str, Any]
"""One of `ValidationError.errors()`."""

ALIKE = 0.7
"""How alike a name that may be meant is: more than in a call, where all names are said beside it."""

_KINDS: tuple[tuple[type, str], ...] = (
    (type(None), "nothing"),
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (tuple, "a list"),
    (dict, "a mapping"),
)


def sentence(problem: Problem) -> str:
    """Return what is wrong, without where."""
    kind, given = problem["type"], problem.get("ctx", {})
    if kind in ("value_error", "assertion_error") and isinstance(given.get("error"), Exception):
        return text_of(given["error"]).removeprefix(f"{type(given['error']).__name__}: ")
    told = _SENTENCES.get(kind)
    return told(given, problem.get("input")) if told else str(problem["msg"])


def _needed(what: str, how: Callable[[Any], str] = lambda value: "") -> Callable[[Mapping[str, Any], Any], str]:
    return lambda given, value: f"{what} is needed, not {_kind(value)}{how(value)}"


def _bounded(text: str) -> Callable[[Mapping[str, Any], Any], str]:
    return lambda given, value: text.format(**given)


def _kind(value: object) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), f"a {type(value).__name__:.40}")


def _in_quotes(value: object) -> str:
    return ": write it in quotes" if isinstance(value, bool | int | float) else ""


def _without_quotes(value: object) -> str:
    return ": write it without quotes" if isinstance(value, str) and value.strip("+-").isdigit() else ""


def _fraction(given: Mapping[str, Any], value: object) -> str:
    return "a whole number is needed, not a fraction"


_MAPPING = _needed("a mapping", lambda value: ": write a name and what belongs to it, as name: value, or {}")
_LIST = _needed("a list", lambda value: ": write [a, b], or a line `- a` each")
_NUMBER = _needed("a number", _without_quotes)
_WHOLE = _needed("a whole number", lambda v: " with a fraction" if isinstance(v, float) else _without_quotes(v))

_SENTENCES: dict[str, Callable[[Mapping[str, Any], Any], str]] = {
    "extra_forbidden": lambda given, value: "unknown field",
    "missing": lambda given, value: "required, and not there",
    "string_type": _needed("text", _in_quotes),
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _fraction,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": _needed("true or false", lambda value: ": write true or false, without quotes"),
    "bool_parsing": _needed("true or false"),
    "none_required": _needed("nothing"),
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "literal_error": _bounded("it must be {expected}"),
    "enum": _bounded("it must be {expected}"),
    "string_pattern_mismatch": _bounded("the text must have the form {pattern}"),
    "string_too_short": _bounded("at least {min_length:,} characters are needed"),
    "string_too_long": _bounded("at most {max_length:,} characters are taken"),
    "too_short": _bounded("at least {min_length:,} must be there, not {actual_length:,}"),
    "too_long": _bounded("at most {max_length:,} may be there"),
    "greater_than_equal": _bounded("at least {ge:,} is needed"),
    "greater_than": _bounded("more than {gt:,} is needed"),
    "less_than_equal": _bounded("at most {le:,} is taken"),
    "less_than": _bounded("less than {lt:,} is taken"),
}


def place_of(location: Location) -> str:
    """Return a place as people write it: without what a model calls its own parts (`[key]`, `list[str]`)."""
    shown = [str(part) for part in location if not (isinstance(part, str) and _is_of_model(part))]
    return ".".join(shown)


def _is_of_model(part: str) -> bool:
    return part == "[key]" or part.startswith(("function-", "list[", "dict[", "constrained-", "nullable["))


def hint(problem: Problem, names: Iterable[str], others: Iterable[str] = ()) -> str:
    """Return which of `names` a field that does not exist may be; of `others`, which one that is missing may be."""
    name = str(problem["loc"][-1])
    if problem["type"] == "extra_forbidden":
        return name_hint(name, names)
    near = close_names(name, others, alike=ALIKE) if problem["type"] == "missing" else []
    return f" (is {near[0]} meant for it?)" if near else ""


def name_hint(name: str, names: Iterable[str]) -> str:
    """Return what may be meant by a name that does not exist, as the end of a sentence."""
    known = list(names)
    near = close_names(name, known, alike=ALIKE)
    return f" (do you mean {' or '.join(near)}?)" if near else f"; there are {', '.join(sorted(known))}"


def names_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return which fields there are beside the one at a place of a model; none where that is no model's."""
    found: list[Any] = [model]
    for part in location[:-1]:
        found = [below for kind in found for below in _below(kind, part)]
    return sorted({name for kind in found for each in _models(kind) for name in each.model_fields})


def _below(kind: Any, part: int | str) -> list[Any]:
    """Return of what kinds something is that stands under a part of a place."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return [] if field is None else [field.annotation]
    inner = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType) or hasattr(kind, "__metadata__"):
        return [below for each in inner for below in _below(each, part)]
    return [inner[-1]] if origin in (list, dict) else []


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if typing.get_origin(kind) in (Union, types.UnionType) or hasattr(kind, "__metadata__"):
        return [model for each in typing.get_args(kind) for model in _models(each)]
    return []


def wrong_at(location: Location, text: str) -> ValidationError:
    """Return what a validator raises about one place within what it is given."""
    error = PydanticCustomError("wrong", "{text}", {"text": text})
    return ValidationError.from_exception_data(
        "wrong", [InitErrorDetails(type=error, loc=location, input=None)], hide_input=True
    )
