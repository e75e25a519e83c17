"""Whose runs are, by the journal; remembered, for that never changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.run.events import RunSubmitted, decode_event

_KEPT = 1_000
"""Runs of which it is remembered whose they are."""

Owner = tuple[TenantId, PrincipalId]


class RunOwners:
    """Used on one event loop; `read` returns a run's events as JSON."""

    def __init__(self, read: Callable[[RunId], Awaitable[Sequence[str]]]) -> None:
        self._read = read
        self._known: OrderedDict[RunId, Owner] = OrderedDict()

    def __contains__(self, run_id: RunId) -> bool:
        return run_id in self._known

    def known(self, run_id: RunId) -> Owner | None:
        """Return whose a run is, if that was kept."""
        return self._known.get(run_id)

    def keep(self, run_id: RunId, bodies: Sequence[str]) -> None:
        """Remember whose it is, of a run that there is."""
        first = decode_event(bodies[0]) if bodies and run_id not in self._known else None
        if isinstance(first, RunSubmitted):
            self._known[run_id] = (first.identity.tenant, first.identity.principal)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)

    async def of(self, run_id: RunId) -> Owner | None:
        """Return whose a run or a branch is, None if the journal has none of this name."""
        if run_id not in self._known:
            self.keep(run_id, await self._read(run_id))
        return self._known.get(run_id)
