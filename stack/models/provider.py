"""What a provider's client is to whoever asks models: one request, one answer or failure, or a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from airside.stack.canonical import as_text
from airside.stack.contracts.models import FinishReason, Prompt, RequestedCall
from airside.stack.errors import AirsideError
from airside.stack.ids import TenantId
from airside.stack.models.pricing import Rates, cost_of
from airside.stack.models.rate_limits import RateLimits
from airside.stack.values import MOST, Spend

MAX_ANSWER_BYTES = 2**20
MAX_ANSWER_CALLS = 256
"""Characters of an answer, all its arguments with it, and its calls, of which a run takes fewer anyhow."""

_MAX_NAME = 256
_ABSURD = 16
"""How many times the most tokens that an attempt could take its usage may say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderAnswer:
    """What a provider answered; `input_tokens` None where it does not say what it used."""

    text: str
    calls: tuple[RequestedCall, ...]
    finish: FinishReason
    model: str
    input_tokens: int | None
    output_tokens: int | None


class ProviderFailure(AirsideError):
    """A provider did not answer.

    `is_sure` = it refused before it did any work, so it is not paid; `again` = the same may be asked again, after
    `after_s` if it said when.  `kind` is what failures like it have in common.
    """

    def __init__(
        self, message: str, *, is_sure: bool, again: bool, after_s: float | None = None, kind: str = ""
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.is_sure = is_sure
        self.again = again
        self.after_s = after_s


Said = Callable[[str], None]
"""Is told what a model says, piece by piece.  It may not fail."""


class BatchedQuestion(NamedTuple):
    """One question of a batch, and how long its answer may be."""

    prompt: Prompt
    max_tokens: int


class BatchPort(Protocol):
    """The batches of one model at its provider.  A handle is text that any process can ask for the batch by.

    All raise `ProviderFailure`; what `results` holds is the provider's, for `read`.
    """

    rates: Rates

    async def create(self, label: str, questions: Mapping[str, BatchedQuestion]) -> str:
        """Create a batch of questions by their names, and return its handle."""

    async def find(self, label: str, since_us: int) -> str | None:
        """Return the handle of the batch that was created under a label, None if there certainly is none."""

    async def results(self, handle: str) -> Mapping[str, Any] | None:
        """Return what came of each question of a batch; None while it is at work."""

    async def cancel(self, handle: str) -> None:
        """Ask the provider to end a batch."""

    def read(self, result: Any, prompt: Prompt) -> ProviderAnswer:
        """Return the answer to one question."""


class ModelPort(Protocol):
    """One model as it is asked: its provider's client, its prices, its account's limits, its batches if any."""

    provider: str
    rates: Rates
    prices: str
    limits: RateLimits
    batches: BatchPort | None

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float, said: Said | None = None) -> ProviderAnswer:
        """Send one request; raise `ProviderFailure`.  With `said`, text is told as it comes; the answer has it all."""


class Reserved(NamedTuple):
    """What a decision has reserved, and whose it is."""

    price: Spend
    tenant: TenantId


def bounded(answer: ProviderAnswer) -> ProviderAnswer:
    """Return an answer that can be journaled: text that is text, and no longer than a run could use.

    What is longer is cut, and said to have been: nothing of it is carried out.
    """
    room, is_cut, calls = MAX_ANSWER_BYTES, len(answer.calls) > MAX_ANSWER_CALLS, []
    text = _cut(answer.text, room)
    room -= len(text)
    for call in answer.calls[:MAX_ANSWER_CALLS]:
        written = _cut(call.arguments, room)
        room -= len(written)
        is_cut |= len(written) < len(as_text(call.arguments)) or len(call.tool) > _MAX_NAME
        calls.append(
            RequestedCall(tool=_cut(call.tool, _MAX_NAME), arguments=written, call_id=_cut(call.call_id, _MAX_NAME))
        )
    is_cut |= len(text) < len(as_text(answer.text))
    return replace(
        answer,
        text=text,
        calls=tuple(calls),
        finish="length" if is_cut else answer.finish,
        model=_cut(answer.model, _MAX_NAME),
    )


def _cut(text: str, most: int) -> str:
    return as_text(text)[: max(0, most)]


def spent_on(rates: Rates, answer: ProviderAnswer, most: Spend) -> Spend:
    """Return what an answer cost by the usage it came with; all that was reserved, if it came without.

    Somewhat more than was reserved is believed, and ends the run; what nobody can have used is no usage.
    """
    read, wrote = answer.input_tokens, answer.output_tokens
    if read is None or wrote is None or min(read, wrote) < 0 or read + wrote > _ABSURD * most.tokens:
        return most
    return cost_of(rates, read, wrote)


def count_of(tokens: int | None) -> int | None:
    """Return a number of tokens that can be one."""
    return None if tokens is None or not 0 <= tokens <= MOST else tokens
