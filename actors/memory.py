"""Memory: the memory service behind list methods; the single writer of the LanceDB tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from airside.actors.rpc.layer import LayerConfig, control, logger, now_us
from airside.actors.rpc.methods import MEMORY_ORDER, MEMORY_STANDING, RETRIEVE, WRITE_IF_USEFUL
from airside.actors.rpc.serving import serves
from airside.actors.wardens.watched import WatchedLayer
from airside.memory.embedders.embedder import Embedder
from airside.memory.rules import MemoryRules
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure, What
from airside.memory.storage.erasure_plan import ErasureReceipt
from airside.stack.canonical import digest
from airside.stack.contracts.memory import Candidate, LearnReply, MemoryStanding, RecallReply, RecallRequest
from airside.stack.errors import AirsideError, InvalidId, InvalidInput
from airside.stack.ids import TenantId, parse_tenant
from airside.stack.reasons import MemoryCode
from airside.stack.security.memory_access import Warrants
from airside.stack.security.memory_orders import ORDER_US, MemoryAction, MemoryAnswer, MemoryOrder, open_memory_order

Given = TypeVar("Given")

_ERASED: dict[MemoryAction, What] = {"erase_record": "record", "erase_subject": "subject", "erase_tenant": "tenant"}


def _no_recall(_: object, why: str) -> RecallReply:
    return RecallReply(error=why)


def _invalid(_: object, why: str) -> LearnReply:
    return LearnReply(code=MemoryCode.INVALID)


def _unavailable(_: object, why: str) -> LearnReply:
    return LearnReply(code=MemoryCode.MEMORY_UNAVAILABLE)


class Memory(WatchedLayer):
    """Retrieves, stores and deletes records."""

    def __init__(self, config: LayerConfig, embedder: Callable[[], Embedder], rules: MemoryRules) -> None:
        super().__init__(config)
        self._embedder = embedder
        self._rules = rules

    async def start(self) -> None:
        """Open the tables, and erase what was ordered before; the model is loaded when the first text needs it."""
        self._encode = msgspec.msgpack.Encoder().encode
        self._warrants = Warrants(self.config.seal_key, now_us)
        self._refused = 0
        self._carried: dict[bytes, tuple[int, asyncio.Future[bytes]]] = {}
        self._service = MemoryService(self.config.state_dir / "memory", self._embedder, now_us, self._rules)
        await self._service.start()
        self._sweeping = asyncio.ensure_future(self._keep_sweeping())

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(self._rules.sweep_s)
            try:
                await self._service.sweep()
            except Exception:
                # What has expired is not returned, swept or not.
                logger.exception("memory was not swept", extra={"action": "sweep_failed"})

    @serves(RETRIEVE, unreadable=_no_recall, failed=_no_recall)
    def retrieve(self, asked: RecallRequest) -> RecallReply | Awaitable[RecallReply]:
        """Answer a query that has a warrant for its tenant."""
        request = self._warrants.recall(asked)
        if request is None:
            self._unwarranted()
            return RecallReply(error="no warrant for this tenant")
        return self._service.retrieve_at_once(request) or self._service.retrieve(request)

    @serves(WRITE_IF_USEFUL, unreadable=_invalid, failed=_unavailable)
    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate that has a warrant for its tenant and is worth it."""
        allowed = self._warrants.learn(candidate)
        if allowed is None:
            self._unwarranted()
            return LearnReply(code=MemoryCode.UNWARRANTED)
        return await self._kept(allowed)

    def _unwarranted(self) -> None:
        self._refused += 1
        logger.warning("memory was asked without a warrant", extra={"action": "memory_unwarranted"})

    async def _kept(self, candidate: Candidate) -> LearnReply:
        try:
            return await self._service.write_if_useful(candidate)
        except InvalidId:
            return LearnReply(code=MemoryCode.INVALID)
        except Exception:
            logger.exception("a candidate was not kept", extra={"action": "not_learned"})
            return LearnReply(code=MemoryCode.MEMORY_UNAVAILABLE)

    @serves(MEMORY_ORDER)
    async def order(self, sealed: bytes) -> bytes:
        """Carry out an order that Ingress or an operator sealed; one that is sent again is answered as before.

        What was carried out is known until the process ends.
        """
        order = open_memory_order(self.config.seal_key, sealed, now_us())
        if order is None:
            self._unwarranted()
            return self._encode(MemoryAnswer(problem="the order's seal does not hold, or it is old"))
        if not order.changes:
            return await self._answered(order)
        for nonce in [n for n, (at_us, _) in self._carried.items() if at_us < now_us() - 2 * ORDER_US]:
            del self._carried[nonce]
        if order.nonce not in self._carried:
            self._carried[order.nonce] = (order.at_us, asyncio.ensure_future(self._answered(order)))
        return await asyncio.shield(self._carried[order.nonce][1])

    async def _answered(self, order: MemoryOrder) -> bytes:
        try:
            done = await self._carry_out(order, parse_tenant(order.tenant))
            data = self._encode(done)
        except AirsideError as error:
            return self._encode(MemoryAnswer(problem=error.message))
        except OSError as error:
            logger.exception("%s: %s was not carried out", order.tenant, order.action, extra={"action": "order_failed"})
            return self._encode(MemoryAnswer(problem=f"the disk: {error}"))
        if order.changes:
            target = digest(order.target.encode())[:12] if order.target else ""
            what = f": {done.summary()}" if isinstance(done, ErasureReceipt) else ""
            logger.warning(
                "%s: %s %s by %s%s",
                order.tenant,
                order.action,
                target,
                order.by,
                what,
                extra={"action": "memory_order"},
            )
        return self._encode(MemoryAnswer(data=data))

    async def _carry_out(self, order: MemoryOrder, tenant: TenantId) -> Any:
        service = self._service
        match order.action:
            case "remember":
                return await self._kept(msgspec.structs.replace(_given(order.candidate), tenant=tenant))
            case "search":
                return await service.retrieve(msgspec.structs.replace(_given(order.request), tenant=tenant))
            case "records":
                return await service.records(tenant)
            case "pin" | "unpin" | "quarantine" | "release":
                return await service.change(tenant, order.target, order.action)
            case "erase_record" | "erase_subject" | "erase_tenant":
                erasure = Erasure(
                    tenant=tenant, what=_ERASED[order.action], target=order.target, only=order.only, keep=order.keep
                )
                return await (service.plan_erasure(erasure) if order.dry_run else service.erase(erasure))
            case "export":
                return await service.export(tenant)
            case "import":
                return await service.take_in(tenant, order.data, order.trust)
            case "reembed":
                return await service.reembed(tenant)
            case "sweep":
                return await service.sweep()

    @serves(MEMORY_STANDING)
    async def standing(self, tenant: str) -> MemoryStanding:
        """Count what is kept for a tenant."""
        return await self._service.standing(parse_tenant(tenant))

    async def stats(self) -> dict[str, Any]:
        """Return the open tenants, their records and bytes, and cached queries."""
        return {**self._service.stats(), "unwarranted": self._refused} if self._started else {}


def _given(value: Given | None) -> Given:
    if value is None:
        raise InvalidInput("the order lacks its candidate or request")
    return value


control(Memory.stats)
