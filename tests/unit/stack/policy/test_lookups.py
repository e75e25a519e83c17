"""Looking resources up: all at once, each within its deadline, and kept no longer than is safe."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airside.stack.errors import LayerUnavailable
from airside.stack.ids import RunId, TenantId
from airside.stack.policy.lookups import (
    MAX_ANSWER_BYTES,
    REQUEST_LIFE_US,
    TRANSIT_S,
    Lookups,
    open_reply,
    open_request,
    seal_reply,
)
from airside.stack.resources import Key, ResolveReply, ResolveRequest, ResolverTerms, Resource, ResourceLookup
from airside.stack.security.grants import GRANT_LIFE_US
from airside.stack.security.seals import wrap
from tests.helpers import KEY, RUN
from tests.simulation.clock import ManualLoop

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
O1: Key = ("order", "o1")
O2: Key = ("order", "o2")
MINE = ResolveReply(state="found", resource=Resource(tenant=ACME, owner="ann"))


class Asked:
    """Resolvers that keep what they were asked, and answer as the test says."""

    def __init__(self, answer: Callable[[ResolveRequest], Awaitable[ResolveReply]]) -> None:
        self.questions: list[ResolveRequest] = []
        self._answer = answer

    async def resolve(self, run_id: RunId, request: bytes) -> bytes:
        """Answer a question."""
        asked = open_request(KEY, request)
        assert asked is not None and asked.run_id == run_id
        self.questions.append(asked)
        return seal_reply(KEY, request, await self._answer(asked))


async def finds(request: ResolveRequest) -> ResolveReply:
    """Find everything."""
    return MINE


class Says:
    """A port whose answer is what a test makes of the question."""

    def __init__(self, answer: Callable[[bytes], Any]) -> None:
        self._answer = answer

    async def resolve(self, run_id: RunId, request: bytes) -> Any:
        """Answer a question, with anything."""
        return self._answer(request)


class Bench:
    """Lookups of orders under a clock of the test's own."""

    def __init__(
        self,
        answer: Callable[[ResolveRequest], Awaitable[ResolveReply]] = finds,
        *,
        timeout_ms: int = 100,
        cache_ms: int = 0,
        at_work_ms: int = 0,
    ) -> None:
        self.loop = ManualLoop()
        self.set_back_us = 0
        self.port = Asked(answer)
        self.lookups = Lookups(
            self.port,
            {"order": ResolverTerms(timeout_ms=timeout_ms, cache_ms=cache_ms)},
            seal_key=KEY,
            issuer="iss_1",
            now_us=lambda: self.loop.now_us() - self.set_back_us,
            steady_us=self.loop.now_us,
            at_work_ms=at_work_ms,
        )

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end."""
        return self.loop.run_until_complete(work)

    def ask(self, *keys: Key, tenant: TenantId = ACME) -> dict[Key, ResolveReply]:
        """Look resources up for ann's run."""
        found: dict[Key, ResolveReply] = self.run(
            self.lookups.answers(ResourceLookup(tenant, "ann", RUN, frozenset(keys)))
        )
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.run(asyncio.sleep(seconds))


def test_a_question_says_whose_run_asks_about_what() -> None:
    """It is sealed, and soon too old."""
    bench = Bench()
    assert bench.ask(O1) == {O1: MINE}
    (asked,) = bench.port.questions
    assert (asked.tenant, asked.principal, asked.run_id, asked.issuer) == (ACME, "ann", RUN, "iss_1")
    assert (asked.kind, asked.id, asked.expires_us) == ("order", "o1", bench.loop.now_us() + REQUEST_LIFE_US)


def test_all_of_a_call_are_asked_about_at_once() -> None:
    """Ten that take 80 ms each take 80 ms."""

    async def slowly(request: ResolveRequest) -> ResolveReply:
        await asyncio.sleep(0.08)
        return MINE

    bench = Bench(slowly)
    found = bench.ask(*(("order", n) for n in range(10)))
    assert list(found.values()) == [MINE] * 10 and bench.loop.elapsed_us == pytest.approx(80_000, abs=100)


def test_one_that_does_not_answer_is_late_and_the_others_are_not() -> None:
    """The wait ends at the kind's deadline, with a little for the way."""

    async def hangs(request: ResolveRequest) -> ResolveReply:
        if request.id == "o1":
            await asyncio.get_running_loop().create_future()
        return MINE

    bench = Bench(hangs)
    found = bench.ask(O1, O2)
    assert found[O2] == MINE and found[O1].state == "late" and "0.1 s" in found[O1].detail
    assert bench.loop.elapsed_us == pytest.approx((0.1 + TRANSIT_S) * 1e6, abs=100)
    assert bench.lookups.counts == {"asked": 2, "kept": 0, "late": 1, "failed": 0}


