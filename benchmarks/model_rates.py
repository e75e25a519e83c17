"""Whether what a provider allows of an account holds for a whole cluster: four runtimes on two nodes of this machine.

    python -m benchmarks.model_rates

Four tenants' runs, each tenant's in a runtime of its own, ask all at once models of three accounts: one of few requests
a minute, one of few tokens a minute, one of few calls at once.  Each account is a server here that notes what arrives.

Last line: nodes that runtimes with runs were on, and how many of these there were; runs, and those that were answered;
of each account the most that arrived within any minute, or at once, and what is allowed; and `rate_limit_exceeded`, by
how much the most was over that, all accounts together.
"""

from __future__ import annotations

import benchmarks.cluster as nodes  # first: it sets Ray's environment

# isort: split
import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import airside
from airside import App, tool
from airside.actors.client.client import Stack
from airside.models import ModelAgent, ModelEndpoint, TokenPrice
from airside.stack.directory import Directory, Principal, Tenant
from benchmarks.measure import last_line
from benchmarks.model_servers import ModelServer, Saying, serving

NODES = 2
TENANTS = 4
WAIT_S = 180.0
MINUTE_S = 60.0
POLICY = "version: rates-1\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]"
INSTRUCTIONS = "You help people find their orders. " * 80
USED = (2_800, 100)
"""Tokens of a question and an answer: somewhat less than is reserved for them, for no token is less than a byte."""

ANSWER_S = 0.3
"""How long an answer takes where calls at once are counted."""


@tool(effect="read")
def look(order_id: str) -> str:
    """Look an order up."""
    return f"{order_id} is lost"


@dataclass
class Account:
    """What one is allowed, how many runs ask it, and when each request arrived."""

    limits: dict[str, int]
    runs: int
    most: Callable[[Account], int]
    answer_s: float = 0.0
    arrived_s: list[float] = field(default_factory=list)
    server: ModelServer | None = None

    def say(self, body: dict[str, Any]) -> Saying:
        """Note a request, and answer it."""
        assert len(json.dumps(body)) >= USED[0], "it would take more tokens than were reserved"
        self.arrived_s.append(time.monotonic())
        return Saying(text="it is lost", used=USED, after_s=self.answer_s)


def _in_a_minute(account: Account) -> int:
    """Return the most requests that arrived within any minute."""
    counts = (sum(at <= other < at + MINUTE_S for other in account.arrived_s) for at in account.arrived_s)
    return max(counts, default=0)


def _tokens_in_a_minute(account: Account) -> int:
    return sum(USED) * _in_a_minute(account)


def _at_once(account: Account) -> int:
    assert account.server is not None
    return account.server.most_at_once


def accounts() -> dict[str, Account]:
    """Return the accounts, by what is counted of each; the runs of a minute's take more than one."""
    return {
        "requests_in_a_minute": Account({"requests_per_minute": 30}, 45, _in_a_minute),
        "tokens_in_a_minute": Account({"tokens_per_minute": 60_000}, 28, _tokens_in_a_minute),
        "calls_at_once": Account({"concurrency": 3}, 32, _at_once, answer_s=ANSWER_S),
    }


def app(asked: dict[str, Account]) -> App:
    """Return the app: a model and an agent for each account."""
    models = {}
    for name, account in asked.items():
        assert account.server is not None
        models[name] = ModelEndpoint(
            model="m-1",
            base_url=f"{account.server.url}/v1",
            api_key_env="",
            price=TokenPrice(input=1.0, output=10.0),
            **account.limits,  # type: ignore[arg-type]
        )
    limits = {"max_cost_microusd": 10_000_000, "decide_ms": int(WAIT_S * 1000)}
    who = Tenant(principals={"ana": Principal()}, limits=limits, concurrency=200)
    return App(
        agents={name: ModelAgent(name, INSTRUCTIONS, max_tokens=100, max_prompt_bytes=8_000) for name in models},
        routes={name: airside.SingleAgent(name) for name in models},
        tools=[look],
        policy=POLICY,
        directory=Directory(tenants={f"tenant-{number}": who for number in range(TENANTS)}),
        models=models,
    )


@contextmanager
def started(asked: dict[str, Account]) -> Iterator[Stack]:
    """Start the servers, a cluster and a stack on it."""
    work = Path(tempfile.mkdtemp(prefix="airside-rates-"))
    with ExitStack() as beneath:
        beneath.callback(shutil.rmtree, work, ignore_errors=True)
        for account in asked.values():
            account.server = beneath.enter_context(serving(account.say))
        cluster = beneath.enter_context(nodes.several_nodes(NODES))
        stack = airside.start(app(asked), address=cluster.address, state_dir=work / "state", executors=1)
        beneath.callback(stack.shutdown)
        yield stack


def at_work(stack: Stack) -> dict[str, str]:
    """Return the runtimes that have runs, and the node of each."""
    return {
        name: layer["node"]
        for name, layer in stack.status().items()
        if name.startswith("runtime/") and layer.get("runs")
    }


def measure() -> dict[str, Any]:
    """Have all runs ask, and return what arrived."""
    asked = accounts()
    with started(asked) as stack:
        handles = [
            stack.submit("Where is o-1?", tenant=f"tenant-{number % TENANTS}", principal="ana", route=name)
            for name, account in asked.items()
            for number in range(account.runs)
        ]
        places, until_s = at_work(stack), time.monotonic() + WAIT_S
        while len(places) < TENANTS and time.monotonic() < until_s:
            time.sleep(0.2)
            places = at_work(stack)
        results = stack.results(handles, timeout=WAIT_S)
    found = {name: (account.most(account), next(iter(account.limits.values()))) for name, account in asked.items()}
    return {
        "nodes": len(set(places.values())),
        "runtimes": len(places),
        "runs": len(results),
        "answered": sum(result.ok for result in results),
        **{f"{name}_most": most for name, (most, _) in found.items()},
        **{f"{name}_allowed": allowed for name, (_, allowed) in found.items()},
        "rate_limit_exceeded": sum(max(0, most - allowed) for most, allowed in found.values()),
    }


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    last_line(measure())


if __name__ == "__main__":
    main()
