"""A secret of each of a hundred tenants, runs of all of them at once, and layers killed: nobody sees another's.

    python -m benchmarks.canaries [--tenants 100] [--rounds 3]

Each tenant's agents keep a text with a canary, a word that no other tenant has, by the tool `remember`; pass it to a
tool; recall it with a question that every other tenant's canary answers as well; and answer with what they recalled.
Meanwhile Memory, a runtime, an executor, the gate and the journal get SIGKILL, one after the other.  Then every answer,
every row of the journal, every span (sent by OTLP to a receiver on loopback), every line of every process's log, and
every record of memory is looked through for canaries.

Last line: tenants; foreign canaries in `results` (what runs and operators were answered), `journal` (rows of another
tenant), `spans` (of another tenant's run), `logs` (any line: a log is read by whoever operates all tenants) and
`memory` (another tenant's table); how many own canaries were seen in results, journal and memory; how many rows, spans
and lines were looked through; kills; runs that
completed, of how many.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import ray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import airside
from airside import App, Finish, ReplayAgent, SingleAgent, View, tool
from airside.actors.client.client import Stack
from airside.memory.in_memory import HashingEmbedder
from airside.stack.directory import Directory, Principal, Tenant
from airside.tools.keeping import remember
from benchmarks.measure import last_line, machine

CANARY = re.compile(r"canary(\d{3})x")
VICTIMS = ("memory", "runtime", "executor", "policy", "journal")
QUESTION = "where is the codeword of the vault kept"
AT_ONCE = 24


def recaller(view: View) -> Finish:
    """Answer with the texts that were recalled."""
    return Finish(answer=[record.text for record in view.recalled])


@tool(effect="read", memorable=True)
def look_up(topic: str) -> str:
    """Return a sentence about a topic."""
    return f"the vault of {topic} has been open since the spring"


def create_app(tenants: int) -> App:
    """Return the app, with tenants `t000`, `t001`, ..."""
    tenant = Tenant(principals={"ana": Principal(clearance="confidential")}, clearance="confidential", concurrency=4)
    return App(
        agents={"clerk": ReplayAgent(), "recaller": recaller},
        routes={"default": SingleAgent("clerk"), "recall": SingleAgent("recaller")},
        tools=[remember, look_up],
        policy="version: canaries-1\nrules: [{id: all, outcome: allow}]",
        directory=Directory(tenants={name(number): tenant for number in range(tenants)}),
        memory=True,
        embedder=HashingEmbedder,
    )


def name(number: int) -> str:
    """Return a tenant's name."""
    return f"t{number:03d}"


