"""`ModelCalls`: asks models for runs, within what each decision has reserved.

In order: whose run it is, what its decision has reserved at the gate, whether the question was answered before; then,
attempt by attempt, the first model that can be paid for, its account's rate limit, the record that it is about to be
asked, the question, and the record of what came of it.  Every attempt is one request of one price: providers' own
retries are off.  What was refused before it was carried out costs nothing; what was cut off, or came without usage,
costs the most it can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from airside.stack.canonical import digest
from airside.stack.contracts.budget import decision_key
from airside.stack.contracts.models import (
    FinishReason,
    ModelReply,
    ModelRequest,
    Prompt,
    RequestedCall,
    ReservedQuestion,
    ReservedReply,
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
    spent_under,
    stream_of,
)
from airside.stack.models.pricing import Rates, affordable, cost_of, less, plus
from airside.stack.models.rate_limits import RateLimits
from airside.stack.reasons import ReasonCode
from airside.stack.values import FREE, Spend

MAX_ATTEMPTS_PER_MODEL = 3
MAX_ATTEMPTS = 8
"""Attempts at one question, all models together, in one activation."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_MAX_ERROR_CHARS = 500
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
    `after_s` if it said when.
    """

    def __init__(self, message: str, *, is_sure: bool, again: bool, after_s: float | None = None) -> None:
        super().__init__(message)
        self.is_sure = is_sure
        self.again = again
        self.after_s = after_s


class ModelPort(Protocol):
    """One model as it is asked: its provider's client, its prices and its account's limits."""

    rates: Rates
    prices: str
    limits: RateLimits

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float) -> ProviderAnswer:
        """Send one request; raise `ProviderFailure`."""


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
        self._under_way: dict[tuple[str, int], asyncio.Future[ModelReply]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.asked = 0
        self.answered = 0

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Answer a question, or say why not.  The same one again, while it is under way, is the same question.

        Whoever asks may die meanwhile: what was sent is paid for, so its answer is waited for and written down.
        """
        key = stream_of(request.run_id, request.step), request.nth
        under_way = self._under_way.get(key)
        if under_way is None:
            under_way = asyncio.ensure_future(self._answer(request))
            self._under_way[key] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(under_way)

    async def _answer(self, request: ModelRequest) -> ModelReply:
        until_s = self._now_s() + request.timeout_ms / 1000 - _MARGIN_S
        stream = stream_of(request.run_id, request.step)
        turn = self._turns.get(stream)
        if turn is None:
            turn = self._turns[stream] = asyncio.Lock()
        try:
            async with turn:  # they share what the decision has reserved
                return await self._asked(request, stream, until_s)
        except _Refused as refused:
            return refused.reply
        except LayerUnavailable as error:
            return ModelReply(reason_code=ReasonCode.MODEL_UNAVAILABLE, error=error.message[:_MAX_ERROR_CHARS])

    async def _asked(self, request: ModelRequest, stream: str, until_s: float) -> ModelReply:
        unknown = next((name for name in request.models if name not in self._models), None)
        if unknown is not None:
            raise _Refused(ReasonCode.MODEL_UNAVAILABLE, f"there is no model {unknown!r:.100} here")
        key = decision_key(request.run_id, request.step, request.epoch)
        found = await self._reserved(
            ReservedQuestion(
                identity=request.identity,
                proof=request.proof,
                run_id=request.run_id,
                version=request.version,
                key=key,
            )
        )
        if found.reason_code is not None:
            raise _Refused(found.reason_code, found.error)
        if found.price is None:
            text = "nothing is reserved for this decision: give the agent a price (@priced(...))"
            raise _Refused(ReasonCode.PRICE_UNKNOWN, text)
        events = read_events((await self._bodies([stream]))[stream])
        known = answer_on_record(events, request.nth)
        if known is not None:
            # Under this epoch it was paid from what is reserved now, under an earlier one from what that had reserved.
            return _reply(known, spent_under(events, request.epoch, request.nth), 0, recorded=True)
        left = less(found.price, spent_under(events, request.epoch))
        question = _Question(self, request, found.tenant, events, left, until_s)
        return await question.put()

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
        """Make an event durable; raise `LayerUnavailable` if another caller has written there."""
        reply = await self._append(
            Append(tenant=tenant, stream=stream, epoch=0, first_seq=seq, entries=(model_entry(event),))
        )
        if reply.verdict != "ok":
            raise LayerUnavailable(f"{stream}: the journal answered {reply.verdict}: {reply.detail}")


class _Question:
    """One question, attempt by attempt."""

    def __init__(
        self,
        calls: ModelCalls,
        request: ModelRequest,
        tenant: TenantId,
        events: Sequence[ModelEvent],
        left: Spend,
        until_s: float,
    ) -> None:
        self._calls = calls
        self._request = request
        self._sha256 = digest(msgspec.msgpack.encode(request.prompt))
        self._tenant = tenant
        self._stream = stream_of(request.run_id, request.step)
        self._seq = len(events)
        self._attempt = sum(isinstance(event, ModelAsked) for event in events)
        self._left = left
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
                self._settle(spent)
                await self._record(
                    ModelFailed(
                        at_us=calls.now_us(),
                        step=step,
                        attempt=self._attempt,
                        error=text_of(failure, _MAX_ERROR_CHARS),
                        spent=spent,
                        took_ms=self._since(began_s),
                    )
                )
                raise
            spent = _spent(port, answer, most)
            used = spent.tokens
            self._settle(spent)
            event = ModelAnswered(
                at_us=calls.now_us(),
                step=step,
                attempt=self._attempt,
                model=answer.model or model,
                finish=answer.finish,
                text=answer.text,
                calls=answer.calls,
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                spent=spent,
                took_ms=self._since(began_s),
            )
            await self._record(event)
            calls.answered += 1
            return _reply(event, self._spent, self._tried)
        finally:
            port.limits.done(slot, used)

    async def _sent(self, port: ModelPort, max_tokens: int) -> ProviderAnswer:
        left_s = self._until_s - self._calls.now_s()
        if left_s <= 0:
            raise ProviderFailure("there is no time left to ask", is_sure=True, again=False)
        try:
            return await port.ask(self._request.prompt, max_tokens, left_s)
        except ProviderFailure:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {text_of(error, _MAX_ERROR_CHARS)}"
            raise ProviderFailure(text, is_sure=False, again=False) from None

    def _settle(self, spent: Spend) -> None:
        self._left, self._spent = less(self._left, spent), plus(self._spent, spent)

    async def _record(self, event: ModelEvent) -> None:
        await self._calls.record(self._tenant, self._stream, self._seq, event)
        self._seq += 1

    def _since(self, began_s: float) -> int:
        return max(0, int((self._calls.now_s() - began_s) * 1000))


def _spent(port: ModelPort, answer: ProviderAnswer, most: Spend) -> Spend:
    """Return what an answer cost by the usage it came with; all that was reserved, if it came without."""
    if answer.input_tokens is None or answer.output_tokens is None:
        return most
    return cost_of(port.rates, answer.input_tokens, answer.output_tokens)


def _reply(event: ModelAnswered, spent: Spend, attempts: int, *, recorded: bool = False) -> ModelReply:
    return ModelReply(
        text=event.text,
        calls=event.calls,
        finish=event.finish,
        model=event.model,
        spend=spent,
        attempts=attempts,
        recorded=recorded,
    )
