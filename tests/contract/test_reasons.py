"""Every `ReasonCode` can be reached, by the way this table gives for it, and `status_of` knows what becomes of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.actors.driver.driver import Driver
from airside.actors.driver.fleet import Fleet
from airside.actors.driver.kill_switches import KillSwitchService
from airside.actors.ingress import Ingress
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import ADMIT, SUBMIT
from airside.actors.runtime import RuntimeApp
from airside.actors.settings import Settings
from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.contracts.models import ModelReply, ModelRequest
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy, InMemoryResolvers
from airside.stack.directory import Directory, load_directory
from airside.stack.errors import AuthRefused, LayerUnavailable
from airside.stack.ids import ExecutorId, PrincipalId, RequestId, RunId, child_run
from airside.stack.issuers import OidcIssuer
from airside.stack.models.agent import ModelAgent
from airside.stack.operations.messages import Admit, Submission, Ticket
from airside.stack.policy.bundle import Bundle, load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.policy.lookups import Lookups
from airside.stack.reasons import ReasonCode, RunStatus, reason_of, status_of
from airside.stack.resources import ResolverTerms
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import AgentNondeterministic, FunctionAgent, View, priced
from airside.stack.run.machine import RunMachine
from airside.stack.run.topology import FanOutFanIn, Handoffs, SingleAgent, Topology
from airside.stack.scheduling.admission import AdmissionQueue, TenantShare
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.access import NoAccess, reach
from airside.stack.security.authenticator import Authenticator, issue_token
from airside.stack.security.identity import IdentityChecker, run_subject, seal_identity
from airside.stack.security.issuer_keys import keys_of
from airside.stack.values import Action, ApprovalRule, Finish, Handoff, Limits, Outcome, Request, Spend, Usage
from airside.tools.circuit_breakers import FAILURES
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.runners.outcomes import InputNeeded, ToolQuarantined
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.tool import Tool, ToolError, Toolset, tool
from tests import on_wire
from tests.helpers import EXECUTOR, KEY, RUN, granted, identity
from tests.oidc_issuer import AUDIENCE, Signer
from tests.unit.stack.security.test_authenticator import DIRECTORY, NOW, OTHER, SIGNER, pem_of, public_of, token

R = ReasonCode
Way = Callable[[], Coroutine[Any, Any, ReasonCode]]

ALLOW = "version: v1\nrules: [{id: all, outcome: allow}]\n"
OWN = "version: v1\nrules: [{id: own, outcome: allow, when: {resource: {kind: page, owner: principal}}}]\n"
ASK = """
version: v1
rules: [{id: ask, outcome: require_approval, approval: {roles: [boss], expires_after_s: 1}}]
"""


# The tools a run may call.


@tool(effect="write")
def pay(amount: int) -> int:
    """Move money."""
    return amount


@tool(effect="write")
def lose(amount: int) -> int:
    """Lose the answer after the effect."""
    raise ConnectionError("reset")


@tool(effect="read", resource=("page", "amount"))
def look(amount: int) -> str:
    """Look something up."""
    return "x" * amount


@tool(effect="read", timeout=0.001)
async def slow(amount: int) -> int:
    """Never answer."""
    await asyncio.Event().wait()
    return amount


@tool(effect="read")
def refuse(amount: int) -> int:
    """Answer with an error."""
    raise ToolError("no")


@tool(effect="read")
def odd(amount: int) -> object:
    """Answer with what is not JSON."""
    return object()


@tool(effect="read")
def moved(amount: int) -> int:
    """Be offered no more."""
    return amount


@tool(effect="read", secrets=("token",))
def login(amount: int) -> int:
    """Need what nobody has."""
    return amount


@tool(effect="read", sandbox=SandboxLimits(readonly=("/not/there",)))
def boxed(amount: int) -> int:
    """Run in a sandbox that cannot be made."""
    return amount


@tool(effect="read")
def strange(amount: int) -> int:
    """Be of another server."""
    return amount


@tool(effect="read")
def away(amount: int) -> int:
    """Not answer at present."""
    raise ToolError("busy", retry_after_s=1)


def _wonder(amount: int) -> int:
    raise InputNeeded("it asks", question=b'{"question":"Why?"}', kept=b"null")


wonder = Tool(
    ToolSpec.build(
        name="wonder",
        effect="read",
        parameters=look.spec.parameters,
        asks=ApprovalRule(roles=("boss",), answer=True),
    ),
    _wonder,
    dict,
)
TOOLS: list[Tool] = [pay, lose, look, slow, refuse, odd, login, away, wonder, boxed, moved, strange]
EMPTY = Toolset("empty", (moved,), open=lambda context: None, offers=lambda state: [])


def offered_by_another(state: object) -> list[Tool]:
    """Offer nothing: the server is another."""
    raise ToolQuarantined("it is another server")


ANOTHER = Toolset("another", (strange,), open=lambda context: None, offers=offered_by_another)


class NoTools(InMemoryTools):
    """Tools without an executor."""

    async def executor_for(self, run_id: RunId) -> ExecutorId:
        """Find none."""
        raise LayerUnavailable("there is no executor")


class BrokenPolicy:
    """A policy with a bug."""

    async def decide(self, request: GateRequest) -> GateReply:
        """Fail in a way nobody foresaw."""
        raise KeyError("a bug")


class NoMemory:
    """A memory that is down."""

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Not answer."""
        raise LayerUnavailable("memory is down")

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Not answer."""
        raise LayerUnavailable("memory is down")


class World:
    """One run, in process: the real cycle, gate and dispatcher over local ports."""

    def __init__(
        self,
        agent: Callable[[View], Any],
        *,
        policy: str = ALLOW,
        limits: Limits | None = None,
        topology: Topology | None = None,
        ticks: Iterator[int] | None = None,
        layers: dict[str, Any] | None = None,
    ) -> None:
        clock = ticks or repeat(0)
        self.approvals = InMemoryApprovals(KEY, lambda: 0)
        made = CyclePorts(
            **(local_ports(load_bundle(policy)) | {"now_us": lambda: next(clock)} | (layers or {})),
            approvals=self.approvals,
            agents={"a": FunctionAgent(agent)},
            routes={"default": topology or SingleAgent("a"), "x": SingleAgent("a")},
            specs=[made.spec for made in TOOLS],
            spawn=self._spawn,
        )
        who = identity()
        submitted = ev.RunSubmitted(
            at_us=0,
            run_id=RUN,
            identity=who,
            sealed=seal_identity(KEY, who, run_subject(RUN)),
            request=Request(text="go"),
            limits=limits or Limits(),
            app_version="1",
        )
        machine = RunMachine(submitted)
        self._first = machine.handle(ev.RunActivated(at_us=0, epoch=1))
        self.cycle = Cycle(machine, made, durable=0)
        for event in machine.events:
            self.cycle.log.record(event)

    async def _spawn(self, cycle: Cycle, i: do.SpawnChildren) -> None:
        """End every branch at once, as failed."""
        for branch in range(len(i.branches)):
            ended = Outcome(status="failed", reason_code=R.AGENT_ERROR)
            run_id = child_run(RUN, i.step, branch)
            cycle.post(ev.ChildEnded(at_us=0, step=i.step, branch=branch, run_id=run_id, outcome=ended, usage=Usage()))

    async def run(self) -> World:
        """Advance until the run waits or is over."""
        await self.cycle.advance(self._first)
        return self

    @property
    def reason(self) -> ReasonCode:
        """Why it ended; its status must be the reason's."""
        outcome = self.cycle.machine.state.outcome
        assert outcome is not None, self.cycle.machine.story()
        assert outcome.status == status_of(outcome.reason_code)
        return outcome.reason_code


