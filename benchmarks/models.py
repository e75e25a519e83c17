"""Models asked by runs, against a local server that speaks OpenAI's and Anthropic's protocols.

    python -m benchmarks.models [--rounds 3] [--out models.json]

 cases      What a provider or a model may do (an answer, several calls at once, 429 with Retry-After, 500, slow, cut
            off, no usage, no JSON, over the cap, hostile names, ids that come twice, arguments that are none), by each
            protocol: a run each.  `right_outcome` counts those whose run ended as it should, with as many HTTP requests
            and as much spent as it should.
 overspend  What any decision spent beyond what was reserved for it, by the journal, in micro-USD.
 streams    Runs that somebody watches, whose model breaks off within its answer, each time: how often another model
            gave one in its place (`fell_back_after_output`), and how many watchers were told that there is none.
 crashes    Runs whose process is killed while a model answers: how often a model was asked again for one decision.
 rate       Many runs at once, in four runtimes on two nodes, on accounts of few requests a minute, of few tokens a
            minute and of few calls at once: how much more there was of any than is allowed (`benchmarks/model_rates.py`
            by itself prints of each how much there was).
 overhead   A run of one decision, alone, from its admission to its end, less what the provider's client takes by
            itself for the same answer, and the ratio of the two; medians.

Not measured: providers themselves, more than one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import airside
from airside import App, tool
from airside.actors.client.client import Stack
from airside.actors.models.providers import ProviderModel
from airside.models import ModelAgent, ModelEndpoint, Prompt, TokenPrice, Turn
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.models.endpoints import Provider
from airside.stack.models.rate_limits import RateLimits
from benchmarks.measure import last_line, machine, median, result_file
from benchmarks.model_servers import ModelServer, Saying, call, in_order, serving

PRICE = TokenPrice(input=1.0, output=10.0)
POLICY = "version: models-1\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]"
WAIT_S = 120.0
PROTOCOLS: tuple[Provider, ...] = ("openai", "anthropic")


@tool(effect="read", trusted_output=True)
def look(order_id: str) -> str:
    """Look an order up."""
    return f"{order_id} is lost"


class Answer(BaseModel):
    """What a run answers."""

    text: str


LOOK = call("look", {"order_id": "o-1"})
DONE = call("final_answer", {"text": "it is lost"})


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is said, one answer after the other, and what has to come of it.

    `requests` = HTTP requests; `paid` = answers whose usage is paid; `in_doubt` = attempts that count in full.
    """

    name: str
    says: tuple[Saying, ...]
    reason: str = "completed"
    requests: int
    paid: int
    in_doubt: int = 0
    only: Provider | None = None


CASES = (
    Case(name="an answer", says=(DONE,), requests=1, paid=1),
    Case(name="a call and an answer", says=(LOOK, DONE), requests=2, paid=2),
    Case(
        name="calls at once under one id",
        says=(Saying(calls=(*LOOK.calls, ("look", '{"order_id": "o-2"}', "call_1"))), DONE),
        requests=2,
        paid=2,
    ),
    Case(name="429 with Retry-After", says=(Saying(status=429, retry_after="1"), DONE), requests=2, paid=1),
    Case(name="500", says=(Saying(status=500), DONE), requests=2, paid=1),
    Case(name="503 for ever", says=(Saying(status=503),), reason="model_unavailable", requests=3, paid=0),
    Case(name="401", says=(Saying(status=401),), reason="model_unavailable", requests=1, paid=0),
    Case(name="slow", says=(Saying(calls=DONE.calls, after_s=1.0),), requests=1, paid=1),
    Case(name="cut off", says=(Saying(cut=True), DONE), requests=2, paid=1, in_doubt=1),
    Case(name="no usage", says=(Saying(calls=DONE.calls, used=None),), requests=1, paid=0, in_doubt=1),
    Case(name="no JSON", says=(Saying(garbage=True),), reason="model_unavailable", requests=1, paid=0, in_doubt=1),
    Case(name="over the cap", says=(Saying(text="and so on", finish="length"), DONE), requests=2, paid=2),
    Case(name="a hostile name", says=(call("../../etc/passwd", {}), DONE), requests=2, paid=2),
    Case(name="an unknown name", says=(call("drop_tables", {}), DONE), requests=2, paid=2),
    Case(name="arguments that are none", says=(call("look", "{"), DONE), requests=2, paid=2, only="openai"),
    Case(
        name="a key twice",
        says=(call("look", '{"order_id": "o-1", "order_id": "o-2"}'), DONE),
        requests=2,
        paid=2,
        only="openai",
    ),
    Case(name="an answer of the wrong shape", says=(call("final_answer", {"no": 1}), DONE), requests=2, paid=2),
    Case(name="arguments against the schema", says=(call("look", {"id": 7}), DONE), requests=2, paid=2),
)


