"""Four times what the machine carries, beside CPU hogs: whether overload ends anything that only waits for its turn.

    python -m benchmarks.overload [--seconds 8] [--tenants 20] [--hogs 4] [--out overload.json]

First it is measured, calm, how many runs the machine completes in a second, and how long a single one takes.  Then four
times as many as it completes in so many `seconds` are submitted at once, by that many tenants, while processes that
do nothing but compute take its CPUs.  A run makes four calls, and its agent computes a while before each.  No run
holds its loop, but one (`stuck`), which must be found all the same.  When the hogs are gone and the queue is empty,
single runs are made until three in a row take no more than twice the calm time.

 runs, completed   of the overload, without the stuck one; every run is waited for
 wrongly_killed    runs that ended otherwise than by completing
 extra_processes   runtimes that were started beyond one a tenant and one for the stuck run's neighbours
 again             activations beyond one a run: each is a run that was taken up again
 stuck_found_s     from the stuck run's first hold to its end
 recovered_s       from the end of the load to the last of the three

Not measured: throughput (`benchmarks.governed_steps`), several nodes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import airside
from airside import Action, App, Finish, RunHandle, View, tool
from airside.actors.client.client import Stack
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.run.topology import SingleAgent
from benchmarks.measure import last_line, machine, median

TIMES = 4
CALLS = 4
COMPUTE_S = 0.004
"""CPU seconds an agent needs for a decision: a template filled in, a large answer read."""

CALM_RUNS, PROBES = 150, 5
HOG = "while True: pass"
LONGEST_S = 900.0
"""Nothing is waited for longer than this."""


@tool(effect="read")
async def look(n: int) -> int:
    """Answer at once."""
    return n


def computing(view: View) -> Action | Finish:
    """Compute a while, then look; finish after a few calls."""
    until = time.thread_time() + COMPUTE_S
    while time.thread_time() < until:
        pass
    done = len(view.history)
    return Action(tool="look", arguments={"n": done}) if done < CALLS else Finish(answer=done)


def stuck(view: View) -> Any:
    """Hold the loop for ever."""
    while True:
        pass


def app(tenants: list[str]) -> App:
    """Return the app."""
    policy = "version: overload-1\nrules: [{id: all, outcome: allow}]\n"
    directory = Directory(tenants={name: Tenant(principals={"clerk": Principal()}) for name in tenants})
    routes = {"default": SingleAgent("computing"), "stuck": SingleAgent("stuck")}
    return App(
        agents={"computing": computing, "stuck": stuck},
        routes=routes,
        tools=[look],
        policy=policy,
        directory=directory,
    )


def job(tenant: str) -> dict[str, Any]:
    """Return a job."""
    return {"request": "look around", "tenant": tenant, "principal": "clerk"}


def calm(stack: Stack, tenants: list[str]) -> tuple[float, float]:
    """Return how many runs a second are carried, and how long one takes by itself."""
    stack.map([job(name) for name in tenants], progress=False)  # a process each, before anything is timed
    began = time.monotonic()
    stack.map([job(tenants[i % len(tenants)]) for i in range(CALM_RUNS)], progress=False)
    rate = CALM_RUNS / (time.monotonic() - began)
    return rate, median([single(stack, tenants[0]) for _ in range(PROBES)])


def single(stack: Stack, tenant: str) -> float:
    """Make one run, and return how long it took."""
    began = time.monotonic()
    if not stack.submit(**job(tenant)).result(timeout=LONGEST_S).ok:
        raise SystemExit("a single run did not complete")
    return time.monotonic() - began


class Hogs:
    """Processes that take the CPUs from everything else."""

    def __init__(self, number: int) -> None:
        self._processes = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(number)]

    def stop(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()


def overload(stack: Stack, tenants: list[str], runs: int, hogs: Hogs) -> dict[str, Any]:
    """Submit far too much at once, one stuck run in the midst, and return what became of all."""
    handles: dict[str, RunHandle] = {}
    submitting = threading.Thread(
        target=lambda: handles.update(guilty=stack.submit("hold", tenant=tenants[-1], principal="clerk", route="stuck"))
    )
    began = time.monotonic()
    submitting.start()
    results = stack.map([job(tenants[i % len(tenants)]) for i in range(runs)], progress=False, timeout=LONGEST_S)
    submitting.join()
    took_s = time.monotonic() - began
    hogs.stop()
    found = handles["guilty"].result(timeout=LONGEST_S)
    reasons: dict[str, int] = {}
    for result in results:
        reasons[result.reason_code] = reasons.get(result.reason_code, 0) + 1
    return {"took_s": round(took_s, 1), "reasons": reasons, "stuck": found.reason_code, "stuck_run": found.run_id}


def recovered(stack: Stack, tenant: str, calm_s: float) -> float:
    """Return how long it takes until three runs in a row are about as fast as before."""
    began, in_a_row = time.monotonic(), 0
    while in_a_row < 3:
        in_a_row = in_a_row + 1 if single(stack, tenant) <= 2 * calm_s else 0
        if time.monotonic() - began > LONGEST_S:
            raise SystemExit("it did not recover")
    return time.monotonic() - began


def found_s(stack: Stack, run_id: str) -> float:
    """Return for how long the stuck run held: from when it was first handed to a runtime to its end."""
    sql = """SELECT (max(at_us) FILTER (type = 'RunEnded') - min(at_us) FILTER (type = 'RunActivated')) / 1e6 AS s
             FROM events WHERE stream = ?"""
    return float(stack.query(sql, [run_id]).to_pylist()[0]["s"])


def again(stack: Stack, stuck_run: str) -> int:
    """Return how many activations there were beyond one a run."""
    sql = """SELECT count(*) - count(DISTINCT stream) AS n FROM events WHERE type = 'RunActivated' AND stream <> ?"""
    return int(stack.query(sql, [stuck_run]).to_pylist()[0]["n"])


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Play it, and return the figures."""
    tenants = [f"tenant-{i}" for i in range(arguments.tenants)]
    with airside.start(app(tenants), stack="overload", state_dir=folder, idle_runtime_s=LONGEST_S) as stack:
        rate, calm_s = calm(stack, tenants)
        runs = int(TIMES * rate * arguments.seconds)
        print(f"calm: {rate:.0f} runs/s, one takes {calm_s:.3f} s; now {runs} at once", flush=True)
        hogs = Hogs(arguments.hogs)
        try:
            found = overload(stack, tenants, runs, hogs)
        finally:
            hogs.stop()
        recovered_s = recovered(stack, tenants[0], calm_s)
        driver = stack.status()["driver"]
        completed = found["reasons"].get("completed", 0)
        figures = {
            "runs": runs,
            "completed": completed,
            "wrongly_killed": runs - completed,
            "extra_processes": max(0, driver["runtimes_made"] - len(tenants) - 1),
            "recovered_s": round(recovered_s, 2),
            "again": again(stack, found["stuck_run"]),
            "stuck_found_s": round(found_s(stack, found["stuck_run"]), 2),
            "halvings": driver["halvings"],
            "calm_runs_s": round(rate, 1),
            "audit": stack.verify(),
            **found,
        }
        stack.shutdown()
    return figures


def main() -> None:
    """Measure, and print the figures; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--hogs", type=int, default=4)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="airside-overload-"))
    try:
        figures = measure(arguments, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"machine": machine(), **figures}, indent=1))
    last_line(figures)


if __name__ == "__main__":
    main()
