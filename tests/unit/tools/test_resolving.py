"""Resolvers: how they are declared, what they may answer, and that whatever goes wrong in one is an answer."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from airside.stack.errors import InvalidConfig
from airside.stack.ids import RunId, TenantId
from airside.stack.policy.lookups import seal_request
from airside.stack.resources import MAX_RESOURCE_BYTES, SHARED, ResolveReply, ResolveRequest, Resource
from airside.tools.resolving import Resolver, ResolverContext, ResolverPool, ResolverThreads, as_resolver, resolver
from tests.helpers import KEY, RUN

ACME = TenantId("acme")
ISSUER = "iss_1"


async def call(function: partial[Any], tenant: TenantId, run_id: RunId) -> Any:
    """Call as an executor does, in this loop."""
    answer = function()
    return await answer if inspect.isawaitable(answer) else answer


def sealed(key: bytes = KEY, **fields: Any) -> bytes:
    """Return a question about order o1 for ann of acme."""
    given = {"issuer": ISSUER, "tenant": ACME, "principal": "ann", "run_id": RUN, "kind": "order", "id": "o1"}
    return seal_request(key, ResolveRequest(**({"expires_us": 100} | given | fields)))


async def reply(given: Any, question: bytes | None = None, **options: Any) -> ResolveReply:
    """Return what a pool answers whose resolver of orders is `given`."""
    made = resolver(**options)(given) if options else as_resolver("order", given)
    pool = ResolverPool({"order": made}, seal_key=KEY, now_us=lambda: 10, call=call)
    return await pool.resolve(sealed() if question is None else question, ISSUER)


def says(answer: Any) -> Callable[..., Any]:
    """Return a resolver that gives one answer."""
    return lambda id, context: answer


async def test_a_resolver_is_told_for_whom_and_of_what() -> None:
    """The id has its type; the context has no more than it needs to look."""
    seen: list[Any] = []

    def of(order_id: str | int, context: ResolverContext) -> Resource:
        seen.append((order_id, context))
        return Resource(tenant=context.tenant, owner="ann", attributes={"total": 5})

    assert await reply(of, sealed(id=7), timeout=3.0) == ResolveReply(
        state="found", resource=Resource(tenant=ACME, owner="ann", attributes={"total": 5})
    )
    assert seen == [(7, ResolverContext(tenant=ACME, principal="ann", run_id=RUN, deadline_s=3.0))]


async def test_none_is_an_id_that_nobody_knows() -> None:
    """Neither an error nor a resource without an owner."""
    assert await reply(says(None)) == ResolveReply(state="unknown")


async def test_a_coroutine_function_and_an_object_are_resolvers_too() -> None:
    """What can be called with an id and a context."""

    async def waits(id: Any, context: Any) -> Resource:
        await asyncio.sleep(0)
        return Resource(tenant=ACME)

    class Table:
        def __call__(self, id: Any, context: Any) -> Resource:
            return Resource(tenant=SHARED)

    assert (await reply(waits)).state == (await reply(Table())).state == "found"
    assert (await reply(partial(lambda table, id, context: table.get(id), {}))).state == "unknown"


@pytest.mark.parametrize(
    "answer",
    [
        {"tenant": "acme"},
        {"tenant": "acme", "owner": None, "sensitivity": "restricted", "attributes": {"tags": ["a", 1, None]}},
    ],
)
async def test_a_mapping_with_its_fields_is_a_resource(answer: dict[str, Any]) -> None:
    """As a row of a store is."""
    assert (await reply(says(answer))).state == "found"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"owner": "ann"},
        {"tenant": None},
        {"tenant": ""},
        {"tenant": "acme", "owner": 5},
        {"tenant": "acme", "owner": ""},
        {"tenant": "acme", "sensitivity": "secret"},
        {"tenant": "acme", "colour": "red"},
        {"tenant": "acme", "attributes": {"a": {"b": 1}}},
        {"tenant": "acme", "attributes": {"a": [["b"]]}},
        {"tenant": "acme", "attributes": {5: "b"}},
        {"tenant": "acme", "attributes": {"a": math.nan}},
        {"tenant": "acme", "attributes": {"a": "\ud800"}},
        {"tenant": "acme", "attributes": {"a": "\x00"}},
        {"tenant": "acme", "attributes": {"a": "x" * MAX_RESOURCE_BYTES}},
        Resource(tenant=ACME, owner=5),  # type: ignore[arg-type]
        Resource(tenant=ACME, attributes={"a": {"b": 1}}),  # type: ignore[dict-item]
        True,
        "acme",
        object(),
        [("tenant", "acme")],
    ],
)
async def test_what_is_no_resource_is_no_answer(answer: Any) -> None:
    """Nothing is allowed on it."""
    found = await reply(says(answer))
    assert found.state == "failed" and found.resource is None and found.detail


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), Unspeakable(), KeyError(None), ValueError("caf\udce9"), SystemExit(1), TimeoutError("db")],
)
async def test_whatever_a_resolver_raises_is_an_answer(error: BaseException) -> None:
    """Its neighbours in the batch are answered all the same."""

    def raises(id: Any, context: Any) -> Resource:
        raise error

    found = await reply(raises)
    assert found.state == "failed" and found.detail.encode()


async def test_one_that_cancels_itself_is_an_answer() -> None:
    """The executor goes on."""

    async def cancels(id: Any, context: Any) -> Resource:
        raise asyncio.CancelledError

    assert (await reply(cancels)).state == "failed"


async def test_one_that_does_not_answer_in_time_is_late() -> None:
    """It is no longer waited for."""

    async def hangs(id: Any, context: Any) -> Resource:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    found = await reply(hangs, timeout=0.001)
    assert (found.state, found.detail) == ("late", "its resolver did not answer in 0.001 s")


async def test_a_declared_attribute_that_is_left_out_is_no_answer() -> None:
    """A rule that asks for it would otherwise find nothing."""
    found = await reply(says({"tenant": "acme", "attributes": {"a": 1}}), attributes=("a", "locked"))
    assert found.state == "failed" and "locked" in found.detail


@pytest.mark.parametrize(
    "question",
    [
        sealed(b"x" * 32),
        sealed(issuer="iss_0"),
        sealed(expires_us=10),
        sealed(kind="customer"),
        b"",
        b"\xc1" * 50,
    ],
    ids=["seal", "issuer", "age", "kind", "empty", "noise"],
)
async def test_what_is_no_question_of_the_present_gates_runs_nothing(question: bytes) -> None:
    """Forged, of an earlier gate, too old, or of a kind there is no resolver for."""

    def runs(id: Any, context: Any) -> Resource:
        raise AssertionError

    found = await reply(runs, question)
    assert found.state == "failed" and "AssertionError" not in found.detail


# Threads.


async def ask_in(threads: ResolverThreads, given: Any, tenant: TenantId = ACME, within: float = 60.0) -> ResolveReply:
    """Return what a pool with these threads answers."""
    made = {"order": resolver(timeout=within)(given)}
    pool = ResolverPool(made, seal_key=KEY, now_us=lambda: 10, call=threads.call)
    return await pool.resolve(sealed(tenant=tenant), ISSUER)


async def test_a_resolver_that_blocks_holds_up_neither_the_loop_nor_other_tenants() -> None:
    """A tenant whose resolvers hang has its own threads at most, and they are its own again when they end."""
    threads, release = ResolverThreads(threads=3, per_tenant=2), threading.Event()

    def hangs(id: Any, context: Any) -> None:
        release.wait(60)

    hanging = [asyncio.ensure_future(ask_in(threads, hangs)) for _ in range(5)]
    await asyncio.sleep(0)
    assert (await ask_in(threads, says(None), TenantId("globex"))).state == "unknown"
    assert (await ask_in(threads, says(None), within=0.001)).state == "late"
    release.set()
    assert [each.state for each in await asyncio.gather(*hanging)] == ["unknown"] * 5
    assert (await ask_in(threads, says(None))).state == "unknown"


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_resolver_says_is_read_in_its_thread(waits: bool) -> None:
    """An answer that is huge, or runs code when it is looked at, does not hold the executor's loop."""
    read_in: list[str] = []

    @dataclasses.dataclass
    class Row:
        tenant: str = "acme"

        def __getattribute__(self, name: str) -> Any:
            if name == "tenant":
                read_in.append(threading.current_thread().name)
            return super().__getattribute__(name)

    async def later(id: Any, context: Any) -> Any:
        return Row()

    found = await ask_in(ResolverThreads(), later if waits else says(Row()))
    assert found.state == "found" and read_in and all(name.startswith("resolver") for name in read_in)


