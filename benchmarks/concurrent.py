"""Runs that are live at once: how fast another is admitted beside them, and what each of them holds in memory.

    python -m benchmarks.governed_steps --concurrent 10000 [--waits approval|tool] [--rounds 3]

Runs are admitted that then wait, for a person (`approval`) or within a tool that does not return (`tool`), until there
are 1,000; then 1,000 more in blocks, which are measured.  The same is done at as many as are asked for.  Then all are
let go, and must complete.  Nothing else is under way while a block is admitted, nor before it: each is waited for until
its runs wait.

 admitted_per_s_N   runs whose tickets came back a second, with N live; `admission_ratio` = at the most / at 1,000
 live_per_s_N       runs a second from their submission until the last of them waits; `live_ratio` the same
 cpu_ms_N           CPU time of all processes of the stack, its client's too, until then, per run; `cpu_ratio` = at the
                    most / at 1,000
 kb_per_run         proportional set size that all processes of the stack grew by from 1,000 live runs to the most,
                    over their number; `kb_by_layer` = whose that is
 ended_per_s        runs that end a second once all are let go

Figures are medians over rounds, ratios those of each round.  The processes are shared (`pooled`).  Not measured:
a process a tenant, memory.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import airside
from airside import Action, App, Finish, RunHandle, View, tool
from airside.actors.client.client import Stack
from airside.actors.client.steps import drive
from airside.actors.jobs import Job
from airside.actors.rpc.methods import GIVE_VOTE, PresentedVote
from airside.stack.directory import Directory, Principal, Tenant
from benchmarks.measure import cpu_seconds, median, memory_mib

Waits = Literal["approval", "tool"]

FEW = 1_000
"""Live runs that the most is compared with."""

BLOCK, BLOCKS = 500, 2
"""Runs that are submitted in one call, as a batch's are, and how many such calls are measured."""

TENANTS = [f"tenant-{i}" for i in range(20)]
LOOK_S = 0.1
PATIENCE_S = 600.0

_open: dict[asyncio.AbstractEventLoop, tuple[asyncio.Event, asyncio.Task[None]]] = {}


async def _opens(path: str, opened: asyncio.Event) -> None:
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240 - another process makes it, and a look is short
        await asyncio.sleep(LOOK_S)
    opened.set()


@tool(effect="read", timeout=3600)
async def hold(path: str) -> str:
    """Return when there is a file of that path: one task a loop looks for it, however many wait."""
    loop = asyncio.get_running_loop()
    if loop not in _open:
        opened = asyncio.Event()
        _open[loop] = opened, loop.create_task(_opens(path, opened))
    await _open[loop][0].wait()
    return "open"


@tool(effect="write", idempotent=True)
async def post(account: str, cents: int) -> int:
    """Post an entry."""
    return cents


def clerk(view: View) -> Action | Finish:
    """Make the one call that the inputs name, and finish."""
    inputs = view.inputs()
    if view.history:
        return Finish(answer=1)
    if inputs["waits"] == "tool":
        return Action(tool="hold", arguments={"path": inputs["path"]})
    return Action(tool="post", arguments={"account": "acc-1", "cents": inputs["cents"]})


POLICY = """
version: concurrent-1
rules:
  - {id: large, outcome: require_approval, approval: {roles: [lead], expires_after_s: 86400},
     when: {effect: [write], arguments: [{path: cents, op: gt, value: 1000}]}}
  - {id: all, outcome: allow}
"""


def app(most: int) -> App:
    """Return the app for so many runs at once."""
    who = {"clerk": Principal(roles=["clerk"]), "head": Principal(roles=["lead"])}
    share = Tenant(principals=who, concurrency=most, queue=most)
    return App(
        agents={"clerk": clerk},
        tools=[hold, post],
        policy=POLICY,
        directory=Directory(tenants=dict.fromkeys(TENANTS, share)),
    )


