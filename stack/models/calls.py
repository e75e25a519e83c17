"""`ModelCalls`: asks models for runs, within what each decision has reserved.

In order: whose run it is, what its decision has reserved at the gate, whether the question was answered before; then,
attempt by attempt, the first model that can be paid for, its account's rate limit, the record that it is about to be
asked, the question, and the record of what came of it.  Every attempt is one request of one price: providers' own
retries are off.  What was refused before it was carried out costs nothing; what was cut off, or came without usage,
costs the most it can.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import msgspec

from airside.stack.canonical import as_text
from airside.stack.contracts.budget import decision_key
from airside.stack.contracts.models import (
    FinishReason,
    ModelReply,
    ModelRequest,
    Prompt,
    RequestedCall,
    ReservedQuestion,
    ReservedReply,
    prompt_digest,
)
from airside.stack.errors import AirsideError, LayerUnavailable, text_of
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.events import (
    ModelAnswered,
    ModelAsked,
    ModelEvent,
    ModelFailed,
    answer_on_record,
    model_entry,
    read_events,
    reply_of,
    spent_under,
    stream_of,
)
from airside.stack.models.pricing import Rates, affordable, cost_of
from airside.stack.models.rate_limits import RateLimits
from airside.stack.models.unwritten import UnwrittenEnds
from airside.stack.reasons import ReasonCode
from airside.stack.run.spans import parent_of
from airside.stack.values import FREE, MOST, Spend, less, plus

MAX_ATTEMPTS_PER_MODEL = 3
MAX_ATTEMPTS = 8
"""Attempts at one question, all models together, in one activation."""

MAX_ANSWER_BYTES = 2**20
MAX_ANSWER_CALLS = 256
"""Characters of an answer, all its arguments with it, and its calls, of which a run takes fewer anyhow."""

_MAX_NAME = 256
MAX_QUESTION_S = 900.0
"""Longest a question takes, whatever whoever asks says."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_MAX_ERROR_CHARS = 500
_ABSURD = 16
"""How many times the most tokens that an attempt could take its usage may say."""

_MARGIN_S = 0.05
"""Kept of a question's time for its answer to be written down."""


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


class ModelPort(Protocol):
    """One model as it is asked: its provider's client, its prices and its account's limits."""

    provider: str
    rates: Rates
    prices: str
    limits: RateLimits

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float) -> ProviderAnswer:
        """Send one request; raise `ProviderFailure`."""


class Reserved(NamedTuple):
    """What a decision has reserved, and whose it is."""

    price: Spend
    tenant: TenantId


class _Refused(Exception):
    def __init__(self, reason: ReasonCode, text: str) -> None:
        super().__init__(text)
        self.reply = ModelReply(reason_code=reason, error=text)


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
    ) -> None:
        self._models = models
        self._reserved = reserved
        self._append = append
        self._bodies = bodies
        self._now_us = now_us
        self._now_s = now_s
        self._sleep = sleep
        self._unwritten = UnwrittenEnds(append, sleep)
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
        except _Refused as refused:
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

        Raises `_Refused` where nothing may be asked (any more), and `LayerUnavailable`.
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
            raise _Refused(found.reason_code, found.error)
        if found.price is None:
            text = "nothing is reserved for this decision: give the agent a price (@priced(...))"
            raise _Refused(ReasonCode.PRICE_UNKNOWN, text)
        return Reserved(found.price, found.tenant)

    async def _answer(self, request: ModelRequest, found: Reserved) -> ModelReply:
        left_s = min(request.timeout_ms / 1000, MAX_QUESTION_S)
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
        unknown = next((name for name in request.models if name not in self._models), None)
        if unknown is not None:
            text = f"there is no model {unknown!r:.100} here"
            return ModelReply(reason_code=ReasonCode.MODEL_UNAVAILABLE, error=text)
        await self._unwritten.write(stream)
        events = read_events((await self._bodies([stream]))[stream])
        known = answer_on_record(events, request.nth)
        if known is not None:
            # Under this epoch it was paid from what is reserved now, under an earlier one from what that had reserved.
            return msgspec.structs.replace(known.reply, spend=spent_under(events, request.epoch, request.nth))
        return await _Question(self, request, found, events, until_s).put()

    @property
    def unwritten(self) -> int:
        """How many attempts have ended whose ends wait for the journal."""
        return len(self._unwritten)

    # What a question needs.

    def port(self, model: str) -> ModelPort:
        """Return a model that was asked for, which is known by now."""
        return self._models[model]

    def now_us(self) -> int:
        """Return UTC microseconds."""
        return self._now_us()

    def now_s(self) -> float:
        """Return seconds by a clock that nobody sets."""
        return self._now_s()

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await self._sleep(seconds)

    async def record(self, tenant: TenantId, stream: str, seq: int, event: ModelEvent) -> None:
        """Make an event durable; raise `LayerUnavailable` if another caller has written there, or the journal is away.

        What came of an attempt is written in that case when the journal is back.
        """
        append = Append(tenant=tenant, stream=stream, epoch=0, first_seq=seq, entries=(model_entry(event),))
        try:
            reply = await self._append(append)
        except LayerUnavailable:
            if not isinstance(event, ModelAsked):
                self._unwritten.hold(append)
            raise
        if reply.verdict != "ok":
            raise LayerUnavailable(f"{stream}: the journal answered {reply.verdict}: {reply.detail}")


