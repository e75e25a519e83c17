"""The API as an OpenAPI 3.1 document, made of the routes and of the types of what they take and return."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from airside.actors.api.agui_messages import PLACE_FORM
from airside.actors.api.call import JSON
from airside.actors.api.messages import Problem
from airside.actors.api.problems import MEDIA_TYPE
from airside.actors.api.routes import PATH_IDS, ROUTES, Route
from airside.stack.security.access import Rule

HEADERS: dict[str, dict[str, str]] = {
    "submit": {"Idempotency-Key": "^[ -~]+$"},
    "events": {"Last-Event-ID": "^[0-9]{1,15}$"},
    "agui": {"Last-Event-ID": PLACE_FORM},
    "agui_submit": {"Last-Event-ID": PLACE_FORM},
}
"""Which headers a route takes, each with its form."""

_REFS = "#/components/schemas/{name}"
_TITLE = "Airside"
_DESCRIPTION = (
    "What people and services do with a stack, by credential. Every refusal is application/problem+json with a stable "
    "`reason_code`. Times are UTC microseconds, money is millionths of a US dollar."
)


def document() -> dict[str, Any]:
    """Return the document."""
    types = _types()
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFS)
    of = {_key(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of, components)
    queries = {route.query.__name__ for route in ROUTES if route.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": version("airside"), "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in sorted(components.items()) if name not in queries},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "a token, or an API key (`ask_...`)"}
            },
        },
    }


@cache
def document_bytes() -> bytes:
    """Return the document as it is served and committed: indented, so that what changes of it can be read."""
    return (json.dumps(document(), indent=1) + "\n").encode()


def roles_of(rule: Rule | None) -> str:
    """Return who may, in words."""
    if rule is None:
        return "anybody, without a credential"
    found = ["anybody, of what is their own"] if rule.own else []
    if rule.roles:
        found.append(" or ".join(sorted(rule.roles)) + (" of the house" if rule.houses else ""))
    return "; ".join(found)


def scopes_of(rule: Rule | None) -> str:
    """Return by which areas a token that is narrowed must allow it, in words."""
    return " or ".join(sorted(rule.areas | rule.own)) if rule is not None else ""


def _types() -> list[Any]:
    found: dict[str, Any] = {_key(Problem): Problem}
    for route in ROUTES:
        for kind in (route.query, route.body, route.reply):
            if kind is not None:
                found.setdefault(_key(kind), kind)
    return list(found.values())


def _key(kind: Any) -> str:
    return repr(kind)


def _operation(route: Route, of: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    summary, _, more = route.says.partition(". ")
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.path.split("/")[2].removesuffix(".json")],
        "summary": summary.rstrip("."),
        "description": ". ".join(filter(None, (more.rstrip("."), f"Who may: {roles_of(route.rule)}"))) + ".",
        "responses": _responses(route, of),
        "security": [] if route.rule is None else [{"bearer": []}],
    }
    if scopes := scopes_of(route.rule):
        operation["x-airside-scopes"] = scopes
    if parameters := [*_path_parameters(route), *_query_parameters(route, components), *_header_parameters(route)]:
        operation["parameters"] = parameters
    if route.body is not None:
        needed = components[route.body.__name__].get("required", [])
        operation["requestBody"] = {"required": bool(needed), "content": {JSON: {"schema": of[_key(route.body)]}}}
    return operation


def _responses(route: Route, of: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {route.media.partition(";")[0]: {}}
    if route.reply is not None:
        content = {JSON: {"schema": of[_key(route.reply)]}}
    fine = {"description": "It was done.", "content": content}
    problem = {"description": "It was refused.", "content": {MEDIA_TYPE: {"schema": of[_key(Problem)]}}}
    found: dict[str, Any] = {str(route.status): fine, "default": problem}
    if route.name == "result":
        found["202"] = {"description": "It has not ended.", "content": content}
    if "Last-Event-ID" in HEADERS.get(route.name, {}):
        found["204"] = {"description": "The run has ended, and the client has all of it."}
    return dict(sorted(found.items()))


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in route.ids:
        schema = {"type": "string", "pattern": PATH_IDS[name].form}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(route: Route, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if route.query is None:
        return
    found = components[route.query.__name__]
    for name, schema in found["properties"].items():
        plain = {key: value for key, value in schema.items() if key != "description"}
        parameter = {"name": name, "in": "query", "required": name in found.get("required", []), "schema": plain}
        yield parameter | ({"description": schema["description"]} if "description" in schema else {})


def _header_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for header, form in HEADERS.get(route.name, {}).items():
        schema = {"type": "string", "minLength": 1, "maxLength": 256, "pattern": form}
        yield {"name": header, "in": "header", "required": False, "schema": schema}
