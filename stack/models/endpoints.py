"""`ModelEndpoint`: where a model is, whose key pays for it, what it costs and how much of it the cluster may use."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from airside.stack.calling import explain_misuse
from airside.stack.errors import InvalidConfig

Provider = Literal["openai", "anthropic", "google"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

KEY_OF: dict[Provider, str] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google": "GOOGLE_API_KEY",
}
"""The environment variables in which the providers' own tools look for keys."""

BATCH_SHARE = 0.5
"""What OpenAI, Anthropic and Google ask for an answer within a day."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")


@explain_misuse()
@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPrice:
    """What a million tokens cost, in USD: those a model reads, and those it writes."""

    input: float
    output: float

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            amount = getattr(self, name)
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < 1e6:
                raise InvalidConfig(f"TokenPrice: {name}={amount!r:.40} is no price of a million tokens in USD")

    def microusd(self, input_tokens: int, output_tokens: int) -> int:
        """Return what so many tokens cost, rounded up."""
        return math.ceil(round(input_tokens * self.input + output_tokens * self.output, 6))


@explain_misuse()
@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEndpoint:
    """A model at a provider, or behind a URL that speaks a provider's protocol (vLLM, Ollama, Ray Serve LLM).

    `provider` says which protocol, `model` what the model is called there.  The key is in the environment variable
    `api_key_env` of the process that starts the stack (the provider's own, by default); with a `base_url` none is sent
    unless it is named.
    `price` of tokens, where it is not in the price list that comes with `genai-prices`; a model whose price nobody
    knows is not asked.  `requests_per_minute`, `tokens_per_minute` and `concurrency` hold for the whole cluster, for
    all endpoints together that share a key and a URL: those of the strictest of them.  `batch_share` is the share of
    its price that the model costs in a batch of the provider's: half, if nothing is said; with a `base_url` it takes
    batches only where this is given.  With a `cassette`, a file of recorded answers, nothing is sent: each prompt gets
    the answer it got when that was recorded.
    """

    model: str
    provider: Provider = "openai"
    base_url: str | None = None
    api_key_env: str | None = None
    price: TokenPrice | None = None
    cassette: str | os.PathLike[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int = 64
    batch_share: float | None = None

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            raise InvalidConfig(f"ModelEndpoint: provider {self.provider!r:.40}: give one of {', '.join(PROVIDERS)}")
        if not isinstance(self.model, str) or not _NAME.fullmatch(self.model):
            raise InvalidConfig(f"ModelEndpoint: model {self.model!r:.80} is no name of a model")
        if self.base_url is not None and not re.fullmatch(r"https?://\S{1,500}", str(self.base_url)):
            raise InvalidConfig(f"ModelEndpoint: base_url {self.base_url!r:.80} is no http or https URL")
        if self.price is not None and not isinstance(self.price, TokenPrice):
            raise InvalidConfig(f"ModelEndpoint: price {self.price!r:.80}: give TokenPrice(input=..., output=...)")
        if self.cassette is not None:
            if not isinstance(self.cassette, str | os.PathLike) or not str(self.cassette):
                raise InvalidConfig(f"ModelEndpoint: cassette {self.cassette!r:.80} is no path")
            object.__setattr__(self, "cassette", str(Path(self.cassette).absolute()))
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
            given = getattr(self, name)
            if given is None and name != "concurrency":
                continue
            if type(given) is not int or given < 1:
                raise InvalidConfig(f"ModelEndpoint: {name}={given!r:.40} is no whole number of at least 1")

        share = self.batch_share
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1):
            raise InvalidConfig(f"ModelEndpoint: batch_share={share!r:.40} is no share of the price: 0.5 is half of it")

    def described(self) -> str:
        """Return who answers, and where."""
        place = f" at {self.base_url}" if self.base_url else ""
        recorded = f", recorded in {Path(self.cassette).name}" if self.cassette else ""
        return f"{self.provider}:{self.model}{place}{recorded}"

    @property
    def batches(self) -> float | None:
        """The share of its price that it costs in a batch; None if it takes none."""
        if self.cassette is not None or (self.base_url is not None and self.batch_share is None):
            return None
        return BATCH_SHARE if self.batch_share is None else self.batch_share

    @property
    def key_env(self) -> str:
        """The environment variable with the key, "" for none."""
        if self.api_key_env is not None:
            return self.api_key_env
        return KEY_OF[self.provider] if self.base_url is None else ""

    @property
    def account(self) -> str:
        """What its limits are shared by: the key and the place."""
        return f"{self.provider} {(self.base_url or '').rstrip('/')} {self.key_env}"


def endpoint_of(name: str, named: Collection[str] = ()) -> ModelEndpoint:
    """Return the endpoint that a name like `openai:gpt-5` stands for; raise `InvalidConfig` for what is none.

    `named` are those that it could have been meant for.
    """
    provider, colon, model = str(name).partition(":")
    chosen: Any = "google" if provider in ("google-gla", "google") else provider
    if not colon or chosen not in PROVIDERS:
        raise InvalidConfig(
            f"model {name!r:.80}: give 'openai:NAME', 'anthropic:NAME' or 'google:NAME', "
            f"or the name of an endpoint in App(models={{...}}): {', '.join(sorted(named)) or 'there is none'}"
        )
    return ModelEndpoint(provider=chosen, model=model)
