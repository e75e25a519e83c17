"""An app with a clerk, and one that is more generous: for replays of a run of the first with the second."""

from __future__ import annotations

import airside
from airside.directory import Directory, Principal, Tenant

POLICY = """
version: replayed-1
rules:
  - {id: large, outcome: deny, when: {tool: [pay], arguments: [{path: amount, op: gt, value: 100}]}}
  - {id: rest, outcome: allow, when: {tool: [pay]}}
"""


@airside.tool(effect="write")
def pay(amount: int) -> int:
    """Fail: no replay calls a tool."""
    raise AssertionError("a replay called a tool")


def clerk(view: airside.View) -> airside.Action | airside.Finish:
    """Pay three, and finish."""
    return airside.Finish(answer="done") if view.history else airside.Action(tool="pay", arguments={"amount": 3})


def generous(view: airside.View) -> airside.Action | airside.Finish:
    """Pay five hundred at first, and then finish as the clerk does."""
    return airside.Finish(answer="done") if view.history else airside.Action(tool="pay", arguments={"amount": 500})


def create_app() -> airside.App:
    """Return the app."""
    return airside.App(
        agents={"clerk": clerk, "generous": generous},
        routes={"default": airside.SingleAgent("clerk")},
        tools=[pay],
        policy=POLICY,
        directory=Directory(tenants={"acme": Tenant(principals={"ann": Principal(roles=["agent"])})}),
        version="2",
    )
