"""The OpenAPI document describes what is served: what it allows is taken, what it does not is refused as it says."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from airside.actors.api.openapi import document
from airside.actors.api.routes import ROUTES
from airside.actors.api.server import http_api
from tests.unit.actors.api.double import APPROVAL, PEOPLE, StackDouble

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NOBODY = ("", "mallory", "ask_" + "x" * 43)
"""Who has no credential, or one that is none."""

OTHERS = [name for name, who in PEOPLE.items() if who.identity.tenant == "globex"]
SECRET = "quetzal"
"""What only acme's run says."""

stack = StackDouble()
stack.ends = True  # or streams would not
RUN = stack.submitted(text=SECRET)
stack.end(RUN, f'"{SECRET}"'.encode())
THERE = {"run_id": RUN, "approval_id": APPROVAL, "batch": "nightly", "query": "listed"}

schema = schemathesis.openapi.from_asgi("/v1/openapi.json", http_api(stack, ["testserver"]))


def examples(most: int) -> Callable[..., object]:
    """Say how many requests of each route are made up; the same ones each time."""
    return settings(
        max_examples=most,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def ask(case: schemathesis.Case) -> None:
    """Send a request as everybody, and as nobody, to what is there and to what is made up.

    Each is answered as the document says, without an error of ours; of another tenant's it says nothing.
    """
    is_open = "security" in case.operation.definition.raw and not case.operation.definition.raw["security"]
    case.headers = {name: said for name, said in (case.headers or {}).items() if name.lower() != "authorization"}
    made_up = dict(case.path_parameters or {})
    for path in (made_up, {name: THERE[name] for name in made_up}) if made_up else (made_up,):
        case.path_parameters = path
        for who in (*PEOPLE, *NOBODY):
            headers = {"authorization": f"Bearer {who}"} if who else {}
            reply = case.call_and_validate(headers=headers, checks=CHECKS)
            assert reply.status_code >= 400 or is_open or who in PEOPLE, f"{who!r} is nobody"
            assert reply.status_code == 401 or is_open or who, "without a credential nothing else is looked at"
            if who in (*OTHERS, *NOBODY):
                assert SECRET not in reply.text, f"{who} was shown what is another tenant's"


@schema.parametrize()
@examples(2)
def test_whatever_comes_is_answered_as_the_document_says(case: schemathesis.Case) -> None:
    """By whomever; and nothing that anybody sends is an error of ours."""
    ask(case)


@pytest.mark.slow
@schema.parametrize()
@examples(15)
def test_whatever_comes_and_often_is_answered_as_the_document_says(case: schemathesis.Case) -> None:
    """Streams, too, of a run that has ended."""
    ask(case)


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