@pytest.mark.parametrize("error", [LayerUnavailable("gone"), RuntimeError("odd"), ValueError("\ud800")])
def test_whatever_goes_wrong_is_an_answer(error: Exception) -> None:
    """An executor that is gone, or an answer that cannot be read."""

    async def breaks(request: ResolveRequest) -> ResolveReply:
        raise error

    assert Bench(breaks).ask(O1)[O1].state == "failed"


def test_of_a_kind_without_a_resolver_nobody_is_asked() -> None:
    """It is no answer that anything could be allowed on."""
    bench = Bench()
    assert bench.ask(("customer", "c1"))[("customer", "c1")].state == "failed" and not bench.port.questions


def test_nothing_is_kept_unless_the_resolver_says_so() -> None:
    """Each question is asked anew."""
    bench = Bench()
    bench.ask(O1), bench.ask(O1)
    assert len(bench.port.questions) == 2


def test_an_answer_is_used_again_for_as_long_as_its_resolver_says() -> None:
    """And no longer."""
    bench = Bench(cache_ms=1000)
    bench.ask(O1), bench.wait(0.9), bench.ask(O1)
    assert len(bench.port.questions) == 1
    bench.wait(0.2), bench.ask(O1)
    assert len(bench.port.questions) == 2


def test_an_answer_is_never_another_tenants_or_another_ids() -> None:
    """A number and its text are two ids."""
    bench = Bench(cache_ms=60_000)
    for tenant in (ACME, GLOBEX):
        bench.ask(("order", 7), ("order", "7"), tenant=tenant)
    assert len(bench.port.questions) == 4


@pytest.mark.parametrize("state", ["unknown", "late", "failed"])
def test_only_what_was_found_is_kept(state: Any) -> None:
    """What does not exist may be made at any moment, and what failed may work again."""

    async def says(request: ResolveRequest) -> ResolveReply:
        return ResolveReply(state=state)

    bench = Bench(says, cache_ms=60_000)
    bench.ask(O1), bench.ask(O1)
    assert len(bench.port.questions) == 2


def test_what_a_granted_call_may_change_is_forgotten_and_not_kept_while_it_may_be_at_work() -> None:
    """Until its grant is over and its timeout after that; other resources are kept as ever."""
    bench = Bench(cache_ms=60_000)
    bench.ask(O1, O2)
    bench.lookups.changed([O1], 5_000)
    bench.ask(O1, O2), bench.ask(O1, O2)
    assert [each.id for each in bench.port.questions[2:]] == ["o1", "o1"]
    bench.wait(GRANT_LIFE_US / 1e6 + 5.1)
    bench.ask(O1), bench.ask(O1)
    assert len(bench.port.questions) == 5


def test_an_answer_that_was_on_its_way_when_the_change_was_granted_is_not_kept() -> None:
    """It may say what was before the change, however long it takes to come."""
    release = asyncio.Event()

    async def waits(request: ResolveRequest) -> ResolveReply:
        if not release.is_set():
            await release.wait()
        return MINE

    bench = Bench(waits, timeout_ms=600_000, cache_ms=60_000)

    async def play() -> None:
        asking = asyncio.ensure_future(bench.lookups.answers(ResourceLookup(ACME, "ann", RUN, frozenset({O1}))))
        await asyncio.sleep(0.01)
        bench.lookups.changed([O1], 1)
        await asyncio.sleep(GRANT_LIFE_US / 1e6 + 1)
        release.set()
        await asking

    bench.run(play())
    bench.ask(O1)
    assert len(bench.port.questions) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ask", "change", "wait"]), st.integers(0, 3)), max_size=30))
def test_no_answer_from_before_a_change_is_used_after_it(moves: list[tuple[str, int]]) -> None:
    """Whatever is asked, granted and waited for: every answer says what is so, whenever a granted change happens."""
    version, granted = dict.fromkeys(range(4), 0), set[int]()

    async def says(request: ResolveRequest) -> ResolveReply:
        resource = Resource(tenant=ACME, attributes={"version": version[int(request.id)]})
        return ResolveReply(state="found", resource=resource)

    bench = Bench(says, cache_ms=60_000)
    for move, n in moves:
        if move == "wait":
            for changed in granted:
                version[changed] += 1
            granted.clear()
            bench.wait(50.0 * n)
        elif move == "change":
            granted.add(n)
            bench.lookups.changed([("order", n)], 1000)
        else:
            found = bench.ask(("order", n))[("order", n)].resource
            assert found is not None and found.attributes == {"version": version[n]}


