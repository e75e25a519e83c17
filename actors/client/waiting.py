"""Runs that are awaited: one question to the driver for all of an event loop's, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from airside.actors.client.batch import POLL_S
from airside.actors.client.steps import Steps, awaited

_GATHER_S = 0.02
"""How long those who come at the same time are gathered into one question."""

Ask = Callable[[Sequence[str], float, float | None], Steps[dict[str, bytes]]]


class Waiting:
    """The awaited runs of one event loop.

    Questions all end at the same moments, so that whoever came in between is asked for with the others from then on.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._futures: dict[str, set[asyncio.Future[bytes]]] = {}
        self._unasked: set[str] = set()
        self._questions: set[asyncio.Task[None]] = set()
        self._gathering: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._futures

    def stats(self) -> dict[str, int]:
        """Return how many runs are awaited, and how many questions are under way."""
        return {"awaited": len(self._futures), "questions": len(self._questions)}

    async def ended(self, run_id: str) -> bytes:
        """Return the run's `RunEnded` when it is there."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if run_id not in self._futures:
            self._want({run_id})
        self._futures.setdefault(run_id, set()).add(future)
        try:
            return await future
        finally:
            waiters = self._futures.get(run_id, set())
            waiters.discard(future)
            if not waiters:
                self._futures.pop(run_id, None)

    def _want(self, run_ids: set[str]) -> None:
        self._unasked |= run_ids
        if self._gathering is None:
            self._gathering = asyncio.ensure_future(self._gather())

    async def _gather(self) -> None:
        await asyncio.sleep(_GATHER_S)
        self._gathering = None
        runs = sorted(self._unasked & self._futures.keys())
        self._unasked.clear()
        if runs:
            task = asyncio.ensure_future(self._question(runs))
            self._questions.add(task)
            task.add_done_callback(self._questions.discard)

    async def _question(self, runs: list[str]) -> None:
        now = asyncio.get_running_loop().time()
        try:
            found = await awaited(self._ask(runs, POLL_S - now % POLL_S, None))
        except Exception as error:
            for run_id in runs:
                for future in self._futures.pop(run_id, set()):
                    if not future.done():
                        future.set_exception(error)
            return
        for run_id, body in found.items():
            for future in self._futures.pop(run_id, set()):
                if not future.done():
                    future.set_result(body)
        if left := set(runs) & self._futures.keys():
            self._want(left)
