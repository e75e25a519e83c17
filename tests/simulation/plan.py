"""What a seed generates."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from msgspec import Raw

from airside.stack.budget.ledger import Cap
from airside.stack.ids import PrincipalId, RunId, TenantId, mint_run
from airside.stack.policy.bundle import Bundle, load_bundle
from airside.stack.values import Identity, Limits, Request

POLICY = """
version: VERSION
rules:
  - {id: reads, outcome: allow, when: {tool: [look, ask]}}
  - {id: works, outcome: allow, when: {tool: [note, pay, book, fat, give, seat]}}
  - {id: own, outcome: allow, when: {tool: [take, peek], resource: {kind: thing, owner: principal}}}
  - id: lend
    outcome: require_approval
    when: {tool: [lend], resource: {kind: thing, owner: principal}}
    approval: {roles: [approver], expires_after_s: 20}
  - {id: no-large, outcome: deny, when: {tool: [pay], arguments: [{path: n, op: gt, value: 90}]}}
  - {id: never, outcome: deny, when: {tool: [forbidden]}}
  - id: not-theirs
    outcome: deny
    when: {tool: [note], arguments: [{path: n, op: gt, value: 80}], origins: [{within: [request]}]}
  - id: one
    outcome: require_approval
    when: {tool: [mail]}
    approval: {roles: [approver], quorum: 1, expires_after_s: 20}
  - id: two
    outcome: require_approval
    when: {tool: [wipe]}
    approval: {roles: [approver], quorum: 2, expires_after_s: 40}
"""
BUNDLES: list[Bundle] = [load_bundle(POLICY.replace("VERSION", version)) for version in ("v1", "v2")]
QUORUM = {"mail": 1, "wipe": 2, "lend": 1}

TOOLS = (
    "look",
    "note",
    "pay",
    "book",
    "mail",
    "wipe",
    "fat",
    "forbidden",
    "nosuch",
    "take",
    "lend",
    "peek",
    "give",
    "ask",
    "seat",
)
WEIGHTS = (4, 5, 5, 5, 4, 4, 1, 1, 1, 5, 2, 5, 5, 2, 3)
ON_THINGS = ("take", "lend", "peek", "give")
"""Tools that say which thing they are about."""

MAX_THING = 4
AGENTS = ("a", "b", "c")
ROUTES = ("single", "single", "spender", "pipe", "hand", "fan", "join", "deep", "rounds")
ODD_ROUTES = ("raiser", "garbage", "hanger", "canceller", "circle", "nowhere", "slow")
CRASHES = (
    *("runtime", "runtime", "runtimes", "partition", "executor", "executor"),
    *("policy", "approvals", "journal", "driver", "driver"),
)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One run as it will be submitted, and what people will do to it."""

    run_id: RunId
    identity: Identity
    request: Request
    limits: Limits
    start_s: float
    kill_s: float | None = None
    cancel_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A seed, generated.  `crashes` says at which numbered point what crashes; `faults` scales everything random.

    `forgets`: memory has records of some subjects, each of which is erased while runs that were shown them go on.
    """

    tenants: tuple[TenantId, ...]
    runs: tuple[RunPlan, ...]
    crashes: dict[int, str] = field(default_factory=dict)
    faults: float = 0.0
    budgets: dict[str, tuple[Cap, ...]] = field(default_factory=dict)
    forgets: bool = False


def make_plan(rng: Random) -> Plan:
    """Generate a seed's plan."""
    tenants = tuple(TenantId(f"tenant{i}") for i in range(rng.randint(1, 4)))
    runs = tuple(_run(rng, rng.choice(tenants)) for _ in range(rng.randint(2, 8)))
    points = sorted(rng.sample(range(1, 60 * len(runs)), rng.choice((0, 1, 2, 4, 7, 12))))
    return Plan(
        tenants=tenants,
        runs=runs,
        crashes={point: rng.choice(CRASHES) for point in points},
        faults=rng.choice((0.0, 0.01, 0.03, 0.08)),
        budgets={tenant: _budget(rng) for tenant in tenants if rng.random() < 0.3},
    )


def plan_on_things(rng: Random) -> Plan:
    """Generate a plan whose runs give away what others are about to use, while gates, executors and runtimes die."""
    tenants = (TenantId("tenant0"), TenantId("tenant1"))
    runs = []
    for number in range(8):
        inputs = {agent: _on_things(rng) for agent in AGENTS}
        runs.append(
            RunPlan(
                run_id=mint_run(rng.randbytes),
                identity=Identity(
                    principal=PrincipalId(rng.choice(("ann", "abe"))),
                    tenant=tenants[number % 2],
                    roles=("clerk",),
                    scopes=("work",),
                ),
                request=Request(text="", inputs=Raw(json.dumps(inputs).encode()), route=rng.choice(("single", "pipe"))),
                limits=Limits(max_refusals=10),
                start_s=rng.random() * 0.1,
            )
        )
    kinds = ("policy", "executor", "runtime", "partition", "driver")
    crashes = {point: rng.choice(kinds) for point in rng.sample(range(1, 400), rng.choice((0, 2, 5)))}
    return Plan(tenants=tenants, runs=tuple(runs), crashes=crashes, faults=rng.choice((0.0, 0.02)))


