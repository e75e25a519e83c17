"""Who is to blame when a process stalls or dies, or a layer is held, and who of those ends for it.  Pure.

Nobody ends for what somebody else may have done: a run does that was alone where it happened, or was named, or did it
again and again.  Where nobody can be named, the runs that were there are kept apart from each other (`Suspects`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from airside.stack.ids import RunId
from airside.stack.scheduling.placement_state import RunEntry
from airside.stack.scheduling.suspects import Suspects

SUSPECT_AFTER = 3
"""Deaths of the processes a run worked in after which the runs that were there are suspected, and kept apart.

Only those count that nobody gave the order for and no lost lease or node explains: a run is not to blame for its
neighbours, for an operator, or for a machine.
"""

END_AFTER = 3
"""Deaths of processes of its own, where nobody else can be to blame, after which a run is ended."""

STALLED_AFTER = 2
"""Layers that a run's requests held after which it is ended: once may be chance, and the request is sent again."""

BROKEN_AFTER = 6
"""Activations that broke off for an error of the run's own after which it is ended."""


_NOWHERE = "an unknown place"


class Culprit(NamedTuple):
    """A run that is to end, and why."""

    run_id: RunId
    why: str


class Attribution:
    """`runs` are those that have not ended, as placement has them; `mint` makes what no other name ever had."""

    def __init__(self, runs: Mapping[RunId, RunEntry], mint: Callable[[], str]) -> None:
        self._runs = runs
        self.suspects = Suspects(lambda tenant: f"{tenant}~{mint()}")

    def process_stalled(
        self, working: Sequence[RunId], named: RunId, *, held_s: float, where: str, now_s: float
    ) -> Culprit | None:
        """Return who held a process's loop.

        Where nobody can be named, its working runs are parted, half and half, until one is alone in a process that
        stalls.  Where the name is that of a run which is over, a task it left behind is to blame.
        """
        culprit = named if named in working else None if named else self._part(working, now_s)
        if culprit is None:
            return None
        why = (
            f"held the event loop for {held_s:.1f} s at {where or _NOWHERE}: "
            "an agent that waits or computes must be `async` and await (asyncio.to_thread for code that blocks)"
        )
        return Culprit(culprit, why)

    def process_died(self, working: Sequence[RunId], *, now_s: float) -> Culprit | None:
        """Count the death of a process that nothing explains; return the run that had it to itself too often.

        After a few, those that worked there are kept apart.
        """
        for run_id in working:
            self._runs[run_id].losses += 1
        if not any(self._runs[run_id].losses >= SUSPECT_AFTER for run_id in working):
            return None
        culprit = self._part(working, now_s)
        if culprit is None:
            return None
        entry = self._runs[culprit]
        entry.deaths += 1
        if entry.deaths < END_AFTER:
            return None
        return Culprit(culprit, f"the processes it had to itself died {entry.deaths} times")

    def layer_stalled(self, run_id: RunId, layer: str, *, held_s: float, where: str) -> Culprit | None:
        """Count a layer that a run's request held; return the run if that was once too often."""
        entry = self._runs.get(run_id)
        if entry is None:
            return None
        entry.stalls += 1
        if entry.stalls < STALLED_AFTER or entry.termination is not None:
            return None
        return Culprit(run_id, f"its request held {layer} for {held_s:.1f} s at {where or _NOWHERE}, the second time")

    def run_broke_off(self, run_id: RunId) -> Culprit | None:
        """Count an activation that failed for an error of the run's own; return the run if that was once too often."""
        entry = self._runs[run_id]
        entry.broken += 1
        return Culprit(run_id, f"{entry.broken} activations of it failed") if entry.broken >= BROKEN_AFTER else None

    def _part(self, here: Sequence[RunId], now_s: float) -> RunId | None:
        """Keep runs apart from each other of which one did harm; return the one that must have, if that is known."""
        here = [run_id for run_id in here if self._runs[run_id].termination is None]
        if not here:
            return None
        return self.suspects.part(self._runs[here[0]].tenant, here, now_s=now_s)
