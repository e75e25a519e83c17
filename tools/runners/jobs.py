"""`ToolJob`: code of a tool's or toolset's that is called once, wherever that is, and its result as plain values."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from airside.stack.errors import text_of
from airside.stack.ids import RunId, TenantId
from airside.tools.runners.fair_slots import Waiting
from airside.tools.runners.outcomes import own_error
from airside.tools.runners.processes import InvalidArguments


@dataclass(frozen=True, slots=True)
class StillAwaitable:
    """What a plain function gave that is still to be awaited."""

    answer: Any


@dataclass(eq=False, slots=True, kw_only=True)
class ToolJob:
    """One call.  `name` is what it is called in errors, `advice` what to do about it if it holds an event loop.

    `convert` makes its arguments and `finish` takes what it returns: both run the tool's own methods.  `begin` raises
    if it may not start, and is asked when nothing can come between that and the start.  While it waits for a thread,
    it is within what `waiting` makes.

    Its methods run where the tool's code may.  They raise what `begin` raises, `InvalidArguments`, and what `own_error`
    makes of anything the tool raises: nothing of the tool's own leaves them.
    """

    name: str
    tenant: TenantId
    run_id: RunId
    function: Callable[..., Any]
    convert: Callable[[], dict[str, Any]] = dict
    begin: Callable[[], None] = lambda: None
    waiting: Waiting = nullcontext
    advice: str = "make it a plain def"
    finish: Callable[[Any], Any] = lambda answer: answer

    @property
    def is_coroutine(self) -> bool:
        """Whether calling it runs nothing yet."""
        return inspect.iscoroutinefunction(self.function)

    def in_thread(self) -> Any:
        """Call a plain function, whose answer is `StillAwaitable` if it is to be awaited elsewhere."""
        answer = self._start()
        try:
            return StillAwaitable(answer) if inspect.isawaitable(answer) else self.finish(answer)
        except BaseException as error:
            broken = own_error(error)
        raise broken

    async def perform(self) -> Any:
        """Call it, and await what is to be awaited."""
        answer = self._start()
        try:
            return self.finish(await answer if inspect.isawaitable(answer) else answer)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            broken = own_error(error)
        raise broken  # outside, so that it does not hold on to the tool's error

    def after(self, awaits: StillAwaitable) -> ToolJob:
        """Return the rest of a call that gave something to await."""
        return replace(self, function=lambda: awaits.answer, convert=dict, begin=lambda: None)

    def _start(self) -> Any:
        try:
            arguments = self.convert()
        except BaseException as error:
            unfit = InvalidArguments(text_of(error))
        else:
            self.begin()
            try:
                return self.function(**arguments)
            except BaseException as error:
                broken = own_error(error)
            raise broken
        raise unfit
