"""The API as an ASGI application: who may speak to it, from where, and how much.

It answers by the names of loopback and those that it is told of; a page of another site is no client, and there is no
CORS.  A body is bounded before it is read, and read before it is decoded; what it has that its type has not is refused.
Whatever a client sends is answered with a status below 500; one of 500 is an error of ours, and in the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airside.actors.api.call import JSON, Call, ServerFacts, look
from airside.actors.api.openapi import document_bytes
from airside.actors.api.ports import StackPort
from airside.actors.api.problems import code_of, is_ours, response_of
from airside.actors.api.routes import PATH_IDS, ROUTES, Route
from airside.actors.rpc.layer import logger
from airside.actors.web.listening import BODY_S
from airside.actors.web.requests import LOOPBACK, bearer_of, header_of, in_time, is_named
from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidInput, Refused, text_of
from airside.stack.operations.questions import Nothing
from airside.stack.reasons import ReasonCode
from airside.stack.values import MAX_REQUEST_BYTES

MAX_BODY_BYTES = MAX_REQUEST_BYTES + 65_536
"""A request's text and inputs, and what is round them."""

MAX_OF_CREDENTIAL = 64
"""Requests by one credential at once: others are served beside it.  A stream is one for as long as it lasts."""

_LARGE_BYTES = 65_536
"""A body that is larger is that of somebody who is known, and read in a thread: others are answered meanwhile."""

