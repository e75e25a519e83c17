"""The console as operators use it, before a stack that has been at work for a while.

    python -m benchmarks.console [--quick] [--runs 100000] [--waiting 1000] [--events 50] [--rounds 40]

A few runs are played on a real stack: some complete, after an approval or without, some are denied or fail.  What the
journal has of them is then written to it again under other names, tenants and times, by the way by which a stack
writes, until it has so many runs.  On that journal the stack is started again, with `airside serve` before it, so many
approvals are put before people, and runs go on to be submitted, so that the journal grows by so many events a second.

Meanwhile an operator of the house, who reaches all tenants, and one of a single tenant load each page, and each has
Now and a run open beside it, which are told of news and ask for what has changed, as a browser does; calls are approved
on the console until their effects happen; and streams of runs' events are read.  Before the last line is a table: a row
a page, milliseconds from sending a request to having all of its answer.  Last line: `page_p99_ms` of the page with the
highest one; `approve_to_effect_p99_ms` from sending a vote to the call of the tool; `sse_lag_p99_ms` from the time that
an event bears to its arrival; `rss_mb` of the process that serves the pages.  `--quick` takes a minute.
Not measured: browsers, and networks.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
import pyarrow as pa
import ray

import airside
from airside import App, ReplayAgent, ToolContext, ToolError, tool
from airside.actors.client.client import Stack
from airside.actors.journal.store import JournalStore
from airside.batches import run_batch
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, Entry
from airside.stack.security.keyring import read_chain_key
from benchmarks.measure import last_line, machine, memory_mib, percentile

TENANTS = ("acme", "birch", "cedar", "delta", "elm")
SHARES = (60, 20, 10, 5, 5)
"""Of a hundred runs, how many are of each tenant."""

SPAN_US = 14 * 86_400_000_000
"""The time over which the runs that were before are spread."""

GROUP = 1_000
"""Entries of one commit of what is written again."""

POLICY = """
version: console-1
rules:
  - {id: no-deletes, outcome: deny, description: Nobody deletes., when: {tool: [delete]}}
  - {id: refunds, outcome: require_approval, description: A lead looks at refunds., when: {tool: [refund]},
     approval: {roles: [lead], expires_after_s: 86400}}
  - {id: large-refunds, outcome: deny, when: {tool: [refund], arguments: [{path: amount, op: gt, value: 1000}]}}
  - {id: reads, outcome: allow, when: {effect: [read]}}
  - {id: writes, outcome: allow, when: {effect: [write]}}
