"""What the gateway does with a stack that is gone: it finds the one that was started in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from airside.actors.gateway.calls import GatewayCalls
from airside.stack.errors import LayerUnavailable, Misuse
from airside.stack.operations.messages import ToolOffer


class OneStack:
    """A stack that says who somebody is, until another has its name."""

    def __init__(self) -> None:
        self.is_gone = False
        self.closed = 0
        self._connection = self

    def call(self, _: Any, __: Any) -> Iterator[Any]:
        if self.is_gone:
            raise Misuse("the stack is gone, and ingress is of another one")
        return ToolOffer(tenant="acme", principal="ann")
        yield

    def close(self) -> None:
        self.closed += 1


async def test_a_stack_that_was_started_anew_is_found_once_for_all_who_ask() -> None:
    """The one that is gone is let go of."""
    stacks = [OneStack(), OneStack(), OneStack()]
    left = iter(stacks[1:])
    calls = GatewayCalls(stacks[0], lambda: next(left))  # type: ignore[arg-type, return-value]
    assert (await calls.identify("token")).principal == "ann"
    stacks[0].is_gone = True
    found = await asyncio.gather(*(calls.identify("token") for _ in range(20)))
    assert {caller.tenant for caller in found} == {"acme"} and calls._stack is stacks[1]  # type: ignore[comparison-overlap]
    assert [stack.closed for stack in stacks] == [1, 0, 0]
    calls.close()
    assert [stack.closed for stack in stacks] == [1, 1, 0]


async def test_without_a_stack_the_gateway_says_so_and_looks_again() -> None:
    """The next message may find one."""
    gone, now, there = OneStack(), OneStack(), []

    def connect() -> Any:
        if not there:
            raise Misuse("no stack is up in .airside")
        return now

    calls = GatewayCalls(gone, connect)  # type: ignore[arg-type]
    gone.is_gone = True
    with pytest.raises(LayerUnavailable, match="no stack is up"):
        await calls.identify("token")
    there.append(True)
    assert (await calls.identify("token")).tenant == "acme"
