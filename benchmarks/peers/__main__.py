"""Governed steps a second of Airside, LangGraph with SQLite, DBOS with SQLite, and plain Ray, in turns.

    python -m benchmarks.peers [--rounds 3] [--out samples.json]
    python -m benchmarks.peers --setup      # only makes the peers' environments, which needs a package index

20 tenants x 10 runs x 8 steps, all runs at once.  A step is a decision (a function), a check against a policy of twenty
rules, a call that does nothing, and what happened made durable before the next: SQLite, `journal_mode=WAL`,
`synchronous=FULL`.  Agent, rules and tools of the peers are `benchmarks/peers/ledger.py`; each module `on_NAME` says
how its peer is set up and what else was tried.  Every turn is a process of its own, which makes the workload once
before it is measured.

Last line: steps a second of each (medians over rounds); `ratio_best_peer`, the median over rounds of the default mode,
`airside_dedicated`, over the fastest that is no Airside; `solo_ms`, milliseconds a step of a run that is alone, from
asking for it to its answer; CPU seconds a thousand steps and memory (proportional set size), both of the whole process
tree.

What a peer's step does not have: `docs/benchmarks.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import last_line, machine, median, result_file
from benchmarks.peers import environments
from benchmarks.peers.turn import sample_of

TURN_S = 600
AIRSIDE = ("airside_pooled", "airside_dedicated")
PEERS = ("langgraph_sqlite", "dbos_sqlite", "ray_naive")


def commands() -> dict[str, list[str]]:
    """Return what plays a turn of each, in the order of turns; make the environments that are missing."""
    langgraph, dbos = (str(environments.interpreter(name)) for name in environments.NAMES)
    return {
        "airside_dedicated": [sys.executable, "-m", "benchmarks.peers.on_airside", "dedicated"],
        "langgraph_sqlite": [langgraph, "-m", "benchmarks.peers.on_langgraph"],
        "dbos_sqlite": [dbos, "-m", "benchmarks.peers.on_dbos"],
        "airside_pooled": [sys.executable, "-m", "benchmarks.peers.on_airside", "pooled"],
        "ray_naive": [sys.executable, "-m", "benchmarks.peers.on_ray"],
    }


def play(name: str, command: Sequence[str]) -> dict[str, Any]:
    """Return one turn's sample; raise `SystemExit` with what it said if it failed."""
    environment = {**os.environ, "PYTHONPATH": str(environments.ROOT)}
    done = subprocess.run(
        command, cwd=environments.ROOT, env=environment, capture_output=True, text=True, timeout=TURN_S, check=False
    )
    sample = sample_of(done.stdout)
    if sample is None:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return sample


def summary(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the figures of the last line."""

    def each(figure: Callable[[Mapping[str, Any]], float]) -> dict[str, float]:
        return {name: round(median([figure(turn) for turn in samples[name]]), 3) for name in (*AIRSIDE, *PEERS)}

    rates = each(lambda sample: sample["steps_per_s"])
    best = max(PEERS, key=lambda name: rates[name])
    turns = zip(samples["airside_dedicated"], samples[best], strict=True)
    return {
        **rates,
        "ratio_best_peer": round(median([ours["steps_per_s"] / theirs["steps_per_s"] for ours, theirs in turns]), 2),
        "solo_ms": each(lambda sample: median(sample["solo_ms"])),
        "cpu_s_per_1000": each(lambda sample: sample["cpu_s_per_1000"]),
        "memory_mib": each(lambda sample: sample["memory_mib"]),
    }


def main() -> None:
    """Measure, write the raw samples, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=result_file("peers"))
    parser.add_argument("--setup", action="store_true", help="make the peers' environments, and end")
    options = parser.parse_args()
    turns = commands()
    if options.setup:
        return
    samples: dict[str, list[dict[str, Any]]] = {}
    for turn in range(options.rounds):
        for name, command in turns.items():
            samples.setdefault(name, []).append(play(name, command))
            shown = {key: value for key, value in samples[name][-1].items() if key != "solo_ms"}
            print(f"round {turn + 1} {name}: {json.dumps(shown)}", flush=True)
    peers = {name: environments.requirements(name).read_text("utf-8").split("\n")[1:] for name in environments.NAMES}
    found = {"machine": machine(), "peers": peers, "samples": samples}
    options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"raw samples: {options.out}")
    last_line(summary(samples))


if __name__ == "__main__":
    main()
