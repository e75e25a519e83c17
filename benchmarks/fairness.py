"""What one tenant's flood costs the others: their waiting, and their share of a busy cell.

    python -m benchmarks.fairness [--rounds 2] [--out fairness.json]

The cell has few places, and a step takes 50 ms of waiting (a tool that awaits), so that places are what is short and
not the machine's CPU.  No tenant may hold more than half of the places, as an operator would set it: a place that is
held is not taken away, so without a cap a victim's next run waits until one of the flood's runs ends.

 waiting   Eight victims each run one job after the other, alone and then beside a tenant that has submitted fifty times
           a victim's jobs at once; a run's time is from its submission to its end, both as journaled.  The two take
           turns; the ratio is the median over rounds of p99 beside the flood / p99 alone.
 share     All nine always have jobs waiting, the flood fifty times as many, with runs of 2 to 9 calls and weights of 1
           and 2.  A tenant's share is its part of the governed steps that were decided while all of them still had
           something waiting; its due is its weight's part.  The error is the largest deviation from the due, relative
           to it; Jain's index is that of steps per weight (R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984).

Not measured: tools in threads (`tests/unit/tools/test_fair_slots.py`), tenants that share a budget, more than one cell.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import airside
from airside import Action, App, Finish, View, tool
from airside.actors.client.client import Stack
from airside.bench.fairness import jain
from airside.stack.directory import Directory, Principal, Tenant
from benchmarks.measure import last_line, machine, median, percentile, result_file

VICTIMS = [f"victim-{i}" for i in range(8)]
FLOOD = "flood"
PLACES = 16
JOBS, TIMES = 40, 50
"""Jobs a victim runs, and how many times that the flood submits."""

STEPS_OF_WORK = 900
"""Governed steps that a victim of weight 1 submits where shares are measured."""

STEP_S = 0.05
STEPS = {name: 2 + i for i, name in enumerate(VICTIMS)} | {FLOOD: 6}
"""Calls a tenant's runs make where shares are measured; where waiting is, a victim's make four."""

WEIGHTS = {name: 1 + i % 2 for i, name in enumerate(VICTIMS)} | {FLOOD: 1}


@tool(effect="read")
async def look(n: int) -> int:
    """Take a while."""
    await asyncio.sleep(STEP_S)
    return n


def walker(view: View) -> Action | Finish:
    """Look as often as the inputs say."""
    done = len(view.history)
    if done >= view.inputs()["steps"]:
        return Finish(answer=done)
    return Action(tool="look", arguments={"n": done})


def app() -> App:
    """Return the app."""
    tenants = {
        name: Tenant(principals={"clerk": Principal()}, concurrency=PLACES // 2, weight=weight)
        for name, weight in WEIGHTS.items()
    }
    policy = "version: fairness-1\nrules: [{id: all, outcome: allow}]\n"
    return App(agents={"walker": walker}, tools=[look], policy=policy, directory=Directory(tenants=tenants))


def job(tenant: str, steps: int) -> dict[str, Any]:
    """Return a job of so many steps."""
    return {"request": "look around", "tenant": tenant, "principal": "clerk", "inputs": {"steps": steps}}


def waits(stack: Stack, *, flooded: bool) -> dict[str, float]:
    """Let the victims run their jobs, beside the flood or alone; return the percentiles of their runs' seconds."""
    with ThreadPoolExecutor(len(VICTIMS) + 1) as pool:
        flood = None
        if flooded:
            batch = [job(FLOOD, 2 + i % 8) for i in range(JOBS * TIMES)]
            flood = pool.submit(stack.map, batch, progress=False)
            while stack.status()["driver"]["tenants"].get(FLOOD, {}).get("waiting", 0) < JOBS:
                pass  # until it fills the cell
        runs = [run for runs in pool.map(lambda name: one_after_the_other(stack, name), VICTIMS) for run in runs]
        stack.kill(tenant=FLOOD, why="measured") if flooded else None
        if flood is not None:
            flood.result()
    times = seconds(stack, runs)
    return {"p50_s": round(percentile(times, 0.5), 4), "p99_s": round(percentile(times, 0.99), 4), "runs": len(times)}


