"""Policy: the bundle in force, its rules in words and as written, and how often each fired."""

from __future__ import annotations

from typing import Any

import msgspec

from airside.actors.console.visits import Shown, Visit
from airside.stack.operations.questions import PolicyStanding, PolicyUse

SINCE = {"1h": 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400}
USUAL = "7d"

MAX_RULES = 200
MAX_APART = 50
MAX_LINES = 1_000


async def page(visit: Visit) -> Shown:
    """Show the policy."""
    since, tenant = visit.query.get("since", USUAL), visit.query.get("tenant").strip()
    if since not in SINCE:
        since = USUAL
    begins = visit.ago(SINCE[since])
    found = await visit.look("policy", PolicyStanding, PolicyUse(tenant=tenant, since=begins))
    lines = found.text.split("\n")
    context = {
        "policy": found,
        "rules": [(each, _written(each.written)) for each in found.rules[:MAX_RULES]],
        "more_rules": max(0, len(found.rules) - MAX_RULES),
        "never": [each.id for each in found.rules if not each.fired],
        "apart": found.apart[:MAX_APART],
        "more_apart": max(0, len(found.apart) - MAX_APART),
        "lines": lines[:MAX_LINES] if found.text else [],
        "more_lines": max(0, len(lines) - MAX_LINES),
        "spans": list(SINCE),
        "since": since,
        "tenant": tenant or ("" if visit.session.reaches_all else visit.session.who.tenant),
        "reaches_all": visit.session.reaches_all,
        "is_partial": found.since_us > int(begins.timestamp() * 1e6),
    }
    return Shown("policy.html", context)


def _written(rule: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(rule), indent=2).decode()
