"""What an executor answered, kept for a while: a call whose answer was lost is asked about, not sent again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from airside.stack.ports import ExecuteReply

MAX_ANSWERS = 20_000
MAX_BYTES = 32 * 2**20
"""Of outputs; what comes on top is forgotten, the oldest first, and its call is in doubt if its answer was lost."""


class Answers:
    """The answers of one incarnation, by the nonce of the grant.  A nonce is used once, so each has one answer."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, asyncio.Future[ExecuteReply]] = OrderedDict()
        self._bytes = 0

    def begin(self, nonce: bytes) -> asyncio.Future[ExecuteReply]:
        """Return where a call's answer is put once there is one."""
        self._kept[nonce] = future = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._done)
        return future

    def _done(self, future: asyncio.Future[ExecuteReply]) -> None:
        self._bytes += _size(future)
        while self._kept and (self._bytes > MAX_BYTES or len(self._kept) > MAX_ANSWERS):
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest)
            if not oldest.done():
                oldest.remove_done_callback(self._done)  # it still gets its answer, and nobody can ask for it

    async def of(self, nonce: bytes) -> ExecuteReply | None:
        """Return the answer of a call, waiting for it if it is at work; None if it is not known here."""
        future = self._kept.get(nonce)
        if future is None:
            return None
        await asyncio.wait([future])
        return None if future.cancelled() or future.exception() else future.result()


def _size(future: asyncio.Future[ExecuteReply]) -> int:
    if not future.done() or future.cancelled() or future.exception():
        return 0
    return len(bytes(future.result().result.output))
