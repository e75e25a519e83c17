"""An app for tests: agents that remember what they are told and answer with what they recall."""

from __future__ import annotations

from airside import App, Finish, ReplayAgent, SingleAgent, View
from airside.memory.in_memory import HashingEmbedder
from airside.memory.rules import MemoryRules
from airside.stack.directory import Directory, Principal, Tenant
from airside.tools.keeping import remember
from airside.tools.tool import tool

PEOPLE = {"ana": Principal(), "kim": Principal(roles=["memory_keeper"]), "cid": Principal(clearance="confidential")}
TENANT = Tenant(principals=PEOPLE, concurrency=4, clearance="confidential")
POLICY = """
version: remembering-1
rules:
  - {id: all, outcome: allow}
  - {id: no-rumours, outcome: deny, when: {tool: [remember], arguments: [{path: kind, op: eq, value: rumour}]}}
  - {id: nothing-confidential, outcome: deny, when: {effect: [external], labels: [confidential]}}
"""


def recaller(view: View) -> Finish:
    """Answer with the texts that were recalled, shortened so that they are no memory."""
    return Finish(answer=[record.text for record in view.recalled])


@tool(effect="read", memorable=True)
def look_up(topic: str) -> str:
    """Return a sentence about a topic."""
    return f"the depot called {topic} has been open since the spring"


@tool(effect="external")
def send(text: str) -> str:
    """Send a text away."""
    return text


def create_app(tenants: int = 3) -> App:
    """Return the app, with tenants `t0`, `t1`, ..."""
    return App(
        agents={"clerk": ReplayAgent(), "recaller": recaller},
        routes={"default": SingleAgent("clerk"), "recall": SingleAgent("recaller")},
        tools=[remember, look_up, send],
        policy=POLICY,
        directory=Directory(tenants={f"t{i}": TENANT for i in range(tenants)}),
        memory=MemoryRules(sweep_s=1),
        embedder=HashingEmbedder,
    )
