"""JSON Schemas as the stack reads them: one dialect, nothing outside of the schema, patterns that take linear time.

`read_schema` turns what an author wrote into draft 2020-12, with every reference a `$ref` to a place within the schema,
or refuses it: an older draft's spelling that means the same is translated, OpenAPI's `nullable` too.  No schema is ever
fetched: a reference that leaves the schema is refused when it is read, and a validator could not follow it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, time
from typing import Any
from urllib.parse import quote, unquote

import jsonschema_rs
from pydantic import TypeAdapter, ValidationError

from airside.stack.errors import InvalidConfig

Schema = dict[str, Any] | bool

MAX_SCHEMA_DEPTH = 64
MAX_SCHEMAS = 5_000
"""A tool's schema has dozens of parts; what has more than this was made to have many."""

_DRAFTS = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
}
ONE = frozenset(
    {"additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems", "contains"}
    | {"not", "if", "then", "else", "contentSchema"}
)
LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$ref"})
"""Keywords whose schemas describe the very value that the schema around them describes."""

REMARKS = frozenset(
    {"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"}
    | {"$defs", "definitions", "$schema", "$id", "$anchor"}
)
_LINEAR = jsonschema_rs.RegexOptions()
_datetimes, _times = TypeAdapter(datetime), TypeAdapter(time)


def _takes(adapter: TypeAdapter[Any]) -> Callable[[str], bool]:
    def takes(text: str) -> bool:
        try:
            adapter.validate_python(text)
        except ValidationError:
            return False
        return True

    return takes


_FORMATS = {"iso-date-time": _takes(_datetimes), "iso-time": _takes(_times)}
"""As `date-time` and `time`, but a zone may be left out: what Python's types take, and models write."""


def validator_of(schema: Schema) -> jsonschema_rs.Validator:
    """Return the validator of a schema that was read: strict, offline, with formats, its patterns in linear time."""
    return jsonschema_rs.Draft202012Validator(
        schema, offline=True, validate_formats=True, pattern_options=_LINEAR, formats=_FORMATS
    )


def validators_of(schema: Schema) -> jsonschema_rs.ValidatorMap:
    """Return the validators of a schema and of all schemas in it, by pointer."""
    return jsonschema_rs.validator_map_for(
        schema, offline=True, validate_formats=True, pattern_options=_LINEAR, formats=_FORMATS
    )


def pattern_of(text: str) -> Callable[[str], bool]:
    """Return whether a text has a match of a pattern, in linear time."""
    return validator_of({"pattern": text}).is_valid


