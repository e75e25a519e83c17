"""Forms that tools have people fill in: flat, as the Model Context Protocol has them, and small enough to be read.

A form is what the tool's maker wrote: no pattern of it is run, and what is not known of a field is refused rather than
left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput

MAX_FIELDS = 16
MAX_OPTIONS = 64
MAX_LABEL_CHARS = 500
"""Of a name, an option or a description: a person is shown all of it."""

MAX_FORM_ANSWER_CHARS = 8_000

_REMARKS = frozenset({"title", "description", "default", "enumNames"})
_KNOWN: dict[str, frozenset[str]] = {
    "string": frozenset({"enum", "oneOf", "format", "minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "array": frozenset({"items", "minItems", "maxItems"}),
}
_MAX_BOUND = 1e15
_BOUNDS = ("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")
_FORMATS = frozenset({"date", "date-time", "email", "uri"})

Fields = dict[str, dict[str, Any]]


def read_fields(schema: Any) -> Fields:
    """Return the fields of a form by name, as people are shown them; raise `InvalidInput` for what is no form."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise InvalidInput("what it asks for is no form")
    unknown = schema.keys() - {"type", "properties", "required", "$schema", "title", "description"}
    given, required = schema.get("properties"), schema.get("required") or []
    if unknown or not isinstance(given, Mapping) or not isinstance(required, list):
        raise InvalidInput(f"the form it asks to be filled in says {sorted(unknown)[:5] or 'nothing of its fields'}")
    if len(given) > MAX_FIELDS:
        raise InvalidInput(f"the form it asks to be filled in has {len(given)} fields, of at most {MAX_FIELDS}")
    if any(not isinstance(name, str) or name not in given for name in required):
        raise InvalidInput("the form it asks to be filled in requires a field that it has not")
    return {name: _field(name, each, name in required) for name, each in given.items()}


def _field(name: str, schema: Any, required: bool) -> dict[str, Any]:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if not isinstance(kind, str) or kind not in _KNOWN:
        raise InvalidInput(f"field {name!r:.80} of its form is of no type that a person fills in")
    unknown = schema.keys() - _KNOWN[kind] - _REMARKS - {"type"}
    if unknown:
        raise InvalidInput(f"field {name!r:.80} of its form says {sorted(unknown)[0]!r:.80}, which is not known")
    found: dict[str, Any] = {"type": kind}
    if required:
        found["required"] = True
    for each in ("title", "description"):
        if schema.get(each):
            text = schema[each]
            found[each] = _label(name, " ".join(text.split()) if isinstance(text, str) else text)
    for bound in _BOUNDS:
        if schema.get(bound) is not None:
            found[bound] = _number(name, schema[bound])
    options = _options(name, schema["items"] if kind == "array" and "items" in schema else schema)
    if kind == "array" and options is None:
        raise InvalidInput(f"field {name!r:.80} of its form is a list of nothing to choose from")
    if options is not None:
        found["options"] = options
    if schema.get("format") is not None:
        if not isinstance(schema["format"], str) or schema["format"] not in _FORMATS:
            raise InvalidInput(f"field {name!r:.80} of its form has a format that is not known")
        found["format"] = schema["format"]
    _label(name, name)
    return found


def _options(name: str, schema: Any) -> list[str] | None:
    """Return what may be chosen, None where anything may be said."""
    if not isinstance(schema, Mapping):
        raise InvalidInput(f"field {name!r:.80} of its form is described by what is no schema")
    listed = schema.get("oneOf") or schema.get("anyOf")
    given = schema.get("enum")
    if isinstance(listed, list):
        given = [each.get("const") if isinstance(each, Mapping) else None for each in listed]
    if given is None:
        return None
    if not isinstance(given, list) or not 0 < len(given) <= MAX_OPTIONS:
        raise InvalidInput(f"field {name!r:.80} of its form has not 1 to {MAX_OPTIONS} things to choose from")
    return [_label(name, each) for each in given]


def _label(name: str, text: Any) -> str:
    if not isinstance(text, str) or len(text) > MAX_LABEL_CHARS or any(unicodedata.category(c) == "Cc" for c in text):
        raise InvalidInput(f"field {name!r:.80} of its form has a text that is none, too long, or not to be shown")
    return text


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_BOUND:
        raise InvalidInput(f"field {name!r:.80} of its form has a bound that is no number, or too large")
    return value


