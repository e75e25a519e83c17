"""A call whose tool says that it may go well later is gated and sent again, under one key, a few times at most."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.errors import InvalidConfig
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.run.calls import MAX_SENDS
from airside.stack.run.intents import call_history
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import SingleAgent
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Action, Finish, Limits, Request, ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.tool import Tool, ToolContext, ToolError, tool
from tests.helpers import EXECUTOR, KEY, RUN, identity

ALLOW = "version: v1\nrules: [{id: all, outcome: allow}]\n"


def later(seconds: float) -> ToolError:
    """Return what a tool raises that is busy."""
    return ToolError("busy", retry_after_s=seconds)


class World:
    """One run whose agent proposes calls of one tool, which does in turn what `does` says, and then answers."""

    def __init__(
        self,
        *does: Exception | None,
        numbers: Sequence[int] = (1,),
        effect: str = "read",
        limits: Limits | None = None,
        **options: Any,
    ) -> None:
        self.does, self.calls, self.pauses = list(does), list[tuple[int, str, int]](), list[float]()
        self.views: list[View] = []

        async def act(n: int, context: ToolContext) -> int:
            self.calls.append((n, context.idempotency_key, context.attempt))
            error = self.does.pop(0) if self.does else None
            if error is not None:
                raise error
            return n

        acting: Tool = tool(name="act", effect=effect, **options)(act)  # type: ignore[arg-type]
        self.journal = InMemoryJournal()
        count = iter(range(10_000))

        def gate(policy: str) -> Gate:
            return Gate(
                bundle=load_bundle(policy),
                tools=[acting.spec],
                seal_key=KEY,
                now_us=lambda: 0,
                random=lambda n: next(count).to_bytes(n, "big"),
            )

        self.gate, self.policy = gate, InMemoryPolicy(gate(ALLOW))

        def decide(view: View) -> Any:
            self.views.append(view)
            if not view.history:
                return [Action(tool="act", arguments={"n": n}) for n in numbers]
            return Finish(answer=[each.result.ok for each in view.history])

        self.layers = CyclePorts(
            journal=self.journal,
            policy=self.policy,
            tools=InMemoryTools(
                lambda: Dispatcher(
                    [acting],
                    seal_key=KEY,
                    executor_id=EXECUTOR,
                    now_us=lambda: 0,
                    in_threads=False,
                    journal=self.journal.append,
                )
            ),
            approvals=InMemoryApprovals(KEY, lambda: 0),
            memory=None,
            agents={"a": FunctionAgent(decide)},
            routes={"default": SingleAgent("a")},
            specs=[acting.spec],
            now_us=lambda: 0,
            spawn=self._spawn,
            pause=self.pause,
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
        self.first = machine.handle(ev.RunActivated(at_us=0, epoch=1))
        self.cycle = Cycle(machine, self.layers, durable=0)
        for event in machine.events:
            self.cycle.log.record(event)

    async def pause(self, seconds: float) -> None:
        """Let no time pass, and say how much it was."""
        self.pauses.append(seconds)

    async def _spawn(self, *_: Any) -> None:
        raise AssertionError("there are no branches")

    async def run(self) -> list[ToolResult]:
        """Advance to the end, and return what the agent was shown at last."""
        await self.cycle.advance(self.first)
        machine = RunMachine.replay(self.events())
        machine.check()
        assert machine.state.outcome == self.cycle.machine.state.outcome
        return [each.result for each in self.views[-1].history]

    def events(self, *kinds: type[ev.Event]) -> list[Any]:
        """Return the events of the journal, or those of some kinds."""
        found = [ev.decode_event(body) for body in self.journal.bodies_of(RUN)]
        return [event for event in found if not kinds or isinstance(event, kinds)]


@pytest.mark.parametrize("options", [{}, {"effect": "write", "idempotent": True}], ids=["read", "idempotent write"])
async def test_a_call_that_may_go_well_later_is_sent_again_after_what_its_tool_said(options: dict[str, Any]) -> None:
    world = World(later(2), later(0.5), retries=3, **options)
    (result,) = await world.run()
    assert result.ok and world.pauses == [2, 0.5]
    assert world.calls == [(1, f"{RUN}:1", attempt) for attempt in (1, 2, 3)], "one key, whatever the attempt"
    assert [event.attempt for event in world.events(ev.ActionGated)] == [1, 2, 3], "each was decided about"
    assert [event.result.retry_after_ms for event in world.events(ev.ToolExecuted)] == [2000, 500, None]
    assert world.cycle.machine.usage().tool_calls == 1, "it is counted once"


@pytest.mark.parametrize("error", [ToolError("no such customer"), KeyError("a bug"), ToolError("x", retry_after_s="2")])
async def test_what_is_final_is_never_sent_again(error: Exception) -> None:
    world = World(error, retries=3)
    (result,) = await world.run()
    assert (result.ok, len(world.calls), world.pauses) == (False, 1, [])


@pytest.mark.parametrize("seconds", [61, 1e300, 100_000])
async def test_what_would_take_longer_than_a_run_waits_is_told_at_once(seconds: float) -> None:
    world = World(later(seconds), retries=3)
    (result,) = await world.run()
    assert (result.reason_code, result.error, len(world.calls)) == ("tool_failed", "busy", 1)


async def test_what_its_run_has_no_time_for_is_told_at_once() -> None:
    world = World(later(20), retries=3, limits=Limits(max_seconds=10))
    assert (await world.run())[0].error == "busy" and len(world.calls) == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_after_so_many_retries_the_agent_is_told(retries: int) -> None:
    world = World(*[later(1)] * 10, retries=retries)
    (result,) = await world.run()
    assert result.reason_code == "tool_failed" and len(world.calls) == retries + 1 <= MAX_SENDS


async def test_a_call_that_is_denied_meanwhile_is_not_sent_again() -> None:
    world = World(later(1), retries=3)

    async def deny(seconds: float) -> None:
        world.policy._gate = world.gate("version: v2\nrules: [{id: none, outcome: deny}]\n")

    object.__setattr__(world.layers, "pause", deny)
    await world.run()
    outcome = world.cycle.machine.state.outcome
    assert outcome is not None and outcome.reason_code is ReasonCode.POLICY_DENIED and len(world.calls) == 1
    assert world.cycle.machine.usage().tool_calls == 0


async def test_a_run_that_is_killed_while_it_waits_sends_nothing() -> None:
    world = World(later(1), retries=3)

    async def kill(seconds: float) -> None:
        world.cycle.post(ev.KillRequested(at_us=0, by="op", why="x"))
        await asyncio.Event().wait()

    object.__setattr__(world.layers, "pause", kill)
    await world.cycle.advance(world.first)
    assert world.cycle.machine.state.phase is Phase.KILLED and len(world.calls) == 1


async def test_of_reads_at_once_the_one_that_is_busy_comes_when_the_others_are_back() -> None:
    world = World(None, later(2), None, numbers=(1, 2, 3), retries=1)
    results = await world.run()
    assert [each.value() for each in results] == [1, 2, 3] and world.pauses == [2]
    assert [number for number, _, _ in world.calls] == [1, 2, 3, 2]
    assert world.cycle.machine.usage().tool_calls == 3


async def test_a_run_whose_process_died_while_it_waited_gates_the_call_at_once() -> None:
    world = World(later(2), retries=1, effect="write", idempotent=True)
    await world.run()
    events = world.events()
    failed = next(at for at, event in enumerate(events) if isinstance(event, ev.ToolExecuted))
    machine = RunMachine.replay(events[: failed + 1])
    assert machine.state.phase is Phase.GATING and not machine.state.in_doubt_keys
    (again,) = machine.handle(ev.RunActivated(at_us=0, epoch=2))
    assert isinstance(again, do.GateCall) and (again.attempt, again.after_ms) == (3, 0)


async def test_an_attempt_that_is_under_way_has_no_result_of_the_one_before() -> None:
    world = World(later(2), retries=1, effect="write", idempotent=True)
    await world.run()
    events = world.events()
    second = [at for at, event in enumerate(events) if isinstance(event, ev.ActionGated)][1]
    (call,) = call_history(events[: second + 1])
    assert call.result is None and (call.first.attempt, call.latest.attempt) == (1, 2)
    (call,) = call_history(events)
    assert call.result is not None and call.result.ok


def test_only_what_may_be_sent_again_has_retries() -> None:
    def act() -> None:
        """Do something."""

    with pytest.raises(InvalidConfig, match="retries are for reads"):
        tool(effect="write", retries=1)(act)
    for wrong in (-1, MAX_SENDS, True, 1.0, "1"):
        with pytest.raises(InvalidConfig, match="is not a whole number from 0 to 3"):
            tool(effect="read", retries=wrong)(act)  # type: ignore[arg-type]
    assert msgspec.json.decode(b'{"ok":true}', type=ToolResult).retry_after_ms is None, "an old journal has none"
