"""Providers' models, as `pydantic_ai.direct` asks them: one request an attempt, for its clients' own retries are off.

Imported by the model caller alone: a provider's client takes some 80 MiB.
"""

from __future__ import annotations

from typing import Any

from pydantic_ai import exceptions as failures
from pydantic_ai.direct import model_request
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from airside.actors.models.conversation import Conversation, failure_of
from airside.actors.models.keys import KeyRedaction
from airside.actors.models.prices import prices_of, rates_of
from airside.actors.models.provider_batches import ProviderBatches
from airside.stack.contracts.models import Prompt
from airside.stack.models.endpoints import ModelEndpoint
from airside.stack.models.provider import BatchPort, ProviderAnswer, ProviderFailure
from airside.stack.models.rate_limits import RateLimits


def _given(endpoint: ModelEndpoint, key: str) -> dict[str, Any]:
    if not key and endpoint.key_env:
        text = f"no key: {endpoint.key_env} was not set where the stack was started"
        raise ProviderFailure(text, is_sure=True, again=False)
    return {"api_key": key or "none", "base_url": endpoint.base_url}


def _client(endpoint: ModelEndpoint, key: str) -> Model:
    given = _given(endpoint, key)
    if endpoint.provider == "openai":
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIChatModel(endpoint.model, provider=OpenAIProvider(**given))
    if endpoint.provider == "anthropic":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        return AnthropicModel(endpoint.model, provider=AnthropicProvider(**given))
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    return GoogleModel(endpoint.model, provider=GoogleProvider(**given))


class ProviderModel:
    """One endpoint's model."""

    def __init__(self, endpoint: ModelEndpoint, limits: RateLimits, key: str = "") -> None:
        self.provider: str = endpoint.provider
        self.rates = rates_of(endpoint)
        self.prices = prices_of(endpoint)
        self.limits = limits
        self._endpoint = endpoint
        self._key = key.strip()
        self._redaction = KeyRedaction(self._key)
        self._model: Model | None = None
        self.batches: BatchPort | None = None
        if endpoint.batches is not None:
            self.batches = ProviderBatches(endpoint, self._batch_client, self._redaction)

    def _batch_client(self) -> Model:
        """Return what asks for batches: OpenAI's are of its newer protocol."""
        if self._endpoint.provider != "openai":
            self._model = self._model or _client(self._endpoint, self._key)
            return self._model
        from pydantic_ai.models.openai import OpenAIResponsesModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIResponsesModel(self._endpoint.model, provider=OpenAIProvider(**_given(self._endpoint, self._key)))

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float) -> ProviderAnswer:
        """Send one request; raise `ProviderFailure`."""
        if self._model is None:
            self._model = _client(self._endpoint, self._key)
        conversation = Conversation(prompt, self._redaction)
        try:
            answer = await model_request(
                self._model,
                conversation.messages,
                model_settings=_settings(prompt, max_tokens, timeout_s),
                model_request_parameters=conversation.parameters,
            )
        except (failures.ModelAPIError, failures.UnexpectedModelBehavior) as error:
            raise failure_of(error, self._endpoint.base_url, self._redaction) from None
        return conversation.answer(answer)


def _settings(prompt: Prompt, max_tokens: int, timeout_s: float) -> ModelSettings:
    settings: ModelSettings = {
        "max_tokens": max_tokens,
        "max_retries": 0,
        "timeout": timeout_s,
        "request_timeout": timeout_s,
    }
    if prompt.temperature is not None:
        settings["temperature"] = prompt.temperature
    return settings
