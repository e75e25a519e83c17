"""`Flag`: an event that is set once and stays set, where thousands are held at once.

`asyncio.Event` keeps a queue for those who wait, which takes 760 bytes with nobody in it: here it is made by who waits.
"""

from __future__ import annotations

import asyncio


class Flag:
    """Used on one event loop."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: asyncio.Event | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake everybody who waits."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return once it is set."""
        if not self._is_set:
            self._event = self._event or asyncio.Event()
            await self._event.wait()
