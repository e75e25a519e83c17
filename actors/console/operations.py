"""What operators see to beyond runs and batches: budgets, switches, and what is in doubt."""

from __future__ import annotations

from airside.actors.api.messages import Listing
from airside.actors.console.visits import Shown, Visit
from airside.stack.operations.questions import BudgetLine, OfTenant
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.spend_in_doubt import SpendInDoubt

MAX_SHOWN_ROWS = 200


async def budgets(visit: Visit) -> Shown:
    """Show a tenant's budgets: how much of each is taken."""
    tenant = visit.query.get("tenant").strip()
    lines = (await visit.look("budgets", Listing[BudgetLine], OfTenant(tenant=tenant))).items
    context = {
        "lines": lines,
        "tenant": tenant or ("" if visit.session.reaches_all else visit.session.who.tenant),
        "reaches_all": visit.session.reaches_all,
        "now_us": visit.now_us,
    }
    return Shown("budgets.html", context)


async def switches(visit: Visit) -> Shown:
    """Show what is switched off."""
    found = (await visit.look("switches", Listing[KillSwitchChanged])).items
    context = {
        "switches": found[:MAX_SHOWN_ROWS],
        "more": max(0, len(found) - MAX_SHOWN_ROWS),
        "may_order": visit.may("order:switch_on"),
        "may_kill": visit.may("order:kill"),
        "now_us": visit.now_us,
    }
    return Shown("switches.html", context)


async def in_doubt(visit: Visit) -> Shown:
    """Show the calls, and the attempts at questions to models, of which nobody knows what became."""
    calls = (await visit.look("in_doubt", Listing[InDoubtCall])).items
    page = await visit.look_if("spend_in_doubt", Listing[SpendInDoubt])
    spend = [] if page is None else page.items
    context = {
        "calls": calls[:MAX_SHOWN_ROWS],
        "more_calls": max(0, len(calls) - MAX_SHOWN_ROWS),
        "spend": spend[:MAX_SHOWN_ROWS],
        "more_spend": max(0, len(spend) - MAX_SHOWN_ROWS),
        "may_settle": visit.may("order:settle"),
        "may_resolve": visit.may("order:resolve_spend"),
        "now_us": visit.now_us,
    }
    return Shown("in_doubt.html", context)
