"""A run's side of the budget ledger: what it asks the gate to set aside for a decision, and what it says it used."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from airside.stack.contracts.budget import (
    ReservationRequest,
    Settlement,
    SpendRequest,
    decision_key,
    decision_usage,
    milliseconds,
    wall_key,
)
from airside.stack.errors import LayerUnavailable
from airside.stack.models.agent import ModelAgent
from airside.stack.ports import Policy
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import price_of
from airside.stack.values import FREE, Limits, Spend


class BudgetClient:
    """One activation's.  `metered` = runs of its tenant share a budget of what decisions use."""

    def __init__(
        self, policy: Policy, submitted: ev.RunSubmitted, identity: bytes, epoch: int, *, metered: bool
    ) -> None:
        self._policy = policy
        self._metered = metered
        self._epoch = epoch
        self._run_id = submitted.run_id
        self._lane = submitted.request.lane
        self._request = SpendRequest(
            identity=identity,
            proof=submitted.sealed,
            run_id=submitted.run_id,
            version=submitted.app_version,
            share=submitted.limits if submitted.limits != submitted.identity.limits else None,
        )
        self._settled: tuple[Settlement, ...] = ()
        self._asked_us = 0

    @property
    def share(self) -> Limits | None:
        """The run's own limits, where they are lower than its principal's."""
        return self._request.share

    def terms(self, agent: object) -> tuple[bool, Spend | None, bool]:
        """Return whether an agent's decisions are reserved first, its price, and whether it waits for batches."""
        if self._lane == "provider_batch" and isinstance(agent, ModelAgent):
            return True, agent.batch_price, True
        price = price_of(agent)
        return self._metered or (price is not None and price != FREE), price, False

    def ask(self, i: do.AskSpend, *, wall_ms: int, now_us: int) -> ev.SpendAsked:
        """Say what a decision can cost, and how long it may take."""
        self._asked_us = now_us
        return ev.SpendAsked(
            step=i.step, epoch=self._epoch, price=i.price, wall_ms=wall_ms, at_us=now_us, cause=i.cause
        )

    async def reserve(self, i: do.Reserve, *, now_us: Callable[[], int]) -> ev.SpendReserved | ev.SpendRefused:
        """Have the gate set that aside."""
        wanted = ReservationRequest(
            key=decision_key(self._run_id, i.step, self._epoch), price=i.price, wall_ms=i.wall_ms
        )
        request = msgspec.structs.replace(self._request, wanted=wanted, settled=self.pending)
        reason: ReasonCode | None
        try:
            reply = await self._policy.spend(request)
            self.acknowledge(request.settled)
            reason, detail = reply.reason_code, reply.detail
        except LayerUnavailable as error:
            reason, detail = ReasonCode.POLICY_ERROR, error.message[:2000]
        if reason is None:
            return ev.SpendReserved(step=i.step, at_us=now_us(), cause=i.cause)
        self._asked_us = 0
        return ev.SpendRefused(step=i.step, reason_code=reason, detail=detail, at_us=now_us(), cause=i.cause)

    def decided(self, event: ev.StepDecided, epoch: int, *, is_timed: bool = True) -> None:
        """Note what a decision, reserved under an epoch, cost and how long it took, if that is counted."""
        spend = event.proposal.spend
        if self._asked_us == 0 and spend == FREE:
            return
        took_us = event.at_us - self._asked_us if self._asked_us and is_timed else 0
        self._asked_us = 0
        used = decision_usage(spend, milliseconds(took_us))
        self._settled += (Settlement(key=decision_key(self._run_id, event.step, epoch), used=used),)

    def executed(self, gated: ev.ActionGated, duration_us: int) -> None:
        """Note how long a call took."""
        if gated.wall_ms:
            key = wall_key(self._run_id, gated.step, gated.attempt)
            self._settled += (Settlement(key=key, used={"wall_ms": milliseconds(duration_us)}),)

    @property
    def pending(self) -> tuple[Settlement, ...]:
        """What is to be told with every request until one is answered: settled twice is once."""
        return self._settled

    def acknowledge(self, settled: tuple[Settlement, ...]) -> None:
        """Note that the gate has answered a request that told of these."""
        self._settled = tuple(each for each in self._settled if each not in settled)

    async def flush(self) -> None:
        """Tell what has not been told; where the gate does not answer, what was reserved counts in full."""
        if self._settled:
            try:
                await self._policy.spend(msgspec.structs.replace(self._request, settled=self._settled))
            except LayerUnavailable:
                return
            self._settled = ()
