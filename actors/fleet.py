"""Fleet: the runtimes of a cell as the driver uses them: made on demand, watched, killed, put down when idle.

Every runtime process is a seat with a key of its own (`group/suffix`); a group is a tenant, or a member of the pool.
A runtime that died is never restarted under its old name: the driver makes another seat and takes its runs up there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError
from ray.util import list_named_actors

from airside.actors.layer import LayerConfig, as_actor, logger
from airside.actors.names import NAMESPACE, actor_name
from airside.actors.pulse import PulseReader, Reading, StallWatch, Where
from airside.actors.runtime import RuntimeApp, TenantRuntime
from airside.actors.settings import Settings
from airside.actors.stubs import Remote
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import TenantId
from airside.stack.toolspec import ToolSpec

SILENCE_S = 6.0
"""A runtime whose pulse cannot be read (on another node) and that does not answer for so long is given up."""

HOLDING_CPU_S = 0.1
"""A thread that waits for the interpreter's lock wakes up every 5 ms, which adds up to far less in `stall_s`."""

RAY_KILL_S = 0.3
"""`ray.kill` takes 20-40 ms when it works."""


class Stall(NamedTuple):
    """What is known of a loop that was held: by which run ("": unknown), for how long, and where in the code."""

    run_id: str
    held_s: float
    where: str


Blame = Callable[["Seat", Stall], None]
Lost = Callable[[str], Awaitable[None]]


class Seat:
    """One runtime process."""

    def __init__(self, settings: Settings, key: str, handle: Any, pulse: Where, *, is_near: bool) -> None:
        self.key = key
        self.group = key.partition("/")[0]
        self.handle = handle
        self.pid = pulse.pid
        self.is_near = is_near
        self.pulse = PulseReader(pulse) if is_near else None
        self._stall = StallWatch(stall_s=settings.stall_s, every_s=settings.heartbeat_s)
        self._reading: Reading | None = None
        self._cpu_s = 0.0
        remote = Remote(settings, "runtime", key)
        self._activate = remote.batched("activate")
        self._deliver = remote.batched("deliver")

    def answered(self, now_s: float, reading: Reading) -> None:
        """Take in the answer to a ping: of a process on another node it is all there is to see."""
        self._stall.answered(now_s)
        if self.pulse is None:
            self._reading = reading

    def look(self, now_s: float) -> Stall | None:
        """Take a sample; return who holds the loop, if it is held for too long.

        The run whose code the loop is in is named only if that code runs (it used the CPU) or sleeps (the process's
        other loop answers).  Else some other thread keeps the interpreter's lock, or the whole process stands still,
        and naming it would end a run that is not to blame.
        """
        reading = self._reading if self.pulse is None else self.pulse.read()
        if reading is None:
            return None
        cpu_s = 0.0 if self.pulse is None else self.pulse.cpu_s()
        if self._stall.sample(now_s, reading):
            self._cpu_s = cpu_s
        evident = cpu_s - self._cpu_s > HOLDING_CPU_S or self._stall.has_answered
        if not self._stall.stalled(now_s, named=evident):
            return None
        return Stall(reading.inside if evident else "", self._stall.held_s(now_s), "")

    async def activate(self, activation: bytes) -> None:
        """Hand a run over; raise `LayerUnavailable` if the process is dead."""
        await self._activate(activation)

    async def deliver(self, delivery: bytes) -> bool:
        """Bring an event; False if the run is not here."""
        return bool(await self._deliver(delivery))


