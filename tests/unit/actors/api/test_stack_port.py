"""A stack behind the API: found again where it was started anew, once for all who ask meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from airside.actors.api.stack_port import StackConnection
from airside.actors.client.steps import Pause, Steps
from airside.actors.rpc.methods import LOOK, PresentedQuestion, QuestionReply
from airside.stack.errors import InvalidInput, LayerUnavailable, Misuse

ASKED = PresentedQuestion("c", "runs")


class Connected:
    """A connection to a stack that may be gone, or refuse what it is sent."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.is_closed = False
        self.looks = 0

    def call(self, *_: Any, within_s: float | None) -> Steps[QuestionReply]:
        """Answer, or raise."""
        assert within_s
        yield Pause(0)
        if self.error is not None:
            raise self.error
        return QuestionReply(body=b"[]")

    def stats(self, layers: Sequence[str], *, within_s: float) -> dict[str, Any]:
        """Say how layers are."""
        self.looks += 1
        if self.error is not None:
            raise self.error
        return {layer: {} for layer in layers}

    def close(self) -> None:
        """Disconnect."""
        self.is_closed = True


def port_of(*connections: Connected | Exception) -> tuple[StackConnection, list[Connected | Exception]]:
    """Return a port that finds these, one after the other, and those that it has not found yet."""
    left = list(connections)

    def attach() -> Any:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return StackConnection(attach), left


async def test_the_stack_in_its_place_is_found_once_for_all() -> None:
    gone, there = Connected(Misuse("it is gone")), Connected()
    port, left = port_of(gone, there)
    replies = await asyncio.gather(*(port.ask(LOOK, ASKED) for _ in range(5)))
    assert [each.body for each in replies] == [b"[]"] * 5 and gone.is_closed and not left
    port.close()
    assert there.is_closed


@pytest.mark.parametrize("error", [Misuse("none is up"), LayerUnavailable("it does not say whose it is")])
async def test_where_there_is_none_it_is_said_and_looked_for_again(error: Exception) -> None:
    port, _ = port_of(Connected(Misuse("it is gone")), error, Connected())
    with pytest.raises(LayerUnavailable, match="the stack is gone"):
        await port.ask(LOOK, ASKED)
    assert (await port.ask(LOOK, ASKED)).body == b"[]"


async def test_what_cannot_be_sent_is_no_sign_that_it_is_gone() -> None:
    port, left = port_of(Connected(InvalidInput("no text")), Connected())
    with pytest.raises(InvalidInput):
        await port.ask(LOOK, ASKED)
    assert len(left) == 1


async def test_it_is_looked_at_once_however_many_ask() -> None:
    there, gone = Connected(), Connected(Misuse("it is gone"))
    port, other = port_of(there)[0], port_of(gone, Misuse("none is up"))[0]
    assert await asyncio.gather(*(port.is_ready() for _ in range(9))) == [True] * 9 and there.looks == 1
    assert not await other.is_ready()
    anew = port_of(Connected(Misuse("it is gone")), there)[0]
    assert await anew.is_ready(), "whoever asks only this finds the stack that was started in its place"
