"""How a layer answers a batch that came over Ray: a ticket for what is slow, and none for what is merely many."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from airside.actors.rpc import layer as layers
from airside.actors.rpc.layer import GRACE_S, Layer, LayerConfig
from airside.actors.rpc.methods import RESOLVE
from airside.actors.rpc.serving import REFUSED, TICKET, serves
from airside.actors.settings import Settings
from airside.stack.errors import LayerUnavailable
from tests import on_wire

MANY = 60

Handler = Callable[[bytes], Awaitable[bytes]]


class Asked(Layer):
    """A layer that answers as the test says."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(LayerConfig(Settings(), Path("unused")))
        self._handler = handler
        self._started = True

    @serves(RESOLVE)
    def resolve(self, question: bytes) -> Awaitable[bytes]:
        """Answer."""
        return self._handler(question)


async def sent(layer: Layer, *batch: bytes) -> list[bytes]:
    """Send a batch and return its answers, tickets among them."""
    return await on_wire.answers(layer, RESOLVE, [RESOLVE.request.encode(item) for item in batch], whole=False)


async def test_a_batch_that_takes_longer_to_begin_than_the_grace_gets_no_tickets() -> None:
    """Each ticket is a call of its own: a busy layer would be kept busy by what it says of being so."""

    async def handle(item: bytes) -> bytes:
        until = time.perf_counter() + 2 * GRACE_S / MANY
        while time.perf_counter() < until:  # its work; what it waits for then is done elsewhere, soon
            pass
        loop, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        loop.call_soon(loop.call_soon, answer.set_result, item)
        return bytes(await answer)

    batch = [b"%d" % at for at in range(MANY)]
    assert [on_wire.replied(RESOLVE, answer) for answer in await sent(Asked(handle), *batch)] == batch


async def test_what_is_slow_is_answered_by_a_ticket_and_its_neighbours_are_answered() -> None:
    slow = asyncio.get_running_loop().create_future()

    async def handle(item: bytes) -> bytes:
        return bytes(await slow) if item == b"slow" else item

    it = Asked(handle)
    first, ticket, last = await sent(it, b"1", b"slow", b"2")
    assert [on_wire.replied(RESOLVE, answer) for answer in (first, last)] == [b"1", b"2"]
    assert ticket.startswith(TICKET)
    slow.set_result(b"late")
    assert on_wire.replied(RESOLVE, await it.collect(ticket)) == b"late"


async def test_a_ticket_is_collected_once_also_for_what_fails_in_the_end() -> None:
    slow = asyncio.get_running_loop().create_future()

    async def handle(item: bytes) -> bytes:
        return bytes(await slow)

    it = Asked(handle)
    (ticket,) = await sent(it, b"slow")
    slow.set_exception(LayerUnavailable("journal: away"))
    with pytest.raises(LayerUnavailable, match="away"):
        on_wire.replied(RESOLVE, await it.collect(ticket))
    assert it._pending == {}


async def test_a_ticket_that_nobody_collects_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "TICKET_LIFE_S", 0.0)
    slow = asyncio.get_running_loop().create_future()

    async def handle(item: bytes) -> bytes:
        return bytes(await slow)

    it = Asked(handle)
    await sent(it, b"slow")
    slow.set_result(b"late")
    async with asyncio.timeout(60):
        while it._pending:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)


async def test_a_flood_of_what_cannot_be_handled_is_answered_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """And after each item the pulse is told, so that a busy loop is not taken for a held one."""

    class Counted(Asked):
        def resolve(self, question: bytes) -> Awaitable[bytes]:
            raise ValueError("no")

        resolve = serves(RESOLVE)(resolve)

    it, left = Counted(lambda item: asyncio.sleep(0, item)), []
    it.pulse.leave = lambda: left.append(1)  # type: ignore[method-assign]
    answers = await sent(it, *[b"x"] * MANY)
    assert all(answer.startswith(REFUSED) for answer in answers) and len(left) >= MANY
    assert len([record for record in caplog.records if getattr(record, "action", "") == "item_refused"]) == 1


async def test_a_handler_is_called_without_what_ray_wraps_it_in_and_as_a_kind_of_the_layer_has_it() -> None:
    wrapped: list[str] = []

    class Wrapped(Asked):
        pass

    def wrap(name: str, kind: type) -> None:
        method = getattr(kind, name)

        @functools.wraps(method)
        def wrapper(*args: Any) -> Any:
            wrapped.append(name)
            return method(*args)

        setattr(kind, name, wrapper)

    class Other(Asked):
        async def resolve(self, question: bytes) -> bytes:  # type: ignore[override]
            return b"other"

    async def handle(item: bytes) -> bytes:
        return item

    wrap("resolve", Wrapped)
    for layer, said in ((Wrapped(handle), b"a"), (Other(handle), b"other")):
        assert [on_wire.replied(RESOLVE, answer) for answer in await sent(layer, b"a")] == [said]
    assert wrapped == []
