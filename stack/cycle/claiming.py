"""What placement has made durable: claims of runs, and the ends of those that no process has.

The journal's side of `Placement`'s instructions, the same under Ray and under the simulator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from airside.stack.cycle.termination import termination_append
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId, TenantId, root_of
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import append_of, read_stream
from airside.stack.ports import Journal
from airside.stack.run import events as ev
from airside.stack.scheduling import placement_events as on
from airside.stack.scheduling import placement_instructions as do
from airside.stack.scheduling.activations import withdrawal

SWEEP_S = 600.0
"""Between two looks for branches that are left though their root has ended: it takes a crash at one moment for that."""


class Claims:
    """`now` is the present moment, `mint` makes a name that no other claim has.

    `stop_calls` returns when no call of these runs is carried out any more, and raises `LayerUnavailable` if that
    cannot be known.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        now: Callable[[], on.Moment],
        mint: Callable[[], str],
        stop_calls: Callable[[Sequence[RunId]], Awaitable[None]],
    ) -> None:
        self._journal = journal
        self._now = now
        self._mint = mint
        self._stop_calls = stop_calls

    async def claim(self, i: do.Claim) -> on.PlacementEvent:
        """Make a run's next activation durable; say that it has ended if it turns out so.

        Raises `LayerUnavailable` if that is not known to be durable.
        """
        events, epoch = i.events, i.epoch
        if not events:
            events = tuple(body.encode() for body in await read_stream(self._journal, i.run_id))
            epoch = max(epoch, latest_epoch(map(ev.decode_event, events)) + 1)
            if isinstance(ev.decode_event(events[-1]), ev.RunEnded):
                # Its process died before it could say so, and perhaps before its branches had ended.
                await self._end_below(i.run_id)
                return self.ended(i.run_id, i.tenant, events[-1])
        activated = ev.RunActivated(epoch=epoch, claim=self._mint(), at_us=self._now().at_us)
        append = append_of(i.tenant, i.run_id, [activated], first_seq=len(events), epoch=epoch)
        await self._write(append)
        claimed = (*events, append.entries[0].body)
        return on.Claimed(at=self._now(), run_id=i.run_id, epoch=epoch, events=claimed)

    async def end(self, i: do.EndRun) -> on.EndReported:
        """End a run and its branches.  Raises `LayerUnavailable` if they are not all known to have ended."""
        below: list[RunId] = []
        bodies: dict[str, list[str]] = {i.run_id: [body.decode() for body in i.events]}
        if i.begun:  # one that never began has neither branches nor calls
            below = await self._journal.unfinished_below(i.run_id)
            bodies = await self._journal.bodies([i.run_id, *below])
            await self._stop_calls([i.run_id, *below])
        last = b""
        for run in (*below, i.run_id):  # the run last: were it ended already, nobody would come back for a branch
            append = termination_append(bodies[run], i.termination, self._mint())
            last = bodies[run][-1].encode() if append is None else append.entries[-1].body
            if append is not None:
                await self._write(append)
        return self.ended(i.run_id, i.tenant, last)

    async def _end_below(self, run_id: RunId) -> None:
        """End what an ended run's process left of its branches."""
        below = await self._journal.unfinished_below(run_id)
        if not below:
            return
        await self._stop_calls(below)
        why = withdrawal(run_id, self._now().at_us)
        bodies = await self._journal.bodies(below)
        for run in below:
            append = termination_append(bodies[run], why, self._mint())
            if append is not None:
                await self._write(append)

    async def _write(self, append: Append) -> None:
        reply = await self._journal.append(append)
        if reply.verdict != "ok":
            raise LayerUnavailable(f"journal: {append.stream}: {reply.verdict}")

    def ended(self, run_id: RunId, tenant: TenantId, ended: bytes) -> on.EndReported:
        """Return what a run's `RunEnded` says to placement; raise `ValueError` if it is none."""
        event = ev.decode_event(ended)
        if not isinstance(event, ev.RunEnded):
            raise ValueError(f"{run_id} has not ended: its last event is {type(event).__name__}")
        return on.EndReported(at=self._now(), run_id=run_id, tenant=tenant, ended=ended, steps=event.usage.steps)


class Unfinished(NamedTuple):
    """A run that was admitted and has not ended."""

    run_id: RunId
    tenant: TenantId
    parent: str
    epoch: int
    admitted_us: int
    route: str = ""


def roots_of(unfinished: Sequence[Unfinished]) -> list[Unfinished]:
    """Return the roots that a new driver is to see to, those that have begun first.

    Of a branch whose root has ended it is the root as well: a claim finds that it has, and ends what is left below.
    """
    found = {run.run_id: run for run in unfinished if not run.parent}
    for run in unfinished:
        root = root_of(run.run_id)
        if run.parent and root not in found:
            found[root] = run._replace(run_id=root, parent="", epoch=max(1, run.epoch))
    return sorted(found.values(), key=lambda run: run.epoch == 0)


def latest_epoch(events: Iterable[ev.Event]) -> int:
    """Return the epoch of a run's latest activation, 0 if it has none."""
    return max((event.epoch for event in events if isinstance(event, ev.RunActivated)), default=0)