async def test_a_tenants_coroutines_share_a_loop_that_outlives_a_question() -> None:
    """So a client that an app keeps is never one of a loop that has ended; tenants have loops of their own."""
    threads, loops = ResolverThreads(), []

    async def looks(id: Any, context: Any) -> None:
        loops.append(asyncio.get_running_loop())

    given = lambda id, context: looks(id, context)  # noqa: E731 - a plain function that gives a coroutine
    for tenant in (ACME, ACME, TenantId("globex"), ACME):
        for each in (looks, given):
            assert (await ask_in(threads, each, tenant)).state == "unknown"
    acme, globex = loops[0], loops[4]
    assert loops == [acme] * 4 + [globex] * 2 + [acme] * 2 and acme is not globex and not acme.is_closed()


async def test_a_coroutine_that_blocks_its_loop_is_late_and_named_and_holds_up_no_other_tenant() -> None:
    """Its own tenant's next question has another loop."""
    threads, release, begun = ResolverThreads(), threading.Event(), threading.Event()

    async def blocks(id: Any, context: Any) -> None:
        begun.set()
        release.wait(60)

    async def looks(id: Any, context: Any) -> None:
        await asyncio.sleep(0)

    hanging = asyncio.ensure_future(ask_in(threads, blocks, within=0.05))
    await asyncio.to_thread(begun.wait, 60)
    assert (await hanging).state == "late"
    assert (await ask_in(threads, looks, TenantId("globex"))).state == "unknown"
    assert (await ask_in(threads, looks)).state == "unknown"
    release.set()


