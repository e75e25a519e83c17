"""Every remote method of every layer, without Ray: whatever one request does, its neighbours are answered."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pickle
import pkgutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

import airside.actors
from airside.actors.approvals.approvals import Approvals
from airside.actors.driver.driver import Driver
from airside.actors.executor import ToolExecutor
from airside.actors.ingress import Ingress
from airside.actors.intake import Intake
from airside.actors.job_inputs import Fields, InputsReading
from airside.actors.journal.journal import Journal
from airside.actors.memory import Memory
from airside.actors.models.caller import ModelCaller
from airside.actors.policy import Policy
from airside.actors.process.pulse import Where
from airside.actors.rpc import methods as m
from airside.actors.rpc.layer import Layer, LayerConfig
from airside.actors.rpc.methods import (
    METHODS,
    ChainsRequest,
    FeedPage,
    FeedRequest,
    KeeperRequest,
    Method,
    NamedQuery,
    NewsPage,
    NewsRequest,
    OrderReply,
    PresentedJointVote,
    PresentedOrder,
    PresentedQuestion,
    PresentedVote,
    QuestionReply,
    RecentPage,
    RecentRequest,
    Sql,
    TenantSql,
    TrustedGate,
    WaitRequest,
)
from airside.actors.rpc.transport import Address, Channel, Listener
from airside.actors.runtime import RuntimeApp, TenantRuntime
from airside.actors.settings import Settings
from airside.memory.in_memory import HashingEmbedder
from airside.memory.rules import MemoryRules
from airside.stack.approvals.book import ApprovalRequested, Question
from airside.stack.contracts.budget import SpendReply, SpendRequest
from airside.stack.contracts.execution import ExecuteReply, ExecuteRequest
from airside.stack.contracts.gate import GateReply, Proposed
from airside.stack.contracts.memory import Candidate, LearnReply, MemoryStanding, RecallReply, RecallRequest
from airside.stack.contracts.models import ModelReply, ModelRequest, Prompt, ReservedQuestion, ReservedReply
from airside.stack.contracts.streams import WatchPage, WatchRequest
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.ids import ApprovalId, ExecutorId, PrincipalId, RunId, TenantId
from airside.stack.journal.feed import JournalEntry
from airside.stack.journal.journaling import Append, AppendReply, AppendTogether, Entry
from airside.stack.operations.messages import (
    Activation,
    Admit,
    Delivery,
    JointVote,
    JointVoteReply,
    OfferRequest,
    Report,
    Submission,
    Ticket,
    ToolOffer,
    Vote,
    VoteReply,
)
from airside.stack.operations.questions import ChainStanding
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.reasons import MemoryCode, ReasonCode
from airside.stack.recovery.undo_gate import UndoReply, UndoRequest
from airside.stack.values import ApprovalRule, Decision, Spend, ToolResult
from tests import on_wire
from tests.helpers import KEY, RUN, spec
from tests.unit.stack.policy.test_gate import request

ACME = TenantId("acme")
GATE = Gate(
    bundle=load_bundle("version: v1\nrules: [{id: all, outcome: allow}]\n"),
    tools=[spec()],
    seal_key=KEY,
    now_us=lambda: 1,
    random=bytes,
)
ALLOWED = GateReply(
    decision=Decision(outcome="allow", reason_code=ReasonCode.ALLOWED, rule="all", policy_version="v1"), grant=b"g"
)
DIRECTORY = Directory(tenants={"acme": Tenant(principals={"ann": Principal()})})
MESSAGE = msgspec.msgpack.encode


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@dataclass(frozen=True)
class Case:
    """A remote method: its requests, what of its layer handles one, and how a caller knows its no (None: an error)."""

    item: Callable[[int], Any]
    handler: str
    reply: Any
    is_no: Callable[[Any], bool] | None = None
    takes_anything: bool = False
    """Whether two requests are the same, so that none can be poisoned by itself."""


def approval(number: int) -> Question:
    """Return what waits for people."""
    asked = ApprovalRequested(
        at_us=1,
        approval_id=ApprovalId(f"apr_{number}"),
        tenant=TenantId("acme"),
        requester=PrincipalId("ann"),
        run_id=RUN,
        step=number,
        tool="pay",
        tool_version="1",
        policy_version="v1",
        rule="r",
        effect="write",
        arguments=msgspec.Raw(b"{}"),
        terms=ApprovalRule(roles=("boss",)),
        expires_us=2,
    )
    return Question(asked=asked)


def note(number: int) -> Append:
    """Return an append to a stream of its own."""
    entry = Entry(type="Note", step=0, at_us=1, cause=-1, body=b'"x"')
    return Append(tenant=TenantId("acme"), stream=f"s{number}", epoch=0, first_seq=0, entries=(entry,))


def ticket_is_no(ticket: Ticket) -> bool:
    """Whether a ticket is a refusal."""
    return ticket.run_id == "" and ticket.reason_code in ("internal_error", "request_invalid")


def is_not_carried_out(reply: ExecuteReply) -> bool:
    """Whether an executor refuses, or does not know what became of a call."""
    return not reply.result.ok and reply.result.reason_code in ("grant_invalid", "tool_in_doubt")


DONE = ExecuteReply(result=ToolResult(ok=True, output=msgspec.Raw(b"1")))
PLACE = ("node", Where(1, 2, 3, 4, 5, 6, 7))
FED = JournalEntry(
    cursor="j:*:1",
    tenant=ACME,
    number=0,
    stream="s",
    seq=0,
    epoch=0,
    step=0,
    cause=-1,
    at_us=1,
    type="Note",
    body="{}",
)
CASES: dict[Method[Any, Any], Case] = {
    m.SUBMIT: Case(
        lambda n: Submission(credential="c", request=b"{}", nonce=bytes([n])),
        "submit",
        Ticket(run_id=RUN),
        ticket_is_no,
    ),
    m.GIVE_VOTE: Case(lambda n: PresentedVote("c", str(n), "approve"), "give_vote", VoteReply(ok=True)),
    m.GIVE_JOINT_VOTE: Case(
        lambda n: PresentedJointVote("c", (str(n),), "approve"),
        "give_joint_vote",
        JointVoteReply(ok=True, outcomes=("approved",)),
    ),
    m.KEEP: Case(lambda n: KeeperRequest("c", "pin", "acme", str(n)), "keep", b"answer"),
    m.FOLLOW: Case(lambda n: FeedRequest("", 1.0, None, f"c{n}"), "follow", FeedPage((), "j:acme:0")),
    m.WATCH_RUN: Case(
        lambda n: WatchRequest(run_id=RUN, after=0, born="", timeout_s=1.0, credential=f"c{n}"),
        "watch",
        WatchPage(born="one"),
    ),
    m.NEWS: Case(lambda n: NewsRequest(f"c{n}", RUN, 1, 1.0), "news", NewsPage(mark=2)),
    m.OFFER: Case(
        lambda n: OfferRequest(credential=f"c{n}", with_tools=True),
        "offer",
        ToolOffer(tenant=ACME, principal=PrincipalId("ann")),
    ),
    m.OPERATE: Case(
        lambda n: PresentedOrder(f"c{n}", "kill", "run", RUN, "why"), "operate", OrderReply(reached=1, report=b"{}")
    ),
    m.LOOK: Case(lambda n: PresentedQuestion(f"c{n}", "runs", b"{}"), "look", QuestionReply(body=b"[]")),
    m.READ_INPUTS: Case(lambda n: [b'{"n": %d}' % n], "read", [InputsReading(b"{}")]),
    m.INPUT_FIELDS: Case(lambda n: None, "fields", Fields(frozenset(["a"])), takes_anything=True),
    m.ADMIT: Case(
        lambda n: Admit(identity=b"", proof=str(n), request=b"{}"), "admit", Ticket(run_id=RUN), ticket_is_no
    ),
    m.REPORT: Case(lambda n: Report(run_id=RunId(f"run_{n}"), tenant=ACME, epoch=1, state="parked"), "report", True),
    m.DELIVER: Case(lambda n: Delivery(run_id=RunId(f"run_{n}"), event=b"{}"), "_bring", None),
    m.WAIT: Case(lambda n: WaitRequest([f"run_{n}"], 1.0), "wait", m.Ends({"run_1": b"{}"}, 1)),
    m.ORDER: Case(lambda n: bytes([n]), "order", (1, "")),
    m.ROLL_BACK: Case(lambda n: bytes([n]), "roll_back", (b"", "no")),
    m.LIVE: Case(lambda n: None, "live", [(RUN, "acme", "acme/1", True)], takes_anything=True),
    m.SWITCHES: Case(lambda n: None, "switches", [b"{}"], takes_anything=True),
    m.ACTIVATE: Case(lambda n: Activation(run_id=RunId(f"run_{n}"), events=(), epoch=1), "activate", True),
    m.BRING: Case(lambda n: Delivery(run_id=RunId(f"run_{n}"), event=b"{}"), "bring", 7),
    m.DECIDE: Case(
        lambda n: request(step=n),
        "_decided_or_asked",
        ALLOWED,
        lambda reply: reply.decision.outcome == "deny" and reply.decision.reason_code == "policy_error",
    ),
    m.SPEND: Case(
        lambda n: SpendRequest(identity=b"", proof=str(n), run_id=RUN, version="1"),
        "_gate.spend",
        SpendReply(),
        lambda reply: reply.reason_code == "policy_error",
    ),
    m.RESERVED: Case(
        lambda n: ReservedQuestion(identity=b"", proof=str(n), run_id=RUN, version="1", key="k"),
        "_gate.reserved",
        ReservedReply(price=Spend(tokens=1)),
        lambda reply: reply.price is None and reply.reason_code == "policy_error",
    ),
    m.CHECK: Case(lambda n: Proposed(tool=f"t{n}", arguments=b"{}"), "_gate.check", "", lambda problem: problem != ""),
    m.UNDO: Case(
        lambda n: UndoRequest(order=b"", run_id=RUN, step=n, executor=ExecutorId("exe")),
        "undo",
        UndoReply(grant=b"g"),
        lambda reply: reply.grant == b"" and reply.error != "",
    ),
    m.BUDGETS: Case(lambda n: f"t{n}", "budgets", b"[]"),
    m.BUNDLE: Case(lambda n: None, "bundle", "version: v1", takes_anything=True),
    m.CLOSE: Case(lambda n: f"run_{n}", "close", True),
    m.ISSUER: Case(lambda n: None, "issuer", TrustedGate("iss", []), takes_anything=True),
    m.REFRESH: Case(lambda n: None, "refresh", None, takes_anything=True),
    m.RECOUNT: Case(lambda n: None, "recount", None, takes_anything=True),
    m.REQUEST_APPROVAL: Case(approval, "request", None),
    m.VOTE: Case(
        lambda n: Vote(identity=b"", proof=str(n), approval_id=ApprovalId("apr"), verdict="approve"),
        "vote",
        VoteReply(ok=True, outcome="approved"),
        lambda reply: not reply.ok,
    ),
    m.VOTE_JOINTLY: Case(
        lambda n: JointVote(identity=b"", proof=str(n), approval_ids=(ApprovalId("apr"),), verdict="approve"),
        "vote_jointly",
        JointVoteReply(ok=True, outcomes=("approved",)),
        lambda reply: not reply.ok,
    ),
    m.WITHDRAW: Case(lambda n: f"run_{n}", "withdraw", 0),
    m.PENDING: Case(lambda n: f"t{n}", "pending", [b"{}"]),
    m.ASKED: Case(lambda n: f"apr_{n}", "asked", [b"{}"]),
    m.APPEND: Case(note, "_store.commit", AppendReply(verdict="ok"), lambda reply: reply.verdict == "error"),
    m.APPEND_TOGETHER: Case(
        lambda n: AppendTogether(appends=(note(n),)),
        "_store.commit",
        AppendReply(verdict="ok"),
        lambda reply: reply.verdict == "error",
    ),
    m.BODIES: Case(lambda n: [f"run_{n}"], "bodies", {"run_0": ["{}"]}),
    m.ROWS: Case(lambda n: NamedQuery(f"q{n}", (1, [RUN])), "rows", [("a", 1, None)]),
    m.QUERY: Case(lambda n: Sql(f"SELECT {n}", (1.5, "x", b"y", None)), "query", (b"arrow", "")),
    m.QUERY_TENANT: Case(
        lambda n: TenantSql(f"SELECT {n}", (1.5, "x", None), "acme", 5), "query_tenant", (b'{"rows":[]}', "")
    ),
    m.CHAINS: Case(
        lambda n: ChainsRequest(f"t{n}", n == 1), "chains", [ChainStanding(tenant="acme", entries=3, checked=2)]
    ),
    m.VERIFY: Case(lambda n: None, "verify", ["a row was altered"], takes_anything=True),
    m.RECENT: Case(lambda n: RecentRequest("one", n, 1.0), "recent", RecentPage((("acme", RUN),), "one", 7)),
    m.SUBSCRIBE: Case(lambda n: FeedRequest(f"j:*:{n}", 1.0), "subscribe", FeedPage((FED,), "j:*:1")),
    m.RETRIEVE: Case(
        lambda n: RecallRequest(tenant=TenantId("acme"), query=str(n), clearance="public"),
        "retrieve",
        RecallReply(),
        lambda reply: reply.error != "",
    ),
    m.WRITE_IF_USEFUL: Case(
        lambda n: Candidate(tenant=TenantId("acme"), text=str(n), kind="fact", source="s"),
        "write_if_useful",
        LearnReply(code=MemoryCode.STORED),
        lambda reply: reply.code in (MemoryCode.INVALID, MemoryCode.MEMORY_UNAVAILABLE),
    ),
    m.MEMORY_STANDING: Case(lambda n: f"t{n}", "standing", MemoryStanding(live=2)),
    m.MEMORY_ORDER: Case(lambda n: bytes([n]), "order", b"answer"),
    m.WATCH: Case(lambda n: WatchRequest(run_id=RUN, after=n, born="", timeout_s=1.0), "watch", WatchPage(born="one")),
    m.ASK_MODEL: Case(
        lambda n: ModelRequest(
            identity=b"",
            proof=str(n),
            run_id=RUN,
            version="1",
            step=n,
            epoch=1,
            nth=0,
            models=("m",),
            prompt=Prompt(instructions="x", turns=(), tools=(), max_tokens=1),
            timeout_ms=1,
        ),
        "_calls.ask",
        ModelReply(text="hi"),
        lambda reply: reply.reason_code == "model_unavailable",
    ),
    m.EXECUTE: Case(
        lambda n: ExecuteRequest(grant=bytes([n]), arguments=b"{}"),
        "_dispatcher.execute",
        DONE,
        is_not_carried_out,
    ),
    m.ANSWER_OF: Case(lambda n: bytes([n]), "_dispatcher.answer_of", DONE),
    m.RESOLVE: Case(lambda n: bytes([n]), "resolve", b"sealed"),
    m.RELEASE: Case(lambda n: f"run_{n}", "release", True),
    m.INCARNATION: Case(lambda n: None, "incarnation", "exe", takes_anything=True),
    m.TRUST: Case(lambda n: TrustedGate(f"iss{n}", []), "trust", None),
    m.GREET: Case(lambda n: None, "greet", PLACE, takes_anything=True),
}
LAYERS: dict[str, type[Layer]] = {
    "ingress": Ingress,
    "driver": Driver,
    "runtime": TenantRuntime,
    "policy": Policy,
    "approvals": Approvals,
    "journal": Journal,
    "memory": Memory,
    "models": ModelCaller,
    "executor": ToolExecutor,
    "intake": Intake,
}
NAMES = {repr(method): method for method in CASES}
SINGLE = [name for name, method in NAMES.items() if not CASES[method].takes_anything]
UNREADABLE: list[Any] = [b"", b"\xc1\xff", b"\x93\x01\x02\x03", MESSAGE({"run_id": 5})]


def test_every_method_of_the_table_has_one_server_and_is_tested_here() -> None:
    """Its types are ones that travel, and only what names a grant, a run's claim or a question is never sent twice."""
    assert set(CASES) == set(METHODS)
    for module in pkgutil.walk_packages(airside.actors.__path__, "airside.actors."):
        importlib.import_module(module.name)
    kinds = {Layer}
    while (more := kinds | {below for kind in kinds for below in kind.__subclasses__()}) != kinds:
        kinds = more
    for method in METHODS:
        servers = {
            (kind.__module__, kind.__qualname__)  # by name: Ray makes classes of its own of them
            for kind in kinds
            if kind.__module__.startswith("airside.") and "<locals>" not in kind.__qualname__
            if any(getattr(m, "serves", None) and m.serves.method is method for m in vars(kind).values())
        }
        layer = LAYERS[method.layer]
        assert servers == {(layer.__module__, layer.__qualname__)}, method
        assert method.request.decode(method.request.encode(CASES[method].item(1))) == CASES[method].item(1)
        assert pickle.loads(pickle.dumps(method)) is method
    once = {method.name for method in METHODS if not method.retry}
    assert once == {"execute", "answer_of", "resolve", "release", "activate", "bring", "close", "issuer", "greet"}
    assert len({repr(method) for method in METHODS}) == len(METHODS)