def one_after_the_other(stack: Stack, tenant: str) -> list[str]:
    """Run a victim's jobs and return the runs' ids."""
    done = []
    for _ in range(JOBS):
        handle = stack.submit(**job(tenant, 4))
        if not handle.result(timeout=120).ok:
            raise SystemExit(f"{handle.run_id} did not complete")
        done.append(handle.run_id)
    return done


def seconds(stack: Stack, runs: list[str]) -> list[float]:
    """Return how long the runs took from submission to end."""
    sql = """SELECT (o.ended_us - r.submitted_us) / 1e6 AS s FROM runs r JOIN outcomes o USING (run_id)
             WHERE list_contains(?, run_id)"""
    return [float(row["s"]) for row in stack.query(sql, [runs]).to_pylist()]


def shares(stack: Stack) -> dict[str, Any]:
    """Keep every tenant busy, and return what each got while all of them were."""
    counts = {name: STEPS_OF_WORK * WEIGHTS[name] // STEPS[name] for name in VICTIMS} | {FLOOD: JOBS * TIMES}
    batch = [job(name, STEPS[name]) for name, count in counts.items() for _ in range(count)]
    Random(1).shuffle(batch)  # so that all have something waiting from the start
    begin = int(stack.query("SELECT max(at_us) AS t FROM events").to_pylist()[0]["t"])
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(stack.map, batch, progress=False)
        busy = set(counts)
        while len(busy) == len(counts):
            tenants = stack.status()["driver"]["tenants"]
            busy = {name for name in counts if tenants.get(name, {}).get("waiting", 1) > 0}
        stack.kill(all=True, why="measured")
        results.result()
    # From when all had work (a tenth of the time, in which the estimates settle) to when the first had none.
    sql = """
        WITH span AS (SELECT min(at_us) AS b, max(at_us) AS e FROM events WHERE type = 'StepDecided' AND at_us > $1),
             last AS (SELECT min(t) AS e FROM (
                 SELECT max(at_us) AS t FROM events
                 WHERE type = 'RunActivated' AND epoch = 1 AND at_us > $1 GROUP BY tenant))
        SELECT tenant, count(*) AS steps FROM events, span, last
        WHERE type = 'StepDecided' AND at_us > b + (last.e - b) / 10 AND at_us < last.e GROUP BY tenant"""
    got = {row["tenant"]: int(row["steps"]) for row in stack.query(sql, [begin]).to_pylist()}
    total, weight = sum(got.values()), sum(WEIGHTS.values())
    error = max(abs(got[name] / total * weight / WEIGHTS[name] - 1) for name in WEIGHTS)
    per_weight = [got[name] / WEIGHTS[name] for name in WEIGHTS]
    index = jain(per_weight)
    return {"steps": got, "share_error": round(error, 4), "jain": round(index, 5)}


def main() -> None:
    """Measure, write the raw figures, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=result_file("fairness"))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="airside-fairness-"))
    found: dict[str, Any] = {"machine": machine(), "alone": [], "flooded": [], "shares": []}
    try:
        with airside.start(app(), state_dir=folder, mode="pooled", executors=1, cell_concurrency=PLACES) as stack:
            waits(stack, flooded=False)  # everything is up
            for turn in range(options.rounds):
                found["alone"].append(waits(stack, flooded=False))
                found["flooded"].append(waits(stack, flooded=True))
                found["shares"].append(shares(stack))
                print(f"round {turn + 1}: {json.dumps({k: found[k][-1] for k in ('alone', 'flooded', 'shares')})}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"raw figures: {options.out}")
    pairs = zip(found["alone"], found["flooded"], strict=True)
    last_line(
        {
            "victim_p99_ratio": round(median([b["p99_s"] / a["p99_s"] for a, b in pairs]), 3),
            "share_error": median([each["share_error"] for each in found["shares"]]),
            "jain": median([each["jain"] for each in found["shares"]]),
            "victim_p99_alone_s": median([a["p99_s"] for a in found["alone"]]),
            "victim_p99_flooded_s": median([b["p99_s"] for b in found["flooded"]]),
        }
    )


if __name__ == "__main__":
    main()
