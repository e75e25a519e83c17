"""Batches that are killed, paused, retuned, and full of rows that are none: every row has exactly one disposition.

    python -m benchmarks.batch [--jobs 10000] [--flat 200000] [--mixed 5000]

 killed   priced jobs over fifty tenants from Parquet; SIGKILL of the submitting process when 30 % have ended, of the
          driver when 50 % have, of a runtime when 70 % have; `--resume` after the first.  `extra_decisions` are those
          paid for beyond one for each step, `in_flight_at_kills` the runs that were under way when something was killed
 mixed    1 % of the rows are no jobs, 1 % never end, 2 % fail and pass when they are run again, one tenant asks for a
          fifth of all; paused and retuned in the middle; then `--retry-failed`
 flat     jobs that do nothing, and the memory of the submitting process while they run, as a plot in the results folder

Each submitting process is `airside run`.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

import airside
from airside.actors.client.client import Stack
from airside.batches.parts import read_parts
from benchmarks.batch_app import PRICE_MICROUSD, TENANTS, batch_app, tenant_names
from benchmarks.measure import RESULTS, last_line

AIRSIDE = Path(sys.executable).with_name("airside")
STEPS = 2
ITEM_DEADLINE_S = 20.0


class Submitter:
    """`airside run` as a process of its own, whose memory is looked at."""

    def __init__(self, state: Path, jobs: Path, out: Path, *more: str) -> None:
        command = [str(AIRSIDE), "run", str(jobs), "--out", str(out), "--state-dir", str(state), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.peak_mb = 0.0
        self.samples: list[tuple[float, float]] = []
        self._began = time.monotonic()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
            except OSError:
                return
            kib = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
            self.samples.append((time.monotonic() - self._began, kib / 1024))
            self.peak_mb = max(self.peak_mb, kib / 1024)
            time.sleep(0.5)

    def kill(self) -> None:
        """Kill it as nobody can catch."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def report(self) -> dict[str, Any]:
        """Wait until it has ended, and return its last line."""
        out, problems = self.process.communicate()
        if not out.strip():
            raise SystemExit(f"airside run ended with {self.process.returncode}: {problems[-2000:]}")
        found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return found


def ended(stack: Stack) -> int:
    """Return how many runs have ended."""
    return int(stack.query("SELECT count(*) FROM outcomes").column(0)[0].as_py())


def under_way(stack: Stack) -> int:
    """Return how many runs have not."""
    sql = "SELECT count(*) FROM runs WHERE run_id NOT IN (SELECT run_id FROM outcomes)"
    return int(stack.query(sql).column(0)[0].as_py())


def wait_for(stack: Stack, submitter: Submitter, share: float, jobs: int) -> None:
    """Wait until a share of the jobs has ended."""
    while ended(stack) < share * jobs:
        if submitter.process.poll() is not None and ended(stack) < share * jobs:
            raise SystemExit(f"airside run ended before: {submitter.report()}")
        time.sleep(0.1)


def kill_layer(stack: Stack, prefix: str) -> None:
    """Kill the process of a layer."""
    for name, layer in stack.status().items():
        if name.startswith(prefix) and "pid" in layer:
            os.kill(layer["pid"], signal.SIGKILL)
            return
    raise SystemExit(f"there is no process of {prefix}")


def write_jobs(path: Path, count: int, steps: int) -> None:
    """Write jobs of fifty tenants as Parquet."""
    names = tenant_names()
    columns = {
        "job_id": [f"j{i}" for i in range(count)],
        "request": ["Look it up."] * count,
        "tenant": [names[i % TENANTS] for i in range(count)],
        "principal": ["clerk"] * count,
        "inputs": [{"steps": steps}] * count,
    }
    parquet.write_table(pa.table(columns), path)


def dispositions(out: Path) -> tuple[int, int, Counter[str]]:
    """Return how many rows have a result, how many results are there twice, and the statuses of the last ones."""
    last: dict[int, tuple[int, str]] = {}
    results, kept = 0, set[tuple[int, int]]()
    for batch in read_parts(out, ("row", "attempt", "status")):
        for row, attempt, status in zip(*(batch.column(n).to_pylist() for n in batch.schema.names), strict=True):
            results += 1
            kept.add((row, attempt))
            last[row] = max(last.get(row, (0, "")), (attempt, status))
    return len(last), results - len(kept), Counter(status for _, status in last.values())


def killed(folder: Path, jobs: int) -> dict[str, Any]:
    """Run a batch while its submitter, the driver and a runtime are killed."""
    write_jobs(folder / "jobs.parquet", jobs, STEPS)
    state, out = folder / "killed", folder / "killed-out"
    with airside.start(batch_app(), stack="batch-killed", state_dir=state, mode="pooled") as stack:
        began = time.monotonic()
        first = Submitter(state, folder / "jobs.parquet", out)
        wait_for(stack, first, 0.3, jobs)
        first.kill()
        in_flight = [under_way(stack)]
        second = Submitter(state, folder / "jobs.parquet", out, "--resume")
        wait_for(stack, second, 0.5, jobs)
        in_flight.append(under_way(stack))
        kill_layer(stack, "driver")
        wait_for(stack, second, 0.7, jobs)
        in_flight.append(under_way(stack))
        kill_layer(stack, "runtime/")
        report = second.report()
        seconds = time.monotonic() - began
        decided = stack.query("SELECT count(*), count(DISTINCT (stream, step)) FROM events WHERE type = 'StepDecided'")
        spent = stack.query("SELECT sum(cost_microusd) FROM outcomes").column(0)[0].as_py()
        problems = stack.verify()
    rows, twice, statuses = dispositions(out)
    expected = jobs * (STEPS + 1)
    return {
        "jobs": jobs,
        "results": rows,
        "duplicates": twice,
        "completed": statuses["completed"],
        "extra_decisions": decided.column(0)[0].as_py() - expected,
        "paid_beyond_microusd": int(spent) - expected * PRICE_MICROUSD,
        "in_flight_at_kills": in_flight,
        "peak_rss_mb": round(max(first.peak_mb, second.peak_mb)),
        "seconds": round(seconds, 1),
        "report": report,
        "audit_ok": not problems,
    }


