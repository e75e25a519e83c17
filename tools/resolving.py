"""Declaring and running resolvers: functions of the app's that say whose a resource is, in an executor.

A resolver reads and changes nothing: it may be asked at any time, more than once, and about ids that do not exist.
Whatever goes wrong in it is an answer, which is a no for the call that policy asks about.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from airside.stack.calling import explain_misuse
from airside.stack.canonical import check_bounds
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.input.error_places import UserCodeError, describe_error
from airside.stack.policy.lookups import late_answer, open_request, seal_reply
from airside.stack.resources import (
    MAX_RESOURCE_BYTES,
    ResolveReply,
    ResolveRequest,
    ResolverTerms,
    Resource,
    ResourceId,
)
from airside.stack.schema.toolspec import ToolSpec
from airside.tools.runners.fair_slots import FairSlots
from airside.tools.runners.jobs import StillAwaitable, ToolJob
from airside.tools.runners.outcomes import NotStarted
from airside.tools.runners.tool_loops import ToolLoops

DEFAULT_TIMEOUT_S = 2.0
"""A look into a store; a call waits for it before it is decided on."""

MAX_TIMEOUT_S = 60.0
MAX_CACHE_S = 60.0
"""A fact about ownership that is older is history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverContext:
    """For whose call a resource is asked about, and how long the answer may take."""

    tenant: TenantId
    principal: PrincipalId
    run_id: RunId
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Resolver:
    """A resolver: its function, which only executors run, and its terms, which policy sees."""

    function: Callable[..., Any]
    terms: ResolverTerms

    def __call__(self, *args: Any) -> Any:
        """Call the function directly: for its own tests."""
        return self.function(*args)


@explain_misuse("@resolver")
def resolver(
    *, timeout: float = DEFAULT_TIMEOUT_S, cache_s: float = 0.0, attributes: tuple[str, ...] | None = None
) -> Callable[[Callable[..., Any]], Resolver]:
    """Make a resolver of a function `(id, context)` that returns a `Resource`, or None for an id that is none.

    `timeout` is in seconds; what is later is a no.  `cache_s` is how long an answer may be used again, for every run
    and principal of the tenant: then it must say the same to all of them.  `attributes` are the names it always gives,
    so that a rule that asks for another is refused when the app is checked.
    """

    def wrap(function: Callable[..., Any]) -> Resolver:
        name = getattr(function, "__name__", repr(function))
        _check_function(name, function)
        terms = ResolverTerms(
            timeout_ms=_milliseconds(name, "timeout", timeout, 0.001, MAX_TIMEOUT_S),
            cache_ms=_milliseconds(name, "cache_s", cache_s, 0, MAX_CACHE_S),
            attributes=_names(name, attributes),
        )
        return Resolver(function, terms)

    return wrap


def as_resolver(kind: str, given: object) -> Resolver:
    """Return what an app gives for a kind as a resolver; raise `InvalidConfig` for what cannot be one."""
    if isinstance(given, Resolver):
        return given
    if not callable(given):
        raise InvalidConfig(f"resolvers: {given!r:.80} of {kind!r:.80} is no function (id, context)")
    return resolver()(given)


def checked_resolvers(given: object, specs: Sequence[ToolSpec]) -> dict[str, Resolver]:
    """Return an app's resolvers by kind, held against its tools.

    Raises `InvalidConfig` for a kind that is declared and not resolved or the other way round.
    """
    if not isinstance(given, Mapping):
        raise InvalidConfig(f"resolvers: {given!r:.80} is not a mapping: give App(resolvers={{kind: function}})")
    resolvers = {kind: as_resolver(kind, each) for kind, each in given.items()}
    declared = {kind: spec.name for spec in specs for kind, _ in spec.resources}
    for kind, tool in declared.items():
        if kind not in resolvers:
            raise InvalidConfig(f"tool {tool}: there is no resolver of {kind!r}: give App(resolvers={{{kind!r}: ...}})")
    for kind in resolvers:
        if kind not in declared:
            raise InvalidConfig(f"resolvers: no tool declares a resource of the kind {kind!r:.80}")
    return resolvers


ResolverCall = Callable[[partial[Any], TenantId, RunId], Awaitable[ResolveReply]]
"""Calls a function for a run where it can hold nobody up, tenants taking turns, and awaits what it returns."""

THREADS = 32
PER_TENANT = 8
"""A thread that hangs cannot be stopped: a tenant whose resolvers hang has so many at most, and the others theirs."""


