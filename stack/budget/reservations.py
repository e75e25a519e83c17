"""What the gate reserves for decisions and calls, and how the ledger is rebuilt from the journal.

The tree is `org` -> `tenant/NAME` -> `run/ID` -> `share/ID`.  A run has its principal's limits, or lower ones it was
submitted with; a branch has a share of its parent's, and all above it are counted too.  An agent that control was
handed to has its run's.

A call's price is known before it (its tool's `cost_microusd`), so it is counted when it is granted, under its
idempotency key: every later attempt of the call is the same use.  A call that was granted and then did not run stays
counted, for only its executor could vouch for that.  A decision's price is the most it can cost, so it is reserved, and
settled when it is made; the same holds for the time that decisions and calls take.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from airside.stack.budget.ledger import Cap, Ledger, Per, Shortage, window_of
from airside.stack.budget.recorded_usage import RecordedUsage
from airside.stack.contracts.budget import ReservationRequest, Settlement, decision_usage
from airside.stack.errors import InvalidInput
from airside.stack.ids import EffectKey, RunId, TenantId, root_of
from airside.stack.reasons import ReasonCode
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import FREE, Identity, Limits, Spend, Value, at_least, less

ORG = "org"

DECISION_UNITS = frozenset({"steps", "tokens", "cost_microusd", "wall_ms"})
"""What decisions use: where a budget counts one of these, every decision is reserved."""

PRICED = frozenset({"tokens", "cost_microusd"})
"""What nothing without a price may be bought from."""

_RESERVED = re.compile(r"[0-9]+/(decide|wall)@[0-9]+")
"""What follows the run in the key of a reservation; a call's key is counted, and never settled."""

_FLOORS_KEPT = 100_000
"""Decisions of which it is remembered what models cost them."""

_ENDED_KEPT = 100_000
"""Ended runs whose late calls are told apart; what a run that ended before them asks for, the journal refuses."""


class BudgetStanding(Value):
    """A budget that runs share, and what of it is taken in the window that began at `begins_us` (0: ever).

    `reserved` is set aside for what is under way, and `spent` what was used.
    """

    unit: str
    per: Per
    limit: int
    reserved: int
    spent: int
    begins_us: int = 0


