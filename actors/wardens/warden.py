"""Warden: one a node.  Reads the pulses of its node's processes, extends their leases, kills, and sees them dead.

Of runtimes and executors it decides nothing: the Driver says whom to watch and until when they may live.  The layers
show themselves, and one whose loop is held it ends by itself.  It needs neither Ray's control service nor the process's
help, so that what it kills is certainly dead.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import NamedTuple

from airside.actors.process.orphans import sweep
from airside.actors.process.pulse import PulseReader, Where, boot_s, favour, kill, lives
from airside.actors.process.stalls import Reading, StallWatch, Waiting
from airside.actors.rpc.layer import Layer, LayerConfig, logger

SHORT_S = 0.8
"""The patience that the two bounds below are for; for a longer one they are longer in proportion."""

HOLDING_CPU_S = 0.1
"""A thread that waits for the interpreter's lock wakes up every 5 ms, which adds up to far less in `stall_s`."""

HOLDING_BEATS = 3
"""So often the process's keeper got the interpreter while the loop stood still: nobody else keeps it."""

DEATH_S = 2.0
"""Longest wait for a process to be gone after SIGKILL: one with much memory takes a while to be taken down."""

FRAMES = 12
"""Frames of a held layer's stack that are logged: the method is among them."""

GOING_S = 1.5
"""Longest wait for a process that Ray was told to end, where nothing is urgent."""

_LOOK_S = 0.01

_OWN_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Stall(NamedTuple):
    """What is known of a loop that was held: by which run ("": unknown), for how long, and where in the code."""

    run_id: str
    held_s: float
    where: str


class Bounds(NamedTuple):
    """For how long a layer's loop may be held, and for how long if another thread keeps the interpreter's lock."""

    held_s: float
    locked_s: float


class Held(NamedTuple):
    """A layer that was killed because its loop was held, and what is known of that."""

    layer: str
    run_id: str
    held_s: float
    where: str


class Seen(NamedTuple):
    """What a beat found: the node's clock, the loops that are held, and the processes that are dead.

    `lapsed` = those of the dead whose lease was over; `late_s` = how long ago the loop turned that was longest in
    turning since the beat before, held ones left aside: what a machine is late when it has too much to carry.  `held` =
    the layers that were killed since then.
    """

    stamp_s: float
    stalls: dict[str, Stall]
    dead: list[str]
    lapsed: list[str]
    late_s: float
    held: list[Held]


class Ward:
    """One process the Warden looks after; raises `OSError` when made if it cannot be read.

    `ours` = all code of its loop is ours, so that it is held whether or not a run is named.
    """

    def __init__(
        self, where: Where, *, stall_s: float, every_s: float, patience: float = 3.0, ours: bool = False
    ) -> None:
        self.where = where
        self.pulse = PulseReader(where)
        self.stall: Stall | None = None
        self.age_s = 0.0
        self._thread = where.native
        self._suspect_s = stall_s / 2
        self._longer = max(1.0, stall_s / SHORT_S)
        self._watch = StallWatch(stall_s=stall_s, every_s=every_s, patience=patience, ours=ours)
        self._waiting = Waiting()
        self._beats = 0

    def look(self, now_s: float) -> None:
        """Take a sample, and note who holds the loop, if it is held for too long, or how long ago it turned.

        The run whose code the loop is in is named only if that code runs (it used the CPU) or sleeps (others get the
        interpreter).  Else some other thread keeps the interpreter's lock, or the whole process stands still, and
        naming it would end a run that is not to blame.
        """
        reading, beats = self.pulse.read(), self.pulse.beats()
        if self._watch.sample(now_s, reading):
            self._waiting, self._beats = Waiting(), beats
        # All threads are looked at only once the loop is suspected: a process has dozens.
        suspected = self._watch.counted_s(now_s) > self._suspect_s
        used = self.pulse.usages() if suspected else {self._thread: self.pulse.usage()}
        self._waiting.sample(now_s, used, self.pulse.is_ready)
        ran_s = self._waiting.ran_s(self._thread)
        evident = ran_s > HOLDING_CPU_S * self._longer or beats - self._beats > HOLDING_BEATS * self._longer
        held = self._watch.stalled(
            now_s,
            named=evident,
            ran_s=ran_s,
            waited_s=self._waiting.of(self._thread),
            longest_s=self._waiting.longest_s(),
        )
        self.stall = Stall(reading.inside if evident else "", self._watch.held_s(now_s), "") if held else None
        self.age_s = 0.0 if held else self._watch.turn_age_s(now_s)


