"""`Flag`: an event that is set once and stays set, where thousands are held at once.

`asyncio.Event` keeps a queue for those who wait, which takes 760 bytes with nobody in it.
"""

from __future__ import annotations

import asyncio


class Flag:
    """Used on one event loop."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake everybody who waits."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():  # else whoever waited was cancelled
                future.set_result(None)

    async def wait(self) -> None:
        """Return once it is set."""
        if self._is_set:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(future)
        try:
            await future
        finally:
            if self._waiting is not None and future in self._waiting:
                self._waiting.remove(future)
