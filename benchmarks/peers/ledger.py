"""The workload of the load benchmarks in plain Python: the agent, the policy's twenty rules, the tools.

The peers run it in environments of their own, so nothing here imports Airside.  `tests/unit/benchmarks/test_peers.py`
holds that agent and rules say what those of `benchmarks/ledger_app.py` say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["allow", "require_approval", "deny"]
Json = dict[str, Any]

TENANTS, RUNS, STEPS = 20, 10, 8
"""Tenants, runs a tenant, steps a run: the smaller size of `benchmarks.governed_steps`."""

EFFECTS = {"balance": "read", "post": "write"}
SCOPES = ("ledger",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of the policy: what it matches, and what follows."""

    id: str
    outcome: Outcome
    effect: str
    scope: str | None = None
    argument: str | None = None
    equals: str | None = None
    above: int | None = None

    def matches(self, effect: str, scopes: Sequence[str], arguments: Mapping[str, Any]) -> bool:
        """Say whether the rule is about this call; an argument that is absent matches no test of it."""
        if effect != self.effect or (self.scope is not None and self.scope not in scopes):
            return False
        if self.argument is None:
            return True
        value = arguments.get(self.argument)
        if self.equals is not None:
            return bool(value == self.equals)
        return isinstance(value, int) and self.above is not None and value > self.above


RULES = (
    *(
        Rule(id=f"block-{i}", outcome="deny", effect="write", argument="account", equals=f"blocked-{i}")
        for i in range(17)
    ),
    Rule(id="big", outcome="require_approval", effect="write", argument="cents", above=1_000_000),
    Rule(id="reads", outcome="allow", effect="read", scope="ledger"),
    Rule(id="posts", outcome="allow", effect="write", scope="ledger"),
)


def check(tool: str, arguments: Mapping[str, Any], scopes: Sequence[str] = SCOPES) -> tuple[Outcome, str]:
    """Return what the policy says of a call, and by which rule; what no rule allows is denied.

    The strictest outcome of all the rules that match holds, so every rule is looked at.
    """
    matching = [rule for rule in RULES if rule.matches(EFFECTS[tool], scopes, arguments)]
    for outcome in ("deny", "require_approval", "allow"):
        for rule in matching:
            if rule.outcome == outcome:
                return rule.outcome, rule.id
    return "deny", "default"


def balance(account: str, currency: str = "EUR") -> Json:
    """Return an account's balance."""
    return {"account": account, "currency": currency, "cents": 123_456}


def post(account: str, cents: int, text: str) -> Json:
    """Post an entry."""
    return {"posted": cents, "account": account}


TOOLS: dict[str, Callable[..., Json]] = {"balance": balance, "post": post}


def decide(done: int, steps: int) -> tuple[str, Json] | None:
    """Return the next call of a run that has made `done` of them, reading and posting in turn; none at the end."""
    if done >= steps:
        return None
    if done % 2 == 0:
        return "balance", {"account": f"acc-{done}"}
    return "post", {"account": f"acc-{done}", "cents": 100 + done, "text": "monthly fee"}


def governed_step(done: int, steps: int) -> Json | None:
    """Decide, check and call; return what is to be made durable of it, or none if the run is done."""
    decided = decide(done, steps)
    if decided is None:
        return None
    tool, arguments = decided
    outcome, rule = check(tool, arguments)
    result = TOOLS[tool](**arguments) if outcome == "allow" else None
    return {"tool": tool, "arguments": arguments, "outcome": outcome, "rule": rule, "result": result}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of a workload."""

    id: str
    tenant: int


def workload(name: str, runs: int) -> list[Run]:
    """Return `runs` runs of each tenant, tenants taking turns; ids differ between workloads."""
    return [Run(id=f"{name}-{tenant}-{i}", tenant=tenant) for i in range(runs) for tenant in range(TENANTS)]


def checked_run(history: Sequence[Json | None], steps: int = STEPS) -> None:
    """Raise `SystemExit` if a run did not make all its calls, each of them allowed."""
    if [entry["outcome"] for entry in history if entry] != ["allow"] * steps:
        raise SystemExit(f"a run did not do its {steps} steps: {history}")
