"""`Remote`: one layer's actor as a caller has it, by name, wherever it is and whichever incarnation it is.

On the same node requests go over a socket to its process; to another node, or where there is no socket, over Ray's
calls, many requests in one.  What may safely be sent twice is sent again, through a restart of the layer, until
`layer_patience_s` is over; anything else raises `LayerUnavailable` at once.  A layer that answers that one behind it is
away has waited for that one as long: its caller's patience began with the request, so that what layers wait for each
other is not one after the other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from airside.actors.rpc.coalescer import Coalescer
from airside.actors.rpc.methods import Method, Reply, Request
from airside.actors.rpc.names import NAMESPACE, CellAddress
from airside.actors.rpc.serving import NO_ANSWER, TICKET, not_refused
from airside.actors.rpc.transport import Address, Channel
from airside.stack.errors import LayerUnavailable, text_of

logger = logging.getLogger("airside")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


class Remote:
    """One layer's actor.  Used on one event loop."""

    def __init__(self, cell: CellAddress, layer: str, key: str = "") -> None:
        self.name = cell.actor_name(layer, key)
        self._cell = cell
        self._handle: Any = None
        self._channel: Channel | None = None
        self._is_far = cell.transport == "ray"
        self._connecting: asyncio.Future[None] | None = None
        self._coalescers: dict[int, Coalescer] = {}

    async def call(self, method: Method[Request, Reply], request: Request) -> Reply:
        """Return the reply to a request.

        Raises `LayerUnavailable`, and `ItemFailed` for a request the layer refused without an answer of its own.
        """
        data = method.request.encode(request)
        pause, until, began = _FIRST_PAUSE_S, -1.0, time.monotonic()
        while True:
            is_answered = False
            try:
                answer = await self._ask(method, data)
                if answer.startswith(NO_ANSWER):
                    answer = await self._collected(answer)
                    is_answered = True
                    answer = not_refused(answer)
                reply: Reply = method.reply.decode(answer)
                return reply
            except LayerUnavailable:
                now = time.monotonic()
                if is_answered and until < 0:
                    until = began + self._cell.layer_patience_s
                if not method.retry or 0 <= until < now + pause:
                    raise
            if until < 0:
                until = now + self._cell.layer_patience_s
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    @property
    def channel(self) -> Channel | None:
        """The connection to the present process; None if there is none, or it is asked over Ray."""
        return self._channel if self._channel is not None and self._channel.is_open else None

    def _ask(self, method: Method[Any, Any], data: bytes) -> Awaitable[bytes]:
        """Send a request and return what the answer is awaited by; raise what `call` does, or let that."""
        channel = self._channel
        if channel is not None and channel.is_open and not self._is_far and Channel.takes(data):
            return channel.ask(method.number, data)  # as nearly always: a coroutine of our own would cost as much
        return self._ask_far(method, data)

    async def _ask_far(self, method: Method[Any, Any], data: bytes) -> bytes:
        """Connect if need be, and send; over Ray what is for another node, or too long for a frame."""
        if (self._channel is None or not self._channel.is_open) and not self._is_far:
            await self._connect()
        if self._is_far or not Channel.takes(data):
            return await self._coalescer(method.number).call(data)
        if self._channel is None:
            raise LayerUnavailable(f"{self.name}: the connection was lost")
        return await self._channel.ask(method.number, data)

    async def _collected(self, answer: bytes) -> bytes:
        """Return the answer of which only a ticket came: it was not there yet, or too long for a frame."""
        if answer.startswith(TICKET):
            answer = await self.over_ray("collect", answer)
        return answer

    async def _connect(self) -> None:
        """Connect to the present process, or learn that it is far; once for everybody who waits for it."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._find())
            self._connecting.add_done_callback(self._found)
        await asyncio.shield(self._connecting)

    def _found(self, connecting: asyncio.Future[None]) -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # whoever waited for it may have gone

    async def _find(self) -> None:
        address = Address(*await self.over_ray("address"))
        self._is_far = not address.path or address.node_id != self.node_id()
        if not self._is_far:
            try:
                self._channel = await self.open(address)
            except LayerUnavailable as error:
                # It answered over Ray just now, so it is there; if it has died since, Ray's next call says so.
                logger.warning("%s is asked over Ray: %s", self.name, error.message, extra={"action": "no_socket"})
                self._is_far = True

    def node_id(self) -> str:
        """Return the node this process is on."""
        return str(ray.get_runtime_context().get_node_id())

    async def open(self, address: Address) -> Channel:
        """Return a connection to the process at an address; raise `LayerUnavailable` if it is not there."""
        return await Channel.open(self.name, address)

    # Over Ray.

    async def over_ray(self, name: str, *args: Any) -> Any:
        """Call a Ray method of the actor once; raise `LayerUnavailable` if it is dead or dies."""
        if self._handle is None:
            try:
                self._handle = await asyncio.to_thread(ray.get_actor, self.name, NAMESPACE)
            except ValueError:
                raise LayerUnavailable(f"{self.name}: there is no such actor") from None
        try:
            return await getattr(self._handle, name).remote(*args)
        except RayActorError as error:
            self._handle = None
            self._is_far = self._cell.transport == "ray"  # its next process may be here
            raise LayerUnavailable(f"{self.name}.{name}: {type(error).__name__}") from None
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            raise LayerUnavailable(f"{self.name}.{name}: {text_of(cause, 500)}") from None

    def _coalescer(self, number: int) -> Coalescer:
        """Return the coalescer of a method.

        A batch is sent once: what is sent again is each request by itself, so that none goes on which nobody waits for.
        """
        if number not in self._coalescers:

            async def send(batch: list[bytes]) -> Sequence[bytes]:
                answers: Sequence[bytes] = await self.over_ray("serve", number, batch)
                return answers

            cell = self._cell
            # One item a call means that nobody waits for anybody: then calls are not held back either.
            in_flight = cell.calls_in_flight if cell.max_batch > 1 else 1_000_000
            self._coalescers[number] = Coalescer(send, max_batch=cell.max_batch, in_flight=in_flight)
        return self._coalescers[number]
