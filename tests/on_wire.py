"""A layer asked as its callers ask it, without actors: requests travel as bytes, in one batch or over a socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airside.actors.rpc.methods import Method, Reply, Request
from airside.actors.rpc.names import CellAddress
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import NO_ANSWER, TICKET, not_refused


async def answers(layer: Any, method: Method[Any, Any], batch: Sequence[Any], *, whole: bool = True) -> list[bytes]:
    """Return the encoded answers to a batch of encoded requests."""
    found: list[bytes] = await layer.serve(method.number, batch, whole)
    return found


def replied(method: Method[Any, Reply], answer: bytes) -> Reply:
    """Return the reply an answer is; raise what the caller would be raised."""
    assert not answer.startswith(TICKET)
    reply: Reply = method.reply.decode(not_refused(answer) if answer.startswith(NO_ANSWER) else answer)
    return reply


async def ask(layer: Any, method: Method[Request, Reply], request: Request) -> Reply:
    """Return the reply to one request."""
    (answer,) = await answers(layer, method, [method.request.encode(request)])
    return replied(method, answer)


class Here(Remote):
    """A remote whose layer is in this process."""

    def __init__(self, layer: Any, cell: CellAddress) -> None:
        super().__init__(cell, "layer")
        self._layer = layer

    async def _ask(self, method: Method[Any, Any], data: bytes) -> bytes:
        (answer,) = await answers(self._layer, method, [data])
        return not_refused(answer)