def test_too_many_changes_to_remember_keep_everything_from_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgotten early costs a question more, never a wrong answer."""
    monkeypatch.setattr("airside.stack.policy.lookups.MAX_KEPT", 2)
    bench = Bench(cache_ms=60_000)
    bench.lookups.changed([("order", n) for n in range(3)], 1)
    bench.ask(O1), bench.ask(O1)
    assert len(bench.port.questions) == 2


def test_answers_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest makes room."""
    monkeypatch.setattr("airside.stack.policy.lookups.MAX_KEPT", 2)
    bench = Bench(cache_ms=60_000)
    for n in (0, 1, 2, 0):
        bench.ask(("order", n))
    assert len(bench.port.questions) == 4


@pytest.mark.parametrize("other", ["O1", " o1\t", "\uff4f1", "o\u200b1"])
def test_a_change_is_seen_however_its_id_is_spelled(other: str) -> None:
    """A store that takes two spellings for one order changes it under either."""
    bench = Bench(cache_ms=60_000)
    bench.ask(O1)
    bench.lookups.changed([("order", other)], 1)
    bench.ask(O1), bench.ask(O1)
    assert len(bench.port.questions) == 3


def test_a_change_of_a_number_is_one_of_its_text() -> None:
    """They are two ids to a rule, and may be one row."""
    bench = Bench(cache_ms=60_000)
    bench.ask(("order", "7"))
    bench.lookups.changed([("order", 7)], 1)
    bench.ask(("order", "7"))
    assert len(bench.port.questions) == 2


def test_a_change_by_one_tenant_is_seen_by_all() -> None:
    """What they share is kept for each of them, and forgotten for all."""
    bench = Bench(cache_ms=60_000)
    bench.ask(O1, tenant=GLOBEX), bench.ask(O1)
    bench.lookups.changed([O1], 1)
    bench.ask(O1, tenant=GLOBEX), bench.ask(O1, tenant=GLOBEX)
    assert len(bench.port.questions) == 4


def test_nothing_is_kept_while_a_call_from_before_may_be_at_work() -> None:
    """A gate that begins again does not know what the one before it granted."""
    bench = Bench(cache_ms=60_000, at_work_ms=30_000)
    bench.ask(O1), bench.ask(O1), bench.wait(31)
    bench.ask(O1), bench.ask(O1)
    assert len(bench.port.questions) == 3


def test_a_clock_that_is_set_back_keeps_nothing_for_longer() -> None:
    """What is kept is counted by a clock that nobody sets."""
    bench = Bench(cache_ms=1000)
    bench.ask(O1)
    bench.set_back_us = 3_600_000_000
    bench.wait(1.1), bench.ask(O1)
    assert len(bench.port.questions) == 2


def test_what_is_kept_is_dropped_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of an answer that made room or was changed."""
    monkeypatch.setattr("airside.stack.policy.lookups.MAX_KEPT", 2)
    bench = Bench(cache_ms=60_000)
    bench.ask(("order", "A")), bench.ask(("order", "a")), bench.ask(("order", "b"))
    assert bench.lookups._kept_of == {
        ("order", "a"): {(ACME, ("order", "a"))},
        ("order", "b"): {(ACME, ("order", "b"))},
    }
    bench.lookups.changed([("order", "a"), ("order", "b"), ("order", "c")], 1)
    assert not bench.lookups._kept_of and not bench.lookups._kept


# The seal of an answer.

FORGED = {
    "another key": lambda question: seal_reply(b"x" * 32, question, MINE),
    "another question": lambda question: seal_reply(KEY, question + b"x", MINE),
    "no seal": lambda question: b"",
    "noise": lambda question: b"x" * 200,
    "the question itself": lambda question: question,
    "another shape": lambda question: wrap(KEY, "resolved", hashlib.sha256(question).digest() + b"\x05"),
    "too much": lambda question: seal_reply(KEY, question, ResolveReply(state="failed", detail="x" * MAX_ANSWER_BYTES)),
    "no bytes": lambda question: MINE,
    "nothing": lambda question: None,
}


@pytest.mark.parametrize("made", FORGED.values(), ids=FORGED)
def test_what_is_no_sealed_answer_to_the_question_is_none(made: Callable[[bytes], Any]) -> None:
    """Whoever gave it: nothing is allowed on it, and nothing kept."""
    bench = Bench(cache_ms=60_000)
    bench.lookups._resolvers = Says(made)
    assert bench.ask(O1)[O1].state == "failed" and not bench.lookups._kept


def test_an_answer_opens_for_its_own_question() -> None:
    """And holds what was said."""
    assert open_reply(KEY, b"q", seal_reply(KEY, b"q", MINE)) == MINE
