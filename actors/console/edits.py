"""Other arguments for a call: a form of them, what is read from it, and what it changes.

A field is made by the tool's schema where that is known, else by the value that is there.  A text that a field could
not show as it is (a line that hides something, a control character) is edited as JSON, in which that is an escape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from airside.actors.client.display.drawing import brief, one_line
from airside.actors.console.forms import Form
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES

Kind = Literal["text", "lines", "number", "flag", "choice", "json"]

MAX_FIELDS = 100
"""Arguments with a field of their own; a call that has more is edited as one JSON object."""

_KINDS: dict[str, Kind] = {"boolean": "flag", "integer": "number", "number": "number", "string": "text"}
"""How what a schema has a type for, and a call does not have, is edited."""

ABSENT = object()

_VALUE, _WAS_SET = "value:", "set:"
_LONG = 80

_WHOLE, _NEAR = 400, 80
"""Characters of a text that is shown whole where it changes, and of what is shown beside the place in a longer one."""


@dataclass(frozen=True, slots=True)
class Field:
    """One argument in a form.  `text` is its value as the field has it; `kind` says how that is read."""

    name: str
    kind: Kind
    text: str
    says: str = ""
    choices: tuple[str, ...] = ()
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit does to one argument; None for what is not there.

    Of a long text it is the place that differs, `same_before` and `same_after` characters left out round it.
    """

    name: str
    before: str | None
    after: str | None
    same_before: int = 0
    same_after: int = 0


def fields_of(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a form for a call's arguments, and for what else the schema would take."""
    properties = _object(schema.get("properties"))
    required = schema.get("required")
    names = [*arguments, *(name for name in properties if name not in arguments)]
    if len(names) > MAX_FIELDS or any(not name or one_line(name) != name for name in names):
        return [Field("", "json", as_json(arguments), "All arguments, as one JSON object.")]
    needed = frozenset(required) if isinstance(required, list) else frozenset()
    return [_field(name, arguments.get(name, ABSENT), _object(properties.get(name)), name in needed) for name in names]


def _field(name: str, value: Any, schema: Mapping[str, Any], is_required: bool) -> Field:
    says = brief(schema.get("description", ""), 300)
    choices = schema.get("enum")
    if isinstance(choices, list) and choices and all(isinstance(each, str) and _is_plain(each) for each in choices):
        text = value if isinstance(value, str) else ""
        return Field(name, "choice", text, says, tuple(choices), is_required)
    kind, text = _kind_of(value, schema.get("type"))
    return Field(name, kind, text, says, (), is_required)


def _kind_of(value: Any, wanted: Any) -> tuple[Kind, str]:
    """Return how a value is edited, and what stands in its field."""
    if value is ABSENT:
        return _KINDS.get(wanted, "json") if isinstance(wanted, str) else "json", ""
    if isinstance(value, bool):
        return "flag", str(value).lower()
    if isinstance(value, int | float):
        return "number", as_json(value)
    if isinstance(value, str) and _is_plain(value):
        return ("lines" if "\n" in value or len(value) > _LONG else "text"), value
    return "json", as_json(value)


def _is_plain(text: str) -> bool:
    """Whether a field shows a text as it is, and a browser sends it back so."""
    lines = text.split("\n")
    return all(one_line(line) == line for line in lines) and text == text.strip("\n")


def as_json(value: Any) -> str:
    """Return a value as JSON for a person to edit; whatever is not plain in it is an escape."""
    return "".join(
        character
        if character == "\n" or one_line(character) == character
        else "".join(f"\\u{unit:04x}" for unit in _units(character))
        for character in json.dumps(value, ensure_ascii=False, indent=1)
    )


def _units(character: str) -> list[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def read_edit(form: Form, fields: list[Field]) -> dict[str, Any]:
    """Return the arguments that a form has; raise `InvalidInput` that names the field for what is none."""
    if len(fields) == 1 and not fields[0].name:
        return _whole(form.get(_VALUE))
    found: dict[str, Any] = {}
    given = form.within(_VALUE)
    for field in fields:
        text = given.get(field.name)
        if text is None or (not text and not field.is_required and not form.get(f"{_WAS_SET}{field.name}")):
            continue
        found[field.name] = _value(field, text)
    return found


def _whole(text: str) -> dict[str, Any]:
    value = _parsed("arguments", text)
    if not isinstance(value, dict):
        raise InvalidInput("arguments: give one JSON object")
    return value


def _value(field: Field, text: str) -> Any:
    text = text.replace("\r\n", "\n")
    match field.kind:
        case "text" | "lines":
            return text
        case "choice":
            if text not in field.choices:
                raise InvalidInput(f"{field.name}: {text!a:.80} is none of the choices")
            return text
        case "flag":
            if text not in ("true", "false"):
                raise InvalidInput(f"{field.name}: choose yes or no")
            return text == "true"
        case "number":
            value = _parsed(field.name, text)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidInput(f"{field.name}: {text!a:.80} is no number")
            return value
        case "json":
            return _parsed(field.name, text)


def _parsed(name: str, text: str) -> Any:
    return parse_bounded(text.encode("utf-8", "surrogatepass"), max_bytes=MAX_ARGUMENT_BYTES, where=name)


def changes_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what an edit changes, argument by argument."""
    names = [*before, *(name for name in after if name not in before)]
    return [
        _change(
            name,
            _written(before[name]) if name in before else None,
            _written(after[name]) if name in after else None,
        )
        for name in names
        if name not in before or name not in after or _differ(before[name], after[name])
    ]


def _change(name: str, before: str | None, after: str | None) -> Change:
    if before is None or after is None or max(len(before), len(after)) <= _WHOLE:
        return Change(name, before, after)
    first = _in_common(before, after)
    last = _in_common(before[first:][::-1], after[first:][::-1])
    head, tail = max(0, first - _NEAR), max(0, last - _NEAR)
    return Change(name, before[head : len(before) - tail], after[head : len(after) - tail], head, tail)


def _in_common(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (here, there) in enumerate(pairs) if here != there), min(len(one), len(other)))


def _differ(one: Any, other: Any) -> bool:
    """Whether two values are different JSON: 1 is not 1.0, and no flag is a number."""
    return msgspec.json.encode(one, order="sorted") != msgspec.json.encode(other, order="sorted")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
