"""The list methods of every layer, without Ray: whatever one item of a batch does, its neighbours are answered."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import airside.actors
from airside.actors.approvals import Approvals
from airside.actors.driver import Driver
from airside.actors.executor import ToolExecutor
from airside.actors.ingress import Ingress
from airside.actors.journal import Journal
from airside.actors.layer import Layer, LayerConfig
from airside.actors.memory import Memory
from airside.actors.policy import Policy
from airside.actors.runtime import RuntimeApp, TenantRuntime
from airside.actors.settings import Settings
from airside.actors.stubs import Remote
from airside.memory.local import HashingEmbedder
from airside.memory.rules import MemoryRules
from airside.stack.approvals import ApprovalRequested
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.events import ApprovalDecided
from airside.stack.gate import Gate, GateReply, Proposed
from airside.stack.ids import ApprovalId, ExecutorId, PrincipalId, RunId, TenantId
from airside.stack.journaling import Append, AppendReply, Entry
from airside.stack.messages import Activation, Admit, Delivery, Report, Submission, Ticket, Vote, VoteReply
from airside.stack.metering import SpendReply, SpendRequest
from airside.stack.policy import load_bundle
from airside.stack.ports import Candidate, ExecuteReply, ExecuteRequest, LearnReply, RecallReply, RecallRequest
from airside.stack.reasons import MemoryCode, ReasonCode
from airside.stack.undoing import UndoReply, UndoRequest
from airside.stack.values import ApprovalRule, Decision, ToolResult
from tests.helpers import KEY, RUN, spec
from tests.test_gate import request

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
MESSAGE, JSON = msgspec.msgpack.encode, msgspec.json.encode


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@dataclass(frozen=True)
class Case:
    """A list method: its items, its handler, and how a caller knows its answer and its no (None: an error)."""

    item: Callable[[int], Any]
    handler: str
    reply: Any
    answer: type[Any]
    is_no: Callable[[Any], bool] | None = None
    encode: Callable[[Any], bytes] = MESSAGE
    in_json: bool = False
    takes_any_bytes: bool = False
    is_plain: bool = False


def approval(number: int) -> ApprovalRequested:
    """Return what waits for people."""
    return ApprovalRequested(
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
        binding="b",
        terms=ApprovalRule(roles=("boss",)),
        expires_us=2,
    )


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
CASES: dict[tuple[type[Layer], str], Case] = {
    (Ingress, "submit"): Case(
        lambda n: Submission(credential="c", request=b"{}", nonce=bytes([n])),
        "_submitted",
        Ticket(run_id=RUN),
        Ticket,
        ticket_is_no,
    ),
    (Driver, "admit"): Case(
        lambda n: Admit(identity=b"", proof=str(n), request=b"{}"),
        "_admitted",
        Ticket(run_id=RUN),
        Ticket,
        ticket_is_no,
    ),
    (Driver, "report"): Case(
        lambda n: Report(run_id=RunId(f"run_{n}"), tenant=TenantId("acme"), state="parked"), "_reported", True, bool
    ),
    (Driver, "deliver"): Case(
        lambda n: Delivery(run_id=RunId(f"run_{n}"), event=b"{}"), "_delivered", True, bool, is_plain=True
    ),
    (TenantRuntime, "activate"): Case(
        lambda n: Activation(run_id=RunId(f"run_{n}"), events=()), "_activated", True, bool, is_plain=True
    ),
    (TenantRuntime, "deliver"): Case(
        lambda n: Delivery(run_id=RunId(f"run_{n}"), event=b"{}"), "_delivered", True, bool, is_plain=True
    ),
    (Policy, "decide"): Case(
        lambda n: request(step=n),
        "_decided",
        ALLOWED,
        GateReply,
        lambda reply: reply.decision.outcome == "deny" and reply.decision.reason_code == "policy_error",
    ),
    (Policy, "spend"): Case(
        lambda n: SpendRequest(identity=b"", proof=str(n), run_id=RUN, version="1"),
        "_gate.spend",
        SpendReply(),
        SpendReply,
        lambda reply: reply.reason_code == "policy_error",
    ),
    (Policy, "check"): Case(
        lambda n: Proposed(tool=f"t{n}", arguments=b"{}"), "_gate.check", "", str, lambda problem: problem != ""
    ),
    (Policy, "undo"): Case(
        lambda n: UndoRequest(order=b"", run_id=RUN, step=n, executor=ExecutorId("exe")),
        "_undone",
        UndoReply(grant=b"g"),
        UndoReply,
        lambda reply: reply.grant == b"" and reply.error != "",
    ),
    (Policy, "close"): Case(lambda n: f"run_{n}", "_closed", True, bool),
    (Approvals, "request"): Case(
        approval,
        "_requested",
        None,
        ApprovalDecided | None,
        encode=JSON,
        in_json=True,  # type: ignore[arg-type]
    ),
    (Approvals, "vote"): Case(
        lambda n: Vote(identity=b"", proof=str(n), approval_id=ApprovalId("apr"), verdict="approve"),
        "_voted",
        VoteReply(ok=True, outcome="approved"),
        VoteReply,
        lambda reply: not reply.ok,
    ),
    (Journal, "append"): Case(
        note, "_store.commit", AppendReply(verdict="ok"), AppendReply, lambda reply: reply.verdict == "error"
    ),
    (Memory, "retrieve"): Case(
        lambda n: RecallRequest(tenant=TenantId("acme"), query=str(n), clearance="public"),
        "_recalled",
        RecallReply(),
        RecallReply,
        lambda reply: reply.error != "",
    ),
    (Memory, "write_if_useful"): Case(
        lambda n: Candidate(tenant=TenantId("acme"), text=str(n), kind="fact", source="s"),
        "_learned",
        LearnReply(code=MemoryCode.STORED),
        LearnReply,
        lambda reply: reply.code in (MemoryCode.INVALID, MemoryCode.MEMORY_UNAVAILABLE),
    ),
    (ToolExecutor, "execute"): Case(
        lambda n: ExecuteRequest(grant=bytes([n]), arguments=b"{}"),
        "_dispatcher.execute",
        DONE,
        ExecuteReply,
        is_not_carried_out,
        in_json=True,
    ),
    (ToolExecutor, "answers"): Case(
        lambda n: bytes([n]),
        "_dispatcher.answer_of",
        DONE,
        ExecuteReply | None,  # type: ignore[arg-type]
        encode=bytes,
        in_json=True,
        takes_any_bytes=True,
    ),
    (ToolExecutor, "resolve"): Case(
        lambda n: bytes([n]),
        "_resolved",
        b"sealed",
        bytes,
        encode=bytes,
        takes_any_bytes=True,
    ),
    (ToolExecutor, "release"): Case(lambda n: f"run_{n}", "_released", True, bool),
}
NAMES = {f"{kind.__name__}.{method}": (kind, method) for kind, method in CASES}
UNREADABLE: list[Any] = [b"", b"\xc1\xff", b"\x93\x01\x02\x03", MESSAGE({"run_id": 5}), None, 5, "text", [b"x"], {}]


def test_every_list_method_of_every_layer_is_in_the_table() -> None:
    for module in pkgutil.iter_modules(airside.actors.__path__):
        importlib.import_module(f"airside.actors.{module.name}")
    kinds = {Layer}
    while (more := kinds | {below for kind in kinds for below in kind.__subclasses__()}) != kinds:
        kinds = more
    found = {
        (kind, name)
        for kind in kinds
        if kind.__module__.startswith("airside.")
        for name, method in vars(kind).items()
        if not name.startswith("_") and inspect.iscoroutinefunction(method)
        if "batch" in inspect.signature(method).parameters and kind is not Layer
    }
    assert found == set(CASES)


@pytest.fixture
async def layer(request: pytest.FixtureRequest, tmp_path: Path) -> Layer:
    """A layer of the case's kind, as if it had started."""
    kind, _ = NAMES[request.param]
    config = LayerConfig(Settings(state_dir=tmp_path), tmp_path, seal_key=KEY)
    made: dict[type[Layer], Callable[[], Layer]] = {
        Ingress: lambda: Ingress(config, DIRECTORY, b""),
        Driver: lambda: Driver(config, DIRECTORY, [], "1", SimpleNamespace()),  # type: ignore[arg-type]
        TenantRuntime: lambda: TenantRuntime(config, RuntimeApp({}, {}, [], False, "1")),
        Policy: lambda: Policy(config, "", [], DIRECTORY),
        Approvals: lambda: Approvals(config),
        Journal: lambda: Journal(config, KEY),
        Memory: lambda: Memory(config, HashingEmbedder, MemoryRules()),
        ToolExecutor: lambda: ToolExecutor(config, [], False),
    }
    it: Any = made[kind]()
    it._started = True
    if kind is Policy:
        it._gate = SimpleNamespace(unreadable=GATE.unreadable, spend=None, check=None)
    if kind is ToolExecutor:
        it._dispatcher = SimpleNamespace(issuer="iss", execute=None, answer_of=None)
        it._watched = asyncio.Event()
        it._watched.set()
    if kind is Journal:
        it._store = SimpleNamespace(commit=None)
        it._telemetry = SimpleNamespace(take=lambda appends: 1 / 0)
    return it


