"""Agents over the rows of a Ray Dataset while a worker of Ray Data is killed: no row is lost, none is paid for twice.

    python -m benchmarks.ray_data [--rows 5000] [--steps 2]

When a quarter of the runs has ended, a worker of Ray Data, which waits for the jobs of a batch of rows, gets SIGKILL.
Ray starts another and gives it the same rows; what was submitted is found there.  Checked at the end:

 results      rows that came out, each once, with a run that completed
 paid_twice   decisions in the journal beyond those of one run a row
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import airside
from airside.ray_data import map_agents
from benchmarks.ledger_app import TEXT, ledger_app
from benchmarks.measure import last_line, tree

COLUMNS = {"request": "text", "tenant": "=tenant-0", "principal": "=clerk", "inputs.steps": "steps"}
DECISIONS = "SELECT count(*) FROM events WHERE type = 'StepDecided'"
ENDED = "SELECT count(*) FROM outcomes"
LOOK_S = 0.02
_WORKER = "_MapAgents"
"""In the title of a process that Ray Data has for `map_agents`."""


def data_workers() -> list[int]:
    """Return the processes that Ray Data has, below this one, for mapping agents over rows."""
    found = []
    for pid in tree():
        try:
            title = Path(f"/proc/{pid}/cmdline").read_text("utf-8", errors="replace")
        except OSError:
            continue
        if title.startswith("ray::") and _WORKER in title:
            found.append(pid)
    return found


class Killer(threading.Thread):
    """Kills a worker of Ray Data when so many runs have ended."""

    def __init__(self, stack: airside.Stack, ended: int) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._ended = ended
        self.killed: list[int] = []

    def run(self) -> None:
        """Kill it."""
        while count(self._stack, ENDED) < self._ended:
            time.sleep(LOOK_S)
        for pid in data_workers()[:1]:
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)


def count(stack: airside.Stack, sql: str) -> int:
    """Return the number a query answers."""
    return int(stack.query(sql).column(0)[0].as_py())


def play(stack: airside.Stack, rows: int, steps: int, *, batch_size: int = 256) -> dict[str, Any]:
    """Run rows under fire, on a stack that has run nothing yet, and return what became of them."""
    import ray.data

    given = [{"row": number, "text": f"{TEXT} #{number}", "steps": steps} for number in range(rows)]
    dataset = ray.data.from_items(given, override_num_blocks=max(1, rows // (2 * batch_size)))
    began = time.monotonic()
    killer = Killer(stack, rows // 4)
    killer.start()
    mapped = map_agents(dataset, stack, batch="rows", columns=COLUMNS, concurrency=2, batch_size=batch_size)
    came = Counter(row["row"] for row in mapped.iter_rows() if row["result_status"] == "completed")
    seconds = time.monotonic() - began
    killer.join(timeout=10)
    decisions = rows * (steps + 1)  # the last one is to finish
    return {
        "rows": rows,
        "results": sum(times == 1 for times in came.values()),
        "paid_twice": count(stack, DECISIONS) - decisions,
        "killed": len(killer.killed),
        "audit_ok": stack.verify() == [],
        "seconds": round(seconds, 2),
    }


def main() -> int:
    """Run, kill, check, print the figures, and return 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=2, help="calls a run makes")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="airside-rows-") as scratch,
        airside.start(ledger_app(1, memory=False), state_dir=scratch) as stack,
    ):
        figures = play(stack, options.rows, options.steps)
    last_line(figures)
    right = figures["results"] == options.rows and not figures["paid_twice"] and figures["killed"]
    return 0 if right and figures["audit_ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
