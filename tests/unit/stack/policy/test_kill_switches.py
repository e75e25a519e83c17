"""A kill switch covers what it names and nothing else, until it is taken back or its time is over."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.driver.kill_switches import KillSwitchService
from airside.actors.driver.orders import switch_target
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import REFRESH, Method
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import InvalidInput, LayerUnavailable, Misuse
from airside.stack.ids import PrincipalId, RunId, TenantId, mint_run
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.operations.messages import Order
from airside.stack.policy.kill_switches import STREAM, KillSwitchChanged, KillSwitches

RUN = mint_run(lambda n: b"\1" * n)
ANA = PrincipalId("ana")
ACME = TenantId("acme")
CALL: dict[str, Any] = {"tenant": ACME, "principal": ANA, "version": "v1", "run_id": RUN, "tool": "pay"}


def thrown(scope: Any, target: str = "", *, off: bool = True, at_us: int = 1, until_us: int = 0) -> KillSwitchChanged:
    """Return an event."""
    return KillSwitchChanged(at_us=at_us, scope=scope, target=target, off=off, by=ANA, why="test", until_us=until_us)


def switches(*events: KillSwitchChanged) -> KillSwitches:
    """Return the fold of events, as read back from the journal."""
    return KillSwitches(msgspec.json.encode(event) for event in events)


COVERING = [
    ("all", ""),
    ("tenant", "acme"),
    ("principal", "acme/ana"),
    ("version", "v1"),
    ("run", RUN),
    ("tool", "pay"),
]
OTHERS = [
    ("tenant", "acm"),
    ("principal", "beta/ana"),
    ("principal", "ana"),
    ("version", "v2"),
    ("run", "run_" + "2" * 24),
    ("tool", "look"),
    ("tool", ""),
]


@pytest.mark.parametrize(("scope", "target"), COVERING)
def test_a_switch_covers_its_target_and_a_runs_branches(scope: str, target: str) -> None:
    off = switches(thrown(scope, target))
    blocking = off.blocking(now_us=5, **CALL)
    assert blocking is not None and (blocking.scope, blocking.target) == (scope, target)
    branch = off.blocking(now_us=5, **(CALL | {"run_id": RunId(f"{RUN}.1-0")}))
    assert branch == blocking


@pytest.mark.parametrize(("scope", "target"), OTHERS)
def test_a_switch_covers_nothing_else(scope: str, target: str) -> None:
    assert switches(thrown(scope, target)).blocking(now_us=5, **CALL) is None


def test_admission_has_no_tool_and_no_run_yet() -> None:
    off = switches(thrown("tool", "pay"), thrown("run", RUN))
    assert off.blocking(now_us=5, tenant=ACME, principal=ANA, version="v1") is None


def test_one_that_is_taken_back_or_over_covers_nothing() -> None:
    assert switches(thrown("all"), thrown("all", off=False)).blocking(now_us=5, **CALL) is None
    timed = switches(thrown("all", until_us=10))
    assert timed.blocking(now_us=9, **CALL) is not None and timed.blocking(now_us=10, **CALL) is None
    assert timed.off(9) != [] and timed.off(10) == []


def test_what_is_off_is_listed_oldest_first_and_says_who_and_why() -> None:
    off = switches(thrown("tool", "pay", at_us=3), thrown("all", at_us=2))
    assert [str(s) for s in off.off(5)] == [
        "all is switched off by ana: test",
        "tool pay is switched off by ana: test",
    ]


@given(st.lists(st.tuples(st.sampled_from(COVERING + OTHERS), st.booleans(), st.integers(0, 9)), max_size=12))
def test_it_is_off_exactly_if_the_latest_event_of_a_covering_target_says_so(
    history: list[tuple[tuple[str, str], bool, int]],
) -> None:
    events = [thrown(scope, target, off=off, until_us=until) for (scope, target), off, until in history]
    latest = {place: (off, until) for place, off, until in history}
    expected = any(off and (until == 0 or until > 5) for place, (off, until) in latest.items() if place in COVERING)
    assert (switches(*events).blocking(now_us=5, **CALL) is not None) == expected


class Layers:
    """The journal, which takes its turn, and Policy, which is told."""

    def __init__(self) -> None:
        self.kept = InMemoryJournal()
        self.told = 0

    async def append(self, append: Append) -> AppendReply:
        """Keep entries, once the loop has turned."""
        await asyncio.sleep(0)
        return await self.kept.append(append)

    async def bodies(self, streams: list[str]) -> dict[str, list[str]]:
        """Be read."""
        return await self.kept.bodies(streams)

    async def call(self, method: Method[None, None], request: None) -> None:
        """Be told."""
        assert method is REFRESH
        self.told += 1


def board(layers: Any) -> KillSwitchService:
    """Return a switchboard of two tenants and a tool."""
    return KillSwitchService(layers, layers, tenants=["acme", "beta"], tools=["pay"])


def order(scope: Any, target: str = "", *, until_us: int = 0) -> Order:
    """Return an order to switch something off."""
    return Order(action="switch_off", scope=scope, target=target, by="op", why="", at_us=1, until_us=until_us)


async def test_two_orders_at_once_are_both_thrown() -> None:
    layers = Layers()
    it = board(layers)
    await asyncio.gather(it.set(order("tenant", "acme")), it.set(order("tool", "pay")))
    assert [s.target for s in it.switches.off(1)] == ["acme", "pay"] and layers.told == 2
    assert [s.target for s in KillSwitches(layers.kept.bodies_of(STREAM)).off(1)] == ["acme", "pay"]


async def test_one_whose_end_is_over_is_refused_instead_of_protecting_nobody() -> None:
    layers = Layers()
    it = board(layers)
    with pytest.raises(InvalidInput, match="over already"):
        await it.set(order("all", until_us=now_us() - 5_000_000))
    assert layers.kept.bodies_of(STREAM) == []


@pytest.mark.parametrize("setter", ["", "beta"])
async def test_what_others_switched_off_no_tenant_takes_back(setter: str) -> None:
    """Nor shortens; not even by orders that were given before it was set, and waited for their turn."""
    layers = Layers()
    it = board(layers)
    theirs = msgspec.structs.replace(order("tenant", "acme"), tenant=setter)
    on = Order(action="switch_on", scope="tenant", target="acme", by="op@acme", why="", at_us=1, tenant="acme")
    shorter = msgspec.structs.replace(on, action="switch_off", until_us=now_us() + 60_000_000)
    outcomes = await asyncio.gather(*(it.set(each) for each in (theirs, on, shorter)), return_exceptions=True)
    assert outcomes[0] is None and all(isinstance(outcome, InvalidInput) for outcome in outcomes[1:])
    assert [(s.target, s.tenant, s.until_us) for s in it.switches.off(now_us())] == [("acme", setter, 0)]
    assert len(layers.kept.bodies_of(STREAM)) == 1
    await it.set(msgspec.structs.replace(on, tenant=""))
    await it.set(shorter)
    await it.set(on)
    assert it.switches.off(now_us()) == [], "who runs the stack takes anything back, and a tenant its own"


def test_all_is_not_meant_by_who_names_something() -> None:
    assert switch_target({"all": True}) == ("all", "")
    with pytest.raises(Misuse, match="all is everything"):
        switch_target({"all": "acme"})


class Silent(Layers):
    """A journal or a gate that does not answer until it is let."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.go_on = asyncio.Event()

    async def append(self, append: Append) -> AppendReply:
        """Keep entries, when it may."""
        if self.what == "journal":
            await self.go_on.wait()
        return await super().append(append)

    async def call(self, method: Method[None, None], request: None) -> None:
        """Be told, when it may."""
        if self.what == "gate":
            await self.go_on.wait()
        await super().call(method, request)


@pytest.mark.parametrize(("what", "says"), [("journal", "the journal has not"), ("gate", "on record, so it holds")])
async def test_a_switch_that_a_layer_does_not_confirm_says_what_is_not_known_and_is_gone_on_with(
    what: str, says: str
) -> None:
    layers = Silent(what)
    it = KillSwitchService(layers, layers, tenants=["acme"], tools=["pay"], patience_s=0.01)  # type: ignore[arg-type]
    with pytest.raises(LayerUnavailable, match=says):
        await it.set(order("tool", "pay"))
    layers.go_on.set()
    async with asyncio.timeout(60):
        while not layers.told:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
    assert [s.target for s in it.switches.off(1)] == ["pay"]