class Warden(Layer):
    """Looks after the processes of its node."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__(config)
        self._wards: dict[tuple[str, Where], Ward] = {}
        self._layers: dict[str, Ward] = {}
        self._held: list[Held] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._late_s = 0.0

    async def start(self) -> None:
        """Begin to look, at a better priority than what is looked at."""
        for thread in os.listdir("/proc/self/task"):
            favour(int(thread))
        self._looking = asyncio.ensure_future(self.forever(self._look_forever()))

    async def _look_forever(self) -> None:
        """Look at every process each heartbeat, whether or not the Driver asks."""
        while True:
            for ward in list(self._wards.values()):
                self._look(ward)
            for layer, ward in list(self._layers.items()):
                self._look_at_layer(layer, ward)
            await asyncio.sleep(self.config.settings.heartbeat_s)

    # Layers: looked after without anybody's order, for those who could give one may be what is held.

    async def look_after(self, layer: str, where: tuple[int, ...], bounds: tuple[float, float]) -> bool:
        """Look after a layer of this node from now on; return whether that can be done."""
        await self.ready()
        place, known, (held_s, locked_s) = Where(*where), self._layers.get(layer), bounds
        if known is None or known.where != place:
            every_s, patience = self.config.settings.heartbeat_s, locked_s / held_s
            try:
                ward = Ward(place, stall_s=held_s, every_s=every_s, patience=patience, ours=True)
            except (OSError, ValueError):
                return False
            self._layers[layer] = ward
        return True

    def _look_at_layer(self, layer: str, ward: Ward) -> None:
        try:
            if not lives(ward.where):
                del self._layers[layer]
                return
            ward.look(boot_s())
        except OSError as error:  # as in `_look`
            logger.warning("%s was not looked at: %s", layer, error, extra={"action": "not_looked_at"})
            return
        if ward.stall is not None:
            del self._layers[layer]
            task = asyncio.ensure_future(self._end_layer(layer, ward, ward.stall))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end_layer(self, layer: str, ward: Ward, stall: Stall) -> None:
        """Kill a layer whose loop is held; Ray restarts it, and who waits for it goes on waiting."""
        frames = await ward.pulse.frames()
        logger.error(
            "%s is held for %.1f s by %s and is killed; it is at %s",
            layer,
            stall.held_s,
            stall.run_id or "nobody known",
            " < ".join(frames[:FRAMES]),
            extra={"action": "layer_held"},
        )
        self._held.append(Held(layer, stall.run_id, stall.held_s, next(iter(frames), "")))
        if not await self.kill(ward.where):
            logger.error("%s is not known to be dead", layer, extra={"action": "layer_not_killed"})

    def _look(self, ward: Ward) -> None:
        try:
            ward.look(boot_s())
        except OSError as error:  # it lacks a file to look with: nobody is taken to be held
            logger.warning("a process was not looked at: %s", error, extra={"action": "not_looked_at"})
        self._late_s = max(self._late_s, ward.age_s)

    async def beat(self, stamp_s: float, watched: dict[str, tuple[int, ...]]) -> Seen:
        """Let the watched live on for the lease's length after `stamp_s`, and say how they are.

        `stamp_s` is this node's clock as the caller last heard it (0: not yet), so that a beat which was long on its
        way lengthens nothing.
        """
        await self.ready()
        wanted = {(key, Where(*where)) for key, where in watched.items()}
        known = dict(self._wards)
        for gone in self._wards.keys() - wanted:
            del self._wards[gone]
        stalls: dict[str, Stall] = {}
        dead: list[str] = []
        lapsed: list[str] = []
        for key, where in wanted:
            ward = self._ward(key, where) if lives(where) else None
            if ward is None:
                was = known.get((key, where))
                ended = was is not None and was.pulse.lease_until_s <= boot_s()
                if await self.kill(where):
                    dead.append(key)
                    lapsed += [key] * ended
                continue
            if stamp_s:
                ward.pulse.extend(stamp_s + self.config.settings.lease_s)
            if ward.stall is not None:
                self._look(ward)  # it may have gone on since
            if ward.stall is not None:
                stalls[key] = ward.stall._replace(where=await ward.pulse.innermost())
        late_s, self._late_s = self._late_s, 0.0
        held, self._held = self._held, []
        return Seen(boot_s(), stalls, dead, lapsed, late_s, held)

    def _ward(self, key: str, where: Where) -> Ward | None:
        """Return who is looked after; None if it hides its pulse, or is gone just now: it must not go on.

        Raises `OSError` if it is the Warden that lacks what it takes to look.
        """
        found = self._wards.get((key, where))
        if found is None:
            settings = self.config.settings
            try:
                found = Ward(where, stall_s=settings.stall_s, every_s=settings.heartbeat_s)
            except (OSError, ValueError) as error:
                if getattr(error, "errno", 0) in _OWN_WANT:
                    raise
                return None
            self._wards[key, where] = found
        return found

    async def read(self, where: tuple[int, ...]) -> Reading | None:
        """Return a process's pulse, None if it is dead."""
        try:
            return PulseReader(Where(*where)).read()
        except OSError:
            return None

    async def kill(self, where: tuple[int, ...], going_s: float = 0.0) -> bool:
        """End a process of this node and what it started; return whether all of it is certainly dead.

        One that Ray was told to end may go by itself for `going_s`: of one that is killed before it went, Ray tells
        whoever uses the stack that a worker died.
        """
        if where[0] == os.getpid():
            return False
        for _ in range(round(going_s / _LOOK_S)):
            if not lives(Where(*where)):
                break
            await asyncio.sleep(_LOOK_S)
        return await kill(Where(*where), DEATH_S) and await sweep(Where(*where), DEATH_S)

    async def end(self) -> None:
        """End all that is looked after: the stack is shut down, and everybody was told to go."""
        await asyncio.gather(*(self.kill(where, GOING_S) for _, where in list(self._wards)))
