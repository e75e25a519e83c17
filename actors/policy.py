"""Policy: the gate behind a list method.  Holds tools' specs, bundle, budgets and seal key; runs nobody's code.

Its ledger lives in memory and is rebuilt from the journal.  Before it is, the executors are told of the new issuer, so
that no grant of the incarnation before, which may not be on record yet, is used beside what this one grants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from airside.actors.rpc.layer import LayerConfig, control, now_us, steady_us
from airside.actors.rpc.methods import (
    BUDGETS,
    BUNDLE,
    CHECK,
    CLOSE,
    DECIDE,
    ISSUER,
    RECOUNT,
    REFRESH,
    RESERVED,
    SPEND,
    TRUST,
    UNDO,
    TrustedGate,
)
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import serves
from airside.actors.rpc.stubs import RemoteJournal, RemoteResolvers
from airside.actors.wardens.watched import NOBODY, WatchedLayer, inside
from airside.stack.budget.ledger import Per, window_of
from airside.stack.budget.recorded_usage import RecordedUsage
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.gate import GateReply, GateRequest, Proposed
from airside.stack.contracts.models import ReservedQuestion, ReservedReply
from airside.stack.directory import Directory
from airside.stack.ids import Buffered, RunId, TenantId, mint_issuer
from airside.stack.journal.stream import read_stream
from airside.stack.operations.messages import ORDER_PURPOSE, Order
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.policy.kill_switches import STREAM, KillSwitches
from airside.stack.policy.lookups import Lookups
from airside.stack.reasons import ReasonCode
from airside.stack.recovery.spend_in_doubt import open_spend
from airside.stack.recovery.undo_gate import UndoGate, UndoReply, UndoRequest, streams_for
from airside.stack.resources import ResolverTerms, ResourceLookup
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.seals import unwrap

_SPANS: tuple[Per, ...] = ("month", "day", "minute")


# Whatever goes wrong with a request is a no.


def _deny(layer: Any, why: str) -> GateReply:
    reply: GateReply = layer._gate.deny_unreadable(why)
    return reply


def _no_spend(_: object, why: str) -> SpendReply:
    return SpendReply(reason_code=ReasonCode.POLICY_ERROR, detail=why)


def _nothing_reserved(_: object, why: str) -> ReservedReply:
    return ReservedReply(reason_code=ReasonCode.POLICY_ERROR, error=why)


def _no_undo(_: object, why: str) -> UndoReply:
    return UndoReply(error=why)


def _problem(_: object, why: str) -> str:
    return why


class Policy(WatchedLayer):
    """Decides about calls."""

    def __init__(
        self,
        config: LayerConfig,
        bundle_yaml: str,
        tools: Sequence[ToolSpec],
        directory: Directory,
        resolvers: Mapping[str, ResolverTerms] = MappingProxyType({}),
    ) -> None:
        super().__init__(config)
        self._resolvers = resolvers
        self._bundle_yaml = bundle_yaml
        self._tools = tools
        self._directory = directory
        self._decisions = {"allow": 0, "deny": 0, "require_approval": 0}

    async def start(self) -> None:
        """Compile the bundle and the tools' validators, void what was granted before, and count what was spent."""
        cell = self.config.cell
        self._issuer = mint_issuer()
        self._executors = [Remote(cell, "executor", str(index)) for index in range(cell.executors)]
        self._journal = RemoteJournal(cell)
        self._telling = asyncio.Lock()
        await self._tell_executors()
        self._lookups = Lookups(
            RemoteResolvers(cell),
            self._resolvers,
            seal_key=self.config.seal_key,
            issuer=self._issuer,
            now_us=now_us,
            steady_us=steady_us,
            at_work_ms=max(
                (spec.timeout_ms for spec in self._tools if spec.resources and spec.effect != "read"), default=0
            ),
        )
        keeps = any(terms.cache_ms for terms in self._resolvers.values())
        on_change = self._lookups.changed if keeps else None
        self._gate = Gate(
            bundle=load_bundle(self._bundle_yaml),
            tools=self._tools,
            seal_key=self.config.seal_key,
            now_us=now_us,
            windows_us=steady_us,
            random=Buffered(),
            spending=await self._rebuilt(),
            issuer=self._issuer,
            on_change=on_change,
        )
        self._gate.switches = KillSwitches(self._switch_changes)
        self._undo_gate = UndoGate(
            self._tools,
            seal_key=self.config.seal_key,
            now_us=now_us,
            random=Buffered(),
            issuer=self._issuer,
            policy_version=self._gate.policy_version,
            on_change=on_change,
        )

    async def _tell_executors(self) -> None:
        """Tell every executor whose grants it is to take, and what is switched off."""
        async with self._telling:  # so that an older reading never overtakes a newer one
            self._switch_changes = await read_stream(self._journal, STREAM)
            told = TrustedGate(self._issuer, self._switch_changes)
            await asyncio.gather(*(each.call(TRUST, told) for each in self._executors))

    @serves(REFRESH)
    async def refresh(self, _: None) -> None:
        """Read the switches again; return when the gate and every executor have them."""
        await self._tell_executors()
        self._gate.switches = KillSwitches(self._switch_changes)

    async def _rebuilt(self) -> BudgetReservations:
        organisation, tenants = self._directory.caps()
        now = steady_us()
        spans = [window_of(per, now) for per in _SPANS]
        rows = await self._journal.rows("spent", *spans, now)
        made = BudgetReservations(organisation, tenants, (RecordedUsage(*row) for row in rows), now)
        await self._give_back(made)
        return made

    async def _give_back(self, spending: BudgetReservations) -> None:
        """Give back what of spend in doubt was counted too much, by what people found out."""
        for tenant, body in await self._journal.rows("spend_resolved"):
            found = open_spend(self.config.seal_key, body, TenantId(tenant))
            if found is not None:
                spending.give_back(TenantId(tenant), found.key, found.back, at_us=found.counted_us)

    @serves(RECOUNT)
    async def recount(self, _: None) -> None:
        """Take in what was found out about spend in doubt; what was taken in before counts once."""
        await self._give_back(self._gate.spending)

    @serves(ISSUER)
    def issuer(self, _: None) -> TrustedGate:
        """Return the id of this incarnation, and the switches: what an executor that was restarted asks for."""
        return TrustedGate(self._issuer, self._switch_changes)

    @serves(DECIDE, unreadable=_deny, failed=_deny)
    def decide(self, request: GateRequest) -> GateReply | Awaitable[GateReply]:
        """Decide about a call."""
        return inside(self.pulse, request.run_id, self._decided_or_asked, request)

    def _decided_or_asked(self, request: GateRequest) -> GateReply | Awaitable[GateReply]:
        wanted = self._gate.needed_resources(request)
        if wanted is not None:
            return self._when_known(request, wanted)
        return self._counted(request, self._gate.decide(request))

    async def _when_known(self, request: GateRequest, wanted: ResourceLookup) -> GateReply:
        """Decide about a call when it is known what resources it is about."""
        answers = await self._lookups.answers(wanted)
        return self._counted(request, inside(self.pulse, request.run_id, self._gate.decide, request, answers))

    def _counted(self, request: GateRequest, reply: GateReply) -> GateReply:
        if not reply.untraced and not request.preview:
            self._decisions[reply.decision.outcome] += 1
        return reply

    @serves(SPEND, unreadable=_no_spend, failed=_no_spend)
    def spend(self, request: SpendRequest) -> SpendReply:
        """Reserve what a decision can cost, or say why it may not be made."""
        return inside(self.pulse, request.run_id, self._gate.spend, request)

    @serves(RESERVED, unreadable=_nothing_reserved, failed=_nothing_reserved)
    def reserved(self, question: ReservedQuestion) -> ReservedReply:
        """Say what a decision has reserved: what models may be paid from for it."""
        return inside(self.pulse, question.run_id, self._gate.reserved, question)

    @serves(CHECK, unreadable=_problem, failed=_problem)
    def check(self, proposed: Proposed) -> str:
        """Say why a proposal cannot be its tool's arguments, nothing if it can; decides nothing."""
        return inside(self.pulse, NOBODY, self._gate.check, proposed)

    @serves(UNDO, unreadable=_no_undo, failed=_no_undo)
    async def undo(self, request: UndoRequest) -> UndoReply:
        """Grant the undo of a call, or say why not: on a sealed order, by what the journal says."""
        bodies = await self._journal.bodies(streams_for(request))
        body = unwrap(self.config.seal_key, ORDER_PURPOSE, request.order)
        order = None if body is None else msgspec.msgpack.decode(body, type=Order)
        return inside(self.pulse, request.run_id, self._undo_gate.decide, request, order, bodies, self._gate.switches)

    @serves(BUDGETS)
    def budgets(self, tenant: str) -> bytes:
        """Return how the budgets of a tenant stand, or with '' the organisation's, as JSON."""
        whose = TenantId(tenant) if tenant in self._directory.tenants else None
        if tenant and whose is None:
            return b"[]"
        return msgspec.json.encode(self._gate.spending.standings(whose, now_us=steady_us()))

    @serves(BUNDLE)
    def bundle(self, _: None) -> str:
        """Return the bundle in force, as it is written."""
        return self._bundle_yaml

    @serves(CLOSE)
    def close(self, run_id: str) -> bool:
        """Forget a run that has ended; what it used stays counted on its tenant."""
        self._gate.spending.close(RunId(run_id))
        return True

    async def stats(self) -> dict[str, Any]:
        """Return the decisions made since this incarnation began, and what was used of what since the journal began."""
        if not self._started:
            return {**self._decisions, "used": {}, "limits": {}, "resources": {}}
        spending = self._gate.spending
        budgets = {"used": spending.stats(), "limits": spending.limits()}
        return {**self._decisions, **budgets, "resources": dict(self._lookups.counts)}


control(Policy.stats)