class _Question:
    """One question, attempt by attempt."""

    def __init__(
        self, calls: ModelCalls, request: ModelRequest, found: Reserved, events: Sequence[ModelEvent], until_s: float
    ) -> None:
        self._calls = calls
        self._request = request
        self._sha256 = prompt_digest(request.prompt)
        self._tenant = found.tenant
        self._stream = stream_of(request.run_id, request.step)
        self._seq = len(events)
        self._attempt = sum(isinstance(event, ModelAsked) for event in events)
        self._decision = spent_under(events, request.epoch)
        self._left = less(found.price, self._decision)
        self._spent = spent_under(events, request.epoch, request.nth)
        self._until_s = until_s
        self._tried = 0
        self._error = ""

    async def put(self) -> ModelReply:
        """Ask one model after the other; return the first answer, or why there is none."""
        reason = ReasonCode.MODEL_UNAVAILABLE
        for model in self._request.models:
            for turn in range(MAX_ATTEMPTS_PER_MODEL):
                if self._tried >= MAX_ATTEMPTS:
                    break
                port = self._calls.port(model)
                fitting = affordable(port.rates, self._request.prompt, self._left)
                if fitting is None:
                    reason = ReasonCode.MAX_COST
                    self._error = f"{model}: what is reserved for the decision does not pay for it{self._so_far()}"
                    break
                try:
                    return await self._try(model, port, *fitting)
                except ProviderFailure as failure:
                    self._error = f"{model}: {text_of(failure, _MAX_ERROR_CHARS)}"
                    reason = ReasonCode.MODEL_UNAVAILABLE
                    if not failure.again or not await self._paused(port, failure, turn):
                        break
                except _Refused as refused:  # it was killed, switched off or settled meanwhile
                    self._error = refused.reply.error
                    return self._no(refused.reply.reason_code or reason)
                except LayerUnavailable as error:  # nothing can be put on record: nothing more is sent
                    self._error = f"{model}: {error.message}"
                    return self._no(ReasonCode.MODEL_UNAVAILABLE)
        return self._no(reason)

    def _no(self, reason: ReasonCode) -> ModelReply:
        error = self._error[: 2 * _MAX_ERROR_CHARS]
        return ModelReply(reason_code=reason, error=error, spend=self._spent, attempts=self._tried)

    def _so_far(self) -> str:
        return f" after {self._tried} attempts ({self._error})" if self._tried else ""

    async def _paused(self, port: ModelPort, failure: ProviderFailure, turn: int) -> bool:
        """Wait before the same model is asked again; return False if there is no time for that."""
        wait_s = failure.after_s
        if wait_s is None:
            wait_s = min(_FIRST_PAUSE_S * 2**turn, _LONGEST_PAUSE_S)
        else:
            port.limits.hold(wait_s)
        if turn + 1 >= MAX_ATTEMPTS_PER_MODEL or self._calls.now_s() + wait_s >= self._until_s:
            return False
        await self._calls.pause(wait_s)
        return True

    async def _try(self, model: str, port: ModelPort, max_tokens: int, most: Spend) -> ModelReply:
        calls, step = self._calls, self._request.step
        try:
            slot = await port.limits.take(most.tokens, until_s=self._until_s)
        except LayerUnavailable as error:
            raise ProviderFailure(error.message, is_sure=True, again=False) from None
        used: int | None = None
        try:
            await calls.look(self._request, self._decision)
            self._attempt += 1
            asked = ModelAsked(
                at_us=calls.now_us(),
                step=step,
                epoch=self._request.epoch,
                nth=self._request.nth,
                attempt=self._attempt,
                model=model,
                prompt_sha256=self._sha256,
                reserved=most,
                prices=port.prices,
                left_out=self._request.prompt.left_out,
                provider=port.provider,
                span=parent_of(self._request.traceparent),
            )
            await self._record(asked)
            self._tried += 1
            calls.asked += 1
            began_s = calls.now_s()
            try:
                answer = await self._sent(port, max_tokens)
            except ProviderFailure as failure:
                spent = FREE if failure.is_sure else most
                used = 0 if failure.is_sure else None
                await self._settle(
                    ModelFailed(
                        at_us=calls.now_us(),
                        step=step,
                        attempt=self._attempt,
                        error=text_of(failure, _MAX_ERROR_CHARS),
                        spent=spent,
                        took_ms=self._since(began_s),
                        error_type=failure.kind,
                    )
                )
                raise
            spent = _spent(port, answer, most)
            used = spent.tokens
            event = ModelAnswered(
                at_us=calls.now_us(),
                step=step,
                attempt=self._attempt,
                model=answer.model or model,
                finish=answer.finish,
                text=answer.text,
                calls=answer.calls,
                input_tokens=_count(answer.input_tokens),
                output_tokens=_count(answer.output_tokens),
                spent=spent,
                took_ms=self._since(began_s),
            )
            await self._settle(event)
            calls.answered += 1
            return reply_of(event, self._sha256, spend=self._spent, attempts=self._tried)
        finally:
            port.limits.done(slot, used)

    async def _sent(self, port: ModelPort, max_tokens: int) -> ProviderAnswer:
        left_s = self._until_s - self._calls.now_s()
        if left_s <= 0:
            raise ProviderFailure("there is no time left to ask", is_sure=True, again=False, kind="timeout")
        try:
            return bounded(await port.ask(self._request.prompt, max_tokens, left_s))
        except ProviderFailure:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {text_of(error, _MAX_ERROR_CHARS)}"
            raise ProviderFailure(text, is_sure=False, again=False, kind=type(error).__name__) from None

    async def _settle(self, event: ModelAnswered | ModelFailed) -> None:
        """Count an attempt and write down what came of it; the gate knows what it cost before its run does."""
        spent = event.spent
        self._left, self._spent = less(self._left, spent), plus(self._spent, spent)
        self._decision = plus(self._decision, spent)
        await self._record(event)
        with contextlib.suppress(_Refused, LayerUnavailable):
            await self._calls.look(self._request, self._decision)

    async def _record(self, event: ModelEvent) -> None:
        await self._calls.record(self._tenant, self._stream, self._seq, event)
        self._seq += 1

    def _since(self, began_s: float) -> int:
        return max(0, int((self._calls.now_s() - began_s) * 1000))


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


def _spent(port: ModelPort, answer: ProviderAnswer, most: Spend) -> Spend:
    """Return what an answer cost by the usage it came with; all that was reserved, if it came without.

    Somewhat more than was reserved is believed, and ends the run; what nobody can have used is no usage.
    """
    read, wrote = answer.input_tokens, answer.output_tokens
    if read is None or wrote is None or min(read, wrote) < 0 or read + wrote > _ABSURD * most.tokens:
        return most
    return cost_of(port.rates, read, wrote)


def _count(tokens: int | None) -> int | None:
    return None if tokens is None or not 0 <= tokens <= MOST else tokens


def _unavailable(error: LayerUnavailable) -> ModelReply:
    return ModelReply(reason_code=ReasonCode.MODEL_UNAVAILABLE, error=error.message[:_MAX_ERROR_CHARS])
