"""One suite per port, over every implementation of it: what the cycle may rely on, whoever answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airside.actors.executor import ToolExecutor
from airside.actors.journal.store import JournalStore
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import RESOLVE
from airside.actors.settings import Settings
from airside.memory.in_memory import HashingEmbedder, InMemoryMemory
from airside.memory.service import MemoryService
from airside.stack.contracts.memory import Candidate, RecallRequest
from airside.stack.cycle.in_memory import InMemoryJournal, InMemoryResolvers
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append, AppendReply, AppendTogether, Entry
from airside.stack.policy.lookups import open_reply, seal_request
from airside.stack.ports import Journal, Memory, Resolvers
from airside.stack.resources import ResolveReply, ResolveRequest, Resource, ResourceId
from airside.stack.values import Clearance
from airside.tools.resolving import ResolverContext, ResolverPool, ResolverThreads, as_resolver
from tests import on_wire
from tests.helpers import KEY, RUN
from tests.journals import ENDED, note
from tests.postgres import Server

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


class StoredJournal:
    """The journal in its file, or in a database, as the actor uses it."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.store = JournalStore(folder, b"k" * 32, url)

    async def append(self, append: Append) -> AppendReply:
        """Commit a group of one."""
        return self.store.commit([append])[0]

    async def append_together(self, write: AppendTogether) -> AppendReply:
        """Commit a group of one write."""
        return self.store.commit([write])[0]

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Read the log."""
        return self.store.bodies(streams)

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Ask the tables."""
        return [RunId(run) for (run,) in self.store.rows("unfinished_below", run_id)]


AnyJournal = InMemoryJournal | StoredJournal


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A server for journals."""
    with closing(Server()) as started:
        yield started


@pytest.fixture(params=["local", "file", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyJournal]:
    """Each implementation of the journal."""
    if request.param == "local":
        yield InMemoryJournal()
        return
    url = request.getfixturevalue("postgres").new_database() if request.param == "postgres" else ""
    stored = StoredJournal(tmp_path, url)
    yield stored
    stored.store.release()


def append(epoch: int, first: int, *bodies: str, stream: str = "run_a") -> Append:
    """Return an append of entries whose bodies are given; `END` ends the run."""
    entries = tuple(
        Entry(
            type="RunEnded" if b == "END" else "Note",
            step=0,
            at_us=1,
            cause=-1,
            body=ENDED if b == "END" else b.encode(),
        )
        for b in bodies
    )
    return Append(tenant=ACME, stream=stream, epoch=epoch, first_seq=first, entries=entries)


async def verdicts(journal: Journal, *appends: Append) -> list[str]:
    """Append one after the other and return the verdicts."""
    return [(await journal.append(a)).verdict for a in appends]


async def test_entries_in_order_are_taken_in(journal: Journal) -> None:
    """A stream grows by appends that begin where it ends."""
    assert await verdicts(journal, append(0, 0, "a"), append(1, 1, "b", "c"), append(1, 3, "d")) == ["ok"] * 3


async def test_the_same_append_again_is_ok_and_writes_nothing(journal: Journal) -> None:
    """A retry after a lost answer is answered as the first time."""
    await verdicts(journal, append(0, 0, "a"), append(1, 1, "b", "c"))
    reply = await journal.append(append(1, 1, "b", "c"))
    assert (reply.verdict, reply.next_seq) == ("ok", 3)


async def test_of_two_who_claim_one_epoch_the_first_has_it(journal: Journal) -> None:
    """Other entries at a place that is taken are another writer's."""
    assert await verdicts(journal, append(0, 0, "a"), append(1, 1, "mine"), append(1, 1, "yours")) == [
        "ok",
        "ok",
        "fenced",
    ]


async def test_an_old_epoch_is_fenced(journal: Journal) -> None:
    """A superseded writer learns so, even from a retry."""
    assert await verdicts(journal, append(0, 0, "a"), append(2, 1, "b"), append(1, 2, "c")) == ["ok", "ok", "fenced"]
    assert await verdicts(journal, append(0, 0, "a")) == ["fenced"]