def filled(fields: Mapping[str, Mapping[str, Any]], text: str) -> dict[str, Any]:
    """Return what was filled in, by field; raise `InvalidInput` that says what is wrong, and what is wanted.

    It is JSON, an object by field; where there is one field, its value alone will do.
    """
    if len(text) > MAX_FORM_ANSWER_CHARS:
        raise InvalidInput(f"answer: it has {len(text):,} characters; at most {MAX_FORM_ANSWER_CHARS:,} are taken")
    given = _given(fields, text)
    if unknown := sorted(given.keys() - fields.keys()):
        raise InvalidInput(f"answer: {unknown[0]!a:.80} is no field of the form: {', '.join(map(ascii, fields))}")
    for name, field in fields.items():
        if name not in given and field.get("required"):
            raise InvalidInput(f"answer: {name!a:.80} is missing: {wanted(fields)}")
        if name in given and (why := _wrong(field, given[name])):
            raise InvalidInput(f"answer: {name!a:.80} {why}")
    return given


def _given(fields: Mapping[str, Mapping[str, Any]], text: str) -> dict[str, Any]:
    try:
        read = parse_bounded(text.encode(), max_bytes=4 * MAX_FORM_ANSWER_CHARS, where="answer")
    except (InvalidInput, UnicodeEncodeError):
        read = None
    if isinstance(read, dict):
        return read
    if len(fields) != 1:
        raise InvalidInput(f"answer: {wanted(fields)}")
    ((name, field),) = fields.items()
    return {name: text if field["type"] == "string" else read}


def wanted(fields: Mapping[str, Mapping[str, Any]]) -> str:
    """Return in a sentence what a form takes."""
    names = ", ".join(f"{name!a} ({field['type']})" for name, field in fields.items())
    return f"give a JSON object of its fields: {names}" if fields else "give an empty JSON object, {}"


def described(field: Mapping[str, Any]) -> str:
    """Return a field as a line that whoever fills it in reads."""
    parts = [str(field["type"]), *(["required"] if field.get("required") else [])]
    parts += [f"{name} {field[name]}" for name in _BOUNDS if name in field]
    parts += [str(field["format"])] if "format" in field else []
    parts += [f"of {', '.join(map(ascii, field['options']))}"] if "options" in field else []
    parts += [str(field[each]) for each in ("title", "description") if each in field]
    return "; ".join(parts)


def _wrong(field: Mapping[str, Any], value: Any) -> str:
    """Return what is wrong with a field's value, nothing if it is one."""
    kind, options = field["type"], field.get("options")
    if kind == "array":
        options = options or []
        if not isinstance(value, list) or any(each not in options for each in value) or len(set(value)) < len(value):
            return f"is a list of some of {', '.join(map(ascii, options))}, each once"
        return _outside(len(value), field.get("minItems"), field.get("maxItems"), "entries")
    if kind == "boolean":
        return "" if isinstance(value, bool) else "is true or false"
    if kind == "string":
        if not isinstance(value, str):
            return "is a text"
        if options is not None:
            return "" if value in options else f"is one of {', '.join(map(ascii, options))}"
        return _outside(len(value), field.get("minLength"), field.get("maxLength"), "characters") or _unlike(
            field.get("format"), value
        )
    if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else int | float):
        return "is a whole number" if kind == "integer" else "is a number"
    return _outside(value, field.get("minimum"), field.get("maximum"), "")


def _outside(size: float, least: float | None, most: float | None, what: str) -> str:
    if least is not None and size < least:
        return f"is at least {least:g} {what}".strip()
    return f"is at most {most:g} {what}".strip() if most is not None and size > most else ""


def _unlike(form: str | None, value: str) -> str:
    try:
        if form == "date":
            date.fromisoformat(value)
        elif form == "date-time":
            datetime.fromisoformat(value)
        elif (form == "email" and value.count("@") != 1) or (form == "uri" and ":" not in value):
            raise ValueError
    except ValueError:
        return f"is no {form}"
    return ""
