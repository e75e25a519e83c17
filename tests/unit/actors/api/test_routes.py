"""Every route: what it does for whom it is for, and what everybody else is answered."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from airside.actors.api.messages import Problem
from airside.actors.api.problems import MEDIA_TYPE
from airside.actors.api.routes import OPEN, PATH_IDS, ROUTES, Route
from airside.stack.operations.questions import Nothing
from airside.stack.security.access import ACCESS
from tests.unit.actors.api.double import APPROVAL, PEOPLE, StackDouble, client_of

BODIES: dict[str, dict[str, Any]] = {
    "submit": {"request": "pay it"},
    "agui_submit": {"threadId": "t", "runId": "r", "messages": [{"role": "user", "content": "pay it"}]},
    "edit": {"arguments": {"amount": 2}},
    "answer": {"answer": "yes"},
    "votes": {"approval_ids": [APPROVAL], "verdict": "approve"},
    "kill_all": {"scope": "tenant", "target": "acme"},
    "switch": {"scope": "tenant", "target": "acme", "off": True, "for_s": 60, "why": "audit"},
    "resolve_spend": {"key": "SPEND", "cost_microusd": 5},
    "retune": {"concurrency": 4},
    "requeue": {"job_ids": ["a"]},
    "search": {"text": "lamps"},
    "pin": {"tenant": "acme", "record": "rec_1"},
    "erase": {"tenant": "acme", "record": "rec_1"},
    "sql": {"sql": "select 1"},
}
"""What the routes are sent that need something."""

ALLOWED = {"submit": "ann", "vote": "lea", "keep": "kim", "follow": "audra", "view:memory": "kim", "": ""}
ROLES = {"operator": "olga", "auditor": "audra", "memory_keeper": "kim"}


def name_of(route: object) -> str:
    """Return a route as pytest shows it."""
    return f"{route.method} {route.path}" if isinstance(route, Route) else str(route)


def allowed(route: Route) -> str:
    """Return the credential of somebody who may."""
    if route.rule is not None and route.rule.houses:
        return "root"
    return ALLOWED.get(route.access) or next((ROLES[role] for role in sorted(ACCESS[route.access].roles)[::-1]), "ann")


def path_of(route: Route, run: str) -> str:
    """Return a path that leads to something."""
    ids = {"run_id": run, "approval_id": APPROVAL, "batch": "nightly", "query": "listed"}
    return route.path.format(**ids)


def sent(route: Route, run: str) -> dict[str, Any]:
    """Return what a request of a route has beside its path."""
    if route.body is None:
        return {}
    body = {"target": run, "happened": True} if route.name == "resolve" else BODIES.get(route.name, {})
    return {"json": body | ({"key": f"{run}:1/model@1"} if "key" in body else {})}


@pytest.fixture
def stack() -> StackDouble:
    """A stack."""
    return StackDouble()


CLOSED = [route for route in ROUTES if route.access != OPEN]


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
async def test_who_may_is_answered(stack: StackDouble, route: Route) -> None:
    """With what the table says, and nothing that is between keeps it."""
    stack.ends = True  # as streams do
    run = stack.submitted()
    who = allowed(route) if route.access else ""
    async with client_of(stack, who) as client:
        answer = await client.request(route.method, path_of(route, run), **sent(route, run))
    assert answer.status_code == route.status, answer.text
    assert answer.headers["content-type"].partition(";")[0] == route.media.partition(";")[0]
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    if route.reply is not None:
        msgspec.json.decode(answer.content, type=route.reply)


@pytest.mark.parametrize("route", CLOSED, ids=name_of)
@pytest.mark.parametrize("credential", ["", "Bearer", "Basic ann", "Bearer mallory"])
async def test_who_has_no_credential_is_told_to_have_one(stack: StackDouble, route: Route, credential: str) -> None:
    run = stack.submitted()
    headers = {"authorization": credential} if credential else {}
    async with client_of(stack, "", **headers) as client:
        answer = await client.request(route.method, path_of(route, run), **sent(route, run))
    problem = msgspec.json.decode(answer.content, type=Problem)
    assert answer.status_code == problem.status == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert problem.reason_code.startswith("auth_") and problem.type == f"/problems/{problem.reason_code}"
    assert not (stack.orders or stack.votes or stack.erasures or stack.pins) and len(stack.runs) == 1


@pytest.mark.parametrize("route", CLOSED, ids=name_of)
async def test_a_token_that_is_narrowed_goes_no_further(stack: StackDouble, route: Route) -> None:
    """One for reading runs reads the runs of its principal, and is good for nothing else."""
    run = stack.submitted()
    stack.end(run)
    async with client_of(stack, "reader") as client:
        answer = await client.request(route.method, path_of(route, run), **sent(route, run))
    may = "runs:read" in ACCESS[route.access].own
    assert answer.status_code == (route.status if may else 403), answer.text
    assert may or answer.json()["reason_code"] in ("auth_scope_missing", "wrong_role")


ROLED = [route for route in CLOSED if not ACCESS[route.access].own]


@pytest.mark.parametrize("route", ROLED, ids=name_of)
async def test_who_lacks_the_role_is_refused(stack: StackDouble, route: Route) -> None:
    run = stack.submitted("bob")
    async with client_of(stack, "ann") as client:
        answer = await client.request(route.method, path_of(route, run), **sent(route, run))
    assert answer.status_code == 403 and answer.json()["reason_code"] == "wrong_role"
    assert answer.headers["content-type"] == MEDIA_TYPE


OF_RUNS = [route for route in ROUTES if "run_id" in route.ids or route.name in ("resolve", "resolve_spend")]


@pytest.mark.parametrize("route", OF_RUNS, ids=name_of)
@pytest.mark.parametrize("who", ["gus", "gil", "bob"])
async def test_what_is_anothers_is_what_does_not_exist(stack: StackDouble, route: Route, who: str) -> None:
    """Another tenant's run, or another's where no role is held: word for word the same but for the id."""
    run, none = stack.submitted("ann"), "run_" + "0" * 24
    stack.end(run)
    async with client_of(stack, who) as client:
        there = await client.request(route.method, path_of(route, run), **sent(route, run))
        not_there = await client.request(route.method, path_of(route, none), **sent(route, none))
    assert there.status_code == not_there.status_code in (403, 404)
    assert there.text.replace(run, "RUN") == not_there.text.replace(none, "RUN")
    rule = ACCESS[route.access]
    assert (there.status_code == 403) == (rule.houses or (who != "gil" and not rule.own))


@pytest.mark.parametrize("route", [route for route in ROUTES if "approval_id" in route.ids], ids=name_of)
async def test_an_approval_of_another_tenant_is_none(stack: StackDouble, route: Route) -> None:
    async with client_of(stack, "gil") as client:
        other = APPROVAL.replace("b", "c")
        answer = await client.request(route.method, route.path.format(approval_id=other), **sent(route, ""))
    assert answer.status_code == 404 and answer.json()["reason_code"] == "unknown"


@pytest.mark.parametrize("route", [route for route in ROUTES if route.ids], ids=name_of)
@pytest.mark.parametrize("text", ["x y", "..", "run_1", "*", "%27", "é", "A" * 500, "%00"])
async def test_what_is_no_id_is_refused_before_anything_is_asked(stack: StackDouble, route: Route, text: str) -> None:
    """By the same parsers as everywhere, so that nothing odd reaches a query or a name."""
    path = route.path.format(**dict.fromkeys(route.ids, text))
    async with client_of(stack, allowed(route)) as client:
        answer = await client.request(route.method, path, **sent(route, ""))
    if text != "run_1" or not {"batch", "query"} & set(route.ids):
        assert answer.status_code in (400, 404, 405), answer.text
        assert not stack.questions and not stack.orders and not stack.votes


TAKES = [route for route in ROUTES if route.body is not None]


@pytest.mark.parametrize("route", TAKES, ids=name_of)
async def test_what_a_body_must_not_be_is_said(stack: StackDouble, route: Route) -> None:
    """Where it is wrong, and nothing is done."""
    run = stack.submitted()
    whole = sent(route, run)["json"]
    cases: list[tuple[bytes, str, int, str]] = [
        (b"{", "application/json", 400, "line 1 column 2"),
        (b'{"a": 1, "a": 2}', "application/json", 400, "twice"),
        (b"\xff\xfe{}", "application/json", 400, "body"),
        (b'{"why": NaN}', "application/json", 400, "NaN"),
        (b"[" * 100_000, "application/json", 400, "body"),
        (b"[]", "application/json", 422, "object"),
        (b"null", "application/json", 422, "object"),
        (json.dumps(whole | {"surplus": 1}).encode(), "application/json", 422, "surplus"),
        (json.dumps(whole).encode() or b"{}", "text/plain", 415, "Content-Type"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "Content-Type"),
        (b'{"x": "' + b"y" * 3_000_000 + b'"}', "application/json", 413, "bytes"),
    ]
    takes_more = not route.body.__struct_config__.forbid_unknown_fields  # type: ignore[union-attr]
    async with client_of(stack, allowed(route)) as client:
        for body, media, status, said in cases:
            if said == "surplus" and takes_more:  # by the protocol it is passed over
                continue
            headers = {"content-type": media}
            answer = await client.post(path_of(route, run), content=body, headers=headers)
            assert answer.status_code == status and said in answer.text, (body[:40], answer.text)
            assert answer.headers["content-type"] == MEDIA_TYPE
    assert not (stack.orders or stack.votes or stack.erasures or stack.pins)
    assert set(map(type, stack.questions)) <= {Nothing}, "of a body that is large it is asked who sends it"


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
async def test_a_query_has_the_names_it_has(stack: StackDouble, route: Route) -> None:
    """Each once, and with a value of its type."""
    run = stack.submitted()
    names = route.query.__struct_fields__ if route.query else ()
    wrong = ["surplus=1", "%zz=1", "a", "=", *(f"{name}=1&{name}=1" for name in names), "limit=0", "since=soon"]
    async with client_of(stack, allowed(route) if route.access else "") as client:
        for query in wrong:
            answer = await client.request(route.method, f"{path_of(route, run)}?{query}", **sent(route, run))
            assert answer.status_code == 400, (query, answer.text)


def test_every_id_of_a_path_is_read_by_something() -> None:
    """And every access is a row of the table; no two routes have a name, or a method and path."""
    assert {name for route in ROUTES for name in route.ids} == set(PATH_IDS)
    assert {route.access for route in ROUTES} <= {OPEN, *ACCESS}
    assert len({route.name for route in ROUTES}) == len({(r.method, r.path) for r in ROUTES}) == len(ROUTES)
    assert all(route.says for route in ROUTES) and set(PEOPLE) >= {allowed(route) for route in CLOSED}
