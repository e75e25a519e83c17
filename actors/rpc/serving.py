"""How a layer serves the methods of the table: each request by itself, so that none can fail its neighbours.

What cannot be read, handled or answered is refused alone: by the method's own no where the layer has one, else by a
mark that the caller raises as `ItemFailed`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import CoroutineType, MethodType
from typing import Any, Generic, TypeVar

from airside.actors.rpc.methods import Method, Reply, Request
from airside.stack.errors import ItemFailed, LayerUnavailable, text_of

logger = logging.getLogger("airside")

NO_ANSWER = b"\xc1"
"""First byte of what is no answer; neither JSON nor MessagePack begins with it, so no answer is taken for one."""

TICKET = NO_ANSWER + b"t"
REFUSED = NO_ANSWER + b"!"
AWAY = NO_ANSWER + b"?"

MAX_REFUSAL_CHARS = 500

_LOG_EVERY_S = 1.0
"""A method's refusals are logged at most so often."""

Answer = Callable[[bytes], None]
"""Takes the encoded answer to one request, once."""

Denial = Callable[[Any, str], Any]
"""Makes a layer's own no, from the layer and why."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


class serves(Generic[Request, Reply]):
    """Mark a layer's method as the one that handles requests of `method`, one at a time.

    It returns the reply, or something to be awaited for it.  `unreadable` makes the answer to what is no request:
    nothing was begun.  `failed` makes the one to a request whose handling or answer went wrong: it may have had its
    effect.  Without them the request is refused by the mark.  A request that another layer did not answer is the
    caller's `LayerUnavailable`, as if this layer were away.
    """

    def __init__(
        self, method: Method[Request, Reply], *, unreadable: Denial | None = None, failed: Denial | None = None
    ) -> None:
        self.method = method
        self.unreadable = unreadable
        self.failed = failed
        self.handler: Callable[..., Any] | None = None

    def __call__(self, handler: Callable[[Any, Request], Reply | Awaitable[Reply]]) -> Callable[[Any, Request], Any]:
        """Mark a handler, as the last of its decorators: it is called as it is now, without what Ray wraps it in."""
        handler.serves = self  # type: ignore[attr-defined]
        self.handler = handler
        return handler


class Service:
    """One method of one layer at work."""

    def __init__(self, layer: Any, name: str, terms: serves[Any, Any]) -> None:
        self.method = terms.method
        self._layer = layer
        self._name = name
        self._terms = terms
        self._decode, self._encode = terms.method.request.decode, terms.method.reply.encode
        self._tasks: set[asyncio.Future[Any]] = set()
        self._logged_s = -_LOG_EVERY_S
        self._unlogged = 0
        self.asked = 0

    def handle(self, data: bytes, answer: Answer) -> None:
        """Handle one request and give its answer, now or later; never raises.

        The pulse is told after each one, refused or not: a loop with much to do is not one that is held.
        """
        self.asked += 1
        try:
            request = self._decode(data)
        except Exception as error:
            self._layer.pulse.leave()
            answer(self._refusal(self._terms.unreadable, "read", error))
            return
        try:
            reply = getattr(self._layer, self._name)(request)
        except BaseException as error:  # whatever it is, none may leave a caller without an answer
            self._layer.pulse.leave()
            answer(self._refusal(self._terms.failed, "handled", error))
            return
        if not isinstance(reply, Awaitable):
            self._layer.pulse.leave()
            answer(self._encoded(reply))
            return
        task: asyncio.Future[Any]
        if isinstance(reply, CoroutineType):  # as nearly all are, of which this is the cheaper way
            task = asyncio.get_running_loop().create_task(reply)
        else:
            task = asyncio.ensure_future(reply)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finish(done, answer))

    def _finish(self, task: asyncio.Future[Any], answer: Answer) -> None:
        self._tasks.discard(task)
        self._layer.pulse.leave()
        try:
            reply = task.result()
        except BaseException as error:
            answer(self._refusal(self._terms.failed, "handled", error))
        else:
            answer(self._encoded(reply))

    def _encoded(self, reply: Any) -> bytes:
        try:
            return self._encode(reply)
        except Exception as error:
            return self._refusal(self._terms.failed, "answered", error)

    def _refusal(self, make: Denial | None, what: str, error: BaseException) -> bytes:
        if isinstance(error, LayerUnavailable):
            return AWAY + text_of(error, MAX_REFUSAL_CHARS).encode()
        text = f"{self.method.name}: the item could not be {what}: {text_of(error, MAX_REFUSAL_CHARS)}"
        self._log(text)
        if make is not None:
            try:
                return self._encode(make(self._layer, text))
            except Exception as worse:
                text = f"{text}; and {text_of(worse, MAX_REFUSAL_CHARS)}"
        return REFUSED + text.encode()

    def _log(self, text: str) -> None:
        """Log a refusal, unless one of this method was logged just now: a flood of garbage must not fill the log."""
        now_s = time.monotonic()
        if now_s - self._logged_s < _LOG_EVERY_S:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} others were not logged)" if self._unlogged else ""
        self._logged_s, self._unlogged = now_s, 0
        logger.error("%s%s", text, more, extra={"action": "item_refused"})


def services_of(layer: Any) -> dict[int, Service]:
    """Return what a layer serves, by the methods' numbers.

    Ray wraps the methods of actors in ones that look whether each call is traced, which costs a coroutine more: the
    layer gets its handlers back as they were marked, but for what a kind of the layer has in the place of one.
    """
    found: dict[int, Service] = {}
    for kind in reversed(type(layer).__mro__):
        for name, member in vars(kind).items():
            terms = getattr(member, "serves", None)
            if isinstance(terms, serves):
                found[terms.method.number] = Service(layer, name, terms)
                handler = terms.handler
                if handler is not None and getattr(getattr(type(layer), name), "serves", None) is terms:
                    setattr(layer, name, MethodType(handler, layer))
    return found


def not_refused(answer: bytes) -> bytes:
    """Return an answer; raise `ItemFailed` or `LayerUnavailable` if it is the mark of a request without one."""
    if answer.startswith((REFUSED, AWAY)):
        kind = ItemFailed if answer.startswith(REFUSED) else LayerUnavailable
        raise kind(answer[len(REFUSED) :].decode(errors="replace"))
    return answer