def mixed(folder: Path, jobs: int) -> dict[str, Any]:
    """Run a batch of everything that goes wrong, paused and retuned in the middle, then what failed again."""
    names, draw = tenant_names(), random.Random(7)
    kinds = ["bad"] * (jobs // 100) + ["hang"] * (jobs // 100) + ["flaky"] * (jobs // 50)
    kinds += ["plain"] * (jobs - len(kinds))
    draw.shuffle(kinds)
    lines = []
    for i, kind in enumerate(kinds):
        tenant = "aggressor" if i % 5 == 0 else names[i % TENANTS]
        inputs = {"steps": STEPS, **({kind: True} if kind in ("hang", "flaky") else {})}
        job = {"job_id": f"m{i}", "request": "Look.", "tenant": tenant, "principal": "clerk", "inputs": inputs}
        lines.append('{"request": 7}' if kind == "bad" else json.dumps(job))
    (folder / "mixed.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    state, out = folder / "mixed", folder / "mixed-out"
    with airside.start(batch_app(), stack="batch-mixed", state_dir=state, mode="pooled") as stack:
        more = ("--batch", "mixed", "--item-deadline", str(ITEM_DEADLINE_S), "--concurrency", "500")
        submitter = Submitter(state, folder / "mixed.jsonl", out, *more)
        handle = stack.batch("mixed")
        wait_for(stack, submitter, 0.3, jobs)
        handle.pause(why="to look at it")
        while under_way(stack) > len(kinds) // 50:
            time.sleep(0.2)
        time.sleep(2 * 1.0)  # the submitter looks once a second
        at_pause = ended(stack) + under_way(stack)
        time.sleep(3.0)
        is_held = ended(stack) + under_way(stack) == at_pause
        handle.retune(concurrency=2000, priority=5, why="go on faster")
        handle.resume(why="looked at")
        first = submitter.report()
        rows, twice, before = dispositions(out)
        second = Submitter(state, folder / "mixed.jsonl", out, "--retry-failed").report()
        after_rows, after_twice, after = dispositions(out)
        orders = handle.state().length
        problems = stack.verify()
    count = Counter(kinds)
    return {
        "rows": jobs,
        "kinds": dict(count),
        "with_a_disposition": rows,
        "twice": twice + after_twice,
        "before": dict(before),
        "after_retry": dict(after),
        "retry_ended_all": after["completed"] == count["plain"] + count["flaky"] and after_rows == jobs,
        "rejected": first["rejected"],
        "was_held_while_paused": is_held,
        "orders": orders,
        "retry": second,
        "audit_ok": not problems,
    }


def flat(folder: Path, jobs: int) -> dict[str, Any]:
    """Run jobs that do nothing, and say how the submitter's memory grows with them."""
    write_jobs(folder / "flat.parquet", jobs, 0)
    state, out = folder / "flat", folder / "flat-out"
    with airside.start(batch_app(), stack="batch-flat", state_dir=state, mode="pooled") as stack:
        began = time.monotonic()
        submitter = Submitter(state, folder / "flat.parquet", out)
        report = submitter.report()
        seconds = time.monotonic() - began
        del stack
    samples = submitter.samples
    half = samples[len(samples) // 2 :]
    grown = _slope(half) * seconds / jobs * 100_000 if len(half) > 1 else 0.0
    _plot(samples)
    return {
        "jobs": jobs,
        "completed": report["completed"],
        "runs_per_s": round(jobs / seconds, 1),
        "peak_rss_mb": round(submitter.peak_mb),
        "rss_growth_mb_per_100k": round(grown, 2),
    }


def _slope(samples: list[tuple[float, float]]) -> float:
    """Return MiB a second, by least squares."""
    mean_s = sum(at for at, _ in samples) / len(samples)
    mean_mb = sum(mb for _, mb in samples) / len(samples)
    spread = sum((at - mean_s) ** 2 for at, _ in samples)
    return sum((at - mean_s) * (mb - mean_mb) for at, mb in samples) / spread if spread else 0.0


def _plot(samples: list[tuple[float, float]]) -> None:
    import altair

    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "batch_memory.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("seconds", "rss_mb"), *samples])
    values = altair.InlineData(values=[{"seconds": at, "rss_mb": mb} for at, mb in samples])
    chart = altair.Chart(values).mark_line().encode(x="seconds:Q", y="rss_mb:Q").properties(width=640, height=320)
    chart.save(str(RESULTS / "batch_memory.svg"))
    print(f"plot: {RESULTS / 'batch_memory.svg'}")


def main() -> None:
    """Run all three, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--mixed", type=int, default=5_000)
    parser.add_argument("--flat", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="airside-batch-") as name:
        folder = Path(name)
        found = killed(folder, options.jobs) if options.jobs else {}
        print(json.dumps({"killed": found}), flush=True)
        if options.mixed:
            found["mixed"] = mixed(folder, options.mixed)
            print(json.dumps({"mixed": found["mixed"]}), flush=True)
        if options.flat:
            found["flat"] = flat(folder, options.flat)
            found["rss_growth_mb_per_100k"] = found["flat"]["rss_growth_mb_per_100k"]
    last_line(found)


if __name__ == "__main__":
    main()