def handle_with(layer: Layer, case: Case, poisoned: Callable[[], Any]) -> None:
    """Let the layer's handler answer every item, but call `poisoned` for the second."""
    owner: Any = layer
    *path, name = case.handler.split(".")
    for part in path:
        owner = getattr(owner, part)

    def plainly(item: Any) -> Any:
        return poisoned() if item == case.item(2) else case.reply

    async def later(item: Any) -> Any:
        return plainly(item)

    def commit(appends: list[Append]) -> list[Any]:
        return [plainly(append) for append in appends]

    is_async = inspect.iscoroutinefunction(getattr(owner, name)) or isinstance(layer, ToolExecutor)
    setattr(owner, name, commit if name == "commit" else later if is_async else plainly)


async def send(layer: Layer, method: str, case: Case, *items: Any) -> list[Any]:
    """Send items in one batch, and return what each of their callers gets: an answer, or an error."""
    batches: list[int] = []

    class Here(Remote):
        async def call(self, name: str, *args: Any) -> Any:
            """Call the layer in this process, with what travels as Ray would pass it."""
            if name == method:
                batches.append(len(args[0]))
            return await getattr(layer, name)(*args)

    remote = Here(Settings(), "layer")
    call: Callable[[Any], Awaitable[Any]]
    if case.is_plain:
        call = remote.batched(method)
    else:
        call = remote.coalesced(method, case.answer, insist=False, encoder=lambda item: item, json_reply=case.in_json)
    answers = await asyncio.gather(*(call(item) for item in items), return_exceptions=True)
    assert batches == [len(items)], "they travelled together"
    return answers


