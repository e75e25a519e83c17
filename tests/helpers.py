"""What the tests of the pure core share: identities, a driven run, specs, and grants."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Raw

from airside.stack.canonical import digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.contracts.gate import GateRequest
from airside.stack.ids import ApprovalId, EffectKey, ExecutorId, PrincipalId, RunId, TenantId, effect_key
from airside.stack.reasons import ReasonCode, status_of
from airside.stack.run import events as ev
from airside.stack.run import instructions as do
from airside.stack.run.instructions import Instructions
from airside.stack.run.invariants import check_growth
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import Branch, FanOut, Visit
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.security.grants import Grant, mint
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import (
    FREE,
    Action,
    Decision,
    Finish,
    Identity,
    Limits,
    Outcome,
    Request,
    Spend,
    ToolCall,
    ToolResult,
    Usage,
)

KEY = b"k" * 32
RUN = RunId("run_" + "0" * 24)
EXECUTOR = ExecutorId("exe_" + "1" * 24)
SECOND = 1_000_000


def identity(**fields: Any) -> Identity:
    """Return ann of acme, who may read and write, changed by `fields`."""
    given = {"principal": PrincipalId("ann"), "tenant": TenantId("acme"), "scopes": ("read", "write")}
    return Identity(**(given | fields))


def submitted(*, limits: Limits | None = None, depth: int = 0, **request: Any) -> ev.RunSubmitted:
    """Return the first event of a run."""
    return ev.RunSubmitted(
        at_us=0,
        run_id=RUN,
        identity=identity(),
        sealed="",
        request=Request(**({"text": "do it"} | request)),
        limits=limits or Limits(),
        app_version="1",
        depth=depth,
    )


def decision(outcome: str = "allow", *, reason: ReasonCode | None = None, detail: str = "") -> Decision:
    """Return policy's answer; a denial is `policy_denied` unless `reason` says otherwise."""
    usual = ReasonCode.POLICY_DENIED if outcome == "deny" else ReasonCode.ALLOWED
    return Decision(
        outcome=outcome,  # type: ignore[arg-type]
        reason_code=reason or usual,
        rule="r",
        policy_version="v1",
        detail=detail,
    )


def through_journal(event: Any) -> Any:
    """Return an event as the journal gives it back."""
    decoded = msgspec.json.decode(msgspec.json.encode(event), type=type(event))
    assert decoded == event
    return decoded


