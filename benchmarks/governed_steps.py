"""Governed steps a second: coalesced and one Ray call per item, pooled and dedicated, beside the same loop without Ray.

    python -m benchmarks.governed_steps [--rounds 3] [--out samples.json] [--against COMMIT | --concurrent RUNS]
    python -m benchmarks.governed_steps --journal URL [--rounds 3]

Every step is real: recall (the query's embedding is cached), decide, policy of twenty rules, validation, a sealed
grant, a durable append before every write, execution, a result.  The variants take turns within one process and one
Ray, so that the machine's other work falls on all of them:

 pooled, dedicated   the stack as it is
 naive_*             the same stack over Ray's calls with `max_batch=1`: every item is one of its own
 plain               the same cycle, gate, dispatcher and journal file in one process, no Ray (an upper bound)

Ratios are medians over rounds of coalesced / naive on the same workload, as rates.  A sample's memory is the
proportional set size of the stack's own processes.  Dedicated at 200 x 5 has no naive beside it: 200 processes do not
fit, so 48 come and go, and what is measured is mostly that.  With `--concurrent` it is measured instead how admission
and memory bear so many live runs (`benchmarks/concurrent.py`), and with `--journal` what a
journal in a database costs beside one in a file.  Not measured: agents and tools
that do work of their own, more than one node, memory with cold queries.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import airside
from airside.actors.client.client import Stack
from airside.actors.jobs import Job
from airside.stack.contracts.memory import Candidate
from airside.stack.ids import parse_tenant
from benchmarks import concurrent
from benchmarks.against import against, ratios
from benchmarks.ledger_app import TEXT, jobs, ledger_app, tenants
from benchmarks.measure import cpu_seconds, last_line, machine, median, memory_mib, percentile, result_file, tree
from benchmarks.plain import run_plain

STEPS = 8
SMALL, LARGE = (20, 10), (200, 5)
"""Tenants x runs a tenant."""

NOTE = "The tenant books monthly fees on the first working day and wants the balance checked after every entry."


def started(exit_stack: ExitStack, name: str, tenant_count: int, **options: Any) -> Stack:
    """Start one variant's stack, with a memory for every tenant, and warm it with a run a tenant."""
    folder = Path(tempfile.mkdtemp(prefix=f"airside-{name}-"))
    exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)
    # One executor: the tools do nothing, and on two cores a second process only halves everybody's batches.
    stack = airside.start(ledger_app(tenant_count), stack=name, state_dir=folder, executors=1, **options)
    exit_stack.callback(stack.shutdown)
    for tenant in tenants(min(tenant_count, 20)):
        note = Candidate(tenant=parse_tenant(tenant), text=NOTE, kind="fact", source="benchmark", trust="high")
        stack.memory.remember(note)
    run(stack, tenant_count, 1)
    return stack


def run(stack: Stack, tenant_count: int, runs: int) -> dict[str, Any]:
    """Run one workload and return its sample; every run must complete."""
    before, began = cpu_seconds(tree()), time.monotonic()
    results = stack.map(jobs(tenant_count, runs, STEPS), progress=False)
    seconds, cpu = time.monotonic() - began, cpu_seconds(tree()) - before
    unfinished = [result for result in results if not result.ok]
    if unfinished:
        raise SystemExit(f"{len(unfinished)} runs did not complete: {unfinished[0]}")
    steps = tenant_count * runs * STEPS
    times = [result.seconds for result in results]
    return {
        "steps": steps,
        "steps_per_s": round(steps / seconds, 1),
        "cpu_s_per_1000": round(cpu / steps * 1000, 3),
        "run_p50_s": round(percentile(times, 0.5), 4),
        "run_p99_s": round(percentile(times, 0.99), 4),
        "memory_mib": round(memory_mib([layer["pid"] for layer in stack.status().values() if "pid" in layer])),
    }


def solo_ms(stack: Stack, repeats: int = 30) -> list[float]:
    """Return the milliseconds a step takes in a run that is alone."""
    job = {**jobs(1, 1, STEPS)[0]}
    samples = []
    for _ in range(repeats):
        result = stack.submit(Job.model_validate(job)).result(timeout=60)
        samples.append(round(result.seconds * 1000 / STEPS, 3))
    return samples


def compare(rounds: int) -> dict[str, Any]:
    """Measure the variants, a pair at a time so that the others' idle processes do not count; return all samples."""
    samples: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as at_end:
        pair = {
            "pooled": started(at_end, "pooled", LARGE[0], mode="pooled"),
            "naive_pooled": started(at_end, "naive-pooled", LARGE[0], mode="pooled", max_batch=1, transport="ray"),
        }
        measure(samples, pair, "200x5", LARGE, rounds)
        measure(samples, pair, "20x10", SMALL, rounds)
        solo = solo_ms(pair["pooled"])
    with ExitStack() as at_end:
        pair = {
            "dedicated": started(at_end, "dedicated", SMALL[0]),
            "naive_dedicated": started(at_end, "naive-dedicated", SMALL[0], max_batch=1, transport="ray"),
        }
        measure(samples, pair, "20x10", SMALL, rounds)
    with ExitStack() as at_end:
        # More tenants than runtimes may live: what is measured is also their coming and going.
        wide = {"dedicated": started(at_end, "dedicated", LARGE[0], max_live_runtimes=48)}
        measure(samples, wide, "200x5", LARGE, 1)
    return {"samples": samples, "solo_step_ms": solo}