class BudgetReservations:
    """The budgets of a cell, as the gate uses them.  `tenants` has the caps of those that have any."""

    def __init__(
        self,
        organisation: Iterable[Cap] = (),
        tenants: Mapping[str, Iterable[Cap]] | None = None,
        spent: Iterable[RecordedUsage] = (),
        now_us: int = 0,
    ) -> None:
        self.ledger = Ledger(now_us)
        self._tenants = {name: tuple(caps) for name, caps in (tenants or {}).items()}
        self._prices: dict[str, dict[str, int]] = {}
        self._units: dict[str, frozenset[str]] = {}
        self._floors: OrderedDict[str, Spend] = OrderedDict()
        self._ended: OrderedDict[RunId, None] = OrderedDict()
        self._given_back: set[str] = set()
        self._organisation = tuple(organisation)
        self.ledger.open(ORG, self._organisation)
        for name in self._tenants:
            self._tenant(TenantId(name))
        for past in spent:
            self._record(past)

    def standings(self, tenant: TenantId | None, *, now_us: int) -> list[BudgetStanding]:
        """Return how the budgets of a tenant (of the organisation, if it is None) stand in the present windows."""
        name = ORG if tenant is None else self._tenant(tenant)
        found = []
        for cap in self._organisation if tenant is None else self._tenants.get(tenant, ()):
            reserved, spent = self.ledger.used(name, cap.unit, cap.per, now_us=now_us)
            begins = window_of(cap.per, now_us)
            standing = BudgetStanding(
                unit=cap.unit, per=cap.per, limit=cap.limit, reserved=reserved, spent=spent, begins_us=begins
            )
            found.append(standing)
        return found

    def _tenant(self, tenant: TenantId) -> str:
        name = f"tenant/{tenant}"
        if not self.ledger.is_open(name):
            self.ledger.open(name, self._tenants.get(tenant, ()), parent=ORG)
        return name

    def _record(self, past: RecordedUsage) -> None:
        tenant = self._tenant(past.tenant)
        if not past.key:
            self.ledger.record(tenant, past.used(), at_us=past.at_us)
            return
        account = tenant
        for name in _accounts(past.run_id):
            # Its limits are its identity's or its share, which the first request brings.
            self.ledger.open(name, None, parent=account)
            account = name
        self.ledger.record(account, past.used(), at_us=past.at_us, key=past.key, settled=not past.is_open)

    def _account(self, identity: Identity, run_id: RunId, share: Limits | None) -> str:
        """Return the run's account, opened with all above it; raise `InvalidInput` if its root has ended."""
        if root_of(run_id) in self._ended:
            raise InvalidInput(f"{root_of(run_id)} has ended")
        names = _accounts(run_id)
        if not self.ledger.has_caps(names[-1]):
            above = self._tenant(identity.tenant)
            for name in names:
                own = share if name == names[-1] else None
                # What a branch between may have is known when it asks itself.
                known = name in (names[0], names[-1])
                most = identity.limits if name == names[0] else own
                self.ledger.open(name, _caps(most, own) if known else None, parent=above)
                above = name
        return names[-1]

    def reserve(
        self,
        identity: Identity,
        run_id: RunId,
        key: EffectKey,
        spec: ToolSpec,
        *,
        now_us: int,
        share: Limits | None = None,
        wall_key: str = "",
        wall_ms: int = 0,
    ) -> Shortage | None:
        """Count a call under its key on its run and all above, or say what is short.

        With a `wall_key` the time it may take is reserved under that.
        """
        account, price = self._account(identity, run_id, share), self._price(spec)
        short = self.ledger.reserve(wall_key, account, {"wall_ms": wall_ms}, now_us=now_us) if wall_key else None
        if short is not None:
            return short
        short = self.ledger.reserve(key, account, price, now_us=now_us, settled=True)
        if short is not None and wall_key:
            self.ledger.release(wall_key)
        return short

    def shortage(
        self,
        identity: Identity,
        run_id: RunId,
        key: EffectKey,
        spec: ToolSpec,
        *,
        now_us: int,
        share: Limits | None = None,
        wall_ms: int = 0,
    ) -> Shortage | None:
        """Return what a call would be refused for at this moment; nothing is counted."""
        account = self._account(identity, run_id, share)
        short = self.ledger.shortage("", account, {"wall_ms": wall_ms}, now_us=now_us) if wall_ms else None
        return short or self.ledger.shortage(key, account, self._price(spec), now_us=now_us)

    def _price(self, spec: ToolSpec) -> dict[str, int]:
        """Return what one call of a tool uses up, its time aside."""
        price = self._prices.get(spec.name)
        if price is None:
            price = {"tool_calls": 1, f"tool:{spec.name}": 1, "cost_microusd": spec.cost_microusd or 0}
            self._prices[spec.name] = price
        return price

    def reserve_decision(
        self, identity: Identity, run_id: RunId, wanted: ReservationRequest, *, now_us: int, share: Limits | None = None
    ) -> Shortage | None:
        """Reserve what a decision can use on its run and all above, or say what is short.

        Raise `InvalidInput` for a key that is not of a decision of this run.
        """
        if _kind(run_id, wanted.key) != "decide":
            raise InvalidInput(f"budget: {wanted.key!r:.80} is not a decision of {run_id}")
        account = self._account(identity, run_id, share)
        return self.ledger.reserve(wanted.key, account, decision_usage(wanted.price, wanted.wall_ms), now_us=now_us)

    def note_spent(self, identity: Identity, run_id: RunId, key: str, spent: Spend, *, now_us: int) -> None:
        """Take in what models cost a decision, by who asked them: whatever its run says, it used at least that.

        What is told after the decision was settled at less, or its run has ended, counts beside it.
        """
        if spent == FREE or _kind(run_id, key) != "decide":
            return
        told = at_least(self._floors.get(key, FREE), spent)
        if not self.ledger.is_reserved(key):
            counted = at_least(self._floors.get(key, FREE), _spend_of(self.ledger.settled(key)))
            late = less(told, counted)
            account = next((name for name in reversed(_accounts(run_id)) if self.ledger.is_open(name)), None)
            used = {"tokens": late.tokens, "cost_microusd": late.cost_microusd}
            self.ledger.record(account or self._tenant(identity.tenant), used, at_us=now_us)
        self._floors[key] = told
        self._floors.move_to_end(key)
        if len(self._floors) > _FLOORS_KEPT:
            self._floors.popitem(last=False)

    def give_back(self, tenant: TenantId, key: str, spend: Spend, *, at_us: int) -> None:
        """Count so much less for a tenant and all above it, in the windows of a time; once for each key.

        It is of a run that has ended, so what it used is on no account below.
        """
        if key in self._given_back:
            return
        self._given_back.add(key)
        used = {"tokens": spend.tokens, "cost_microusd": spend.cost_microusd}
        self.ledger.give_back(self._tenant(tenant), used, at_us=at_us)

    def reserved_decision(self, run_id: RunId, key: str, *, now_us: int) -> Spend | None:
        """Return what is reserved for a decision of a run and not settled yet; None if nothing is."""
        amounts = self.ledger.reserved(key, now_us=now_us) if _kind(run_id, key) == "decide" else None
        return None if amounts is None else _spend_of(amounts)

    def settle(
        self,
        identity: Identity,
        run_id: RunId,
        settled: Iterable[Settlement],
        *,
        now_us: int,
        share: Limits | None = None,
    ) -> None:
        """Take in what a run used, reserved or not.

        Raise `InvalidInput` for another run's, and for a call's: what that uses is known, and nothing of it comes back.
        """
        for each in settled:
            if not _kind(run_id, each.key):
                raise InvalidInput(f"budget: {each.key!r:.80} is not a reservation of {run_id}")
            if not each.used.keys() <= DECISION_UNITS:
                raise InvalidInput(f"budget: {each.key!r:.80} can use {sorted(DECISION_UNITS)}, nothing else")
            self.ledger.reserve(each.key, self._account(identity, run_id, share), {}, now_us=now_us)
            self.ledger.settle(each.key, self._at_least(each))

    def _at_least(self, settled: Settlement) -> dict[str, int]:
        """Return what a settlement says was used, and no less than models cost it."""
        floor = self._floors.get(settled.key)
        if floor is None:
            return settled.used
        least = {"tokens": floor.tokens, "cost_microusd": floor.cost_microusd}
        return settled.used | {unit: max(settled.used.get(unit, 0), amount) for unit, amount in least.items()}

    def must_be_priced(self, tenant: TenantId) -> bool:
        """Whether runs share a budget that nothing without a price may be bought from."""
        return not self._counted(tenant).isdisjoint(PRICED)

    def budgets_time(self, tenant: TenantId) -> bool:
        """Whether runs share a budget of time."""
        return "wall_ms" in self._counted(tenant)

    def budgets_call(self, tenant: TenantId, spec: ToolSpec) -> bool:
        """Whether a call of this tool uses up anything that runs share."""
        counted = self._counted(tenant)
        if not counted:
            return False
        used = {"tool_calls", f"tool:{spec.name}", "wall_ms"} | ({"cost_microusd"} if spec.cost_microusd else set())
        return not counted.isdisjoint(used)

    def _counted(self, tenant: TenantId) -> frozenset[str]:
        """Return the units of which runs of a tenant share a budget."""
        units = self._units.get(tenant)
        if units is None:
            units = frozenset(cap.unit for cap in (*self._organisation, *self._tenants.get(tenant, ())))
            self._units[tenant] = units
        return units

    def stats(self) -> dict[str, dict[str, int]]:
        """Return what the organisation and the tenants with budgets have used, per unit."""
        return self.ledger.stats(self._with_budgets())

    def limits(self) -> dict[str, dict[str, int]]:
        """Return what they may use of it."""
        return self.ledger.limits(self._with_budgets())

    def _with_budgets(self) -> list[str]:
        return [ORG, *(f"tenant/{name}" for name in self._tenants)]

    def close(self, run_id: RunId) -> None:
        """Forget a run that has ended; what it used stays counted on its tenant, and it gets no further account."""
        self.ledger.close(f"run/{run_id}")
        self._ended[run_id] = None
        if len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)


