"""A tenant's memory, as its keeper: what it would recall, pinning, and erasing."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from starlette.responses import Response

from airside.actors.api.call import Call, as_json, look
from airside.actors.api.messages import MemoryErasure, MemoryPin, MemoryPinned
from airside.actors.api.problems import check
from airside.actors.rpc.methods import KEEP, KeeperRequest
from airside.memory.storage.erasure import Erasure
from airside.memory.storage.erasure_plan import ErasureReceipt
from airside.stack.errors import InvalidInput, Refused
from airside.stack.ids import parse_tenant
from airside.stack.security.memory_orders import MemoryAnswer

Kind = TypeVar("Kind")


async def search(call: Call) -> Response:
    """Return what a run of the keeper's would recall, best first, each with its scores."""
    return as_json(await look(call, "memory", call.body))


async def erase(call: Call) -> ErasureReceipt:
    """Erase one record, or all about a subject, and what derives from it; `dry_run` says what would go, and why."""
    body: MemoryErasure = call.body
    if bool(body.record) == bool(body.subject):
        raise InvalidInput("erase: say one of record and subject")
    order = Erasure(
        tenant=parse_tenant(body.tenant),
        what="record" if body.record else "subject",
        target=body.record or body.subject,
        only=body.only,
        keep=body.keep,
    ).checked()
    wanted = KeeperRequest(
        call.credential,
        "erase_record" if body.record else "erase_subject",
        order.tenant,
        target=order.target,
        only=order.only,
        keep=order.keep,
        dry_run=body.dry_run,
    )
    return await _kept(call, wanted, ErasureReceipt)


async def pin(call: Call) -> MemoryPinned:
    """Let a record stay for ever, or a pinned one end as its kind does from now on."""
    body: MemoryPin = call.body
    action = "pin" if body.pinned else "unpin"
    wanted = KeeperRequest(call.credential, action, parse_tenant(body.tenant), target=body.record)
    if not await _kept(call, wanted, bool):
        raise Refused(f"there is no live record {body.record}", reason="unknown")
    return MemoryPinned(record=body.record, pinned=body.pinned)


async def _kept(call: Call, wanted: KeeperRequest, kind: type[Kind]) -> Kind:
    """Return what memory says to a keeper's order; raise `Refused` for who may not, and for what it does not take."""
    reply: bytes = await call.stack.ask(KEEP, wanted)
    answer = msgspec.msgpack.decode(reply, type=MemoryAnswer)
    check(answer.code or ("invalid" if answer.problem else ""), answer.problem)
    return msgspec.msgpack.decode(answer.data, type=kind)
