"""What came of attempts at questions and could not be written down when it came: it was paid for, so it is kept.

Whoever asked is told that there is no answer; this goes on trying for as long as the process lives, and the question,
asked again, is answered from the record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from airside.stack.errors import LayerUnavailable
from airside.stack.journal.journaling import Append, AppendReply

AGAIN_S = 5.0
"""Between two tries to write: who writes waits for the journal for its whole patience at each of them anyhow."""


class UnwrittenEnds:
    """Appends that the journal was away for, one a stream: nothing more is sent for a decision before it is written."""

    def __init__(
        self, append: Callable[[Append], Awaitable[AppendReply]], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._append = append
        self._sleep = sleep
        self._held: dict[str, Append] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, append: Append) -> None:
        """Keep an append, and go on trying to write it."""
        self._held[append.stream] = append
        task = asyncio.ensure_future(self._go_on(append.stream))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def write(self, stream: str) -> None:
        """Write what is held of a stream; raise `LayerUnavailable` if the journal is still away.

        What it will not have is dropped: another process has written there, and its record counts.
        """
        held = self._held.get(stream)
        if held is None:
            return
        await self._append(held)
        if self._held.get(stream) is held:
            del self._held[stream]

    async def _go_on(self, stream: str) -> None:
        while stream in self._held:
            await self._sleep(AGAIN_S)
            with contextlib.suppress(LayerUnavailable):
                await self.write(stream)
