"""A turn of DBOS with SQLite; run in the environment of `dbos.txt`.

A step of a run is a DBOS step, in which it decides, checks and calls; its outcome is committed before the next begins,
which is DBOS's only way.  By default its file has a rollback journal (`journal_mode=DELETE`), with `synchronous` FULL
as SQLite has it; here the file is in WAL mode, as for all.

Tried, and slower: the default of 20 connections, which wait for SQLite's one write lock by sleeping, in WAL mode and
more so without it; workflows that are coroutines; a queue, with all runs at once or eight.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from dbos import DBOS, SetWorkflowID

from benchmarks.peers.ledger import STEPS, Json, Run, checked_run, governed_step
from benchmarks.peers.turn import measured, show

CONNECTIONS = 5


@DBOS.step()  # type: ignore[untyped-decorator]
def step(done: int, steps: int) -> Json | None:
    """Make one governed step, whose outcome is recorded."""
    return governed_step(done, steps)


@DBOS.workflow()  # type: ignore[untyped-decorator]
def workflow(steps: int) -> list[Json | None]:
    """Make a run to its end and return its history."""
    history: list[Json | None] = []
    while len(history) < steps:
        history.append(step(len(history), steps))
    return history


def load(runs: Sequence[Run]) -> None:
    """Start every run in the background, then wait for all."""
    handles = []
    for run in runs:
        with SetWorkflowID(run.id):
            handles.append(DBOS.start_workflow(workflow, STEPS))
    for handle in handles:
        checked_run(handle.get_result())


def main() -> None:
    """Play one turn."""
    with ExitStack() as at_end:
        folder = Path(tempfile.mkdtemp(prefix="peers-dbos-"))
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        file = folder / "dbos.sqlite"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # kept in the file, so it holds for DBOS's connections
        DBOS(
            config={
                "name": "peers",
                "system_database_url": f"sqlite:///{file}",
                "sys_db_pool_size": CONNECTIONS,
                "log_level": "ERROR",
            }
        )
        DBOS.launch()
        at_end.callback(DBOS.destroy)
        show(measured(load))


if __name__ == "__main__":
    main()