class ResolverThreads:
    """Calls resolvers in threads of their own, apart from tools', and runs coroutines on a tenant's event loop.

    That is the same loop for every question, so that a client which an app keeps is not one of a loop that has ended.
    """

    def __init__(self, threads: int = THREADS, per_tenant: int = PER_TENANT) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._slots = FairSlots(threads)
        self._per_tenant = per_tenant
        self._shares: dict[TenantId, _Share] = {}
        self._loops = ToolLoops("resolvers")

    @property
    def are_exhausted(self) -> bool:
        """Whether resolvers hold so many event loops that no coroutine of anybody's can begin."""
        return self._loops.are_exhausted

    async def call(self, function: partial[Any], tenant: TenantId, run_id: RunId) -> Any:
        """Return what a resolver returns; the thread may outlive this call, and keeps its place until it ends."""
        answer = await self._in_thread(function, tenant)
        return await self._on_loop(answer, tenant, run_id) if isinstance(answer, StillAwaitable) else answer

    async def _in_thread(self, function: partial[Any], tenant: TenantId) -> Any:
        share = self._shares.setdefault(tenant, _Share(asyncio.Semaphore(self._per_tenant)))
        share.users += 1
        held = 0
        try:
            await share.places.acquire()
            held += 1
            await self._slots.take(tenant)
            held += 1
            future = self._pool.submit(_answer, function)
        except BaseException:
            self._let_go(tenant, share, held)
            raise
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._let_go, tenant, share, held))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_discard)
            raise

    async def _on_loop(self, given: StillAwaitable, tenant: TenantId, run_id: RunId) -> Any:
        """Return what a coroutine comes to; whoever is cancelled does not wait until that has ended."""
        job = ToolJob(name="a resolver", tenant=tenant, run_id=run_id, function=partial(_carried, given.answer))
        running = asyncio.ensure_future(self._loops.run(job))
        running.add_done_callback(partial(_consume_result, given))
        try:
            answer = await asyncio.shield(running)
        except asyncio.CancelledError:
            running.cancel()
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _let_go(self, tenant: TenantId, share: _Share, held: int) -> None:
        if held > 1:
            self._slots.give_back(tenant)
        if held:
            share.places.release()
        share.users -= 1
        if not share.users:
            del self._shares[tenant]


@dataclass(slots=True)
class _Share:
    """One tenant's places, and how many calls have or await one."""

    places: asyncio.Semaphore
    users: int = 0


def _answer(function: partial[Any]) -> Any:
    """Call it; what would end the thread, or what a future cannot carry, becomes an ordinary error."""
    try:
        answer = function()
    except BaseException as error:
        raise _ordinary(error) from None
    return StillAwaitable(answer) if inspect.isawaitable(answer) else answer


async def _carried(answer: Awaitable[Any]) -> Any:
    """Return what an awaitable comes to, or what it raised: with its place, which a job's error has not."""
    try:
        return await answer
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return _ordinary(error)


def _ordinary(error: BaseException) -> Exception:
    is_ordinary = isinstance(error, Exception) and not isinstance(error, StopIteration)
    return error if is_ordinary else UserCodeError(describe_error(error))  # type: ignore[return-value]


def _consume_result(given: StillAwaitable, running: asyncio.Future[Any]) -> None:
    """Take what nobody may wait for any more; what was not begun will not be."""
    if not running.cancelled() and isinstance(running.exception(), NotStarted):
        given.answer.close()


def _discard(future: Future[Any]) -> None:
    """Begin nothing of what a resolver gave when nobody waited any more."""
    if not future.cancelled() and future.exception() is None and isinstance(future.result(), StillAwaitable):
        future.result().answer.close()


