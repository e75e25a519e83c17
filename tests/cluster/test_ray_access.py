"""Orders and questions by credential on a running stack: two tenants, none of which reaches the other, and a house."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import airside
from airside import ReasonCode
from airside.actors.client.client import Stack
from airside.actors.rpc.methods import LOOK, OPERATE, OrderReply, PresentedOrder, PresentedQuestion, QuestionReply
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.errors import Refused
from tests.apps.notes import create_app
from tests.on_ray import BOUND_S, call, in_doubt, ledger_of, submit, told, until, waiting

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEEING = Principal(roles=["operator", "auditor"])


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of two tenants and a house, each with an operator who is an auditor too."""
    folder = tmp_path_factory.mktemp("access")
    app = create_app(folder, "")
    assert isinstance(app.directory, Directory)
    notes = app.directory.tenants["acme"]
    tenants = {
        name: Tenant(principals={**notes.principals, "op": SEEING}, limits=notes.limits) for name in ("acme", "beta")
    }
    directory = Directory(house="ours", tenants={**tenants, "ours": Tenant(principals={"op": SEEING})})
    with airside.start(
        dataclasses.replace(app, directory=directory), stack="access", state_dir=folder, executors=1
    ) as started:
        yield started


def order(stack: Stack, who: str, action: str, scope: str, target: str, **fields: Any) -> OrderReply:
    """Give an order as the operator of a tenant."""
    name, _, tenant = who.partition("@")
    given = PresentedOrder(stack.token(tenant, name), action, scope, target, fields.pop("why", "test"), **fields)
    return told(stack, "ingress", OPERATE, given)


def look(stack: Stack, who: str, view: str, **parameters: Any) -> QuestionReply:
    """Ask as the operator of a tenant."""
    name, _, tenant = who.partition("@")
    asked = PresentedQuestion(stack.token(tenant, name), view, msgspec.json.encode(parameters))
    return told(stack, "ingress", LOOK, asked)


def items(stack: Stack, who: str, view: str, **parameters: Any) -> list[Any]:
    """Return what is listed."""
    reply = look(stack, who, view, **parameters)
    assert not reply.code, reply
    listed: list[Any] = msgspec.json.decode(reply.body)["items"]
    return listed


def test_a_run_is_killed_by_its_tenants_operator_and_cancelled_by_who_asked_for_it(stack: Stack) -> None:
    """By nobody of the other tenant, who is told that there is no such run; the story says who did it."""
    first, second = (submit(stack, call("pay", to=f"x{n}", amount=4)) for n in (1, 2))
    for handle in (first, second):
        waiting(stack, handle.run_id)
        for action in ("kill", "cancel"):
            assert order(stack, "op@beta", action, "run", handle.run_id).code == "unknown"
    assert order(stack, "ana@acme", "kill", "run", first.run_id).code == "wrong_role"
    asked = items(stack, "op@acme", "approvals")
    assert {each["request"]["run_id"] for each in asked} == {first.run_id, second.run_id}
    assert items(stack, "op@beta", "approvals") == [] and len(items(stack, "op@ours", "approvals")) == 2
    assert order(stack, "op@acme", "kill", "run", first.run_id, why="wrong customer").reached == 1
    assert order(stack, "ana@acme", "cancel", "run", second.run_id).reached == 1
    assert first.result(timeout=BOUND_S).reason_code is ReasonCode.KILLED_BY_OPERATOR
    assert second.result(timeout=BOUND_S).reason_code is ReasonCode.CANCELLED
    assert order(stack, "op@acme", "kill", "run", first.run_id).code == "conflict", "it has ended"
    text = msgspec.json.decode(look(stack, "ana@acme", "story", run_id=first.run_id).body)["text"]
    assert "op@acme" in text and "wrong customer" in text
    assert look(stack, "op@beta", "story", run_id=first.run_id).code == "unknown"


def test_a_switch_of_one_tenant_holds_for_it_alone(stack: Stack) -> None:
    """Tools and everything are switched by the house."""
    assert order(stack, "op@beta", "switch_off", "tenant", "acme").code == "unknown"
    assert order(stack, "op@acme", "switch_off", "all", "").code == "wrong_role"
    assert not order(stack, "op@acme", "switch_off", "tenant", "acme", why="breach").code
    with pytest.raises(Refused, match="breach"):
        submit(stack, call("look", topic="x"))
    assert submit(stack, call("look", topic="x"), who="ana@beta").result(timeout=BOUND_S).ok
    assert [each["by"] for each in items(stack, "op@acme", "switches")] == ["op@acme"]
    assert items(stack, "op@beta", "switches") == []
    assert order(stack, "op@beta", "switch_on", "tenant", "acme").code == "unknown"
    assert not order(stack, "op@ours", "switch_on", "tenant", "acme").code and stack.switches() == []
    assert not order(stack, "op@ours", "switch_off", "tenant", "acme").code
    taken = order(stack, "op@acme", "switch_on", "tenant", "acme")
    assert taken.code == "conflict" and "op@ours" in taken.problem, "what the house set it takes back"
    assert not order(stack, "op@ours", "switch_on", "tenant", "acme").code and stack.switches() == []
    assert not order(stack, "op@ours", "switch_off", "tool", "note").code
    assert not order(stack, "op@ours", "switch_on", "tool", "note").code


def test_a_call_in_doubt_is_resolved_by_its_tenants_operator(stack: Stack) -> None:
    """And rolled back is a run by the same; the other tenant sees neither."""
    limits = {"tool_ms": 200, "doubt_wait_s": 60}
    handle = submit(stack, call("wire", to="doubt", amount=7, hang=True), limits=limits)
    in_doubt(stack, handle.run_id)
    (doubt,) = until(lambda: items(stack, "op@acme", "in_doubt"), "the doubt to be listed")
    assert doubt["key"] == f"{handle.run_id}:1" and items(stack, "op@beta", "in_doubt") == []
    said = {"happened": True, "output": b'{"ok":1}'}
    assert order(stack, "op@beta", "settle", "run", doubt["key"], **said).code == "unknown"
    assert order(stack, "op@acme", "settle", "run", doubt["key"], **said).reached == 1
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("doubt") == [7]
    assert order(stack, "op@beta", "rollback", "run", handle.run_id).code == "unknown"
    report = order(stack, "op@acme", "rollback", "run", handle.run_id)
    assert not report.code and msgspec.json.decode(report.report)["run_id"] == handle.run_id


def test_sql_sees_the_tenant_of_who_asks(stack: Stack) -> None:
    """The house's sees all; what is health of the stack, operators are told."""
    for who, tenants in (("op@acme", ["acme"]), ("op@beta", ["beta"]), ("op@ours", ["acme", "airside", "beta"])):
        reply = look(stack, who, "sql", sql="SELECT DISTINCT tenant FROM events ORDER BY tenant")
        assert [row for (row,) in msgspec.json.decode(reply.body)["rows"]] == tenants
    assert look(stack, "ana@acme", "sql", sql="SELECT 1").code == "wrong_role"
    assert look(stack, "op@acme", "sql", sql="ATTACH 'x'").code == "invalid"
    layers = {each["layer"]: each["up"] for each in items(stack, "op@acme", "health")}
    assert layers["journal"] and layers["executor/0"] and layers["ingress"] and "memory" not in layers
    assert [run["tenant"] for run in items(stack, "op@beta", "runs")] == ["beta"]
    assert stack.verify() == []