def beside_file(url: str, rounds: int) -> dict[str, Any]:
    """Let a stack whose journal is in a database take turns with one whose journal is a file; return all samples."""
    samples: dict[str, list[dict[str, Any]]] = {}
    solo: dict[str, list[float]] = {"file": [], "database": []}
    with ExitStack() as at_end:
        pair = {
            "file": started(at_end, "file", LARGE[0], mode="pooled"),
            "database": started(at_end, "database", LARGE[0], mode="pooled", journal=url),
        }
        measure(samples, pair, "200x5", LARGE, rounds)
        for _ in range(rounds):
            for name, stack in pair.items():
                solo[name].append(median(solo_ms(stack)))
    return {"samples": samples, "solo_step_ms": solo}


def database_summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the last line; the processes of the database's server are in none."""
    file, database = (found["samples"][f"{name}/200x5"] for name in ("file", "database"))
    pairs = list(zip(database, file, strict=True))
    solo = found["solo_step_ms"]
    return {
        "vs_file_pooled": round(median([a["steps_per_s"] / b["steps_per_s"] for a, b in pairs]), 2),
        "vs_file_solo": round(median([a / b for a, b in zip(solo["database"], solo["file"], strict=True)]), 2),
        "vs_file_cpu": round(median([a["cpu_s_per_1000"] / b["cpu_s_per_1000"] for a, b in pairs]), 2),
        "database_steps_per_s": median([sample["steps_per_s"] for sample in database]),
        "file_steps_per_s": median([sample["steps_per_s"] for sample in file]),
        "database_solo_step_ms": median(solo["database"]),
        "file_solo_step_ms": median(solo["file"]),
    }


def measure(
    samples: dict[str, list[dict[str, Any]]], stacks: dict[str, Stack], size: str, load: tuple[int, int], rounds: int
) -> None:
    """Let the variants, and the loop without Ray, take turns."""
    for turn in range(rounds):
        samples.setdefault(f"plain/{size}", []).append(run_plain(*load, STEPS))
        for name, stack in stacks.items():
            sample = run(stack, *load)
            samples.setdefault(f"{name}/{size}", []).append(sample)
            print(f"round {turn + 1} {name} {size}: {json.dumps(sample)}", flush=True)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the last line."""

    def rate(name: str) -> float:
        return median([sample["steps_per_s"] for sample in found["samples"][name]])

    def ratio(name: str, naive: str) -> float:
        pairs = zip(found["samples"][name], found["samples"][naive], strict=True)
        return round(median([a["steps_per_s"] / b["steps_per_s"] for a, b in pairs]), 2)

    return {
        "pooled_vs_naive": ratio("pooled/200x5", "naive_pooled/200x5"),
        "dedicated_vs_naive": ratio("dedicated/20x10", "naive_dedicated/20x10"),
        "pooled_steps_per_s": rate("pooled/200x5"),
        "dedicated_steps_per_s": rate("dedicated/20x10"),
        "cpu_s_per_1000": median([s["cpu_s_per_1000"] for s in found["samples"]["pooled/200x5"]]),
        "solo_step_p50_ms": median(found["solo_step_ms"]),
        "pooled_vs_naive_20x10": ratio("pooled/20x10", "naive_pooled/20x10"),
        "dedicated_steps_per_s_200x5": rate("dedicated/200x5"),
        "naive_steps_per_s": rate("naive_pooled/200x5"),
        "plain_steps_per_s": rate("plain/200x5"),
        "pooled_memory_mib": found["samples"]["pooled/200x5"][-1]["memory_mib"],
        "dedicated_memory_mib": found["samples"]["dedicated/20x10"][-1]["memory_mib"],
    }


def main() -> None:
    """Measure, write the raw samples, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=result_file("governed_steps"))
    parser.add_argument("--against", metavar="COMMIT", help="play this commit in turns with the present one, instead")
    parser.add_argument("--concurrent", type=int, metavar="RUNS", help="measure so many live runs, instead")
    parser.add_argument("--waits", choices=("approval", "tool"), default="approval", help="what live runs wait for")
    parser.add_argument(
        "--journal", metavar="URL", help="measure a journal in this empty database beside a file, instead"
    )
    options = parser.parse_args()
    if options.journal:
        found = {"machine": machine(), **beside_file(options.journal, options.rounds)}
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"raw samples: {options.out}")
        last_line(database_summary(found))
        return
    if options.concurrent:
        rounds = []
        for turn in range(options.rounds):
            rounds.append(concurrent.sample(options.concurrent, options.waits))
            print(f"round {turn + 1}: {json.dumps(rounds[-1])}", flush=True)
        options.out.write_text(json.dumps({"machine": machine(), "samples": rounds}, indent=1), encoding="utf-8")
        print(f"raw samples: {options.out}")
        last_line(concurrent.summary(options.concurrent, rounds))
        return
    if options.against:
        samples = against(options.against, options.rounds)
        options.out.write_text(json.dumps({"machine": machine(), "samples": samples}, indent=1), encoding="utf-8")
        print(f"raw samples: {options.out}")
        last_line(ratios(samples))
        return
    found = {"machine": machine(), "text": TEXT, **compare(options.rounds)}
    options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"raw samples: {options.out}")
    last_line(summary(found))


if __name__ == "__main__":
    main()
