"""What the gate knows of a tool: data alone, so that Policy never imports anybody's code.

Arguments are validated against a JSON Schema whose objects admit nothing it does not name
(`stack/schema/validation.py`), and completed with its defaults; the canonical bytes of the result are what is hashed,
granted, approved and executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any

from msgspec import field, to_builtins

from airside.stack.canonical import MAX_DEPTH, canonical, check_bounds, digest
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.schema.choices import Choices, settled
from airside.stack.schema.explanations import problems
from airside.stack.schema.paths import EVERY, Parts, parse_path
from airside.stack.schema.schemas import REMARKS, at, pattern_of, read_schema, steps_of, subschemas
from airside.stack.schema.validation import SchemaValidator, ValidationTooCostly
from airside.stack.values import ApprovalRule, EffectClass, Lane, Risk, Value

MAX_ARGUMENT_BYTES = 256 * 1024
"""Larger arguments belong in a store the tool reads from; over 100 KiB Ray would also leave its fast path."""

MAX_OUTPUT_BYTES = 1024 * 1024

RISK_OF: dict[str, Risk] = {"read": "low", "write": "medium", "external": "high", "irreversible": "high"}


class ToolSpec(Value, dict=True, gc=True):  # for what is looked up at every step, and is no part of its value
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
    `lane` is where its code runs: in the executor's process, in one of its own, or in a sandbox; the last alone is part
    of the version.
    `choices` are the words of a request that pick a value of an argument (`stack/schema/choices.py`).
    `answered_by` are the people whom a call puts a question to: what it returns is what one of them answered.
    `asks` are those who are asked what the tool needs to complete a call, once that has begun.
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
    choices: Choices = ()
    answered_by: ApprovalRule | None = None
    asks: ApprovalRule | None = None
    lane: Lane = "shared"

    @classmethod
    def build(cls, **fields: Any) -> ToolSpec:
        """Read and close the schema, default the risk, and derive the version from all that matters to a decision."""
        name = fields["name"]
        validator = SchemaValidator(_of_arguments(read_schema(fields.pop("parameters"), f"tool {name}"), name))
        _check_defaults(validator, name)
        schema = validator.schema
        apart = {name: fields.pop(name, False) for name in ("undoable", "memorable")}
        if fields.get("lane") in ("shared", "process"):
            apart["lane"] = fields.pop("lane")
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
            if not _may_be_id(Place(schema), parse_path(path)):
                text = f"{path!r:.80} is never an id, which is a text or a whole number"
                raise InvalidConfig(f"tool {name}: resource {kind}: {text}")
        fields["choices"] = _settled(schema, name, fields.get("choices", ()))
        for each in ("resources", "choices", "answered_by", "asks"):
            if not fields.get(each):
                fields.pop(each, None)  # so that a tool without any keeps the version it had
        risk = fields.pop("risk", None) or RISK_OF[fields["effect"]]
        identity = to_builtins({**fields, "parameters": schema, "risk": risk})
        version = digest(canonical(identity))[:16]
        return cls(parameters=schema, risk=risk, version=version, **apart, **fields)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The defaults of arguments, by name."""
        return {
            name: each["default"]
            for part in certain_parts(self.parameters)
            for name, each in part.get("properties", {}).items()
            if isinstance(each, dict) and "default" in each
        }

    @cached_property
    def required(self) -> frozenset[str]:
        """The arguments that must be given."""
        return frozenset(name for part in certain_parts(self.parameters) for name in part.get("required", ()))

    @cached_property
    def place(self) -> Place:
        """The place of the arguments as a whole."""
        return Place(self.parameters)

    @cached_property
    def content_paths(self) -> list[Parts]:
        """The parts of the paths of `content`."""
        return [parse_path(path) for path in self.content]


def _settled(schema: dict[str, Any], name: str, choices: Choices) -> Choices:
    """Return choices as their arguments take them; raise `InvalidConfig` for what is none of the tool's arguments."""
    found = []
    for path, picks in choices:
        place = _place_of(schema, path)
        if place is None:
            raise InvalidConfig(f"tool {name}: choices of {path!r:.80}, which is none of its arguments")

        def takes(value: Any, place: Place = place) -> bool:
            return place.may_hold(lambda part: _takes(part, value))

        found.append((path, settled(f"tool {name}: choices of {path!r:.80}", picks, takes)))
    return tuple(found)


