"""What the gate knows of a tool: data alone, so that Policy never imports anybody's code.

Arguments are validated against a JSON Schema that admits nothing it does not name, and completed with the schema's
defaults; the canonical bytes of the result are what is hashed, granted, approved and executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs
from msgspec import field

from airside.stack.canonical import MAX_DEPTH, canonical, check_bounds, digest
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.paths import EVERY, parse_path
from airside.stack.values import EffectClass, Risk, Value

MAX_ARGUMENT_BYTES = 256 * 1024
"""Larger arguments belong in a store the tool reads from; over 100 KiB Ray would also leave its fast path."""

MAX_OUTPUT_BYTES = 1024 * 1024

RISK_OF: dict[str, Risk] = {"read": "low", "write": "medium", "external": "high", "irreversible": "high"}


class ToolSpec(Value):
    """A tool as policy and agents see it.

    `repeatable` tools may be sent again under the same idempotency key after a crash: they are idempotent, or can be
    asked whether the key was used.  `cost_microusd` is the price of one call (None: nobody said; then it is free,
    unless runs share a budget of money, which refuses it).  `undoable` = a call can be taken back; it is no part of the
    version, so that an undo written after the harm fits the calls that were made before.  `content` are the dotted
    paths (`*` for every item of a list) of arguments that only say something; all others carry authority: to whom,
    where, how much.
    `trusted_output` says that no outsider writes what the tool returns.  `memorable` = what it returns is offered to
    memory; no part of the version either.
    `resources` are pairs of a kind and the path of an argument: what the call is about, which policy may ask about.
    """

    name: str
    description: str = ""
    effect: EffectClass
    risk: Risk
    parameters: dict[str, Any]
    scopes: tuple[str, ...] = ()
    repeatable: bool = False
    timeout_ms: int = 30_000
    cost_microusd: int | None = None
    max_argument_bytes: int = MAX_ARGUMENT_BYTES
    max_output_bytes: int = MAX_OUTPUT_BYTES
    content: tuple[str, ...] = ()
    trusted_output: bool = False
    version: str = field(default="")
    undoable: bool = False
    memorable: bool = False
    resources: tuple[tuple[str, str], ...] = ()

    @classmethod
    def build(cls, **fields: Any) -> ToolSpec:
        """Close the schema, default the risk, and derive the version from everything that matters to a decision."""
        name = fields["name"]
        schema = close_schema(fields.pop("parameters"))
        if schema.get("type") != "object":
            raise InvalidConfig(f"tool {name}: the schema's type is {schema.get('type')!r}; it must be 'object'")
        apart = {name: fields.pop(name, False) for name in ("undoable", "memorable")}
        for path in fields.get("content", ()):
            try:
                exists = _exists(schema, path)
            except InvalidConfig as error:
                raise InvalidConfig(
                    f"tool {name}: content {path!r:.80} is none of its arguments: {error.message}"
                ) from None
            if not exists:
                raise InvalidConfig(f"tool {name}: content {path!r:.80} is none of its arguments")
        for kind, path in fields.get("resources", ()):
            if not _exists(schema, path):
                raise InvalidConfig(f"tool {name}: resource {kind}: {path!r:.80} is none of its arguments")
        if not fields.get("resources"):
            fields.pop("resources", None)  # so that a tool without any keeps the version it had
        risk = fields.pop("risk", None) or RISK_OF[fields["effect"]]
        identity = {**fields, "parameters": schema, "risk": risk}
        version = digest(canonical(identity))[:16]
        return cls(parameters=schema, risk=risk, version=version, **apart, **fields)


def close_schema(schema: Any) -> Any:
    """Return the schema with every object that names its properties refusing any other."""
    if isinstance(schema, list):
        return [close_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close_keyword(key, value) for key, value in schema.items()}
    kinds = closed.get("type", [])
    is_object = kinds == "object" or "object" in kinds or "properties" in closed
    if is_object and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


_MAPS_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_VALUES = frozenset({"default", "const", "enum", "examples", "required"})


def _close_keyword(keyword: str, value: Any) -> Any:
    if keyword in _VALUES:
        return value
    if keyword in _MAPS_OF_SCHEMAS and isinstance(value, dict):
        return {name: close_schema(inner) for name, inner in value.items()}
    return close_schema(value)


class Place:
    """A place in a tool's arguments, with the parts of the schema that describe it (under `anyOf`, several).

    `is_named(key)` tells the keys a schema gives from those a caller may choose.
    """

    __slots__ = ("_given", "_root", "_schemas")

    def __init__(self, root: dict[str, Any], schemas: list[Any] | None = None) -> None:
        self._root = root
        self._given = [root] if schemas is None else schemas
        self._schemas = _alternatives(root, [root] if schemas is None else schemas)

    def is_open(self, kind: str) -> bool:
        """Whether an `object` or `array` may be here whose inside no schema describes."""
        described = any(set(schema) & _STRUCTURE for schema in self._schemas)
        kinds = [schema["type"] for schema in self._schemas if "type" in schema]
        return not described and (not kinds or any(kind == k or (isinstance(k, list) and kind in k) for k in kinds))

    def may_hold(self, fits: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Whether a value may be here for which `fits` says yes to the keywords of each schema that must take it."""
        return not self._given or any(_may_hold(self._root, schema, fits, MAX_DEPTH) for schema in self._given)

    def anything(self) -> Place:
        """Return a place within this one that no schema describes."""
        return Place(self._root, [])

    @property
    def has_items(self) -> bool:
        """Whether a schema describes the items of a list here."""
        return any("items" in schema or "prefixItems" in schema for schema in self._schemas)

    @property
    def names(self) -> frozenset[str]:
        """The keys of an object that the schema itself names."""
        return frozenset(key for schema in self._schemas for key in schema.get("properties", {}))

    def is_named(self, key: str) -> bool:
        """Whether the schema itself names this key of an object."""
        return any(key in schema.get("properties", {}) for schema in self._schemas)

    @property
    def takes_others(self) -> bool:
        """Whether an object here may have keys that the schema does not name."""
        free = any(schema.get("additionalProperties", False) is not False for schema in self._schemas)
        return free or any("patternProperties" in schema for schema in self._schemas)

    @property
    def is_undescribed(self) -> bool:
        """Whether no schema at all is about this place."""
        return not self._given

    def key(self, key: str) -> Place:
        """Return the place of an object's key."""
        found = [schema["properties"][key] for schema in self._schemas if key in schema.get("properties", {})]
        free = [s["additionalProperties"] for s in self._schemas if isinstance(s.get("additionalProperties"), dict)]
        return Place(self._root, found or free)

    def item(self) -> Place:
        """Return the place of a list's items."""
        found = [s["items"] for s in self._schemas if "items" in s]
        return Place(self._root, found + [each for s in self._schemas for each in s.get("prefixItems", [])])