async def test_an_error_of_a_coroutine_names_its_line() -> None:
    """As that of a plain function."""

    async def fails(id: Any, context: Any) -> None:
        raise KeyError("order")

    def fails_too(id: Any, context: Any) -> None:
        raise KeyError("order")

    for each in (fails, fails_too):
        found = await ask_in(ResolverThreads(), each)
        assert found.state == "failed" and f"{__file__}:" in found.detail and f"in {each.__name__}" in found.detail


async def test_a_coroutine_that_hangs_holds_nobody_and_ends_with_the_question() -> None:
    """It is cancelled on its loop; one whose time is over before it began does not begin."""
    threads, begun, ended = ResolverThreads(), threading.Event(), threading.Event()

    async def hangs(id: Any, context: Any) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    asking = asyncio.ensure_future(ask_in(threads, hangs))
    assert await asyncio.to_thread(begun.wait, 60)
    asking.cancel()
    assert await asyncio.to_thread(ended.wait, 60)
    assert (await ask_in(threads, hangs, within=0.001)).state == "late"


@pytest.mark.parametrize("error", [StopIteration(5), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_what_would_end_a_thread_is_an_answer(error: BaseException) -> None:
    """And the thread goes on."""

    def raises(id: Any, context: Any) -> None:
        raise error

    threads = ResolverThreads(threads=1)
    assert (await ask_in(threads, raises)).state == "failed"
    assert (await ask_in(threads, says(None))).state == "unknown"


# Declaring.


def test_options_become_terms_that_policy_sees() -> None:
    """In whole milliseconds; attributes sorted, each once."""
    made = resolver(timeout=0.5, cache_s=2, attributes=("b", "a", "a"))(says(None))
    assert isinstance(made, Resolver) and as_resolver("order", made) is made
    assert (made.terms.timeout_ms, made.terms.cache_ms, made.terms.attributes) == (500, 2000, ("a", "b"))
    bare = as_resolver("order", says(None)).terms
    assert (bare.timeout_ms, bare.cache_ms, bare.attributes) == (2000, 0, None)
    assert made("o1", None) is None


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": 3600},
        {"timeout": math.nan},
        {"timeout": "1"},
        {"timeout": True},
        {"cache_s": -1},
        {"cache_s": math.inf},
        {"cache_s": 3600},
        {"attributes": "locked"},
        {"attributes": ("a", 5)},
        {"attributes": ("",)},
        {"attributes": {"a": 1}},
    ],
)
def test_terms_that_are_none_are_refused(options: dict[str, Any]) -> None:
    """When they are declared, naming the resolver."""
    with pytest.raises(InvalidConfig, match="resolver"):
        resolver(**options)(says(None))


def no_context(id: str) -> None:
    """Take too little."""


def by_name(*, id: str, context: Any) -> None:
    """Take them by name only."""


def three(id: str, context: Any, more: Any) -> None:
    """Take too much."""


def yields(id: str, context: Any) -> Any:
    """Generate."""
    yield 1


async def ayields(id: str, context: Any) -> Any:
    """Generate, too."""
    yield 1


@pytest.mark.parametrize("given", [no_context, by_name, three, yields, ayields, 5, None, "orders", {}])
def test_what_cannot_be_called_with_an_id_and_a_context_is_refused(given: Any) -> None:
    """When the app is checked, not when a call waits for it."""
    with pytest.raises(InvalidConfig):
        as_resolver("order", given)