def read_schema(raw: object, where: str) -> dict[str, Any]:
    """Return a schema in the dialect of the stack; raise `InvalidConfig` naming the place that is wrong in it."""
    if not isinstance(raw, Mapping):
        raise InvalidConfig(f"{where}: a schema is an object, not {type(raw).__name__}")
    try:
        given = json.loads(json.dumps(dict(raw), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{where}: the schema is not JSON: {error}") from None
    try:
        read = _Reader(given, where).read()
        validator_of(read)
        _refuse_circles(read, where)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{where}: not a valid JSON Schema: {_explained(error)}") from None
    return read


def subschemas(schema: Schema) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield the schemas right within a schema: the keyword, the steps from here, and the schema itself."""
    for keyword, value in schema.items() if isinstance(schema, dict) else ():
        if keyword in ONE:
            yield keyword, (keyword,), value
        elif keyword in LISTED and isinstance(value, list):
            for index, each in enumerate(value):
                yield keyword, (keyword, str(index)), each
        elif keyword in NAMED and isinstance(value, dict):
            for name, each in value.items():
                yield keyword, (keyword, name), each


def pointer_of(steps: tuple[str, ...]) -> str:
    """Return the reference to a place within a schema."""
    return "#" + "".join(
        "/" + quote(step.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@") for step in steps
    )


def steps_of(pointer: str) -> tuple[str, ...]:
    """Return the way to the place a reference within a schema names."""
    return tuple(each.replace("~1", "/").replace("~0", "~") for each in unquote(pointer[1:]).split("/")[1:])


def at(root: Any, steps: tuple[str, ...]) -> Any:
    """Return what is at a place of a schema; raise `LookupError` if there is nothing."""
    for step in steps:
        if isinstance(root, list) and step.isdecimal():
            root = root[int(step)]
        elif isinstance(root, dict):
            root = root[step]
        else:
            raise LookupError(step)
    return root


class _Reader:
    """Reads one schema: translates every place of it, and then points every reference at the translated place."""

    def __init__(self, raw: dict[str, Any], where: str) -> None:
        self._raw = raw
        self._where = where
        self._moved: dict[int, tuple[str, ...]] = {}
        self._anchors: dict[str, dict[str, Any]] = {}
        self._references: list[tuple[dict[str, Any], tuple[str, ...]]] = []
        self._declared = raw.get("$schema", "https://json-schema.org/draft/2020-12/schema")
        draft = _DRAFTS.get(self._declared.rstrip("#")) if isinstance(self._declared, str) else None
        if draft is None:
            raise self._wrong(
                (), f"$schema {self._declared!r:.120} is no draft that is known here: name 2020-12, or none"
            )
        self._draft = draft
        self._id_key = "id" if draft == 4 else "$id"
        self._id = str(raw.get(self._id_key, "")).rstrip("#")

    def read(self) -> dict[str, Any]:
        root: dict[str, Any] = self._schema(self._raw, ())
        for holder, place in self._references:  # grows while places that no keyword leads to are read
            holder["$ref"] = pointer_of(self._target(holder["$ref"], place, root))
        return root

    def _wrong(self, place: tuple[str, ...], why: str) -> InvalidConfig:
        return InvalidConfig(f"{self._where}: {pointer_of(place)}: {why}" if place else f"{self._where}: {why}")

    def _schema(self, raw: Any, place: tuple[str, ...]) -> Any:
        if not isinstance(raw, dict):
            return raw
        self._moved[id(raw)] = place
        if len(place) > 2 * MAX_SCHEMA_DEPTH or len(self._moved) > MAX_SCHEMAS:
            raise self._wrong(
                (), f"more than {MAX_SCHEMAS:,} schemas in one, or nested more than {MAX_SCHEMA_DEPTH} deep"
            )
        given = self._spelled(raw, place)
        nullable = given.pop("nullable", False)
        if not isinstance(nullable, bool):
            raise self._wrong(place, f"nullable {nullable!r:.80} is neither true nor false")
        if nullable and place and isinstance(given.get("type"), str | list) and not _CHOOSING & given.keys():
            kinds = given["type"] if isinstance(given["type"], list) else [given["type"]]
            given["type"] = [*kinds, *(["null"] if "null" not in kinds else [])]
        elif nullable and place:
            outside = {key: given.pop(key) for key in [*given] if key in REMARKS}
            inner = self._translated(given, (*place, "anyOf", "0"))
            return {**self._translated(outside, place), "anyOf": [inner, {"type": "null"}]}
        return self._translated(given, place)

    def _translated(self, given: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for keyword, value in given.items():
            if keyword in ONE:
                made[keyword] = self._schema(value, (*place, keyword))
            elif keyword in LISTED and isinstance(value, list):
                made[keyword] = [self._schema(each, (*place, keyword, str(i))) for i, each in enumerate(value)]
            elif keyword in NAMED and isinstance(value, dict):
                made[keyword] = {name: self._schema(each, (*place, keyword, name)) for name, each in value.items()}
            else:
                made[keyword] = value
        if isinstance(made.get("$ref"), str):
            self._references.append((made, place))
        return made

    def _spelled(self, raw: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
        """Return a schema with what older drafts and OpenAPI spell otherwise, and without what names documents."""
        given = dict(raw)
        if given.pop("$schema", self._declared) != self._declared:
            raise self._wrong(place, "a $schema within a schema")
        if isinstance(name := given.get(self._id_key), str):
            if name.startswith("#") and self._draft <= 7:
                self._anchors.setdefault(name[1:], raw)
            elif place:
                raise self._wrong(place, f"{self._id_key} {name!r:.80} begins a document of its own: put it into $defs")
            del given[self._id_key]
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := given.pop(keyword, None), str):
                self._anchors.setdefault(name, raw)
        for keyword in ("$recursiveAnchor", "$vocabulary"):
            given.pop(keyword, None)
        followed = [given.pop(each) for each in ("$ref", "$dynamicRef", "$recursiveRef") if each in given]
        if followed and self._draft <= 7 and given.keys() - REMARKS - {"nullable"}:
            raise self._wrong(
                place, f"in draft {self._draft}, what stands beside a $ref is ignored: put both into allOf"
            )
        if followed:
            given["$ref"] = followed[0]
        if followed[1:]:
            given["allOf"] = [*given.get("allOf", []), *({"$ref": each} for each in followed[1:])]
        return _modern(given)

    def _target(self, reference: str, place: tuple[str, ...], root: dict[str, Any]) -> tuple[str, ...]:
        """Return the place a reference names."""
        base, _, fragment = reference.partition("#")
        if base and base.rstrip("#") != self._id:
            raise self._wrong(
                place, f"$ref {reference!r:.120} leaves the schema: put what it names into $defs, and say #/$defs/NAME"
            )
        try:
            by_steps = not fragment or fragment.startswith("/")
            found = at(self._raw, steps_of("#" + fragment)) if by_steps else self._anchors[unquote(fragment)]
        except LookupError:
            raise self._wrong(place, f"$ref {reference!r:.120} names nothing in the schema") from None
        if isinstance(found, dict) and id(found) in self._moved:
            return self._moved[id(found)]
        if not isinstance(found, dict | bool) or not isinstance(shared := root.setdefault("$defs", {}), dict):
            raise self._wrong(place, f"$ref {reference!r:.120} names no schema")
        shared[fragment] = self._schema(found, ("$defs", fragment))
        return "$defs", fragment


_CHOOSING = frozenset({"enum", "const", "$ref", "allOf", "anyOf", "oneOf", "not", "if"})
"""Beside one of these, "or null" is no matter of the type alone."""


def _modern(given: dict[str, Any]) -> dict[str, Any]:
    """Spell as 2020-12 does what older drafts and OpenAPI spell otherwise, where it can mean nothing else."""
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(is_exclusive := given.get(exclusive), bool):
            del given[exclusive]
            if is_exclusive and inclusive in given:
                given[exclusive] = given.pop(inclusive)
    if isinstance(given.get("items"), list) and "prefixItems" not in given:
        given["prefixItems"] = given.pop("items")
        if not given["prefixItems"]:
            del given["prefixItems"]  # today's draft wants at least one
        if "additionalItems" in given:
            given["items"] = given.pop("additionalItems")
    if isinstance(needs := given.get("dependencies"), dict):
        del given["dependencies"]
        for keyword, kind in (("dependentRequired", list), ("dependentSchemas", dict | bool)):
            if found := {name: each for name, each in needs.items() if isinstance(each, kind)}:
                given[keyword] = {**given.get(keyword, {}), **found}
    return given


def _explained(error: Exception) -> str:
    if not isinstance(error, jsonschema_rs.ValidationError):
        return str(error)[:300]
    place = pointer_of(tuple(str(step) for step in error.instance_path))
    text = f"{place}: {error.message[:200]}"
    if error.message.endswith('is not a "regex"'):
        text += ": patterns are matched in linear time, so they look neither ahead nor behind, nor refer back"
    return text


def _refuse_circles(root: dict[str, Any], where: str) -> None:
    """Raise `InvalidConfig` for a schema that describes a value by itself, which says nothing and never ends."""
    done: set[tuple[str, ...]] = set()

    def follow(place: tuple[str, ...], above: tuple[tuple[str, ...], ...]) -> None:
        if place in above:
            raise InvalidConfig(f"{where}: {pointer_of(place)} refers to itself in a circle")
        if place not in done:
            schema = at(root, place)
            for keyword, steps, _ in subschemas(schema):
                if keyword in IN_PLACE:
                    follow((*place, *steps), (*above, place))
            if isinstance(schema, dict) and "$ref" in schema:
                follow(steps_of(schema["$ref"]), (*above, place))
            done.add(place)

    todo: list[tuple[str, ...]] = [()]
    while todo:
        place = todo.pop()
        follow(place, ())
        todo += [(*place, *steps) for _, steps, _ in subschemas(at(root, place))]
