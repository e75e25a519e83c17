"""How a layer answers a batch: a ticket for what is slow, and none for what is merely many."""

from __future__ import annotations

import asyncio
import time

from airside.actors.layer import GRACE_S
from airside.actors.serving import TICKET, ListMethod
from tests.test_policy_layer import layer

ECHO: ListMethod[bytes, bytes] = ListMethod(name="echo", decode=bytes, encode=bytes)
MANY = 60


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
    assert await layer().answer_each(ECHO, batch, handle) == batch


async def test_what_is_slow_is_answered_by_a_ticket_and_its_neighbours_are_answered() -> None:
    slow = asyncio.get_running_loop().create_future()

    async def handle(item: bytes) -> bytes:
        return bytes(await slow) if item == b"slow" else item

    it = layer()
    first, ticket, last = await it.answer_each(ECHO, [b"1", b"slow", b"2"], handle)
    assert (first, last) == (b"1", b"2") and ticket.startswith(TICKET)
    slow.set_result(b"late")
    assert await it.collect(ticket) == b"late"