"""
LOOK = {"tool": "look", "args": {"topic": "the order"}}
NOTE = {"tool": "note", "args": {"text": "looked at"}}
REFUND = {"tool": "refund", "args": {"order": "L-1007", "amount": 5}}
KINDS: tuple[tuple[dict[str, Any], ...], ...] = (
    (LOOK, NOTE, LOOK),
    (LOOK, REFUND),
    (LOOK, {"tool": "delete", "args": {"order": "L-1"}}),
    ({"tool": "note", "args": {"text": "bad"}},),
)
"""What the runs do that were before, in turns."""


def create_app(effects: Path) -> App:
    """Return the app; its refunds leave the time in a file of a folder, by the run that they are of."""

    @tool(effect="read", trusted_output=True)
    def look(topic: str) -> str:
        """Look at something."""
        return f"{topic} is as it should be"

    @tool(effect="write", idempotent=True)
    def note(text: str) -> str:
        """Note something."""
        if text == "bad":
            raise ToolError("it is not taken")
        return "noted"

    @tool(effect="irreversible", idempotent=True)
    def refund(order: str, amount: int, context: ToolContext) -> str:
        """Give money back."""
        (effects / context.idempotency_key.replace(":", "-")).write_text(repr(time.time()))
        return "refunded"

    @tool(effect="irreversible")
    def delete(order: str) -> str:
        """Delete an order."""
        return "deleted"

    people = {
        "ann": Principal(),
        "lea": Principal(roles=["lead"]),
        "max": Principal(roles=["operator", "auditor", "lead"]),
    }
    tenants = {name: Tenant(principals=people, concurrency=64, queue=20_000) for name in TENANTS}
    house = Tenant(principals={"hugo": Principal(roles=["operator", "auditor"])})
    return App(
        agents={"clerk": ReplayAgent()},
        tools=[look, note, refund, delete],
        policy=POLICY,
        directory=Directory(house="house", tenants={**tenants, "house": house}),
    )


# What was before.

_AT_US = re.compile(r'"at_us":(\d{16})')
_STREAMS = (
    "SELECT tenant, stream, epoch, seq, step, at_us, cause, type, body FROM events "
    "WHERE contains(stream, ?) ORDER BY tenant, number"
)
BATCH = "night-0000"
BATCH_RUNS = 500
"""Runs of each batch that was before."""


@dataclass(frozen=True, slots=True)
class Played:
    """What was played: the name that it goes by, and its appends."""

    name: str
    appends: tuple[Append, ...]

    def again(self, changes: dict[str, str], tenant: str, earlier_us: int) -> list[Append]:
        """Return the same of a tenant, at an earlier time, with other texts for some of its own."""
        changes = {'"tenant":"acme"': f'"tenant":"{tenant}"', **changes}

        def changed(text: str) -> str:
            for before, after in changes.items():
                text = text.replace(before, after)
            return text

        def moved(entry: Entry) -> Entry:
            body = _AT_US.sub(lambda found: f'"at_us":{int(found[1]) - earlier_us}', changed(entry.body.decode()))
            at_us = entry.at_us - earlier_us
            return Entry(type=entry.type, step=entry.step, at_us=at_us, cause=entry.cause, body=body.encode())

        return [
            Append(
                tenant=TenantId(tenant) if each.tenant == "acme" else each.tenant,
                stream=changed(each.stream),
                epoch=each.epoch,
                first_seq=each.first_seq,
                entries=tuple(map(moved, each.entries)),
            )
            for each in self.appends
        ]


def play(stack: Stack, folder: Path) -> list[str]:
    """Let one run of each kind end, and a batch of one; return the runs' ids, that of the batch's last."""
    handles = [stack.submit("do it", tenant="acme", principal="ann", inputs={"actions": list(each)}) for each in KINDS]
    while not (waiting := stack.approvals()):
        time.sleep(0.05)
    for each in waiting:
        stack.approve(each.approval_id, principal="lea")
    for handle in handles:
        handle.result(timeout=120)
    job = {"request": "do it", "tenant": "acme", "principal": "ann", "inputs": {"actions": list(KINDS[0])}}
    run_batch(stack, [job], out=folder / "batch", batch=BATCH, owned_by="acme", progress=False)
    ids = [each.run_id for each in stack.runs(batch=BATCH)]
    return [*(handle.run_id for handle in handles), *ids]


def read_played(store: JournalStore, name: str) -> Played:
    """Return what the journal has by a name."""
    with pa.ipc.open_stream(store.query(_STREAMS, [name])) as stream:
        rows = stream.read_all().to_pylist()
    appends: list[Append] = []
    for row in rows:
        entry = Entry(**{each: row[each] for each in ("type", "step", "at_us", "cause")}, body=row["body"].encode())
        last = appends[-1] if appends else None
        if last is not None and (last.stream, last.epoch) == (row["stream"], row["epoch"]):
            appends[-1] = msgspec.structs.replace(last, entries=(*last.entries, entry))
        else:
            where = {"tenant": TenantId(row["tenant"]), "stream": row["stream"], "epoch": row["epoch"]}
            appends.append(Append(**where, first_seq=row["seq"], entries=(entry,)))
    return Played(name, tuple(appends))


class Written(NamedTuple):
    """How many entries a journal has, and how many of them each run of the first kind has."""

    entries: int
    of_run: int


def write_again(folder: Path, run_ids: Sequence[str], runs: int) -> Written:
    """Write what was played to the journal of a folder until it has so many runs."""
    with closing(JournalStore(folder, read_chain_key(folder / "keys"))) as store:
        store.start_feeding()
        played = [read_played(store, run_id) for run_id in run_ids]
        batch = read_played(store, f"batch:{BATCH}")
        group: list[Append] = []
        began = time.monotonic()
        for number in range(runs):
            one = played[number % len(played)]
            tenant, earlier_us = tenant_of(number), SPAN_US * (runs - number) // runs
            night = f"night-{number // len(played) // BATCH_RUNS + 1:04d}"
            name = "run_" + hashlib.sha256(b"%d" % number).hexdigest()[:24]
            if one is played[-1] and number // len(played) % BATCH_RUNS == 0:
                group += batch.again({BATCH: night}, tenant, earlier_us)
            group += one.again({one.name: name, BATCH: night}, tenant, earlier_us)
            if sum(len(each.entries) for each in group) >= GROUP or number == runs - 1:
                wrong = [reply for reply in store.commit(group) if reply.verdict != "ok"]
                assert not wrong, wrong[0]
                group = []
        entries = store.last()
        print(f"{runs:,} runs, {entries:,} entries written in {time.monotonic() - began:.0f} s", flush=True)
        return Written(entries, sum(len(each.entries) for each in played[0].appends))


def tenant_of(number: int) -> str:
    """Return whose a run that was before is: each batch is of one tenant."""
    place = (number // (len(KINDS) + 1) // BATCH_RUNS * 37 + number % 3) % 100
    for tenant, share in zip(TENANTS, SHARES, strict=True):
        if place < share:
            return tenant
        place -= share
    return TENANTS[0]


# What there is while pages are loaded.


class Load:
    """Runs that are submitted as time goes by, so that the journal grows by so many events a second."""

    def __init__(self, stack: Stack, events_per_s: float, events_per_run: float) -> None:
        self._stack = stack
        self._pause_s = events_per_run / events_per_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.submitted: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            actions = [LOOK, NOTE, LOOK]
            handle = self._stack.submit("do it", tenant="acme", principal="ann", inputs={"actions": actions})
            self.submitted.append(handle.run_id)
            due += self._pause_s


def put_before_people(stack: Stack, count: int) -> None:
    """Submit runs that wait for people, and return when all do."""

    def submit(_: int) -> None:
        stack.submit("Refund the order.", tenant="acme", principal="ann", inputs={"actions": [REFUND]})

    began = time.monotonic()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(submit, range(count)))
    while len(stack.approvals()) < count:
        time.sleep(0.2)
    print(f"{count:,} approvals wait after {time.monotonic() - began:.0f} s", flush=True)


class Person:
    """Somebody in front of the console."""

    def __init__(self, url: str, token: str) -> None:
        self.client = httpx2.Client(base_url=url, headers={"origin": url, "host": url.partition("//")[2]}, timeout=60)
        reply = self.client.post("/console/login", data={"credential": token})
        assert reply.status_code == 303, reply.text

    def load(self, path: str, **form: str) -> tuple[str, float]:
        """Return a page, and the milliseconds it took; it is sent a form if there is one."""
        began = time.perf_counter()
        url = f"/console{path}"
        reply = self.client.post(url, data=form) if form else self.client.get(url)
        took_ms = (time.perf_counter() - began) * 1000
        assert reply.status_code in (200, 303), f"{path}: {reply.status_code} {reply.text[:500]}"
        return reply.text, took_ms

    def csrf(self) -> str:
        """Return what a form has of the session."""
        page, _ = self.load("/orders?order=switch_off")
        return str(re.findall(r'name="csrf" value="([^"]*)"', page)[0])


def pages_of(run: str, waiting_run: str, approval: str) -> dict[str, str]:
    """Return the pages there are, by what they are called."""
    return {
        "now": "/now",
        "approvals": "/approvals",
        "approval": f"/approvals/{approval}",
        "edit": f"/approvals/{approval}/edit",
        "runs": "/runs",
        "runs, active": "/runs?status=active",
        "runs, refused, 7 days": "/runs?status=refused&since=7d",
        "run": f"/runs/{run}",
        "run, active": f"/runs/{waiting_run}",
        "batches": "/batches",
        "batch": "/batches/night-0001",
        "tenants": "/tenants",
        "tenant": "/tenants/acme",
        "in doubt": "/in-doubt",
        "switches": "/switches",
        "policy": "/policy",
        "audit": "/audit",
        "audit, search": "/audit/entries?text=L-1007",
        "audit, found nowhere": "/audit/entries?text=no-such-text",
        "audit, of a run": f"/audit/entries?stream={run}",
        "order": f"/orders?order=kill_run&target={waiting_run}",
    }


def load_pages(people: dict[str, Person], pages: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Load each page so many times, each person in turn; return the milliseconds each time, by page and person."""
    took: dict[str, list[float]] = defaultdict(list)
    for each in range(rounds + 1):
        for name, path in pages.items():
            for who, person in people.items():
                _, took_ms = person.load(path)
                if each:  # what is loaded first is read from disk
                    took[f"{name} ({who})"].append(took_ms)
    return took


