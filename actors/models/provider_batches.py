"""Providers' batches, as `pydantic_ai` encodes and reads them.

What was created under a label can be found again at OpenAI, whose batches carry data of their own; elsewhere nobody can
say, after a connection that was lost, whether a batch was created.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic import TypeAdapter
from pydantic_ai import exceptions as failures
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import Model
from pydantic_ai.models.batch import Batch, BatchRequest, BatchResult, EncodedBatchRequest
from pydantic_ai.settings import ModelSettings

from airside.actors.models.conversation import Conversation, failure_of, was_never_sent
from airside.actors.models.keys import KeyRedaction
from airside.actors.models.prices import batch_rates_of
from airside.stack.contracts.models import Prompt
from airside.stack.errors import text_of
from airside.stack.models.endpoints import ModelEndpoint
from airside.stack.models.provider import BatchedQuestion, ProviderAnswer, ProviderFailure

_HANDLE = TypeAdapter(Batch)

_LABEL = "airside_batch"
_URL = "/v1/responses"
_WINDOW = "24h"
_PAGE = 100

_CLOCKS_APART_S = 3_600
"""How much earlier than by our clock a provider may say that a batch was created."""

_NEVER_RUN = {"expired": "the batch expired before it was its turn", "canceled": "the batch was cancelled"}


class ProviderBatches:
    """The batches of one endpoint's model."""

    def __init__(self, endpoint: ModelEndpoint, client: Callable[[], Model], redaction: KeyRedaction) -> None:
        rates = batch_rates_of(endpoint)
        assert rates is not None
        self.rates = rates
        self._url = endpoint.base_url
        self._is_labelled = endpoint.provider == "openai"
        self._client = client
        self._made: Model | None = None
        self._redaction = redaction

    @property
    def _model(self) -> Model:
        if self._made is None:
            self._made = self._client()
        return self._made

    async def create(self, label: str, questions: Mapping[str, BatchedQuestion]) -> str:
        """Create a batch of questions by their names, and return its handle."""
        try:
            encoded = [await self._model.batch_encode(self._request(name, *each)) for name, each in questions.items()]
        except (failures.UserError, failures.AgentRunError) as error:
            raise ProviderFailure(self._said(error), is_sure=True, again=False) from None
        if self._is_labelled:
            return await self._create_labelled(label, encoded)
        try:
            return _written(await self._model.batch_create(encoded))
        except (failures.ModelAPIError, failures.UnexpectedModelBehavior) as error:
            failure = failure_of(error, self._url, self._redaction)
            status = getattr(error, "status_code", None)
            failure.is_sure = failure.is_sure and (status is None or status < 500)
            raise failure from None

    async def find(self, label: str, since_us: int) -> str | None:
        """Return the handle of the batch that was created under a label, None if there certainly is none."""
        if not self._is_labelled:
            text = "this provider does not say under which label a batch was created"
            raise ProviderFailure(text, is_sure=False, again=False)
        from openai import APIError, APIStatusError

        client: Any = self._model.client  # type: ignore[attr-defined]
        oldest_s = since_us / 1_000_000 - _CLOCKS_APART_S
        try:
            async for each in client.with_options(max_retries=2).batches.list(limit=_PAGE):
                if (each.metadata or {}).get(_LABEL) == label:
                    return await self._handle_of(each)
                if each.created_at < oldest_s:  # the latest come first
                    break
        except APIStatusError as error:
            again = error.status_code in (408, 409, 429) or error.status_code >= 500
            raise ProviderFailure(self._said(error), is_sure=False, again=again) from None
        except APIError as error:
            raise ProviderFailure(self._said(error), is_sure=False, again=True) from None
        return None

    async def results(self, handle: str) -> Mapping[str, BatchResult] | None:
        """Return what came of each question of a batch; None while it is at work."""
        try:
            batch = await self._model.batch_status(_HANDLE.validate_json(handle))
            if batch.status != "ended":
                return None
            return {each.custom_id: each for each in await self._model.batch_results(batch)}
        except (failures.ModelAPIError, failures.UnexpectedModelBehavior) as error:
            raise failure_of(error, self._url, self._redaction) from None
        except (failures.UserError, ValueError) as error:
            raise ProviderFailure(self._said(error), is_sure=False, again=False) from None

    async def cancel(self, handle: str) -> None:
        """Ask the provider to end a batch."""
        try:
            await self._model.batch_cancel(_HANDLE.validate_json(handle))
        except (failures.UserError, failures.AgentRunError, ValueError) as error:
            raise ProviderFailure(self._said(error), is_sure=False, again=False) from None

    def read(self, result: BatchResult, prompt: Prompt) -> ProviderAnswer:
        """Return the answer to one question."""
        if result.status in _NEVER_RUN:
            raise ProviderFailure(_NEVER_RUN[result.status], is_sure=True, again=True, kind=result.status)
        conversation = Conversation(prompt, self._redaction)
        request = self._request(result.custom_id, prompt, prompt.max_tokens)
        try:
            return conversation.answer(self._model.batch_decode(result, request))
        except (failures.ModelAPIError, failures.UnexpectedModelBehavior) as error:
            raise failure_of(error, self._url, self._redaction) from None

    def _request(self, name: str, prompt: Prompt, max_tokens: int) -> BatchRequest:
        conversation = Conversation(prompt, self._redaction)
        settings: ModelSettings = {"max_tokens": max_tokens}
        if prompt.temperature is not None:
            settings["temperature"] = prompt.temperature
        return BatchRequest(
            custom_id=name,
            messages=conversation.messages,
            model_settings=settings,
            model_request_parameters=conversation.parameters,
        )

    async def _create_labelled(self, label: str, encoded: list[EncodedBatchRequest]) -> str:
        from openai import APIConnectionError, APIError, APIStatusError

        client: Any = self._model.client  # type: ignore[attr-defined]
        client = client.with_options(max_retries=0)
        is_uploaded = False  # before that nothing can be paid
        try:
            file = await client.files.create(file=(f"{label}.jsonl", b"\n".join(map(_line, encoded))), purpose="batch")
            is_uploaded = True
            made = await client.batches.create(
                input_file_id=file.id, endpoint=_URL, completion_window=_WINDOW, metadata={_LABEL: label}
            )
        except APIStatusError as error:
            again, after = error.status_code in (408, 409, 429) or error.status_code >= 500, None
            if (wait := error.response.headers.get("retry-after", "")).isdigit():
                after = float(wait)
            is_sure = not is_uploaded or error.status_code < 500
            raise ProviderFailure(self._said(error), is_sure=is_sure, again=again, after_s=after) from None
        except APIConnectionError as error:
            is_sure = not is_uploaded or was_never_sent(error)
            raise ProviderFailure(self._said(error), is_sure=is_sure, again=True) from None
        except (APIError, ValueError) as error:
            raise ProviderFailure(self._said(error), is_sure=not is_uploaded, again=False) from None
        return await self._handle_of(made, encoded[0].group)

    async def _handle_of(self, made: Any, group: str = "") -> str:
        """Return the handle of a batch as the provider's client describes it."""
        if not group:
            any_request = BatchRequest(custom_id="any", messages=[ModelRequest.user_text_prompt("any")])
            group = (await self._model.batch_encode(any_request)).group
        batch = Batch(
            id=made.id,
            model_name=self._model.model_name,
            provider_name=self._model.system,
            group=group,
            status="in_progress",
            created_at=datetime.fromtimestamp(made.created_at, tz=UTC),
            request_count=(made.request_counts and made.request_counts.total) or 0,
        )
        return _written(batch)

    def _said(self, error: BaseException) -> str:
        where = f" (at {self._url})" if self._url is not None else ""
        return self._redaction.hidden(f"{type(error).__name__}: {text_of(error, 400)}{where}")


def _written(batch: Batch) -> str:
    return _HANDLE.dump_json(batch).decode()


def _line(request: EncodedBatchRequest) -> bytes:
    """Return a question as a line of the file that OpenAI's batches are made of."""
    body = msgspec.Raw(request.body.encode())
    return msgspec.json.encode({"custom_id": request.custom_id, "method": "POST", "url": _URL, "body": body})
