"""Runs whose models are asked in a provider's batch, through the death of the model caller and of the whole stack.

    python -m benchmarks.provider_batch [--requests 1000]

A local server that speaks OpenAI's batch protocol holds the batch while it is out: the model caller gets SIGKILL, then
every process of the stack at once, and the stack is started again on the same state directory.  Then the batch ends.

 answered_once    questions with exactly one answer on record, whose run completed with that answer
 batches_created  batches at the provider
 asked_twice      questions that were given to the provider more often than once, each time more
 settled_ratio    what the answers cost by the record, or what the runs spent if that is more, as a share of
                  what the same usage costs when each question is asked by itself
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import airside
from airside import App, tool
from airside.actors.client.client import Stack
from airside.actors.client.results import MapTimeout, RunResult
from airside.directory import Directory, Principal, Tenant
from airside.models import ModelAgent, ModelEndpoint, TokenPrice
from benchmarks.measure import last_line
from benchmarks.model_servers import Body, ModelServer, Saying, serving

PRICE = TokenPrice(input=1.0, output=10.0)
USED = (100, 20)
WAIT_S = 600.0
POLICY = "version: batches-1\nrules: [{id: reads, outcome: allow, when: {effect: [read]}}]"
ANSWERS = """
SELECT stream, count(*) AS answers, sum(CAST(json_extract(body, '$.spent.cost_microusd') AS BIGINT)) AS cost
FROM events WHERE type = 'ModelAnswered' GROUP BY stream
"""


@tool(effect="read")
def look(order_id: str) -> str:
    """Look an order up."""
    return f"{order_id} is lost"


def create_app(server: ModelServer) -> App:
    """Return an app whose one agent asks the server, by itself or in batches."""
    house = ModelEndpoint(model="m-1", base_url=f"{server.url}/v1", api_key_env="", price=PRICE, batch_share=0.5)
    clerk = Tenant(
        principals={"ana": Principal()},
        concurrency=10_000,
        queue=10_000,
        limits={"max_cost_microusd": 10_000_000, "max_tokens": 10_000_000},
    )
    return App(
        agents={"clerk": ModelAgent("house", "Say what you are asked.", max_tokens=100, max_prompt_bytes=4_000)},
        models={"house": house},
        tools=[look],
        policy=POLICY,
        directory=Directory(tenants={"acme": clerk}),
    )


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise SystemExit(f"waited {WAIT_S:.0f} s for {what}")
        time.sleep(0.05)


def kill(stack: Stack, prefix: str = "") -> int:
    """Kill the processes of a stack whose layer is called so; return how many."""
    pids = [each["pid"] for name, each in stack.status().items() if name.startswith(prefix) and "pid" in each]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


def says(body: Body) -> Saying:
    """Answer with the question, which is the last of what is told."""
    return Saying(text=str(body["input"][-1]["content"]), used=USED)


def submitted(stack: Stack, server: ModelServer, requests: int) -> dict[str, int]:
    """Submit runs, wait until the provider has a batch of all their questions, and return the number of each."""
    jobs = [airside.Job(request=f"question {number}", tenant="acme", principal="ana") for number in range(requests)]
    try:
        stack.map(jobs, lane="provider_batch", progress=False, timeout=1.0 + requests / 100)
    except MapTimeout as open_yet:
        runs = open_yet.places
    until(lambda: server.batches.asked.total() >= requests, "all questions to be with the provider")
    recorded = "SELECT count(*) AS n FROM events WHERE type = 'ModelBatchSubmitted'"
    made = len(server.batches.batches)
    until(lambda: stack.query(recorded).to_pylist()[0]["n"] == made, "the batches to be on record")
    return runs


def figures(stack: Stack, server: ModelServer, runs: dict[str, int], results: list[RunResult]) -> dict[str, Any]:
    """Return what became of the questions."""
    answers = {row["stream"]: row for row in stack.query(ANSWERS).to_pylist()}
    right = {
        f"model/{result.run_id}:1"
        for result in results
        if result.ok and result.answer == f"question {runs[result.run_id]}"
    }
    usual = PRICE.microusd(*USED) * len(results)
    paid = max(sum(int(row["cost"]) for row in answers.values()), sum(result.cost_microusd for result in results))
    return {
        "requests": len(results),
        "answered_once": sum(row["answers"] == 1 and stream in right for stream, row in answers.items()),
        "batches_created": len(server.batches.batches),
        "asked_twice": sum(times - 1 for times in server.batches.asked.values()),
        "settled_ratio": round(paid / usual, 4),
        "audit_ok": stack.verify() == [],
    }


def play(server: ModelServer, folder: Path, requests: int) -> dict[str, Any]:
    """Send the questions, kill what is there while the batch is out, and let it end."""
    server.batches.is_held = True
    options: dict[str, Any] = {
        "stack": "batches",
        "state_dir": folder,
        "mode": "pooled",
        "pool_size": 2,
        "executors": 1,
    }
    app = create_app(server)
    with airside.start(app, **options) as stack:
        runs = submitted(stack, server, requests)
        print(f"killed the model caller ({kill(stack, 'models')} process)", flush=True)
        before = server.batches.polls
        until(lambda: server.batches.polls > before + 1, "the next model caller to ask for the batch")
        print(f"killed the stack ({kill(stack)} processes)", flush=True)
    before = server.batches.polls
    with airside.start(app, **options) as stack:
        until(lambda: server.batches.polls > before, "the next stack to ask for the batch")
        server.batches.is_held = False
        results = stack.results([stack.handle(run_id) for run_id in runs], timeout=WAIT_S)
        for result in [each for each in results if not each.ok][:3]:
            print(f"{result.run_id}: {result.reason_code} {result.detail}\n{result.story()}", flush=True)
        return figures(stack, server, runs, results)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000)
    given = parser.parse_args()
    with serving(says) as server, tempfile.TemporaryDirectory(prefix="airside-batches-") as folder:
        last_line(play(server, Path(folder), given.requests))


if __name__ == "__main__":
    main()