def endpoint(server: ModelServer, provider: Provider) -> ModelEndpoint:
    """Return the server as a model of a provider."""
    url = f"{server.url}/v1" if provider == "openai" else server.url
    return ModelEndpoint(model="m-1", provider=provider, base_url=url, api_key_env="", price=PRICE)


@contextmanager
def started(server: ModelServer, **options: Any) -> Iterator[Stack]:
    """Start a stack whose agents ask the server by each protocol."""
    models: dict[str, ModelEndpoint] = {provider: endpoint(server, provider) for provider in PROTOCOLS}
    agents = {
        name: ModelAgent(name, "You help.", answer=Answer, max_tokens=200, max_prompt_bytes=8_000) for name in models
    }
    agents["both"] = ModelAgent(PROTOCOLS, "You help.", answer=Answer, max_tokens=200, max_prompt_bytes=8_000)
    people = {"ana": Principal()}
    limits = {"max_refusals": 5, "max_cost_microusd": 10_000_000, "decide_ms": int(WAIT_S * 1000)}
    names = [f"tenant-{i}" for i in range(4)]
    app = App(
        agents=agents,
        routes={name: airside.SingleAgent(name) for name in agents},
        tools=[look],
        policy=POLICY,
        directory=Directory(
            tenants={name: Tenant(principals=people, limits=limits, concurrency=200) for name in names}
        ),
        models=models,
    )
    folder = Path(tempfile.mkdtemp(prefix="airside-models-"))
    try:
        with airside.start(app, stack="models", state_dir=folder, executors=1, **options) as stack:
            yield stack
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ask(stack: Stack, route: str, number: int = 0) -> airside.RunHandle:
    """Submit a run."""
    return stack.submit("Where is o-1?", tenant=f"tenant-{number % 4}", principal="ana", route=route)


def play(stack: Stack, server: ModelServer, case: Case, provider: Provider) -> bool:
    """Play a case; return whether all of it is as it should be, and print what is not."""
    server.bodies.clear()
    server.say = in_order(*case.says)
    result = ask(stack, provider).result(timeout=WAIT_S)
    attempts = attempts_of(stack, result.run_id)
    ended = [event for event in attempts if event["type"] != "ModelAsked"]
    reserved = [event["body"]["reserved"]["cost_microusd"] for event in attempts if event["type"] == "ModelAsked"]
    full = sum(event["body"]["spent"]["cost_microusd"] in reserved for event in ended)
    paid = sum(0 < event["body"]["spent"]["cost_microusd"] not in reserved for event in ended)
    found = (str(result.reason_code), len(server.bodies), paid, full)
    wanted = (case.reason, case.requests, case.paid, case.in_doubt)
    if found != wanted:
        print(f"{provider}: {case.name}: (reason, requests, paid, in doubt) {found}, wanted {wanted}", flush=True)
    return found == wanted


