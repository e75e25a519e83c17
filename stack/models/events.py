"""What the journal has of questions to models: those of a decision in a stream of its own, attempt by attempt.

An attempt is on record before it is sent, with the most that it can cost; then what came of it.  One without that was
under way when its caller died: what it cost nobody knows, so it counts in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from airside.stack.canonical import digest
from airside.stack.contracts.models import FinishReason, ModelReply, RecordedAnswer, RequestedCall
from airside.stack.ids import RunId
from airside.stack.journal.journaling import Entry
from airside.stack.values import FREE, Count, Spend, Value, tag_of


class ModelAsked(Value, tag=True):
    """An attempt is about to be sent: to which model, with the prompt of this digest, at this price at most.

    It is at the `nth` question of the decision.  Attempts are counted through all of them.  `provider` is whose
    protocol the model is asked by, and `span` the trace's of the decision; a journal of before them has neither.
    `batch` = the label of the provider's batch that it goes into, "" if it is asked by itself.
    `prompt_blob` names the prompt where prompts are kept.
    """

    at_us: int
    step: Count
    epoch: Count
    nth: Count
    attempt: Count
    model: str
    prompt_sha256: str
    reserved: Spend
    prices: str
    left_out: Count = 0
    provider: str = ""
    span: str = ""
    batch: str = ""
    prompt_blob: str = ""


class ModelAnswered(Value, tag=True):
    """The model answered.  `spent` is by its own usage, where it says that; else all that was reserved."""

    at_us: int
    step: Count
    attempt: Count
    model: str
    finish: FinishReason
    text: str
    calls: tuple[RequestedCall, ...]
    input_tokens: Count | None
    output_tokens: Count | None
    spent: Spend
    took_ms: Count


class ModelFailed(Value, tag=True):
    """The attempt came to nothing.  `spent`: nothing where the provider refused it, all where nobody can say.

    `error_type` is what failures of its kind have in common: a status, or the name of an exception; `again` = the same
    model may be asked the same again.
    """

    at_us: int
    step: Count
    attempt: Count
    error: str
    spent: Spend
    took_ms: Count
    error_type: str = ""
    again: bool = True


NEVER_SENT = "never_sent"
"""The `error_type` of an attempt that no provider was asked: it counts for none of a model's."""

MODEL_STREAMS = "model/"
"""What the streams of questions to models begin with."""

ModelEvent = ModelAsked | ModelAnswered | ModelFailed


class ModelBatchPrepared(Value, tag=True):
    """A provider's batch is about to be created, for these members: each is an attempt of a decision's questions."""

    at_us: int
    model: str
    members: tuple[str, ...]


class ModelBatchSubmitted(Value, tag=True):
    """The provider has it: `handle` is what its client asks for it by, as JSON."""

    at_us: int
    handle: str


class ModelBatchAbandoned(Value, tag=True):
    """Nobody asks for it any more.  `is_sure` = it was certainly not created, so nothing of it is paid.

    `error_type` is its members' one: `NEVER_SENT` where its caller died before.
    """

    at_us: int
    is_sure: bool
    error: str
    again: bool = True
    error_type: str = ""


BatchEvent = ModelBatchPrepared | ModelBatchSubmitted | ModelBatchAbandoned

_decode_batch = msgspec.json.Decoder(BatchEvent).decode


def batch_stream(label: str) -> str:
    """Return the stream of one batch."""
    return f"model-batch/{label}"


def member_of(stream: str, attempt: int) -> str:
    """Return what an attempt is called within its batch: nothing that tells a provider whose it is."""
    return digest(f"{stream}#{attempt}".encode())[:40]


def batch_entry(event: BatchEvent) -> Entry:
    """Return an event of a batch as the journal's entry."""
    return Entry(type=tag_of(event), step=0, at_us=event.at_us, cause=-1, body=msgspec.json.encode(event))


def read_batch(bodies: Iterable[str]) -> list[BatchEvent]:
    """Return the events of a batch's stream; raise `msgspec.ValidationError` for what is none."""
    return [_decode_batch(body) for body in bodies]


_decode = msgspec.json.Decoder(ModelEvent).decode


def stream_of(run_id: RunId, step: int) -> str:
    """Return the stream of one decision's questions."""
    return f"{MODEL_STREAMS}{run_id}:{step}"


def model_entry(event: ModelEvent) -> Entry:
    """Return an event as the journal's entry."""
    return Entry(type=tag_of(event), step=event.step, at_us=event.at_us, cause=-1, body=msgspec.json.encode(event))


def read_events(bodies: Iterable[str]) -> list[ModelEvent]:
    """Return the events of a stream; raise `msgspec.ValidationError` for what is none."""
    return [_decode(body) for body in bodies]


def open_attempt(events: Sequence[ModelEvent], nth: int) -> ModelAsked | None:
    """Return the attempt at the `nth` question that is out in a batch, if one is."""
    ended = {event.attempt for event in events if not isinstance(event, ModelAsked)}
    asked = (event for event in events if isinstance(event, ModelAsked) and event.nth == nth and event.batch)
    return next((event for event in asked if event.attempt not in ended), None)


def reply_of(
    event: ModelAnswered, prompt_sha256: str, *, spend: Spend = FREE, attempts: int = 0, recorded: bool = False
) -> ModelReply:
    """Return an answer as whoever asked is given it."""
    return ModelReply(
        text=event.text,
        calls=event.calls,
        finish=event.finish,
        model=event.model,
        spend=spend,
        attempts=attempts,
        recorded=recorded,
        prompt_sha256=prompt_sha256,
    )


def answers_on_record(events: Iterable[ModelEvent]) -> dict[int, RecordedAnswer]:
    """Return the answers that a decision was given, by the number of the question, in their order."""
    asked: dict[int, ModelAsked] = {}
    found: dict[int, RecordedAnswer] = {}
    for event in events:
        if isinstance(event, ModelAsked):
            asked[event.attempt] = event
        elif isinstance(event, ModelAnswered) and event.attempt in asked:
            question = asked[event.attempt]
            reply = reply_of(event, question.prompt_sha256, recorded=True)
            found.setdefault(question.nth, RecordedAnswer(prompt_sha256=question.prompt_sha256, reply=reply))
    return dict(sorted(found.items()))


def answer_on_record(events: Iterable[ModelEvent], nth: int) -> RecordedAnswer | None:
    """Return the answer that was given to the `nth` question, if there is one.

    The prompt may have changed since, by what memory holds or by the app's code: it is the same decision, and was paid.
    """
    return answers_on_record(events).get(nth)


def spent_under(events: Sequence[ModelEvent], epoch: int, nth: int | None = None) -> Spend:
    """Return what the attempts of an epoch cost (at the `nth` question alone, if that is given).

    Those of which nobody knows what came of them count at their highest price.
    """
    tokens = cost = 0
    ended = {event.attempt: event.spent for event in events if not isinstance(event, ModelAsked)}
    for event in events:
        if isinstance(event, ModelAsked) and event.epoch == epoch and nth in (None, event.nth):
            spent = ended.get(event.attempt, event.reserved)
            tokens, cost = tokens + spent.tokens, cost + spent.cost_microusd
    return Spend(tokens=tokens, cost_microusd=cost)
