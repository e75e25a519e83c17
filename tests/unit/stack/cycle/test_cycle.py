"""`Cycle`: what comes from outside while a step is in flight never makes it lose what is outstanding."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.errors import ItemFailed, LayerUnavailable
from airside.stack.ids import PrincipalId, RunId, child_run
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import FunctionAgent, ReplayAgent, View
from airside.stack.run.machine import RunMachine
from airside.stack.run.spans import spans_of
from airside.stack.run.state import Phase
from airside.stack.run.topology import Branch, Done, FanOut, FanOutFanIn, Route, SingleAgent, Topology, TopologyState
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Action, Finish, Limits, Outcome, Request, Usage
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.tool import tool
from tests.helpers import EXECUTOR, KEY, RUN, identity


class Journal(InMemoryJournal):
    """A journal that lets a test act while an append that holds a given event is being written."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Any] = {}

    async def append(self, append: Append) -> AppendReply:
        await asyncio.sleep(0)
        for entry in append.entries:
            act = self.before.pop(entry.type, None)
            if act is not None:
                await act()
        return self.append_now(append)


class World:
    """One run of an app with one tool, in process."""

    def __init__(self, agent: Any, topology: Topology | None = None) -> None:
        self.paid: list[int] = []

        def pay(amount: int) -> int:
            self.paid.append(amount)
            return amount

        paying = tool(effect="write")(pay)
        self.journal, self.spawned = Journal(), 0
        self.tools = InMemoryTools(
            lambda: Dispatcher(
                [paying],
                seal_key=KEY,
                executor_id=EXECUTOR,
                now_us=lambda: 0,
                in_threads=False,
                journal=self.journal.append,
            )
        )
        count = iter(range(10_000))
        gate = Gate(
            bundle=load_bundle("version: v1\nrules: [{id: all, outcome: allow}]\n"),
            tools=[paying.spec],
            seal_key=KEY,
            now_us=lambda: 0,
            random=lambda n: next(count).to_bytes(n, "big"),
        )
        layers = CyclePorts(
            journal=self.journal,
            policy=InMemoryPolicy(gate),
            tools=self.tools,
            approvals=InMemoryApprovals(KEY, lambda: 0),
            memory=None,
            agents={"a": agent},
            routes={"default": topology or SingleAgent("a"), "x": SingleAgent("a")},
            specs=[paying.spec],
            now_us=lambda: 0,
            spawn=self.spawn,
        )
        who = identity()
        submitted = ev.RunSubmitted(
            at_us=0,
            run_id=RUN,
            identity=who,
            sealed=seal_identity(KEY, who, run_subject(RUN)),
            request=Request(text="go", job_id="r-1", inputs=Raw(b'{"actions":[{"tool":"pay","args":{"amount":3}}]}')),
            limits=Limits(),
            app_version="1",
        )
        machine = RunMachine(submitted)
        instructions = machine.handle(ev.RunActivated(at_us=0, epoch=1))
        self.cycle = Cycle(machine, layers, durable=0)
        for event in machine.events:
            self.cycle.log.record(event)
        self.first = instructions

    @property
    def phase(self) -> Phase:
        """The run's phase."""
        return self.cycle.machine.state.phase

    async def spawn(self, cycle: Cycle, i: do.SpawnChildren) -> None:
        self.spawned += 1

    async def kill(self) -> None:
        """Kill the run."""
        await self.cycle.deliver(ev.KillRequested(at_us=0, by="op", why="x"))

    async def run(self) -> None:
        """Advance until the run waits or is over."""
        await self.cycle.advance(self.first)


async def test_a_replayed_call_goes_through_every_layer_and_is_journaled() -> None:
    world = World(ReplayAgent())
    await world.run()
    assert world.phase is Phase.COMPLETED and world.paid == [3]
    assert [entry.type for entry in world.journal.streams[RUN]][-1] == "RunEnded"
    replayed = RunMachine.replay(ev.decode_event(body) for body in world.journal.bodies_of(RUN))
    assert replayed.state.outcome == world.cycle.machine.state.outcome


async def test_the_end_says_which_job_it_is_of() -> None:
    world = World(ReplayAgent())
    await world.run()
    assert msgspec.json.decode(world.journal.bodies_of(RUN)[-1])["job_id"] == "r-1"


async def test_an_agent_is_given_the_trace_context_of_the_decision_it_is_asked_for() -> None:
    """It is that of the span that the run's events make of the decision, when they are read again too."""
    seen: list[str] = []

    def agent(view: View) -> Action | Finish:
        seen.append(view.traceparent)
        assert seen[-1] == view.traceparent
        return Action(tool="pay", arguments={"amount": 3}) if len(seen) == 1 else Finish(answer="done")

    world = World(FunctionAgent(agent))
    await world.cycle.advance(world.first)
    read = [ev.decode_event(body) for body in world.journal.bodies_of(RUN)]
    decisions = [span for span in spans_of(read) if span.name == "decide"]
    assert len(set(seen)) == 2
    assert seen == [f"00-{span.trace_id}-{span.span_id}-01" for span in decisions]