def local_ports(bundle: Bundle, spending: BudgetReservations | None = None) -> dict[str, Any]:
    """Return the journal, the gate over `bundle`, the tools, and no memory."""
    numbers = count()
    gate = Gate(
        bundle=bundle,
        tools=[made.spec for made in TOOLS],
        seal_key=KEY,
        now_us=lambda: 0,
        random=lambda n: next(numbers).to_bytes(n, "big"),
        spending=spending,
    )
    return {
        "journal": InMemoryJournal(),
        "policy": InMemoryPolicy(gate),
        "tools": InMemoryTools(dispatcher),
        "memory": None,
    }


def with_lookups(bundle: Bundle) -> dict[str, Any]:
    """Return the ports with resolvers that know of nothing."""
    ports = local_ports(bundle)
    terms = {"page": ResolverTerms(timeout_ms=1000, cache_ms=0)}
    lookups = Lookups(InMemoryResolvers(KEY, lambda: 0), terms, seal_key=KEY, issuer="", now_us=lambda: 0)
    return {**ports, "policy": InMemoryPolicy(ports["policy"]._gate, lookups)}


def dispatcher() -> Dispatcher:
    """Return an executor with the tools."""
    return Dispatcher(
        [*TOOLS[:-2], EMPTY, ANOTHER], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, in_threads=False
    )


