"""Several reads of one decision, under way at once: nobody waits for another, and nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from airside.stack.budget.ledger import Cap
from airside.stack.budget.reservations import BudgetReservations
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import PrincipalId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.provenance.tracer import Tracer
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import SingleAgent
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Action, Finish, Limits, Request
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.tool import tool
from tests.helpers import EXECUTOR, KEY, RUN, identity

POLICY = """
version: v1
rules:
  - {id: all, outcome: allow, when: {scopes: [read]}}
  - {id: no-seven, outcome: deny, when: {arguments: [{path: n, op: eq, value: 7}]}}
"""


class Policy(InMemoryPolicy):
    """A gate that keeps what it was asked, and is away for some calls."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate)
        self.asked: list[GateRequest] = []

    async def decide(self, request: GateRequest) -> GateReply:
        self.asked.append(request)
        await asyncio.sleep(0)
        return await super().decide(request)


class Journal(InMemoryJournal):
    """A journal that takes its time, and may be gone."""

    gone = False

    async def append(self, append: Append) -> AppendReply:
        await asyncio.sleep(0)
        if self.gone:
            raise LayerUnavailable("the journal is gone")
        return self.append_now(append)


class World:
    """One run whose agent proposes some reads at once, and finishes with what they returned."""

    def __init__(
        self, numbers: Sequence[int], look: Callable[[int], Awaitable[Any]], *, budget: int = 0, **limits: int
    ) -> None:
        async def reading(n: int) -> Any:
            return await look(n)

        looking = tool(effect="read", scopes=["read"], name="look")(reading)
        self.journal, self.views = Journal(), list[View]()
        count = iter(range(10_000))
        gate = Gate(
            bundle=load_bundle(POLICY),
            tools=[looking.spec],
            seal_key=KEY,
            now_us=lambda: 0,
            random=lambda n: next(count).to_bytes(n, "big"),
            spending=BudgetReservations((), {"acme": (Cap(unit="tool_calls", limit=budget),)} if budget else {}),
        )
        self.policy = Policy(gate)
        self.tools = InMemoryTools(
            lambda: Dispatcher([looking], seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, in_threads=False)
        )

        def decide(view: View) -> Any:
            self.views.append(view)
            if not view.history:
                return [Action(tool="look", arguments={"n": n}) for n in numbers]
            return Finish(answer=[[r.step, r.arguments["n"], r.result.ok] for r in view.history])

        layers = CyclePorts(
            journal=self.journal,
            policy=self.policy,
            tools=self.tools,
            approvals=InMemoryApprovals(KEY, lambda: 0),
            memory=None,
            agents={"a": FunctionAgent(decide)},
            routes={"default": SingleAgent("a")},
            specs=[looking.spec],
            now_us=lambda: 0,
            spawn=self._spawn,
        )
        who = identity()
        submitted = ev.RunSubmitted(
            at_us=0,
            run_id=RUN,
            identity=who,
            sealed=seal_identity(KEY, who, run_subject(RUN)),
            request=Request(text="go"),
            limits=Limits(**({"max_tool_calls": 64} | limits)),
            app_version="1",
        )
        machine = RunMachine(submitted)
        self.first = machine.handle(ev.RunActivated(at_us=0, epoch=1))
        self.cycle = Cycle(machine, layers, durable=0)
        for event in machine.events:
            self.cycle.log.record(event)

    async def _spawn(self, *_: Any) -> None:
        raise AssertionError("there are no branches")

    @property
    def phase(self) -> Phase:
        """The run's phase."""
        return self.cycle.machine.state.phase

    def outcome(self) -> Any:
        """The run's outcome, as its journal alone has it."""
        events = [ev.decode_event(body) for body in self.journal.bodies_of(RUN)]
        replayed = RunMachine.replay(events)
        replayed.check()
        assert replayed.state.outcome == self.cycle.machine.state.outcome
        return replayed.state.outcome

    async def run(self) -> None:
        """Advance to the end, and see that nothing outlives it."""
        await self.cycle.advance(self.first)
        assert asyncio.all_tasks() == {asyncio.current_task()}


