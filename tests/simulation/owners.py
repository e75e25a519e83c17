"""What can die: its tasks, and all tasks these start, die with it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

OWNER: contextvars.ContextVar[Mortal | None] = contextvars.ContextVar("owner", default=None)


class Mortal:
    """`dead` says that nothing it still does may count."""

    def __init__(self) -> None:
        self.dead = False
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def die(self) -> None:
        """Lose everything in memory at once."""
        self.dead = True
        for task in self.tasks:
            task.cancel()

    def within(self, work: Callable[[], T]) -> T:
        """Do something of its own: the tasks it starts die with it."""
        context = contextvars.copy_context()
        context.run(OWNER.set, self)
        return context.run(work)


def make_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    """Make a task that belongs to whoever owns the context."""
    owner = OWNER.get() if context is None else context.get(OWNER)
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(lambda done: owner.tasks.pop(done, None) and None)
        if owner.dead:
            task.cancel()
    return task
