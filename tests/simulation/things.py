"""Things that belong to people: who knows whose they are, and a gate that may not decide on what is no longer so.

The world keeps who owned what since when.  Resolvers ask it, slowly, and say what is wrong or nothing at all; their
executor dies, their answers are lost and mixed up.  What a decision rested on is held against the world: whatever it
was told must have been so at a moment since it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any

from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.cycle.in_memory import InMemoryPolicy
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId, TenantId
from airside.stack.policy.gate import Gate
from airside.stack.policy.lookups import Lookups
from airside.stack.resources import ResolveReply, Resource
from airside.tools.resolving import Resolver, ResolverContext, ResolverPool, resolver
from tests.simulation.people import SEAL

if TYPE_CHECKING:
    from tests.simulation.world import World

SHARED, FOREIGN, UNKNOWN = 2, 3, 4
"""Things from here on belong to all tenants, to another one, and to nobody; few, so that runs meet at them."""

OWNED = ("take", "lend", "peek")
"""Tools that only the owner of a thing may use."""


class Things:
    """Who owns which thing, and since when: the newest entry of a thing is what is so."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owners: dict[tuple[TenantId, int], list[tuple[int, str]]] = {}

    def owner(self, tenant: TenantId, n: int) -> str:
        """Return whose a thing is now."""
        return self._history(tenant, n)[-1][1]

    def give(self, tenant: TenantId, n: int) -> None:
        """Let the other one of the two have it."""
        if n < FOREIGN:
            other = "abe" if self.owner(tenant, n) == "ann" else "ann"
            self._history(tenant, n).append((self._world.now_us(), other))

    def was_so(self, tenant: TenantId, n: int, owner: str | None, since_us: int) -> bool:
        """Whether a thing was somebody's at a moment since then."""
        history = self._history(tenant, n)
        ends = [at_us for at_us, _ in history[1:]] + [self._world.now_us() + 1]
        return any(who == owner and end >= since_us for (_, who), end in zip(history, ends, strict=True))

    def _history(self, tenant: TenantId, n: int) -> list[tuple[int, str]]:
        whose = TenantId("*") if n >= SHARED else tenant
        return self._owners.setdefault((whose, n), [(0, "ann" if n % 3 else "abe")])


class SimResolvers:
    """The executor's side: the real pool over a resolver that anything may go wrong with."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last: bytes | None = None

    async def resolve(self, run_id: RunId, request: bytes) -> bytes:
        """Answer a question, unless the executor dies, with the answer to it or to another one."""
        world = self._world
        await world.pause()
        if world.chance(0.3):
            raise LayerUnavailable("no executor")
        pool = ResolverPool({"thing": self.resolver}, seal_key=SEAL, now_us=world.now_us, call=_call)
        asked = world.executing(pool.answer(request, world.tools.dispatcher.grants.issuer))
        await asyncio.wait([asked])
        world.point("resolver")
        await world.pause()
        if asked.cancelled() or world.chance(0.3):
            raise LayerUnavailable("the executor died")
        mixed, self._last = self._last, asked.result()
        return mixed if mixed is not None and world.chance(5.0) else asked.result()

    @property
    def resolver(self) -> Resolver:
        """Return the resolver of things."""
        return resolver(timeout=0.1, cache_s=10.0)(self._thing)

    async def _thing(self, n: Any, context: ResolverContext) -> Any:
        world = self._world
        await world.pause()
        if world.chance(0.5):
            await asyncio.sleep(1)
        if world.chance(0.5):
            raise RuntimeError("the store is away")
        if world.chance(0.5):
            return world.rng.choice(({"tenant": ""}, {"tenant": context.tenant, "owner": 5}, "ann", {}, True))
        if n >= UNKNOWN:
            return None
        if n >= FOREIGN:
            return {"tenant": "elsewhere", "owner": context.principal}
        tenant = TenantId("*") if n >= SHARED else context.tenant
        found = Resource(tenant=tenant, owner=world.things.owner(context.tenant, n))
        await world.pause()
        return found


def _call(function: partial[Any], tenant: TenantId, seconds: float) -> Awaitable[ResolveReply]:
    answer: Awaitable[ResolveReply] = function()
    return answer


class SimPolicy(InMemoryPolicy):
    """A gate that looks resources up, and is held to what was so."""

    def __init__(self, world: World, gate: Gate, lookups: Lookups) -> None:
        super().__init__(gate, lookups)
        self._world = world

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide, and say what the decision should not have rested on."""
        asked_us = self._world.now_us()
        reply = await super().decide(request)
        if self._world.policy is not self:
            raise LayerUnavailable("policy died while it asked")
        self._judge(request, reply, asked_us)
        return reply

    def _judge(self, request: GateRequest, reply: GateReply, asked_us: int) -> None:
        world = self._world
        identity = world.driver.submitted[request.run_id].identity
        what = f"{request.run_id}:{request.step}: {request.tool}"
        for fact in reply.resources:
            n = int(fact.id or 0)
            if fact.state == "found" and not world.things.was_so(identity.tenant, n, fact.owner, asked_us):
                world.violation(f"{what} was decided on by an owner of {n} from before it was asked for")
        if request.tool in OWNED and reply.grant:
            if [fact.owner for fact in reply.resources] != [identity.principal]:
                world.violation(f"{what} was granted for {identity.principal} on {reply.resources}")
            world.granted[request.tool] += 1
