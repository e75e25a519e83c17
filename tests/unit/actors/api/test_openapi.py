"""The OpenAPI document describes what is served: what it allows is taken, what it does not is refused as it says."""

from __future__ import annotations

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from airside.actors.api.openapi import document
from airside.actors.api.routes import ROUTES
from airside.actors.api.server import http_api
from tests.unit.actors.api.double import StackDouble

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 4
"""Of each route: enough to find what is forgotten, and few enough for every run of the tests."""

stack = StackDouble()
schema = schemathesis.openapi.from_asgi("/v1/openapi.json", http_api(stack, ["testserver"]))


@schema.exclude(path="/v1/runs/{run_id}/events").parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.parametrize("who", ["ann", "gil"])
def test_whatever_comes_is_answered_as_the_document_says(case: schemathesis.Case, who: str) -> None:
    """By whomever; and nothing that anybody sends is an error of ours."""
    case.call_and_validate(headers={"authorization": f"Bearer {who}"}, checks=CHECKS)


def test_the_document_has_every_route_and_type() -> None:
    """Each with who may, its refusals, and references that lead somewhere."""
    made = document()
    assert {(m.upper(), p) for p, each in made["paths"].items() for m in each} == {(r.method, r.path) for r in ROUTES}
    text = msgspec.json.encode(made).decode()
    for name in made["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, f"{name} is described and not used"
    for reference in {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in made["components"]["schemas"]
    for each in made["paths"].values():
        for operation in each.values():
            assert "Who may: " in operation["description"] and "default" in operation["responses"]
