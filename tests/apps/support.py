"""An app whose agent is a model: it may look an order up, and refund it when a person says so."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from airside import App, SingleAgent, Tool, tool
from airside.models import ModelAgent, ModelEndpoint, TokenPrice
from airside.stack.directory import Budget, Directory, Principal, Tenant
from airside.tools import python_code
from examples.frameworks.app import CLERKS
from tests.apps.ledger import Ledger

POLICY = """
version: support-1
rules:
  - {id: lead, outcome: require_approval, approval: {roles: [lead]}, when: {tool: [refund]}}
  - {id: reads, outcome: allow, when: {effect: [read]}}
"""


class Answer(BaseModel):
    """What the customer is told."""

    text: str
    refunded_cents: int


def tools(work: Path) -> list[Tool]:
    """Return the two tools."""
    ledger = Ledger(work / "ledger.sqlite")

    @tool(effect="read", trusted_output=True)
    def find_order(order_id: str) -> dict[str, object]:
        """Return an order."""
        return {"order_id": order_id, "cents": 1200, "state": "lost"}

    @tool(effect="write", idempotent=False)
    def refund(order_id: str, cents: int) -> dict[str, object]:
        """Refund an order."""
        ledger.append("", "refund", f"refund {order_id}", cents)
        return {"refunded": cents}

    return [find_order, refund]


def create_app(work: Path, url: str) -> App:
    """Return the app, with its model at a URL that speaks OpenAI's protocol."""
    endpoint = ModelEndpoint(
        model="m-1", base_url=f"{url}/v1", api_key_env="", price=TokenPrice(input=1, output=10), requests_per_minute=600
    )
    principals = {"ana": Principal(roles=["agent"]), "lea": Principal(roles=["lead"])}
    tenants = {
        "acme": Tenant(principals=principals, limits={"max_refusals": 5}),
        "poor": Tenant(principals=principals, budgets=[Budget(unit="cost_microusd", limit=100)]),
    }
    agents = {
        name: ModelAgent(
            "house",
            "You help customers of a shop.",
            answer=Answer,
            max_tokens=500,
            max_prompt_bytes=16_000,
            code_mode=name == "coder",
        )
        for name in ("clerk", "coder")
    }
    return App(
        agents={**agents, **CLERKS},
        routes={
            "default": SingleAgent("clerk"),
            "code": SingleAgent("coder"),
            **{name: SingleAgent(name) for name in CLERKS},
        },
        tools=[*tools(work), python_code],
        policy=POLICY,
        directory=Directory(tenants=tenants),
        models={"house": endpoint},
    )
