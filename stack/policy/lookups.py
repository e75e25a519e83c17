"""Looking resources up for the gate: the resolvers' answers, each within its deadline, and for how long they hold.

An answer is kept for as long as its resolver says (nothing by default), per tenant, kind and id.  What a call that
changes something was just granted for is not kept until that call can no longer be at work, whatever tenant asks and
however the id is spelled: an answer from before the change is never used after it, nor one from the middle.

Question and answer are sealed, the answer with what was asked: one that was made for another question, or by anybody
who may not hold the key, is none.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import msgspec

from airside.stack.ids import TenantId
from airside.stack.input.error_places import describe_error
from airside.stack.ports import Resolvers
from airside.stack.resources import MAX_RESOURCE_BYTES, Key, ResolveReply, ResolveRequest, ResolverTerms, ResourceLookup
from airside.stack.security.grants import GRANT_LIFE_US
from airside.stack.security.seals import unwrap, wrap
from airside.stack.text.spelling import alike, caseless, joined, plain

MAX_KEPT = 10_000
"""Answers, and changes under way, that are remembered; one that is forgotten early costs a question more."""

TRANSIT_S = 0.5
"""Added to a resolver's own deadline, which its executor keeps: what takes longer is with an executor that is gone."""

REQUEST_LIFE_US = 60_000_000
"""How long after its sealing a question may be answered: longer than any clock of a cluster is off."""

MAX_ANSWER_BYTES = MAX_RESOURCE_BYTES + 4096
"""A sealed answer: the resource, or what went wrong in at most 500 characters, and what is around it."""

_PURPOSE = "resolve"
_ANSWER = "resolved"


def seal_request(key: bytes, request: ResolveRequest) -> bytes:
    """Seal a question; only the gate does."""
    return wrap(key, _PURPOSE, msgspec.msgpack.encode(request))


def open_request(key: bytes, sealed: bytes) -> ResolveRequest | None:
    """Return the question if the gate's seal holds, else None."""
    body = unwrap(key, _PURPOSE, sealed)
    return None if body is None else msgspec.msgpack.decode(body, type=ResolveRequest)


def seal_reply(key: bytes, question: bytes, reply: ResolveReply) -> bytes:
    """Seal the answer to exactly one sealed question; only executors do."""
    return wrap(key, _ANSWER, hashlib.sha256(question).digest() + msgspec.msgpack.encode(reply))


def open_reply(key: bytes, question: bytes, answer: bytes) -> ResolveReply | None:
    """Return the reply if the answer's seal holds and it answers this question, else None."""
    body = unwrap(key, _ANSWER, answer) if len(answer) <= MAX_ANSWER_BYTES else None
    if body is None or body[:32] != hashlib.sha256(question).digest():
        return None
    return msgspec.msgpack.decode(body[32:], type=ResolveReply)


SpelledId = tuple[str, str]
"""A kind, and an id as the most forgiving store would read it."""


def _spelled(key: Key) -> SpelledId:
    kind, given = key
    return kind, caseless(joined(alike(plain(str(given)))))


