"""One request as its handler sees it, and the two ways in which most of them ask the stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

from airside.actors.api.ports import StackPort
from airside.actors.api.problems import check
from airside.actors.rpc.methods import LOOK, OPERATE, OrderReply, PresentedOrder, PresentedQuestion
from airside.stack.values import Value

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the server says of itself: the OpenAPI document, and how many requests of each route had which status."""

    document: bytes = b""
    counts: Mapping[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was read: ids of its path, its query and its body as the types that the route has for them."""

    stack: StackPort
    credential: str = field(default="", repr=False)
    path: Mapping[str, str]
    headers: Mapping[str, str]
    query: Any = None
    body: Any = None
    server: ServerFacts = ServerFacts()


async def look(call: Call, view: str, asked: Value) -> bytes:
    """Return a view's answer, as JSON; raise `Refused` for who may not see it, and for what is none."""
    parameters = msgspec.json.encode(asked)
    reply = await call.stack.ask(LOOK, PresentedQuestion(call.credential, view, parameters))
    check(reply.code, reply.problem)
    return reply.body


async def operate(call: Call, action: str, scope: str, target: str, why: str, **more: Any) -> OrderReply:
    """Give an order and return what came of it; raise `Refused` for who may not, and for what means nothing."""
    reply = await call.stack.ask(OPERATE, PresentedOrder(call.credential, action, scope, target, why, **more))
    check(reply.code, reply.problem)
    return reply


def as_json(body: bytes) -> Response:
    """Return JSON that the stack has written, as it is."""
    return Response(body, media_type=JSON)
