"""`GrantChecks`: whether a call may start: by its grant, by this executor and its gate, by what is switched off."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from airside.stack.canonical import digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.ids import EffectKey, ExecutorId, IssuerId, RunId, mint_executor
from airside.stack.journal.effect_claims import MAX_CLAIM_ATTEMPTS
from airside.stack.policy.kill_switches import KillSwitches
from airside.stack.reasons import ReasonCode
from airside.stack.security.grants import Grant
from airside.stack.values import ToolResult
from airside.tools.runners.outcomes import refuse
from airside.tools.tool import Tool
from airside.tools.used_grants import UsedGrants

Kept = TypeVar("Kept", RunId, EffectKey)

_KEPT = 100_000
"""Runs whose latest epoch or end, and keys whose arguments, an executor remembers; older grants have long expired."""


class CallBlocked(Exception):
    """A call that waited may not start any more."""

    def __init__(self, refusal: ToolResult) -> None:
        super().__init__(refusal.error)
        self.refusal = refusal


class GrantChecks:
    """What one incarnation of an executor knows of grants; `issuer` is the incarnation of the gate that it trusts."""

    def __init__(
        self,
        tools: Mapping[str, Tool],
        *,
        executor_id: ExecutorId,
        issuer: IssuerId,
        now_us: Callable[[], int],
        steady_us: Callable[[], int],
    ) -> None:
        self.executor_id = executor_id
        self.issuer = issuer
        self.switches = KillSwitches()
        self._tools = tools
        self._now_us = now_us
        self._steady_us = steady_us  # what ends a switch
        self._used = UsedGrants()
        self._arguments: OrderedDict[EffectKey, str] = OrderedDict()
        self._latest: OrderedDict[EffectKey, tuple[int, int]] = OrderedDict()
        self._epochs: OrderedDict[RunId, int] = OrderedDict()
        self._over: OrderedDict[RunId, None] = OrderedDict()

    def end_run(self, run_id: RunId) -> None:
        """Have no call of a run start any more, but undos."""
        _remember(self._over, run_id, None)

    def has_ended(self, run_id: RunId) -> bool:
        """Whether a run is over, as far as is known here."""
        return run_id in self._over

    def rejection(self, grant: Grant | None, request: ExecuteRequest) -> ToolResult | None:
        """Return why the call may not start, or None; a grant that passes is used up."""
        if grant is None:
            return refuse(ReasonCode.GRANT_INVALID, "the grant's seal does not hold")
        now = self._now_us()
        if self._used.is_void(now):  # as another one it may begin anew: what was granted to this one is void
            self.executor_id, self._used = mint_executor(), UsedGrants()
        wrong = self._unlike(grant, request, now)
        if wrong is not None:
            return refuse(*wrong)
        block_reason = self._block_reason(grant)
        if block_reason is not None:
            return block_reason
        self._consume_nonce(grant, now)
        return None

    def _unlike(self, grant: Grant, request: ExecuteRequest, now: int) -> tuple[ReasonCode, str] | None:
        """Return what a grant does not fit of what is asked, of this executor or of now; None if it fits."""
        known, reason, undo = self._tools.get(grant.tool), ReasonCode.GRANT_INVALID, grant.undo
        if grant.executor != self.executor_id:
            text = "the grant is for another executor"
        elif grant.issuer != self.issuer:
            reason, text = ReasonCode.GRANT_STALE, "an earlier incarnation of the gate issued it"
        elif self._used.has_expired(grant, now):
            text = "the grant has expired"
        elif grant.epoch < self._epochs.get(grant.run_id, 0):
            reason, text = ReasonCode.GRANT_STALE, "a newer activation exists"
        elif grant.attempt > MAX_CLAIM_ATTEMPTS and not undo:  # an undo's attempts have a stream each
            text = f"there are {MAX_CLAIM_ATTEMPTS} attempts at most"
        elif grant in self._used:
            text = "the grant was used before"
        elif digest(request.arguments) != grant.arguments_sha256:
            text = "other arguments"
        elif self._arguments.get(grant.key, grant.arguments_sha256) != grant.arguments_sha256:
            text = f"{grant.key} was used with other arguments"
        elif known is None:
            text = f"this executor has no tool {grant.tool}"
        elif known.spec.version != grant.tool_version:
            text = "the tool's schema is another version"
        elif (digest(request.asked.encode()) if request.asked else "") != grant.asked_sha256:
            text = "another question of the tool"
        elif undo and known.undo is None:
            text = f"{grant.tool} has no undo here"
        elif undo and digest(request.output) != grant.output_sha256:
            text = "another output"
        else:
            return None
        return reason, text

    def _block_reason(self, grant: Grant) -> ToolResult | None:
        """Return why no call of this grant may start now: looked at when it comes, and again where it starts."""
        if grant.run_id in self._over and not grant.undo:
            return refuse(ReasonCode.GRANT_STALE, "its run is over")
        if not self.switches:
            return None
        blocked = self.switches.blocking(
            now_us=self._steady_us(),
            tenant=grant.tenant,
            principal=grant.principal,
            version=grant.version,
            run_id=grant.run_id,
            tool=grant.tool,
        )
        return None if blocked is None else refuse(ReasonCode.SWITCHED_OFF, str(blocked))

    def check_start(self, grant: Grant) -> None:
        """Raise `CallBlocked` if a call may not start; whoever asks starts it before anything else can happen."""
        block_reason = self._block_reason(grant)
        if block_reason is None and (grant.epoch, grant.attempt) < self._latest.get(grant.key, (0, 0)):
            # That one asks what became of the key, and must not be told "nothing" just before this one starts.
            block_reason = refuse(ReasonCode.GRANT_STALE, "a later attempt of it is here")
        if block_reason is not None:
            raise CallBlocked(block_reason)

    def _consume_nonce(self, grant: Grant, now: int) -> None:
        self._used.add(grant, now)
        _remember(self._arguments, grant.key, grant.arguments_sha256)
        _remember(self._epochs, grant.run_id, grant.epoch)
        if self._tools[grant.tool].reconcile is not None:
            attempt = (grant.epoch, grant.attempt)
            _remember(self._latest, grant.key, max(attempt, self._latest.get(grant.key, attempt)))


def _remember(kept: OrderedDict[Kept, Any], of: Kept, what: Any) -> None:
    """Keep something of a run or key, and forget that of the one nobody spoke of for longest."""
    kept[of] = what
    kept.move_to_end(of)
    if len(kept) > _KEPT:
        kept.popitem(last=False)
