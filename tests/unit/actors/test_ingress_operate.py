"""Orders by credential: what is within reach goes to the driver under the seal, what is not is as if it were not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.driver.admissions import open_operator_order
from airside.actors.ingress import Ingress
from airside.actors.operating import SCOPES
from airside.actors.rpc.layer import LayerConfig, now_us
from airside.actors.rpc.methods import (
    BODIES,
    OPERATE,
    ORDER,
    ROLL_BACK,
    OrderReply,
    PresentedOrder,
)
from airside.actors.settings import Settings
from airside.stack.directory import load_directory
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.operations.batches import BatchChange, BatchChanged
from airside.stack.operations.messages import Order
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.run.events import encode_event
from airside.stack.security.access import ACCESS
from airside.stack.security.authenticator import issue_token
from tests import on_wire
from tests.helpers import KEY, submitted
from tests.unit.stack.security.test_authenticator import SIGNER, pem_of, public_of

TENANTS = """
tenants:
  acme: {principals: {ann: {}, bob: {}, op: {roles: [operator]}, lea: {roles: [auditor]}}}
  beta: {principals: {eve: {roles: [operator, auditor, memory_keeper]}}}
  ours: {principals: {root: {roles: [operator]}, kept: {roles: [memory_keeper]}}}
"""
ANNS = "run_" + "a" * 24
GONE = "run_" + "0" * 24
PAUSE = msgspec.json.encode(BatchChange(action="pause"))


def _batch(stream: str) -> list[str]:
    """Return the events of a batch, of which there are two."""
    tenant = {"batch:nightly": "acme", "batch:houses": ""}.get(stream)
    if tenant is None:
        return []
    opened = BatchChanged(at_us=1, by=PrincipalId("x"), change=BatchChange(action="open", tenant=TenantId(tenant)))
    return [msgspec.json.encode(opened).decode()]


class Layers:
    """A journal with a run of Ann's and two batches, and a driver that notes the orders it is given."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.problem = ""
        self.away = False

    async def call(self, method: Any, asked: Any) -> Any:
        """Answer."""
        if method is BODIES:
            return {each: _batch(each) if each.startswith("batch:") else _bodies(each) for each in asked}
        if self.away:
            raise LayerUnavailable("driver: it is away")
        order, problem = open_operator_order(KEY, asked, now_us())
        assert order is not None, problem
        self.orders.append(order)
        if method is ROLL_BACK:
            report = RollbackReport(run_id=RunId(ANNS))
            return msgspec.msgpack.encode(report), self.problem
        assert method is ORDER
        return 1, self.problem


def _bodies(run: str) -> list[str]:
    if run != ANNS:
        return []
    first = submitted()
    who = msgspec.structs.replace(first.identity, tenant=TenantId("acme"), principal=PrincipalId("ann"))
    return [encode_event(msgspec.structs.replace(first, identity=who)).decode()]


async def ingress(layers: Layers, house: str = "") -> Ingress:
    """Return an Ingress that asks these layers."""
    directory = load_directory(TENANTS + (f"house: {house}\n" if house else ""))
    made = Ingress(LayerConfig(Settings(), Path("unused"), seal_key=KEY), directory, public_of(SIGNER))
    await made.ready()
    made._journal = made._driver = layers  # type: ignore[assignment]
    return made


def token(who: str, **claims: Any) -> str:
    """Return the token of a principal, `name@tenant`."""
    principal, _, tenant = who.partition("@")
    return issue_token(
        pem_of(SIGNER), tenant=tenant, principal=principal, now_s=int(time.time()), ttl_s=60, claims=claims
    )


def order(who: str, action: str = "kill", scope: str = "run", target: str = ANNS, **fields: Any) -> PresentedOrder:
    """Return an order of somebody's."""
    claims = {"scope": fields.pop("only")} if "only" in fields else {}
    return PresentedOrder(token(who, **claims), action, scope, target, fields.pop("why", "because"), **fields)


async def given(it: Ingress, asked: PresentedOrder) -> OrderReply:
    """Return what becomes of an order."""
    return await on_wire.ask(it, OPERATE, asked)


RUN_ORDERS = [
    ("kill", ANNS, {}),
    ("cancel", ANNS, {}),
    ("settle", f"{ANNS}:3", {"happened": True, "output": b'{"a":1}'}),
    ("rollback", ANNS, {}),
    ("switch_off", ANNS, {"until_us": 9}),
    ("switch_on", ANNS, {}),
]


