"""`Ending`: something that ends once, which hardly anybody ever waits for."""

from __future__ import annotations

import asyncio


class Ending:
    """Used on one loop; what it takes to wait is made by who waits."""

    __slots__ = ("_event", "is_over")

    def __init__(self) -> None:
        self.is_over = False
        self._event: asyncio.Event | None = None

    def end(self) -> None:
        """Let it be over."""
        self.is_over = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return when it is over."""
        if self.is_over:
            return
        self._event = self._event or asyncio.Event()
        await self._event.wait()