@pytest.fixture
async def layer(request: pytest.FixtureRequest, tmp_path: Path) -> Layer:
    """A layer of the case's kind, as if it had started."""
    kind = LAYERS[NAMES[request.param].layer]
    config = LayerConfig(Settings(state_dir=tmp_path), tmp_path, seal_key=KEY)
    made: dict[type[Layer], Callable[[], Layer]] = {
        Ingress: lambda: Ingress(config, DIRECTORY, b""),
        Driver: lambda: Driver(config, DIRECTORY, [], "1", SimpleNamespace()),  # type: ignore[arg-type]
        TenantRuntime: lambda: TenantRuntime(config, RuntimeApp({}, {}, [], False, "1")),
        Policy: lambda: Policy(config, "", [], DIRECTORY),
        Approvals: lambda: Approvals(config),
        Journal: lambda: Journal(config, KEY),
        Memory: lambda: Memory(config, HashingEmbedder, MemoryRules()),
        ModelCaller: lambda: ModelCaller(config, {}, {}, KEY),
        ToolExecutor: lambda: ToolExecutor(config, [], False),
        Intake: lambda: Intake(config, BaseModel),
    }
    it: Any = made[kind]()
    it._started = True
    if kind is Policy:
        it._gate = SimpleNamespace(deny_unreadable=GATE.deny_unreadable, spend=None, check=None, reserved=None)
    if kind is ToolExecutor:
        it._dispatcher = SimpleNamespace(grants=SimpleNamespace(issuer="iss"), execute=None, answer_of=None)
        it._watched = asyncio.Event()
        it._watched.set()
    if kind is ModelCaller:
        it._calls = SimpleNamespace(ask=None)
    if kind is Journal:
        it._store = SimpleNamespace(commit=None, outage="")
        it._feed = SimpleNamespace(note=lambda appends: None)
        it._telemetry = SimpleNamespace(take=lambda appends: 1 / 0)
    return it


