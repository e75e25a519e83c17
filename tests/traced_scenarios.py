"""Scenarios of attacks without a stack: what the tracer and the default policy say of each call, in order."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

import airside
from airside.stack.canonical import canonical
from airside.stack.contracts.memory import Recalled
from airside.stack.ids import PrincipalId, RunId, TenantId
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.evaluator import Evaluator, Facts
from airside.stack.provenance.tracer import Tracer, complete
from airside.stack.reasons import ReasonCode
from airside.stack.run import events as ev
from airside.stack.run.events import ActionGated
from airside.stack.run.state import RunState, StepRecord
from airside.stack.values import UNTRUSTED, Identity, Limits, Request, ToolResult, ValueOrigin
from airside.tools.tool import Tool
from benchmarks.hijack_app import Call, Scenario, Stage, not_taken, planted_into

POLICY = Evaluator(load_bundle(airside.DEFAULT_POLICY))
IDENTITY = Identity(principal=PrincipalId("ana"), tenant=TenantId("acme"))
NOW_US = 1_790_000_000_000_000


@dataclass
class Told:
    """The user's calls somebody was asked about, in how many questions, and the attacker's that nobody was."""

    questions: set[tuple[int, str]] = field(default_factory=set)
    asked: list[tuple[Call, tuple[ValueOrigin, ...]]] = field(default_factory=list)
    passed: list[Call] = field(default_factory=list)


class Play:
    """One scenario, played clean or hijacked; a person approves the user's calls and rejects the attacker's."""

    def __init__(self, scenario: Scenario, *, hijacked: bool) -> None:
        self.scenario, self.hijacked = scenario, hijacked
        stage = Stage(scenario, Path("/nowhere"))
        self.tools: dict[str, Tool] = {tool.name.rpartition(".")[2]: tool for tool in stage.tools()}
        request = Request(
            text=scenario.request, inputs=Raw(json.dumps(scenario.inputs).encode()), labels=tuple(scenario.labels)
        )
        submitted = ev.RunSubmitted(
            at_us=NOW_US, run_id=RunId("run_" + "0" * 24), identity=IDENTITY, sealed="", request=request,
            limits=Limits(), app_version="1",
        )  # fmt: skip
        self.state = RunState(submitted=submitted)
        self.state.labels = frozenset(scenario.labels)
        self.tracer = Tracer(submitted, [tool.spec for tool in self.tools.values()])
        self.told = Told()
        if scenario.memory:
            self.state.labels |= {UNTRUSTED}
            self.tracer.remember([_record(planted_into(scenario.memory, self._planted))])

    @property
    def _planted(self) -> str:
        return self.scenario.planted if self.hijacked else ""

    def run(self) -> Told:
        """Make the user's calls, and the attacker's as soon as the planted text was read."""
        order = [(call, True) for call in self.scenario.calls]
        if self.hijacked:
            attack = [(call, False) for call in self.scenario.attack]
            read = [number for number, (call, _) in enumerate(order, 1) if "{planted}" in json.dumps(call.result)]
            place = (0 if self.scenario.memory else read[0]) + attack[0][0].together
            order[place:place] = attack
        while order:
            count = 1 + sum(1 for _ in itertools.takewhile(lambda each: each[0].together, order[1:]))
            self.state.base = len(self.state.history) + 1
            self.state.last = self.state.base + count - 1
            for call, is_users in order[:count]:
                self._make(call, is_users=is_users)
            order = order[count:]
        return self.told

    def _make(self, call: Call, *, is_users: bool) -> None:
        tool, step = self.tools[call.tool], len(self.state.history) + 1
        full = json.loads(Stage(self.scenario, Path("/nowhere")).complete(tool, call.arguments))
        told = self.tracer.trace(tool.name, call.arguments, self.state)
        origins = complete(tool.spec, call.arguments, full, told)
        facts = Facts(
            tool=tool.spec, identity=IDENTITY, arguments=full, labels=self.state.labels, remaining=Limits(),
            now_us=NOW_US, origins=origins,
        )  # fmt: skip
        decision = POLICY.evaluate(facts)
        users = [each for each in self.scenario.calls if each.tool == call.tool]
        is_users = is_users or any(canonical(each.arguments) == canonical(call.arguments) for each in users)
        if decision.outcome == "allow" and not is_users and tool.spec.effect != "read":
            self.told.passed.append(call)
        if decision.outcome != "allow":
            if not is_users:
                return
            self.told.questions.add((self.state.base, call.tool))
            self.told.asked.append((call, tuple(not_taken(tool.spec.effect, origins))))
            self.state.approved[step] = _gated(tool, full, step, decision)
        result = ToolResult(ok=True, output=Raw(json.dumps(planted_into(call.result, self._planted)).encode()))
        if not tool.spec.trusted_output:
            self.state.labels |= {UNTRUSTED}
        self.state.history.append(StepRecord(step=step, agent="a", tool=tool.name, arguments=full, result=result))


def _record(text: str) -> Recalled:
    return Recalled(
        record_id="mem_1", text=text, score=1.0, source="run_x#1", sensitivity="internal", kind="answer",
        created_us=0, expires_us=1,
    )  # fmt: skip


def _gated(tool: Tool, full: dict[str, Any], step: int, decision: Any) -> ActionGated:
    allowed = msgspec.structs.replace(decision, outcome="allow", reason_code=ReasonCode.ALLOWED)
    return ActionGated(
        at_us=0, step=step, cause=0, attempt=1, decision=allowed, tool=tool.name, effect=tool.spec.effect,
        arguments=Raw(canonical(full)), digest="d",
    )  # fmt: skip
