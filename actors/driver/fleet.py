"""Fleet: the runtime processes of a cell as `Placement` has them: started, watched, killed, put down when idle.

Every runtime process has a key of its own (`group/suffix`); a group is a tenant, or a member of the pool.
A runtime that died is never restarted under its old name.  `Placement` is told of its death only when it is certain:
its node's Warden saw it so, or its lease is over.  Executors are watched too; those Ray restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util import list_named_actors

from airside.actors.driver.nodes import MARGIN_S, Nodes
from airside.actors.process.pulse import Where, boot_s
from airside.actors.rpc.layer import LayerConfig, as_actor, logger
from airside.actors.rpc.methods import ACTIVATE, BRING, GREET
from airside.actors.rpc.names import NAMESPACE, CellAddress
from airside.actors.rpc.remote import Remote
from airside.actors.runtime import RuntimeApp, TenantRuntime
from airside.actors.wardens.warden import GOING_S, Stall
from airside.stack.errors import LayerUnavailable, text_of
from airside.stack.ids import RunId, root_of
from airside.stack.operations.messages import Activation, Delivery
from airside.stack.scheduling import placement_events as on
from airside.stack.schema.toolspec import ToolSpec

MAKING_AT_ONCE = 4
"""Runtimes that are being started at once: each takes half a second of a CPU, and what lives needs one too."""

HOLD_S = 0.3
"""Code that keeps a loop for so long while its run is to be killed is not waited for."""

KILLED_S = 0.1
"""How long Ray's kill, which takes 30 ms if it arrives, is waited for before the Warden's."""

GREETING_S = 6.0
"""Longest a runtime that outlived the driver may take to say what it holds."""


class Post(NamedTuple):
    """Where an executor is."""

    node_id: str
    where: Where


class RuntimeHandle:
    """One runtime process.  `dying` = an order to kill it was given; `excused` = its death would be explained."""

    def __init__(self, cell: CellAddress, key: str, handle: Any, post: Post) -> None:
        self.key = key
        self.handle = handle
        self.post = post
        self.dying = False
        self.excused = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.look: asyncio.Future[RunId | None] | None = None
        self._remote = Remote(cell, "runtime", key)

    async def activate(self, activation: Activation) -> None:
        """Hand a run over; raise `LayerUnavailable` if the process is dead."""
        await self._unless_gone(self._remote.call(ACTIVATE, activation))

    async def deliver(self, delivery: Delivery) -> int | None:
        """Bring an event; return the number of the last report before it, None if the run is not here."""
        reports: int | None = await self._unless_gone(self._remote.call(BRING, delivery))
        return reports

    async def _unless_gone(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call; Ray may tell of its process's death long after the Warden saw it."""
        task = asyncio.ensure_future(call)
        await asyncio.wait({task, self.gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise LayerUnavailable(f"runtime {self.key} is gone")
        return task.result()


class Fleet:
    """Made by launch without a connection, opened by the driver."""

    def __init__(self, config: LayerConfig, app: RuntimeApp) -> None:
        self._config = config
        self._settings = config.settings
        self._cell = config.cell
        self._app = app
        self._runtimes: dict[str, RuntimeHandle] = {}

    def open(self, happened: Callable[[on.PlacementEvent], None], now: Callable[[], on.Moment]) -> None:
        """Bind to the driver, which is told of what happens to processes, with the moment."""
        self._happened = happened
        self._now = now
        self._starts = asyncio.Semaphore(MAKING_AT_ONCE)
        self.made = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._executors: dict[str, Post] = {}
        self._greeting: set[str] = set()
        self.nodes = Nodes(self._config, self)

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The app's tools."""
        return self._app.specs

    @property
    def tools(self) -> list[str]:
        """The names of the app's tools."""
        return [spec.name for spec in self._app.specs]

    def runtime(self, key: str) -> RuntimeHandle | None:
        """Return a live runtime."""
        return self._runtimes.get(key)

    async def start(self, key: str) -> None:
        """Start a runtime process; raise `LayerUnavailable` if it does not come up."""
        self._runtimes[key] = await self._make(key)

    async def _make(self, key: str) -> RuntimeHandle:
        options = {
            "name": self._cell.actor_name("runtime", key),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_restarts": 0,
            "num_cpus": 0,
            "max_concurrency": 10_000,
            "enable_task_events": self._settings.task_events,
            "scheduling_strategy": "SPREAD",
        }
        self.made += 1
        async with self._starts:
            handle = as_actor(TenantRuntime).options(**options).remote(self._config, self._app)
            try:
                await handle.begin.remote()
                return await self._greet(key, handle)
            except (RayError, LayerUnavailable) as error:
                ray.kill(handle, no_restart=True)
                raise LayerUnavailable(f"runtime {key}: {text_of(error, 300)}") from None

    async def _greet(self, key: str, handle: Any) -> RuntimeHandle:
        """Return the handle of a runtime that has begun; raise `LayerUnavailable` if it does not answer or is gone."""
        try:
            node_id, pulse = await handle.greet.remote()
            self.nodes.leased(node_id)
            return RuntimeHandle(self._cell, key, handle, Post(node_id, Where(*pulse)))
        except (RayError, TypeError, ValueError) as error:
            raise LayerUnavailable(f"runtime {key}: {type(error).__name__}") from None

    async def adopt(self) -> dict[str, tuple[str, int, on.Standing]]:
        """Find the runtimes that outlived a restart of the driver; return run id -> (seat, epoch, standing) of what
        they hold.

        One that does not say what it holds is killed: nobody would watch it.  If it is not known dead, this returns
        only when the lease that the driver before may have given it is over.
        """
        prefix = self._cell.actor_name("runtime")
        names = [
            entry["name"]
            for entry in list_named_actors(all_namespaces=True)
            if entry["namespace"] == NAMESPACE and entry["name"].startswith(prefix)
        ]
        found = await asyncio.gather(*(self._adopt(name, name.removeprefix(prefix).lstrip("/")) for name in names))
        return {run_id: place for held in found for run_id, place in held.items()}

    async def _adopt(self, name: str, key: str) -> dict[str, tuple[str, int, on.Standing]]:
        over_s = boot_s() + self._settings.lease_s + MARGIN_S
        try:
            handle = ray.get_actor(name, NAMESPACE)
        except ValueError:
            return {}  # it is dead already
        try:
            async with asyncio.timeout(GREETING_S):
                runtime = await self._greet(key, handle)
                held = await handle.runs.remote()
        except (LayerUnavailable, RayError, TimeoutError) as error:
            logger.warning("runtime %s does not answer and is killed", key, extra={"action": "not_adopted"})
            ray.kill(handle, no_restart=True)
            if isinstance(error, TimeoutError):
                await asyncio.sleep(over_s - boot_s())
            return {}
        self._runtimes[key] = runtime
        return {run_id: (key, epoch, standing) for run_id, epoch, standing in held}

    # Watching.

    async def watch(self) -> None:
        """Look after every process, for ever: the driver is told of the dead and of the held."""
        await asyncio.gather(self.nodes.watch(), self._find_executors())

    def watched(self, node_id: str) -> dict[str, Where]:
        """Return the processes of a node, by key."""
        runtimes = {f"runtime/{runtime.key}": runtime.post for runtime in self._runtimes.values()}
        executors = {f"executor/{key}": post for key, post in self._executors.items()}
        return {key: post.where for key, post in (runtimes | executors).items() if post.node_id == node_id}

    def has_executor(self, key: str) -> bool:
        """Whether an executor may act: it has a lease."""
        return key in self._executors

    def died(self, key: str, excused: bool) -> None:
        """Take in that a process is dead, or that its lease is over; `excused` = a lease or a node explains it."""
        kind, _, name = key.partition("/")
        if kind == "executor":
            self._executors.pop(name, None)
        elif (runtime := self._runtimes.get(name)) is not None:
            runtime.excused = runtime.excused or excused
            self._gone(runtime)

    def stalled(self, key: str, stall: Stall) -> None:
        """Take in that a process's loop is held: an executor is killed, of a runtime the driver is told."""
        kind, _, name = key.partition("/")
        if kind == "executor":
            self._spawn(self._end_executor(name, stall))
        else:
            self._happened(
                on.ProcessStalled(
                    at=self._now(), process=name, run_id=stall.run_id, held_s=stall.held_s, where=stall.where
                )
            )

    def layer_held(self, layer: str, stall: Stall) -> None:
        """Take in that a layer was killed because its loop was held."""
        self._happened(
            on.LayerStalled(at=self._now(), layer=layer, run_id=stall.run_id, held_s=stall.held_s, where=stall.where)
        )

    def late(self, late_s: float) -> None:
        """Take in how late a node's latest process is."""
        self._happened(on.LatenessMeasured(at=self._now(), late_s=late_s))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_executor(self, name: str, stall: Stall) -> None:
        """Kill an executor whose loop a tool holds; Ray restarts it, and runs recover what they had sent to it."""
        post = self._executors.pop(name, None)
        if post is not None:
            logger.error(
                "executor %s is held for %.1f s at %s",
                name,
                stall.held_s,
                stall.where,
                extra={"action": "executor_held"},
            )
            await self.nodes.kill(post.node_id, post.where)

    async def _find_executors(self) -> None:
        """Find out where each executor is, again after each of its deaths, so that its lease is renewed."""
        while True:
            for index in range(self._settings.executors):
                key = str(index)
                if key not in self._executors and key not in self._greeting:
                    self._greeting.add(key)
                    self._spawn(self._find_executor(key))
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _find_executor(self, key: str) -> None:
        try:
            async with asyncio.timeout(GREETING_S):
                node_id, where = await Remote(self._cell, "executor", key).call(GREET, None)
            self._executors[key] = Post(node_id, Where(*where))
        except (LayerUnavailable, TimeoutError):
            pass  # it is being restarted, and is asked again
        finally:
            self._greeting.discard(key)

    def _gone(self, runtime: RuntimeHandle) -> None:
        if self._forget(runtime):
            excused = runtime.excused or runtime.dying
            self._happened(on.ProcessDied(at=self._now(), process=runtime.key, excused=excused))

    def _forget(self, runtime: RuntimeHandle) -> bool:
        if not runtime.gone.done():
            runtime.gone.set_result(None)
        return self._runtimes.pop(runtime.key, None) is not None

    async def kill(self, key: str, going_s: float = KILLED_S) -> bool:
        """End a runtime's process, by Ray and by its node's Warden; return whether it is certainly dead.

        If that cannot be known (its node does not answer), it is reported dead when its lease is over.
        """
        runtime = self._runtimes.get(key)
        if runtime is None:
            return True
        was_dying, runtime.dying = runtime.dying, True
        # Should Ray's control service stand still, its kill does too: the Warden's needs nobody.
        self._spawn(asyncio.to_thread(ray.kill, runtime.handle, no_restart=True))
        is_dead = await self.nodes.kill(runtime.post.node_id, runtime.post.where, going_s)
        if is_dead:
            self._gone(runtime)
        elif not was_dying:
            self._spawn(self._kill_again(runtime))
        return is_dead

    async def _kill_again(self, runtime: RuntimeHandle) -> None:
        """Repeat a kill that nobody confirmed: a runtime that is dying is blamed no more, and has its lease renewed."""
        while runtime.key in self._runtimes:
            await asyncio.sleep(self._settings.heartbeat_s)
            if await self.nodes.kill(runtime.post.node_id, runtime.post.where):
                self._gone(runtime)

    async def holds(self, key: str, run_id: RunId) -> bool:
        """Whether a run's code has the loop of a runtime at two moments, and the loop did not turn in between.

        One look tells of all runs that are asked about meanwhile: whoever ends a tenant asks about thousands.
        """
        runtime = self._runtimes.get(key)
        if runtime is None:
            return False
        if runtime.look is None or runtime.look.done():
            runtime.look = asyncio.ensure_future(self._holder(runtime))
        return await asyncio.shield(runtime.look) == run_id

    async def _holder(self, runtime: RuntimeHandle) -> RunId | None:
        """Return whose code has the loop of a runtime and does not let it turn, None if it turns."""
        first = await self.nodes.read(*runtime.post)
        await asyncio.sleep(HOLD_S)
        if first is None or first != await self.nodes.read(*runtime.post):
            return None
        return root_of(RunId(first.inside))

    async def put_down(self, key: str) -> None:
        """Let an idle runtime suspend what waits, then end it."""
        runtime = self._runtimes.get(key)
        if runtime is None:
            return
        runtime.excused = True  # should it die while it is drained, nobody is to blame
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(GREETING_S):
                await runtime.handle.drain.remote()
        await self.kill(key, GOING_S)

    async def close(self) -> None:
        """End all runtimes."""
        for runtime in list(self._runtimes.values()):
            self._forget(runtime)
            ray.kill(runtime.handle, no_restart=True)

    def stats(self) -> list[str]:
        """Return the live runtimes' keys."""
        return sorted(self._runtimes)
