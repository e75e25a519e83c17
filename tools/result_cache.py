"""What an executor answered, kept for a while: a call whose answer was lost is asked about, not sent again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from airside.stack.contracts.execution import ExecuteReply

MAX_ANSWERS = 20_000
MAX_BYTES = 32 * 2**20
"""Of outputs; what comes on top is forgotten, the oldest first, and its call is in doubt if its answer was lost."""


class ResultCache:
    """The answers of one incarnation, by the nonce of the grant.  A nonce is used once, so each has one answer.

    Hardly one is ever asked for, so a future is made only by who waits.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, ExecuteReply | None] = OrderedDict()
        self._waiting: dict[bytes, asyncio.Future[ExecuteReply | None]] = {}
        self._bytes = 0

    def begin(self, nonce: bytes) -> None:
        """Know a call as at work."""
        self._kept[nonce] = None

    def end(self, nonce: bytes, reply: ExecuteReply | None) -> None:
        """Tell those who wait what a call came to, and keep it; None for one that broke off."""
        waiting = self._waiting.pop(nonce, None)
        if waiting is not None:
            waiting.set_result(reply)
        if reply is None:
            self._kept.pop(nonce, None)
        elif nonce in self._kept:  # else it was forgotten while it was at work
            self._kept[nonce] = reply
            self._bytes += _size(reply)
        while self._kept and (self._bytes > MAX_BYTES or len(self._kept) > MAX_ANSWERS):
            self._bytes -= _size(self._kept.popitem(last=False)[1])

    async def of(self, nonce: bytes) -> ExecuteReply | None:
        """Return the answer of a call, waiting for it if it is at work; None if it is not known here."""
        reply = self._kept.get(nonce)
        if reply is not None or nonce not in self._kept:
            return reply
        waiting = self._waiting.get(nonce)
        if waiting is None:
            waiting = self._waiting[nonce] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(waiting)


def _size(reply: ExecuteReply | None) -> int:
    return 0 if reply is None else len(bytes(reply.result.output))
