"""`ModelCalls`: asks models for runs, within what each decision has reserved.

In order: whose run it is, what its decision has reserved at the gate, whether the question was answered before; then,
attempt by attempt, the first model that can be paid for, its account's rate limit, the record that it is about to be
asked, the question, and the record of what came of it.  Every attempt is one request of one price: providers' own
retries are off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from weakref import WeakValueDictionary

import msgspec

from airside.stack.contracts.budget import decision_key
from airside.stack.contracts.models import (
    MAX_BATCHED_S,
    ModelReply,
    ModelRequest,
    Prompt,
    ReservedQuestion,
    ReservedReply,
)
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.batches import ModelBatches
from airside.stack.models.blobs import Blobs
from airside.stack.models.events import (
    ModelAsked,
    ModelEvent,
    answer_on_record,
    model_entry,
    read_events,
    spent_under,
    stream_of,
)
from airside.stack.models.provider import ModelPort, Reserved
from airside.stack.models.question import BatchQuestion, Question, Refusal
from airside.stack.models.streams import AnswerStreams
from airside.stack.models.unwritten import UnwrittenEnds
from airside.stack.reasons import ReasonCode
from airside.stack.values import FREE, Spend

MAX_QUESTION_S = 900.0
"""Longest a question takes that is asked by itself, whatever whoever asks says."""

_MAX_ERROR_CHARS = 500

_MARGIN_S = 0.05
"""Kept of a question's time for its answer to be written down."""


