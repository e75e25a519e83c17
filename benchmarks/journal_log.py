"""What a commit of the journal's costs: of the log, with its projection following, and of DuckDB alone, in turns.

    python -m benchmarks.journal_log --commits 100

For groups of 1, 30 and 1,000 entries of two hundred runs in twenty tenants: milliseconds of a commit, and of CPU of the
thread that commits.  `once` is a table and a transaction of DuckDB's, as the journal was before, without chains and
admission.  The last line is one JSON object.  Not measured: the actor, and whoever waits for it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from airside.actors.journal.store import JournalStore
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, Entry
from benchmarks.measure import last_line, machine, percentile

SIZES = (1, 30, 1000)
RUNS = 200
BODY = json.dumps({"type": "StepDecided", "at_us": 1_700_000_000_000_000, "proposal": "x" * 500}).encode()
COLUMNS = "tenant VARCHAR, number BIGINT, stream VARCHAR, seq BIGINT, at_us BIGINT, type VARCHAR, body VARCHAR"


class Groups:
    """Groups of appends to the streams of some runs, each behind the one before."""

    def __init__(self, seed: int) -> None:
        self._next = {f"run_{seed:04x}{n:020x}": 0 for n in range(RUNS)}
        self._turn = 0

    def group(self, size: int) -> list[Append]:
        """Return the appends of one commit: an entry for each of the runs whose turn it is."""
        names = list(self._next)
        counts: dict[str, int] = {}
        for i in range(self._turn, self._turn + size):
            counts[names[i % RUNS]] = counts.get(names[i % RUNS], 0) + 1
        self._turn += size
        made = []
        for name, count in counts.items():
            entries = tuple(Entry(type="StepDecided", step=1, at_us=1, cause=0, body=BODY) for _ in range(count))
            tenant = TenantId(f"tenant{int(name[-4:], 16) % 20}")
            made.append(Append(tenant=tenant, stream=name, epoch=0, first_seq=self._next[name], entries=entries))
            self._next[name] += count
        return made


def into_duckdb(database: Any, group: list[Append]) -> None:
    """Write a group as an Arrow batch in one transaction."""
    rows = [(a.tenant, 1, a.stream, a.first_seq, e.at_us, e.type, e.body.decode()) for a in group for e in a.entries]
    names = [column.split()[0] for column in COLUMNS.split(", ")]
    database.register("incoming", pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))))
    database.execute("BEGIN")
    database.execute("INSERT INTO events SELECT * FROM incoming")
    database.execute("COMMIT")
    database.unregister("incoming")


Commit = Callable[[list[Append]], object]


def in_turns(commits: dict[str, Commit], seed: int, size: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Commit groups of a size, one and the other after each other; return milliseconds of time and of CPU of each."""
    groups = {name: Groups(seed) for name in commits}
    took: dict[str, list[float]] = {name: [] for name in commits}
    cpu = dict.fromkeys(commits, 0.0)
    for _ in range(rounds):
        for name, commit in commits.items():
            group = groups[name].group(size)
            began, used = time.perf_counter(), time.thread_time()
            commit(group)
            took[name].append((time.perf_counter() - began) * 1000)
            cpu[name] += (time.thread_time() - used) * 1000
    return {
        name: {
            "p50_ms": round(percentile(took[name], 0.5), 3),
            "p99_ms": round(percentile(took[name], 0.99), 3),
            "cpu_ms": round(cpu[name] / rounds, 3),
        }
        for name in commits
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=100)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "commits": options.commits}
    with tempfile.TemporaryDirectory() as place:
        store = JournalStore(Path(place) / "log", b"k" * 32)
        store.start_feeding()
        database = duckdb.connect(
            str(Path(place) / "once.duckdb"), config={"threads": 1, "wal_autocheckpoint": "256MB"}
        )
        database.execute(f"CREATE TABLE events ({COLUMNS})")
        turns: dict[str, Commit] = {"log": store.commit, "once": lambda group: into_duckdb(database, group)}
        for seed, size in enumerate(SIZES):
            for name, figures in in_turns(turns, seed, size, options.commits).items():
                found[f"{name}_{size}"] = figures
                print(f"{name} {size}: {figures}", flush=True)
            found[f"once_vs_log_{size}"] = round(found[f"once_{size}"]["p50_ms"] / found[f"log_{size}"]["p50_ms"], 2)
        store.catch_up()
        found["whole"] = store.verify() == []
        store.close()
        database.close()
    last_line(found)


if __name__ == "__main__":
    main()
