"""What operators see to beyond runs and batches: switches, and what is in doubt."""

from __future__ import annotations

from airside.actors.api.messages import Listing
from airside.actors.console.visits import Shown, Visit
from airside.stack.operations.questions import InDoubt, Switches
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.spend_in_doubt import SpendInDoubt

MAX_SHOWN_ROWS = 200

OF_THE_HOUSE = ("tool", "version", "all")
"""What is switched for all tenants at once, by those who run the stack alone."""


async def switches(visit: Visit) -> Shown:
    """Show what is switched off."""
    asked = Switches(limit=MAX_SHOWN_ROWS, cursor=visit.query.get("cursor"))
    page = await visit.look("switches", Listing[KillSwitchChanged], asked)
    context = {
        "switches": page.items,
        "next": page.next,
        "may_order": visit.may("order:switch_on"),
        "may_kill": visit.may("order:kill"),
        "of_the_house": OF_THE_HOUSE,
        "now_us": visit.now_us,
    }
    return Shown("switches.html", context)


async def in_doubt(visit: Visit) -> Shown:
    """Show the calls, and the attempts at questions to models, of which nobody knows what became."""
    calls_at, spend_at = visit.query.get("cursor"), visit.query.get("spend")
    calls = await visit.look("in_doubt", Listing[InDoubtCall], InDoubt(limit=MAX_SHOWN_ROWS, cursor=calls_at))
    spend = await visit.look_if(
        "spend_in_doubt", Listing[SpendInDoubt], InDoubt(limit=MAX_SHOWN_ROWS, cursor=spend_at)
    ) or Listing[SpendInDoubt](items=[])
    context = {
        "calls": calls.items,
        "more_calls": {"cursor": calls.next, "spend": spend_at} if calls.next else None,
        "spend": spend.items,
        "more_spend": {"cursor": calls_at, "spend": spend.next} if spend.next else None,
        "may_settle": visit.may("order:settle"),
        "may_resolve": visit.may("order:resolve_spend"),
        "now_us": visit.now_us,
    }
    return Shown("in_doubt.html", context)
