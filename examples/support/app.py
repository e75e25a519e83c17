"""The app: an agent that is a model, three tools, a policy, and who may do what."""

from __future__ import annotations

import os
from pathlib import Path

import airside
from airside.directory import Directory, Principal, Tenant
from airside.models import ModelAgent, ModelEndpoint, TokenPrice

CASSETTE = Path(__file__).with_name("cassette.jsonl")

POLICY = """
version: support-2
rules:
  - {id: reads, outcome: allow, when: {effect: [read]}}
  - {id: refunds, outcome: require_approval, approval: {roles: [lead]}, when: {tool: [refund]}}
  - {id: mails, outcome: allow,
     when: {effect: [external], origins: [{of: authority, within: [request, tool:find_order]}]}}
"""

INSTRUCTIONS = """You answer customers of a shop that sells lamps.
Look the order up first. Refund what was lost, in full. Then write to the customer, and say what was done."""
REQUEST = "Order L-1007 was lost by the carrier. Refund 49.00, and write to ben@lamps.example that it is done."
KNOWN = "What the carrier lost is refunded in full, without asking for a photo."


@airside.tool(effect="read", trusted_output=True)
def find_order(order_id: str) -> dict[str, object]:
    """Return an order: its customer, its state, and what was paid."""
    return {"order_id": order_id, "customer": "ben@lamps.example", "state": "lost", "paid": 49.00}


@airside.tool(effect="write", idempotent=True)
def refund(order_id: str, amount: float) -> dict[str, object]:
    """Give money back for an order."""
    return {"order_id": order_id, "refunded": amount}


@airside.tool(effect="external", idempotent=True, content=("text",))
def write_to_customer(customer: str, text: str) -> str:
    """Write a mail to the customer of an order."""
    return f"sent to {customer}"


def model() -> ModelEndpoint:
    """Return the model that the environment names, or the shipped cassette.

    `SUPPORT_BASE_URL` is the URL of any server that speaks OpenAI's protocol, `SUPPORT_MODEL` what the model is called
    there, `SUPPORT_API_KEY` its key, and `SUPPORT_PRICE` what a million tokens cost that it reads and writes ("1,10").
    """
    url = os.environ.get("SUPPORT_BASE_URL")
    read, _, wrote = os.environ.get("SUPPORT_PRICE", "0,0").partition(",")
    price = TokenPrice(input=float(read), output=float(wrote or read))
    if url is None:
        return ModelEndpoint(model="cassette", cassette=CASSETTE, price=price)
    name = os.environ.get("SUPPORT_MODEL", "default")
    key = "SUPPORT_API_KEY" if os.environ.get("SUPPORT_API_KEY") else ""
    return ModelEndpoint(model=name, base_url=url, api_key_env=key, price=price)


def create_app() -> airside.App:
    """Return the app."""
    people = {"ana": Principal(roles=["agent"]), "lea": Principal(roles=["lead"])}
    return airside.App(
        agents={"support": ModelAgent("house", INSTRUCTIONS, max_prompt_bytes=16_000)},
        models={"house": model()},
        tools=[find_order, refund, write_to_customer],
        policy=POLICY,
        directory=Directory(tenants={"lamps": Tenant(principals=people, limits={"max_refusals": 3})}),
        memory=True,
    )
