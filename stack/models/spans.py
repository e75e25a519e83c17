"""A question to a model as a span, and as what metrics measure of it: from what is on record, when it has ended.

Nothing of what was asked or answered is in it; nor is what a provider says of a failure, which may echo either.
"""

from __future__ import annotations

from typing import Any

from airside.stack.ids import RunId
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelFailed
from airside.stack.run import genai_names as genai
from airside.stack.run.spans import SpanSpec, named_span_id, span_id, trace_id

UNANSWERED = "unanswered"
"""The type of the error of an attempt that was under way when its caller died."""


def run_of_stream(stream: str) -> RunId:
    """Return the run whose decision a stream of questions is of."""
    return RunId(stream.partition("/")[2].rpartition(":")[0])


def attempt_span(stream: str, asked: ModelAsked, end: ModelAnswered | ModelFailed | None, at_us: int) -> SpanSpec:
    """Return the span of one attempt, which is below that of its decision; `end` is None if nobody knows it."""
    run_id = run_of_stream(stream)
    attributes = measured(asked, end)
    attributes |= {
        genai.CONVERSATION: run_id,
        "airside.step": asked.step,
        "airside.attempt": asked.attempt,
        "airside.cost_microusd": (asked.reserved if end is None else end.spent).cost_microusd,
    }
    if isinstance(end, ModelAnswered):
        attributes[genai.FINISH_REASONS] = [end.finish]
        for name, tokens in ((genai.INPUT_TOKENS, end.input_tokens), (genai.OUTPUT_TOKENS, end.output_tokens)):
            if tokens is not None:
                attributes[name] = tokens
    return SpanSpec(
        name=f"{genai.CHAT} {attributes[genai.REQUEST_MODEL]}",
        trace_id=trace_id(run_id),
        span_id=named_span_id(stream, asked.attempt),
        parent_id=asked.span or span_id(run_id),
        start_us=min(asked.at_us, at_us),
        end_us=at_us,
        attributes=attributes,
        ok=isinstance(end, ModelAnswered),
        message=attributes.get(genai.ERROR_TYPE, ""),
    )


def measured(asked: ModelAsked, end: ModelAnswered | ModelFailed | None) -> dict[str, Any]:
    """Return what the metrics of an attempt are told apart by."""
    attributes: dict[str, Any] = {
        genai.OPERATION: genai.CHAT,
        genai.PROVIDER: genai.PROVIDERS.get(asked.provider, asked.provider or genai.OTHER),
        genai.REQUEST_MODEL: asked.model.partition(":")[2] or asked.model,
    }
    if isinstance(end, ModelAnswered):
        attributes[genai.RESPONSE_MODEL] = end.model
    elif end is None:
        attributes[genai.ERROR_TYPE] = UNANSWERED
    else:
        attributes[genai.ERROR_TYPE] = end.error_type or genai.OTHER
    return attributes
