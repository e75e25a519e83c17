"""The driver's part that watches: who holds a loop, who is past its deadline, and what becomes of runs after a loss.

A run that is `condemned` (by an operator, by its deadline, or because it held its process) is never taken up again:
when no runtime has it, it is ended here, under an epoch of its own.  It is condemned before its process is killed, so
that nobody who hears of the death is faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from airside.actors.driver.books import BROKEN_AFTER, END_AFTER, HELD_AFTER, SUSPECT_AFTER, Placed
from airside.actors.driver.fleet import Fleet, Seat
from airside.actors.process.pulse import boot_s
from airside.actors.rpc.layer import LayerConfig, logger, steady_us
from airside.actors.rpc.stubs import RemoteJournal, RemoteTools
from airside.actors.wardens.warden import Bounds, Stall
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.cycle.ending import ending
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId, TenantId, root_of
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.scheduling.deadlines import Deadlines
from airside.stack.scheduling.suspects import Suspects

_PAUSE_S = 0.1

ENDING_AT_ONCE = 16
"""Late runs that are being ended at once, so that a queue whose time is over leaves the journal to others too."""

HELD_SHOWN = 16
"""Layers that were held of which the driver still tells."""

STOPPING_S = 4.0
"""Longest wait for an executor to stop a run's calls: it takes a fraction of a second, if it can."""


