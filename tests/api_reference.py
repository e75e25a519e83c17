"""The HTTP API as Markdown, made of the table of its routes, what they take, and the codes it refuses with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airside.actors.api.openapi import document, roles_of, scopes_of
from airside.actors.api.problems import REFUSALS
from airside.actors.api.routes import ROUTES, Route


def reference() -> str:
    """Return a row a route, a section for each with what it takes and returns, and a row a code."""
    made = document()
    routes = ["## Routes", "", "| method and path | does |", "|---|---|", *map(_row, ROUTES)]
    parts = ["\n".join(routes), *("\n".join(_section(route, made)) for route in ROUTES)]
    codes = ["## Refusals", "", "| code | status | means |", "|---|---|---|"]
    codes += [f"| `{code!s}` | {refusal.status} | {refusal.title} |" for code, refusal in REFUSALS.items()]
    return "\n\n".join([*parts, "\n".join(codes)])


def _row(route: Route) -> str:
    summary = route.says.partition(". ")[0].rstrip(".")
    return f"| [`{route.method} {route.path}`](#{route.name}) | {summary.partition(': ')[0]} |"


def _section(route: Route, made: dict[str, Any]) -> Iterator[str]:
    yield f"### {route.name}"
    yield ""
    yield f"`{route.method} {route.path}`: {route.says}"
    yield ""
    yield f"Who may: {roles_of(route.rule)}." + (
        f" A token that is narrowed allows {scopes}." if (scopes := scopes_of(route.rule)) else ""
    )
    operation = made["paths"][route.path][route.method.lower()]
    rows = [_field(p["name"], p["schema"], p.get("description", ""), p["in"]) for p in operation.get("parameters", [])]
    if route.body is not None:
        schema = made["components"]["schemas"][route.body.__name__]
        needed = schema.get("required", [])
        rows += [
            _field(name, each, each.get("description", ""), "body", needed=name in needed)
            for name, each in schema["properties"].items()
        ]
    if rows:
        yield ""
        yield "| takes | in | is |"
        yield "|---|---|---|"
        yield from rows
    yield ""
    yield f"Returns {route.status}: {_shape(route, operation)}."


def _field(name: str, schema: dict[str, Any], said: str, where: str, *, needed: bool = False) -> str:
    notes = [kind_of(schema), said, "needed" if needed or where == "path" else ""]
    notes += [f"default `{schema['default']}`"] if schema.get("default") not in (None, "", 0, False, [], (), {}) else []
    return f"| `{name}` | {where} | {'; '.join(filter(None, notes))} |"


def kind_of(schema: dict[str, Any]) -> str:
    """Return what a schema takes, in a few words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(kind_of(each) for each in schema["anyOf"] if each.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items') or {})}"
    return str(schema.get("type", "any value"))


def _shape(route: Route, operation: dict[str, Any]) -> str:
    if route.reply is None:
        return f"`{route.media.partition(';')[0]}`"
    schema = operation["responses"][str(route.status)]["content"]["application/json"]["schema"]
    return kind_of(schema)