def _spend_of(amounts: Mapping[str, int]) -> Spend:
    return Spend(tokens=amounts.get("tokens", 0), cost_microusd=amounts.get("cost_microusd", 0))


def _kind(run_id: RunId, key: str) -> str:
    """Return what a key of this run reserves, `decide` or `wall`; "" if it is none."""
    owner, _, rest = key.partition(":")
    found = _RESERVED.fullmatch(rest) if owner == run_id else None
    return found[1] if found is not None else ""


def _accounts(run_id: RunId) -> list[str]:
    """Return the accounts of a run: its root's, and the share of each branch down to it."""
    if "." not in run_id:
        return [f"run/{run_id}"]
    root, *below = run_id.split(".")
    return [f"run/{root}", *(f"share/{'.'.join([root, *below[: n + 1]])}" for n in range(len(below)))]


@lru_cache(maxsize=1024)
def _caps(*limits: Limits | None) -> tuple[Cap, ...]:
    """Return the lowest of some limits as caps, the same ones for the runs that have the same limits."""
    given = [each for each in limits if each is not None]
    names = {"tool_calls": "max_tool_calls", "cost_microusd": "max_cost_microusd", "tokens": "max_tokens"}
    return tuple(
        Cap(unit=unit, limit=min(getattr(each, name) for each in given)) for unit, name in names.items() if given
    )


_OWN = {"tool_calls": ReasonCode.MAX_TOOL_CALLS, "tokens": ReasonCode.MAX_TOKENS}


def reason_of_shortage(short: Shortage) -> ReasonCode:
    """Return why a call or a decision is refused: the run's own limit, or a budget it shares."""
    if not short.account.startswith(("run/", "share/")):
        return ReasonCode.BUDGET_EXHAUSTED
    return _OWN.get(short.unit, ReasonCode.MAX_COST)