@contextmanager
def open_pages(people: dict[str, Person], paths: Sequence[str]) -> Iterator[dict[str, int]]:
    """Keep pages open: each is told of news, and asks for its part; yield how often each did."""
    over, asked = threading.Event(), dict.fromkeys(paths, 0)

    def follow(person: Person, path: str) -> None:
        page, _ = person.load(path)
        where = html.unescape(re.findall(r'hx-sse:connect="([^"]*)"', page)[0])
        with person.client.stream("GET", where, headers={"hx-request": "true"}) as stream:
            for line in stream.iter_lines():
                if over.is_set():
                    return
                if line == "event: news":
                    part = person.client.get(f"/console{path}", headers={"hx-request": "true"})
                    assert part.status_code == 200, part.text[:500]
                    asked[path] += 1

    threads = [threading.Thread(target=follow, args=(person, path)) for person in people.values() for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()


def print_table(took: dict[str, list[float]]) -> None:
    """Print a row for each page and person."""
    print(f"\n{'page':<32}{'p50_ms':>8}{'p99_ms':>8}{'max_ms':>8}")
    for name, times in took.items():
        figures = (percentile(times, 0.5), percentile(times, 0.99), max(times))
        print(f"{name:<32}" + "".join(f"{each:>8.0f}" for each in figures), flush=True)
    print(flush=True)


def approve(person: Person, stack: Stack, effects: Path, count: int) -> list[float]:
    """Approve calls on the console; return the milliseconds from sending each vote to its effect."""
    csrf, took = person.csrf(), []
    for each in stack.approvals("acme")[:count]:
        sent = time.time()
        person.load(f"/approvals/{each.approval_id}/vote", csrf=csrf, verdict="approve")
        found = effects / f"{each.run_id}-1"
        while not found.exists() or not found.read_text():
            time.sleep(0.002)
        took.append((float(found.read_text()) - sent) * 1000)
    return took


def read_streams(url: str, token: str, load: Load, count: int) -> list[float]:
    """Read the events of so many runs as they happen; return the milliseconds from each one's time to its arrival."""
    lags: list[float] = []

    def read(run_id: str) -> None:
        headers = {"authorization": f"Bearer {token}"}
        opened_us = time.time() * 1e6
        with httpx2.stream("GET", f"{url}/v1/runs/{run_id}/events", headers=headers, timeout=60) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: ") and '"at_us"' in line:
                    at_us = json.loads(line[6:])["event"]["at_us"]
                    if at_us > opened_us:
                        lags.append(time.time() * 1e3 - at_us / 1e3)

    seen = len(load.submitted)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(count):
            while len(load.submitted) <= seen:
                time.sleep(0.002)
            threads.submit(read, load.submitted[seen])
            seen += 1
    return lags


# Running.


@contextmanager
def a_ray(folder: Path) -> Iterator[None]:
    """Start Ray on this machine."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(
        address="local", namespace="airside", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="error", _temp_dir=str(folder / "ray"),
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def a_stack(folder: Path) -> Iterator[Stack]:
    """Start the stack."""
    effects = folder / "effects"
    effects.mkdir(exist_ok=True)
    began = time.monotonic()
    stack = airside.start(create_app(effects), stack="console", state_dir=folder / "state", mode="pooled", executors=1)
    print(f"started in {time.monotonic() - began:.0f} s", flush=True)
    try:
        yield stack
    finally:
        stack.shutdown()


@contextmanager
def a_server(state: Path) -> Iterator[tuple[str, int]]:
    """Serve a stack's console and API; yield the address and the process."""
    command = [str(Path(sys.executable).with_name("airside")), "serve", "--port", "0", "--state-dir", str(state)]
    log = state.parent / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while not (found := re.search(r"serving on (http://[0-9.:]+)/v1", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait(30)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make the journal, and measure on it."""
    state = folder / "state"
    with a_ray(folder):
        with a_stack(folder) as stack:
            run_ids = play(stack, folder)
        written = write_again(state, run_ids, options.runs)
        with a_stack(folder) as stack, a_server(state) as (url, pid):
            put_before_people(stack, options.waiting)
            waiting = stack.approvals("acme")[-1]
            run = "run_" + hashlib.sha256(b"1").hexdigest()[:24]
            pages = pages_of(run, waiting.run_id, waiting.approval_id)
            tokens = {who: stack.token(tenant, who) for who, tenant in (("hugo", "house"), ("max", "acme"))}
            people = {who: Person(url, token) for who, token in tokens.items()}
            with Load(stack, options.events, written.of_run) as load:
                with open_pages(people, ("/now", f"/runs/{waiting.run_id}")) as asked:
                    took = load_pages(people, pages, options.rounds)
                print_table(took)
                print(f"open pages asked for what has changed: {asked}", flush=True)
                effects = approve(people["max"], stack, folder / "effects", options.rounds)
                lags = read_streams(url, tokens["max"], load, options.rounds)
            rss_mb = memory_mib([pid]) * 2**20 / 1e6
            layers = {name: layer["pid"] for name, layer in stack.status().items() if "pid" in layer}
            print({name: round(memory_mib([each])) for name, each in sorted(layers.items())}, "MiB", flush=True)
    return {
        "machine": machine(),
        "runs": options.runs,
        "entries": written.entries,
        "waiting": options.waiting,
        "page_p99_ms": round(max(percentile(times, 0.99) for times in took.values()), 1),
        "approve_to_effect_p99_ms": round(percentile(effects, 0.99), 1),
        "sse_lag_p99_ms": round(percentile(lags, 0.99), 1),
        "rss_mb": round(rss_mb, 1),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--waiting", type=int, default=1_000)
    parser.add_argument("--events", type=float, default=50, help="a second")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="2,000 runs, 50 approvals, 3 rounds")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.waiting, options.rounds = 2_000, 50, 3
    folder = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))
    try:
        found = measure(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    last_line(found)


if __name__ == "__main__":
    main()
