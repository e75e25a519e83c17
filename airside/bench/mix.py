"""What runs do: a plan of calls for each, drawn from a mix of kinds, and how a run of that plan has to end.

A plan is data, which the benchmark's one agent follows (`airside/bench/app.py`).  So a recorded run can be a plan too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, Protocol

from airside.stack.errors import InvalidInput
from airside.stack.reasons import ReasonCode

KNOWN, UNKNOWN = "clerk", "stranger"
"""Who asks for runs: a principal of the directory, and one that is not in it."""

LARGE_CENTS = 1_000_000
"""From here on a person is asked."""

BLOCKED = "blocked"
"""The account to which policy allows nothing."""


MOST_CALLS = 100
"""Of a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a plan: a tool of the benchmark's app, its arguments, and how long the agent thinks before it."""

    tool: str
    arguments: dict[str, Any]
    decide_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does, and how it ends if all is well.  `waits` = somebody is asked on the way."""

    kind: str
    calls: tuple[Call, ...] = ()
    ending: ReasonCode = ReasonCode.COMPLETED
    principal: str = KNOWN
    waits: bool = False

    def inputs(self) -> dict[str, Any]:
        """Return the job's inputs, which the agent reads."""
        return {"calls": [[call.tool, call.arguments, call.decide_s] for call in self.calls]}


class Source(Protocol):
    """Where plans come from."""

    def plan(self, rng: Random) -> Plan:
        """Return the plan of the next run."""

    @property
    def waits(self) -> bool:
        """Whether any of its runs waits for a person."""


def read_call(number: int, seconds: float = 0.0) -> Call:
    """Return a call that changes nothing."""
    return Call(tool="read_account", arguments={"account": f"account-{number}", "seconds": seconds})


def write_call(number: int, *, account: str = "", cents: int = 0, seconds: float = 0.0) -> Call:
    """Return a call that changes something."""
    arguments = {"account": account or f"account-{number}", "cents": cents or 100 + number, "seconds": seconds}
    return Call(tool="post_entry", arguments=arguments)


def approval_call(number: int, seconds: float = 0.0) -> Call:
    """Return a call that waits for a person."""
    return write_call(number, cents=LARGE_CENTS + number, seconds=seconds)


def _plan(kind: str, steps: int) -> Plan:
    """Return the plan of a kind, with so many calls where it goes to its end."""
    reads = tuple(read_call(number) for number in range(steps))
    pairs = tuple(write_call(number) if number % 2 else read_call(number) for number in range(steps))
    match kind:
        case "read":
            return Plan(kind=kind, calls=reads)
        case "write":
            return Plan(kind=kind, calls=pairs)
        case "approval":
            return Plan(kind=kind, calls=(*reads[:-1], approval_call(steps)), waits=True)
        case "denied":
            calls = (*reads[:-1], write_call(steps, account=BLOCKED))
            return Plan(kind=kind, calls=calls, ending=ReasonCode.POLICY_DENIED)
        case "fault":
            return Plan(kind=kind, calls=(*reads[:-1], Call(tool="fail", arguments={"number": steps})))
        case "refused":
            return Plan(kind=kind, ending=ReasonCode.PRINCIPAL_UNKNOWN, principal=UNKNOWN)
    raise InvalidInput(f"--mix {kind!r:.40}: say some of {', '.join(KINDS)}, as read=50,write=50")


KINDS = {
    "read": "calls that change nothing",
    "write": "calls in turns that do and do not",
    "approval": "the last call waits until the benchmark approves it",
    "denied": "policy denies the last call, which ends the run",
    "fault": "the last call's tool fails, and the run completes nevertheless",
    "refused": "somebody asks whom the directory does not know, and the run is not admitted",
}
DEFAULT_MIX = "read=45,write=45,approval=2,denied=3,fault=3,refused=2"


class Mix:
    """Draws kinds by their weights."""

    def __init__(self, weights: dict[str, float], steps: int) -> None:
        if not sum(weights.values()) > 0 or min(weights.values()) < 0:
            raise InvalidInput("--mix: weights are numbers of at least 0, of which one is more")
        if not 1 <= steps <= MOST_CALLS:
            raise InvalidInput(f"--steps {steps}: give a number from 1 to {MOST_CALLS}")
        drawn = {kind: weight for kind, weight in weights.items() if weight}
        self._plans = [_plan(kind, steps) for kind in drawn]
        self._sums = list(accumulate(drawn.values()))

    def plan(self, rng: Random) -> Plan:
        """Return the plan of the next run."""
        (plan,) = rng.choices(self._plans, cum_weights=self._sums)
        return plan

    @property
    def waits(self) -> bool:
        """Whether any of its runs waits for a person."""
        return any(plan.waits for plan in self._plans)


class Recorded:
    """Draws plans of recorded runs, each as likely as any other."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = plans

    def plan(self, rng: Random) -> Plan:
        """Return the plan of the next run."""
        return rng.choice(self._plans)

    @property
    def waits(self) -> bool:
        """Whether any of its runs waits for a person."""
        return any(plan.waits for plan in self._plans)


def parse_mix(text: str, steps: int) -> Mix:
    """Return the mix of a text; raise `InvalidInput` for what is none."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, _, weight = (each.strip() for each in part.partition("="))
        if kind in weights:
            raise InvalidInput(f"--mix: {kind} is given twice")
        try:
            weights[kind] = float(weight)
        except ValueError:
            raise InvalidInput(f"--mix {part.strip()!r:.60}: write a kind and its weight, as read=50") from None
    return Mix(weights, steps)
