"""`McpSession`: one tenant's session with one server, in one executor.

The session has a task of its own, for the SDK's parts are entered and left by the same one; calls are made from theirs.
A call is one request and is never sent again here: the protocol knows no idempotency key, so what became of a call
whose answer is lost is nobody's to say (`CallLost`); only of what was not sent is it certain that it did not happen.

The server's list is asked for when the session begins, when the server says that it changed, and every minute, since it
need not say so.  Nothing else a server may ask of a client is offered: it samples no model, sees no roots, and what it
logs is dropped.  What it needs of a person it may answer a call with (`AskedFor`); that call is over then, and the
answer comes with another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import mcp.types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter

from airside.stack.errors import AirsideError, InvalidInput, text_of
from airside.tools.mcp.address import ServerAddress
from airside.tools.mcp.asked import Asked, CountedReads, CountedWrites
from airside.tools.mcp.http import NOT_SENT, checked_client
from airside.tools.mcp.offer import MAX_OFFER_BYTES, MAX_TOOLS, ServerOffer, size_of, too_large
from airside.tools.mcp.rounds import AskedFor
from airside.tools.mcp.stdio import StdioEnd, stdio_streams
from airside.tools.secrets.redaction import Redactor
from airside.tools.tool import ToolError

for _library in ("mcp", "httpx2", "httpcore2"):
    # They log what servers say, unbounded and with whatever is in it; what is wrong with a session is said here.
    logging.getLogger(_library).setLevel(logging.CRITICAL)

LIST_AGAIN_S = 60.0
LIST_S = 20.0
"""How long a server may take for its list."""

KEY_META = "io.airside/idempotencyKey"
"""Where a call carries its idempotency key: servers that know it can do nothing twice, others ignore it."""

_CLOSE_S = 5.0
_MAX_PAGES = 64
_MAX_ERROR = 65_536
"""Characters of what a server says of an error: the executor keeps less, and cuts it where no secret is cut."""

_NOT_BEGUN = frozenset({types.INVALID_PARAMS, types.METHOD_NOT_FOUND})
"""Codes by which a server says that it did not take a request; every other leaves open what it did before."""

_BROKEN = frozenset({types.CONNECTION_CLOSED, types.INVALID_REQUEST})
"""Codes after which a session is no use: its connection is cut, or the server knows it no more."""

_ANSWER: TypeAdapter[Any] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)


class CallNotSent(AirsideError):
    """Nothing was sent of a call; `unanswered` in the details of this and the next says that nobody answered."""


class CallLost(AirsideError):
    """A call was sent, and what came back, if anything did, does not say what became of it."""


class CallRejected(AirsideError):
    """The server answered that it does not take the call, or that it needs what nobody gives."""


Said = tuple[dict[str, Any], str | None]
"""What is answered to what a server asked, under its keys, and what that kept with us."""

OnOffer = Callable[[ServerOffer | InvalidInput], bool | None]
"""Is told what is offered, or why that cannot be read; returns False if the session is to end."""


class McpSession:
    """A session.

    It is given secrets by their names.  Whoever made it is told of every list by `on_offer`, and may end it by that:
    then no call is begun any more, and those at work are waited for.
    """

    def __init__(self, address: ServerAddress, given: Mapping[str, str], on_offer: OnOffer) -> None:
        self.broken = ""
        self.redactor = Redactor(given.values())
        self._given = given
        self._address = address
        self._on_offer = on_offer
        self._word = secrets.token_hex(16)
        self._end = StdioEnd()
        self._asked = Asked()
        self._wake = asyncio.Event()
        self._is_listed = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_closing = False
        self._at_work: set[asyncio.Future[Any]] = set()
        self._client: Client | None = None
        # In a context of its own: in the first call's it would count as that call's work.
        self._life = asyncio.get_running_loop().create_task(self._live(), context=contextvars.Context())

    @classmethod
    async def open(
        cls, address: ServerAddress, given: Mapping[str, str], on_offer: OnOffer, seconds: float
    ) -> McpSession:
        """Start or connect, have the server say what it offers; raise `ToolError` if that does not come about."""
        made = cls(address, given, on_offer)
        try:
            await asyncio.wait({made._life, made._ready}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            made._life.cancel()
            raise
        if made._ready.done() and not made._ready.cancelled():
            return made
        why = made.problem if made._ready.done() else f"it did not say what it offers within {seconds:g} s"
        why += f" ({made._end.said})" if made._end.said else ""
        await made.close()
        raise ToolError(f"server {address.name} is not there: {why}", unanswered=True)

    @property
    def problem(self) -> str:
        """Why it takes no more calls, "" if it does."""
        return self.broken or self._asked.why or self._end.why

    async def call(
        self, name: str, arguments: dict[str, Any], *, key: str, seconds: float, said: Said | None = None
    ) -> dict[str, Any]:
        """Have a tool called once, and return its result as the protocol has it; raises the errors of this module.

        `said` is what is answered to what the server asked before, with what it kept here.  Raises `AskedFor` if it
        asks something now.
        """
        if self._client is None or self.problem or self._life.done():
            raise CallNotSent(self.problem or "the session is over")
        meta = types.RequestParamsMeta(**{KEY_META: key})  # type: ignore[misc]
        responses, state = said or (None, None)
        params = types.CallToolRequestParams(
            name=name, arguments=arguments, input_responses=responses, request_state=state, _meta=meta
        )
        asking = asyncio.ensure_future(self._client.session.send_request(types.CallToolRequest(params=params), _ANSWER))
        self._at_work.add(asking)
        asking.add_done_callback(self._at_work.discard)
        asking.add_done_callback(_look_at)
        try:
            await asyncio.wait({asking, self._life}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return self._read(asking)
            if self._life.done():
                raise CallLost(self.problem, unanswered=True)
            self.broken = f"it did not answer within {seconds:g} s"
            raise CallLost(self.broken, unanswered=True)
        finally:
            if not asking.done():  # it is told so, and whatever it is at, this session asks it nothing more
                self.broken = self.broken or "a call was stopped before it answered"
                asking.cancel()

    async def wait_listed(self, seconds: float) -> None:
        """Wait while the server is asked what it offers now; raise `CallNotSent` if that takes too long."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_listed.wait()
        except TimeoutError:
            raise CallNotSent("it says that its tools changed, and not what they are", unanswered=True) from None

    def _read(self, asking: asyncio.Future[Any]) -> dict[str, Any]:
        try:
            result = asking.result()
        except MCPError as error:
            text = self._clean(error.message)
            if error.code == NOT_SENT and error.data == self._word:
                raise CallNotSent(text, unanswered=True) from None
            if error.code in _NOT_BEGUN:
                raise CallRejected(text) from None
            if error.code in _BROKEN:
                self.broken = self.problem or text
            raise CallLost(self.problem or text, unanswered=error.code in _BROKEN) from None
        except Exception as error:  # what is no result by the protocol
            raise CallLost(f"its answer is none: {self._clean(text_of(error))}") from None
        if isinstance(result, types.InputRequiredResult):
            requests = {
                name: each.model_dump(by_alias=True, mode="json", exclude_none=True)
                for name, each in (result.input_requests or {}).items()
            }
            asked = ", ".join(sorted({each["method"] for each in requests.values()})) or "to be asked again"
            text = f"it asks for more before it completes the call ({asked})"
            raise AskedFor(text, requests=requests, state=result.request_state)
        found: dict[str, Any] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return found

    def _clean(self, text: str) -> str:
        return self.redactor.text(text)[:_MAX_ERROR]

    async def close(self) -> None:
        """End the session, and a server that was started for it; returns when both have ended, or soon after."""
        self._is_closing = True
        self.broken = self.broken or "it was closed"
        self._wake.set()
        if not self._ready.done():
            self._life.cancel()
        await asyncio.wait({self._life}, timeout=_CLOSE_S)
        if not self._life.done():
            self._life.cancel()
            await asyncio.wait({self._life}, timeout=_CLOSE_S)

    # The session's own task.

    async def _live(self) -> None:
        """Hold the session until it is closed, or breaks."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                client = Client(
                    self._counted(),
                    cache=None,
                    message_handler=self._heard,
                    client_info=types.Implementation(name="airside", version="1"),
                    elicitation_callback=_not_within_a_call if self._address.asks else None,
                )
                self._client = await stack.enter_async_context(client)
                self._on_offer(await self._list())
                if not self._wake.is_set():
                    self._is_listed.set()
                self._ready.set_result(None)
                watching = asyncio.ensure_future(self._listen())
                stack.callback(watching.cancel)
                await self._keep_listing()
        except BaseException as error:
            self.broken = self.problem or self._clean(text_of(_cause(error)))
            if isinstance(error, asyncio.CancelledError) and not self._is_closing:
                raise
        finally:
            self.broken = self.problem or "the session is over"
            self._is_listed.set()  # whoever waits learns of it at the call
            if not self._ready.done():
                self._ready.cancel()

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[Any]:
        async with self._streams() as (reads, writes):
            yield CountedReads(reads, self._asked), CountedWrites(writes, self._asked)

    @contextlib.asynccontextmanager
    async def _streams(self) -> AsyncIterator[Any]:
        address = self._address
        if address.url is None:
            async with stdio_streams(address, address.variables(self._given), self._end, self.redactor) as streams:
                yield streams
            return
        client = checked_client(
            address.url,
            private=address.private,
            resolve=address.resolve,
            headers=address.headers(self._given),
            word=self._word,
            ca_file=address.ca_file,
        )
        async with client, streamable_http_client(str(address.url), http_client=client) as streams:
            yield streams

    async def _list(self) -> ServerOffer | InvalidInput:
        """Ask for all the tools; return what is wrong with an offer that is over its bounds, or has no end."""
        assert self._client is not None
        session, tools, cursor = self._client.session, list[dict[str, Any]](), None
        size = 0
        async with asyncio.timeout(LIST_S):
            for _ in range(_MAX_PAGES):
                params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
                page = await session.list_tools(params=params)
                listed = [_described(tool) for tool in page.tools]
                try:
                    size += size_of(listed)
                except InvalidInput as error:
                    return error
                if size > MAX_OFFER_BYTES:
                    return too_large()
                tools += listed
                cursor = page.next_cursor
                if not cursor or len(tools) > MAX_TOOLS:
                    break
            else:
                return InvalidInput(f"its list of tools has more than {_MAX_PAGES} pages")
        info = session.server_info
        identity: dict[str, Any] = (
            {} if info is None else info.model_dump(by_alias=True, mode="json", exclude_none=True)
        )
        known = {key: value for key, value in identity.items() if key in ("name", "title", "version")}
        try:
            return ServerOffer.of(self._address.launch, known, session.instructions or "", tools)
        except InvalidInput as error:
            return error

    async def _keep_listing(self) -> None:
        """Ask for the list again and again, until the session is closed."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIST_AGAIN_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._is_closing:
                return
            if self._on_offer(await self._list()) is False:
                await self._finish()
                return
            if not self._wake.is_set():
                self._is_listed.set()

    async def _finish(self) -> None:
        """Begin no more calls, and wait for those that are at work."""
        self.broken = self.broken or "it is not what was approved"
        self._is_listed.set()
        if self._at_work:
            await asyncio.wait(self._at_work)

    async def _listen(self) -> None:
        """Hear of changes of the list where servers tell only those who subscribe."""
        assert self._client is not None
        with contextlib.suppress(Exception):  # it is asked every minute in any case
            async with self._client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._note_change()

    async def _heard(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._note_change()

    def _note_change(self) -> None:
        self._is_listed.clear()
        self._wake.set()


async def _not_within_a_call(context: object, params: types.ElicitRequestParams) -> types.ErrorData:
    """Refuse what a server asks while it holds a call, whose time would run while a person thinks."""
    return types.ErrorData(code=types.METHOD_NOT_FOUND, message="ask by answering the call: input_required")


def _described(tool: types.Tool) -> dict[str, Any]:
    """Return a tool as it was listed: its schemas exactly so."""
    found: dict[str, Any] = tool.model_dump(
        by_alias=True, mode="json", exclude_none=True, exclude={"input_schema", "output_schema", "meta"}
    )
    return {**found, "inputSchema": tool.input_schema, "outputSchema": tool.output_schema}


def _cause(error: BaseException) -> BaseException:
    """Return what a group of errors is about."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _look_at(asking: asyncio.Future[Any]) -> None:
    """Look at what a call that nobody waits for any more came to, so that it is not said to be forgotten."""
    if not asking.cancelled():
        asking.exception()
