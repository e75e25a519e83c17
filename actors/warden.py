"""Warden: one a node.  Reads the pulses of its node's processes, extends their leases, kills, and sees them dead.

It decides nothing: the Driver says whom to watch and until when they may live.  It needs neither Ray's control service
nor the process's help, so that what it kills is certainly dead.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from airside.actors.layer import Layer, LayerConfig
from airside.actors.pulse import PulseReader, Reading, StallWatch, Where, boot_s, kill, lives
from airside.actors.settings import Settings
from airside.actors.strays import sweep

HOLDING_CPU_S = 0.1
"""A thread that waits for the interpreter's lock wakes up every 5 ms, which adds up to far less in `stall_s`."""

HOLDING_BEATS = 3
"""So often the process's keeper got the interpreter while the loop stood still: nobody else keeps it."""

DEATH_S = 2.0
"""Longest wait for a process to be gone after SIGKILL: one with much memory takes a while to be taken down."""


_OWN_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Stall(NamedTuple):
    """What is known of a loop that was held: by which run ("": unknown), for how long, and where in the code."""

    run_id: str
    held_s: float
    where: str


class Seen(NamedTuple):
    """What a beat found: the node's clock, the loops that are held, and the processes that are dead."""

    stamp_s: float
    stalls: dict[str, Stall]
    dead: list[str]


class Ward:
    """One process the Warden looks after; raises `OSError` when made if it cannot be read."""

    def __init__(self, settings: Settings, where: Where) -> None:
        self.pulse = PulseReader(where)
        self._stall = StallWatch(stall_s=settings.stall_s, every_s=settings.heartbeat_s)
        self._cpu_s = 0.0
        self._beats = 0

    def look(self, now_s: float) -> Stall | None:
        """Take a sample; return who holds the loop, if it is held for too long.

        The run whose code the loop is in is named only if that code runs (it used the CPU) or sleeps (others get the
        interpreter).  Else some other thread keeps the interpreter's lock, or the whole process stands still, and
        naming it would end a run that is not to blame.
        """
        reading, cpu_s, beats = self.pulse.read(), self.pulse.cpu_s(), self.pulse.beats()
        if self._stall.sample(now_s, reading):
            self._cpu_s, self._beats = cpu_s, beats
        evident = cpu_s - self._cpu_s > HOLDING_CPU_S or beats - self._beats > HOLDING_BEATS
        if not self._stall.stalled(now_s, named=evident):
            return None
        return Stall(reading.inside if evident else "", self._stall.held_s(now_s), "")


class Warden(Layer):
    """Looks after the processes of its node."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__(config)
        self._wards: dict[tuple[str, Where], Ward] = {}

    async def beat(self, stamp_s: float, watched: dict[str, tuple[int, ...]]) -> Seen:
        """Let the watched live on for the lease's length after `stamp_s`, and say how they are.

        `stamp_s` is this node's clock as the caller last heard it (0: not yet), so that a beat which was long on its
        way lengthens nothing.
        """
        await self.ready()
        wanted = {(key, Where(*where)) for key, where in watched.items()}
        for gone in self._wards.keys() - wanted:
            del self._wards[gone]
        stalls: dict[str, Stall] = {}
        dead: list[str] = []
        for key, where in wanted:
            ward = self._ward(key, where) if lives(where) else None
            if ward is None:
                if await self.kill(where):
                    dead.append(key)
                continue
            if stamp_s:
                ward.pulse.extend(stamp_s + self.config.settings.lease_s)
            stall = ward.look(boot_s())
            if stall is not None:
                stalls[key] = stall._replace(where=await ward.pulse.innermost())
        return Seen(boot_s(), stalls, dead)

    def _ward(self, key: str, where: Where) -> Ward | None:
        """Return who is looked after; None if it hides its pulse, or is gone just now: it must not go on.

        Raises `OSError` if it is the Warden that lacks what it takes to look.
        """
        found = self._wards.get((key, where))
        if found is None:
            try:
                found = self._wards[key, where] = Ward(self.config.settings, where)
            except (OSError, ValueError) as error:
                if getattr(error, "errno", 0) in _OWN_WANT:
                    raise
                return None
        return found

    async def read(self, where: tuple[int, ...]) -> Reading | None:
        """Return a process's pulse, None if it is dead."""
        try:
            return PulseReader(Where(*where)).read()
        except OSError:
            return None

    async def kill(self, where: tuple[int, ...]) -> bool:
        """End a process of this node and what it started; return whether all of it is certainly dead."""
        if where[0] == os.getpid():
            return False
        return await kill(Where(*where), DEATH_S) and await sweep(Where(*where), DEATH_S)

    async def end(self) -> None:
        """End all that is looked after: the stack is shut down."""
        for _, where in list(self._wards):
            await self.kill(where)
