"""What a decision may cost, told before the agent is asked: the messages between a run and the gate's ledger.

An agent's `price` is the most that one of its decisions can cost.  That much is reserved first, on the run, its tenant
and the organisation, and is on record before the agent is asked; what the decision did cost is told with the next
request, and the rest comes back.  A decision that is lost with its process counts in full.
"""

from __future__ import annotations

from airside.stack.ids import RunId
from airside.stack.reasons import ReasonCode
from airside.stack.values import FREE, Count, Limits, Spend, Value


class ReservationRequest(Value, array_like=True):
    """One decision: the most it can cost (None: its agent does not say), and the longest it may take."""

    key: str
    price: Spend | None
    wall_ms: Count


class Settlement(Value, array_like=True):
    """What a reservation used, by unit."""

    key: str
    used: dict[str, Count]


class SpendRequest(Value, array_like=True):
    """A run asks for one decision (`wanted` None: for nothing), and says what earlier reservations used.

    `share` are the run's own limits, where they are lower than its principal's.
    """

    identity: bytes
    proof: str
    run_id: RunId
    version: str
    wanted: ReservationRequest | None = None
    settled: tuple[Settlement, ...] = ()
    share: Limits | None = None


class SpendReply(Value, array_like=True):
    """Whether the decision may be made; `reason_code` says why not."""

    reason_code: ReasonCode | None = None
    detail: str = ""


def decision_key(run_id: RunId, step: int, epoch: int) -> str:
    """Return what one decision is reserved under: one that a later activation makes anew is another one."""
    return f"{run_id}:{step}/decide@{epoch}"


def wall_key(run_id: RunId, step: int, attempt: int) -> str:
    """Return what the time of one attempt of a call is reserved under."""
    return f"{run_id}:{step}/wall@{attempt}"


def decision_usage(price: Spend | None, wall_ms: int) -> dict[str, int]:
    """Return what a decision of a price uses, by unit."""
    spend = price or FREE
    return {"steps": 1, "tokens": spend.tokens, "cost_microusd": spend.cost_microusd, "wall_ms": wall_ms}


def exceeds_price(price: Spend | None, spend: Spend) -> bool:
    """Whether a decision cost more than its agent had named."""
    named = price or FREE
    return spend.tokens > named.tokens or spend.cost_microusd > named.cost_microusd


def milliseconds(us: int) -> int:
    """Return a time rounded up to whole milliseconds."""
    return max(0, -(-us // 1000))