_MAX_QUERY_CHARS = 8_192

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""Of every response: nothing here is a page, and nothing is kept by what is between."""


def http_api(stack: StackPort, hosts: Sequence[str] = ()) -> ASGIApp:
    """Return the API of a stack; `hosts` are the names it is reached by, beside those of loopback."""
    return HttpApi(stack, hosts)


class HttpApi:
    """Serves the table of routes."""

    def __init__(self, stack: StackPort, hosts: Sequence[str] = ()) -> None:
        self._stack = stack
        self._hosts = (*LOOPBACK, *hosts)
        self._of_credential: Counter[bytes] = Counter()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._facts = ServerFacts(document=document_bytes(), counts=self._counts)
        self._paths: defaultdict[str, dict[str, Route]] = defaultdict(dict)
        for route in ROUTES:
            self._paths[route.path][route.method] = route
        self._patterns = [(_pattern(path), by_method) for path, by_method in self._paths.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _without_more(scope, receive, send)
            return
        name, response = await self._answered(scope, receive)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts[name, message["status"]] += 1
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await response(scope, receive, sent)

    async def _answered(self, scope: Scope, receive: Receive) -> tuple[str, ASGIApp]:
        """Return the name of a request's route, and the response."""
        name = "none"
        try:
            self._check_sender(scope)
            route, ids = self._route_of(scope)
            name = route.name
            credential = bearer_of(scope) if route.rule is not None else ""
        except _WrongMethod as error:
            return name, response_of(error, more={"Allow": ", ".join(sorted(error.allowed))})
        except Exception as error:
            return name, _refused(error)
        return name, await self._in_turn(credential, _Reading(self, scope, receive, route, ids, credential))

    async def _in_turn(self, credential: str, reading: _Reading) -> ASGIApp:
        """Return the response to a request, if its credential has not too many of them; a stream counts until it ends.

        It is no credential yet that somebody knows: what is counted is how many say it.
        """
        if not credential:
            return await reading.response()
        key = hashlib.blake2b(credential.encode(), digest_size=16).digest()
        if self._of_credential[key] >= MAX_OF_CREDENTIAL:
            problem = f"{MAX_OF_CREDENTIAL} requests by this credential are under way: try again later"
            return response_of(Refused(problem, reason="too_many"))
        self._of_credential[key] += 1

        def leave() -> None:
            self._of_credential[key] -= 1
            if not self._of_credential[key]:
                del self._of_credential[key]

        try:
            inner = await reading.response()
        except BaseException:
            leave()
            raise

        async def until_it_is_sent(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await inner(scope, receive, send)
            finally:
                leave()

        return until_it_is_sent

    def _check_sender(self, scope: Scope) -> None:
        hosts = header_of(scope, b"host")
        if len(hosts) != 1 or not is_named(hosts[0], self._hosts):
            raise Refused(f"there is nothing here by the name {', '.join(hosts)!r:.80}", reason="host")
        for origin in header_of(scope, b"origin"):
            if not is_named(_host_of(origin), self._hosts):
                raise Refused(f"a page of {origin!r:.80} is no client", reason="origin")

    def _route_of(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        path, method = scope["path"], scope["method"]
        for pattern, by_method in self._patterns:
            if (found := pattern.fullmatch(path)) is None:
                continue
            if method not in by_method:
                raise _WrongMethod(method, by_method)
            return by_method[method], found.groupdict()
        raise Refused(f"there is no path {path!r:.80}", reason="no_route")

    def call(self, **fields: Any) -> Call:
        """Return a request as its handler sees it."""
        return Call(stack=self._stack, server=self._facts, **fields)


class _WrongMethod(Refused):
    """The path has other methods."""

    def __init__(self, method: str, allowed: dict[str, Route]) -> None:
        super().__init__(f"the method {method!r:.20} is none of this path's", reason="method_not_allowed")
        self.allowed = allowed


class _Reading:
    """One request of a route, as it is read and handled."""

    def __init__(
        self, api: HttpApi, scope: Scope, receive: Receive, route: Route, ids: dict[str, str], credential: str
    ) -> None:
        self._api = api
        self._scope = scope
        self._receive = receive
        self._route = route
        self._ids = ids
        self._credential = credential

    async def response(self) -> ASGIApp:
        """Return the response."""
        route = self._route
        try:
            path = {name: PATH_IDS[name].parse(text) for name, text in self._ids.items()}
            query = None if route.query is None else _query(self._scope, route.query)
            if route.query is None and self._scope["query_string"]:
                raise Refused("the path takes no query", reason="malformed")
            _check_said_once(self._scope)
            body = None if route.body is None else await self._body(route.body)
            call = self._api.call(
                credential=self._credential,
                path=path,
                headers=Headers(scope=self._scope),
                query=query,
                body=body,
            )
            reply = await route.handle(call)
        except Exception as error:
            return _refused(error)
        if isinstance(reply, Response):
            return reply
        return Response(msgspec.json.encode(reply), route.status, media_type=JSON)

    async def _body(self, kind: Any) -> Any:
        data = await self._bytes()
        if data:
            _check_is_json(self._scope)
        if len(data) > _LARGE_BYTES:
            return await asyncio.to_thread(decoded, data, kind)
        return decoded(data, kind)

    async def _bytes(self) -> bytes:
        """Return the body; raise `Refused` for one that is too long, as soon as it says so or is."""
        said = header_of(self._scope, b"content-length")
        if said and said[0].isdecimal() and int(said[0][:20]) > MAX_BODY_BYTES:
            raise _too_large()
        part, data = in_time(self._receive, BODY_S), bytearray()
        is_known = False
        while True:
            message = await part()
            if message["type"] != "http.request":
                raise Refused(f"the body was not there in {BODY_S:.0f} s", reason="late")
            data += message.get("body", b"")
            if len(data) > MAX_BODY_BYTES:
                raise _too_large()
            if len(data) > _LARGE_BYTES and not is_known:
                await self._check_is_somebody()
                is_known = True
            if not message.get("more_body", False):
                return bytes(data)

    async def _check_is_somebody(self) -> None:
        """Raise `Refused` for a credential that is none: who has none is not to fill the server's memory."""
        await look(self._api.call(credential=self._credential, path={}, headers={}), "me", Nothing())


def decoded(data: bytes, kind: Any) -> Any:
    """Return a body as its type; nothing is an empty object.

    Raises `Refused` (malformed) for what is no JSON, saying where, and `InvalidInput` for what its type has not.
    """
    try:
        if data:
            parse_bounded(data, max_bytes=MAX_BODY_BYTES, where="body")
    except InvalidInput as error:
        raise Refused(error.message, reason="malformed") from None
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"body: {error}") from None
    except msgspec.DecodeError as error:
        raise Refused(f"body: {error}", reason="malformed") from None


def _query(scope: Scope, kind: Any) -> Any:
    """Return the query as its type; raise `Refused` for a name it has not or has twice, and for what is no value."""
    try:
        text = scope["query_string"].decode("ascii")
        if len(text) > _MAX_QUERY_CHARS:
            raise ValueError(f"it is longer than {_MAX_QUERY_CHARS} characters")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=64)
        given = dict(pairs)
        if len(given) != len(pairs):
            raise ValueError("a name is given twice")
        return msgspec.convert(given, kind, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise Refused(f"query: {error}", reason="malformed") from None


def _check_said_once(scope: Scope) -> None:
    for name in (b"idempotency-key", b"last-event-id"):
        if len(header_of(scope, name)) > 1:
            raise Refused(f"the header {name.decode()} is given twice", reason="malformed")


def _check_is_json(scope: Scope) -> None:
    said = header_of(scope, b"content-type")
    media, _, parameters = (said[0] if len(said) == 1 else "").partition(";")
    if media.strip().lower() != JSON or parameters.strip().lower() not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise Refused(f"Content-Type {', '.join(said)!r:.80}: send {JSON}", reason="media_type")


def _too_large() -> Refused:
    return Refused(f"the body has more than {MAX_BODY_BYTES:,} bytes", reason="too_large")


def _refused(error: Exception) -> Response:
    if code_of(error) == ReasonCode.INTERNAL_ERROR:
        logger.error("A request could not be handled.", extra={"action": "api_failed"}, exc_info=error)
    elif is_ours(error):
        logger.warning(f"A request had no answer: {text_of(error)}", extra={"action": "api_unanswered"})
    return response_of(error)


def _host_of(origin: str) -> str:
    """Return the host of an origin, nothing for what is none."""
    try:
        found = urlsplit(origin)
    except ValueError:
        return ""
    return found.netloc if found.scheme in ("http", "https") and not found.path else ""


def _pattern(path: str) -> re.Pattern[str]:
    """Return what matches a path of the table."""
    return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path.replace(".", r"\.")))


async def _without_more(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is no request: that the server begins and ends, which here needs nothing."""
    if scope["type"] != "lifespan":
        return
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
