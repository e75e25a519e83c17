"""Tools as a snippet calls them: their names in Python, and the stubs that a model is shown of them."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Mapping
from typing import Any

from airside.stack.errors import InvalidConfig
from airside.stack.schema.schemas import at, steps_of
from airside.stack.schema.toolspec import ToolSpec, certain_parts

_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_MAX_DEPTH = 6
"""Objects within objects that are written out; what is deeper is `Any`, as the gate checks it anyhow."""


def python_name(tool: str) -> str:
    """Return the name under which a snippet calls a tool: `crm.find-order` is `crm_find_order`, `list` is `list_`."""
    name = tool.replace(".", "_").replace("-", "_")
    if not name[:1].isalpha() and not name.startswith("_"):
        name = f"_{name}"
    return f"{name}_" if _is_taken(name) else name


def check_names(tools: Iterable[str]) -> None:
    """Raise `InvalidConfig` for two tools that a snippet would call by one name."""
    found: dict[str, str] = {}
    for tool in sorted(tools):
        other = found.setdefault(python_name(tool), tool)
        if other != tool:
            raise InvalidConfig(
                f"code_mode: the tools {other} and {tool} are both {python_name(tool)} in Python: rename one of them"
            )


def parameters_of(spec: ToolSpec) -> list[str]:
    """Return the arguments that have a name in Python, in the order in which a snippet may give them."""
    names = [name for name in _properties(spec) if _is_name(name)]
    return sorted(names, key=lambda name: name not in spec.required)


def stub_of(spec: ToolSpec) -> str:
    """Return the declaration of a tool: an async function with its types, its description and that of its arguments."""
    types = _Types(spec)
    properties = _properties(spec)
    given = []
    for name in parameters_of(spec):
        default = "" if name in spec.required else f" = {spec.defaults[name]!r}" if name in spec.defaults else " = ..."
        given.append(f"{name}: {types.of(properties[name], name)}{default}")
    remarks = [spec.description.strip()]
    for name, schema in properties.items():
        about = schema.get("description", "") if isinstance(schema, dict) else ""
        if not _is_name(name):
            remarks.append(f"Give {name!r} ({types.of(schema, name)}) as **{{{name!r}: ...}}. {about}".strip())
        elif isinstance(about, str) and about:
            remarks.append(f"{name}: {about}")
    text = "\n    ".join("\n".join(each for each in remarks if each).replace('"""', "'''").splitlines())
    head = f"async def {python_name(spec.name)}({', '.join(given)}) -> Any:"
    return "\n".join([*types.classes, head, f'    """{text}"""' if text else "    ..."])


def _properties(spec: ToolSpec) -> dict[str, Any]:
    return {
        name: schema for part in certain_parts(spec.parameters) for name, schema in part.get("properties", {}).items()
    }


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def _is_taken(name: str) -> bool:
    return keyword.iskeyword(name) or hasattr(builtins, name)


class _Types:
    """The annotations of one tool's arguments; objects with names of their own become classes."""

    def __init__(self, spec: ToolSpec) -> None:
        self._root = spec.parameters
        self._prefix = "".join(part.capitalize() for part in python_name(spec.name).split("_"))
        self._names: dict[str, str] = {}
        self._titles: set[str] = set()
        self.classes: list[str] = []

    def of(self, schema: Any, name: str, depth: int = 0) -> str:
        """Return the annotation of a schema; `Any` where it says nothing that an annotation could."""
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return "Any"
        if "$ref" in schema:
            return self._referred(schema["$ref"], depth)
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if choices is not None:
            plain = all(isinstance(each, str | int | bool | None) for each in choices)
            return f"Literal[{', '.join(map(repr, choices))}]" if plain and choices else "Any"
        ways = schema.get("anyOf") or schema.get("oneOf")
        if ways:
            return _union(self.of(each, name, depth + 1) for each in ways)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return _union(self._kind({**schema, "type": kind}, kind, name, depth) for kind in kinds)
        return self._kind(schema, kinds, name, depth)

    def _kind(self, schema: Mapping[str, Any], kind: Any, name: str, depth: int) -> str:
        if kind == "array":
            return f"list[{self.of(schema.get('items', True), name, depth + 1)}]"
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, name, depth)
        return _TYPES.get(kind, "Any") if isinstance(kind, str) else "Any"

    def _object(self, schema: Mapping[str, Any], name: str, depth: int) -> str:
        properties = schema.get("properties") or {}
        if not properties or not all(map(_is_name, properties)):
            others = schema.get("additionalProperties", True)
            return f"dict[str, {self.of(others, name, depth + 1)}]" if isinstance(others, dict) else "dict[str, Any]"
        title = self._prefix + "".join(part.capitalize() for part in name.split("_"))
        while title in self._titles:
            title += "_"
        self._titles.add(title)
        lines = [f"class {title}(TypedDict):"]
        for key, inner in properties.items():
            annotation = self.of(inner, key, depth + 1)
            needed = key in schema.get("required", ())
            lines.append(f"    {key}: {annotation if needed else f'NotRequired[{annotation}]'}")
        self.classes.append("\n".join(lines))
        return title

    def _referred(self, reference: str, depth: int) -> str:
        if reference not in self._names:
            self._names[reference] = "Any"  # of one that has itself within it
            steps = steps_of(reference)
            name = "".join(each for each in (steps[-1] if steps else "") if each.isalnum())
            self._names[reference] = self.of(at(self._root, steps), name, depth + 1)
        return self._names[reference]


def _union(annotations: Iterable[str]) -> str:
    found = list(dict.fromkeys(annotations))
    return "Any" if "Any" in found else " | ".join(found)
