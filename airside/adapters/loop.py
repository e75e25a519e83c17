"""The loop of a framework's agent, run as decisions: from its beginning each time, on what is on record.

A framework asks models and calls tools in a loop of its own, and keeps where it is in memory.  Nothing of that is
kept here.  Each decision runs the loop from its beginning.  A question that was answered gets that answer, a call that
was carried out gets that result.  A new question is asked within the decision; at the first calls that have no result
the loop is stopped, and they are what the decision proposes: the gate, budgets, people, executors go on from there.

What is on record is found by what is asked (the prompt's digest; the tool and its arguments), so branches of a loop may
come in any order.  Nothing new goes out before all that is on record was asked for again: a loop that goes another way
than before is refused, for its questions would be paid, and its calls be carried out, a second time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
from pydantic_core import PydanticSerializationError, from_json, to_json

from airside.stack.canonical import canonical, check_bounds
from airside.stack.contracts.models import ModelReply, OfferedTool, Prompt, Turn, prompt_digest
from airside.stack.errors import InvalidInput, text_of
from airside.stack.models.access import ModelUnanswered
from airside.stack.models.prompts import RULES
from airside.stack.reasons import ReasonCode
from airside.stack.run.agents import AgentNondeterministic, Decided, View
from airside.stack.run.earlier import EarlierCall, EarlierDecision
from airside.stack.values import MAX_CALLS, Action, Finish

_QUIET_TURNS = 16
"""Turns of the event loop in which nothing new comes, after which what waits is all there is: a framework starts the
calls of one answer within a few turns.  One that comes later is proposed by the next decision."""

PATIENCE_S = 2.0
"""How long something new waits for what is on record to be asked for again, in a loop with threads or timers."""


class CallRefused(Exception):
    """A call has no result: it was denied, rejected, or failed.  The text says why, to the loop and its model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBounds:
    """Which models a loop asks, and how much they are told and may say."""

    models: tuple[str, ...]
    max_tokens: int
    max_prompt_bytes: int
    temperature: float | None = None


