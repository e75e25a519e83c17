"""What a layer's pulse says of the items it works through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.driver.driver import Driver
from airside.actors.driver.fleet import Fleet
from airside.actors.policy import Policy
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import CHECK, DECIDE, SPEND
from airside.actors.runtime import RuntimeApp
from airside.actors.settings import Settings
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.gate import Proposed
from airside.stack.ids import RunId
from tests import on_wire
from tests.contract.test_remote_methods import ALLOWED, DIRECTORY, GATE
from tests.helpers import KEY, RUN
from tests.unit.stack.policy.test_gate import request

CONFIG = LayerConfig(Settings(), Path("unused"), seal_key=KEY)


class Told:
    """A pulse that keeps what it was told."""

    def __init__(self) -> None:
        self.inside = RunId("")
        self.left = 0

    def enter(self, run_id: RunId) -> None:
        """Somebody's item takes the loop."""
        assert self.inside == ""
        self.inside = run_id

    def leave(self) -> None:
        """It gave it back."""
        self.inside, self.left = RunId(""), self.left + 1


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("way", ["decide", "decide what is known later", "spend", "check"])
async def test_the_gates_pulse_names_the_run_whose_item_it_is_at_and_nobody_afterwards(way: str, fails: bool) -> None:
    policy, at = Policy(CONFIG, "", [], DIRECTORY), list[str]()
    pulse = policy.pulse = Told()
    policy._started = True

    def work(reply: Any) -> Callable[..., Any]:
        def worked(*_: Any) -> Any:
            at.append(pulse.inside)
            return 1 / 0 if fails else reply

        return worked

    async def answers(_: Any) -> dict[Any, Any]:
        assert pulse.inside == ""  # others have the loop meanwhile
        return {}

    wanted = None if way == "decide" else ()
    gate = SimpleNamespace(
        deny_unreadable=GATE.deny_unreadable, needed_resources=lambda _: wanted, decide=work(ALLOWED)
    )
    gate.spend, gate.check = work(SpendReply()), work("")
    policy._gate, policy._lookups = gate, SimpleNamespace(answers=answers)  # type: ignore[assignment]
    items: dict[str, Any] = {
        "spend": SpendRequest(identity=b"", proof="", run_id=RUN, version="1"),
        "check": Proposed(tool="pay", arguments=b"{}"),
    }
    item = msgspec.msgpack.encode(items.get(way) or request())
    method = {"decide": DECIDE, "spend": SPEND, "check": CHECK}[way.split()[0]]
    await on_wire.answers(policy, method, [item] * 3)
    assert at == ["" if way == "check" else RUN] * 3
    assert pulse.inside == "" and pulse.left >= 3


@given(layer_stall_s=st.floats(0.1, 1e4), lease_s=st.floats(1, 1e4))
def test_the_driver_may_be_held_for_half_a_lease_at_most(layer_stall_s: float, lease_s: float) -> None:
    config = LayerConfig(Settings(layer_stall_s=layer_stall_s, lease_s=lease_s), Path("unused"))
    driver = Driver(config, DIRECTORY, [], "1", Fleet(config, RuntimeApp({}, {}, [], False, "1")))
    assert max(driver.bounds()) == min(layer_stall_s, lease_s / 2)
    assert WatchedLayer(config).bounds().held_s == layer_stall_s
