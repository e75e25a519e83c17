"""What a run that waits holds in the process that carries it: counted in bytes, beside others of its principal."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import msgspec
import pytest

from airside.stack.canonical import digest
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.ids import ApprovalId, ExecutorId, RunId
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import SingleAgent
from airside.stack.values import Action, ApprovalRule, Decision, Limits, Request, ValueOrigin
from tests.helpers import identity, spec

RUNS = 200
TEXT = "Pay the cleaner 40 euros for June, as agreed, and tell her by mail once it is done."


class Around:
    """The layers around a run: they keep nothing of it, and a tool does not return."""

    def __init__(self, outcome: str) -> None:
        self._outcome = outcome

    async def append(self, append: Append) -> AppendReply:
        """Take anything in."""
        return AppendReply(verdict="ok")

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide as was said, in an answer that came over the wire."""
        decision = Decision(
            outcome=self._outcome,  # type: ignore[arg-type]
            reason_code=ReasonCode.ALLOWED,
            rule="large",
            policy_version="v1",
            approval=ApprovalRule(roles=("boss",)) if self._outcome == "require_approval" else None,
        )
        reply = GateReply(
            decision=decision,
            effect="write",
            tool_version="v" * 16,
            arguments=bytes(request.arguments),
            digest=digest(request.arguments),
            approval_id=ApprovalId(f"apr_{request.run_id}_1_abcdefabcdef"),
            grant=b"g" * 300,
            origins=tuple(
                ValueOrigin(path=p, value="40", part="authority", origin="request") for p in ("amount", "note")
            ),
        )
        return msgspec.msgpack.decode(msgspec.msgpack.encode(reply), type=GateReply)

    def expects(self, *args: Any, **named: Any) -> bool:
        """Say that policy asks where values come from, if people are asked."""
        return self._outcome == "require_approval"

    async def request(self, wanted: Any) -> None:
        """Let it wait."""

    async def executor_for(self, run_id: RunId) -> ExecutorId:
        """Name an executor."""
        return ExecutorId("exe_" + "1" * 24)

    async def execute(self, run_id: RunId, request: Any) -> Any:
        """Not return."""
        await asyncio.get_running_loop().create_future()


def agent(view: View) -> Action:
    """Propose a call."""
    return Action(tool="pay", arguments={"amount": 40, "note": "June"})


def layers(outcome: str) -> CyclePorts:
    """Return the layers of an app of one agent."""
    around: Any = Around(outcome)
    return CyclePorts(
        journal=around,
        policy=around,
        tools=around,
        approvals=around,
        memory=None,
        agents={"a": FunctionAgent(agent)},
        routes={"default": SingleAgent("a")},
        specs=[spec()],
        now_us=lambda: 1_750_000_000_000_000,
        spawn=around,
        trace_predictor=around,
    )


def taken_up(made: CyclePorts, number: int) -> tuple[Cycle, asyncio.Task[None]]:
    """Take a run up from what the journal has of it."""
    submitted = ev.RunSubmitted(
        at_us=1_750_000_000_000_000,
        run_id=RunId(f"run_{number:024x}"),
        identity=identity(),
        sealed="s" * 44,
        request=Request(text=TEXT, inputs=msgspec.Raw(b'{"month":"June","to":"cleaner"}'), route="default"),
        limits=Limits(),
        app_version="1",
    )
    events = [ev.decode_event(ev.encode_event(event)) for event in (submitted, ev.RunActivated(at_us=1, epoch=1))]
    machine = RunMachine.replay([made.alike.shared(events[0])])
    instructions = machine.handle(events[1])
    cycle = Cycle(machine, made, durable=2)
    return cycle, asyncio.ensure_future(cycle.advance(instructions))


async def bytes_a_run(outcome: str, phase: Phase) -> float:
    """Return what each of many waiting runs holds."""
    made = layers(outcome)
    kept: list[Any] = [taken_up(made, 10**6 + number) for number in range(20)]
    await _until([cycle for cycle, _ in kept], phase)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        begun = [taken_up(made, number) for number in range(RUNS)]
        await _until([cycle for cycle, _ in begun], phase)
        waiting = [(cycle, task) for cycle, task in begun if not task.done()] or [cycle for cycle, _ in begun]
        del begun
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for _, task in [pair for pair in waiting if isinstance(pair, tuple)] + kept:
        task.cancel()
    return (after - before) / RUNS


async def _until(cycles: list[Cycle], phase: Phase) -> None:
    for _ in range(1_000):
        await asyncio.sleep(0)
        if all(cycle.machine.state.phase is phase for cycle in cycles):
            break
    assert {cycle.machine.state.phase for cycle in cycles} == {phase}
    for _ in range(10):  # until what they wrote is written
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("outcome", "phase", "most"),
    [("require_approval", Phase.AWAITING_APPROVAL, 7_500), ("allow", Phase.EXECUTING, 10_000)],
)
async def test_a_run_that_waits_holds_little(outcome: str, phase: Phase, most: int) -> None:
    """For people, or for a tool: what can be made again is not held, and what is alike is held once."""
    assert await bytes_a_run(outcome, phase) < most


async def test_a_process_looks_at_the_runs_alone_that_have_something_to_write() -> None:
    """Those that wait are not looked at, nor those that are over."""
    made = layers("allow")
    cycle, task = taken_up(made, 1)
    await _until([cycle], Phase.EXECUTING)
    assert made.unwritten == set()
    cycle.log.record(ev.RunSuspended(at_us=1, why="x"))
    assert made.unwritten == {cycle.log}
    cycle.log.flush_if_idle()
    cycle.log.flush_if_idle()
    await _until([cycle], Phase.EXECUTING)
    assert made.unwritten == set()
    cycle.log.record(ev.RunSuspended(at_us=1, why="x"))
    cycle.log.leave()
    assert made.unwritten == set()
    task.cancel()
