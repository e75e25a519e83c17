"""Several reads of one decision, carried out at once: each in a task of its own, and none outlives the call.

The first that ends what they have in common (the run's end, or the last result) stops the others where they are, and
so does whoever stops their cycle: what they had under way changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from airside.stack.run import instructions as do
from airside.stack.run.instructions import Instructions

if TYPE_CHECKING:
    from airside.stack.cycle.cycle import Cycle


class _Over(Exception):
    """What the reads have in common is over; `follow` is what is to be done now."""

    def __init__(self, follow: Instructions) -> None:
        super().__init__()
        self.follow = follow


async def side_by_side(cycle: Cycle, instructions: Iterable[do.Instruction]) -> Instructions:
    """Carry out each instruction and what follows from it; return what is to be done when all reads are back.

    Events are fed to the cycle in the order in which they happen.  Raises what `RunLog.durable` raises.
    """
    reads = [asyncio.ensure_future(_carried(cycle, instruction)) for instruction in instructions]
    try:
        await asyncio.wait(reads, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for read in reads:
            read.cancel()
        ended = await asyncio.gather(*reads, return_exceptions=True)
    failed = [error for error in ended if isinstance(error, Exception)]
    over = next((error for error in failed if isinstance(error, _Over)), None)
    if over is not None:
        return over.follow
    if failed:
        raise failed[0]
    if any(read.cancelled() for read in reads):
        raise asyncio.CancelledError
    return []


async def _carried(cycle: Cycle, instruction: do.Instruction) -> None:
    while True:
        if instruction.durable_first:
            await cycle.log.durable(may_stop=True)
            if not cycle.machine.state.reading:
                return
        event = await cycle.perform(instruction)
        if not cycle.machine.state.reading:
            return  # another one has ended it all, and nobody waits for this
        assert event is not None
        follow = cycle.feed(event)
        if not cycle.machine.state.reading:
            raise _Over(follow)
        if not follow:
            return
        (instruction,) = follow
