"""What the gate reserves for a call, and how the ledger is rebuilt from the journal.

The tree is `org` -> `tenant/NAME` -> `run/ID`.  A run's account is its root's: branches and agents that control was
handed to share it.  A call's price is known before it (its tool's `cost_microusd`), so it is counted when it is
granted, under its idempotency key: every later attempt of the call is the same use.  A call that was granted and then
did not run stays counted, for only its executor could vouch for that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from airside.stack.errors import InvalidInput
from airside.stack.ids import EffectKey, RunId, TenantId, root_of
from airside.stack.ledger import Cap, Ledger, Shortage
from airside.stack.reasons import ReasonCode
from airside.stack.toolspec import ToolSpec
from airside.stack.values import Identity

ORG = "org"

_ENDED_KEPT = 100_000
"""Ended runs whose late calls are told apart; what a run that ended before them asks for, the journal refuses."""


class Spent(NamedTuple):
    """Calls that the journal knows were intended: of an unfinished run with their `key`, of ended ones summed up."""

    tenant: TenantId
    run_id: RunId
    key: str
    tool: str
    calls: int
    cost_microusd: int
    at_us: int


class Spending:
    """The budgets of a cell, as the gate uses them.  `tenants` has the caps of those that have any."""

    def __init__(
        self,
        organisation: Iterable[Cap] = (),
        tenants: Mapping[str, Iterable[Cap]] | None = None,
        spent: Iterable[Spent] = (),
    ) -> None:
        self.ledger = Ledger()
        self._tenants = {name: tuple(caps) for name, caps in (tenants or {}).items()}
        self._prices: dict[str, dict[str, int]] = {}
        self._ended: OrderedDict[RunId, None] = OrderedDict()
        self._organisation = tuple(organisation)
        self.ledger.open(ORG, self._organisation)
        for name in self._tenants:
            self._tenant(TenantId(name))
        for past in spent:
            self._record(past)

    def _tenant(self, tenant: TenantId) -> str:
        name = f"tenant/{tenant}"
        if not self.ledger.is_open(name):
            self.ledger.open(name, self._tenants.get(tenant, ()), parent=ORG)
        return name

    def _record(self, past: Spent) -> None:
        tenant = self._tenant(past.tenant)
        used = {"tool_calls": past.calls, f"tool:{past.tool}": past.calls, "cost_microusd": past.cost_microusd}
        if not past.key:
            self.ledger.record(tenant, used, at_us=past.at_us)
            return
        run = f"run/{root_of(past.run_id)}"
        # Its limits are its identity's, which the first request of the run brings.
        self.ledger.open(run, None, parent=tenant)
        self.ledger.record(run, used, at_us=past.at_us, key=past.key)

    def reserve(
        self, identity: Identity, run_id: RunId, key: EffectKey, spec: ToolSpec, *, now_us: int
    ) -> Shortage | None:
        """Count a call under its key on its run, its tenant and the organisation, or say what is short."""
        root = root_of(run_id)
        run, limits = f"run/{root}", identity.limits
        if root in self._ended:
            raise InvalidInput(f"{root} has ended")
        if not self.ledger.has_caps(run):
            caps = (
                Cap(unit="tool_calls", limit=limits.max_tool_calls),
                Cap(unit="cost_microusd", limit=limits.max_cost_microusd),
            )
            self.ledger.open(run, caps, parent=self._tenant(identity.tenant))
        price = self._prices.get(spec.name)
        if price is None:
            price = {"tool_calls": 1, f"tool:{spec.name}": 1, "cost_microusd": spec.cost_microusd}
            self._prices[spec.name] = price
        return self.ledger.reserve(key, run, price, now_us=now_us, settled=True)

    def counts(self, tenant: TenantId, spec: ToolSpec) -> bool:
        """Whether a call of this tool uses up anything that runs share."""
        units = {"tool_calls", f"tool:{spec.name}"} | ({"cost_microusd"} if spec.cost_microusd else set())
        return any(cap.unit in units for cap in (*self._organisation, *self._tenants.get(tenant, ())))

    def stats(self) -> dict[str, dict[str, int]]:
        """Return what the organisation and the tenants with budgets have used, per unit."""
        shown = {ORG, *(f"tenant/{name}" for name in self._tenants)}
        return {name: used for name, used in self.ledger.stats().items() if name in shown}

    def close(self, run_id: RunId) -> None:
        """Forget a run that has ended; what it used stays counted on its tenant, and it gets no further account."""
        self.ledger.close(f"run/{run_id}")
        self._ended[run_id] = None
        if len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)


def reason_of_shortage(short: Shortage) -> ReasonCode:
    """Return why a call is refused: the run's own limit, or a budget it shares."""
    if not short.account.startswith("run/"):
        return ReasonCode.BUDGET_EXHAUSTED
    return ReasonCode.MAX_TOOL_CALLS if short.unit == "tool_calls" else ReasonCode.MAX_COST