class Meeting:
    """A read that returns when as many others have come as are expected: one after the other, none would."""

    def __init__(self, expected: int) -> None:
        self.left, self.all_here, self.all_but_one, self.stopped = expected, asyncio.Event(), asyncio.Event(), 0

    async def __call__(self, n: int) -> int:
        self.left -= 1
        if self.left == 1:
            self.all_but_one.set()
        if self.left == 0:
            self.all_here.set()
        try:
            await self.all_here.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return n


@pytest.mark.parametrize("count", [2, 5, 50])
async def test_reads_are_under_way_at_once_and_told_in_their_order(count: int) -> None:
    world = World(range(100, 100 + count), Meeting(count))
    await world.run()
    outcome = world.outcome()
    assert outcome.reason_code is ReasonCode.COMPLETED
    assert bytes(outcome.answer).decode().count("true") == count and len(world.views) == 2
    steps = [record.step for record in world.views[1].history]
    assert steps == list(range(1, count + 1)) and world.views[1].step == count + 1


async def test_all_are_gated_by_what_the_agent_knew() -> None:
    """The labels are those of the decision, whichever read is back first."""
    world = World([1, 2, 3], Meeting(3))
    await world.run()
    assert [request.step for request in world.policy.asked] == [1, 2, 3]
    assert {request.labels for request in world.policy.asked} == {()}
    assert world.views[1].labels == {"untrusted"}


