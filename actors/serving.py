"""How a layer serves a list method: each item by itself, so that none can fail its neighbours.

A batch carries what many runs of many tenants wait for.  What of it cannot be read, handled or answered is refused
alone: by the method's own no where it has one, else by a mark that the caller's stub raises as `ItemFailed`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from airside.stack.errors import ItemFailed, LayerUnavailable, text_of

logger = logging.getLogger("airside")

NO_ANSWER = b"\xc1"
"""First byte of what is no answer; neither JSON nor MessagePack begins with it, so no answer is taken for one."""

TICKET = NO_ANSWER + b"t"
REFUSED = NO_ANSWER + b"!"
AWAY = NO_ANSWER + b"?"

MAX_REFUSAL_CHARS = 500

Item = TypeVar("Item")
Reply = TypeVar("Reply")

encode = msgspec.msgpack.Encoder().encode


def as_it_is(answer: Any) -> Any:
    """Encode nothing: for methods whose answers are plain values."""
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMethod(Generic[Item, Reply]):
    """How one list method reads its items and writes its answers, and what it says when it cannot.

    `unreadable` makes the answer to what is no item: nothing was begun.  `failed` makes the one to an item whose
    handling or answer went wrong: it may have had its effect.  Without them the item is refused by the mark.  An item
    that another layer did not answer is the caller's `LayerUnavailable`, as if this layer were away.
    """

    name: str
    decode: Callable[[bytes], Item]
    encode: Callable[[Reply], Any] = encode
    unreadable: Callable[[str], Reply] | None = None
    failed: Callable[[str], Reply] | None = None

    def read(self, data: bytes) -> tuple[Item | None, Any]:
        """Return an item, or None and the answer to what is none."""
        try:
            return self.decode(data), None
        except Exception as error:
            return None, self._refusal(self.unreadable, "read", error)

    def answer(self, reply: Reply) -> Any:
        """Return a reply as the item's answer."""
        try:
            return self.encode(reply)
        except Exception as error:
            return self._refusal(self.failed, "answered", error)

    def one(self, data: bytes, handle: Callable[[Item], Reply]) -> Any:
        """Return the answer to one item; never raises."""
        item, refusal = self.read(data)
        if item is None:
            return refusal
        try:
            reply = handle(item)
        except (Exception, asyncio.CancelledError) as error:  # it awaits nothing, so nobody cancels it
            return self._refusal(self.failed, "handled", error)
        return self.answer(reply)

    def begin(self, data: bytes, handle: Callable[[Item], Reply | Awaitable[Reply]]) -> Any:
        """Return the answer to one item, or a task for it if `handle` returns what must be awaited; never raises."""
        item, refusal = self.read(data)
        if item is None:
            return refusal
        try:
            reply = handle(item)
        except (Exception, asyncio.CancelledError) as error:  # as in `one`
            return self._refusal(self.failed, "handled", error)
        return asyncio.ensure_future(self._awaited(reply)) if isinstance(reply, Awaitable) else self.answer(reply)

    async def one_later(self, data: bytes, handle: Callable[[Item], Awaitable[Reply]]) -> Any:
        """Return the answer to one item; raises nothing but the cancellation of its task."""
        item, refusal = self.read(data)
        if item is None:
            return refusal
        try:
            waits = handle(item)
        except Exception as error:
            return self._refusal(self.failed, "handled", error)
        return await self._awaited(waits)

    async def _awaited(self, waits: Awaitable[Reply]) -> Any:
        try:
            reply = await waits
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise
            return self._refusal(self.failed, "handled", error)
        return self.answer(reply)

    def all(self, batch: Iterable[bytes], handle: Callable[[Item], Reply]) -> list[Any]:
        """Answer a batch, one item after the other."""
        return [self.one(data, handle) for data in batch]

    async def all_later(self, batch: Iterable[bytes], handle: Callable[[Item], Awaitable[Reply]]) -> list[Any]:
        """Answer a batch, its items at the same time, when the last of them is done."""
        return await asyncio.gather(*(self.one_later(data, handle) for data in batch))

    def _refusal(self, make: Callable[[str], Reply] | None, what: str, error: BaseException) -> Any:
        if isinstance(error, LayerUnavailable):
            return AWAY + text_of(error, MAX_REFUSAL_CHARS).encode()
        text = f"{self.name}: the item could not be {what}: {text_of(error, MAX_REFUSAL_CHARS)}"
        logger.error("%s", text, extra={"action": "item_refused"})
        if make is not None:
            try:
                return self.encode(make(text))
            except Exception as worse:
                text = f"{text}; and {text_of(worse, MAX_REFUSAL_CHARS)}"
        return REFUSED + text.encode()


def not_refused(answer: Any) -> Any:
    """Return an answer; raise `ItemFailed` or `LayerUnavailable` if it is the mark of an item without one."""
    if isinstance(answer, bytes) and answer.startswith((REFUSED, AWAY)):
        kind = ItemFailed if answer.startswith(REFUSED) else LayerUnavailable
        raise kind(answer[len(REFUSED) :].decode(errors="replace"))
    return answer