class Watching(WatchedLayer):
    """What `Driver` is made on."""

    _journal: RemoteJournal
    _tools: RemoteTools
    _deadlines: Deadlines

    def __init__(self, config: LayerConfig, fleet: Fleet) -> None:
        super().__init__(config)
        self._fleet = fleet
        self._runs: dict[RunId, Placed] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._suspects = Suspects(lambda tenant: f"{tenant}~{secrets.token_hex(4)}")
        self._killed_runaways = 0
        self._layers_held: deque[str] = deque(maxlen=HELD_SHOWN)
        self._ending = asyncio.Semaphore(ENDING_AT_ONCE)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_up(self, run_id: RunId) -> None:
        """Claim a run under a new epoch and hand it to a runtime, until one has it: `Driver`'s."""

    def _finish(self, run_id: RunId, tenant: TenantId, ended: bytes) -> None:
        """Take in that a run has ended: `Driver`'s."""

    async def _stop(self, run_id: RunId, event: ev.KillRequested | ev.CancelRequested) -> None:
        """End a live run, and return when it has ended: `Driver`'s."""

    async def _ends_within(self, run_id: RunId, seconds: float) -> bool:
        placed = self._runs.get(run_id)
        if placed is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await placed.over.wait()
        return run_id not in self._runs

    async def _bodies(self, run_ids: list[RunId]) -> dict[str, list[str]]:
        found = await self._journal.bodies(run_ids)
        return found

    async def _unbegun(self, rows: Sequence[Sequence[Any]]) -> dict[str, list[bytes]]:
        """Return the events of the unfinished runs that never began, read together: they may be a whole queue."""
        ids = [RunId(run) for run, _tenant, parent, epoch, _admitted_us in rows if not parent and epoch == 0]
        size, found = self.config.settings.max_batch, dict[str, list[str]]()
        for first in range(0, len(ids), size):
            found |= await self._bodies(ids[first : first + size])
        return {run: [body.encode() for body in bodies] for run, bodies in found.items()}

    def _blame(self, seat: Seat, stall: Stall) -> None:
        """Condemn the run that holds a loop, whose process is killed next.

        Where nobody can be named, the process's working runs are parted, half and half, until one is alone in a
        process that stalls.  Where the name is that of a run which is over, a task it left behind is to blame.
        """
        here = self._working_at(seat.key)
        named = root_of(RunId(stall.run_id))
        guilty = named if named in here else None if named else self._part(here)
        if guilty is not None:
            self._killed_runaways += 1
            why = (
                f"held the event loop for {stall.held_s:.1f} s at {stall.where or 'an unknown place'}: "
                "an agent that waits or computes must be `async` and await (asyncio.to_thread for code that blocks)"
            )
            self._condemn(guilty, why)

    def _working_at(self, key: str) -> list[RunId]:
        return [run for run, placed in self._runs.items() if placed.seat == key and not placed.parked]

    def _part(self, here: list[RunId]) -> RunId | None:
        """Keep runs apart from each other of which one did harm; return the one that must have, if that is known."""
        here = [run_id for run_id in here if self._runs[run_id].condemned is None]
        if not here:
            return None
        return self._suspects.part(self._runs[here[0]].tenant, here, now_s=boot_s())

    def bounds(self) -> Bounds:
        """Return for how long the driver's own loop may be held: leases must outlast that and its restart."""
        most_s = min(self.config.settings.layer_stall_s, self.config.settings.lease_s / 2)
        return Bounds(most_s, most_s)

    def _layer_held(self, layer: str, stall: Stall) -> None:
        """Take in that a layer was killed because its loop was held; a run whose requests did that again is ended."""
        who, where = stall.run_id or "nobody known", stall.where or "an unknown place"
        logger.error(
            "%s was held for %.1f s by %s at %s, and is restarted",
            *(layer, stall.held_s, who, where),
            extra={"action": "layer_held"},
        )
        since = datetime.fromtimestamp(time.time() - stall.held_s, UTC).isoformat(timespec="seconds")
        self._layers_held.append(f"{layer}: about {stall.held_s:.1f} s from {since} by {who} at {where}")
        run_id = root_of(RunId(stall.run_id))
        placed = self._runs.get(run_id)
        if placed is None:
            return
        placed.held += 1
        if placed.held >= HELD_AFTER and placed.condemned is None:
            self._killed_runaways += 1
            why = f"its request held {layer} for {stall.held_s:.1f} s at {where}, the second time"
            self._spawn(self._end_late(run_id, self._condemn(run_id, why)))

    def _condemn(self, run_id: RunId, why: str) -> ev.KillRequested:
        event = ev.KillRequested(by="driver", why=why, reason_code=ReasonCode.KILLED_RUNAWAY, at_us=steady_us())
        self._runs[run_id].condemned = event
        return event

    # Deadlines.

    async def _end_late_forever(self) -> None:
        """Condemn what is past its deadline as soon as that is seen, and end it as an operator's kill would."""
        while True:
            at_us = steady_us()
            for run_id, deadline in self._deadlines.late(at_us):
                placed = self._runs.get(run_id)
                if placed is not None and placed.condemned is None:
                    placed.condemned = ev.KillRequested(
                        by="driver", why=str(deadline), reason_code=ReasonCode.DEADLINE_EXCEEDED, at_us=at_us
                    )
                    self._spawn(self._end_late(run_id, placed.condemned))
            await asyncio.sleep(self.config.settings.heartbeat_s)

    async def _end_late(self, run_id: RunId, event: ev.KillRequested) -> None:
        """See a late run to its end: nobody else looks whether an order that was not confirmed came true."""
        async with self._ending:
            while run_id in self._runs:
                try:
                    await self._stop(run_id, event)
                except LayerUnavailable as error:
                    logger.warning("a late run is ended again: %s", error, extra={"action": "late_not_ended"})

    # After a loss.

    async def _seat_lost(self, key: str, excused: bool) -> None:
        """A runtime is gone: what worked there is taken up elsewhere, what waits for a person when it is decided.

        `excused` = its death is explained, so that no run that was there is suspected of it.
        """
        if not excused:
            self._suspect(self._working_at(key))
        for run_id, placed in list(self._runs.items()):
            if placed.seat == key:
                placed.seat, placed.events = "", []
                if placed.condemned is not None:
                    self._spawn(self._end_condemned(run_id))
                elif not placed.parked:
                    self._spawn(self._take_up(run_id))

    def _suspect(self, here: list[RunId]) -> None:
        """Take in that a process died of itself: after a few times who was there is kept apart, and at last ended."""
        for run_id in here:
            self._runs[run_id].losses += 1
        if any(self._runs[run_id].losses >= SUSPECT_AFTER for run_id in here):
            guilty = self._part(here)
            if guilty is not None:
                placed = self._runs[guilty]
                placed.deaths += 1
                if placed.deaths >= END_AFTER and placed.condemned is None:
                    self._condemn(guilty, f"the processes it had to itself died {placed.deaths} times")

    async def _broken(self, run_id: RunId, placed: Placed) -> None:
        """Take a run up again whose activation failed of itself; after a few times it is ended."""
        self._count_broken(run_id, placed)
        await self._take_up(run_id)

    def _count_broken(self, run_id: RunId, placed: Placed) -> None:
        placed.broken += 1
        if placed.broken >= BROKEN_AFTER and placed.condemned is None:
            self._condemn(run_id, f"{placed.broken} activations of it failed")

    async def _end_condemned(self, run_id: RunId) -> None:
        """End a condemned run once no runtime has it, and its children with it."""
        while (placed := self._runs.get(run_id)) is not None and placed.condemned is not None:
            async with placed.placing:  # so that nobody claims it meanwhile
                if self._fleet.seat(placed.seat) is not None:
                    return  # it is told there, and comes back here should that process die
                if run_id in self._runs:
                    try:
                        await self._end_here(run_id, placed)
                    except LayerUnavailable as error:
                        logger.warning("%s is not ended yet: %s", run_id, error, extra={"action": "ending_failed"})
            await asyncio.sleep(_PAUSE_S)

    async def _end_here(self, run_id: RunId, placed: Placed) -> None:
        assert placed.condemned is not None
        below: list[RunId] = []
        bodies = {str(run_id): [body.decode() for body in placed.events]}
        if placed.epoch or not placed.events:  # one that never began has neither branches nor calls
            below = [RunId(row[0]) for row in await self._journal.rows("unfinished_below", run_id)]
            bodies = await self._bodies([run_id, *below])
            await self._stop_tools([run_id, *below])
        for run in (*below, run_id):  # the run last: were it ended already, nobody would come back for a branch
            append = ending(bodies[run], placed.condemned, secrets.token_hex(4))
            last = bodies[run][-1].encode() if append is None else append.entries[-1].body
            if append is not None and (await self._journal.append(append)).verdict != "ok":
                placed.events = []
                raise LayerUnavailable(f"journal: {run}: somebody else wrote to it")
            if run == run_id:
                self._finish(run_id, placed.tenant, last)

    async def _stop_tools(self, run_ids: list[RunId]) -> None:
        """Have the calls of a run and its branches stopped that no runtime has any more, before these are ended.

        Raises `LayerUnavailable` if an executor that may act does not say that it has stopped them.
        """
        try:
            async with asyncio.timeout(STOPPING_S):
                await asyncio.gather(*(self._tools.release(run_id) for run_id in run_ids))
        except LayerUnavailable:
            return  # it is gone, and has no calls
        except TimeoutError:
            executor = str(self._tools.index_of(run_ids[0]))
            if self._fleet.has_executor(executor):
                raise LayerUnavailable(f"executor {executor} has not stopped its calls") from None

    # Putting down what idles.

    async def _passivate_forever(self) -> None:
        idle_since: dict[str, float] = {}
        while True:
            await asyncio.sleep(min(1.0, self.config.settings.idle_runtime_s))
            busy, now = self._busy(), asyncio.get_running_loop().time()
            for key in self._fleet.stats():
                if key in busy or key not in idle_since:
                    idle_since[key] = now
                elif now - idle_since[key] > self.config.settings.idle_runtime_s:
                    await self._put_down(key)
            idle_since = {key: since for key, since in idle_since.items() if self._fleet.seat(key)}

    def _busy(self) -> set[str]:
        return {placed.seat for placed in self._runs.values() if not placed.parked}

    async def _put_down(self, key: str) -> None:
        seat = self._fleet.seat(key)
        if seat is not None and self.config.settings.mode == "dedicated":
            await self._fleet.put_down(seat)
            await self._seat_lost(key, excused=True)
