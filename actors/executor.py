"""ToolExecutor: one dispatcher of the pool.  Holds the tools and their credentials, and journals what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import ray

from airside.actors.process.orphans import mark_children
from airside.actors.process.pulse import PulseWriter, Where
from airside.actors.rpc.layer import BEAT_S, Layer, LayerConfig, control, logger, now_us, steady_us
from airside.actors.rpc.methods import (
    ANSWER_OF,
    EXECUTE,
    GREET,
    INCARNATION,
    ISSUER,
    RELEASE,
    RESOLVE,
    TRUST,
    TrustedGate,
)
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import Denial, serves
from airside.actors.rpc.stubs import RemoteJournal, RemoteMemory
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import NO_ISSUER, SYSTEM_TENANT, IssuerId, RunId, TenantId, mint_executor
from airside.stack.journal.stream import Stream
from airside.stack.policy.kill_switches import KillSwitches
from airside.stack.reasons import ReasonCode
from airside.stack.security.grants import GrantRefused
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.resolving import Resolver, ResolverPool, ResolverThreads
from airside.tools.runners.output import mark_output, redact_output
from airside.tools.runners.replacement import ReplacementPolicy
from airside.tools.secrets.known import KnownSecrets
from airside.tools.secrets.providers import SecretsProvider
from airside.tools.tool import Tool, Toolset, ToolSource

FIRST_LEASE_S = 30.0
"""Added to an executor's first lease: it may be up long before the driver is.  The Warden's first one replaces it."""

MAX_REFUSALS_WAITING = 10_000
"""Refusals that wait for the journal; more, which only a flood makes, are counted and not kept."""


def _running_us() -> int:
    """Return microseconds by a clock that nobody sets."""
    return time.monotonic_ns() // 1000


def _no(reason: ReasonCode) -> Denial:
    def refuse(_: object, why: str) -> ExecuteReply:
        return ExecuteReply(result=ToolResult(ok=False, error=why, reason_code=reason))

    return refuse


class ToolExecutor(Layer):
    """Carries out granted calls; every (re)start is another incarnation, for which old grants are void."""

    def __init__(
        self,
        config: LayerConfig,
        tools: Sequence[Tool | Toolset | ToolSource],
        has_memory: bool,
        resolvers: Mapping[str, Resolver] = MappingProxyType({}),
        secrets: SecretsProvider | None = None,
    ) -> None:
        super().__init__(config)
        self._secrets = secrets
        self._resolvers = resolvers
        self._tools = tools
        self._has_memory = has_memory
        self._pulse: PulseWriter | None = None

    async def start(self) -> None:
        """Take a new incarnation id.  Until a gate has made itself known, no grant is taken."""
        if self.config.settings.show_output:
            mark_output(self.config.settings.stack)
        known = KnownSecrets()
        if self._secrets is not None:
            redact_output(known)
        self._pulse = self._pulse or PulseWriter(lease_s=self.config.settings.lease_s + FIRST_LEASE_S)
        mark_children(self._pulse.where)
        self._refused: list[tuple[GrantRefused, TenantId | None]] = []
        self._switch_count = 0
        self._streams: dict[TenantId, Stream] = {}
        self._dropped = 0
        self._telling: asyncio.Task[None] | None = None
        cell = self.config.cell
        self._journal = RemoteJournal(cell)
        self._policy = Remote(cell, "policy")
        self._dispatcher = Dispatcher(
            self._tools,
            seal_key=self.config.seal_key,
            executor_id=mint_executor(os.urandom),
            now_us=now_us,
            steady_us=steady_us,
            running_us=_running_us,
            on_refusal=self._note,
            journal=self._journal.append,
            memory=RemoteMemory(cell) if self._has_memory else None,
            secrets=self._secrets,
            known_secrets=known,
        )
        self._threads = ResolverThreads()
        self._resolving = ResolverPool(
            self._resolvers, seal_key=self.config.seal_key, now_us=now_us, call=self._threads.call
        )
        self._watched = asyncio.Event()
        self._beating = asyncio.ensure_future(self._keep_beating())

    async def _keep_beating(self) -> None:
        assert self._pulse is not None
        replacing = ReplacementPolicy()
        while True:
            self._pulse.turn()
            if self._pulse.watched:
                self._watched.set()
            spent = self._dispatcher.is_exhausted or self._threads.are_exhausted
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

    @serves(GREET)
    def greet(self, _: None) -> tuple[str, Where]:
        """Return the Ray node this process is on, and where its pulse can be read there."""
        assert self._pulse is not None
        return str(ray.get_runtime_context().get_node_id()), self._pulse.where

    @serves(INCARNATION)
    def incarnation(self, _: None) -> str:
        """Return the id grants must name."""
        return self._dispatcher.grants.executor_id

    @serves(TRUST)
    def trust(self, told: TrustedGate) -> None:
        """Take grants of this incarnation of the gate, no longer those of another, and none that is switched off."""
        self._dispatcher.grants.issuer = IssuerId(told.issuer)
        self._apply_switches(told.switches)

    def _apply_switches(self, thrown: list[str]) -> None:
        if len(thrown) >= self._switch_count:  # the stream only grows: a shorter one is an older reading
            self._switch_count, self._dispatcher.grants.switches = len(thrown), KillSwitches(thrown)

    @serves(EXECUTE, unreadable=_no(ReasonCode.GRANT_INVALID), failed=_no(ReasonCode.TOOL_IN_DOUBT))
    def execute(self, request: ExecuteRequest) -> Awaitable[ExecuteReply]:
        """Carry out or refuse a call: what is no request starts nothing, what broke is in doubt.

        None begins before the node's Warden looks after this process: what a tool leaves running would outlive it.
        """
        return self._dispatcher.execute(request) if self._may_begin else self._execute_later(request)

    @property
    def _may_begin(self) -> bool:
        return self._watched.is_set() and self._dispatcher.grants.issuer != NO_ISSUER

    async def _execute_later(self, request: ExecuteRequest) -> ExecuteReply:
        await self._begin()
        return await self._dispatcher.execute(request)

    async def _begin(self) -> None:
        await self._watched.wait()
        if self._dispatcher.grants.issuer == NO_ISSUER:
            await self._ask_whom_to_trust()

    @serves(ANSWER_OF)
    async def answer_of(self, grant: bytes) -> ExecuteReply | None:
        """Say what the call of a grant came to, null if it did not begin here."""
        return await self._dispatcher.answer_of(grant)

    @serves(RESOLVE)
    async def resolve(self, question: bytes) -> bytes:
        """Say what the resource of a question is; begins nothing before `execute` would."""
        await self._begin()
        return await self._resolving.answer(question, self._dispatcher.grants.issuer)

    async def _ask_whom_to_trust(self) -> None:
        """After a restart; if the gate does not answer, every grant is refused."""
        with contextlib.suppress(LayerUnavailable):
            told = await self._policy.call(ISSUER, None)
            self._apply_switches(told.switches)
            if self._dispatcher.grants.issuer == NO_ISSUER:  # else the gate was faster
                self._dispatcher.grants.issuer = IssuerId(told.issuer)

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
                refusals = [refused for refused, whose in noted if whose == tenant]
                stream = self._stream_of(tenant or SYSTEM_TENANT)
                try:
                    reply = await stream.append(*refusals)
                    if reply.verdict != "ok":  # what was given up before was durable after all: these come after it
                        stream.length = reply.next_seq
                        await stream.append(*refusals)
                except LayerUnavailable:
                    logger.error("%d refusals are not on record", len(refusals), extra={"action": "refusals_lost"})

    def _stream_of(self, tenant: TenantId) -> Stream:
        if tenant not in self._streams:
            self._streams[tenant] = Stream(self._journal, tenant, f"{self._dispatcher.grants.executor_id}/{tenant}")
        return self._streams[tenant]

    @serves(RELEASE)
    async def release(self, run_id: str) -> bool:
        """Close what a run holds."""
        await self._dispatcher.release(RunId(run_id))
        return True

    async def stats(self) -> dict[str, Any]:
        """Return the calls of this incarnation."""
        if not self._started:
            return {}
        told = {"refusals_dropped": self._dropped, "quarantined": self._dispatcher.quarantined}
        return {**self._dispatcher.stats(), **told}


control(ToolExecutor.stats)