async def test_a_gap_is_refused(journal: Journal) -> None:
    """Nothing may be left out."""
    assert await verdicts(journal, append(0, 0, "a"), append(0, 2, "c")) == ["ok", "gap"]


async def test_nothing_comes_after_the_end(journal: Journal) -> None:
    """An ended run takes nothing in, under any epoch."""
    assert await verdicts(journal, append(0, 0, "END"), append(0, 1, "x"), append(5, 1, "x")) == [
        "ok",
        "fenced",
        "fenced",
    ]


async def test_what_is_durable_is_read_in_order(journal: Journal) -> None:
    """A stream that has nothing, or whose only append was refused, is an empty one."""
    await verdicts(journal, append(0, 0, '"a"'), append(1, 1, '"b"', '"c"'), append(0, 3, '"late"'))
    await verdicts(journal, append(0, 5, '"far"', stream="run_b"))
    assert await journal.bodies(["run_b", "run_a"]) == {"run_b": [], "run_a": ['"a"', '"b"', '"c"']}


def together(*appends: Append) -> AppendTogether:
    """Return appends as one write."""
    return AppendTogether(appends=appends)


async def test_appends_together_are_all_taken_in_and_again_are_ok_and_write_nothing(journal: AnyJournal) -> None:
    """The answer may have been lost."""
    await verdicts(journal, append(0, 0, '"a"'))
    write = together(append(0, 1, '"b"'), append(0, 0, '"x"', '"y"', stream="run_b"))
    assert [(await journal.append_together(write)).verdict for _ in range(2)] == ["ok", "ok"]
    assert await journal.bodies(["run_a", "run_b"]) == {"run_a": ['"a"', '"b"'], "run_b": ['"x"', '"y"']}