def handle_with(layer: Layer, case: Case, poisoned: Callable[[], Any]) -> None:
    """Let the layer's handler answer every request, but call `poisoned` for the second."""
    owner: Any = layer
    *path, name = case.handler.split(".")
    for part in path:
        owner = getattr(owner, part)

    def plainly(item: Any = None) -> Any:
        return poisoned() if item == case.item(2) else case.reply

    async def later(item: Any = None) -> Any:
        return plainly(item)

    def commit(appends: list[Append]) -> list[Any]:
        return [plainly(append) for append in appends]

    is_async = inspect.iscoroutinefunction(getattr(owner, name)) or (
        owner is not layer and isinstance(layer, ToolExecutor)
    )
    setattr(owner, name, commit if name == "commit" else later if is_async else plainly)


async def send(layer: Layer, method: Method[Any, Any], way: str, *items: Any) -> list[Any]:
    """Send encoded requests at once, and return what each of their callers gets: a reply, or an error."""
    if way == "ray":
        return [outcome(method, answer) for answer in await on_wire.answers(layer, method, items)]
    listener = Listener(layer.services)
    with tempfile.TemporaryDirectory() as folder:
        path, secret = await listener.listen(lambda: Path(folder) / "stack")
        channel = await Channel.open("layer", Address("", os.getpid(), path, secret))
        answers = await asyncio.gather(*(channel.ask(method.number, item) for item in items), return_exceptions=True)
        channel.close()
        listener.close()
    return [answer if isinstance(answer, BaseException) else outcome(method, answer) for answer in answers]