@dataclass(eq=False, slots=True)
class _Question:
    prompt: Prompt
    digest: str
    answer: asyncio.Future[ModelReply] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ForeignLoop:
    """One decision of a framework's agent.  `run` it once; the framework's code calls `ask` and `call`."""

    def __init__(self, view: View, bounds: ModelBounds, earlier: Sequence[EarlierDecision]) -> None:
        self.view = view
        self._bounds = bounds
        self._answers: dict[str, deque[ModelReply]] = {}
        self._results: dict[tuple[str, bytes], deque[EarlierCall]] = {}
        self._on_record = 0
        for decision in earlier:
            for answer in decision.answers:
                self._answers.setdefault(answer.prompt_sha256, deque()).append(answer.reply)
            for call in decision.calls:
                key = call.proposed.tool, canonical(call.proposed.arguments)
                self._results.setdefault(key, deque()).append(call)
            self._on_record += len(decision.answers) + len(decision.calls)
        self._asked: dict[str, int] = {}
        self._questions: deque[_Question] = deque()
        self._calls: list[Action] = []
        self._stirred = asyncio.Event()
        self._came = 0
        self._is_closed = False
        self._for_threads: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelled_before = self._task.cancelling() if self._task is not None else 0
        self._has_cancelled = False
        self._failure: Exception | None = None
        self._proposed: list[Action] | None = None

    # What the framework's code calls.

    async def ask(self, instructions: str, turns: Sequence[Turn], tools: Sequence[OfferedTool]) -> ModelReply:
        """Return a model's answer; its calls have ids that are the same each time the loop is run."""
        if asyncio.get_running_loop() is not self._loop:
            return await self._here(lambda: self.ask(instructions, turns, tools))  # type: ignore[no-any-return]
        prompt = self._prompt(instructions, turns, tools)
        sha256 = prompt_digest(prompt)
        nth = self._asked[sha256] = self._asked.get(sha256, -1) + 1
        known = self._answers.get(sha256)
        if known:
            self._on_record -= 1
            self._stir()
            reply = known.popleft()
        else:
            question = _Question(prompt, sha256)
            self._stir()
            self._questions.append(question)
            reply = await question.answer
        ids = [f"call_{sha256[:12]}_{nth}_{place}" for place in range(len(reply.calls))]
        calls = [msgspec.structs.replace(call, call_id=id) for call, id in zip(reply.calls, ids, strict=True)]
        return msgspec.structs.replace(reply, calls=tuple(calls))

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Return what a call returned; raise `CallRefused` for one without a result.

        Where a person changed the arguments, that is said beside the result.
        """
        if asyncio.get_running_loop() is not self._loop:
            return await self._here(lambda: self.call(tool, arguments))
        try:
            action = Action(tool=tool, arguments=as_json(arguments))
            check_bounds(action.arguments, where="arguments")
        except InvalidInput as error:
            raise CallRefused(error.message) from None
        key = tool, canonical(action.arguments)
        known = self._results.get(key)
        if known:
            self._on_record -= 1
            self._stir()
            return result_of(known.popleft())
        self._stir()
        self._calls.append(action)
        await self._loop.create_future()  # until the loop is stopped: the next decision has the result
        raise AssertionError("nobody answers it")

    def wait_for(self, start: Callable[[], Awaitable[Any]]) -> Any:
        """Await something of this loop's from a thread that the framework runs code in."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(self._for_thread(start), self._loop).result()
        raise InvalidInput("this was called without await on the event loop: use the framework's async way (ainvoke)")

    async def _here(self, start: Callable[[], Awaitable[Any]]) -> Any:
        """Await something of this loop's on another event loop: code in a thread may run one of its own."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._for_thread(start), self._loop))

    async def _for_thread(self, start: Callable[[], Awaitable[Any]]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._for_threads.add(task)  # by which its thread is let go when the loop is stopped
        return await start()

    # What the decision does.

    async def run(self, start: Callable[[], Awaitable[Any]]) -> Decided:
        """Run the loop until it ends or wants something carried out; return what that is."""
        conducting = asyncio.ensure_future(self._conduct())
        answer = None
        try:
            answer = await start()
        except BaseException:
            if not self._is_closed:
                raise
        finally:
            self._close()
            conducting.cancel()
            if self._task is not None and self._has_cancelled:
                self._task.uncancel()
        if self._is_cancelled():  # and the framework's code went on: nobody waits for what it came to
            raise asyncio.CancelledError
        if self._failure is not None:
            raise self._failure
        if self._proposed is not None:
            return self._proposed[0] if len(self._proposed) == 1 else self._proposed
        if self._on_record:
            raise self._went_another_way("it ended")
        return Finish(answer=answer)

    async def _conduct(self) -> None:
        """Ask what is new, one question after the other; stop the loop when only calls are waited for."""
        try:
            while True:
                await self._stirred.wait()
                await self._quiet()
                if not (self._questions or self._calls):
                    self._stirred.clear()
                    continue
                if self._on_record:
                    await self._record_used()
                if self._is_cancelled():
                    break
                if self._questions:
                    await self._answer(self._questions.popleft())
                else:
                    self._proposed = self._calls[:MAX_CALLS]
                    break
        except Exception as failure:
            self._failure = failure
        self._close()
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()

    def _is_cancelled(self) -> bool:
        """Return whether who runs the loop was told to stop, by others than the loop."""
        asked = 0 if self._task is None else self._task.cancelling() - self._has_cancelled
        return asked > self._cancelled_before

    def _close(self) -> None:
        self._is_closed = True
        for task in self._for_threads:
            task.cancel()

    async def _quiet(self) -> None:
        seen, turns = self._came, 0
        while turns < _QUIET_TURNS:
            await asyncio.sleep(0)
            turns = turns + 1 if seen == self._came else 0
            seen = self._came

    async def _record_used(self) -> None:
        """Wait until all that is on record was asked for again; raise `AgentNondeterministic` if it is not."""
        deadline = self._loop.time() + PATIENCE_S
        while self._on_record:
            if self._loop.time() >= deadline:
                raise self._went_another_way("it asked for something else")
            await asyncio.sleep(PATIENCE_S / 100)

    def _went_another_way(self, what: str) -> AgentNondeterministic:
        left = [f"a call of {tool}" for (tool, _), calls in self._results.items() for _ in calls]
        left += ["a question to a model" for answers in self._answers.values() for _ in answers]
        text = f"run again, {what}, and not for what is on record: {', '.join(left[:4])}"
        return AgentNondeterministic(
            f"{text}. What it asks may rest on nothing that changes: no clock, no random numbers, no unordered sets"
        )

    async def _answer(self, question: _Question) -> None:
        models = self.view.models
        if models is None:
            raise ModelUnanswered(ReasonCode.MODEL_UNAVAILABLE, "this stack asks no models: there is no model caller")
        reply = await models.ask(self._bounds.models, question.prompt)
        self._came += 1
        if reply.prompt_sha256 == question.digest:
            _tell(question, reply)
            return
        # This decision was made before, by branches that came in another order: the answer is another question's.
        self._questions.appendleft(question)
        other = next((each for each in self._questions if each.digest == reply.prompt_sha256), None)
        if other is not None:
            self._questions.remove(other)
            _tell(other, reply)
        else:
            self._answers.setdefault(reply.prompt_sha256, deque()).append(reply)
            self._on_record += 1

    def _prompt(self, instructions: str, turns: Sequence[Turn], tools: Sequence[OfferedTool]) -> Prompt:
        if not self._bounds.models:
            raise InvalidInput("this agent asks no model: say which ones it may (model=...)")
        prompt = Prompt(
            instructions=f"{instructions}\n\n{RULES}".strip(),
            turns=tuple(turns),
            tools=tuple(tools),
            max_tokens=self._bounds.max_tokens,
            temperature=self._bounds.temperature,
        )
        size = len(msgspec.msgpack.encode(prompt))
        if size > self._bounds.max_prompt_bytes:
            most = self._bounds.max_prompt_bytes
            raise InvalidInput(f"a prompt has {size:,} bytes, and may have {most:,}: raise max_prompt_bytes")
        return prompt

    def _stir(self) -> None:
        """Take in that the framework's code wants something; one that goes on after it was stopped gets nothing."""
        if self._is_closed or self._is_cancelled():
            raise asyncio.CancelledError
        self._came += 1
        self._stirred.set()


def _tell(question: _Question, reply: ModelReply) -> None:
    if not question.answer.done():
        question.answer.set_result(reply)


def result_of(call: EarlierCall) -> Any:
    """Return what a call returned; raise `CallRefused` for one without a result."""
    result = call.record.result
    if not result.ok:
        raise CallRefused(f"{result.reason_code}: {result.error}")
    if not call.is_edited:
        return result.value()
    note = "a person changed the arguments before it was carried out"
    return {"result": result.value(), "note": note, "arguments": call.record.arguments}


def as_json(value: Any) -> Any:
    """Return a copy of what a framework made that holds JSON and nothing else; raise `InvalidInput` if it cannot be."""
    try:
        return from_json(to_json(value), allow_inf_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidInput(f"it is no JSON: {text_of(error, 300)}") from None


def as_text(value: Any) -> str:
    """Return what a call returned as a model is told it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