def assert_refused(case: Case, answer: Any) -> None:
    """The poisoned item's caller gets the method's own no, or an error of its own."""
    if case.is_no is None:
        assert isinstance(answer, ItemFailed), answer
    else:
        assert isinstance(answer, case.answer) and case.is_no(answer), answer


@pytest.mark.parametrize("layer", NAMES, indirect=True)
async def test_what_is_no_item_is_refused_and_its_neighbours_are_answered(
    layer: Layer, request: pytest.FixtureRequest
) -> None:
    kind, method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[kind, method]
    handle_with(layer, case, lambda: case.reply)
    for poison in UNREADABLE:
        if case.takes_any_bytes and isinstance(poison, bytes):
            continue
        first, refused, last = await send(
            layer, method, case, case.encode(case.item(1)), poison, case.encode(case.item(3))
        )
        assert first == last == case.reply
        assert_refused(case, refused)


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("layer", NAMES, indirect=True)
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
    layer: Layer, error: BaseException, request: pytest.FixtureRequest
) -> None:
    kind, method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[kind, method]
    handle_with(layer, case, lambda: _raise(error))
    first, refused, last = await send(layer, method, case, *(case.encode(case.item(n)) for n in (1, 2, 3)))
    assert first == last == case.reply
    assert_refused(case, refused)


@pytest.mark.parametrize("layer", [name for name, key in NAMES.items() if not CASES[key].is_plain], indirect=True)
async def test_an_item_whose_answer_cannot_be_encoded_is_refused_and_its_neighbours_are_answered(
    layer: Layer, request: pytest.FixtureRequest
) -> None:
    kind, method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[kind, method]
    for unfit in (object(), "caf\udce9", [lambda: None]):
        handle_with(layer, case, lambda unfit=unfit: unfit)  # type: ignore[misc]
        first, refused, last = await send(layer, method, case, *(case.encode(case.item(n)) for n in (1, 2, 3)))
        assert first == last == case.reply
        assert_refused(case, refused)


@pytest.mark.parametrize("layer", [name for name in NAMES if name != "Journal.append"], indirect=True)
async def test_an_item_that_another_layer_did_not_answer_is_unavailable_and_its_neighbours_are_answered(
    layer: Layer, request: pytest.FixtureRequest
) -> None:
    kind, method = NAMES[request.node.callspec.params["layer"]]
    case = CASES[kind, method]
    handle_with(layer, case, lambda: _raise(LayerUnavailable("journal: away")))
    first, away, last = await send(layer, method, case, *(case.encode(case.item(n)) for n in (1, 2, 3)))
    assert first == last == case.reply
    assert isinstance(away, LayerUnavailable) and "journal: away" in away.message
