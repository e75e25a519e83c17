"""Providers' batches, as `pydantic_ai` encodes and reads them.

What was created under a label can be found again at OpenAI, whose batches carry data of their own; elsewhere nobody can
say, after a connection that was lost, whether a batch was created.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
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

_ENDS_OF_LINES = {0x85: r"\u0085", 0x2028: r"\u2028", 0x2029: r"\u2029"}
"""What JSON may have as it is, and readers take for the end of a line: a batch's questions are lines of a file."""

_NAMED = re.compile(rb'"custom_id"\s*:\s*"([^"\\]+)"')
"""Whose a line is that cannot be read."""

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
        encoded = [replace(each, body=each.body.translate(_ENDS_OF_LINES)) for each in encoded]
        if self._is_labelled:
            return await self._create_labelled(label, encoded)
        try:
            return _written(await self._model.batch_create(encoded))
        except (failures.ModelAPIError, failures.UnexpectedModelBehavior) as error:
            failure = failure_of(error, self._url, self._redaction)
            status = getattr(error, "status_code", None)
            failure.is_sure = failure.is_sure and (status is None or status < 500)
            raise failure from None
        except Exception as error:  # what the client makes of a page that is none of the provider's
            raise ProviderFailure(self._said(error), is_sure=False, again=True) from None

    async def find(self, label: str, since_us: int) -> str | None:
        """Return the handle of the batch that was created under a label, None if there certainly is none."""
        if not self._is_labelled:
            text = "this provider does not say under which label a batch was created"
            raise ProviderFailure(text, is_sure=False, again=False)
        client: Any = self._model.client  # type: ignore[attr-defined]
        try:
            page = await client.with_options(max_retries=2).batches.list(limit=_PAGE)
            found = await _labelled(page, label, since_us / 1_000_000 - _CLOCKS_APART_S)
            return None if found is None else await self._handle_of(found)
        except Exception as error:
            raise self._unsaid(error) from None

    async def results(self, handle: str) -> Mapping[str, BatchResult] | None:
        """Return what came of each question of a batch; None while it is at work.

        One of which nothing can be read is not there.
        """
        try:
            batch = _HANDLE.validate_json(handle)
        except ValueError as error:
            raise ProviderFailure(self._said(error), is_sure=False, again=False) from None
        try:
            batch = await self._model.batch_status(batch)
            if batch.status != "ended":
                return None
            if self._is_labelled:
                return await self._read_files(batch.provider_details or {})
            return {each.custom_id: each for each in await self._model.batch_results(batch)}
        except Exception as error:
            raise self._unsaid(error) from None

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
            file_id = file.id
            is_uploaded = True
            made = await client.batches.create(
                input_file_id=file_id, endpoint=_URL, completion_window=_WINDOW, metadata={_LABEL: label}
            )
            return await self._handle_of(made, encoded[0].group)
        except APIStatusError as error:
            is_sure, after = not is_uploaded or error.status_code < 500, _wait_of(error)
            raise ProviderFailure(self._said(error), is_sure=is_sure, again=_is_passing(error), after_s=after) from None
        except APIConnectionError as error:
            is_sure = not is_uploaded or was_never_sent(error)
            raise ProviderFailure(self._said(error), is_sure=is_sure, again=True) from None
        except APIError as error:
            raise ProviderFailure(self._said(error), is_sure=not is_uploaded, again=False) from None
        except Exception as error:  # what the client makes of a page that is none of the provider's
            raise ProviderFailure(self._said(error), is_sure=not is_uploaded, again=True) from None

    async def _read_files(self, details: Mapping[str, Any]) -> dict[str, BatchResult]:
        """Return what the files of a batch that has ended say, line by line.

        The library splits them at what answers may have within, and gives up all for one line that it cannot read.
        """
        from pydantic_ai.models.openai import _batch as files

        results: dict[str, BatchResult] = {}
        unread: set[str] = set()
        for key in ("output_file_id", "error_file_id"):
            lines, names = await self._lines(details.get(key)), set[str]()
            for line in lines:
                try:
                    result = files.to_result(files._OutputLine.model_validate_json(line))
                    results[result.custom_id] = result
                    names.add(result.custom_id)
                except ValueError:
                    named = _NAMED.search(line)
                    names.add(named[1].decode(errors="replace") if named else "")
            if names == {""}:
                raise ValueError("what is served as a file of the batch has no answers")
            unread |= names - results.keys()
        if details["status"] == "completed" or "" in unread:  # whose line that was nobody can say: no one was never run
            return results
        for number, line in enumerate(await self._lines(details["input_file_id"]), start=1):
            name = files._InputLine.model_validate_json(line).custom_id
            if name not in results and name not in unread:
                results[name] = files.unrun_result(details, name, number)  # type: ignore[arg-type]
        return results

    async def _lines(self, file_id: str | None) -> list[bytes]:
        if not file_id:
            return []
        client: Any = self._model.client  # type: ignore[attr-defined]
        content: bytes = (await client.files.content(file_id)).content
        return [line for line in content.split(b"\n") if line.strip()]

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

    def _unsaid(self, error: Exception) -> ProviderFailure:
        """Return that a provider did not say what was asked of it, which no page of somebody else's is."""
        from openai import APIStatusError

        if isinstance(error, failures.ModelAPIError | failures.UnexpectedModelBehavior):
            return failure_of(error, self._url, self._redaction)
        again = _is_passing(error) if isinstance(error, APIStatusError) else not isinstance(error, failures.UserError)
        return ProviderFailure(self._said(error), is_sure=False, again=again)

    def _said(self, error: BaseException) -> str:
        where = f" (at {self._url})" if self._url is not None else ""
        return self._redaction.hidden(f"{type(error).__name__}: {text_of(error, 400)}{where}")


def _written(batch: Batch) -> str:
    return _HANDLE.dump_json(batch).decode()


async def _labelled(page: Any, label: str, oldest_s: float) -> Any:
    """Return the batch of a label from a list of which the latest come first, None if it is certainly not there."""
    while True:
        if not isinstance(page.data, list):
            raise TypeError("the provider's answer is no list of batches")
        for each in page.data:
            if (each.metadata or {}).get(_LABEL) == label:
                return each
            if each.created_at < oldest_s:
                return None
        if not page.has_next_page():
            return None
        page = await page.get_next_page()


def _is_passing(error: Any) -> bool:
    """Whether the same may be asked again after a status."""
    return error.status_code in (408, 409, 429) or error.status_code >= 500


def _wait_of(error: Any) -> float | None:
    """Return for how many seconds a provider says to wait."""
    try:
        wait_s = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return wait_s if math.isfinite(wait_s) and wait_s >= 0 else None


def _line(request: EncodedBatchRequest) -> bytes:
    """Return a question as a line of the file that OpenAI's batches are made of."""
    body = msgspec.Raw(request.body.encode())
    return msgspec.json.encode({"custom_id": request.custom_id, "method": "POST", "url": _URL, "body": body})