@pytest.mark.parametrize(("action", "target", "fields"), RUN_ORDERS)
async def test_an_operators_order_reaches_the_driver_sealed_and_in_his_name(
    action: str, target: str, fields: dict[str, Any]
) -> None:
    """With everything that it says; a rollback's report comes back as JSON."""
    layers = Layers()
    reply = await given(await ingress(layers), order("op@acme", action, "run", target, **fields))
    (found,) = layers.orders
    said = {"action": action, "scope": "run", "target": target, "by": "op@acme", "why": "because", "tenant": "acme"}
    said |= fields
    assert {name: getattr(found, name) for name in said} == said
    assert reply.code == "" and (reply.reached == 1 or msgspec.json.decode(reply.report)["run_id"] == ANNS)


@pytest.mark.parametrize(("action", "target", "fields"), RUN_ORDERS)
@pytest.mark.parametrize("who", ["ann@acme", "bob@acme", "lea@acme", "eve@beta", "kept@ours", "root@ours"])
async def test_who_may_not_gets_nothing_to_the_driver(
    who: str, action: str, target: str, fields: dict[str, Any]
) -> None:
    """What is another's is answered as what is not there; but who asked for a run may cancel it."""
    layers = Layers()
    it = await ingress(layers)
    reply = await given(it, order(who, action, "run", target, **fields))
    if (who, action) == ("ann@acme", "cancel"):
        assert [each.by for each in layers.orders] == ["ann@acme"] and not reply.code
        return
    other = await given(it, order(who, action, "run", target.replace(ANNS, GONE), **fields))
    assert layers.orders == [] and reply.code in ("wrong_role", "unknown")
    assert (reply.code, reply.problem) == (other.code, other.problem.replace(GONE, ANNS))


@pytest.mark.parametrize("action", ["kill", "cancel", "switch_off", "switch_on"])
async def test_other_tenants_are_as_unknown_as_those_there_are_not(action: str) -> None:
    """And tools, versions and everything are of the house alone."""
    layers = Layers()
    it = await ingress(layers)
    assert not (await given(it, order("op@acme", action, "tenant", "acme"))).code
    replies = [await given(it, order("op@acme", action, "tenant", name)) for name in ("beta", "gone")]
    said = [(reply.code, reply.problem.replace("gone", "beta")) for reply in replies]
    assert said == [("unknown", "there is no tenant beta")] * 2
    for scope in SCOPES[action]:
        if scope in ("tool", "version", "all"):
            target = "" if scope == "all" else "x"
            assert (await given(it, order("op@acme", action, scope, target))).code == "wrong_role"
        elif scope == "principal":
            assert not (await given(it, order("op@acme", action, scope, "acme/ann"))).code
            for name in ("beta/eve", "gone/eve"):
                assert (await given(it, order("op@acme", action, scope, name))).code == "unknown"
            assert (await given(it, order("op@acme", action, scope, "acme"))).code == "invalid"
    assert {each.target for each in layers.orders} <= {"acme", "acme/ann"}


async def test_the_houses_operators_order_everything_there_is() -> None:
    """By roles of the house: its keepers of memory do not, nor does anybody where no house is named."""
    layers = Layers()
    it = await ingress(layers, house="ours")
    wanted = [("kill", "run", ANNS), ("kill", "tenant", "acme"), ("kill", "all", ""), ("switch_off", "tool", "pay")]
    for action, scope, target in wanted:
        assert not (await given(it, order("root@ours", action, scope, target))).code
        assert (await given(it, order("kept@ours", action, scope, target))).code == "wrong_role"
        assert (await given(await ingress(Layers()), order("root@ours", action, scope, target))).code
    assert [(o.action, o.scope, o.target) for o in layers.orders] == wanted
    assert {(o.by, o.tenant) for o in layers.orders} == {("root@ours", "")}
    assert (await given(it, order("root@ours", "kill", "tenant", "gone"))).code == "unknown"
    assert (await given(it, order("root@ours", "kill", "run", GONE))).code == "unknown"


