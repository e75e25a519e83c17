"""How Ingress has views answered: on threads, so many for a tenant at a time, each within some seconds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from airside.actors.rpc.methods import MEMORY_STANDING, Method
from airside.actors.rpc.names import NAMESPACE, CellAddress
from airside.actors.rpc.remote import Remote
from airside.actors.rule_counts import RuleCounts
from airside.actors.run_owners import Owner, RunOwners
from airside.actors.views import Desk, answer
from airside.stack.contracts.memory import MemoryStanding
from airside.stack.directory import Directory
from airside.stack.errors import ItemFailed, LayerUnavailable, Refused
from airside.stack.ids import RunId, TenantId
from airside.stack.operations.questions import LayerHealth
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.access import Caller, Reach

MAX_QUESTIONS = 8
"""Questions of one tenant that are being answered at a time: each has a thread."""

MAX_WAITING = 24
"""Questions of one tenant that wait for others of its own: a page asks several at once, and is asked by several."""

MAX_STATEMENTS = 1
"""Of those, SQL: each has a process, and a copy of the tenant's rows."""

LOOK_S = 20.0
"""The longest a question is worked on: what a statement may take, and as long for what it waits for."""

_THREADS = 32
_HEALTH_S = 2.0
_OPTIONAL = ("memory", "models", "intake")
"""Layers that not every app has."""

Found = TypeVar("Found")


class Looking:
    """Used on one event loop; `remotes` are the layers by their names, as they are at the moment."""

    def __init__(
        self,
        cell: CellAddress,
        directory: Directory,
        seal_key: bytes,
        remotes: Callable[[], Mapping[str, Remote]],
        tools: Sequence[ToolSpec] = (),
    ) -> None:
        self._cell = cell
        self._directory = directory
        self._seal_key = seal_key
        self._remotes = remotes
        self._tools = {spec.name: spec for spec in tools}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="look")
        self._rule_counts = RuleCounts()
        self._waiting: Counter[TenantId] = Counter()
        self._places: defaultdict[TenantId, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MAX_QUESTIONS))
        self._statements: Counter[TenantId] = Counter()

    async def answer(self, view: str, parameters: bytes, caller: Caller, far: Reach, owners: RunOwners) -> bytes:
        """Answer a view as `views.answer`; raise `Refused` with `too_many` if the tenant asks too much at a time."""
        loop, until = asyncio.get_running_loop(), time.monotonic() + LOOK_S

        def wait_for(work: Awaitable[Found]) -> Found:
            """Return what is found on the loop, waiting for it in a thread."""

            async def found() -> Found:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    return await work

            try:
                return asyncio.run_coroutine_threadsafe(found(), loop).result()
            except TimeoutError:
                raise LayerUnavailable(f"{view}: no answer in {LOOK_S:.0f} s: ask again, or for less") from None

        def ask(method: Method[Any, Any], request: Any) -> Any:
            return wait_for(self._remotes()[method.layer].call(method, request))

        def whose(run_id: RunId) -> Owner | None:
            return wait_for(owners.of(run_id))

        def layers() -> list[LayerHealth]:
            return wait_for(self._layers())

        def kept(tenant: TenantId) -> MemoryStanding | None:
            return wait_for(self._kept(tenant))

        desk = Desk(
            caller, far, self._directory, self._seal_key, ask, whose, layers, kept, self._tools, self._rule_counts
        )
        tenant = caller.identity.tenant
        with self._statement(tenant) if view == "sql" else nullcontext():
            async with self._place(tenant, until):
                return await loop.run_in_executor(self._threads, answer, view, parameters, desk)

    @contextmanager
    def _statement(self, tenant: TenantId) -> Iterator[None]:
        if self._statements[tenant] >= MAX_STATEMENTS:
            raise Refused(f"SQL of {tenant} is being answered: wait until it is", reason="too_many")
        self._statements[tenant] += 1
        try:
            yield
        finally:
            self._statements[tenant] -= 1

    @asynccontextmanager
    async def _place(self, tenant: TenantId, until: float) -> AsyncIterator[None]:
        """Hold one of a tenant's places, as soon as there is one."""
        if self._waiting[tenant] >= MAX_WAITING:
            problem = f"{MAX_QUESTIONS} questions of {tenant} are being answered, and {MAX_WAITING} wait: ask later"
            raise Refused(problem, reason="too_many")
        self._waiting[tenant] += 1
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._places[tenant].acquire()
        except TimeoutError:
            raise Refused(f"other questions of {tenant} took {LOOK_S:.0f} s: ask later", reason="too_many") from None
        finally:
            self._waiting[tenant] -= 1
        try:
            yield
        finally:
            self._places[tenant].release()

    # The layers.

    async def _layers(self) -> list[LayerHealth]:
        """Ask every layer how it is; those that an app need not have are left out if they are not there."""
        executors = [f"executor/{index}" for index in range(self._cell.executors)]
        names = ["approvals", "driver", "ingress", "journal", "policy", *executors, *_OPTIONAL]
        found = await asyncio.gather(*(self._health_of(name) for name in names))
        return [each for each in found if each is not None]

    async def _kept(self, tenant: TenantId) -> MemoryStanding | None:
        """Return what is kept in a tenant's memory, None where the app has none, or it does not answer soon."""
        try:
            await asyncio.to_thread(ray.get_actor, self._cell.actor_name("memory"), NAMESPACE)
            async with asyncio.timeout(_HEALTH_S):
                return await self._remotes()["memory"].call(MEMORY_STANDING, tenant)
        except (ValueError, RayError, TimeoutError, LayerUnavailable, ItemFailed):
            return None

    async def _health_of(self, layer: str) -> LayerHealth | None:
        try:
            actor = await asyncio.to_thread(ray.get_actor, self._cell.actor_name(layer), NAMESPACE)
            async with asyncio.timeout(_HEALTH_S):
                health = await actor.health.remote()
        except ValueError:
            return None if layer in _OPTIONAL else LayerHealth(layer=layer, up=False)
        except (RayError, TimeoutError):
            return LayerHealth(layer=layer, up=False)
        return LayerHealth(layer=layer, up=True, ready=health["ready"], up_s=health["up_s"])
