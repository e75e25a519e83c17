"""ToolExecutor: one dispatcher of the pool.  Holds the tools and their credentials, and journals what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec
import ray

from airside.actors.layer import BEAT_S, Layer, LayerConfig, control, logger, now_us, steady_us
from airside.actors.pulse import PulseWriter, Where
from airside.actors.serving import ListMethod
from airside.actors.strays import mark_children
from airside.actors.stubs import Remote, RemoteJournal, RemoteMemory, encode_json
from airside.stack.errors import LayerUnavailable
from airside.stack.grants import GrantRefused
from airside.stack.ids import NO_ISSUER, SYSTEM_TENANT, IssuerId, RunId, TenantId, mint_executor
from airside.stack.journaling import Append, Entry
from airside.stack.ports import ExecuteReply, ExecuteRequest
from airside.stack.reasons import ReasonCode
from airside.stack.switches import Switches
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.output import mark_output
from airside.tools.replacing import Replacing
from airside.tools.resolving import Resolver, ResolverPool, ResolverThreads
from airside.tools.tool import Tool, Toolset

FIRST_LEASE_S = 30.0
"""Added to an executor's first lease: it may be up long before the driver is.  The Warden's first one replaces it."""

MAX_REFUSALS_WAITING = 10_000
"""Refusals that wait for the journal; more, which only a flood makes, are counted and not kept."""


def _running_us() -> int:
    """Return microseconds by a clock that nobody sets."""
    return time.monotonic_ns() // 1000


def _entry(refused: GrantRefused) -> Entry:
    return Entry(type="GrantRefused", step=refused.step, at_us=refused.at_us, cause=-1, body=encode_json(refused))


class ToolExecutor(Layer):
    """Carries out granted calls; every (re)start is another incarnation, for which old grants are void."""

    def __init__(
        self,
        config: LayerConfig,
        tools: Sequence[Tool | Toolset],
        has_memory: bool,
        resolvers: Mapping[str, Resolver] = MappingProxyType({}),
    ) -> None:
        super().__init__(config)
        self._resolvers = resolvers
        self._tools = tools
        self._has_memory = has_memory
        self._pulse: PulseWriter | None = None
        self._methods()

    async def start(self) -> None:
        """Take a new incarnation id.  Until a gate has made itself known, no grant is taken."""
        if self.config.settings.show_output:
            mark_output(self.config.settings.stack)
        self._pulse = self._pulse or PulseWriter(lease_s=self.config.settings.lease_s + FIRST_LEASE_S)
        mark_children(self._pulse.where)
        self._refused: list[tuple[GrantRefused, TenantId | None]] = []
        self._thrown = 0
        self._told: dict[TenantId | None, int] = {}
        self._dropped = 0
        self._telling: asyncio.Task[None] | None = None
        self._journal = RemoteJournal(self.config.settings)
        self._policy = Remote(self.config.settings, "policy")
        self._dispatcher = Dispatcher(
            self._tools,
            seal_key=self.config.seal_key,
            executor_id=mint_executor(os.urandom),
            now_us=now_us,
            steady_us=steady_us,
            running_us=_running_us,
            on_refusal=self._note,
            journal=self._journal.append,
            memory=RemoteMemory(self.config.settings) if self._has_memory else None,
        )
        self._threads = ResolverThreads()
        self._resolving = ResolverPool(
            self._resolvers, seal_key=self.config.seal_key, now_us=now_us, call=self._threads.call
        )
        self._watched = asyncio.Event()
        self._beating = asyncio.ensure_future(self._keep_beating())

    def _methods(self) -> None:
        """Say how each list method reads and answers: what is no request starts nothing, what broke is in doubt."""
        self._execute = ListMethod(
            name="execute",
            decode=msgspec.msgpack.Decoder(ExecuteRequest).decode,
            encode=encode_json,
            unreadable=partial(_no, ReasonCode.GRANT_INVALID),
            failed=partial(_no, ReasonCode.TOOL_IN_DOUBT),
        )
        self._answers: ListMethod[bytes, ExecuteReply | None] = ListMethod(
            name="answers", decode=_sealed, encode=encode_json
        )
        self._resolve: ListMethod[bytes, bytes] = ListMethod(name="resolve", decode=_sealed)
        self._release: ListMethod[str, bool] = ListMethod(name="release", decode=msgspec.msgpack.Decoder(str).decode)

    async def _keep_beating(self) -> None:
        assert self._pulse is not None
        replacing = Replacing()
        while True:
            self._pulse.turn()
            if self._pulse.watched:
                self._watched.set()
            spent = self._dispatcher.is_spent or self._threads.are_spent
            if replacing.is_due(time.monotonic(), spent=spent, busy=self._is_busy()):
                logger.error(
                    "all event loops are held by tools or resolvers: this executor ends, and another takes its place",
                    extra={"action": "executor_spent"},
                )
                os._exit(1)
            await asyncio.sleep(BEAT_S)

    def _is_busy(self) -> bool:
        telling = self._telling is not None and not self._telling.done()
        return self._dispatcher.active > 0 or bool(self._pending) or telling

    async def greet(self) -> tuple[str, Where]:
        """Return the Ray node this process is on, and where its pulse can be read there."""
        await self.ready()
        assert self._pulse is not None
        return str(ray.get_runtime_context().get_node_id()), self._pulse.where

    async def incarnation(self) -> str:
        """Return the id grants must name."""
        await self.ready()
        return self._dispatcher.executor_id

    async def trust(self, issuer: str, thrown: list[str]) -> None:
        """Take grants of this incarnation of the gate, no longer those of another, and none that is switched off."""
        await self.ready()
        self._dispatcher.issuer = IssuerId(issuer)
        self._heed(thrown)

    def _heed(self, thrown: list[str]) -> None:
        if len(thrown) >= self._thrown:  # the stream only grows: a shorter one is an older reading
            self._thrown, self._dispatcher.switches = len(thrown), Switches(thrown)

    async def execute(self, batch: list[bytes]) -> list[bytes]:
        """Carry out or refuse each call of a batch.

        None begins before the node's Warden looks after this process: what a tool leaves running would outlive it.
        """
        await self.ready()
        await self._watched.wait()
        if self._dispatcher.issuer == NO_ISSUER:
            await self._ask_whom_to_trust()
        return await self.answer_each(self._execute, batch, self._dispatcher.execute)

    async def answers(self, batch: list[bytes]) -> list[bytes]:
        """Say of each grant of a batch what its call came to, null if it did not begin here."""
        await self.ready()
        return await self.answer_each(self._answers, batch, self._dispatcher.answer_of)

    async def resolve(self, batch: list[bytes]) -> list[bytes]:
        """Say what the resource of each question of a batch is; begins nothing before `execute` would."""
        await self.ready()
        await self._watched.wait()
        if self._dispatcher.issuer == NO_ISSUER:
            await self._ask_whom_to_trust()
        return await self.answer_each(self._resolve, batch, self._resolved)

    async def _resolved(self, question: bytes) -> bytes:
        return await self._resolving.answer(question, self._dispatcher.issuer)

    async def _ask_whom_to_trust(self) -> None:
        """After a restart; if the gate does not answer, every grant is refused."""
        with contextlib.suppress(LayerUnavailable):
            issuer, thrown = await self._policy.call("issuer")
            self._heed(thrown)
            if self._dispatcher.issuer == NO_ISSUER:  # else the gate was faster
                self._dispatcher.issuer = IssuerId(issuer)

    # Refusals, journaled in a stream of this incarnation's own.

    def _note(self, refused: GrantRefused, tenant: TenantId | None) -> None:
        if len(self._refused) >= MAX_REFUSALS_WAITING:
            self._dropped += 1
            return
        self._refused.append((refused, tenant))
        if self._telling is None or self._telling.done():
            self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        while self._refused:
            noted, self._refused = self._refused, []
            for tenant in {tenant for _, tenant in noted}:
                entries = tuple(_entry(refused) for refused, whose in noted if whose == tenant)
                append = Append(
                    tenant=tenant or SYSTEM_TENANT,
                    stream=f"{self._dispatcher.executor_id}/{tenant or SYSTEM_TENANT}",
                    epoch=0,
                    first_seq=self._told.get(tenant, 0),
                    entries=entries,
                )
                try:
                    reply = await self._journal.append(append)
                    if reply.verdict != "ok":  # what was given up before was durable after all: these come after it
                        append = msgspec.structs.replace(append, first_seq=reply.next_seq)
                        await self._journal.append(append)
                except LayerUnavailable:
                    logger.error("%d refusals are not on record", len(entries), extra={"action": "refusals_lost"})
                else:
                    self._told[tenant] = append.first_seq + len(entries)

    async def release(self, batch: list[bytes]) -> list[bytes]:
        """Close what some runs hold."""
        await self.ready()
        return await self.answer_each(self._release, batch, self._released)

    async def _released(self, run_id: str) -> bool:
        await self._dispatcher.release(RunId(run_id))
        return True

    async def stats(self) -> dict[str, Any]:
        """Return the calls of this incarnation."""
        return {**self._dispatcher.stats(), "refusals_dropped": self._dropped} if self._started else {}


def _no(reason: ReasonCode, why: str) -> ExecuteReply:
    return ExecuteReply(result=ToolResult(ok=False, error=why, reason_code=reason))


def _sealed(item: bytes) -> bytes:
    if not isinstance(item, bytes):
        raise TypeError(f"what is sealed is bytes, not {type(item).__name__}")
    return item


control(ToolExecutor.stats)
