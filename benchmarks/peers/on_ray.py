"""A turn of plain Ray, without Airside: actors, one call an item, a journal actor over SQLite.

Runs are coroutines of a few actors, which decide, check and call in their own processes, and have every step made
durable by one call to the journal's actor: one commit an entry, WAL mode, `synchronous=FULL` (SQLite's default).

There are as many such actors as cores: one a tenant, as Airside's default mode has it, was slower.  A tool in an actor
of its own would be a second call a step.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray

from benchmarks.peers.ledger import STEPS, Json, Run, checked_run, governed_step
from benchmarks.peers.turn import measured, show

WORKERS = os.cpu_count() or 1


class Journal:
    """The one writer of the journal's file."""

    def __init__(self, file: str) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE steps (run TEXT, seq INTEGER, body TEXT, PRIMARY KEY (run, seq))")

    def append(self, run: str, seq: int, body: str) -> None:
        """Make an entry durable."""
        self._connection.execute("INSERT INTO steps VALUES (?, ?, ?)", (run, seq, body))


class Worker:
    """Makes tenants' runs, many at once."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal

    async def run(self, run_id: str, steps: int) -> list[Json]:
        """Make a run to its end and return its history."""
        history: list[Json] = []
        while (entry := governed_step(len(history), steps)) is not None:
            await self._journal.append.remote(run_id, len(history), json.dumps(entry))
            history.append(entry)
        return history


def main() -> None:
    """Play one turn."""
    with ExitStack() as at_end:
        folder = Path(tempfile.mkdtemp(prefix="peers-ray-"))
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        ray.init(include_dashboard=False, logging_level="ERROR")
        at_end.callback(ray.shutdown)
        journal = ray.remote(Journal).options(num_cpus=0).remote(str(folder / "journal.sqlite"))
        options = {"num_cpus": 0, "max_concurrency": 1000}
        workers = [ray.remote(Worker).options(**options).remote(journal) for _ in range(WORKERS)]

        def load(runs: Sequence[Run]) -> None:
            asked = [workers[run.tenant % WORKERS].run.remote(run.id, STEPS) for run in runs]
            for history in ray.get(asked):
                checked_run(history)

        show(measured(load))


if __name__ == "__main__":
    main()
