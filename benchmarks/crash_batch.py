"""The retail batch while processes are killed: every job must still end right, no effect twice, nothing lost.

    python -m benchmarks.crash_batch [--data DIR]

While the batch runs, the processes of the Journal, of a TenantRuntime and of a ToolExecutor get SIGKILL, twice each,
whenever another part of the jobs has ended.  Beside it a prober appends to the journal without pause and keeps what
was acknowledged.  Checked at the end:

 state_ok            jobs whose final state hashes to what their line expects
 doubled_effects     changes in the runs' files beyond one per change the journal says was made
 lost_acknowledged   acknowledged probe entries, submissions and results that the journal does not have
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import airside
from airside.actors.app import App
from airside.actors.client.client import Stack
from airside.actors.jobs import read_jobs
from airside.actors.rpc.stubs import RemoteJournal
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, Entry
from benchmarks.measure import last_line
from examples.retail.__main__ import UNGOVERNED, count, states_ok
from examples.retail.app import OWN_DATA, create_app, run_file

VICTIMS = ("runtime/", "executor/0", "journal") * 2
CHANGES = """
SELECT e.stream, count(DISTINCT e.step) FROM events e JOIN events g
  ON g.stream = e.stream AND g.step = e.step AND g.type = 'ActionGated'
 AND json_extract_string(g.body, '$.effect') = 'write'
WHERE e.type = 'ToolExecuted' AND json_extract_string(e.body, '$.result.ok') = 'true' GROUP BY e.stream
"""


class Prober(threading.Thread):
    """Appends one entry after the other and counts the acknowledged ones, through any restart."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self._cell = stack.cell
        self._stop_asked = threading.Event()
        self.acknowledged = 0

    def run(self) -> None:
        """Probe until `stop`."""
        asyncio.run(self._probe())

    async def _probe(self) -> None:
        journal = RemoteJournal(self._cell)
        while not self._stop_asked.is_set():
            body = json.dumps({"n": self.acknowledged}).encode()
            entry = Entry(type="Probe", step=0, at_us=time.time_ns() // 1000, cause=-1, body=body)
            append = Append(
                tenant=TenantId("probe"), stream="probe", epoch=0, first_seq=self.acknowledged, entries=(entry,)
            )
            try:
                reply = await journal.append(append)
            except LayerUnavailable:
                continue
            if reply.verdict != "ok":
                raise SystemExit(f"the probe was answered {reply}")
            self.acknowledged += 1

    def stop(self) -> int:
        """Stop and return how many entries were acknowledged."""
        self._stop_asked.set()
        self.join(timeout=120)
        return self.acknowledged


class Killer(threading.Thread):
    """Kills one process after the other, each when another share of the jobs has ended."""

    def __init__(self, stack: Stack, jobs: int) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._jobs = jobs
        self.killed: list[str] = []

    def run(self) -> None:
        """Kill all victims."""
        for number, victim in enumerate(VICTIMS):
            share = self._jobs * (number + 1) // (len(VICTIMS) + 2)
            while (done := count(self._stack, "SELECT count(*) FROM outcomes")) < share:
                time.sleep(0.02)
            found = self._stack.status().items()
            name, pid = next((n, s["pid"]) for n, s in found if n.startswith(victim) and "pid" in s)
            os.kill(pid, signal.SIGKILL)
            self.killed.append(name)
            print(f"killed {name} (pid {pid}) with {done} of {self._jobs} jobs ended", flush=True)


def doubled(stack: Stack, work: Path, run_ids: list[str]) -> int:
    """Return the changes in the runs' files beyond those the journal says were made."""
    made = {row["stream"]: row["count(DISTINCT e.step)"] for row in stack.query(CHANGES).to_pylist()}
    extra = 0
    for run_id in run_ids:
        path = run_file(work, run_id)
        if path.exists():
            connection = sqlite3.connect(path)
            applied = connection.execute("SELECT count(*), count(DISTINCT key) FROM applied").fetchone()
            connection.close()
            extra += max(0, applied[0] - made.get(run_id, 0)) + (applied[0] - applied[1])
    return extra


def lost(stack: Stack, acknowledged: int, answered: list[str]) -> int:
    """Return what was acknowledged and is not in the journal."""
    probes = count(stack, "SELECT count(*) FROM events WHERE stream = 'probe'")
    runs = {row["run_id"] for row in stack.query("SELECT run_id FROM runs").to_pylist()}
    outcomes = {row["run_id"] for row in stack.query("SELECT run_id FROM outcomes").to_pylist()}
    return max(0, acknowledged - probes) + len(set(answered) - runs) + len(set(answered) - outcomes)


def batch(stack: Stack, app: App, data: Path, lines: list[dict[str, Any]], work: Path) -> dict[str, Any]:
    """Run the jobs under fire and return what became of them."""
    began = time.monotonic()
    prober, killer = Prober(stack), Killer(stack, len(lines))
    prober.start()
    killer.start()
    results = stack.map(read_jobs(data / "jobs.jsonl", app.job_inputs), timeout=600)
    seconds = time.monotonic() - began
    killer.join(timeout=60)
    acknowledged = prober.stop()
    for result in results:
        if not result.ok:
            print(f"{result.job_id}: {result.status} [{result.reason_code}] {result.detail}\n{result.story()}")
    ids = [result.run_id for result in results]
    completed = {result.job_id: result.run_id for result in results if result.ok}
    return {
        "jobs": len(lines),
        "state_ok": states_ok(lines, completed, data, work),
        "kills": len(killer.killed),
        "doubled_effects": doubled(stack, work, ids),
        "lost_acknowledged": lost(stack, acknowledged, ids),
        "completed": len(completed),
        "acknowledged_probes": acknowledged,
        "ungoverned_effects": count(stack, UNGOVERNED),
        "audit_ok": stack.verify() == [],
        "seconds": round(seconds, 2),
    }


def main() -> int:
    """Run, kill, check, print the figures, and return 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=OWN_DATA)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airside-crash-") as folder:
        state = Path(folder)
        app = create_app(options.data, state / "retail")
        lines = [json.loads(line) for line in (options.data / "jobs.jsonl").read_text().splitlines()]
        with airside.start(app, state_dir=state) as stack:
            figures = batch(stack, app, options.data, lines, state / "retail")
    last_line(figures)
    right = figures["state_ok"] == figures["jobs"] and figures["audit_ok"]
    return 0 if right and not figures["doubled_effects"] + figures["lost_acknowledged"] else 1


if __name__ == "__main__":
    sys.exit(main())
