"""What a governed step costs in what no noise of a machine can touch: entries, bytes, messages, texts, function calls.

    .venv/bin/python -m benchmarks.step_costs

One run of the load benchmarks' app is played in memory, with a clock that is an argument and ids that are given, so
that two plays count the same.  `tests/unit/stack/cycle/test_step_costs.py` holds the counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import msgspec

import airside
from airside.memory.in_memory import InMemoryMemory
from airside.stack.contracts.gate import GateReply, GateRequest
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.ids import ExecutorId, RunId, parse_principal, parse_tenant
from airside.stack.journal.stream import entry_of
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.policy.trace_predictor import TracePredictor
from airside.stack.provenance.matching import SearchableText
from airside.stack.run.events import RunActivated, RunSubmitted
from airside.stack.run.machine import RunMachine
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Identity, Limits, Request
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from benchmarks.ledger_app import TEXT, ledger_app

KEY = b"k" * 32
RUN = RunId("run_" + "0" * 24)
BEGAN_US = 1_800_000_000_000_000

ASKS_ORIGINS = """
version: bench-2
rules:
  - {id: all, outcome: allow, when: {scopes: [ledger]}}
  - {id: steered, outcome: deny, when: {effect: [write], origins: [{of: authority, within: [memory]}]}}
"""
"""A policy that asks where the values of every posting come from, and finds nothing wrong with them."""


class _Clock:
    """Goes on by a tenth of a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now_us = BEGAN_US

    def __call__(self) -> int:
        self.now_us += 100
        return self.now_us


class _CountedPolicy(InMemoryPolicy):
    """The gate, with a count of what it is sent."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate)
        self.requests = self.sent_bytes = 0

    async def decide(self, request: GateRequest) -> GateReply:
        """Decide about one call."""
        self.requests += 1
        self.sent_bytes += len(msgspec.msgpack.encode(request))
        return await super().decide(request)


@contextmanager
def counted_calls() -> Iterator[Counter[CodeType]]:
    """Count how often each of the package's own functions is entered, coroutines once for each stretch."""
    package = os.path.dirname(airside.__file__) + os.sep
    found: Counter[CodeType] = Counter()

    def enter(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            found[frame.f_code] += 1

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        yield found
    finally:
        sys.setprofile(before)


def _layers(policy: str, journal: InMemoryJournal, now_us: Callable[[], int]) -> tuple[CyclePorts, _CountedPolicy]:
    app = ledger_app(1).checked()
    bundle, count = load_bundle(policy or app.bundle), iter(range(1_000_000))
    gate = Gate(
        bundle=bundle,
        tools=app.specs,
        seal_key=KEY,
        now_us=now_us,
        random=lambda size: next(count).to_bytes(size, "big"),
    )
    executor = ExecutorId("exe_" + "1" * 24)
    counted = _CountedPolicy(gate)

    async def no_children(*_: Any) -> None:
        raise AssertionError("the load app does not fan out")

    made = CyclePorts(
        journal=journal,
        policy=counted,
        tools=InMemoryTools(
            lambda: Dispatcher(app.app.tools, seal_key=KEY, executor_id=executor, now_us=now_us, in_threads=False)
        ),
        approvals=InMemoryApprovals(KEY, now_us),
        memory=InMemoryMemory(now_us),
        agents=app.agents,
        routes=app.routes,
        specs=app.specs,
        now_us=now_us,
        spawn=no_children,
        trace_predictor=TracePredictor(bundle, app.specs),
    )
    return made, counted


def play(steps: int, policy: str = "") -> dict[str, float]:
    """Run one job of so many steps, by the app's own policy or another, and return its counts a step."""
    now_us, journal = _Clock(), InMemoryJournal()
    layers, gate = _layers(policy, journal, now_us)
    limits = Limits(max_steps=steps + 1, max_tool_calls=steps)
    who = Identity(
        principal=parse_principal("clerk"),
        tenant=parse_tenant("tenant-0"),
        roles=("clerk",),
        scopes=("ledger",),
        limits=limits,
    )
    submitted = RunSubmitted(
        run_id=RUN,
        identity=who,
        sealed=seal_identity(KEY, who, run_subject(RUN)),
        request=Request(text=TEXT, inputs=msgspec.Raw(msgspec.json.encode({"steps": steps}))),
        limits=limits,
        app_version="1",
        at_us=now_us(),
    )
    machine = RunMachine(submitted)
    activated = RunActivated(epoch=1, at_us=now_us())

    async def run() -> None:
        cycle = Cycle(machine, layers, durable=0)
        cycle.log.record(submitted)
        cycle.log.record(activated)
        await cycle.advance(machine.handle(activated))

    with counted_calls() as calls:
        asyncio.run(run())
    assert machine.state.phase == "completed", machine.story()
    entries = [entry_of(event) for event in machine.events]
    assert [entry.body for entry in entries] == journal.bodies_of(RUN)
    return {
        "events": len(entries) / steps,
        "journal_bytes": round(sum(len(entry.body) for entry in entries) / steps, 1),
        "gate_requests": gate.requests / steps,
        "gate_bytes": round(gate.sent_bytes / steps, 1),
        "texts_indexed": calls[SearchableText.__init__.__code__] / steps,
        "texts_searched": calls[SearchableText.holds.__code__] / steps,
        "calls": round(calls.total() / steps, 1),
    }


def step_costs(steps: int = 24) -> dict[str, dict[str, float]]:
    """Return the counts a step by a policy that asks nothing about origins, and by one that does.

    A run is played twice and the second is counted, for names and patterns are read once a process.
    """
    policies = {"plain": "", "traced": ASKS_ORIGINS}
    return {name: [play(steps, policy) for _ in range(2)][1] for name, policy in policies.items()}


if __name__ == "__main__":
    print(json.dumps(step_costs()))
