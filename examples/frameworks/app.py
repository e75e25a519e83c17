"""The app: one clerk in three frameworks, two tools, and a policy by which a lead is asked about refunds."""

from __future__ import annotations

from typing import Any

import airside
from airside.adapters import ForeignAgent, LangGraphAgent, OpenAIAgent, Parts, PydanticAIAgent
from airside.directory import Directory, Principal, Tenant
from airside.models import ModelEndpoint, TokenPrice

PURPOSE = "You answer customers of a shop. Look the order up first, and refund what was lost."

POLICY = """
version: frameworks-1
rules:
  - {id: refunds, outcome: require_approval, approval: {roles: [lead]}, when: {tool: [refund]}}
  - {id: reads, outcome: allow, when: {effect: [read]}}
"""


@airside.tool(effect="read", trusted_output=True)
def find_order(order_id: str) -> dict[str, object]:
    """Return an order: its state, and what was paid."""
    return {"order_id": order_id, "state": "lost", "paid_cents": 4900}


@airside.tool(effect="write", idempotent=True)
def refund(order_id: str, cents: int) -> dict[str, object]:
    """Give money back for an order."""
    return {"order_id": order_id, "refunded_cents": cents}


def pydantic_ai_clerk(parts: Parts) -> Any:
    """Build the clerk with Pydantic AI."""
    from pydantic_ai import Agent

    return Agent(parts.model, instructions=PURPOSE, tools=parts.tools)


def langgraph_clerk(parts: Parts) -> Any:
    """Build the clerk with LangGraph: it thinks, uses tools, and thinks again."""
    from langchain_core.messages import SystemMessage
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = parts.model.bind_tools(parts.tools)

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage(PURPOSE), *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode(parts.tools))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")
    return graph.compile()


def openai_clerk(parts: Parts) -> Any:
    """Build the clerk with the OpenAI Agents SDK."""
    from agents import Agent

    return Agent(name="clerk", instructions=PURPOSE, model=parts.model, tools=parts.tools)


CLERKS: dict[str, ForeignAgent] = {
    "pydantic_ai": PydanticAIAgent(pydantic_ai_clerk, "house"),
    "langgraph": LangGraphAgent(langgraph_clerk, "house"),
    "openai_agents": OpenAIAgent(openai_clerk, "house"),
}


def create_app(url: str, model: str = "default") -> airside.App:
    """Return the app, whose model is at a URL that speaks OpenAI's protocol."""
    people = {"ana": Principal(roles=["agent"]), "lea": Principal(roles=["lead"])}
    free = TokenPrice(input=0.0, output=0.0)
    return airside.App(
        agents=CLERKS,
        routes={name: airside.SingleAgent(name) for name in CLERKS},
        models={"house": ModelEndpoint(model=model, base_url=url, api_key_env="", price=free)},
        tools=[find_order, refund],
        policy=POLICY,
        directory=Directory(tenants={"lamps": Tenant(principals=people, limits={"max_refusals": 3})}),
    )
