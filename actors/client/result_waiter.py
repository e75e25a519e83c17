"""Runs that are awaited: one question to the driver for all of an event loop's, however many there are."""

from __future__ import annotations

import asyncio

from airside.actors.client.following import Ask, Following
from airside.actors.client.job_stream import POLL_S
from airside.actors.client.steps import drive_async

_GATHER_S = 0.02
"""How long those who come at the same time are gathered into one question."""


class ResultWaiter:
    """The awaited runs of one event loop.

    One question waits for all of them; another one, which does not wait, adds those who came meanwhile.
    """

    def __init__(self, ask: Ask) -> None:
        self._following = Following(ask)
        self._futures: dict[str, set[asyncio.Future[bytes]]] = {}
        self._unasked: set[str] = set()
        self._gathering: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._futures

    def stats(self) -> dict[str, int]:
        """Return how many runs are awaited, and how many questions are under way."""
        return {"awaited": len(self._futures), "questions": int(self._waiting is not None)}

    async def ended(self, run_id: str) -> bytes:
        """Return the run's `RunEnded` when it is there."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if run_id not in self._futures:
            self._unasked.add(run_id)
            if self._gathering is None:
                self._gathering = asyncio.ensure_future(self._gather())
        self._futures.setdefault(run_id, set()).add(future)
        try:
            return await future
        finally:
            waiters = self._futures.get(run_id, set())
            waiters.discard(future)
            if not waiters:
                self._futures.pop(run_id, None)

    async def _gather(self) -> None:
        """Have the driver asked for those who have come."""
        await asyncio.sleep(_GATHER_S)
        self._gathering = None
        runs = self._unasked & self._futures.keys()
        self._unasked.clear()
        self._following.add(runs)
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._wait())
        elif runs:
            await self._ask(0.0)

    async def _wait(self) -> None:
        try:
            while self._futures:
                await self._ask(POLL_S)
        finally:
            self._waiting = None

    async def _ask(self, wait_s: float) -> None:
        """Put one question; whoever waits for a run is told of its end, and everybody of an error."""
        try:
            found = await drive_async(self._following.next_ends(wait_s, None))
        except Exception as error:
            futures, self._futures = self._futures, {}
            for waiters in futures.values():
                for future in waiters:
                    if not future.done():
                        future.set_exception(error)
            return
        for run_id, body in found.items():
            for future in self._futures.pop(run_id, set()):
                if not future.done():
                    future.set_result(body)