# The ways.


def ends(agent: Callable[[View], Any], **world: Any) -> Way:
    """A run of this agent ends with the reason."""

    async def way() -> ReasonCode:
        return (await World(agent, **world).run()).reason

    return way


def calls(name: str, amount: Any = 1, *, spend: Spend | None = None, same: bool = True) -> Callable[[View], Any]:
    """Return an agent that calls a tool again and again."""

    def agent(view: View) -> Action:
        more = 0 if same else len(view.history)
        return Action(tool=name, arguments={"amount": amount + more if more else amount}, spend=spend or Spend())

    return agent


def told(name: str, amount: int = 1) -> Way:
    """The agent is told the reason of a call's end, and the run goes on."""

    async def way() -> ReasonCode:
        def agent(view: View) -> Any:
            return Finish(answer=1) if view.history else Action(tool=name, arguments={"amount": amount})

        world = await World(agent).run()
        assert world.reason is R.COMPLETED
        return world.cycle.machine.state.history[0].result.reason_code

    return way


async def called_again() -> ReasonCode:
    """A tool that does not answer is not called for a while."""
    executor = dispatcher()
    for number in range(FAILURES + 1):
        request = granted(away.spec, b'{"amount":1}', nonce=str(number).encode(), key=f"k{number}")
        reply = await executor.execute(request)
    return reply.result.reason_code


class NoModels:
    """A model caller that no model answers."""

    async def ask(self, request: ModelRequest) -> ModelReply:
        return ModelReply(reason_code=R.MODEL_UNAVAILABLE, error="busy")


def goes_another_way(view: View) -> Any:
    """Find that it is not where it was when it was asked before."""
    raise AgentNondeterministic("another way")


async def asks_a_model(view: View) -> Any:
    """Decide as a model says."""
    return await ModelAgent("m", "be brief").decide(view)


async def told_by_a_switch() -> ReasonCode:
    """An operator has switched everything off."""
    ports = local_ports(load_bundle(ALLOW))
    thrown = KillSwitchChanged(at_us=0, scope="all", target="", off=True, by=PrincipalId("op"))
    ports["policy"]._gate.switches.apply(thrown)
    return (await World(calls("look"), layers=ports).run()).reason


def decided(verdict: str) -> Way:
    """A person says so, or nobody does."""

    async def way() -> ReasonCode:
        world = await World(calls("pay"), policy=ASK, limits=Limits(max_rejections=0)).run()
        book = world.approvals.book
        if verdict == "expired":
            event: Any = book.due(10**12)[0]
        else:
            boss = identity(principal=PrincipalId("bob"), roles=("boss",))
            event = book.vote(boss, book.pending()[0].request.approval_id, "reject", now_us=0)
        answer = world.approvals.apply(event)
        assert answer is not None
        await world.cycle.deliver(answer)
        return world.reason

    return way