def attempts_of(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    """Return what the journal has of a run's questions, oldest first."""
    sql = "SELECT type, stream, body FROM events WHERE stream LIKE ? ORDER BY stream, seq"
    rows = stack.query(sql, [f"model/{run_id}:%"]).to_pylist()
    return [row | {"body": json.loads(row["body"])} for row in rows]


def overspent(stack: Stack) -> int:
    """Return by how many micro-USD attempts cost more than was reserved for them, all runs together."""
    total = 0
    for run_id in {
        row["run"] for row in stack.query("SELECT stream AS run FROM events WHERE type = 'RunSubmitted'").to_pylist()
    }:
        reserved = 0
        for event in attempts_of(stack, run_id):
            if event["type"] == "ModelAsked":
                reserved = event["body"]["reserved"]["cost_microusd"]
            else:
                total += max(0, event["body"]["spent"]["cost_microusd"] - reserved)
    return total


def broken_off(stack: Stack, server: ModelServer) -> tuple[int, int]:
    """Watch a run whose model breaks off within its answer; return how often another model was asked, and 1 if the
    watcher was told that there is no answer.
    """
    asked: list[str] = []

    def say(body: Any) -> Saying:
        asked.append("anthropic" if "system" in body else "openai")
        if len(asked) == 1:
            return Saying(calls=LOOK.calls, after_s=1.0)  # meanwhile somebody begins to watch
        return Saying(text="it is on its way", cut_after=2)

    server.say = say
    news = list(ask(stack, "both").stream(timeout=WAIT_S))
    shown = any(each.kind == "text" for each in news)
    if not shown:
        print("nothing of the answer was shown", flush=True)
    return asked.count("anthropic"), int(shown and any(each.kind == "failed" for each in news))


def crash(stack: Stack, server: ModelServer) -> int:
    """Kill the run's process while a model answers; return how often a model was asked again for a decision."""
    server.bodies.clear()
    server.say = in_order(Saying(calls=LOOK.calls, after_s=0.5), DONE)
    handle, until_s = ask(stack, "openai"), time.monotonic() + WAIT_S
    while not server.bodies and time.monotonic() < until_s:
        time.sleep(0.005)
    for name, layer in stack.status().items():
        if name.startswith("runtime") and "pid" in layer:
            os.kill(layer["pid"], signal.SIGKILL)
    result = handle.result(timeout=WAIT_S)
    if not result.ok:
        print(f"a run whose process died: {result}", flush=True)
    return len(server.bodies) - 2


def rates(environment: dict[str, str]) -> dict[str, Any]:
    """Return what became of the accounts' limits on a cluster of its own, which takes a process of its own."""
    command = [sys.executable, "-m", "benchmarks.model_rates"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def direct_ms(server: ModelServer, repeats: int) -> list[float]:
    """Return the milliseconds that a provider's client takes for an answer."""
    prompt = Prompt(
        instructions="You help.", turns=(Turn(role="user", text="Where is o-1?"),), tools=(), max_tokens=200
    )

    async def measured() -> list[float]:
        limits = RateLimits(requests=None, tokens=None, concurrency=1, now_s=time.monotonic, sleep=asyncio.sleep)
        model, samples = ProviderModel(endpoint(server, "openai"), limits), []
        for _ in range(repeats):
            began = time.perf_counter()
            await model.ask(prompt, 200, 10)
            samples.append((time.perf_counter() - began) * 1000)
        return samples

    return asyncio.run(measured())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=result_file("models"))
    given = parser.parse_args()
    environment = dict(os.environ)  # without what a Ray that is started here adds
    with serving(in_order(DONE)) as server, started(server, mode="pooled", pool_size=4) as stack:
        played = [
            play(stack, server, case, provider)
            for provider in PROTOCOLS
            for case in CASES
            if case.only in (None, provider)
        ]
        server.say = in_order(DONE)
        repeats, stack_ms, client_ms = 20, [], []
        for _ in range(given.rounds):  # in turns
            client_ms += direct_ms(server, repeats)[1:]
            stack_ms += [ask(stack, "openai").result(timeout=WAIT_S).seconds * 1000 for _ in range(repeats)][1:]
        broken = [broken_off(stack, server) for _ in range(given.rounds)]
        again = sum(crash(stack, server) for _ in range(given.rounds))
        found = {
            "cases": len(played),
            "right_outcome": sum(played),
            "overspend_microusd": overspent(stack),
            "broken_streams": len(broken),
            "fell_back_after_output": sum(others for others, _ in broken),
            "watchers_told": sum(told for _, told in broken),
            "asked_again_after_crash": again,
            "overhead_p50_ms": round(median(stack_ms) - median(client_ms), 2),
            "overhead_vs_direct_sdk": round(median(stack_ms) / median(client_ms), 2),
            "audit_ok": stack.verify() == [],
        }
    limited = rates(environment)
    found |= {
        "nodes": limited["nodes"],
        "runtimes": limited["runtimes"],
        "rate_limited_runs": limited["runs"],
        "rate_limited_completed": limited["answered"],
        "rate_limit_exceeded": limited["rate_limit_exceeded"],
    }
    raw = {"machine": machine(), "stack_ms": stack_ms, "client_ms": client_ms, **found, "rates": limited}
    given.out.write_text(json.dumps(raw, indent=1))
    print(f"raw samples: {given.out}")
    last_line(found)


if __name__ == "__main__":
    main()
