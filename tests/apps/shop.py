"""An app whose tenants share budgets: what was bought is counted in an SQLite file, once a key."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from airside import App, Finish, ReplayAgent, SingleAgent, Spend, View, tool
from airside.stack.directory import Budget, Directory, Principal, Tenant
from airside.tools.tool import Tool, ToolContext
from tests.apps.ledger import Ledger

PRICE_MICROUSD = 200_000
THOUGHT = Spend(tokens=300)
POLICY = "version: shop-1\nrules: [{id: all, outcome: allow}]\n"
PEOPLE = {"ana": Principal()}
ROUTES = {"default": "buyer", "think": "thinker", "unpriced": "unpriced"}
TENANTS = {
    "ten": Tenant(principals=PEOPLE, concurrency=200, budgets=[Budget(unit="tool_calls", limit=10)]),
    "poor": Tenant(principals=PEOPLE, budgets=[Budget(unit="cost_microusd", limit=450_000, per="month")]),
    "free": Tenant(principals=PEOPLE, concurrency=50),
    "frugal": Tenant(principals=PEOPLE, concurrency=50, budgets=[Budget(unit="tokens", limit=1000)]),
}


def tools(ledger: Ledger) -> list[Tool]:
    """Return a tool that is free and one that is not."""

    @tool(effect="write", idempotent=True)
    async def take(text: str, context: ToolContext) -> str:
        """Take what costs nothing, and be slow to say so: there is time for somebody to die."""
        await asyncio.to_thread(ledger.once, context.idempotency_key, "take", text)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1.0)
        return text

    @tool(effect="write", idempotent=True, cost_microusd=PRICE_MICROUSD)
    def buy(text: str, context: ToolContext) -> str:
        """Take what has a price."""
        ledger.once(context.idempotency_key, "buy", text)
        return text

    return [take, buy]


@dataclass(frozen=True)
class Thinker:
    """An agent whose model takes a while, and is paid whether or not its answer arrives."""

    ledger: Ledger
    price: Spend | None = THOUGHT

    async def decide(self, view: View) -> Finish:
        """Ask the model, which takes a third of what the decision may cost."""
        await asyncio.to_thread(self.ledger.once, f"{view.run_id} {secrets.token_hex(4)}", "think", view.run_id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1.0)
        return Finish(answer="thought", spend=Spend(tokens=100))


def create_app(work: str | Path, organisation: list[Budget] | None = None) -> App:
    """Return the app; its effects are counted in `work`."""
    ledger = Ledger(Path(work) / "ledger.sqlite")
    return App(
        agents={"buyer": ReplayAgent(), "thinker": Thinker(ledger), "unpriced": Thinker(ledger, None)},
        routes={name: SingleAgent(agent) for name, agent in ROUTES.items()},
        tools=tools(ledger),
        policy=POLICY,
        directory=Directory(tenants=TENANTS, budgets=organisation or []),
        version="shop-1",
    )
