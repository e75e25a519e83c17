"""What the gate knows of a tool: data alone, so that Policy never imports anybody's code.

Arguments are validated against a JSON Schema that admits nothing it does not name, and completed with the schema's
defaults; the canonical bytes of the result are what is hashed, granted, approved and executed.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs
from msgspec import field

from airside.stack.canonical import canonical, check_bounds, digest
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.values import EffectClass, Risk, Value

MAX_ARGUMENT_BYTES = 256 * 1024
"""Larger arguments belong in a store the tool reads from; over 100 KiB Ray would also leave its fast path."""

MAX_OUTPUT_BYTES = 1024 * 1024

RISK_OF: dict[str, Risk] = {"read": "low", "write": "medium", "external": "high", "irreversible": "high"}


class ToolSpec(Value):
    """A tool as policy and agents see it.

    `repeatable` tools may be sent again under the same idempotency key after a crash: they are idempotent, or can be
    asked whether the key was used.  `cost_microusd` is the price of one call.  `undoable` = a call can be taken back;
    it is no part of the version, so that an undo written after the harm fits the calls that were made before.
    """

    name: str
    description: str = ""
    effect: EffectClass
    risk: Risk
    parameters: dict[str, Any]
    scopes: tuple[str, ...] = ()
    repeatable: bool = False
    timeout_ms: int = 30_000
    cost_microusd: int = 0
    max_argument_bytes: int = MAX_ARGUMENT_BYTES
    max_output_bytes: int = MAX_OUTPUT_BYTES
    version: str = field(default="")
    undoable: bool = False

    @classmethod
    def build(cls, **fields: Any) -> ToolSpec:
        """Close the schema, default the risk, and derive the version from everything that matters to a decision."""
        name = fields["name"]
        schema = close_schema(fields.pop("parameters"))
        if schema.get("type") != "object":
            raise InvalidConfig(f"tool {name}: the schema's type is {schema.get('type')!r}; it must be 'object'")
        undoable = fields.pop("undoable", False)
        risk = fields.pop("risk", None) or RISK_OF[fields["effect"]]
        identity = {**fields, "parameters": schema, "risk": risk}
        version = digest(canonical(identity))[:16]
        return cls(parameters=schema, risk=risk, version=version, undoable=undoable, **fields)


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


class ArgumentValidator:
    """One tool's arguments: strict (no "5" for 5, no true for 1), bounded, completed with defaults."""

    def __init__(self, spec: ToolSpec) -> None:
        self._spec = spec
        try:
            self._validator = jsonschema_rs.validator_for(spec.parameters, validate_formats=True)
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise InvalidConfig(f"tool {spec.name}: not a valid JSON Schema: {error}") from None
        properties = spec.parameters.get("properties", {})
        self._defaults = {name: p["default"] for name, p in properties.items() if "default" in p}

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
