"""The app the load benchmarks run: an agent that reads and posts in turn, on tools that do almost nothing.

Policy has twenty rules, arguments are validated, every call is granted, every event journaled; what is small is the
agent's and the tools' own work, so that what is measured is Airside's.
"""

from __future__ import annotations

from airside import Action, App, Finish, View, tool
from airside.stack.directory import Directory, Principal, Tenant

TEXT = "Post this month's entries and check the balance after each of them."


@tool(effect="read", scopes=["ledger"])
async def balance(account: str, currency: str = "EUR") -> dict[str, object]:
    """Return an account's balance."""
    return {"account": account, "currency": currency, "cents": 123_456}


@tool(effect="write", idempotent=True, scopes=["ledger"])
async def post(account: str, cents: int, text: str) -> dict[str, object]:
    """Post an entry."""
    return {"posted": cents, "account": account}


def bookkeeper(view: View) -> Action | Finish:
    """Alternate between the two until the inputs' number of steps is done."""
    done = len(view.history)
    if done >= view.inputs().get("steps", 8):
        return Finish(answer=done)
    if done % 2 == 0:
        return Action(tool="balance", arguments={"account": f"acc-{done}"})
    return Action(tool="post", arguments={"account": f"acc-{done}", "cents": 100 + done, "text": "monthly fee"})


def policy() -> str:
    """Return a bundle of twenty rules, of which the last two allow."""
    denies = "\n".join(
        f"  - {{id: block-{i}, outcome: deny, when: {{effect: [write], arguments: "
        f"[{{path: account, op: eq, value: blocked-{i}}}]}}}}"
        for i in range(17)
    )
    return f"""
version: bench-1
rules:
{denies}
  - {{id: big, outcome: require_approval, approval: {{roles: [lead]}},
     when: {{effect: [write], arguments: [{{path: cents, op: gt, value: 1000000}}]}}}}
  - {{id: reads, outcome: allow, when: {{effect: [read], scopes: [ledger]}}}}
  - {{id: posts, outcome: allow, when: {{effect: [write], scopes: [ledger]}}}}
"""


def tenants(count: int) -> list[str]:
    """Return the tenants' names."""
    return [f"tenant-{i}" for i in range(count)]


def ledger_app(tenant_count: int, *, memory: bool = True) -> App:
    """Return the app for so many tenants."""
    who = {"clerk": Principal(roles=["clerk"], scopes=["ledger"]), "head": Principal(roles=["lead"])}
    directory = Directory(tenants={name: Tenant(principals=who, concurrency=1000) for name in tenants(tenant_count)})
    return App(
        agents={"bookkeeper": bookkeeper}, tools=[balance, post], policy=policy(), directory=directory, memory=memory
    )


def jobs(tenant_count: int, runs: int, steps: int) -> list[dict[str, object]]:
    """Return `runs` jobs a tenant, tenants taking turns."""
    return [
        {"job_id": f"{tenant}-{i}", "request": TEXT, "tenant": tenant, "principal": "clerk", "inputs": {"steps": steps}}
        for i in range(runs)
        for tenant in tenants(tenant_count)
    ]
