"""What a layer's pulse says of the items it works through, and what is sent again to a layer that died."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.actors.driver import Driver
from airside.actors.fleet import Fleet
from airside.actors.layer import LayerConfig
from airside.actors.policy import Policy
from airside.actors.runtime import RuntimeApp
from airside.actors.settings import Settings
from airside.actors.stubs import Remote
from airside.actors.watched import WatchedLayer
from airside.stack.errors import LayerUnavailable
from airside.stack.gate import Proposed
from airside.stack.ids import RunId
from airside.stack.metering import SpendReply, SpendRequest
from tests.helpers import KEY, RUN
from tests.test_gate import request
from tests.test_list_methods import ALLOWED, DIRECTORY, GATE

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
    gate = SimpleNamespace(unreadable=GATE.unreadable, wanted=lambda _: wanted, decide=work(ALLOWED))
    gate.spend, gate.check = work(SpendReply()), work("")
    policy._gate, policy._lookups = gate, SimpleNamespace(answers=answers)  # type: ignore[assignment]
    items: dict[str, Any] = {
        "spend": SpendRequest(identity=b"", proof="", run_id=RUN, version="1"),
        "check": Proposed(tool="pay", arguments=b"{}"),
    }
    item = msgspec.msgpack.encode(items.get(way) or request())
    await getattr(policy, way.split()[0])([item] * 3)
    assert at == ["" if way == "check" else RUN] * 3
    assert pulse.inside == "" and pulse.left >= 3


@given(layer_stall_s=st.floats(0.1, 1e4), lease_s=st.floats(1, 1e4))
def test_the_driver_may_be_held_for_half_a_lease_at_most(layer_stall_s: float, lease_s: float) -> None:
    config = LayerConfig(Settings(layer_stall_s=layer_stall_s, lease_s=lease_s), Path("unused"))
    driver = Driver(config, DIRECTORY, [], "1", Fleet(config, RuntimeApp({}, {}, [], False, "1")))
    assert max(driver.bounds()) == min(layer_stall_s, lease_s / 2)
    assert WatchedLayer(config).bounds().held_s == layer_stall_s


class Dying(Remote):
    """A layer that dies of some items, and answers the others."""

    def __init__(self, deadly: set[bytes], dies: Callable[[], Awaitable[None]]) -> None:
        super().__init__(Settings(), "policy")
        self._deadly = deadly
        self._dies = dies
        self.sent: list[list[bytes]] = []

    async def call(self, method: str, *args: Any) -> Any:
        """Answer a batch, or die of it."""
        (batch,) = args
        self.sent.append(batch)
        if self._deadly & set(batch):
            await self._dies()
            raise LayerUnavailable("it died")
        return [msgspec.msgpack.encode(item.decode()) for item in batch]


async def test_what_nobody_waits_for_any_more_is_not_sent_to_a_layer_that_died_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airside.actors.stubs._FIRST_PAUSE_S", 0.0)
    deaths: list[int] = []

    async def die() -> None:
        deaths.append(1)
        if len(deaths) == 2:
            guilty.cancel()

    remote = Dying({b"deadly"}, die)
    call = remote.coalesced("decide", str, encoder=lambda item: item)
    guilty, *others = (asyncio.ensure_future(call(item)) for item in (b"deadly", b"a", b"b"))
    assert await asyncio.gather(*others) == ["a", "b"]
    assert guilty.cancelled() and len(deaths) == 2
    assert remote.sent[0] == [b"deadly", b"a", b"b"] and remote.sent[-1] == [b"a", b"b"]