async def test_what_an_attempt_cost_the_house_says() -> None:
    """What is given back is the organisation's too: a tenant's operator would pay himself."""
    layers = Layers()
    it = await ingress(layers, house="ours")
    said = {"tokens": 5, "cost_microusd": 7}
    for run in (ANNS, GONE):
        reply = await given(it, order("op@acme", "resolve_spend", "run", f"{run}:3/model@1", **said))
        assert reply.code == "wrong_role"
    assert (await given(it, order("root@ours", "resolve_spend", "run", f"{GONE}:3/model@1", **said))).code == "unknown"
    assert not (await given(it, order("root@ours", "resolve_spend", "run", f"{ANNS}:3/model@1", **said))).code
    assert [(o.tokens, o.cost_microusd) for o in layers.orders] == [(5, 7)]
    for wrong in ({"cost_microusd": -1}, {"tokens": 2**60}):
        reply = await given(it, order("root@ours", "resolve_spend", "run", f"{ANNS}:3/model@1", **wrong))
        assert reply.code == "invalid"
    assert (await given(it, order("root@ours", "resolve_spend", "run", ANNS))).code == "invalid"


@pytest.mark.parametrize(
    ("who", "batch", "code"),
    [
        ("op@acme", "nightly", ""),
        ("op@acme", "houses", "unknown"),
        ("root@ours", "houses", ""),
        ("root@ours", "nightly", ""),
        ("op@acme", "gone", "unknown"),
        ("eve@beta", "nightly", "unknown"),
        ("ann@acme", "nightly", "wrong_role"),
    ],
)
async def test_a_batch_is_of_the_tenant_that_its_first_entry_names(who: str, batch: str, code: str) -> None:
    """What begins, takes up and leaves one is said by who runs it, and by no order."""
    layers = Layers()
    it = await ingress(layers, "ours")
    assert (await given(it, order(who, "batch", "all", batch, output=PAUSE))).code == code
    assert [each.output for each in layers.orders] == ([PAUSE] if not code else [])
    if not code:
        taken = msgspec.json.encode(BatchChange(action="take_up", owner="me"))
        for output in (taken, b"null", b"{", b'{"action":"explode"}'):
            assert (await given(it, order(who, "batch", "all", batch, output=output))).code == "invalid"
        assert len(layers.orders) == 1


@pytest.mark.parametrize(
    ("action", "scope", "target", "fields"),
    [
        ("explode", "run", ANNS, {}),
        ("", "run", ANNS, {}),
        ("kill", "principal", "acme/ann", {}),
        ("kill", "tool", "pay", {}),
        ("kill", "run", "run_x", {}),
        ("kill", "run", "", {}),
        ("kill", "tenant", "ACME", {}),
        ("rollback", "tenant", "acme", {}),
        ("rollback", "run", f"{ANNS}:3", {}),
        ("switch_off", "run", ANNS, {"until_us": -1}),
        ("kill", "run", ANNS, {"why": "w" * 1001}),
        ("settle", "run", ANNS, {"output": b"1" * (2**21 + 1)}),
    ],
)
async def test_an_order_that_can_mean_nothing_is_invalid(
    action: str, scope: str, target: str, fields: dict[str, Any]
) -> None:
    """Whoever gives it, the driver is not told."""
    layers = Layers()
    it = await ingress(layers)
    assert (await given(it, order("op@acme", action, scope, target, **fields))).code == "invalid"
    assert layers.orders == []


async def test_a_credential_that_is_none_or_too_narrow_is_refused_first() -> None:
    """Before it is said whether there is such an action."""
    layers = Layers()
    it = await ingress(layers)
    for action in ("kill", "explode"):
        assert (await given(it, PresentedOrder("junk", action, "run", ANNS))).code.startswith("auth_")
    assert (await given(it, order("op@acme", only="runs:read runs:write audit"))).code == "auth_scope_missing"
    assert not (await given(it, order("op@acme", only="operate"))).code and len(layers.orders) == 1


async def test_what_the_driver_says_no_to_or_does_not_answer_is_told_apart() -> None:
    """The one may be meant otherwise, the other be given again."""
    layers = Layers()
    it = await ingress(layers)
    layers.problem = "no live run"
    for action in ("kill", "rollback"):
        reply = await given(it, order("op@acme", action))
        assert (reply.code, reply.problem, reply.report) == ("conflict", "no live run", b"")
    layers.away = True
    assert (await given(it, order("op@acme"))).code == "unavailable"


def test_every_order_of_the_table_has_its_scopes() -> None:
    """And no other has."""
    assert {f"order:{action}" for action in SCOPES} == {name for name in ACCESS if name.startswith("order:")}
