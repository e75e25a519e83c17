"""What a call costs whose resource policy asks about, beside one without: the gate alone, and a step on a real stack.

    python -m benchmarks.resources

`gate_us` is one decision in microseconds, the median of nine rounds: of a tool without resources where no rule asks for
any (`plain`), of the same tool where rules ask about another tool's (`beside`), and of a tool with one, what was looked
up being given (`with_one`).  `step_ms` is the median time of a step of a run that is alone: of a read without a
resource, of one whose resolver is asked each time, and of one whose answers are kept.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import airside
from airside import App, Job, ReplayAgent
from airside.actors.client.client import Stack
from airside.stack.ids import Buffered, PrincipalId, TenantId
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.resources import Key, ResolveReply, Resource
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import Identity
from airside.tools.resolving import ResolverContext, resolver
from benchmarks.measure import last_line, machine, median
from benchmarks.seals import microseconds, requested

PLAIN = "version: v1\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]\n"
OWN = """
version: v1
rules:
  - {id: free, outcome: allow, when: {tool: [look]}}
  - {id: own, outcome: allow, when: {resource: {kind: order, owner: principal}}}
"""
STEPS = 20
REPEATS = 15


@airside.tool(effect="read")
def look(order_id: str) -> str:
    """Look at nothing in particular."""
    return order_id


@airside.tool(effect="read", resource=("order", "order_id"))
def look_at(order_id: str) -> str:
    """Look at an order."""
    return order_id


@airside.tool(effect="read", resource=("kept", "order_id"))
def look_again(order_id: str) -> str:
    """Look at an order that is remembered."""
    return order_id


def anas(order_id: Any, context: ResolverContext) -> Resource:
    """Say that every order is ana's."""
    return Resource(tenant=context.tenant, owner="ana")


def gate_us() -> dict[str, float]:
    """Return the microseconds of a decision, of each kind."""
    who = Identity(principal=PrincipalId("ana"), tenant=TenantId("acme"))
    key = b"k" * 32
    answers: dict[Key, ResolveReply] = {
        ("order", "o-1"): ResolveReply(state="found", resource=Resource(tenant=who.tenant, owner="ana"))
    }

    def of(policy: str, spec: ToolSpec) -> float:
        gate = Gate(
            bundle=load_bundle(policy),
            tools=[look.spec, look_at.spec],
            seal_key=key,
            now_us=lambda: 0,
            random=Buffered(),
        )
        request = requested(who, key, spec.name, b'{"order_id":"o-1"}')

        def decide() -> None:
            wanted = gate.needed_resources(request)
            reply = gate.decide(request) if wanted is None else gate.decide(request, answers)
            assert reply.grant, reply.decision

        return microseconds(decide)

    return {"plain": of(PLAIN, look.spec), "beside": of(OWN, look.spec), "with_one": of(OWN, look_at.spec)}


def step_ms(stack: Stack, tool: str) -> float:
    """Return the median milliseconds of a step of a lone run that calls one tool."""
    actions = [{"tool": tool, "args": {"order_id": f"o-{n}"}} for n in range(STEPS)]
    found = []
    for _ in range(REPEATS):
        job = Job(request="look", tenant="acme", principal="ana", inputs={"actions": actions})
        result = stack.submit(job).result(timeout=60)
        assert result.ok, result
        found.append(result.seconds * 1000 / STEPS)
    return round(median(found), 3)


def main() -> None:
    """Measure, and print the figures."""
    app = App(
        agents={"a": ReplayAgent()},
        tools=[look, look_at, look_again],
        resolvers={"order": anas, "kept": resolver(cache_s=60)(anas)},
        policy=OWN + "  - {id: kept, outcome: allow, when: {resource: {kind: kept, owner: principal}}}\n",
        directory="tenants: {acme: {principals: {ana: {limits: {max_steps: 1000}}}}}",
    )
    figures: dict[str, Any] = {"machine": machine(), "gate_us": gate_us()}
    with tempfile.TemporaryDirectory() as folder, airside.start(app, state_dir=Path(folder), executors=1) as stack:
        tools = {"without": "look", "with_one": "look_at", "kept": "look_again"}
        figures["step_ms"] = {name: step_ms(stack, tool) for name, tool in tools.items()}
    last_line(figures)


if __name__ == "__main__":
    main()