def outcome(method: Method[Any, Any], answer: bytes) -> Any:
    """Return the reply or the error that an answer is."""
    try:
        return on_wire.replied(method, answer)
    except (ItemFailed, LayerUnavailable) as error:
        return error


def assert_refused(case: Case, answer: Any) -> None:
    """The poisoned request's caller gets the method's own no, or an error of its own."""
    if case.is_no is None:
        assert isinstance(answer, ItemFailed), answer
    else:
        assert not isinstance(answer, Exception) and case.is_no(answer), answer


WAYS = pytest.mark.parametrize("way", ["ray", "socket"])


@WAYS
@pytest.mark.parametrize("layer", NAMES, indirect=True)
async def test_what_is_no_item_is_refused_and_its_neighbours_are_answered(
    layer: Layer, way: str, request: pytest.FixtureRequest
) -> None:
    method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[method]
    handle_with(layer, case, lambda: case.reply)
    for poison in UNREADABLE:
        encode = method.request.encode
        first, refused, last = await send(layer, method, way, encode(case.item(1)), poison, encode(case.item(3)))
        assert first == last == (True if case.handler == "_bring" else case.reply)
        assert_refused(case, refused)


def _raise(error: BaseException) -> Any:
    raise error


@WAYS
@pytest.mark.parametrize("layer", SINGLE, indirect=True)
@pytest.mark.parametrize(
    "error",
    [
        Unspeakable(),
        ValueError("caf\udce9"),
        StopIteration(1),
        RecursionError(),
        asyncio.CancelledError("by itself"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_item_whose_handler_raises_is_refused_and_its_neighbours_are_answered(
    layer: Layer, way: str, error: BaseException, request: pytest.FixtureRequest
) -> None:
    method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[method]
    handle_with(layer, case, lambda: _raise(error))
    first, refused, last = await send(layer, method, way, *(method.request.encode(case.item(n)) for n in (1, 2, 3)))
    assert first == last == (True if case.handler == "_bring" else case.reply)
    assert_refused(case, refused)


@WAYS
@pytest.mark.parametrize("layer", [name for name in SINGLE if CASES[NAMES[name]].handler != "_bring"], indirect=True)
async def test_an_item_whose_answer_cannot_be_encoded_is_refused_and_its_neighbours_are_answered(
    layer: Layer, way: str, request: pytest.FixtureRequest
) -> None:
    method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[method]
    for unfit in (object(), "caf\udce9", [lambda: None]):
        handle_with(layer, case, lambda unfit=unfit: unfit)  # type: ignore[misc]
        first, refused, last = await send(layer, method, way, *(method.request.encode(case.item(n)) for n in (1, 2, 3)))
        assert first == last == (True if case.handler == "_bring" else case.reply)
        assert_refused(case, refused)


@WAYS
@pytest.mark.parametrize("layer", [name for name in SINGLE if not name.startswith("journal.append")], indirect=True)
async def test_an_item_that_another_layer_did_not_answer_is_unavailable_and_its_neighbours_are_answered(
    layer: Layer, way: str, request: pytest.FixtureRequest
) -> None:
    method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[method]
    handle_with(layer, case, lambda: _raise(LayerUnavailable("journal: away")))
    first, away, last = await send(layer, method, way, *(method.request.encode(case.item(n)) for n in (1, 2, 3)))
    assert first == last == (True if case.handler == "_bring" else case.reply)
    assert isinstance(away, LayerUnavailable) and "journal: away" in away.message