class Crowd:
    """One stack's live runs."""

    def __init__(self, stack: Stack, waits: Waits, folder: Path) -> None:
        self._stack = stack
        self._waits = waits
        self._door = folder / "open"
        self._handles: list[RunHandle] = []

    def admit(self, count: int, *, cents: int = 2_000) -> None:
        """Admit so many runs, in the calls a batch would make."""
        for first in range(0, count, BLOCK):
            jobs = [self._job(first + i, cents) for i in range(min(BLOCK, count - first))]
            tickets = drive(self._stack.backend.enter(jobs, None))
            refused = [ticket for ticket in tickets if not ticket.run_id]
            if refused:
                raise SystemExit(f"{len(refused)} runs were refused: {refused[0]}")
            self._handles += [RunHandle(self._stack, ticket.run_id) for ticket in tickets]

    def _job(self, number: int, cents: int) -> Job:
        inputs = {"waits": self._waits, "path": str(self._door), "cents": cents}
        tenant = TENANTS[number % len(TENANTS)]
        return Job(request="Post this month's fee.", tenant=tenant, principal="clerk", inputs=inputs)

    def warm(self) -> None:
        """Have every process do once what it does for a run."""
        self._waits, waits = "approval", self._waits
        self.admit(BLOCK, cents=1)
        self.end()
        self._waits = waits

    def wait(self) -> None:
        """Return once all wait."""
        until = time.monotonic() + PATIENCE_S
        while self._waiting_now() < len(self._handles):
            if time.monotonic() > until:
                raise SystemExit(f"{self._waiting_now()} of {len(self._handles)} runs wait")
            time.sleep(LOOK_S)

    def _waiting_now(self) -> int:
        layers = self._stack.status()
        if self._waits == "approval":
            return int(layers["driver"]["parked"])
        return sum(int(layer["active"]) for name, layer in layers.items() if name.startswith("executor"))

    def let_go(self) -> None:
        """Give every run what it waits for."""
        if self._waits == "tool":
            self._door.touch()
            return
        tokens = {tenant: self._stack.token(tenant, "head") for tenant in TENANTS}
        votes = [PresentedVote(tokens[each.tenant], each.approval_id, "approve") for each in self._stack.approvals()]
        for first in range(0, len(votes), BLOCK):
            replies = drive(self._stack._connection.call_each(GIVE_VOTE, votes[first : first + BLOCK]))
            if not all(reply.ok for reply in replies):
                raise SystemExit(f"a vote was refused: {next(reply for reply in replies if not reply.ok)}")

    def end(self) -> None:
        """Return once all have completed."""
        results = self._stack.results(self._handles, timeout=PATIENCE_S)
        if len(results) < len(self._handles) or not all(result.ok for result in results):
            raise SystemExit(f"{len(results)} of {len(self._handles)} runs ended: {next(iter(results), None)}")
        self._handles = []

    def pss_kb(self) -> dict[str, float]:
        """Return the memory of each of the stack's processes, by layer."""
        found: dict[str, float] = {}
        for name, layer in self._stack.status().items():
            kind = name.partition("/")[0]
            found[kind] = found.get(kind, 0.0) + memory_mib([layer["pid"]]) * 1024
        return found

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU time that each of the stack's processes has used, by layer, and its client."""
        found = {"client": time.process_time()}
        for name, layer in self._stack.status().items():
            kind = name.partition("/")[0]
            found[kind] = found.get(kind, 0.0) + cpu_seconds([layer["pid"]])
        return found


def _timed(do: Callable[[], None]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began


def blocks(crowd: Crowd, live: int) -> dict[str, Any]:
    """Admit blocks beside so many live runs; return the rates, and the CPU time a run."""
    runs, before = BLOCK * BLOCKS, crowd.cpu_s()
    admitted_s = live_s = 0.0
    for _ in range(BLOCKS):
        took_s = _timed(lambda: crowd.admit(BLOCK))
        admitted_s, live_s = admitted_s + took_s, live_s + took_s + _timed(crowd.wait)
    after = crowd.cpu_s()
    by_layer = {layer: round((after[layer] - before[layer]) * 1000 / runs, 3) for layer in after}
    return {
        f"admitted_per_s_{live}": round(runs / admitted_s, 1),
        f"live_per_s_{live}": round(runs / live_s, 1),
        f"cpu_ms_{live}": round(sum(by_layer.values()), 3),
        f"cpu_by_layer_{live}": by_layer,
    }


def fill(crowd: Crowd, count: int) -> None:
    """Have so many more runs live."""
    crowd.admit(count)
    crowd.wait()


def sample(most: int, waits: Waits) -> dict[str, Any]:
    """Play one round in a stack of its own, and return its figures."""
    folder = Path(tempfile.mkdtemp(prefix="airside-concurrent-"))
    with ExitStack() as at_end:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        stack = airside.start(
            app(2 * most + FEW), stack="concurrent", state_dir=folder, mode="pooled", cell_concurrency=2 * most + FEW
        )
        at_end.callback(stack.shutdown)
        crowd = Crowd(stack, waits, folder)
        crowd.warm()
        fill(crowd, FEW)
        few_kb = crowd.pss_kb()
        figures: dict[str, Any] = blocks(crowd, FEW)
        fill(crowd, most - FEW - BLOCK * BLOCKS)
        most_kb = crowd.pss_kb()
        figures |= blocks(crowd, most)
        live = most + BLOCK * BLOCKS
        ended_s = _timed(crowd.let_go) + _timed(crowd.end)
    by_layer = {layer: round((most_kb[layer] - few_kb[layer]) / (most - FEW), 2) for layer in most_kb}
    return figures | {
        "admission_ratio": round(figures[f"admitted_per_s_{most}"] / figures[f"admitted_per_s_{FEW}"], 3),
        "live_ratio": round(figures[f"live_per_s_{most}"] / figures[f"live_per_s_{FEW}"], 3),
        "cpu_ratio": round(figures[f"cpu_ms_{most}"] / figures[f"cpu_ms_{FEW}"], 3),
        "kb_per_run": round(sum(by_layer.values()), 1),
        "kb_by_layer": by_layer,
        "ended_per_s": round(live / ended_s, 1),
    }


def summary(most: int, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of the last line."""
    names = [name for name, value in samples[0].items() if not isinstance(value, dict)]
    tables = [name for name, value in samples[0].items() if isinstance(value, dict)]
    return {
        "concurrent": most,
        **{name: median([each[name] for each in samples]) for name in names},
        **{
            name: {key: median([each[name].get(key, 0.0) for each in samples]) for key in samples[0][name]}
            for name in tables
        },
    }
