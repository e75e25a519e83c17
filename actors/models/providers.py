"""Providers' models, as `pydantic_ai.direct` asks them: one request an attempt, for its clients' own retries are off.

Imported by the model caller alone: a provider's client takes some 80 MiB.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_ai import exceptions as failures
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelResponse, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from airside.actors.models.conversation import Conversation, failure_of
from airside.actors.models.keys import KeyRedaction, PieceRedaction
from airside.actors.models.prices import prices_of, rates_of
from airside.actors.models.provider_batches import ProviderBatches
from airside.stack.contracts.models import Prompt
from airside.stack.models.endpoints import ModelEndpoint
from airside.stack.models.provider import BatchPort, ProviderAnswer, ProviderFailure, Said
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

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        """Send one request; raise `ProviderFailure`.  With `said`, text is told as it comes; the answer has it all."""
        if self._model is None:
            self._model = _client(self._endpoint, self._key)
        conversation = Conversation(prompt, self._redaction)
        settings = _settings(prompt, max_tokens, timeout_s)
        listener = None if said is None else _Listener(self._redaction.in_pieces(said))
        try:
            if listener is not None:
                async with asyncio.timeout(timeout_s):
                    return conversation.answer(await _streamed(self._model, conversation, settings, listener))
            answer = await model_request(
                self._model,
                conversation.messages,
                model_settings=settings,
                model_request_parameters=conversation.parameters,
            )
        except TimeoutError:
            raise ProviderFailure("no whole answer in time", is_sure=False, again=True, kind="timeout") from None
        except (failures.ModelAPIError, failures.UnexpectedModelBehavior) as error:
            failure = failure_of(error, self._endpoint.base_url, self._redaction)
            failure.is_sure &= listener is None or not listener.heard  # what has begun to answer is paid for
            raise failure from None
        return conversation.answer(answer)


class _Listener:
    """Who is told of a stream, and whether anything of it has come."""

    def __init__(self, pieces: PieceRedaction) -> None:
        self.pieces = pieces
        self.heard = False


async def _streamed(
    model: Model, conversation: Conversation, settings: ModelSettings, listener: _Listener
) -> ModelResponse:
    """Ask for an answer as a stream, and return it whole."""
    asked = model_request_stream(
        model,
        conversation.messages,
        model_settings=settings,
        model_request_parameters=conversation.parameters,
    )
    async with asked as stream:
        async for event in stream:
            listener.heard = True
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                listener.pieces(event.part.content)
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                listener.pieces(event.delta.content_delta)
        answer = stream.get()
    if answer.finish_reason in (None, "stop") and not (answer.provider_details or {}).get("finish_reason"):
        raise ProviderFailure("the stream ended before the answer did", is_sure=False, again=True, kind="cut_off")
    listener.pieces.end()
    return answer


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