class ResolverPool:
    """An executor's side of looking a resource up."""

    def __init__(
        self, resolvers: Mapping[str, Resolver], *, seal_key: bytes, now_us: Callable[[], int], call: ResolverCall
    ) -> None:
        self._resolvers = resolvers
        self._key = seal_key
        self._now_us = now_us
        self._call = call

    async def answer(self, sealed: bytes, issuer: str) -> bytes:
        """Return the sealed answer to a question of the gate that is `issuer`; never raises."""
        return seal_reply(self._key, sealed, await self.resolve(sealed, issuer))

    async def resolve(self, sealed: bytes, issuer: str) -> ResolveReply:
        """Answer a question of the gate that is `issuer`; never raises."""
        try:
            request = open_request(self._key, sealed)
        except Exception:
            request = None
        if request is None:
            return _failed("the question's seal does not hold")
        if request.issuer != issuer or request.expires_us <= self._now_us():
            return _failed("the question is not the present gate's, or too old")
        found = self._resolvers.get(request.kind)
        if found is None:
            return _failed(f"this executor has no resolver of {request.kind}")
        return await self._answer(found, request)

    async def _answer(self, found: Resolver, request: ResolveRequest) -> ResolveReply:
        context = ResolverContext(
            tenant=request.tenant,
            principal=PrincipalId(request.principal),
            run_id=request.run_id,
            deadline_s=found.terms.timeout_ms / 1000,
        )
        try:
            async with asyncio.timeout(context.deadline_s) as deadline:
                look = partial(_look, found, request.id, context)
                return await self._call(look, request.tenant, request.run_id)
        except TimeoutError as error:
            return (
                ResolveReply(state="late", detail=late_answer(found.terms))
                if deadline.expired()
                else _broken(error, found)
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _failed("its resolver cancelled itself")
        except BaseException as error:
            return _broken(error, found)


def _look(found: Resolver, id: ResourceId, context: ResolverContext) -> ResolveReply | _Later:
    """Call a resolver and read what it says, where it runs: a huge answer holds up nobody either."""
    answer = found.function(id, context)
    return _Later(answer, found.terms) if inspect.isawaitable(answer) else _read(answer, found.terms)


class _Later(Awaitable[ResolveReply]):
    """What a resolver says that gave something to await."""

    def __init__(self, answer: Awaitable[Any], terms: ResolverTerms) -> None:
        self._answer = answer
        self._terms = terms

    def __await__(self) -> Generator[Any, Any, ResolveReply]:
        return _read((yield from self._answer.__await__()), self._terms)

    def close(self) -> None:
        """Let it be: it was not begun, and will not be."""
        if inspect.iscoroutine(self._answer):
            self._answer.close()


def _read(answer: Any, terms: ResolverTerms) -> ResolveReply:
    if answer is None:
        return ResolveReply(state="unknown")
    return ResolveReply(state="found", resource=_checked(answer, terms))


def _checked(answer: Any, terms: ResolverTerms) -> Resource:
    """Return a resolver's answer as a resource that holds nothing else; raise for what is none."""
    plain = msgspec.to_builtins(answer)
    check_bounds(plain, where="resource")
    resource: Resource = msgspec.convert(plain, Resource)
    size = len(msgspec.msgpack.encode(resource))
    if size > MAX_RESOURCE_BYTES:
        raise InvalidInput(f"the resource's {size:,} bytes are over the bound of {MAX_RESOURCE_BYTES:,}")
    left_out = [name for name in terms.attributes or () if name not in resource.attributes]
    if left_out:
        raise InvalidInput(f"the resource has no attribute {left_out[0]!r}, which its resolver declares")
    return resource


def _broken(error: BaseException, resolver: Resolver) -> ResolveReply:
    return _failed(f"its resolver broke: {describe_error(error, resolver.function)}")


def _failed(text: str) -> ResolveReply:
    return ResolveReply(state="failed", detail=text[:500])


def _check_function(name: str, function: Callable[..., Any]) -> None:
    called = getattr(function, "__call__", None)  # noqa: B004 - an object may have an async call
    if any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in (function, called)):
        raise InvalidConfig(f"resolver {name}: a generator gives no answer")
    try:
        inspect.signature(function).bind("id", "context")
    except TypeError:
        raise InvalidConfig(f"resolver {name} does not take (id, context)") from None
    except ValueError:
        return  # a builtin that does not say what it takes


def _milliseconds(name: str, what: str, seconds: float, least: float, most: float) -> int:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if not is_number or not least <= seconds <= most:
        raise InvalidConfig(f"resolver {name}: {what} {seconds!r} is not between {least:g} and {most:g} seconds")
    return int(seconds * 1000)


def _names(name: str, attributes: object) -> tuple[str, ...] | None:
    if attributes is None:
        return None
    if isinstance(attributes, str) or not isinstance(attributes, tuple | list | set | frozenset):
        raise InvalidConfig(f"resolver {name}: attributes {attributes!r:.80} is not a tuple of names")
    if not all(isinstance(each, str) and each for each in attributes):
        raise InvalidConfig(f"resolver {name}: attributes {attributes!r:.80} holds what is no name")
    return tuple(sorted(set(attributes)))