def _place_of(schema: dict[str, Any], path: str) -> Place | None:
    """Return the place of an argument that the schema names."""
    if not _exists(schema, path):
        return None
    place = Place(schema)
    for part in parse_path(path):
        place = place.item() if part is EVERY else place.key(part)
    return place


def _takes(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether the keywords of one schema leave room for a choice."""
    if "const" in schema or "enum" in schema:
        choices = [schema["const"]] if "const" in schema else schema["enum"]
        return any(canonical(choice) == canonical(value) for choice in choices)
    kinds = schema.get("type")
    named = [kinds] if isinstance(kinds, str) else kinds
    return named is None or any(_is_of(value, kind) for kind in named)


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    kinds: dict[str, type | tuple[type, ...]] = {"string": str, "integer": int, "number": (int, float)}
    return isinstance(value, kinds.get(kind, ()))


def _of_arguments(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the schema as one of an object, with a root that is only a reference replaced by what it names."""
    while "$ref" in schema and not schema.keys() & _BESIDES:
        target = at(schema, steps_of(schema["$ref"]))
        if target is False:
            raise InvalidConfig(f"tool {name}: the schema takes nothing; it must be 'object'")
        target = {} if target is True else target
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        if any(target[key] != beside[key] for key in (target.keys() & beside.keys()) - REMARKS):
            break  # both hold, which the reference itself says
        schema = {**target, **beside}
    kinds = [part["type"] for part in certain_parts(schema) if "type" in part]
    for kind in kinds:
        if "object" not in (kind if isinstance(kind, list) else [kind]):
            raise InvalidConfig(f"tool {name}: the schema's type is {kind!r}; it must be 'object'")
    parts = _alternatives(schema, [schema])
    if not any(part.get("type") == "object" or part.keys() & _OF_OBJECTS for part in parts):
        raise InvalidConfig(f"tool {name}: the schema's type is None; it must be 'object'")
    return {**schema, "type": "object"}


_OF_OBJECTS = frozenset(
    {"properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "required"}
)
_BESIDES = (
    _OF_OBJECTS
    | {"allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "dependentRequired"}
    | {
        "propertyNames",
        "minProperties",
        "maxProperties",
        "enum",
        "const",
    }
)
"""What a reference at the root may not have beside it, to be replaced by what it names."""


def _check_defaults(validator: SchemaValidator, name: str) -> None:
    """Raise `InvalidConfig` for a default that the schema beside it refuses: every call that leaves it out would be."""
    for node in validator.graph.nodes:
        if "default" not in node.schema:
            continue
        default, where = node.schema["default"], f"tool {name}: the default at {node.pointer}"
        try:
            check_bounds(default, where=where)
            wrong = problems(validator, default, node)
        except InvalidInput as error:
            raise InvalidConfig(error.message) from None
        if wrong:
            raise InvalidConfig(f"{where} is refused by its own schema: {wrong[0]}")


def certain_parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a schema that describe its value whatever it is: itself, and by `allOf` and references."""
    found: list[dict[str, Any]] = []
    todo: list[Any] = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            found.append(part)
            todo += part.get("allOf", ())
            todo += [at(schema, steps_of(part["$ref"]))] if "$ref" in part else []
    return found


class Place:
    """A place in a tool's arguments, with the parts of the schema that describe it (under `anyOf`, several).

    `is_named(key)` tells the keys a schema gives from those a caller may choose.
    """

    __slots__ = ("_given", "_item", "_keys", "_root", "_schemas")

    def __init__(self, root: dict[str, Any], schemas: list[Any] | None = None) -> None:
        self._root = root
        self._keys: dict[str, Place] = {}
        self._item: Place | None = None
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

    @property
    def is_free(self) -> bool:
        """Whether no schema says anything of the keys an object may have."""
        return not any(schema.keys() & (_OTHERS | {"properties"}) for schema in self._schemas)

    @property
    def takes_others(self) -> bool:
        """Whether an object may have keys that no schema names."""
        others = ((each, schema[each]) for schema in self._schemas for each in _OTHERS & schema.keys())
        return self.is_free or any(
            value if each == "patternProperties" else value is not False for each, value in others
        )

    def is_named(self, key: str) -> bool:
        """Whether the schema itself names this key of an object."""
        return any(key in schema.get("properties", {}) for schema in self._schemas)

    @property
    def is_undescribed(self) -> bool:
        """Whether no schema at all is about this place."""
        return not self._given

    def key(self, key: str) -> Place:
        """Return the place of an object's key; of one that a schema names always the same."""
        known = self._keys.get(key)
        if known is None:
            known = self._place_of(key)
            if self.is_named(key):
                self._keys[key] = known
        return known

    def _place_of(self, key: str) -> Place:
        found = [schema["properties"][key] for schema in self._schemas if key in schema.get("properties", {})]
        for schema in self._schemas:
            found += [each for pattern, each in schema.get("patternProperties", {}).items() if _matches(pattern)(key)]
        free = [s["additionalProperties"] for s in self._schemas if isinstance(s.get("additionalProperties"), dict)]
        return Place(self._root, found or free)

    def item(self) -> Place:
        """Return the place of a list's items."""
        if self._item is None:
            found = [s["items"] for s in self._schemas if "items" in s]
            found += [each for s in self._schemas for each in s.get("prefixItems", [])]
            self._item = Place(self._root, found)
        return self._item


_OTHERS = frozenset({"additionalProperties", "unevaluatedProperties", "patternProperties"})
_STRUCTURE = frozenset({"properties", "items", "prefixItems"})
_COMPOSED = frozenset({"anyOf", "oneOf", "allOf", "then", "else", "dependentSchemas"})
_MAX_SCHEMAS = 1000
"""Parts of one schema that may describe one place: more than any tool has, and an end to references in a circle."""

_matches = lru_cache(maxsize=1000)(pattern_of)


def _may_hold(root: Any, schema: Any, fits: Callable[[Mapping[str, Any]], bool], depth: int) -> bool:
    if not isinstance(schema, dict) or depth == 0:
        return schema is not False
    ways = [schema[keyword] for keyword in ("anyOf", "oneOf") if isinstance(schema.get(keyword), list)]
    parts = list(schema.get("allOf", ())) + ([at(root, steps_of(schema["$ref"]))] if "$ref" in schema else [])
    return (
        fits(schema)
        and all(any(_may_hold(root, each, fits, depth - 1) for each in way) for way in ways)
        and all(_may_hold(root, each, fits, depth - 1) for each in parts)
    )


def _alternatives(root: dict[str, Any], schemas: list[Any]) -> list[dict[str, Any]]:
    """Return the schemas with references followed and compositions taken apart."""
    found: list[dict[str, Any]] = []
    todo = list(schemas)
    while todo and len(found) < _MAX_SCHEMAS:
        schema = todo.pop()
        if not isinstance(schema, dict) or any(schema is each for each in found):
            continue
        found.append(schema)
        todo += [inner for keyword, _, inner in subschemas(schema) if keyword in _COMPOSED]
        if "$ref" in schema:
            todo.append(at(root, steps_of(schema["$ref"])))
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


def _may_be_id(place: Place, parts: Parts) -> bool:
    """Whether a path that exists may lead to what can be an id; a `*` at what is no list stands for that itself."""
    if not parts:
        return place.may_hold(_takes_ids)
    part, rest = parts[0], parts[1:]
    if part is EVERY:
        return (place.has_items and _may_be_id(place.item(), rest)) or place.is_open("array") or _may_be_id(place, rest)
    return place.is_open("object") or (place.is_named(part) and _may_be_id(place.key(part), rest))


def _takes_ids(schema: Mapping[str, Any]) -> bool:
    """Whether the keywords of one schema leave room for a text or a whole number."""
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices is not None:
        return any(isinstance(choice, str | int) and not isinstance(choice, bool) for choice in choices)
    given = schema.get("type", "string")
    return not _ID_TYPES.isdisjoint([given] if isinstance(given, str) else given)


_ID_TYPES = frozenset({"string", "integer", "number"})


class ArgumentValidator:
    """One tool's arguments: strict (no "5" for 5, no true for 1), bounded, completed with defaults."""

    def __init__(self, spec: ToolSpec) -> None:
        self._spec = spec
        self._validator = SchemaValidator(spec.parameters)
        self._defaults = spec.defaults

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
        try:
            accepted = self._validator.accepts(full)
        except ValidationTooCostly:
            raise InvalidInput(f"{name}: to check the arguments against the schema takes too long") from None
        if not accepted:
            raise InvalidInput(f"{name}: {'; '.join(problems(self._validator, full))}")
        return data


def _largest(arguments: dict[str, Any]) -> str:
    sizes = {key: len(canonical(value)) for key, value in arguments.items()}
    return f".{max(sizes, key=lambda key: sizes[key])}" if sizes else ""
