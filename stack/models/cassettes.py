"""Cassettes: answers of models as they were recorded, each played back to the prompt it was given to.

A cassette is a file of JSON lines.  A line is found by the digest of its prompt, so that an app whose prompts have
changed is told so, and gets no answer to another question.  `airside record` makes one of a journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from airside.stack.canonical import digest
from airside.stack.contracts.models import FinishReason, Prompt, RequestedCall
from airside.stack.errors import InvalidConfig
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelEvent
from airside.stack.models.pricing import Rates
from airside.stack.models.provider import BatchPort, ProviderAnswer, ProviderFailure, Said
from airside.stack.models.rate_limits import RateLimits
from airside.stack.values import Count, Value


class RecordedAnswer(Value):
    """One line of a cassette."""

    prompt_sha256: str
    model: str
    finish: FinishReason
    text: str = ""
    calls: tuple[RequestedCall, ...] = ()
    input_tokens: Count | None = None
    output_tokens: Count | None = None


_decode = msgspec.json.Decoder(RecordedAnswer).decode


def read_cassette(path: Path) -> dict[str, RecordedAnswer]:
    """Return the answers of a cassette by the digests of their prompts; raise `InvalidConfig` for what is none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidConfig(f"cassette {path}: {error.strerror or error}") from None
    found: dict[str, RecordedAnswer] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                answer = _decode(line)
            except msgspec.DecodeError as error:
                raise InvalidConfig(f"cassette {path}:{number}: {error}") from None
            found[answer.prompt_sha256] = answer
    return found


def recorded(streams: Mapping[str, Sequence[ModelEvent]]) -> Iterator[str]:
    """Yield the lines of a cassette of what the journal has of questions to models."""
    for events in streams.values():
        asked = {event.attempt: event.prompt_sha256 for event in events if isinstance(event, ModelAsked)}
        for event in events:
            if isinstance(event, ModelAnswered):
                line = RecordedAnswer(
                    prompt_sha256=asked[event.attempt],
                    model=event.model,
                    finish=event.finish,
                    text=event.text,
                    calls=event.calls,
                    input_tokens=event.input_tokens,
                    output_tokens=event.output_tokens,
                )
                yield msgspec.json.encode(line).decode()


class CassetteModel:
    """A model that answers from a cassette."""

    provider = "cassette"
    prices = "own"
    batches: BatchPort | None = None

    def __init__(self, path: Path, rates: Rates, limits: RateLimits) -> None:
        self.rates = rates
        self.limits = limits
        self._path = path
        self._answers = read_cassette(path)

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        """Return the recorded answer; raise `ProviderFailure` if there is none to this prompt."""
        answer = self._answers.get(digest(msgspec.msgpack.encode(prompt)))
        if answer is None:
            text = f"{self._path.name} has no answer to this prompt: record it again (`airside record`)"
            raise ProviderFailure(text, is_sure=True, again=False, kind="not_recorded")
        if said is not None and answer.text:
            said(answer.text)
        return ProviderAnswer(
            text=answer.text,
            calls=answer.calls,
            finish=answer.finish,
            model=answer.model,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
        )
