"""`ToolJob`: code of a tool's or toolset's that is called once, wherever that is; `ToolCall`: one of a granted call."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from airside.stack.ids import RunId, TenantId
from airside.stack.values import ToolResult
from airside.tools.runners.fair_slots import Waiting
from airside.tools.runners.outcomes import InvalidArguments, normalise, own_error
from airside.tools.secrets.redaction import NO_SECRETS, Redactor
from airside.tools.tool import NOT_DONE, Tool, ToolContext

if TYPE_CHECKING:
    from airside.tools.runners.tool_loop import Place


@dataclass(frozen=True, slots=True)
class StillAwaitable:
    """What a plain function gave that is still to be awaited."""

    answer: Any


def _nothing() -> None:
    pass


def _no_secrets() -> Redactor:
    return NO_SECRETS


@dataclass(eq=False, slots=True, kw_only=True)
class ToolJob:
    """One call of a function.  `name` is what it is called in errors, `advice` what to do if it holds an event loop.

    `begin` raises if it may not start, and is asked when nothing can come between that and the start; `over` is called
    when its code is done, which may be after its caller stopped waiting.  While it waits for a thread or a process, it
    is within what `waiting` makes.  A coroutine runs on the loop of its `place`.  `redactor` gives what takes secrets
    out of what it returns and raises, as they are known by then.

    Its methods run where the tool's code may.  They raise what `begin` raises, `InvalidArguments`, and what `own_error`
    makes of anything the tool raises: nothing of the tool's own leaves them.
    """

    name: str
    tenant: TenantId
    run_id: RunId
    function: Callable[..., Any]
    begin: Callable[[], None] = _nothing
    over: Callable[[], None] = _nothing
    waiting: Waiting = nullcontext
    place: Place | None = None
    advice: str = "make it a plain def"
    redactor: Callable[[], Redactor] = _no_secrets

    def arguments_of(self) -> dict[str, Any]:
        """Return what the function is called with; runs the tool's own code."""
        return {}

    def finish(self, answer: Any) -> Any:
        """Return what the job comes to; runs methods of the answer's own."""
        return answer

    def in_thread(self) -> Any:
        """Call a plain function, whose answer is `StillAwaitable` if it is to be awaited elsewhere."""
        answer = self._start()
        try:
            return StillAwaitable(answer) if inspect.isawaitable(answer) else self.finish(answer)
        except BaseException as error:
            broken = own_error(error, self.redactor())
        raise broken

    async def perform(self) -> Any:
        """Call it, and await what is to be awaited."""
        answer = self._start()
        try:
            return self.finish(await answer if inspect.isawaitable(answer) else answer)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            broken = own_error(error, self.redactor())
        raise broken  # outside, so that it does not hold on to the tool's error

    def after(self, awaits: StillAwaitable) -> ToolJob:
        """Return the rest of a call that gave something to await."""
        return _Rest(
            name=self.name,
            tenant=self.tenant,
            run_id=self.run_id,
            function=lambda: awaits.answer,
            over=self.over,
            place=self.place,
            advice=self.advice,
            redactor=self.redactor,
            whole=self,
        )

    def _start(self) -> Any:
        try:
            arguments = self.arguments_of()
        except BaseException as error:
            unfit = InvalidArguments(self.redactor().error(error))
        else:
            self.begin()
            try:
                return self.function(**arguments)
            except BaseException as error:
                broken = own_error(error, self.redactor())
            raise broken
        raise unfit


@dataclass(eq=False, slots=True, kw_only=True)
class _Rest(ToolJob):
    """What is left of a job that was called and has still to be awaited."""

    whole: ToolJob

    def finish(self, answer: Any) -> Any:
        """Return what the whole job comes to."""
        return self.whole.finish(answer)


@dataclass(eq=False, slots=True, kw_only=True)
class ToolCall(ToolJob):
    """A call of a tool, or an undo of one.  `arguments`, and the `output` that is taken back, are JSON."""

    what: Literal["call", "reconcile", "undo"] = "call"
    tool: Tool
    context: ToolContext
    arguments: bytes = b""
    output: bytes = b""

    def arguments_of(self) -> dict[str, Any]:
        """Return the keyword arguments of the tool's types, its context among them if it takes one."""
        tool = self.tool
        arguments = tool.convert(orjson.loads(self.arguments))
        return arguments if tool.context_parameter is None else {**arguments, tool.context_parameter: self.context}

    def finish(self, answer: Any) -> ToolResult | None:
        """Return an output as a result."""
        return normalise(answer, self.tool.spec.max_output_bytes, self.redactor())


@dataclass(eq=False, slots=True, kw_only=True)
class Reconciliation(ToolCall):
    """The question to a tool what became of a key."""

    what: Literal["call", "reconcile", "undo"] = "reconcile"

    def arguments_of(self) -> dict[str, Any]:
        """Return nothing: the function is bound to the context."""
        return {}

    def finish(self, answer: Any) -> ToolResult | None:
        """Return the result that the key already had, None if nothing was done under it."""
        return None if answer is NOT_DONE else normalise(answer, self.tool.spec.max_output_bytes, self.redactor())