async def test_a_kill_does_not_wait_for_an_agent_that_thinks() -> None:
    async def thinks(view: Any) -> Finish:
        await world.kill()
        await asyncio.Event().wait()
        return Finish()

    world = World(FunctionAgent(thinks))
    await world.run()
    assert world.phase is Phase.KILLED and world.paid == []


async def test_a_kill_between_the_intent_and_the_call_stops_the_call() -> None:
    world = World(ReplayAgent())
    world.journal.before["ActionGated"] = world.kill
    await world.run()
    assert world.phase is Phase.KILLED and world.paid == []


async def test_a_kill_while_the_run_concludes_does_not_keep_it_from_ending() -> None:
    world = World(FunctionAgent(lambda view: Finish(answer=1)))
    world.journal.before["RoutePlanned"] = None
    done = asyncio.Event()

    async def when_concluding() -> None:
        if world.phase is Phase.CONCLUDING and not done.is_set():
            done.set()
            await world.kill()
        elif not done.is_set():
            for name in ("RoutePlanned", "StepDecided"):
                world.journal.before[name] = when_concluding

    for name in ("RunSubmitted", "RoutePlanned", "StepDecided"):
        world.journal.before[name] = when_concluding
    await world.run()
    assert done.is_set()
    assert world.phase is Phase.COMPLETED


async def test_a_kill_while_the_tools_are_released_does_not_keep_the_run_from_ending() -> None:
    world = World(FunctionAgent(lambda view: Finish(answer=1)))

    async def release(run_id: RunId) -> None:
        await world.kill()
        await asyncio.sleep(0)

    world.tools.release = release  # type: ignore[method-assign]
    await world.run()
    assert world.phase is Phase.COMPLETED


@pytest.mark.parametrize("error", [LayerUnavailable("gone"), ItemFailed("no reply that can be read")])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_call_whose_answer_is_lost_is_asked_about_whatever_went_wrong(error: Exception, is_known: bool) -> None:
    """It may have happened: it is in doubt unless its executor can say so."""
    world = World(ReplayAgent())
    execute, answer_of = world.tools.execute, world.tools.answer_of

    async def unsteady(run_id: RunId, request: Any) -> Any:
        await execute(run_id, request)
        raise error

    async def fails(run_id: RunId, grant: bytes) -> Any:
        raise error

    world.tools.execute = unsteady  # type: ignore[method-assign]
    world.tools.answer_of = answer_of if is_known else fails  # type: ignore[method-assign]
    await world.run()
    assert world.paid == [3] and world.phase is (Phase.COMPLETED if is_known else Phase.ENDED_IN_DOUBT)


async def test_a_branch_that_ends_while_the_others_are_being_started_does_not_stop_that() -> None:
    world = World(ReplayAgent(), FanOutFanIn(("x", "x")))

    async def first_ends() -> None:
        ended = ev.ChildEnded(
            at_us=0,
            step=1,
            branch=0,
            run_id=child_run(RUN, 1, 0),
            outcome=Outcome(status="completed", reason_code=ReasonCode.COMPLETED),
            usage=Usage(),
        )
        await world.cycle.deliver(ended)

    world.journal.before["RoutePlanned"] = first_ends
    await world.run()
    assert world.phase is Phase.AWAITING_CHILDREN and world.spawned == 1


async def test_a_cancel_in_a_step_is_told_as_the_owners() -> None:
    async def thinks(view: Any) -> Finish:
        await world.cycle.deliver(ev.CancelRequested(at_us=0, by=PrincipalId("ann")))
        await asyncio.Event().wait()
        return Finish()

    world = World(FunctionAgent(thinks))
    await world.run()
    assert world.phase is Phase.CANCELLED


class Says(SingleAgent):
    """A topology that answers by itself."""

    def __init__(self, route: Route) -> None:
        super().__init__("a")
        self._route = route

    def next_step(self, state: TopologyState) -> Route:
        """Return what it was made with."""
        return self._route


@pytest.mark.parametrize(
    "route",
    [
        Done(answer=float("nan")),
        Done(answer={"a": {1, 2}}),
        FanOut(branches=(Branch(route="x", text="t", inputs=Raw(b'{"a":1,"a":2}')),)),
        FanOut(branches=(Branch(route="x", text="t", inputs=Raw(b"NaN")),)),
    ],
    ids=["no number", "a set", "a key twice", "no number in inputs"],
)
async def test_what_a_topology_says_must_be_json(route: Route) -> None:
    world = World(ReplayAgent(), Says(route))
    await world.run()
    assert world.phase is Phase.FAILED
