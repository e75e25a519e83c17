"""What a run asks of a model, and what comes back: the messages between runtimes and the model callers.

They name no provider: what a provider calls things is the business of the layer that holds its keys.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from airside.stack.canonical import digest
from airside.stack.ids import RunId, TenantId
from airside.stack.reasons import ReasonCode
from airside.stack.values import FREE, Count, ModelLane, Spend, Value

MAX_MODELS = 8
"""Models that one question may name: the first one, and those to fall back to."""

MAX_BATCHED_S = 75 * 3600.0
"""Longest that a decision waits for providers' batches: three that expire, of a day and some each."""

FinishReason = Literal["stop", "tool_call", "length", "content_filter", "other"]


class OfferedTool(Value, array_like=True):
    """A tool as a model is offered it; `parameters` is its JSON Schema, as JSON."""

    name: str
    description: str
    parameters: bytes


class RequestedCall(Value, array_like=True):
    """A call that a model asks for, or asked for: `arguments` as it wrote them, which may be no JSON at all."""

    tool: str
    arguments: str
    call_id: str = ""


class Turn(Value, array_like=True):
    """One message of the conversation: what the user said, what the model did, or what a call returned."""

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    calls: tuple[RequestedCall, ...] = ()
    tool: str = ""
    call_id: str = ""


class Prompt(Value, array_like=True):
    """All that a model is told.  `max_tokens` of its answer; `left_out` = bytes of earlier results that were cut."""

    instructions: str
    turns: tuple[Turn, ...]
    tools: tuple[OfferedTool, ...]
    max_tokens: Count
    temperature: float | None = None
    left_out: Count = 0


class ModelRequest(Value, array_like=True):
    """A run's question to the first of `models` that answers.

    It is the `nth` of the decision that this step's agent makes, from 0.  One that was answered under an earlier epoch
    is answered from the record.
    """

    identity: bytes
    proof: str
    run_id: RunId
    version: str
    step: Count
    epoch: Count
    nth: Count
    models: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_MODELS)]
    prompt: Prompt
    timeout_ms: Count
    traceparent: str = ""
    lane: ModelLane = "direct"


class ModelReply(Value, array_like=True):
    """A model's answer, or why there is none (`reason_code` and `error`).

    `spend` = what all attempts at the question under this epoch cost, those in doubt at their highest price: what an
    answer from the record cost under an earlier epoch was counted then.  `attempts` are those that were just made.
    `prompt_sha256` is of the prompt that it answers, which may be another one than was asked if it is `recorded`.
    """

    text: str = ""
    calls: tuple[RequestedCall, ...] = ()
    finish: FinishReason = "stop"
    model: str = ""
    spend: Spend = FREE
    attempts: Count = 0
    recorded: bool = False
    reason_code: ReasonCode | None = None
    error: str = ""
    prompt_sha256: str = ""


class RecordedAnswer(Value):
    """What a model answered in an earlier decision, and the digest of the prompt it was given."""

    prompt_sha256: str
    reply: ModelReply


def prompt_digest(prompt: Prompt) -> str:
    """Return the digest that a prompt is on record by."""
    return digest(msgspec.msgpack.encode(prompt))


class ReservedQuestion(Value, array_like=True):
    """Whether a decision is reserved with the gate, and at what price; and what models cost it so far.

    `spent` only ever grows: the decision is settled at no less.
    """

    identity: bytes
    proof: str
    run_id: RunId
    version: str
    key: str
    spent: Spend = FREE


class ReservedReply(Value, array_like=True):
    """The price that is reserved and not settled, None if there is no such reservation; and whose the run is.

    `reason_code` and `error` say why nothing may be asked at all.
    """

    price: Spend | None = None
    tenant: TenantId = TenantId("")
    reason_code: ReasonCode | None = None
    error: str = ""
