"""The models of an app as they are asked: recorded ones and providers', within the limits of their accounts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from airside.actors.models.prices import rates_of
from airside.stack.models.cassettes import CassetteModel
from airside.stack.models.endpoints import ModelEndpoint
from airside.stack.models.provider import ModelPort
from airside.stack.models.rate_limits import RateLimits


def ports_of(endpoints: Mapping[str, ModelEndpoint], keys: Mapping[str, str]) -> dict[str, ModelPort]:
    """Return each endpoint's model; providers' clients are made when they are asked first."""
    limits = _limits(endpoints)
    return {
        name: _model(endpoint, limits[endpoint.account], keys.get(endpoint.key_env, ""))
        for name, endpoint in endpoints.items()
    }


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
