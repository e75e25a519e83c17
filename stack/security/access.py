"""Who may do and see what by a credential: one table, which Ingress reads.

A rule says which roles reach all of their tenant, and whether anybody reaches what is his own.  The tenant is always
the credential's.  Where the directory names a tenant as its `house`, operators and auditors of that one reach all
tenants.  A token with a claim `scope` allows only the areas that it names, and its holder's roles as far as these go.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from airside.stack.ids import PrincipalId, TenantId
from airside.stack.reasons import ReasonCode
from airside.stack.security.memory_orders import KEEPER
from airside.stack.values import Identity

OPERATOR = "operator"
"""The role by which a principal gives its tenant's orders."""

AUDITOR = "auditor"
"""The role by which a principal reads all that its tenant has on record."""

Area = Literal["runs:read", "runs:write", "approvals", "operate", "audit", "memory"]
"""What a token may be narrowed to."""

AREAS: frozenset[str] = frozenset(get_args(Area))

Reach = Literal["own", "tenant", "all"]
"""How far somebody may: to the runs he asked for, to all of his tenant, to all tenants."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may: holders of one of the `roles`, all of their tenant, by a token that allows one of the `areas`.

    `own` are the areas by one of which anybody may what is his own; without any nobody may.  What is `houses` only who
    reaches all tenants may.
    """

    roles: frozenset[str] = frozenset()
    areas: frozenset[Area] = frozenset()
    own: frozenset[Area] = frozenset()
    houses: bool = False


def _rule(roles: Collection[str] = (), areas: Collection[Area] = (), own: Collection[Area] = ()) -> Rule:
    return Rule(frozenset(roles), frozenset(areas), frozenset(own))


_ORDER = _rule([OPERATOR], ["operate"])
_OF_RUNS = _rule([OPERATOR, AUDITOR], ["runs:read", "operate", "audit"], own=["runs:read"])
_OF_APPROVALS = _rule([OPERATOR, AUDITOR], ["approvals", "operate", "audit"], own=["approvals"])
_OF_TENANTS = _rule([OPERATOR, AUDITOR], ["operate", "audit"])
_OF_AUDITS = _rule([AUDITOR], ["audit"])

ACCESS: dict[str, Rule] = {
    "submit": _rule(own=["runs:write"]),
    "offer": _rule(own=["runs:write"]),
    "vote": _rule(own=["approvals"]),
    "keep": _rule([KEEPER], ["memory"]),
    "follow": _OF_AUDITS,
    "order:kill": _ORDER,
    "order:cancel": _rule([OPERATOR], ["operate"], own=["runs:write"]),
    "order:settle": _ORDER,
    "order:rollback": _ORDER,
    "order:resolve_spend": replace(_ORDER, houses=True),  # what is given back, is given back to the organisation too
    "order:switch_off": _ORDER,
    "order:switch_on": _ORDER,
    "order:batch": _ORDER,
    "view:counts": _OF_RUNS,
    "view:runs": _OF_RUNS,
    "view:run": _OF_RUNS,
    "view:events": _OF_RUNS,
    "view:story": _OF_RUNS,
    "view:approvals": _OF_APPROVALS,
    "view:approval_form": _OF_APPROVALS,
    "view:in_doubt": _OF_TENANTS,
    "view:spend_in_doubt": _OF_TENANTS,
    "view:switches": _OF_TENANTS,
    "view:budgets": _OF_TENANTS,
    "view:batches": _OF_TENANTS,
    "view:batch": _OF_TENANTS,
    "view:queries": _OF_AUDITS,
    "view:sql": _OF_AUDITS,
    "view:search": _OF_AUDITS,
    "view:chain": _OF_AUDITS,
    "view:policy": _OF_TENANTS,
    "view:tenants": _OF_TENANTS,
    "view:health": _rule([OPERATOR], ["operate"]),
    "view:memory": _rule([KEEPER], ["memory"]),
    "view:me": _rule(own=get_args(Area)),
}
"""Each thing that is done by a credential: what is sent to a layer, the orders by their actions, the views."""

TENANTS_SCOPES = frozenset({"run", "tenant", "principal"})
"""What an order of a tenant's operator is about; tools, versions and everything are the house's."""

_CROSSING = frozenset({OPERATOR, AUDITOR})
"""The roles that reach all tenants, of principals of the house."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds a credential, and to which areas it is narrowed; None if it is not."""

    identity: Identity
    areas: frozenset[str] | None = None

    def allows(self, areas: Collection[str]) -> bool:
        """Whether the credential is good for one of these areas."""
        return self.areas is None or not self.areas.isdisjoint(areas)

    def __str__(self) -> str:
        return f"{self.identity.principal}@{self.identity.tenant}"


@dataclass(frozen=True, slots=True)
class NoAccess:
    """Why somebody may not."""

    code: str
    problem: str


def narrowed(claim: Any) -> frozenset[str] | None:
    """Return the areas a token's claim `scope` allows, None if it has none; a word that is no area allows nothing."""
    return None if claim is None else AREAS & frozenset(claim.split())


def reach(name: str, caller: Caller, house: TenantId | str | None) -> Reach | NoAccess:
    """Return how far somebody may what `name` of the table says, or why not at all."""
    rule, who = ACCESS[name], caller.identity
    held = rule.roles & set(who.roles)
    what, crosses = name.replace(":", " "), who.tenant == house and bool(held & _CROSSING)
    if rule.houses and not crosses:
        return NoAccess("wrong_role", f"{who.principal} may not {what}: those of the house may")
    if held and caller.allows(rule.areas):
        return "all" if crosses else "tenant"
    if rule.own and caller.allows(rule.own):
        return "own"
    if held or rule.own:
        areas = " or ".join(sorted(rule.areas | rule.own))
        code = ReasonCode.AUTH_SCOPE_MISSING
        return NoAccess(code.value, f"{code.sentence} ({what} needs {areas} in its scope)")
    roles = " or ".join(sorted(rule.roles))
    return NoAccess("wrong_role", f"{who.principal} may not {what}: the role {roles} may")


def reaches(caller: Caller, house: TenantId | str | None) -> dict[str, Reach]:
    """Return all that somebody may, and how far."""
    found = {name: reach(name, caller, house) for name in ACCESS}
    return {name: far for name, far in found.items() if not isinstance(far, NoAccess)}


def is_within(whose: tuple[TenantId, PrincipalId] | None, caller: Caller, far: Reach) -> bool:
    """Whether what is of a tenant and a principal, or is not there (None), is within somebody's reach."""
    if whose is None:
        return False
    if far == "own":
        return whose == (caller.identity.tenant, caller.identity.principal)
    return far == "all" or whose[0] == caller.identity.tenant
