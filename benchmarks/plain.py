"""The governed loop in one process without Ray: the same cycle, gate, dispatcher and journal.

The last line that it prints is one JSON object: what a step costs in counts (`benchmarks/step_costs.py`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from airside.actors.app import ValidatedApp
from airside.actors.journal.store import JournalStore
from airside.actors.rpc.layer import now_us
from airside.memory.in_memory import InMemoryMemory
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryPolicy
from airside.stack.ids import Buffered, RunId, mint_executor, mint_run, parse_principal, parse_tenant
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.journal.stream import entry_of
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.policy.trace_predictor import TracePredictor
from airside.stack.run.events import RunActivated, RunSubmitted
from airside.stack.run.machine import RunMachine
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.values import Identity, Limits, Request
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from benchmarks.ledger_app import TEXT, ledger_app, tenants
from benchmarks.step_costs import step_costs


class GroupJournal:
    """A journal file in this process, with group commit."""

    def __init__(self, folder: Path) -> None:
        self._store = JournalStore(folder, secrets.token_bytes(32))
        self._store.start_feeding()
        self._waiting: list[tuple[Append, asyncio.Future[AppendReply]]] = []
        self._task: asyncio.Task[None] | None = None

    async def append(self, append: Append) -> AppendReply:
        """Make entries durable, with whatever else waits."""
        future: asyncio.Future[AppendReply] = asyncio.get_running_loop().create_future()
        self._waiting.append((append, future))
        if self._task is None:
            self._task = asyncio.ensure_future(self._commit())
        return await future

    async def bodies(self, streams: Sequence[str]) -> dict[str, list[str]]:
        """Return the events of streams."""
        return self._store.bodies(streams)

    async def unfinished_below(self, run_id: RunId) -> list[RunId]:
        """Return no branches: the load app does not fan out."""
        return []

    async def _commit(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            replies = await asyncio.to_thread(self._store.commit, [append for append, _ in group])
            for (_, future), reply in zip(group, replies, strict=True):
                future.set_result(reply)
        self._task = None

    def close(self) -> None:
        """Close the files, before their folder goes."""
        self._store.release()


def layers(app: ValidatedApp, journal: GroupJournal, key: bytes) -> CyclePorts:
    """Return the layers of an app, all in this process."""
    gate = Gate(bundle=load_bundle(app.bundle), tools=app.specs, seal_key=key, now_us=now_us, random=Buffered())

    async def no_children(*_: Any) -> None:
        raise AssertionError("the load app does not fan out")

    return CyclePorts(
        journal=journal,
        policy=InMemoryPolicy(gate),
        tools=InMemoryTools(
            lambda: Dispatcher(app.app.tools, seal_key=key, executor_id=mint_executor(), now_us=now_us)
        ),
        approvals=InMemoryApprovals(key, now_us),
        memory=InMemoryMemory(now_us),
        agents=app.agents,
        routes=app.routes,
        specs=app.specs,
        now_us=now_us,
        spawn=no_children,
        trace_predictor=TracePredictor(load_bundle(app.bundle), app.specs),
    )


async def one_run(made: CyclePorts, tenant: str, key: bytes, steps: int) -> None:
    """Admit and run one job to its end."""
    identity = Identity(
        principal=parse_principal("clerk"), tenant=parse_tenant(tenant), roles=("clerk",), scopes=("ledger",)
    )
    run_id = mint_run()
    submitted = RunSubmitted(
        run_id=run_id,
        identity=identity,
        sealed=seal_identity(key, identity, run_subject(run_id)),
        request=Request(text=TEXT, inputs=msgspec.Raw(msgspec.json.encode({"steps": steps}))),
        limits=Limits(),
        app_version="1",
        at_us=now_us(),
    )
    entries = (entry_of(submitted), entry_of(RunActivated(epoch=1, at_us=now_us())))
    append = Append(tenant=identity.tenant, stream=submitted.run_id, epoch=1, first_seq=0, entries=entries)
    await made.journal.append(append)
    machine = RunMachine(submitted)
    instructions = machine.handle(RunActivated(epoch=1, at_us=now_us()))
    await Cycle(machine, made, durable=2).advance(instructions)
    assert machine.state.phase == "completed", machine.story()


def run_plain(tenant_count: int, runs: int, steps: int) -> dict[str, Any]:
    """Run a workload and return its sample."""
    key = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory() as folder:

        async def everything() -> None:
            journal = GroupJournal(Path(folder))
            made = layers(ledger_app(tenant_count).checked(), journal, key)
            names = [tenant for _ in range(runs) for tenant in tenants(tenant_count)]
            try:
                await asyncio.gather(*(one_run(made, name, key, steps) for name in names))
            finally:
                journal.close()

        began, cpu = time.monotonic(), time.process_time()
        asyncio.run(everything())
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    total = tenant_count * runs * steps
    return {
        "steps": total,
        "steps_per_s": round(total / seconds, 1),
        "cpu_s_per_1000": round(cpu / total * 1000, 3),
    }


if __name__ == "__main__":
    print(run_plain(20, 10, 8))
    print(json.dumps(step_costs()))