class Collector:
    """Takes spans in."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.path.endswith("/v1/traces"):
                    request = ExportTraceServiceRequest.FromString(data)
                    for resource in request.resource_spans:
                        for scope in resource.scope_spans:
                            spans.extend((tenant_of(span), str(span)) for span in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler


def tenant_of(span: Any) -> str:
    """Return whose span it is."""
    found = [a.value.string_value for a in span.attributes if a.key == "airside.tenant"]
    return found[0] if found else ""


def canaries(text: str) -> set[str]:
    """Return the tenants whose canaries a text has."""
    return {name(int(number)) for number in CANARY.findall(text)}


class Load:
    """The tenants' runs, and what was answered."""

    def __init__(self, stack: Stack, tenants: int, rounds: int) -> None:
        self.stack = stack
        self.tenants = tenants
        self.rounds = rounds
        self.answers: list[tuple[str, str]] = []
        self.ended: Counter[bool] = Counter()
        self.done = 0

    def run(self, tenant: str, request: str, route: str = "default", *actions: dict[str, Any]) -> None:
        """Let one run end, and keep its answer."""
        handle = self.stack.submit(
            request, tenant=tenant, principal="ana", route=route, inputs={"actions": list(actions)}
        )
        result = handle.result(timeout=120)
        self.ended[result.ok] += 1
        self.answers.append((tenant, f"{result.answer} {result.detail}"))

    def tenant(self, number: int, round_: int) -> None:
        """One tenant's round: keep, look up, recall twice."""
        tenant, canary = name(number), f"canary{number:03d}x"
        text = f"the codeword of the vault number {round_} of {canary} is kept under the bridge"
        keep = {"tool": "remember", "args": {"text": text, "subject": canary, "sensitivity": "confidential"}}
        self.run(tenant, f"keep what {canary} says", "default", keep)
        self.run(tenant, f"look at {canary}", "default", {"tool": "look_up", "args": {"topic": canary}})
        for _ in range(2):
            self.run(tenant, QUESTION, "recall")
        self.done += 1

    def all(self) -> int:
        """Run everything while layers are killed; return how many were."""
        whole = self.tenants * self.rounds
        kills = 0
        with ThreadPoolExecutor(AT_ONCE) as threads:
            rounds = [
                threads.submit(self.tenant, number, round_)
                for round_ in range(self.rounds)
                for number in range(self.tenants)
            ]
            for at, victim in enumerate(VICTIMS * 2):
                rounds[whole * (at + 1) // (2 * len(VICTIMS) + 2)].result()
                kills += self.kill(victim)
            for each in rounds:
                each.result()
        return kills

    def kill(self, layer: str) -> int:
        """Kill one process of a layer."""
        for found, state in self.stack.status().items():
            if found.startswith(layer) and "pid" in state:
                with suppress(ProcessLookupError):
                    os.kill(state["pid"], signal.SIGKILL)
                    print(f"killed {found} after {self.done} rounds", flush=True)
                    return 1
        return 0


def look_through(load: Load, collector: Collector, logs: Path) -> dict[str, Any]:
    """Count canaries where they are not their tenant's."""
    stack, foreign, own = load.stack, Counter[str](), Counter[str]()
    for number in range(load.tenants):
        tenant = name(number)
        shown = stack.memory.search(QUESTION, tenant=tenant, top_k=50, min_score=0.0)
        load.answers += [(tenant, record.text) for record in shown]
        kept = [msgspec.json.encode(record).decode() for record in stack.memory.records(tenant=tenant)]
        count("memory", [(tenant, text) for text in kept], foreign, own)
    count("results", load.answers, foreign, own)
    rows = stack.query("SELECT tenant, CAST(body AS VARCHAR) AS body FROM events").to_pylist()
    count("journal", [(row["tenant"], row["body"]) for row in rows], foreign, own)
    count("spans", collector.spans, foreign, own)
    lines = [
        line for path in logs.rglob("*") if path.is_file() for line in path.read_text(errors="replace").splitlines()
    ]
    count("logs", [("", line) for line in lines], foreign, own)
    places = ("results", "journal", "spans", "logs", "memory")
    return {
        "foreign": {place: foreign[place] for place in places},
        "own": {place: own[place] for place in ("results", "journal", "memory")},
        "read": {"rows": len(rows), "spans": len(collector.spans), "log_lines": len(lines)},
    }


def count(place: str, texts: list[tuple[str, str]], foreign: Counter[str], own: Counter[str]) -> None:
    """Count the canaries of texts by whether they are their owner's."""
    for tenant, text in texts:
        for found in canaries(text):
            (own if found == tenant else foreign)[place] += 1


@contextmanager
def a_stack(tenants: int, folder: Path, collector: Collector) -> Iterator[Stack]:
    """Start Ray and a stack whose spans go to the collector."""
    os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{collector.url}/v1/traces"
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(
        address="local", namespace="airside", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="error", _temp_dir=str(folder / "ray"),
    )  # fmt: skip
    try:
        stack = airside.start(
            create_app(tenants), stack="canaries", state_dir=folder / "state", mode="pooled", executors=2
        )
        try:
            yield stack
        finally:
            stack.shutdown()
    finally:
        ray.shutdown()


def main() -> None:
    """Run the load, look through everything, and print the summary last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine(), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))
    collector = Collector()
    try:
        with a_stack(options.tenants, folder, collector) as stack:
            load = Load(stack, options.tenants, options.rounds)
            kills = load.all()
            found = look_through(load, collector, folder / "ray")
            runs = {"kills": kills, "completed": load.ended[True], "runs": load.ended.total()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    last_line({"tenants": options.tenants, **found, **runs})


if __name__ == "__main__":
    main()
