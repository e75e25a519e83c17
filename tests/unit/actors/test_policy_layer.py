"""The Policy layer: a call that waits for what its resources are holds no other one back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.policy import Policy
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import DECIDE
from airside.actors.rpc.serving import TICKET
from airside.actors.settings import Settings
from airside.stack.contracts.gate import GateReply
from airside.stack.directory import Directory, Tenant
from airside.stack.resources import Key, ResolveReply, Resource, ResourceLookup
from tests import on_wire
from tests.helpers import KEY, gate_request
from tests.unit.stack.policy.test_kill_switches import switches, thrown
from tests.unit.stack.policy.test_resource_rules import ACME, ALL, World, rule


class Waiting:
    """Lookups that answer when the test says so."""

    def __init__(self) -> None:
        self.known = asyncio.Event()
        self.counts: dict[str, int] = {}
        self.asked = 0

    async def answers(self, wanted: ResourceLookup) -> dict[Key, ResolveReply]:
        """Find everything to be ann's."""
        self.asked += 1
        await self.known.wait()
        return dict.fromkeys(wanted.keys, ResolveReply(state="found", resource=Resource(tenant=ACME, owner="ann")))


def layer() -> Any:
    """Return a Policy layer whose rules ask about orders, without the actors it uses."""
    made: Any = Policy(
        LayerConfig(Settings(), Path("unused"), seal_key=KEY), "", [], Directory(tenants={"acme": Tenant()}), {}
    )
    made._gate = World(rule("deny", "{kind: order, owner: other}"), ALL).gate
    made._lookups = Waiting()

    made._started = True
    return made


def item(arguments: bytes) -> bytes:
    """Return ann's request to change an order, or none."""
    return msgspec.msgpack.encode(gate_request("change", arguments))


async def decide(policy: Any, *items: bytes) -> list[bytes]:
    """Send requests in one batch."""
    return await on_wire.answers(policy, DECIDE, items, whole=False)


def outcome(answer: bytes) -> str:
    """Return what was decided."""
    return msgspec.msgpack.decode(answer, type=GateReply).decision.outcome


async def test_a_call_that_waits_for_its_resource_holds_back_none_that_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is answered by a ticket; its neighbours, and what is no request, at once: no timer is set for them."""
    monkeypatch.setattr("airside.actors.rpc.layer.GRACE_S", 3600)
    policy = layer()
    first, waits, last, noise = await decide(policy, item(b"{}"), item(b'{"order_id":"o1"}'), item(b"{}"), b"noise")
    assert [outcome(first), outcome(last), outcome(noise)] == ["allow", "allow", "deny"]
    assert waits.startswith(TICKET)
    policy._lookups.known.set()
    assert outcome(await policy.collect(waits)) == "allow"
    assert (await policy.stats())["allow"] == 3


async def test_a_kill_switch_that_is_thrown_while_a_call_waits_stops_it() -> None:
    """The call is decided on by what is so when its resources are known."""
    policy = layer()
    neighbour, waits = await decide(policy, item(b"{}"), item(b'{"order_id":"o1"}'))
    assert outcome(neighbour) == "allow" and waits.startswith(TICKET)
    policy._gate.switches = switches(thrown("tenant", "acme"))
    policy._lookups.known.set()
    decided = msgspec.msgpack.decode(await policy.collect(waits), type=GateReply)
    assert decided.decision.reason_code == "switched_off" and not decided.grant
    asked = policy._lookups.asked
    assert outcome((await decide(policy, item(b'{"order_id":"o1"}')))[0]) == "deny" and policy._lookups.asked == asked


async def test_what_breaks_while_a_call_waits_is_a_no() -> None:
    """Whatever it is, and only that call's."""
    policy = layer()

    async def breaks(wanted: ResourceLookup) -> dict[Key, ResolveReply]:
        raise RuntimeError("odd")

    policy._lookups.answers = breaks
    assert [outcome(each) for each in await decide(policy, item(b'{"order_id":"o1"}'))] == ["deny"]


async def test_a_call_whose_resources_are_known_soon_needs_no_ticket() -> None:
    """The answer comes with its batch."""
    policy = layer()
    policy._lookups.known.set()
    assert [outcome(each) for each in await decide(policy, item(b'{"order_id":"o1"}'))] == ["allow"]
