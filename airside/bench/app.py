"""The app of load benchmarks: an agent that follows a plan, on tools that do nothing but take as long as it says.

What is small is the agent's and the tools' own work, so that what is measured is Airside's: each call is gated by a
policy of twenty rules, validated, granted, journaled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from airside import Action, App, Finish, ToolError, View, tool
from airside.bench.mix import BLOCKED, KNOWN, LARGE_CENTS, MOST_CALLS
from airside.directory import Directory, Principal, Tenant
from airside.models import ModelAgent, ModelEndpoint, TokenPrice

APPROVER = "lead"
EXPIRES_S = 86_400
"""How long a call waits for a person.  When it was asked is known by when it expires."""

MODEL = "bench"
ANSWER_TOKENS = 256
MOST_QUESTIONS = 10_000
"""At once: the benchmark's model is no account that has a limit."""

REQUEST = "Post this month's entries and check the balance after each of them."


@tool(effect="read", scopes=["ledger"])
async def read_account(account: str, seconds: float = 0.0) -> dict[str, object]:
    """Return an account's balance, after a while."""
    await asyncio.sleep(seconds)
    return {"account": account, "cents": 123_456}


@tool(effect="write", idempotent=True, scopes=["ledger"])
async def post_entry(account: str, cents: int, seconds: float = 0.0) -> dict[str, object]:
    """Post an entry, after a while."""
    await asyncio.sleep(seconds)
    return {"posted": cents, "account": account}


@tool(effect="read", scopes=["ledger"])
async def fail(number: int) -> str:
    """Fail."""
    raise ToolError(f"the ledger has no page {number}")


async def follower(view: View) -> Action | Finish:
    """Make the calls of the inputs' plan, one after the other, and finish."""
    calls = view.inputs()["calls"]
    done = len(view.history)
    if done >= len(calls):
        return Finish(answer=done)
    name, arguments, decide_s = calls[done]
    if decide_s:
        await asyncio.sleep(decide_s)
    return Action(tool=name, arguments=arguments)


_RULES_BEFORE = 16
"""Rules that are asked and say nothing, so that the bundle has as many as one that is in use."""


def policy() -> str:
    """Return a bundle of twenty rules, of which the last two allow."""
    others = "\n".join(
        f"  - {{id: closed-{i}, outcome: deny, when: {{effect: [write], arguments: "
        f"[{{path: account, op: eq, value: closed-{i}}}]}}}}"
        for i in range(_RULES_BEFORE)
    )
    return f"""
version: bench-1
rules:
{others}
  - {{id: blocked, outcome: deny, when: {{effect: [write], arguments: [{{path: account, op: eq, value: {BLOCKED}}}]}}}}
  - {{id: large, outcome: require_approval, approval: {{roles: [{APPROVER}], expires_after_s: {EXPIRES_S}}},
     when: {{effect: [write], arguments: [{{path: cents, op: ge, value: {LARGE_CENTS}}}]}}}}
  - {{id: reads, outcome: allow, when: {{effect: [read], scopes: [ledger]}}}}
  - {{id: writes, outcome: allow, when: {{effect: [write], scopes: [ledger]}}}}
"""


def bench_app(tenants: Sequence[str], model_url: str = "") -> App:
    """Return the app for these tenants; what each may have at once is what a directory that says nothing gives.

    With a `model_url` a model is the agent, which is asked there what the plan's next call is.
    """
    limits = {"max_steps": MOST_CALLS + 1, "max_tool_calls": MOST_CALLS}
    who = {KNOWN: Principal(scopes=["ledger"], limits=limits), APPROVER: Principal(roles=[APPROVER])}
    directory = Directory(tenants={name: Tenant(principals=who) for name in tenants})
    agents: dict[str, Callable[..., Any] | ModelAgent] = {"follower": follower}
    endpoints: dict[str, ModelEndpoint] = {}
    if model_url:
        agents = {"follower": ModelAgent([MODEL], "You follow a plan.", max_tokens=ANSWER_TOKENS)}
        price = TokenPrice(input=0.01, output=0.01)
        endpoints = {
            MODEL: ModelEndpoint(
                model="plan", base_url=model_url, api_key_env="", price=price, concurrency=MOST_QUESTIONS
            )
        }
    return App(
        agents=agents,
        models=endpoints,
        tools=[read_account, post_entry, fail],
        policy=policy(),
        directory=directory,
    )
