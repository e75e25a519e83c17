"""The same agent in each framework, and a run of it in one process that can be stopped at any point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from airside.adapters.foreign import ForeignAgent, Parts
from airside.adapters.langgraph import LangGraphAgent
from airside.adapters.openai_agents import OpenAIAgent
from airside.adapters.pydantic_ai import PydanticAIAgent
from airside.stack.contracts.models import Prompt, RequestedCall, ReservedQuestion
from airside.stack.contracts.models import ReservedReply as Reserved
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.models.calls import ModelCalls
from airside.stack.models.endpoints import TokenPrice
from airside.stack.models.provider import ProviderAnswer
from airside.stack.models.rate_limits import RateLimits
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.run import events as ev
from airside.stack.run.machine import RunMachine
from airside.stack.run.topology import SingleAgent, Topology
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Limits, Outcome, Request
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.tool import ToolContext, tool
from tests.helpers import EXECUTOR, KEY, RUN, identity

INSTRUCTIONS = "You help customers of a shop."
RATES = TokenPrice(input=1.0, output=10.0)

ALLOW = "version: v1\nrules: [{id: all, outcome: allow}]\n"
DENY = "version: v1\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]\n"
ASK = """
version: v1
rules:
  - {id: refunds, outcome: require_approval, approval: {roles: [lead]}, when: {tool: [refund]}}
  - {id: reads, outcome: allow, when: {effect: [read]}}