class Driven:
    """A machine that is checked after everything it is fed."""

    def __init__(self, limits: Limits | None = None, *, depth: int = 0) -> None:
        self.machine = RunMachine(submitted(limits=limits, depth=depth))
        self.now_us = 0

    @property
    def state(self) -> Any:
        """The machine's state."""
        return self.machine.state

    @property
    def phase(self) -> str:
        """The machine's phase."""
        return str(self.machine.state.phase)

    @property
    def outcome(self) -> Outcome:
        """The run's outcome."""
        assert self.machine.state.outcome is not None
        return self.machine.state.outcome

    @property
    def key(self) -> EffectKey:
        """The effect key of the present step."""
        return effect_key(RUN, self.machine.state.step)

    def send(self, kind: type[ev.Event], *, after_us: int = 1000, **fields: Any) -> Instructions:
        """Feed an event that happens `after_us` later, at the present step unless `fields` says otherwise."""
        self.now_us += after_us
        if "step" in kind.__struct_fields__:
            fields.setdefault("step", self.machine.state.step)
        return self.handle(kind(at_us=self.now_us, **fields))

    def handle(self, event: ev.Event) -> Instructions:
        """Feed an event and check every invariant."""
        s = self.machine.state
        before = (s.labels, s.epoch, s.step)
        instructions = self.machine.handle(event)
        self.machine.check()
        check_growth(before, s)
        return instructions

    # A run in strides.

    def activate(self) -> Instructions:
        """Activate under the next epoch."""
        epoch = self.state.epoch + 1
        return self.send(ev.RunActivated, epoch=epoch, claim=f"claim {epoch}")

    def visit(self, agent: str = "a", query: str | None = None, *, price: Spend | None = None) -> Instructions:
        """Answer Plan with a visit; with a price, of an agent that names one."""
        return self.send(ev.RoutePlanned, route=Visit(agent=agent, query=query), metered=price is not None, price=price)

    def reserve(self) -> Instructions:
        """Answer AskSpend, then Reserve."""
        self.ask_spend()
        return self.send(ev.SpendReserved)

    def ask_spend(self) -> Instructions:
        """Answer AskSpend."""
        return self.send(ev.SpendAsked, epoch=self.state.epoch, price=self.state.price, wall_ms=100)

    def fan_out(self, branches: int) -> Instructions:
        """Answer Plan with a fan-out."""
        return self.send(ev.RoutePlanned, route=FanOut(branches=(Branch(route="b", text="t"),) * branches))

    def decide(self, proposal: Any, *later: Action, reads: bool = False) -> Instructions:
        """Answer Decide, with one proposal or several calls."""
        calls = tuple(ToolCall(tool=each.tool, arguments=each.arguments) for each in later)
        return self.send(ev.StepDecided, agent="a", proposal=proposal, later=calls, reads=reads)

    def propose_all(self, count: int, *, reads: bool = False, spend: Spend = FREE) -> Instructions:
        """Visit an agent, which proposes so many calls of `pay`, the first with what all cost."""
        self.visit(price=spend if spend != FREE else None)
        if spend != FREE:
            self.reserve()
        first, *later = [Action(tool="pay", arguments={"n": n}) for n in range(count)]
        return self.decide(msgspec.structs.replace(first, spend=spend), *later, reads=reads)

    def gate_read(self, step: int, outcome: str = "allow", **fields: Any) -> Instructions:
        """Answer Gate of a read that is under way beside others."""
        attempt = self.state.reading[step].attempt
        return self.gate(outcome, **({"step": step, "attempt": attempt, "effect": "read"} | fields))

    def send_read(self, step: int, **gate: Any) -> Instructions:
        """Bring such a read to its tool."""
        return self.gate_read(step, **gate)

    def read(self, step: int, result: ToolResult | None = None, **fields: Any) -> Instructions:
        """Answer Execute of such a read."""
        settled = result or ToolResult(ok=True, output=Raw(b'"fine"'))
        attempt = self.state.reading[step].attempt
        return self.send(ev.ToolExecuted, step=step, attempt=attempt, result=settled, **fields)

    def lose_read(self, step: int) -> Instructions:
        """Lose the answer of such a read."""
        attempt = self.state.reading[step].attempt
        return self.send(ev.ExecutionLost, step=step, attempt=attempt, started=True, error="died")

    def propose(self, *, spend: Spend | None = None, priced: bool = True, **arguments: Any) -> Instructions:
        """Visit an agent, which proposes a call of `pay`; what it spends is the price it names, if it is `priced`."""
        planned = self.visit(price=spend if priced else None)
        if spend is not None and priced:
            if self.machine.state.phase is not Phase.ASKING:
                return planned
            self.reserve()
        return self.decide(Action(tool="pay", arguments=arguments, spend=spend or Spend()))

    def finish(self, answer: Any = None) -> Instructions:
        """Visit an agent, which finishes."""
        self.visit()
        return self.decide(Finish(answer=answer))

    def gate(self, outcome: str = "allow", **fields: Any) -> Instructions:
        """Answer Gate."""
        wanted = fields.pop("decision", None) or decision(outcome)
        given = {"tool": "pay", "effect": "write", "attempt": self.state.attempt, "intent": wanted.outcome == "allow"}
        fields = given | fields
        if outcome == "require_approval":
            fields.setdefault("approval_id", ApprovalId("apr_1"))
        return self.send(ev.ActionGated, decision=wanted, **fields)

    def sent(self, **gate: Any) -> Instructions:
        """Propose a call and bring it to `executing`."""
        self.propose(n=self.state.step)
        return self.gate(**gate)

    def executed(self, result: ToolResult | None = None, **fields: Any) -> Instructions:
        """Answer Execute."""
        settled = result or ToolResult(ok=True, output=Raw(b'"fine"'))
        return self.send(ev.ToolExecuted, attempt=self.state.gated.attempt, result=settled, **fields)

    def failed(self, reason: ReasonCode) -> Instructions:
        """Answer Execute with a failure."""
        return self.executed(ToolResult(ok=False, error="no", reason_code=reason))

    def lost(self, *, started: bool) -> Instructions:
        """Lose the answer of an Execute."""
        return self.send(ev.ExecutionLost, attempt=self.state.gated.attempt, started=started, error="died")

    def approval(self, outcome: str, **fields: Any) -> Instructions:
        """Answer AskApproval."""
        apart = outcome == "rejected"
        fields = {"approval_id": self.state.gated.approval_id, "by": (PrincipalId("bob"),), "apart": apart} | fields
        return self.send(ev.ApprovalDecided, outcome=outcome, **fields)

    def child_ended(self, branch: int, *, reason: ReasonCode = ReasonCode.COMPLETED, **fields: Any) -> Instructions:
        """End a branch with the answer `branch`."""
        usage = Usage(**fields.pop("usage", {}))
        answer = Raw(json.dumps(branch).encode()) if reason is ReasonCode.COMPLETED else Raw(b"null")
        ended = Outcome(status=status_of(reason), reason_code=reason, answer=answer)
        child = RunId(f"{RUN}.{self.state.step}-{branch}")
        return self.send(ev.ChildEnded, branch=branch, run_id=child, outcome=ended, usage=usage, **fields)

    def end(self) -> None:
        """Answer Conclude."""
        self.send(ev.RunEnded, outcome=self.outcome, usage=self.state.usage)