_STRUCTURE = frozenset({"properties", "items", "prefixItems"})
_COMPOSED = ("anyOf", "oneOf", "allOf")
_MAX_SCHEMAS = 1000
"""Parts of one schema that may describe one place: more than any tool has, and an end to references in a circle."""


def _may_hold(root: Any, schema: Any, fits: Callable[[Mapping[str, Any]], bool], depth: int) -> bool:
    if not isinstance(schema, dict) or depth == 0:
        return schema is not False
    ways = [schema[keyword] for keyword in ("anyOf", "oneOf") if isinstance(schema.get(keyword), list)]
    parts = list(schema.get("allOf", ())) + ([_target(root, schema["$ref"])] if "$ref" in schema else [])
    return (
        fits(schema)
        and all(any(_may_hold(root, each, fits, depth - 1) for each in way) for way in ways)
        and all(_may_hold(root, each, fits, depth - 1) for each in parts)
    )


def _target(root: Any, reference: Any) -> Any:
    """Return what a reference within the schema points to; a schema that takes anything, if it does to nothing."""
    target = root
    for part in reference.removeprefix("#").strip("/").split("/") if isinstance(reference, str) else ():
        target = (
            target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) and part else target
        )
    return target


def _alternatives(root: dict[str, Any], schemas: list[Any]) -> list[dict[str, Any]]:
    """Return the schemas with references followed and compositions taken apart."""
    found: list[dict[str, Any]] = []
    todo = list(schemas)
    while todo and len(found) < _MAX_SCHEMAS:
        schema = todo.pop()
        if not isinstance(schema, dict) or any(schema is each for each in found):
            continue
        found.append(schema)
        for keyword in _COMPOSED:
            todo += schema.get(keyword, [])
        reference = schema.get("$ref", "")
        if isinstance(reference, str) and reference.startswith("#/"):
            target: Any = root
            for part in reference[2:].split("/"):
                target = target.get(part, {}) if isinstance(target, dict) else {}
            todo.append(target)
    return found


def _exists(schema: dict[str, Any], path: str) -> bool:
    """Whether a dotted path names an argument, or a part of one whose inside the schema leaves open."""
    place = Place(schema)
    for depth, part in enumerate(parse_path(path)):
        if part is EVERY and place.has_items:
            place = place.item()
        elif part is not EVERY and place.is_named(part):
            place = place.key(part)
        else:
            return depth > 0 and place.is_open("array" if part is EVERY else "object")
    return True


class ArgumentValidator:
    """One tool's arguments: strict (no "5" for 5, no true for 1), bounded, completed with defaults."""

    def __init__(self, spec: ToolSpec) -> None:
        self._spec = spec
        try:
            self._validator = jsonschema_rs.validator_for(spec.parameters, validate_formats=True)
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise InvalidConfig(f"tool {spec.name}: not a valid JSON Schema: {error}") from None
        properties = spec.parameters.get("properties", {})
        self._defaults = {
            name: p["default"] for name, p in properties.items() if isinstance(p, dict) and "default" in p
        }

    def complete(self, arguments: Any) -> bytes:
        """Return the canonical bytes of the complete arguments; raise `InvalidInput` naming tool, path and rule."""
        name = self._spec.name
        if not isinstance(arguments, dict):
            raise InvalidInput(f"{name}: arguments must be an object, not {type(arguments).__name__}")
        check_bounds(arguments, where=name)
        full = {**self._defaults, **arguments} if self._defaults else arguments
        data = canonical(full)
        if len(data) > self._spec.max_argument_bytes:
            raise InvalidInput(
                f"{name}{_largest(full)}: arguments of {len(data):,} bytes are over the bound of "
                f"{self._spec.max_argument_bytes:,}"
            )
        if not self._validator.is_valid(full):
            raise InvalidInput(f"{name}: {self._explain(full)}")
        return data

    def _explain(self, arguments: dict[str, Any]) -> str:
        problems = []
        for error in self._validator.iter_errors(arguments):
            place = ".".join(str(part) for part in error.instance_path) or "(arguments)"
            problems.append(f"{place}: {error.message[:200]}")
        return "; ".join(problems[:5])


def _largest(arguments: dict[str, Any]) -> str:
    sizes = {key: len(canonical(value)) for key, value in arguments.items()}
    return f".{max(sizes, key=lambda key: sizes[key])}" if sizes else ""
