"""The single writer of the streams of batches: every change of one is on record before anybody follows it."""

from __future__ import annotations

import asyncio

import msgspec

from airside.actors.jobs import batch_job
from airside.actors.rpc.layer import now_us
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import SYSTEM_TENANT, PrincipalId
from airside.stack.journal.stream import Stream, StreamJournal
from airside.stack.operations.batches import BatchChange, BatchChanged, BatchState, stream_of
from airside.stack.operations.messages import Order


class BatchStreams:
    """Used on one event loop; nothing is kept between two changes."""

    def __init__(self, journal: StreamJournal) -> None:
        self._journal = journal
        self._writing = asyncio.Lock()

    async def change(self, order: Order) -> BatchChange:
        """Put a change on record, and return it.

        Raises `InvalidInput` for one that means nothing as the batch stands, `LayerUnavailable` if the journal did not
        take it.
        """
        batch = batch_job(order.target, 1, 0).id
        try:
            change = msgspec.json.decode(order.output, type=BatchChange)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"batch {batch}: {error}") from None
        async with self._writing:
            stream = Stream(self._journal, SYSTEM_TENANT, stream_of(batch))
            BatchState(await stream.bodies()).check(batch, change)
            event = BatchChanged(at_us=now_us(), by=PrincipalId(order.by), change=change, why=order.why)
            reply = await stream.append(event)
        if reply.verdict != "ok":
            raise LayerUnavailable(f"journal: {reply.verdict} {reply.detail}: batch {batch} was not changed, try again")
        return change