def plan_on_memory(rng: Random) -> Plan:
    """Generate a plan whose runs learn from what they are shown, while that is erased and processes die."""
    tenants = (TenantId("tenant0"), TenantId("tenant1"))
    runs = tuple(
        RunPlan(
            run_id=mint_run(rng.randbytes),
            identity=Identity(
                principal=PrincipalId("ann"), tenant=tenants[number % 2], roles=("clerk",), scopes=("work",)
            ),
            request=Request(
                text="where does the yearly report go",
                inputs=Raw(json.dumps({"a": [{"tool": "look", "args": {"n": number}}]}).encode()),
                route=rng.choice(("learner", "learner", "learners")),
            ),
            limits=Limits(),
            start_s=rng.random(),
        )
        for number in range(10)
    )
    kinds = ("policy", "executor", "runtime", "partition", "driver", "journal")
    crashes = {point: rng.choice(kinds) for point in rng.sample(range(1, 300), rng.choice((0, 3, 6)))}
    return Plan(tenants=tenants, runs=runs, crashes=crashes, faults=rng.choice((0.0, 0.02)), forgets=True)


def _on_things(rng: Random) -> list[Any]:
    tools = rng.choices(("take", "peek", "give", "lend"), (3, 3, 4, 1), k=8)
    calls = [{"tool": tool, "args": {"n": rng.choice((0, 2, 2, rng.randint(0, MAX_THING)))}} for tool in tools]
    return _together(rng, calls)


def _together(rng: Random, calls: list[dict[str, Any]]) -> list[Any]:
    """Have some of the calls that follow each other be proposed in one decision."""
    found: list[Any] = []
    while calls:
        count = rng.choice((1, 1, 1, 2, 3, 4)) if rng.random() < 0.5 else 1
        several, calls = calls[:count], calls[count:]
        found.append(several if count > 1 else several[0])
    return found


def _budget(rng: Random) -> tuple[Cap, ...]:
    return (
        Cap(unit="tool_calls", limit=rng.choice((0, 2, 5, 9))),
        Cap(unit="cost_microusd", limit=rng.choice((0, 7, 25))),
        Cap(unit="tool:pay", limit=rng.choice((1, 3))),
        *rng.choice(((), (Cap(unit="tokens", limit=rng.choice((19, 40, 100))),))),
    )


def _run(rng: Random, tenant: TenantId) -> RunPlan:
    route = rng.choice(ODD_ROUTES if rng.random() < 0.15 else ROUTES)
    inputs = {agent: make_actions(rng) for agent in AGENTS}
    return RunPlan(
        run_id=mint_run(rng.randbytes),
        identity=Identity(
            principal=PrincipalId(rng.choice(("ann", "abe"))),
            tenant=tenant,
            roles=("clerk", "approver") if rng.random() < 0.3 else ("clerk",),
            scopes=("work",) if rng.random() < 0.95 else (),
        ),
        request=Request(
            text=rng.choice(("please send the yearly report", "pay what is due today", "")),
            inputs=Raw(json.dumps(inputs).encode()),
            route=route,
            labels=("confidential",) if rng.random() < 0.1 else (),
        ),
        limits=_limits(rng),
        start_s=rng.random() * 0.5,
        kill_s=rng.expovariate(2.0) if rng.random() < 0.15 else None,
        cancel_s=rng.expovariate(2.0) if rng.random() < 0.1 else None,
    )


def asking(n: int) -> dict[str, Any]:
    """Return the arguments of a question whether it is this number or the next."""
    return {"question": "Which is it?", "choices": [str(n), str(n + 1)]}


def make_actions(rng: Random) -> list[Any]:
    """Generate what one agent will try: mostly valid, sometimes the same again, some together, some reads at once."""
    actions: list[dict[str, Any]] = []
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        if actions and rng.random() < 0.15:
            actions.append(actions[-1])
            continue
        tool = rng.choices(TOOLS, WEIGHTS)[0]
        good = {"n": rng.randint(0, MAX_THING if tool in ON_THINGS else 99)}
        bad = rng.choice(({"n": "1"}, {}, {"n": 1, "z": 2}, {"n": True}, {"n": -1}))
        args = bad if rng.random() < 0.06 else good
        actions.append({"tool": tool, "args": asking(good["n"]) if tool == "ask" else args})
    grouped = _together(rng, actions)
    if rng.random() < 0.25:
        tools = rng.choices(("look", "peek"), (5, 1), k=rng.randint(2, 6))
        reads = [{"tool": tool, "args": {"n": rng.randint(0, MAX_THING)}} for tool in tools]
        grouped.insert(rng.randint(0, len(grouped)), reads)
    if rng.random() < 0.15:  # people are asked about these in one question
        tool = rng.choice(("mail", "mail", "wipe", "lend"))
        like = [{"tool": tool, "args": {"n": rng.randint(0, MAX_THING)}} for _ in range(rng.randint(2, 4))]
        grouped.insert(rng.randint(0, len(grouped)), like)
    return grouped


_SMALL: dict[str, tuple[int, ...]] = {
    "max_steps": (0, 1, 2, 4, 6),
    "max_seconds": (0, 1, 2),
    "max_tool_calls": (0, 1, 2, 3),
    "max_tokens": (0, 10, 25),
    "max_cost_microusd": (0, 5, 12, 30),
    "max_output_bytes": (10, 60, 200),
    "max_repeats": (1, 2),
    "max_rejections": (0, 1),
    "max_handoffs": (0, 1, 2),
    "max_depth": (0, 1, 2),
    "decide_ms": (1, 30, 200),
    "tool_ms": (1, 30, 200),
}


def _limits(rng: Random) -> Limits:
    share = rng.choice((0.0, 0.03, 0.15))
    small = {name: rng.choice(values) for name, values in _SMALL.items() if rng.random() < share}
    return Limits(
        **{
            "max_refusals": rng.randint(0, 3),
            "doubt_wait_s": rng.choice((0, 5)),
            **small,
        }
    )