class ModelCalls:
    """The questions of one model caller."""

    def __init__(
        self,
        models: Mapping[str, ModelPort],
        *,
        reserved: Callable[[ReservedQuestion], Awaitable[ReservedReply]],
        append: Callable[[Append], Awaitable[AppendReply]],
        bodies: Callable[[Sequence[str]], Awaitable[dict[str, list[str]]]],
        now_us: Callable[[], int],
        now_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        batches: ModelBatches | None = None,
        streams: AnswerStreams | None = None,
        prompts: Blobs | None = None,
    ) -> None:
        """Keep what models are told in `prompts`; without it the journal has a digest alone."""
        self.models = models
        self._prompts = prompts
        self._reserved = reserved
        self._append = append
        self._bodies = bodies
        self._now_us = now_us
        self._now_s = now_s
        self._sleep = sleep
        self._unwritten = UnwrittenEnds(append, sleep)
        self.batches = batches
        self.streams = streams
        self._under_way: dict[tuple[str, int, int], asyncio.Future[ModelReply]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.asked = 0
        self.answered = 0

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Answer a question, or say why not.  The same one again, while it is under way, is the same question.

        Whoever asks may die meanwhile: what was sent is paid for, so its answer is waited for and written down.
        """
        try:
            found = await self.look(request, FREE)  # of each who asks, before anything is told to it
        except Refusal as refused:
            return refused.reply
        except LayerUnavailable as error:
            return _unavailable(error)
        key = stream_of(request.run_id, request.step), request.nth, request.epoch
        under_way = self._under_way.get(key)
        if under_way is None:
            under_way = asyncio.ensure_future(self._answer(request, found))
            self._under_way[key] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(under_way)

    async def look(self, request: ModelRequest, spent: Spend) -> Reserved:
        """Tell the gate what the decision's models cost so far, and return what it has reserved, and for whom.

        Raises `Refusal` where nothing may be asked (any more), and `LayerUnavailable`.
        """
        found = await self._reserved(
            ReservedQuestion(
                identity=request.identity,
                proof=request.proof,
                run_id=request.run_id,
                version=request.version,
                key=decision_key(request.run_id, request.step, request.epoch),
                spent=spent,
            )
        )
        if found.reason_code is not None:
            raise Refusal(found.reason_code, found.error)
        if found.price is None:
            text = "nothing is reserved for this decision: give the agent a price (@priced(...))"
            raise Refusal(ReasonCode.PRICE_UNKNOWN, text)
        return Reserved(found.price, found.tenant)

    async def _answer(self, request: ModelRequest, found: Reserved) -> ModelReply:
        longest_s = MAX_QUESTION_S if request.lane == "direct" else MAX_BATCHED_S
        left_s = min(request.timeout_ms / 1000, longest_s)
        until_s = self._now_s() + left_s - _MARGIN_S
        stream = stream_of(request.run_id, request.step)
        turn = self._turns.get(stream)
        if turn is None:
            turn = self._turns[stream] = asyncio.Lock()
        try:
            async with asyncio.timeout(left_s):
                await turn.acquire()  # they share what the decision has reserved
        except TimeoutError:
            return _unavailable(LayerUnavailable("another question of this decision took all the time"))
        try:
            return await self._asked(request, found, stream, until_s)
        except LayerUnavailable as error:
            return _unavailable(error)
        finally:
            turn.release()

    async def _asked(self, request: ModelRequest, found: Reserved, stream: str, until_s: float) -> ModelReply:
        unknown = next((name for name in request.models if name not in self.models), None)
        if unknown is not None:
            text = f"there is no model {unknown!r:.100} here"
            return ModelReply(reason_code=ReasonCode.MODEL_UNAVAILABLE, error=text)
        await self._unwritten.write(stream)
        events = read_events((await self._bodies([stream]))[stream])
        known = answer_on_record(events, request.nth)
        if known is not None:
            # Under this epoch it was paid from what is reserved now, under an earlier one from what that had reserved.
            return msgspec.structs.replace(known.reply, spend=spent_under(events, request.epoch, request.nth))
        if request.lane == "direct":
            return await Question(self, request, found, events, until_s).put()
        if self.batches is None:
            return ModelReply(reason_code=ReasonCode.MODEL_UNAVAILABLE, error="nothing is asked in batches here")
        return await BatchQuestion(self, self.batches, request, found, events, until_s).put()

    @property
    def unwritten(self) -> int:
        """How many attempts have ended whose ends wait for the journal."""
        return len(self._unwritten)

    # What a question needs.

    def port(self, model: str) -> ModelPort:
        """Return a model that was asked for, which is known by now."""
        return self.models[model]

    def now_us(self) -> int:
        """Return UTC microseconds."""
        return self._now_us()

    def now_s(self) -> float:
        """Return seconds by a clock that nobody sets."""
        return self._now_s()

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await self._sleep(seconds)

    async def _with_prompt(self, tenant: TenantId, event: ModelEvent, prompt: Prompt | None) -> ModelEvent:
        """Return an attempt with the name of its prompt, where prompts are kept, when that is durable."""
        if self._prompts is None or prompt is None or not isinstance(event, ModelAsked):
            return event
        name = await self._prompts.put(tenant, msgspec.msgpack.encode(prompt))
        return msgspec.structs.replace(event, prompt_blob=name)

    async def record(
        self, tenant: TenantId, stream: str, seq: int, event: ModelEvent, prompt: Prompt | None = None
    ) -> None:
        """Make an event durable; raise `LayerUnavailable` if another caller has written there, or the journal is away.

        What came of an attempt is written in that case when the journal is back.
        """
        event = await self._with_prompt(tenant, event, prompt)
        append = Append(tenant=tenant, stream=stream, epoch=0, first_seq=seq, entries=(model_entry(event),))
        try:
            reply = await self._append(append)
        except LayerUnavailable:
            if not isinstance(event, ModelAsked):
                self._unwritten.hold(append)
            raise
        if reply.verdict != "ok":
            raise LayerUnavailable(f"{stream}: the journal answered {reply.verdict}: {reply.detail}")


def _unavailable(error: LayerUnavailable) -> ModelReply:
    return ModelReply(reason_code=ReasonCode.MODEL_UNAVAILABLE, error=error.message[:_MAX_ERROR_CHARS])
