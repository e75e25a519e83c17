"""ModelCaller: asks models for all runs of the stack.  The one layer that is given providers' keys.

There is one of it, so that what a provider allows of an account holds for the whole cluster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from airside.actors.models.prices import rates_of
from airside.actors.rpc.layer import LayerConfig, control, now_us
from airside.actors.rpc.methods import ASK_MODEL, RESERVED
from airside.actors.rpc.remote import Remote
from airside.actors.rpc.serving import Denial, serves
from airside.actors.rpc.stubs import RemoteJournal
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.contracts.models import ModelReply, ModelRequest
from airside.stack.models.calls import ModelCalls, ModelPort
from airside.stack.models.cassettes import CassetteModel
from airside.stack.models.endpoints import ModelEndpoint
from airside.stack.models.rate_limits import RateLimits
from airside.stack.reasons import ReasonCode


def _no(reason: ReasonCode) -> Denial:
    def refuse(_: object, why: str) -> ModelReply:
        return ModelReply(reason_code=reason, error=why)

    return refuse


class ModelCaller(WatchedLayer):
    """Asks models within what is reserved."""

    def __init__(
        self,
        config: LayerConfig,
        endpoints: Mapping[str, ModelEndpoint],
        keys: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(config)
        self._endpoints = endpoints
        self._keys = keys

    async def start(self) -> None:
        """Make the models ready to be asked; providers' clients are made when they are asked first."""
        journal, policy = RemoteJournal(self.config.cell), Remote(self.config.cell, "policy")
        limits = _limits(self._endpoints)
        models = {
            name: _model(endpoint, limits[endpoint.account], self._keys.get(endpoint.key_env, ""))
            for name, endpoint in self._endpoints.items()
        }
        self._calls = ModelCalls(
            models,
            reserved=lambda question: policy.call(RESERVED, question),
            append=journal.append,
            bodies=journal.bodies,
            now_us=now_us,
            now_s=time.monotonic,
            sleep=asyncio.sleep,
        )

    @serves(ASK_MODEL, unreadable=_no(ReasonCode.MODEL_UNAVAILABLE), failed=_no(ReasonCode.MODEL_UNAVAILABLE))
    def ask(self, request: ModelRequest) -> Awaitable[ModelReply]:
        """Answer a run's question, or say why not."""
        return self._calls.ask(request)

    async def stats(self) -> dict[str, Any]:
        """Return the requests that were sent since this process began, and those that were answered."""
        return {"asked": self._calls.asked, "answered": self._calls.answered} if self._started else {}


def _model(endpoint: ModelEndpoint, limits: RateLimits, key: str) -> ModelPort:
    if endpoint.cassette is not None:
        return CassetteModel(Path(endpoint.cassette), rates_of(endpoint), limits)
    from airside.actors.models.providers import ProviderModel

    return ProviderModel(endpoint, limits, key)


def _limits(endpoints: Mapping[str, ModelEndpoint]) -> dict[str, RateLimits]:
    """Return the limits of each account: the strictest that any of its endpoints names."""
    made: dict[str, RateLimits] = {}
    for account in {endpoint.account for endpoint in endpoints.values()}:
        of = [endpoint for endpoint in endpoints.values() if endpoint.account == account]
        made[account] = RateLimits(
            requests=min((each.requests_per_minute for each in of if each.requests_per_minute), default=None),
            tokens=min((each.tokens_per_minute for each in of if each.tokens_per_minute), default=None),
            concurrency=min(each.concurrency for each in of),
            now_s=time.monotonic,
            sleep=asyncio.sleep,
        )
    return made


control(ModelCaller.stats)