@pytest.mark.parametrize(
    ("refused", "verdict"),
    [
        (append(0, 0, '"other"'), "fenced"),
        (append(0, 7, '"far"'), "gap"),
        (append(0, 1, stream="run_a"), "error"),
        (append(0, 0, '"x"', stream="run_c"), "error"),
    ],
    ids=["taken", "gap", "empty", "twice"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_of_appends_together_none_is_taken_in_if_one_is_not(
    journal: AnyJournal, refused: Append, verdict: str, place: int
) -> None:
    """Wherever it stands; and what comes next is as if it had not been sent."""
    await verdicts(journal, append(0, 0, '"a"'))
    appends = [append(0, 0, '"x"', stream="run_b"), append(0, 0, '"x"', stream="run_c")]
    appends.insert(place, refused)
    reply = await journal.append_together(together(*appends))
    assert reply.verdict == verdict and reply.detail.startswith(refused.stream)
    assert await journal.bodies(["run_a", "run_b", "run_c"]) == {"run_a": ['"a"'], "run_b": [], "run_c": []}
    assert await verdicts(journal, append(0, 1, '"b"'), append(0, 0, '"y"', stream="run_b")) == ["ok", "ok"]
    assert (await journal.append_together(together())).verdict == "error"


async def test_the_branches_of_a_run_that_have_not_ended_are_found_and_theirs(journal: Journal) -> None:
    """What ended is not among them, nor the run itself, nor another whose name begins alike."""
    runs = [f"{RUN}.1-0", f"{RUN}.1-0.2-1", f"{RUN}.1-1"]
    assert await verdicts(journal, *(note(run, 0, 1) for run in (RUN, *runs, "run_" + "9" * 24))) == ["ok"] * 5
    assert set(await journal.unfinished_below(RUN)) == set(runs)
    assert await verdicts(journal, append(0, 1, "END", stream=runs[0])) == ["ok"]
    assert set(await journal.unfinished_below(RUN)) == set(runs[1:])
    assert await journal.unfinished_below(RunId(runs[0])) == [runs[1]]
    assert await journal.unfinished_below(RunId(runs[2])) == []


class Clock:
    """A clock that is set by hand, in microseconds."""

    def __init__(self) -> None:
        self.now = time.time_ns() // 1000

    def __call__(self) -> int:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture(params=["local", "lancedb"])
def memory(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Memory:
    """Each implementation of memory."""
    return InMemoryMemory(clock) if request.param == "local" else MemoryService(tmp_path, HashingEmbedder, clock)


FACT = "the customer prefers deliveries on tuesday mornings"


def candidate(
    text: str = FACT, *, tenant: TenantId = ACME, sensitivity: Clearance = "internal", ttl_s: int = 60
) -> Candidate:
    """Return a candidate."""
    return Candidate(tenant=tenant, text=text, kind="fact", source="test", sensitivity=sensitivity, ttl_s=ttl_s)


async def found(memory: Memory, *, tenant: TenantId = ACME, clearance: Clearance = "internal") -> list[str]:
    """Return the texts recalled for the fact's own words."""
    reply = await memory.retrieve(RecallRequest(tenant=tenant, query=FACT, clearance=clearance))
    assert reply.error == ""
    return [record.text for record in reply.records]


async def test_what_was_stored_is_found_by_its_own_tenant_only(memory: Memory) -> None:
    """Tenants do not see each other's records."""
    assert (await memory.write_if_useful(candidate())).code == "stored"
    assert await found(memory) == [FACT]
    assert await found(memory, tenant=GLOBEX) == []


async def test_the_same_text_is_stored_once(memory: Memory) -> None:
    """A repeat is a duplicate."""
    codes = [(await memory.write_if_useful(candidate())).code for _ in range(2)]
    assert codes == ["stored", "duplicate"]


async def test_what_has_expired_is_not_found(memory: Memory, clock: Clock) -> None:
    """A record lives as long as its TTL."""
    await memory.write_if_useful(candidate(ttl_s=60))
    clock.now += 59_000_000
    assert await found(memory) == [FACT]
    clock.now += 2_000_000
    assert await found(memory) == []


async def test_nothing_above_the_clearance_is_found(memory: Memory) -> None:
    """A confidential record needs a confidential clearance."""
    await memory.write_if_useful(candidate(sensitivity="confidential"))
    assert await found(memory, clearance="internal") == []
    assert await found(memory, clearance="confidential") == [FACT]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("too few", "too_short"),
        ("12345 67890 !!", "no_content"),
        ("yes " * 60, "no_content"),
        ("word " * 9000, "too_long"),
    ],
)
async def test_what_is_not_worth_keeping_is_refused_with_a_code(memory: Memory, text: str, code: str) -> None:
    """The quality gate says why."""
    assert (await memory.write_if_useful(candidate(text))).code == code


async def test_a_record_must_have_an_end(memory: Memory) -> None:
    """A TTL of nothing is refused."""
    assert (await memory.write_if_useful(candidate(ttl_s=0))).code == "ttl_invalid"


async def test_at_most_top_k_come_back_best_first(memory: Memory) -> None:
    """The best match leads, and no more than asked for come."""
    for place in ("Lyon", "Turin", "Ghent", "Porto", "Graz", "Malmo"):
        await memory.write_if_useful(candidate(f"{FACT} from the depot called {place}"))
    await memory.write_if_useful(candidate())
    reply = await memory.retrieve(RecallRequest(tenant=ACME, query=FACT, clearance="internal", top_k=3, min_score=0.0))
    scores = [record.score for record in reply.records]
    assert scores == sorted(scores, reverse=True)
    assert reply.records[0].text == FACT
    assert len(reply.records) == 3


async def test_a_reopened_store_has_what_was_acknowledged(tmp_path: Path, clock: Clock) -> None:
    """LanceDB's records are there for the next process."""
    make: Callable[[], MemoryService] = lambda: MemoryService(tmp_path, HashingEmbedder, clock)  # noqa: E731
    await make().write_if_useful(candidate())
    assert await found(make()) == [FACT]


# Resolvers.

ISSUER = "iss_1"
ORDERS = {(ACME, "o1"): "ann", (ACME, 7): "ann", (ACME, "7"): "bob", (GLOBEX, "o1"): "eve"}


def order(order_id: ResourceId, context: ResolverContext) -> Resource | None:
    """Say whose an order is."""
    owner = ORDERS.get((context.tenant, order_id))
    return None if owner is None else Resource(tenant=context.tenant, owner=owner)


class ExecutorResolvers:
    """An executor's list method as its stub calls it, without the actors between."""

    def __init__(self, folder: Path) -> None:
        self._layer: Any = ToolExecutor(LayerConfig(Settings(state_dir=folder), folder, seal_key=KEY), [], False)
        self._layer._started = True
        self._layer._watched = asyncio.Event()
        self._layer._watched.set()
        self._layer._dispatcher = SimpleNamespace(grants=SimpleNamespace(issuer=ISSUER))
        made = {"order": as_resolver("order", order)}
        self._layer._resolving = ResolverPool(made, seal_key=KEY, now_us=lambda: 10, call=ResolverThreads().call)

    async def resolve(self, run_id: RunId, request: bytes) -> bytes:
        """Send a batch of one."""
        return await on_wire.ask(self._layer, RESOLVE, request)


@pytest.fixture(params=["local", "executor"])
async def resolvers(request: pytest.FixtureRequest, tmp_path: Path) -> Resolvers:
    """Each implementation of the resolvers."""
    if request.param == "executor":
        return ExecutorResolvers(tmp_path)
    local = InMemoryResolvers(KEY, lambda: 10, ISSUER)
    local.known = {
        (tenant, ("order", each)): Resource(tenant=tenant, owner=owner) for (tenant, each), owner in ORDERS.items()
    }
    return local


def question(key: bytes = KEY, **fields: Any) -> bytes:
    """Return ann's question about order o1."""
    given = {"issuer": ISSUER, "tenant": ACME, "principal": "ann", "run_id": RUN, "kind": "order", "id": "o1"}
    return seal_request(key, ResolveRequest(**({"expires_us": 100} | given | fields)))


async def said(resolvers: Resolvers, asked: bytes) -> ResolveReply:
    """Return what the sealed answer to a question says."""
    reply = open_reply(KEY, asked, await resolvers.resolve(RUN, asked))
    assert reply is not None
    return reply


async def test_a_resource_is_found_with_its_owner_by_its_id_and_its_type(resolvers: Resolvers) -> None:
    """A number and its text are two."""
    owners = [(await said(resolvers, question(id=each))).resource for each in ("o1", 7, "7")]
    assert owners == [Resource(tenant=ACME, owner=who) for who in ("ann", "ann", "bob")]
    assert (await said(resolvers, question(id="o2"))) == ResolveReply(state="unknown")


async def test_who_is_asked_about_is_the_tenant_of_the_question(resolvers: Resolvers) -> None:
    """One id is another resource for another tenant."""
    found = (await said(resolvers, question(tenant=GLOBEX))).resource
    assert found == Resource(tenant=GLOBEX, owner="eve")
    assert (await said(resolvers, question(tenant=GLOBEX, id=7))).state == "unknown"


async def test_an_answer_is_of_its_own_question_alone(resolvers: Resolvers) -> None:
    """It opens for no other, and not under another key."""
    mine, other = question(), question(id=7)
    answer = await resolvers.resolve(RUN, mine)
    assert open_reply(KEY, mine, answer) is not None
    assert open_reply(KEY, other, answer) is open_reply(b"x" * 32, mine, answer) is None


async def test_the_same_question_again_has_the_same_answer(resolvers: Resolvers) -> None:
    """A stub may send it twice."""
    assert await resolvers.resolve(RUN, question()) == await resolvers.resolve(RUN, question())


@pytest.mark.parametrize(
    "asked",
    [question(b"x" * 32), question(issuer="iss_0"), question(issuer=""), question(expires_us=10), b"", b"x" * 100],
    ids=["seal", "issuer", "no issuer", "age", "empty", "noise"],
)
async def test_what_is_no_question_of_the_present_gates_is_told_nothing(resolvers: Resolvers, asked: bytes) -> None:
    """Forged, of an earlier gate, or too old."""
    reply = await said(resolvers, asked)
    assert (reply.state, reply.resource) == ("failed", None)


async def test_a_kind_that_nobody_resolves_is_found_nowhere(resolvers: Resolvers) -> None:
    """Whatever its id."""
    assert (await said(resolvers, question(kind="customer"))).state in ("unknown", "failed")