def told_to(event: ev.Event) -> Way:
    """Somebody outside ends it while its agent thinks."""

    async def way() -> ReasonCode:
        async def thinks(view: View) -> Finish:
            await world.cycle.deliver(event)
            await asyncio.Event().wait()
            return Finish()

        world = World(thinks)
        return (await world.run()).reason

    return way


def gated(reason: str) -> Way:
    """The gate decides so."""

    async def way() -> ReasonCode:
        world = World(calls("pay"))
        await world.run()
        events = [e for e in world.cycle.machine.events if isinstance(e, ev.ActionGated)]
        assert events[0].decision.rule == reason
        return events[0].decision.reason_code

    return way


def dispatched(*requests: Any) -> Way:
    """An executor answers the last request so."""

    async def way() -> ReasonCode:
        executor = dispatcher()
        replies = [await executor.execute(request) for request in requests]
        return replies[-1].result.reason_code

    return way


def authenticated(credential: Any) -> Way:
    """The authenticator refuses the credential so."""

    async def way() -> ReasonCode:
        with pytest.raises(AuthRefused) as caught:
            Authenticator(load_directory(DIRECTORY), public_of(SIGNER)).identify(credential, NOW)
        return reason_of(caught.value.reason)

    return way


async def of_an_issuer_without_keys() -> ReasonCode:
    """The keys of the token's issuer were never had."""
    signer = Signer("https://sso.example")
    entry = OidcIssuer(issuer=signer.issuer, audience=AUDIENCE, algorithms=["RS256"], tenant="acme")
    directory = load_directory(DIRECTORY).model_copy(update={"oidc": {"corp": entry}})
    auth = Authenticator(directory, public_of(SIGNER), keys_of(directory.oidc, lambda: 0.0))
    with pytest.raises(AuthRefused) as caught:
        auth.identify(signer.token(NOW), NOW)
    return reason_of(caught.value.reason)


async def narrowed_away() -> ReasonCode:
    """The table of access refuses what a token's scope leaves out."""
    caller = Authenticator(load_directory(DIRECTORY), public_of(SIGNER)).caller(token(scope="memory"), NOW)
    denied = reach("submit", caller, None)
    assert isinstance(denied, NoAccess)
    return reason_of(denied.code)


CONFIG = LayerConfig(Settings(), Path("unused"), seal_key=KEY)


async def invalid_request() -> ReasonCode:
    """Ingress refuses what breaks the contract of a request."""
    ingress = Ingress(CONFIG, load_directory(DIRECTORY), public_of(SIGNER))
    credential = issue_token(pem_of(SIGNER), tenant="acme", principal="ann", now_s=int(time.time()))
    item = msgspec.msgpack.encode(Submission(credential=credential, request=b'{"text": 5}', nonce=b"n"))
    return reason_in(await on_wire.answers(ingress, SUBMIT, [item]))


class LoneDriver(Driver):
    """A driver whose every queue is full, without a journal or a fleet."""

    async def start(self) -> None:
        """Make what admission needs."""
        self._identities = IdentityChecker(self.config.seal_key)
        self._admit_message = msgspec.msgpack.Decoder(Admit).decode
        self._placement.queue = AdmissionQueue(lambda tenant: TenantShare(queue=0), 1)
        self._kill_switches = KillSwitchService(None, None, tenants=(), tools=())  # type: ignore[arg-type]


def admitted(route: str) -> Way:
    """The driver refuses to admit the request."""

    async def way() -> ReasonCode:
        directory: Directory = load_directory(DIRECTORY)
        fleet = Fleet(CONFIG, RuntimeApp({}, {}, [], False, "1"))
        driver = LoneDriver(CONFIG, directory, ["default"], "1", fleet)
        who = identity()
        request = msgspec.json.encode(Request(text="go", route=route, request_id=RequestId("req_" + "0" * 24)))
        admit = Admit(
            identity=msgspec.msgpack.encode(who), proof=seal_identity(KEY, who, run_subject(RUN)), request=request
        )
        return reason_in(await on_wire.answers(driver, ADMIT, [msgspec.msgpack.encode(admit)]))

    return way