def only(instructions: Instructions, kind: type[Any]) -> Any:
    """Return the one instruction there is, which must be of `kind`."""
    assert [type(i) for i in instructions] == [kind]
    return instructions[0]


def concluded(instructions: Instructions) -> Outcome:
    """Return the outcome of a lone Conclude."""
    conclude: do.Conclude = only(instructions, do.Conclude)
    assert conclude.durable_first
    return conclude.outcome


def spec(name: str = "pay", **fields: Any) -> ToolSpec:
    """Return the spec of a tool with a required `amount` and a `currency` that defaults to eur."""
    parameters = {
        "type": "object",
        "properties": {
            "amount": {"type": "integer", "minimum": 1},
            "currency": {"type": "string", "default": "eur"},
            "note": {"type": "string"},
        },
        "required": ["amount"],
    }
    return ToolSpec.build(**({"name": name, "effect": "write", "parameters": parameters} | fields))


def grant_for(tool: ToolSpec, arguments: bytes = b"{}", /, **fields: Any) -> Grant:
    """Return a grant that fits `tool`, `arguments` and `EXECUTOR`, changed by `fields`; attempts before were sent."""
    given = {
        "tenant": "acme",
        "principal": "ann",
        "run_id": RUN,
        "step": 1,
        "attempt": 1,
        "epoch": 1,
        "tool": tool.name,
        "tool_version": tool.version,
        "arguments_sha256": digest(arguments),
        "key": effect_key(RUN, 1),
        "policy_version": "v1",
        "approval_id": "",
        "executor": EXECUTOR,
        "timeout_ms": 30_000,
        "expires_us": 100 * SECOND,
        "issuer": "",
        "nonce": b"nonce-000001",
        "sends": fields.get("attempt", 1) - 1,
    }
    return Grant(**(given | fields))


def gate_request(tool: str, arguments: bytes = b"{}", *, who: Identity | None = None, **fields: Any) -> GateRequest:
    """Return what a runtime asks the gate about a call of somebody's (ann's, if nobody is named)."""
    who = who or identity()
    given: dict[str, Any] = {
        "identity": msgspec.msgpack.encode(who),
        "proof": seal_identity(KEY, who, run_subject(RUN)),
        "run_id": RUN,
        "step": 1,
        "attempt": 1,
        "epoch": 1,
        "tool": tool,
        "arguments": arguments,
        "labels": (),
        "remaining": Limits(),
        "executor": EXECUTOR,
    }
    return GateRequest(**(given | fields))


def granted(tool: ToolSpec, arguments: bytes = b"{}", /, **fields: Any) -> ExecuteRequest:
    """Return the request of a call granted with the right key."""
    return ExecuteRequest(grant=mint(KEY, grant_for(tool, arguments, **fields)), arguments=arguments)