"""


def pydantic_ai_agent(parts: Parts) -> Any:
    """Return the agent of Pydantic AI."""
    from pydantic_ai import Agent

    return Agent(parts.model, tools=parts.tools, instructions=INSTRUCTIONS)


def langgraph_agent(parts: Parts) -> Any:
    """Return the agent of LangGraph: a graph of a model and a `ToolNode`."""
    from langchain_core.messages import SystemMessage
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = parts.model.bind_tools(parts.tools)

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage(INSTRUCTIONS), *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode(parts.tools))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")
    return graph.compile()


def openai_agent(parts: Parts) -> Any:
    """Return the agent of the OpenAI Agents SDK."""
    from agents import Agent

    return Agent(name="clerk", instructions=INSTRUCTIONS, model=parts.model, tools=parts.tools)


FRAMEWORKS: dict[str, Callable[[], ForeignAgent]] = {
    "pydantic_ai": lambda: PydanticAIAgent(pydantic_ai_agent, "house", max_prompt_bytes=8_000),
    "langgraph": lambda: LangGraphAgent(langgraph_agent, "house", max_prompt_bytes=8_000),
    "openai_agents": lambda: OpenAIAgent(openai_agent, "house", max_prompt_bytes=8_000),
}


def says(text: str = "", **calls: dict[str, Any]) -> ProviderAnswer:
    """Return an answer with calls, of tools by name; `find_order_2` is a second one of `find_order`."""
    made = tuple(
        RequestedCall(tool=name.removesuffix("_2"), arguments=msgspec.json.encode(arguments).decode(), call_id="call_1")
        for name, arguments in calls.items()
    )
    finish = "tool_call" if made else "stop"
    return ProviderAnswer(text=text, calls=made, finish=finish, model="m", input_tokens=40, output_tokens=10)  # type: ignore[arg-type]


REFUND = {"order_id": "o-7", "cents": 1200}
TASK = [says(find_order={"order_id": "o-7"}), says(refund=REFUND), says("You get your money back.")]
"""What the model says to the customer who wants the money of an order back."""


class ScriptedModel:
    """Says the next of a list for each turn that the conversation has had."""

    def __init__(self, sayings: list[ProviderAnswer], point: Callable[[str], Any]) -> None:
        self.provider = "openai"
        self.rates = RATES
        self.prices = "own"
        self.limits = RateLimits(requests=None, tokens=None, concurrency=8, now_s=lambda: 0.0, sleep=asyncio.sleep)
        self.sayings = sayings
        self.prompts: list[Prompt] = []
        self._point = point

    async def ask(self, prompt: Prompt, max_tokens: int, timeout_s: float) -> ProviderAnswer:
        """Answer."""
        self.prompts.append(prompt)
        await self._point("model")
        return self.sayings[sum(turn.role == "assistant" for turn in prompt.turns)]

    def told(self) -> list[str]:
        """Return what calls returned, as the model was last told it."""
        return [turn.text for turn in self.prompts[-1].turns if turn.role == "tool"]


class FaultyJournal(InMemoryJournal):
    """A journal in which nothing of a process that died arrives any more."""

    def __init__(self, point: Callable[[str], Any]) -> None:
        super().__init__()
        self.dead_epoch = 0
        self._point = point

    async def append(self, append: Append) -> AppendReply:
        """Keep the entries, before and after which the process may die."""
        if append.stream != RUN:
            return self.append_now(append)
        await self._point("before an append")
        if append.epoch <= self.dead_epoch:
            raise LayerUnavailable("its process is gone")
        reply = self.append_now(append)
        await self._point("after an append")
        return reply


class World:
    """A run of one agent on a gate, an executor, people and a model caller that outlive the runtime's process.

    The process dies at the points numbered in `crashes`.
    """

    def __init__(
        self,
        agent: ForeignAgent,
        sayings: list[ProviderAnswer] = TASK,
        *,
        policy: str = ALLOW,
        limits: Limits | None = None,
        crashes: frozenset[int] = frozenset(),
        edit: dict[str, Any] | None = None,
        topology: Topology | None = None,
    ) -> None:
        self.points = 0
        self.crashes = crashes
        self.activations = 0
        self.effects: dict[str, dict[str, Any]] = {}
        self.found: list[str] = []
        self._edit = edit
        self._topology = topology or SingleAgent("clerk")
        self._running: asyncio.Task[None] | None = None
        self.journal = FaultyJournal(self._point)
        self.model = ScriptedModel(sayings, self._point)
        self.approvals = InMemoryApprovals(KEY, lambda: 0)
        self._limits = limits or Limits()
        self._layers = self._ports(agent.priced_by({"house": RATES}), policy)
        self.machine = self._first()

    def _ports(self, agent: ForeignAgent, policy: str) -> CyclePorts:
        @tool(effect="read", trusted_output=True)
        def find_order(order_id: str) -> dict[str, Any]:
            """Return an order."""
            self.found.append(order_id)
            return {"order_id": order_id, "state": "lost"}

        @tool(effect="write", idempotent=True)
        async def refund(order_id: str, cents: int, context: ToolContext) -> dict[str, Any]:
            """Give money back."""
            await self._point("tool")
            assert self.effects.setdefault(context.idempotency_key, {"order_id": order_id, "cents": cents})
            return {"refunded": cents}

        tools = [find_order, refund]
        numbers = iter(range(1_000_000))
        gate = Gate(
            bundle=load_bundle(policy),
            tools=[each.spec for each in tools],
            seal_key=KEY,
            now_us=lambda: 0,
            random=lambda n: next(numbers).to_bytes(n, "big"),
        )

        async def reserved(question: ReservedQuestion) -> Reserved:
            return gate.reserved(question)

        def executor() -> Dispatcher:
            return Dispatcher(
                tools,
                seal_key=KEY,
                executor_id=EXECUTOR,
                now_us=lambda: 0,
                in_threads=False,
                journal=self.journal.append,
            )

        calls = ModelCalls(
            {"house": self.model},
            reserved=reserved,
            append=self.journal.append,
            bodies=self.journal.bodies,
            now_us=lambda: 0,
            now_s=lambda: 0.0,
            sleep=asyncio.sleep,
        )
        return CyclePorts(
            journal=self.journal,
            policy=InMemoryPolicy(gate),
            tools=InMemoryTools(executor),
            approvals=self.approvals,
            memory=None,
            agents={"clerk": agent},
            routes={"default": self._topology},
            specs=[each.spec for each in tools],
            now_us=lambda: 1,
            spawn=lambda cycle, i: asyncio.sleep(0),
            models=calls,
        )

    def _first(self) -> RunMachine:
        who = identity(roles=("clerk",), limits=self._limits)
        submitted = ev.RunSubmitted(
            at_us=0,
            run_id=RUN,
            identity=who,
            sealed=seal_identity(KEY, who, run_subject(RUN)),
            request=Request(text="Order o-7 never came. I want my money back."),
            limits=self._limits,
            app_version="1",
        )
        return RunMachine(submitted)

    async def _point(self, where: str) -> None:
        """Be where the process may die."""
        self.points += 1
        if self.points in self.crashes and self._running is not None:
            self.journal.dead_epoch = self.activations
            self._running.cancel()
            await asyncio.sleep(0)

    async def run(self) -> Outcome:
        """Play the run, in one process after another, until it is over."""
        while not self.machine.is_over:
            await self._activate()
            if self.machine.is_parked:
                self._decide()
        assert self.machine.state.outcome is not None
        return self.machine.state.outcome

    async def _activate(self) -> None:
        self.activations += 1
        written = self.journal.bodies_of(RUN)
        machine = RunMachine.replay(map(ev.decode_event, written)) if written else self._first()
        self.machine, durable = machine, len(written)
        instructions = machine.handle(ev.RunActivated(at_us=0, epoch=self.activations, claim=str(self.activations)))
        cycle = Cycle(machine, self._layers, durable=durable)
        for event in machine.events[durable:]:
            cycle.log.record(event)
        self._running = asyncio.ensure_future(cycle.advance(instructions))
        try:
            await self._running
        except (asyncio.CancelledError, LayerUnavailable):
            assert self.journal.dead_epoch == self.activations
            for _ in range(50):  # what was under way in other processes ends
                await asyncio.sleep(0)
            written = self.journal.bodies_of(RUN)
            self.machine = RunMachine.replay(map(ev.decode_event, written)) if written else self._first()
        finally:
            self._running = None

    def _decide(self) -> None:
        """Have people decide about what waits."""
        lead = identity(principal=PrincipalId("lea"), roles=("lead",))
        for pending in self.approvals.book.pending():
            verdict = "approve" if self._edit is None else "edit"
            arguments = None if self._edit is None else Raw(msgspec.json.encode(self._edit))
            vote = self.approvals.book.vote(lead, pending.request.approval_id, verdict, now_us=0, arguments=arguments)
            self.approvals.apply(vote)  # type: ignore[arg-type]
