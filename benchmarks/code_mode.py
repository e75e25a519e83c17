"""Calls that a model's code makes, beside the same calls proposed by an agent that plays a list of them.

    python -m benchmarks.code_mode [--calls 192] [--rounds 5]

The cycle, gate, dispatcher and a journal on disk are those of a stack, in one process without Ray; the model answers at
once.  Both make the same calls of a tool that only reads, in turns:

 together  as many at once as a decision takes: by `asyncio.gather`, and as lists of calls
 in a row  each after the one before: for each the code is run again from its start

A figure is governed calls a second, the median of the rounds; a ratio is one of medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from airside import App, ReplayAgent, SingleAgent, tool
from airside.actors.rpc.layer import now_us
from airside.models import ModelAgent, ModelEndpoint, ModelReply, RequestedCall, TokenPrice
from airside.stack.contracts.models import ModelRequest
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.ids import mint_run, parse_principal, parse_tenant
from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import entry_of
from airside.stack.run.agents import Agent
from airside.stack.run.events import RunActivated, RunSubmitted
from airside.stack.run.machine import RunMachine
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import MAX_CALLS, Identity, Limits, Request
from airside.tools import python_code
from benchmarks.measure import last_line, machine, median
from benchmarks.plain import GroupJournal, layers

POLICY = "version: code-1\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]"
DIRECTORY = "tenants: {acme: {principals: {clerk: {}}}}"
LIMITS = Limits(max_steps=10_000, max_tool_calls=10_000)

TOGETHER = """
import asyncio
found = []
for first in range(0, {calls}, {most}):
    found += await asyncio.gather(*[look(n) for n in range(first, min(first + {most}, {calls}))])
len(found)
"""
IN_A_ROW = """
found = []
for n in range({calls}):
    found.append(await look(n))
len(found)
"""


@tool(effect="read", trusted_output=True)
def look(n: int) -> int:
    """Look a number up."""
    return n


class OneSnippet:
    """A model that writes one snippet, and ends when it has been told what came of it."""

    def __init__(self, code: str) -> None:
        self._call = RequestedCall(tool=python_code.name, arguments=json.dumps({"code": code}))

    async def ask(self, request: ModelRequest) -> ModelReply:
        """Answer at once."""
        results = [json.loads(turn.text) for turn in request.prompt.turns if turn.role == "tool"]
        assert all(result["ok"] for result in results), results
        return ModelReply(text="done") if results else ModelReply(calls=(self._call,))


def ways(calls: int) -> dict[str, tuple[Agent, str]]:
    """Return the agents, each with the code that its model writes."""

    def proposed(n: int) -> dict[str, Any]:
        return {"tool": look.name, "args": {"n": n}}

    lists = [[proposed(n) for n in range(calls)[first : first + MAX_CALLS]] for first in range(0, calls, MAX_CALLS)]
    return {
        "code_together": (coder(), TOGETHER.format(calls=calls, most=MAX_CALLS)),
        "list_together": (ReplayAgent(lists), ""),
        "code_in_a_row": (coder(), IN_A_ROW.format(calls=calls)),
        "list_in_a_row": (ReplayAgent([proposed(n) for n in range(calls)]), ""),
    }


def coder() -> ModelAgent:
    """Return an agent in code mode."""
    return ModelAgent("house", "Look numbers up.", code_mode=True)


async def run_once(made: CyclePorts, key: bytes, route: str) -> RunMachine:
    """Run one job to its end."""
    identity = Identity(principal=parse_principal("clerk"), tenant=parse_tenant("acme"), limits=LIMITS)
    run_id = mint_run()
    submitted = RunSubmitted(
        run_id=run_id,
        identity=identity,
        sealed=seal_identity(key, identity, run_subject(run_id)),
        request=Request(text="go", route=route),
        limits=LIMITS,
        app_version="1",
        at_us=now_us(),
    )
    activated = RunActivated(epoch=1, at_us=now_us())
    entries = (entry_of(submitted), entry_of(activated))
    await made.journal.append(Append(tenant=identity.tenant, stream=run_id, epoch=1, first_seq=0, entries=entries))
    run = RunMachine(submitted)
    instructions = run.handle(activated)
    await Cycle(run, made, durable=2).advance(instructions)
    return run


async def measured(calls: int, rounds: int) -> dict[str, list[float]]:
    """Return the calls a second of each way, a figure for each round but a first one."""
    found = ways(calls)
    house = ModelEndpoint(
        model="m", base_url="http://127.0.0.1:9/v1", api_key_env="", price=TokenPrice(input=0, output=0)
    )
    app = App(
        agents={name: agent for name, (agent, _) in found.items()},
        routes={name: SingleAgent(name) for name in found},
        models={"house": house},
        tools=[look, python_code],
        policy=POLICY,
        directory=DIRECTORY,
    ).checked()
    key, rates = secrets.token_bytes(32), {name: list[float]() for name in found}
    with tempfile.TemporaryDirectory() as folder:
        journal = GroupJournal(Path(folder))
        made = layers(app, journal, key)
        try:
            for turn in range(rounds + 1):
                for name, (_, code) in found.items():
                    began = time.perf_counter()
                    run = await run_once(replace(made, models=OneSnippet(code)), key, name)
                    seconds = time.perf_counter() - began
                    assert run.state.phase == "completed", run.story()
                    assert sum(record.tool == look.name for record in run.state.history) == calls
                    if turn:  # the first one starts the interpreter
                        rates[name].append(calls / seconds)
        finally:
            journal.close()
    return rates


def code_mode(calls: int = 192, rounds: int = 5) -> dict[str, float]:
    """Return the figures."""
    rates = {name: median(samples) for name, samples in asyncio.run(measured(calls, rounds)).items()}
    return {
        "code_mode_calls_per_s": round(rates["code_together"]),
        "code_mode_in_a_row_calls_per_s": round(rates["code_in_a_row"]),
        "list_calls_per_s": round(rates["list_together"]),
        "list_in_a_row_calls_per_s": round(rates["list_in_a_row"]),
        "code_vs_list": round(rates["code_together"] / rates["list_together"], 3),
        "code_vs_list_in_a_row": round(rates["code_in_a_row"] / rates["list_in_a_row"], 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    last_line({**code_mode(given.calls, given.rounds), "calls": given.calls, "machine": machine()})


if __name__ == "__main__":
    main()
