"""Tenants: what each may have, what is spent of it, what is kept of it, and what is switched off there."""

from __future__ import annotations

from airside.actors.api.messages import Listing
from airside.actors.console.now import by_tenant
from airside.actors.console.operations import MAX_SHOWN_ROWS, OF_THE_HOUSE
from airside.actors.console.visits import Shown, Visit
from airside.stack.operations.questions import BudgetLine, Counts, OfTenant, RunCount, TenantStanding
from airside.stack.policy.kill_switches import KillSwitchChanged

SINCE_S = 86_400
"""Runs that ended longer ago are not counted here."""


async def listed(visit: Visit) -> Shown:
    """List tenants, with how many runs are active; and, for the house, the organisation's budgets."""
    if not visit.session.reaches_all:
        return await _shown(visit, visit.session.who.tenant)
    found = (await visit.look("tenants", Listing[TenantStanding], OfTenant())).items
    budgets = await visit.look_if("budgets", Listing[BudgetLine], OfTenant())
    counts = await visit.look_if("counts", Listing[RunCount], Counts(since=visit.ago(SINCE_S)))
    runs = dict(by_tenant([] if counts is None else counts.items))
    context = {
        "rows": [(each, runs.get(each.tenant, {})) for each in found[:MAX_SHOWN_ROWS]],
        "more": max(0, len(found) - MAX_SHOWN_ROWS),
        "lines": [] if budgets is None else budgets.items,
    }
    return Shown("tenants.html", context)


async def one(visit: Visit) -> Shown:
    """Show one tenant."""
    return await _shown(visit, visit.path["tenant"])


async def _shown(visit: Visit, tenant: str) -> Shown:
    of_it = OfTenant(tenant=tenant)
    standing = (await visit.look("tenants", Listing[TenantStanding], of_it)).items[0]
    budgets = await visit.look_if("budgets", Listing[BudgetLine], of_it)
    switches = await visit.look_if("switches", Listing[KillSwitchChanged], of_it)
    off = [] if switches is None else switches.items
    counts = await visit.look_if("counts", Listing[RunCount], Counts(tenant=tenant, since=visit.ago(SINCE_S)))
    runs = dict(by_tenant([] if counts is None else counts.items))
    context = {
        "it": standing,
        "runs": runs.get(tenant, {}),
        "lines": [] if budgets is None else budgets.items,
        "switches": off[:MAX_SHOWN_ROWS],
        "more": max(0, len(off) - MAX_SHOWN_ROWS),
        "may_order": visit.may("order:switch_off"),
        "may_kill": visit.may("order:kill"),
        "of_the_house": OF_THE_HOUSE,
    }
    return Shown("tenant.html", context)