class Lookups:
    """Asks resolvers, all that a call needs at once, and keeps their answers.

    `steady_us` is the clock by which answers grow old: one that is never set back.  `at_work_ms` is how long a call
    that was granted before these lookups began may still be at work: before that, nothing is kept.
    """

    def __init__(
        self,
        resolvers: Resolvers,
        terms: Mapping[str, ResolverTerms],
        *,
        seal_key: bytes,
        issuer: str,
        now_us: Callable[[], int],
        steady_us: Callable[[], int] | None = None,
        at_work_ms: int = 0,
    ) -> None:
        self._resolvers = resolvers
        self._terms = terms
        self._seal_key = seal_key
        self._issuer = issuer
        self._now_us = now_us
        self._steady_us = steady_us or now_us
        self._kept: OrderedDict[tuple[TenantId, Key], tuple[int, ResolveReply]] = OrderedDict()
        self._kept_of: dict[SpelledId, set[tuple[TenantId, Key]]] = {}
        self._changing: OrderedDict[SpelledId, int] = OrderedDict()
        self._nothing_kept_until_us = self._steady_us() + at_work_ms * 1000 if at_work_ms else 0
        self._tasks: set[asyncio.Task[ResolveReply]] = set()
        self.counts = {"asked": 0, "kept": 0, "late": 0, "failed": 0}

    async def answers(self, wanted: ResourceLookup) -> dict[Key, ResolveReply]:
        """Return what is known of each resource within its kind's deadline; never raises."""
        keys = list(wanted.keys)
        return dict(zip(keys, await asyncio.gather(*(self._answer(wanted, key) for key in keys)), strict=True))

    def changed(self, keys: Iterable[Key], timeout_ms: int) -> None:
        """Forget what a call that was just granted may change, and keep nothing of it while that may be at work."""
        until = self._steady_us() + GRANT_LIFE_US + timeout_ms * 1000
        for key in keys:
            spelled = _spelled(key)
            for place in self._kept_of.pop(spelled, ()):
                del self._kept[place]
            self._changing[spelled] = max(until, self._changing.pop(spelled, 0))
            if len(self._changing) > MAX_KEPT:
                _, forgotten_us = self._changing.popitem(last=False)
                self._nothing_kept_until_us = max(self._nothing_kept_until_us, forgotten_us)

    async def _answer(self, wanted: ResourceLookup, key: Key) -> ResolveReply:
        kept = self._kept.get((wanted.tenant, key))
        if kept is not None and self._steady_us() < kept[0]:
            self.counts["kept"] += 1
            return kept[1]
        terms = self._terms.get(key[0])
        if terms is None:
            return ResolveReply(state="failed", detail=f"there is no resolver of {key[0]}")
        self.counts["asked"] += 1
        began = self._steady_us()
        # A task of its own, which is left to end by itself: what is on its way to an executor is not called back.
        task = asyncio.ensure_future(self._ask(wanted, key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        done, _ = await asyncio.wait({task}, timeout=terms.timeout_ms / 1000 + TRANSIT_S)
        reply = task.result() if done else ResolveReply(state="late", detail=late_answer(terms))
        if reply.state in ("late", "failed"):
            self.counts[reply.state] += 1
        elif terms.cache_ms and reply.state == "found":  # what is unknown may be made at any moment
            self._keep((wanted.tenant, key), began, terms.cache_ms, reply)
        return reply

    async def _ask(self, wanted: ResourceLookup, key: Key) -> ResolveReply:
        request = ResolveRequest(
            issuer=self._issuer,
            tenant=wanted.tenant,
            principal=wanted.principal,
            run_id=wanted.run_id,
            kind=key[0],
            id=key[1],
            expires_us=self._now_us() + REQUEST_LIFE_US,
        )
        try:
            question = seal_request(self._seal_key, request)
            answer = await self._resolvers.resolve(wanted.run_id, question)
            reply = open_reply(self._seal_key, question, answer)
        except Exception as error:
            return ResolveReply(state="failed", detail=describe_error(error)[:500])
        return reply or ResolveReply(state="failed", detail="what came back is no sealed answer to the question")

    def _keep(self, place: tuple[TenantId, Key], began_us: int, cache_ms: int, reply: ResolveReply) -> None:
        spelled = _spelled(place[1])
        if began_us < max(self._nothing_kept_until_us, self._changing.get(spelled, 0)):
            return
        self._changing.pop(spelled, None)
        self._kept[place] = (began_us + cache_ms * 1000, reply)
        self._kept.move_to_end(place)
        self._kept_of.setdefault(spelled, set()).add(place)
        if len(self._kept) > MAX_KEPT:
            self._drop(self._kept.popitem(last=False)[0])

    def _drop(self, place: tuple[TenantId, Key]) -> None:
        spelled = _spelled(place[1])
        left = self._kept_of[spelled]
        left.discard(place)
        if not left:
            del self._kept_of[spelled]


def late_answer(terms: ResolverTerms) -> str:
    """Return what is said of a resolver that did not answer in time."""
    return f"its resolver did not answer in {terms.timeout_ms / 1000:g} s"
