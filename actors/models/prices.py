"""What models cost, by the price list that comes with `genai-prices`: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING
from pathlib import Path

from airside.stack.errors import InvalidConfig
from airside.stack.models.cassettes import read_cassette
from airside.stack.models.endpoints import ModelEndpoint, endpoint_of
from airside.stack.models.pricing import Rates, ReducedRates

NEEDS_EXTRA = "models need more packages: install airside[models]"


class ListedPrice:
    """The price of a model in the list that comes with `genai-prices`."""

    def __init__(self, endpoint: ModelEndpoint) -> None:
        self._model = endpoint.model
        self._provider = endpoint.provider
        self.microusd(1, 1)

    def microusd(self, input_tokens: int, output_tokens: int) -> int:
        """Return what so many tokens cost, rounded up; those read from a cache count as any others."""
        import genai_prices

        usage = genai_prices.Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        price = genai_prices.calc_price(usage, self._model, provider_id=self._provider)
        return int((price.total_price * 1_000_000).to_integral_value(ROUND_CEILING))


def rates_of(endpoint: ModelEndpoint) -> Rates:
    """Return the price of an endpoint's model; raise `InvalidConfig` where nobody knows it."""
    if endpoint.price is not None:
        return endpoint.price
    try:
        if endpoint.base_url is not None:
            raise LookupError
        return ListedPrice(endpoint)
    except ImportError:
        raise InvalidConfig(NEEDS_EXTRA) from None
    except LookupError:
        raise InvalidConfig(
            f"what {endpoint.model!r} costs is not known: give ModelEndpoint(price=TokenPrice(input=..., output=...))"
        ) from None


def batch_rates_of(endpoint: ModelEndpoint) -> Rates | None:
    """Return the price of an endpoint's model in a batch; None if it takes none."""
    return None if endpoint.batches is None else ReducedRates(rates_of(endpoint), endpoint.batches)


def prices_of(endpoint: ModelEndpoint) -> str:
    """Return where the price of an endpoint's model is from."""
    if endpoint.price is not None:
        return "own"
    import genai_prices

    return f"genai-prices {genai_prices.__version__}"


def endpoints_of(named: Mapping[str, ModelEndpoint], models: list[str]) -> dict[str, ModelEndpoint]:
    """Return the endpoints that agents ask, by the names they give; raise `InvalidConfig` for a name of none."""
    for name, endpoint in named.items():
        if not isinstance(endpoint, ModelEndpoint):
            raise InvalidConfig(f"models: {name!r:.80}: {endpoint!r:.80} is no ModelEndpoint(...)")
        if endpoint.cassette is not None:
            read_cassette(Path(endpoint.cassette))  # what is wrong with it is said now
    return {**named, **{model: endpoint_of(model, named) for model in models if model not in named}}
