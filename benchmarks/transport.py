"""One request between two actors of a node: over a socket and over Ray's calls, alone and many at once.

    python -m benchmarks.transport [--rounds 5] [--many 200]

Both ways carry the same request to the same layer (whose grants an executor takes: its answer costs nothing), from an
actor of its own, taking turns in one process.  Printed are medians over rounds: microseconds of a lone request, its CPU
in both processes, and requests a second when `--many` wait at once.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

import airside
from airside.actors.rpc.methods import INCARNATION
from airside.actors.rpc.names import CellAddress
from airside.actors.rpc.remote import Remote
from benchmarks.ledger_app import ledger_app
from benchmarks.measure import cpu_seconds, last_line, median

ALONE = 200


class Caller:
    """An actor that asks an executor."""

    def __init__(self, cell: CellAddress) -> None:
        self._remote = Remote(cell, "executor", "0")

    async def pid(self) -> int:
        """Return the process's id, connected."""
        import os

        await self._remote.call(INCARNATION, None)
        return os.getpid()

    async def alone(self, count: int) -> float:
        """Return the seconds that one request after the other takes."""
        began = time.perf_counter()
        for _ in range(count):
            await self._remote.call(INCARNATION, None)
        return time.perf_counter() - began

    async def at_once(self, count: int) -> float:
        """Return the seconds that many at once take."""
        began = time.perf_counter()
        await asyncio.gather(*(self._remote.call(INCARNATION, None) for _ in range(count)))
        return time.perf_counter() - began


def sample(caller: Any, pids: list[int], many: int) -> dict[str, float]:
    """Return one round's figures."""
    before = cpu_seconds(pids)
    alone = ray.get(caller.alone.remote(ALONE))
    cpu = cpu_seconds(pids) - before
    return {
        "us": alone / ALONE * 1e6,
        "cpu_us": cpu / ALONE * 1e6,
        "per_s": many / ray.get(caller.at_once.remote(many)),
    }


def main() -> None:
    """Print the figures of both ways; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=200)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="airside-transport-"))
    with ExitStack() as at_end:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        stack = airside.start(ledger_app(1), stack="transport", state_dir=folder, executors=1, mode="pooled")
        at_end.callback(stack.shutdown)
        executor = stack.status()["executor/0"]["pid"]
        kind = ray.remote(num_cpus=0, max_concurrency=10_000)(Caller)
        callers = {way: kind.remote(replace(stack.cell, transport=way)) for way in ("sockets", "ray")}
        pids = {way: [executor, ray.get(caller.pid.remote())] for way, caller in callers.items()}
        rounds = [
            {way: sample(caller, pids[way], given.many) for way, caller in callers.items()} for _ in range(given.rounds)
        ]
    found = {
        f"{way}_{name}": round(median([each[way][name] for each in rounds]), 1)
        for way in ("sockets", "ray")
        for name in ("us", "cpu_us", "per_s")
    }
    last_line({**found, "times_faster": round(found["ray_us"] / found["sockets_us"], 1)})


if __name__ == "__main__":
    main()
