"""One question to models, attempt by attempt: asked by itself, or as a member of a provider's batch.

Every attempt is on record before it is sent, at the most that it can cost, and what came of it after.  What was refused
before it was carried out costs nothing; what was cut off, or came without usage, costs the most it can.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airside.stack.canonical import as_text
from airside.stack.contracts.models import ModelReply, ModelRequest, prompt_digest
from airside.stack.contracts.streams import PartKind
from airside.stack.errors import LayerUnavailable, text_of
from airside.stack.models.batches import Member, ModelBatches
from airside.stack.models.events import (
    NEVER_SENT,
    ModelAnswered,
    ModelAsked,
    ModelEvent,
    ModelFailed,
    member_of,
    open_attempt,
    reply_of,
    spent_under,
    stream_of,
)
from airside.stack.models.pricing import Rates, affordable
from airside.stack.models.provider import (
    ModelPort,
    ProviderAnswer,
    ProviderFailure,
    Reserved,
    bounded,
    count_of,
    spent_on,
)
from airside.stack.reasons import ReasonCode
from airside.stack.run.spans import parent_of
from airside.stack.values import FREE, Spend, less, plus

if TYPE_CHECKING:
    from airside.stack.models.calls import ModelCalls

MAX_ATTEMPTS_PER_MODEL = 3
MAX_ATTEMPTS = 8
"""Attempts at one question, all models together, in one activation."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_MAX_ERROR_CHARS = 500


class Refusal(Exception):
    """Nothing may be asked (any more), and why."""

    def __init__(self, reason: ReasonCode, text: str) -> None:
        super().__init__(text)
        self.reply = ModelReply(reason_code=reason, error=text)


