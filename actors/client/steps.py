"""What a client does, written once: steps that say what they wait for, carried out by a thread or by an event loop.

A step is a generator that yields what it needs (`Answer`, `ActorLookup`, `Pause`) and is sent it.  `drive` waits as a
thread does; `drive_async` is a coroutine, whose waiting costs no thread and whose cancellation is at once.  Neither has
a twin that would have to be kept like it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import ray

from airside.actors.rpc.names import NAMESPACE

Result = TypeVar("Result")
Item = TypeVar("Item")


class Need(Protocol):
    """Something to wait for."""

    def now(self) -> Any:
        """Wait for it in this thread."""

    async def later(self) -> Any:
        """Wait for it on the event loop."""


Steps = Generator[Need, Any, Result]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a Ray call; `TimeoutError` if it takes longer than `within_s`."""

    ref: Any
    within_s: float | None = None

    def now(self) -> Any:
        """Wait for it in this thread."""
        return ray.get(self.ref, timeout=self.within_s)

    async def later(self) -> Any:
        """Wait for it on the event loop."""
        async with asyncio.timeout(self.within_s):
            return await self.ref


@dataclass(frozen=True, slots=True)
class ActorLookup:
    """The handle of the actor of a name; `ValueError` if there is none."""

    name: str

    def now(self) -> Any:
        """Look it up in this thread."""
        return ray.get_actor(self.name, NAMESPACE)

    async def later(self) -> Any:
        """Look it up in a thread of its own: rare and short, and the loop's pool may be full of the caller's waits."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Any] = loop.create_future()

        def complete(answer: Any, error: BaseException | None) -> None:
            if found.done():
                return
            if error is None:
                found.set_result(answer)
            else:
                found.set_exception(error)

        def look() -> None:
            answer, problem = None, None
            try:
                answer = self.now()
            except Exception as error:
                problem = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(complete, answer, problem)

        threading.Thread(target=look, name="airside-look-up", daemon=True).start()
        return await found


@dataclass(frozen=True, slots=True)
class Pause:
    """Time that goes by."""

    seconds: float

    def now(self) -> None:
        """Sleep in this thread."""
        time.sleep(self.seconds)

    async def later(self) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(self.seconds)


def drive(steps: Steps[Result]) -> Result:
    """Carry steps out in this thread and return what they do."""
    answer: Any = None
    problem: BaseException | None = None
    while True:
        try:
            need = steps.send(answer) if problem is None else steps.throw(problem)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = problem = None
        try:
            answer = need.now()
        except BaseException as error:  # also an interrupt: what the steps hold open, they close
            problem = error


async def drive_async(steps: Steps[Result]) -> Result:
    """Carry steps out on the running event loop and return what they do."""
    answer: Any = None
    problem: BaseException | None = None
    while True:
        try:
            need = steps.send(answer) if problem is None else steps.throw(problem)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = problem = None
        try:
            answer = await need.later()
        except BaseException as error:
            problem = error


def each(next_page: Callable[[], Steps[list[Item]]]) -> Iterator[Item]:
    """Yield the items of page after page, in this thread, until one is empty."""
    while page := drive(next_page()):
        yield from page


async def each_later(next_page: Callable[[], Steps[list[Item]]]) -> AsyncIterator[Item]:
    """Yield the items of page after page, on the running event loop, until one is empty."""
    while page := await drive_async(next_page()):
        for item in page:
            yield item