def reason_in(answers: list[bytes]) -> ReasonCode:
    """Return the reason in the one ticket."""
    ticket = msgspec.msgpack.decode(answers[0], type=Ticket)
    assert ticket.reason_code is not None and not ticket.run_id and ticket.message
    return ticket.reason_code


async def thinks_for_ever(view: View) -> Any:
    """Wait for what never comes."""
    await asyncio.Event().wait()


def raises(view: View) -> Any:
    """Have a bug."""
    raise ZeroDivisionError("a bug")


GRANTED = granted(pay.spec, b'{"amount":1}', tool_version=pay.spec.version)
NEWER = granted(pay.spec, b'{"amount":1}', epoch=2, nonce=b"nonce-000002")
RUNAWAY = ev.KillRequested(at_us=0, by="driver", why="x", reason_code=R.KILLED_RUNAWAY)
LATE = ev.KillRequested(at_us=0, by="driver", why="x", reason_code=R.DEADLINE_EXCEEDED)
BAD_NUMBER = """
version: v1
rules: [{id: a, outcome: allow, when: {arguments: [{path: amount, op: starts_with, value: x}]}}]
"""

WAYS: dict[ReasonCode, Way] = {
    R.COMPLETED: ends(lambda view: Finish(answer=1)),
    R.ALLOWED: gated("all"),
    R.AUTH_FAILED: authenticated(token().rpartition(".")[0] + ".A"),
    R.AUTH_MALFORMED: authenticated("not a token"),
    R.AUTH_UNTRUSTED: authenticated(token(header={"alg": "none", "kid": "local"})),
    R.AUTH_BAD_SIGNATURE: authenticated(token(key=OTHER)),
    R.AUTH_EXPIRED: authenticated(token(exp=NOW - 100)),
    R.AUTH_NOT_YET_VALID: authenticated(token(nbf=NOW + 100)),
    R.AUTH_CLAIM_MISSING: authenticated(token(exp=None)),
    R.AUTH_KEYS_UNAVAILABLE: of_an_issuer_without_keys,
    R.AUTH_SCOPE_MISSING: narrowed_away,
    R.AUTH_UNKNOWN_KEY: authenticated("ask_nobody"),
    R.PRINCIPAL_UNKNOWN: authenticated(token(sub="eve")),
    R.TENANT_UNKNOWN: authenticated(token(tenant="nobody")),
    R.ADMISSION_REJECTED: admitted("default"),
    R.REQUEST_INVALID: invalid_request,
    R.SWITCHED_OFF: told_by_a_switch,
    R.UNKNOWN_ROUTE_MODE: admitted("nowhere"),
    R.POLICY_DENIED: ends(calls("pay"), policy="version: v1\nrules: [{id: never, outcome: deny}]\n"),
    R.POLICY_ERROR: ends(calls("pay"), policy=BAD_NUMBER),
    R.RESOURCE_UNKNOWN: ends(calls("look"), layers=with_lookups(load_bundle(OWN))),
    R.RESOURCE_UNAVAILABLE: ends(calls("look"), policy=OWN),
    R.APPROVAL_REJECTED: decided("rejected"),
    R.APPROVAL_EXPIRED: decided("expired"),
    R.TOOL_UNKNOWN: ends(calls("nothing")),
    R.TOOL_INVALID_ARGUMENTS: ends(calls("pay", "much")),
    R.TOOL_TIMEOUT: told("slow"),
    R.TOOL_FAILED: told("refuse"),
    R.TOOL_OUTPUT_INVALID: told("odd"),
    R.TOOL_IN_DOUBT: ends(calls("lose")),
    R.TOOL_UNAVAILABLE: ends(calls("pay"), layers={"tools": NoTools(dispatcher)}),
    R.TOOL_CHANGED: told("moved"),
    R.SECRET_UNAVAILABLE: told("login"),
    R.TOOL_ASKS: dispatched(granted(wonder.spec, b'{"amount":1}')),
    R.TOOL_QUARANTINED: told("strange"),
    R.SANDBOX_REQUIRED: ends(
        calls("pay"), policy="version: v1\nrules: [{id: boxed, outcome: allow, require: sandbox}]\n"
    ),
    R.SANDBOX_UNAVAILABLE: told("boxed"),
    R.CIRCUIT_OPEN: called_again,
    R.GRANT_INVALID: dispatched(GRANTED, GRANTED),
    R.GRANT_STALE: dispatched(NEWER, GRANTED),
    R.PRICE_UNKNOWN: ends(calls("look", spend=Spend(tokens=2))),
    R.PRICE_EXCEEDED: ends(priced(tokens=1)(calls("look", spend=Spend(tokens=2)))),
    R.MAX_STEPS: ends(calls("look"), limits=Limits(max_steps=1)),
    R.MAX_SECONDS: ends(calls("look"), limits=Limits(max_seconds=1), ticks=count(step=400_000)),
    R.MAX_TOKENS: ends(calls("look", spend=Spend(tokens=2)), limits=Limits(max_tokens=1)),
    R.BUDGET_EXHAUSTED: ends(
        calls("look", same=False),
        layers=local_ports(load_bundle(ALLOW), BudgetReservations((), {"acme": [Cap(unit="tool_calls", limit=2)]})),
    ),
    R.MAX_TOOL_CALLS: ends(calls("look"), limits=Limits(max_tool_calls=1)),
    R.MAX_COST: ends(calls("look", spend=Spend(cost_microusd=2)), limits=Limits(max_cost_microusd=1)),
    R.MAX_OUTPUT: ends(calls("look", 100), limits=Limits(max_output_bytes=50)),
    R.MAX_HANDOFFS: ends(lambda view: Handoff(agent="a"), limits=Limits(max_handoffs=1), topology=Handoffs("a")),
    R.MAX_DEPTH: ends(calls("look"), limits=Limits(max_depth=0), topology=FanOutFanIn(("x",))),
    R.LOOP_DETECTED: ends(calls("look"), limits=Limits(max_repeats=2)),
    R.DEADLINE_EXCEEDED: told_to(LATE),
    R.CANCELLED: told_to(ev.CancelRequested(at_us=0, by=PrincipalId("ann"))),
    R.KILLED_BY_OPERATOR: told_to(ev.KillRequested(at_us=0, by="op", why="x")),
    R.KILLED_RUNAWAY: told_to(RUNAWAY),
    R.AGENT_ERROR: ends(raises),
    R.AGENT_TIMEOUT: ends(thinks_for_ever, limits=Limits(decide_ms=1)),
    R.AGENT_INVALID_ACTION: ends(lambda view: 5),
    R.AGENT_NONDETERMINISTIC: ends(goes_another_way),
    R.MODEL_UNAVAILABLE: ends(asks_a_model, layers={"models": NoModels()}),
    R.MEMORY_UNAVAILABLE: ends(calls("look"), layers={"memory": NoMemory()}),
    R.CHILD_FAILED: ends(calls("look"), topology=FanOutFanIn(("x", "x"))),
    R.INTERNAL_ERROR: ends(calls("pay"), layers={"policy": BrokenPolicy()}),
}
"""How each is reached."""


def test_the_table_has_every_reason() -> None:
    assert set(WAYS) == set(ReasonCode)


@pytest.mark.parametrize("reason", list(ReasonCode), ids=str)
async def test_a_reason_is_reached(reason: ReasonCode) -> None:
    async with asyncio.timeout(10):
        assert await WAYS[reason]() is reason


@pytest.mark.parametrize("reason", list(ReasonCode), ids=str)
def test_a_reason_says_what_it_means(reason: ReasonCode) -> None:
    assert reason.sentence.endswith(".") and reason_of(reason.value) is reason
    assert isinstance(status_of(reason), RunStatus)