class Fleet:
    """Made by launch without a connection, opened by the driver."""

    def __init__(self, config: LayerConfig, app: RuntimeApp) -> None:
        self._config = config
        self._app = app
        self._seats: dict[str, Seat] = {}
        self._by_group: dict[str, Seat] = {}

    def open(self, settings: Settings, lost: Lost, busy: Callable[[], set[str]]) -> None:
        """Bind to the driver: `lost(key)` is called once for a dead seat; `busy()` are the seats with working runs."""
        self._settings = settings
        self._lost = lost
        self._busy = busy
        self._making: dict[str, asyncio.Lock] = {}
        self._room = asyncio.Lock()
        self._coming = 0
        self._looking: dict[str, asyncio.Task[None]] = {}

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The app's tools."""
        return self._app.specs

    @property
    def tools(self) -> list[str]:
        """The names of the app's tools."""
        return [spec.name for spec in self._app.specs]

    def seat(self, key: str) -> Seat | None:
        """Return a live seat."""
        return self._seats.get(key)

    async def seat_for(self, tenant: TenantId, alone: str = "") -> Seat:
        """Return the tenant's runtime, making one if need be; `alone` asks for one that nobody shares."""
        group = f"{tenant}~{alone}" if alone else self._group(tenant)
        if group in self._by_group:
            return self._by_group[group]
        async with self._making.setdefault(group, asyncio.Lock()):
            if group not in self._by_group:
                await self._make_room()
                try:
                    self._sit(await self._make(f"{group}/{secrets.token_hex(3)}"))
                finally:
                    self._coming -= 1
        return self._by_group[group]

    def _group(self, tenant: TenantId) -> str:
        if self._settings.mode == "dedicated":
            return tenant
        return f"pool-{zlib.crc32(tenant.encode()) % self._settings.pool_size}"

    def _sit(self, seat: Seat) -> None:
        self._seats[seat.key] = seat
        self._by_group[seat.group] = seat

    async def _make_room(self) -> None:
        """Wait until there may be another runtime, putting idle ones down."""
        async with self._room:
            while len(self._seats) + self._coming >= self._settings.max_live_runtimes:
                busy = self._busy()
                idle = [seat for seat in self._seats.values() if seat.key not in busy]
                if idle:
                    await self.put_down(idle[0])
                    await self._lost(idle[0].key)
                else:
                    await asyncio.sleep(0.05)
            self._coming += 1

    async def _make(self, key: str) -> Seat:
        options = {
            "name": actor_name(self._settings.stack, "runtime", key),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_restarts": 0,
            "num_cpus": 0,
            "max_concurrency": 10_000,
            "enable_task_events": self._settings.task_events,
        }
        handle = as_actor(TenantRuntime).options(**options).remote(self._config, self._app)
        try:
            await handle.begin.remote()
            return await self._greet(key, handle)
        except (RayError, LayerUnavailable) as error:
            ray.kill(handle, no_restart=True)
            raise LayerUnavailable(f"runtime {key}: {type(error).__name__}: {error}"[:300]) from None

    async def _greet(self, key: str, handle: Any) -> Seat:
        """Return the seat of a runtime that has begun; raise `LayerUnavailable` if it does not answer or is gone."""
        try:
            node, pulse = await handle.greet.remote()
            is_near = node == ray.get_runtime_context().get_node_id()
            return Seat(self._settings, key, handle, Where(*pulse), is_near=is_near)
        except (RayError, OSError, TypeError, ValueError) as error:
            raise LayerUnavailable(f"runtime {key}: {type(error).__name__}") from None

    async def adopt(self) -> dict[str, tuple[str, str]]:
        """Find the runtimes that outlived a restart of the driver; return run id -> (seat, phase) of what they hold.

        One that does not say what it holds is killed: nobody would watch it.
        """
        prefix = actor_name(self._settings.stack, "runtime", "")
        names = [
            entry["name"]
            for entry in list_named_actors(all_namespaces=True)
            if entry["namespace"] == NAMESPACE and entry["name"].startswith(prefix)
        ]
        found = await asyncio.gather(*(self._adopt(name, name.removeprefix(prefix).lstrip("/")) for name in names))
        return {run_id: place for held in found for run_id, place in held.items()}

    async def _adopt(self, name: str, key: str) -> dict[str, tuple[str, str]]:
        try:
            handle = ray.get_actor(name, NAMESPACE)
        except ValueError:
            return {}  # it is dead already
        try:
            async with asyncio.timeout(SILENCE_S):
                seat = await self._greet(key, handle)
                held = await handle.runs.remote()
        except (LayerUnavailable, RayError, TimeoutError):
            logger.warning("runtime %s does not answer and is killed", key, extra={"action": "not_adopted"})
            ray.kill(handle, no_restart=True)
            return {}
        self._sit(seat)
        return {run_id: (key, phase) for run_id, phase in held}

    # Watching.

    async def watch(self, blame: Blame) -> None:
        """Look at every runtime, for ever: the dead are reported lost, the held are killed, once `blame` has heard."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            for task in [task for task in self._looking.values() if task.done()]:
                task.result()  # an error of the watch itself must not pass in silence
            self._looking = {key: task for key, task in self._looking.items() if not task.done()}
            for seat in list(self._seats.values()):
                stall = seat.look(time.monotonic())
                if stall is not None:
                    self._look_with(f"stalled {seat.key}", self._end_stalled(seat, stall, blame))
                self._look_with(seat.key, self._ping(seat, blame))

    def _look_with(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        if key in self._looking:
            work.close()
        else:
            self._looking[key] = asyncio.ensure_future(work)

    async def _ping(self, seat: Seat, blame: Blame) -> None:
        try:
            async with asyncio.timeout(SILENCE_S):
                seat.answered(time.monotonic(), Reading(*await seat.handle.ping.remote()))
        except TimeoutError:
            if seat.pulse is None:
                await self._end_stalled(seat, Stall("", SILENCE_S, ""), blame)
        except RayActorError:
            await self._gone(seat)
        except RayError as error:
            logger.warning("ping of %s failed: %s", seat.key, error, extra={"action": "ping_failed"})

    async def _end_stalled(self, seat: Seat, stall: Stall, blame: Blame) -> None:
        if seat.key not in self._seats:
            return
        if not seat.is_near or _lives(seat.pid):  # the page of a process that died stands still too
            where = await seat.pulse.innermost() if seat.pulse is not None else ""
            blame(seat, stall._replace(where=where))
            await self.kill(seat)
        await self._gone(seat)

    async def _gone(self, seat: Seat) -> None:
        if self._forget(seat):
            await self._lost(seat.key)

    def _forget(self, seat: Seat) -> bool:
        if self._by_group.get(seat.group) is seat:
            del self._by_group[seat.group]
        return self._seats.pop(seat.key, None) is not None

    async def kill(self, seat: Seat) -> None:
        """End a runtime's process by Ray; should Ray's control be down, by its pid where that is on this node."""
        ray.kill(seat.handle, no_restart=True)
        if not seat.is_near or seat.pid == os.getpid():
            return
        for _ in range(int(RAY_KILL_S / 0.02)):
            if not _lives(seat.pid):
                return
            await asyncio.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(seat.pid, signal.SIGKILL)

    async def put_down(self, seat: Seat) -> None:
        """Let an idle runtime suspend what waits, then end it."""
        self._forget(seat)
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                await seat.handle.drain.remote()
        await self.kill(seat)

    async def close(self) -> None:
        """End all runtimes."""
        for seat in list(self._seats.values()):
            self._forget(seat)
            ray.kill(seat.handle, no_restart=True)

    def stats(self) -> list[str]:
        """Return the live seats' keys."""
        return sorted(self._seats)


def _lives(pid: int) -> bool:
    """Whether a process of ours exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
