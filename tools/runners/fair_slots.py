"""A pool's places, given to tenants in turn: a tenant that has its part of them waits behind its own calls only."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

from airside.stack.ids import TenantId

Waiting = Callable[[], AbstractContextManager[None]]
"""Makes what is entered for as long as a place is waited for, if it is at all."""


class FairSlots:
    """So many places.  A free one goes to the waiting tenant that has the fewest; of equals, to who waited longest.

    No tenant has more than three quarters of them: what a place is held for may never end, and others come then, too.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._most = max(1, places * 3 // 4)
        self._at_work: dict[TenantId, int] = {}
        self._waiting: OrderedDict[TenantId, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def place(self, tenant: TenantId, waiting: Waiting = nullcontext) -> AsyncIterator[None]:
        """Hold a place; waits for one if there is none."""
        await self.take(tenant, waiting)
        try:
            yield
        finally:
            self.give_back(tenant)

    async def take(self, tenant: TenantId, waiting: Waiting = nullcontext) -> None:
        """Wait for a place; whoever has one gives it back."""
        if self._free == 0 or self._at_work.get(tenant, 0) >= self._most:
            with waiting():
                await self._wait(tenant)
        else:
            self._free -= 1
            self._at_work[tenant] = self._at_work.get(tenant, 0) + 1

    async def _wait(self, tenant: TenantId) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give_back(tenant)  # it was given one just now
            else:
                self._leave(tenant, place)
            raise

    def give_back(self, tenant: TenantId) -> None:
        """Give a place back."""
        self._at_work[tenant] -= 1
        if not self._at_work[tenant]:
            del self._at_work[tenant]
        self._hand_on()

    def _hand_on(self) -> None:
        while waiting := [name for name in self._waiting if self._at_work.get(name, 0) < self._most]:
            tenant = min(waiting, key=lambda name: self._at_work.get(name, 0))
            queue = self._waiting[tenant]
            place = queue.popleft()
            self._waiting.move_to_end(tenant)
            if not queue:
                del self._waiting[tenant]
            if not place.done():  # else it was cancelled, and has not come to know it yet
                self._at_work[tenant] = self._at_work.get(tenant, 0) + 1
                place.set_result(None)
                return
        self._free += 1

    def _leave(self, tenant: TenantId, place: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._waiting[tenant]

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return sum(map(len, self._waiting.values()))