async def test_others_have_their_turn_between_the_traces_of_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked through for one call holds the loop; for many it would hold it as often as there are."""
    turn, traced, trace = 0, list[int](), Tracer.trace

    def tracing(*given: Any) -> Any:
        traced.append(turn)
        return trace(*given)

    async def count() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    monkeypatch.setattr(Tracer, "trace", tracing)
    world = World(range(100, 150), Meeting(50))
    counting = asyncio.ensure_future(count())
    await world.cycle.advance(world.first)
    counting.cancel()
    assert world.outcome().reason_code is ReasonCode.COMPLETED
    assert len(traced) == 50 and len(set(traced)) == 50


@pytest.mark.parametrize("kind", [ev.KillRequested, ev.CancelRequested])
async def test_a_stop_stops_all_of_them_at_once(kind: Any) -> None:
    meeting = Meeting(4)
    world = World([1, 2, 3], meeting)

    async def stop() -> None:
        await meeting.all_but_one.wait()
        world.cycle.post(kind(at_us=0, by=PrincipalId("op"), why="x"))

    stopping = asyncio.ensure_future(stop())
    await world.run()
    assert stopping.done() and world.phase in (Phase.KILLED, Phase.CANCELLED)
    assert world.outcome().in_doubt == () and len(world.views) == 1


@pytest.mark.parametrize("kind", [ev.KillRequested, ev.CancelRequested])
@pytest.mark.parametrize(
    ("numbers", "limits"),
    [([1, 2, 3], {}), ([1, 7, 3], {}), ([1, 2, 3, 7], {}), ([5000, 5001, 5002], {"max_output_bytes": 6000})],
    ids=["well", "denied", "denied-last", "too-much"],
)
async def test_a_stop_in_any_turn_of_the_loop_ends_the_run(kind: Any, numbers: list[int], limits: Any) -> None:
    """In the turn, too, in which a read ends it."""

    async def look(n: int) -> str:
        await asyncio.sleep(0)
        return "x" * n

    for turns in itertools.count(1):
        world = World(numbers, look, **limits)
        running = asyncio.ensure_future(world.cycle.advance(world.first))
        for _ in range(turns):
            await asyncio.sleep(0)
        if running.done():
            break
        await world.cycle.deliver(kind(at_us=0, by=PrincipalId("op"), why="x"))
        await running
        assert world.cycle.machine.is_over, turns
        assert world.outcome() is not None and asyncio.all_tasks() == {asyncio.current_task()}
    assert turns > 5


async def test_a_read_that_is_cancelled_by_what_it_calls_gives_the_activation_up() -> None:
    async def look(n: int) -> int:
        return n

    world = World([1, 2, 3], look)
    execute, calls = world.tools.execute, itertools.count(1)

    async def cancels(run_id: Any, request: Any) -> Any:
        if next(calls) == 2:
            raise asyncio.CancelledError
        return await execute(run_id, request)

    world.tools.execute = cancels  # type: ignore[method-assign]
    running = asyncio.ensure_future(world.cycle.advance(world.first))
    await asyncio.wait([running])
    assert running.cancelled() and world.phase is Phase.READING


async def test_a_read_that_raises_harms_no_other() -> None:
    async def look(n: int) -> int:
        if n == 2:
            raise RuntimeError("poisoned")
        await asyncio.sleep(0)
        return n

    world = World([1, 2, 3], look)
    await world.run()
    assert bytes(world.outcome().answer) == b"[[1,1,true],[2,2,false],[3,3,true]]"


async def test_a_denied_read_is_told_with_the_others() -> None:
    world = World([1, 7, 3], Meeting(2), max_refusals=1)
    await world.run()
    assert bytes(world.outcome().answer) == b"[[1,1,true],[2,7,false],[3,3,true]]"


async def test_a_denial_that_ends_the_run_stops_the_others() -> None:
    world = World([7, 1, 2], Meeting(3))
    await world.run()
    assert world.outcome().reason_code is ReasonCode.POLICY_DENIED and len(world.views) == 1


async def test_a_read_whose_answer_is_lost_is_made_again_when_the_others_are_back() -> None:
    asked: list[int] = []

    async def look(n: int) -> int:
        asked.append(n)
        return n

    world = World([1, 2, 3], look)
    lost, execute = [2], world.tools.execute

    async def unsteady(run_id: Any, request: Any) -> Any:
        reply = await execute(run_id, request)
        if lost and asked[-1] == lost[0]:
            lost.pop()
            raise LayerUnavailable("the answer is lost")
        return reply

    async def nothing(*_: Any) -> None:
        return None

    world.tools.execute, world.tools.answer_of = unsteady, nothing  # type: ignore[method-assign]
    await world.run()
    assert asked == [1, 2, 3, 2]
    assert bytes(world.outcome().answer) == b"[[1,1,true],[2,2,true],[3,3,true]]"
    assert world.cycle.machine.state.usage.tool_calls == 3


async def test_reads_that_use_up_a_shared_budget_begin_when_that_is_on_record() -> None:
    """A gate that is restarted counts from the journal; what is over the budget ends the run, and the reads with it."""

    async def look(n: int) -> int:
        written = [ev.decode_event(body) for body in world.journal.bodies_of(RUN)]
        assert any(isinstance(event, ev.ActionGated) and event.step == n for event in written)
        return n

    world = World([1, 2, 3], look, budget=3)
    await world.run()
    assert bytes(world.outcome().answer) == b"[[1,1,true],[2,2,true],[3,3,true]]"
    world = World([1, 2, 3], Meeting(3), budget=2)
    await world.run()
    assert world.outcome().reason_code is ReasonCode.BUDGET_EXHAUSTED


async def test_a_layer_that_breaks_its_contract_ends_the_run_and_all_reads() -> None:
    world = World([1, 2, 3], Meeting(4))

    async def broken(run_id: Any, request: Any) -> Any:
        raise ZeroDivisionError("broken")

    world.tools.execute = broken  # type: ignore[method-assign]
    await world.run()
    assert world.outcome().reason_code is ReasonCode.INTERNAL_ERROR


async def test_an_activation_that_is_given_up_leaves_no_read_behind() -> None:
    meeting = Meeting(4)
    world = World([1, 2, 3], meeting)
    task = asyncio.ensure_future(world.cycle.advance(world.first))
    await meeting.all_but_one.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and world.phase is Phase.READING
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_journal_that_is_gone_ends_the_activation_and_leaves_no_read_behind() -> None:
    world = World([1, 2, 3], Meeting(3))
    advance = asyncio.ensure_future(world.cycle.advance(world.first))
    world.journal.gone = True
    with pytest.raises(LayerUnavailable):
        await advance
    assert asyncio.all_tasks() == {asyncio.current_task()}