class Question:
    """One question, asked by itself."""

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
        self._shown = False
        """Whether somebody was shown something of an answer: then no other model gives another one instead."""

    async def put(self) -> ModelReply:
        """Ask one model after the other; return the first answer, or why there is none."""
        reason = ReasonCode.MODEL_UNAVAILABLE
        for model in self._request.models:
            for turn in range(self._before(model), MAX_ATTEMPTS_PER_MODEL):
                if self._tried >= MAX_ATTEMPTS:
                    break
                port = self._calls.port(model)
                fitting = affordable(self._rates(port), self._request.prompt, self._left)
                if fitting is None:
                    reason = ReasonCode.MAX_COST
                    self._error = f"{model}: what is reserved for the decision does not pay for it{self._so_far()}"
                    break
                try:
                    return await self._try(model, port, *fitting)
                except ProviderFailure as failure:
                    self._note(model, failure)
                    reason = ReasonCode.MODEL_UNAVAILABLE
                    if not failure.again or not await self._paused(port, failure, turn):
                        break
                except Refusal as refused:  # it was killed, switched off or settled meanwhile
                    self._error = refused.reply.error
                    return self._no(refused.reply.reason_code or reason)
                except LayerUnavailable as error:  # nothing can be put on record: nothing more is sent
                    self._error = f"{model}: {error.message}"
                    return self._no(ReasonCode.MODEL_UNAVAILABLE)
            if self._shown:
                self._error += "; something of its answer was shown, so no other model is asked"
                break
        return self._no(reason)

    def _before(self, model: str) -> int:
        """Return how many attempts at a model count already."""
        return 0

    def _rates(self, port: ModelPort) -> Rates:
        return port.rates

    def _note(self, model: str, failure: ProviderFailure) -> None:
        self._error = f"{model}: {text_of(failure, _MAX_ERROR_CHARS)}"

    def _no(self, reason: ReasonCode) -> ModelReply:
        error = self._error[: 2 * _MAX_ERROR_CHARS]
        self._publish("failed", error)
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
        try:
            slot = await port.limits.take(most.tokens, until_s=self._until_s)
        except LayerUnavailable as error:
            raise ProviderFailure(error.message, is_sure=True, again=False) from None
        used: int | None = None
        try:
            asked = await self._begin(model, port, most)
            port.limits.sending(slot)
            try:
                answer = await self._sent(model, port, max_tokens)
            except ProviderFailure as failure:
                used = 0 if failure.is_sure else None
                if self._shown:
                    self._publish("restarted", text_of(failure, _MAX_ERROR_CHARS))
                await self._failed(asked, failure)
                raise
            event = await self._answered(asked, answer, self._rates(port))
            used = event.spent.tokens
            return self._reply(event, asked)
        finally:
            port.limits.done(slot, used)

    def _reply(self, event: ModelAnswered, asked: ModelAsked) -> ModelReply:
        return reply_of(event, asked.prompt_sha256, spend=self._spent, attempts=self._tried)

    async def _sent(self, model: str, port: ModelPort, max_tokens: int) -> ProviderAnswer:
        left_s = self._until_s - self._calls.now_s()
        if left_s <= 0:
            raise ProviderFailure("there is no time left to ask", is_sure=True, again=False, kind="timeout")
        try:
            if self._calls.streams is None or not self._calls.streams.is_watched(self._request.run_id):
                return bounded(await port.ask(self._request.prompt, max_tokens, left_s))
            self._publish("begun", model=model)
            return bounded(await port.ask(self._request.prompt, max_tokens, left_s, self._say))
        except ProviderFailure:
            raise
        except Exception as error:
            raise _unexpected(error) from None

    def _say(self, text: str) -> None:
        self._shown = True
        self._publish("text", as_text(text))

    def _publish(self, kind: PartKind, text: str = "", model: str = "") -> None:
        if self._calls.streams is not None:
            self._calls.streams.publish(kind, self._request.run_id, self._request.step, text, model)

    # What is on record of an attempt.

    async def _begin(self, model: str, port: ModelPort, most: Spend, batch: str = "") -> ModelAsked:
        """Look whether it still may be asked, and put the attempt on record."""
        await self._calls.look(self._request, self._decision)
        self._attempt += 1
        asked = ModelAsked(
            at_us=self._calls.now_us(),
            step=self._request.step,
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
            batch=batch,
        )
        await self._record(asked)
        self._tried += 1
        self._calls.asked += 1
        return asked

    async def _failed(self, asked: ModelAsked, failure: ProviderFailure) -> None:
        await self._settle(
            ModelFailed(
                at_us=self._calls.now_us(),
                step=asked.step,
                attempt=asked.attempt,
                error=text_of(failure, _MAX_ERROR_CHARS),
                spent=FREE if failure.is_sure else asked.reserved,
                took_ms=self._since(asked),
                error_type=failure.kind,
                again=failure.again,
            )
        )

    async def _answered(self, asked: ModelAsked, answer: ProviderAnswer, rates: Rates) -> ModelAnswered:
        event = ModelAnswered(
            at_us=self._calls.now_us(),
            step=asked.step,
            attempt=asked.attempt,
            model=answer.model or asked.model,
            finish=answer.finish,
            text=answer.text,
            calls=answer.calls,
            input_tokens=count_of(answer.input_tokens),
            output_tokens=count_of(answer.output_tokens),
            spent=spent_on(rates, answer, asked.reserved),
            took_ms=self._since(asked),
        )
        await self._settle(event)
        self._calls.answered += 1
        self._publish("answered", model=event.model)
        return event

    async def _settle(self, event: ModelAnswered | ModelFailed) -> None:
        """Count an attempt and write down what came of it; the gate knows what it cost before its run does."""
        spent = event.spent
        self._left, self._spent = less(self._left, spent), plus(self._spent, spent)
        self._decision = plus(self._decision, spent)
        await self._record(event)
        with contextlib.suppress(Refusal, LayerUnavailable):
            await self._calls.look(self._request, self._decision)

    async def _record(self, event: ModelEvent) -> None:
        await self._calls.record(self._tenant, self._stream, self._seq, event, self._request.prompt)
        self._seq += 1

    def _since(self, asked: ModelAsked) -> int:
        return max(0, (self._calls.now_us() - asked.at_us) // 1000)


class BatchQuestion(Question):
    """One question as a member of a provider's batch.

    One that is out already, sent before this process began perhaps, is waited for: it is not sent again until the
    provider has said what came of it, or nobody can say.
    """

    def __init__(
        self,
        calls: ModelCalls,
        batches: ModelBatches,
        request: ModelRequest,
        found: Reserved,
        events: Sequence[ModelEvent],
        until_s: float,
    ) -> None:
        super().__init__(calls, request, found, events, until_s)
        self._batches = batches
        self._out = open_attempt(events, request.nth)
        if self._out is not None:  # it counts when it is known what came of it
            others = [event for event in events if event is not self._out]
            self._decision = spent_under(others, request.epoch)
            self._left = less(found.price, self._decision)
            self._spent = spent_under(others, request.epoch, request.nth)
        asked = {each.attempt: each for each in events if isinstance(each, ModelAsked) and each.nth == request.nth}
        self._failures = [
            (asked[each.attempt].model, each.again)
            for each in events
            if isinstance(each, ModelFailed) and each.attempt in asked and each.error_type != NEVER_SENT
        ]

    async def put(self) -> ModelReply:
        """Wait for the attempt that is out, if one is; else, or if it came to nothing, ask."""
        if self._out is not None:
            try:
                return await self._waited(self._out)
            except ProviderFailure as failure:
                self._note(self._out.model, failure)
                if failure.kind != NEVER_SENT:
                    self._failures.append((self._out.model, failure.again))
            except LayerUnavailable as error:
                self._error = f"{self._out.model}: {error.message}"
                return self._no(ReasonCode.MODEL_UNAVAILABLE)
        return await super().put()

    def _before(self, model: str) -> int:
        if self._calls.port(model).batches is None:
            self._error = f"{model}: it takes no batches (ModelEndpoint(batch_share=...))"
            return MAX_ATTEMPTS_PER_MODEL
        failures = [again for name, again in self._failures if name == model]
        return len(failures) if all(failures) else MAX_ATTEMPTS_PER_MODEL

    def _rates(self, port: ModelPort) -> Rates:
        return port.rates if port.batches is None else port.batches.rates

    async def _waited(self, asked: ModelAsked) -> ModelReply:
        port = self._calls.models.get(asked.model)
        try:
            if port is None:
                raise ProviderFailure("this app asks that model no more", is_sure=False, again=False)
            if port.batches is None:
                raise ProviderFailure("it takes no batches any more", is_sure=False, again=False)
            results = await self._batches.resume(self._tenant, asked.batch, port.batches)
            answer = self._read(port, results.get(member_of(self._stream, asked.attempt)))
        except ProviderFailure as failure:
            await self._failed(asked, failure)
            raise
        return self._reply(await self._answered(asked, answer, self._rates(port)), asked)

    async def _try(self, model: str, port: ModelPort, max_tokens: int, most: Spend) -> ModelReply:
        assert port.batches is not None
        begun: list[ModelAsked] = []

        async def begin(label: str) -> str:
            begun.append(await self._begin(model, port, most, label))
            return member_of(self._stream, begun[0].attempt)

        member = Member(self._request.prompt, max_tokens, begin)
        try:
            result = await self._batches.send(self._tenant, model, port.batches, member)
            answer = self._read(port, result)
        except ProviderFailure as failure:
            await self._failed(begun[0], failure)
            raise
        return self._reply(await self._answered(begun[0], answer, self._rates(port)), begun[0])

    def _read(self, port: ModelPort, result: object) -> ProviderAnswer:
        assert port.batches is not None
        if result is None:
            raise ProviderFailure("the batch ended without a word of it", is_sure=False, again=True, kind="lost")
        try:
            return bounded(port.batches.read(result, self._request.prompt))
        except ProviderFailure:
            raise
        except Exception as error:
            raise _unexpected(error) from None


def _unexpected(error: Exception) -> ProviderFailure:
    text = f"{type(error).__name__}: {text_of(error, _MAX_ERROR_CHARS)}"
    return ProviderFailure(text, is_sure=False, again=False, kind=type(error).__name__)
