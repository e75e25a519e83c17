"""The app of the batch benchmarks: priced decisions over fifty tenants, and tools that fail, hang or do nothing.

What a job's inputs say is done: `{"steps": n}` decisions, each with a call; `"flaky"` fails in a job's first attempt;
`"hang"` waits for a person who never comes.
"""

from __future__ import annotations

import airside
from airside import Action, App, Finish, ToolError, View
from airside.stack.directory import Directory, Principal, Tenant

TENANTS = 50
PRICE_MICROUSD = 40
"""Of each decision, as an agent that asks a model would have it."""

POLICY = """
version: batch-1
rules:
  - {id: looks, outcome: allow, when: {tool: [look, flaky]}}
  - {id: asks, outcome: require_approval, approval: {roles: [lead]}, when: {tool: [ask]}}
"""


@airside.tool(effect="read")
async def look(key: str) -> str:
    """Return what is there."""
    return f"found {key}"


@airside.tool(effect="read")
async def flaky(attempt: int) -> str:
    """Fail in the first attempt at a job."""
    if attempt == 1:
        raise ToolError("the shop does not answer")
    return "found"


@airside.tool(effect="write", idempotent=True)
async def ask(key: str) -> str:
    """Change something that a lead has to approve."""
    return key


@airside.priced(tokens=20, cost_microusd=PRICE_MICROUSD)
def clerk(view: View) -> Action | Finish:
    """Do what the inputs say."""
    inputs, done = view.inputs(), len(view.own_history())
    if done and not view.own_history()[-1].result.ok:
        raise RuntimeError("the shop does not answer")  # a run that gives up, and may end otherwise another time
    spend = airside.Spend(tokens=20, cost_microusd=PRICE_MICROUSD)
    if inputs.get("hang"):
        return Action(tool="ask", arguments={"key": view.run_id}, spend=spend)
    if done < inputs.get("steps", 2):
        if inputs.get("flaky") and done == 0:
            attempt = view.request.batch.attempt if view.request.batch else 1
            return Action(tool="flaky", arguments={"attempt": attempt}, spend=spend)
        return Action(tool="look", arguments={"key": f"k{done}"}, spend=spend)
    return Finish(answer=done, spend=spend)


def batch_app(tenants: int = TENANTS) -> App:
    """Return the app for so many tenants, and one that asks for too much."""
    who = {"clerk": Principal(roles=["clerk"]), "lea": Principal(roles=["lead"])}
    names = [*tenant_names(tenants), "aggressor"]
    directory = Directory(tenants={name: Tenant(principals=who, concurrency=200) for name in names})
    return App(agents={"clerk": clerk}, tools=[look, flaky, ask], policy=POLICY, directory=directory)


def tenant_names(count: int = TENANTS) -> list[str]:
    """Return the tenants' names."""
    return [f"tenant-{i}" for i in range(count)]


def create_app(tenants: str = str(TENANTS)) -> App:
    """Return the app, for the command line."""
    return batch_app(int(tenants))
