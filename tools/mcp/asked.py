"""What a server asks of its client, counted: each request holds a task until its answer is sent.

It stands between the streams of either transport and the SDK, which begins a task for every request.
"""

from __future__ import annotations

from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

if TYPE_CHECKING:
    from mcp.shared._stream_protocols import ReadStream, WriteStream

MAX_ASKED = 100
"""Requests whose answers the server has not taken yet."""


class Asked:
    """How many requests are open; `why` says that they are too many, and the session is over.

    They are counted, and not told apart: a server may give all of them one id.
    """

    def __init__(self) -> None:
        self.why = ""
        self.open = 0


Inner = TypeVar("Inner", bound="ReadStream[Any] | WriteStream[Any]")


class _Counted(Generic[Inner]):
    """A stream that ends with the one within."""

    def __init__(self, inner: Inner, asked: Asked) -> None:
        self._inner = inner
        self._asked = asked

    async def aclose(self) -> None:
        """Close the stream."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class CountedReads(_Counted["ReadStream[SessionMessage | Exception]"]):
    """What the server says; ends when it asks too much."""

    @property
    def last_context(self) -> Context | None:
        """The context in which the last of it was received, where the stream has that."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """Return what comes next."""
        return self._seen(await self._inner.receive())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        item = self._seen(await self._inner.__anext__())
        if self._asked.why:
            raise StopAsyncIteration
        return item

    def _seen(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCRequest):
            self._asked.open += 1
            if self._asked.open > MAX_ASKED:
                self._asked.why = f"it asked more than {MAX_ASKED} things without taking the answers"
        return item


class CountedWrites(_Counted["WriteStream[SessionMessage]"]):
    """What the server is told."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send something; a request that it answers is open no more."""
        await self._inner.send(item)
        if isinstance(item.message, JSONRPCResponse | JSONRPCError) and item.message.id is not None:
            self._asked.open -= 1
