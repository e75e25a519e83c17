"""Looking resources up for the gate: the resolvers' answers, each within its deadline, and for how long they hold.

An answer is kept for as long as its resolver says (nothing by default), per tenant, kind and id.  What a call that
changes something was just granted for is not kept until that call can no longer be at work: an answer from before the
change is never used after it, nor one from the middle.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import msgspec

from airside.stack.asking import told
from airside.stack.grants import GRANT_LIFE_US
from airside.stack.ids import TenantId
from airside.stack.ports import Resolvers
from airside.stack.resources import Key, ResolveReply, ResolveRequest, ResolverTerms, Wanted
from airside.stack.sealing import unwrap, wrap

MAX_KEPT = 10_000
"""Answers, and changes under way, that are remembered; one that is forgotten early costs a question more."""

TRANSIT_S = 0.5
"""Added to a resolver's own deadline, which its executor keeps: what takes longer is with an executor that is gone."""

REQUEST_LIFE_US = 60_000_000
"""How long after its sealing a question may be answered: longer than any clock of a cluster is off."""

_PURPOSE = "resolve"


def seal_request(key: bytes, request: ResolveRequest) -> bytes:
    """Seal a question; only the gate does."""
    return wrap(key, _PURPOSE, msgspec.msgpack.encode(request))


def open_request(key: bytes, sealed: bytes) -> ResolveRequest | None:
    """Return the question if the gate's seal holds, else None."""
    body = unwrap(key, _PURPOSE, sealed)
    return None if body is None else msgspec.msgpack.decode(body, type=ResolveRequest)


class Lookups:
    """Asks resolvers, all that a call needs at once, and keeps their answers."""

    def __init__(
        self,
        resolvers: Resolvers,
        terms: Mapping[str, ResolverTerms],
        *,
        seal_key: bytes,
        issuer: str,
        now_us: Callable[[], int],
    ) -> None:
        self._resolvers = resolvers
        self._terms = terms
        self._seal_key = seal_key
        self._issuer = issuer
        self._now_us = now_us
        self._kept: OrderedDict[tuple[TenantId, Key], tuple[int, ResolveReply]] = OrderedDict()
        self._changing: OrderedDict[tuple[TenantId, Key], int] = OrderedDict()
        self._nothing_kept_until_us = 0
        self._tasks: set[asyncio.Task[ResolveReply]] = set()
        self.counts = {"asked": 0, "kept": 0, "late": 0, "failed": 0}

    async def answers(self, wanted: Wanted) -> dict[Key, ResolveReply]:
        """Return what is known of each resource within its kind's deadline; never raises."""
        keys = list(wanted.keys)
        return dict(zip(keys, await asyncio.gather(*(self._answer(wanted, key) for key in keys)), strict=True))

    def changed(self, tenant: TenantId, keys: Iterable[Key], timeout_ms: int) -> None:
        """Forget what a call that was just granted may change, and keep nothing of it while that may be at work."""
        until = self._now_us() + GRANT_LIFE_US + timeout_ms * 1000
        for key in keys:
            self._kept.pop((tenant, key), None)
            place = (tenant, key)
            self._changing[place] = max(until, self._changing.pop(place, 0))
            if len(self._changing) > MAX_KEPT:
                _, forgotten_us = self._changing.popitem(last=False)
                self._nothing_kept_until_us = max(self._nothing_kept_until_us, forgotten_us)

    async def _answer(self, wanted: Wanted, key: Key) -> ResolveReply:
        kept = self._kept.get((wanted.tenant, key))
        if kept is not None and self._now_us() < kept[0]:
            self.counts["kept"] += 1
            return kept[1]
        terms = self._terms.get(key[0])
        if terms is None:
            return ResolveReply(state="failed", detail=f"there is no resolver of {key[0]}")
        self.counts["asked"] += 1
        began = self._now_us()
        # A task of its own, which is left to end by itself: what is on its way to an executor is not called back.
        task = asyncio.ensure_future(self._ask(wanted, key, began))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=terms.timeout_ms / 1000 + TRANSIT_S)
        reply = task.result() if done else ResolveReply(state="late", detail=late(terms))
        if reply.state in ("late", "failed"):
            self.counts[reply.state] += 1
        elif terms.cache_ms and reply.state == "found":  # what is unknown may be made at any moment
            self._keep((wanted.tenant, key), began, terms.cache_ms, reply)
        return reply

    async def _ask(self, wanted: Wanted, key: Key, now_us: int) -> ResolveReply:
        request = ResolveRequest(
            issuer=self._issuer,
            tenant=wanted.tenant,
            principal=wanted.principal,
            run_id=wanted.run_id,
            kind=key[0],
            id=key[1],
            expires_us=now_us + REQUEST_LIFE_US,
        )
        try:
            return await self._resolvers.resolve(wanted.run_id, seal_request(self._seal_key, request))
        except Exception as error:
            return ResolveReply(state="failed", detail=told(error)[:500])

    def _keep(self, place: tuple[TenantId, Key], began_us: int, cache_ms: int, reply: ResolveReply) -> None:
        if began_us < max(self._nothing_kept_until_us, self._changing.get(place, 0)):
            return
        self._changing.pop(place, None)
        self._kept[place] = (began_us + cache_ms * 1000, reply)
        self._kept.move_to_end(place)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def late(terms: ResolverTerms) -> str:
    """Return what is said of a resolver that did not answer in time."""
    return f"its resolver did not answer in {terms.timeout_ms / 1000:g} s"
