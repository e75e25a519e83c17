"""What carrying a tool's call out costs in each lane, beside a program that is started bare, and in bubblewrap alone.

    python -m benchmarks.tools [--rounds 40]

Milliseconds at the median, of calls of a tool that returns its argument, granted and dispatched as an executor does it,
without Ray and without the gate.  All are measured in turns, one call of each a round and every other round in the
opposite order, so that a noisy machine is noisy for all; nothing that the call before left to be done is under way.

`sandbox_p50_ms` takes a sandbox that waits, as a call does that does not come at once after another one of its tool;
`sandbox_back_to_back_p50_ms` is one that does, and so waits for what is left of a start; `sandbox_cold_p50_ms` waits
for all of one.  `bare_subprocess_p50_ms` is this Python started for the same work: it reads the arguments, calls a
function and writes what that returns, both as JSON.  `bwrap_p50_ms` is that in bubblewrap with the namespaces, mounts
and bounds of a sandbox, but no rule within; `sandbox_vs_bwrap` is how many times that a call in a sandbox takes.
What code calls a second, and its like, are figures of `benchmarks/code_mode.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import itertools
import os
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

from airside.stack.canonical import digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.ids import NO_ISSUER, PrincipalId, RunId, TenantId, effect_key, mint_executor
from airside.stack.security.grants import Grant, mint
from airside.tools.dispatch import Dispatcher
from airside.tools.runners.sandbox import SandboxRunner
from airside.tools.sandbox.command import find_bwrap, python_there, sandboxed_command
from airside.tools.tool import Tool, tool
from benchmarks.code_mode import code_mode
from benchmarks.measure import last_line, machine, median, percentile

KEY = b"k" * 32
EXECUTOR = mint_executor(os.urandom)
RUN = RunId("run_" + "0" * 24)
CODE_CALLS = 96
ARGUMENTS = b'{"text":"x"}'
PROGRAM = """
import json, sys
def echo(text):
    return text
json.dump(echo(**json.load(sys.stdin)), sys.stdout)
"""
_steps = itertools.count(1)


def echo(text: str) -> str:
    """Return a text."""
    return text


LANES: dict[str, Tool] = {
    "thread": tool(effect="read", name="thread")(echo),
    "process": tool(effect="read", name="process", process=True)(echo),
    "sandbox": tool(effect="read", name="sandbox", sandbox=True)(echo),
}


def request(found: Tool) -> ExecuteRequest:
    """Return a granted call."""
    step = next(_steps)
    grant = Grant(
        tenant=TenantId("acme"),
        principal=PrincipalId("ann"),
        run_id=RUN,
        step=step,
        attempt=1,
        epoch=1,
        tool=found.name,
        tool_version=found.spec.version,
        arguments_sha256=digest(ARGUMENTS),
        key=effect_key(RUN, step),
        policy_version="v1",
        approval_id="",
        executor=EXECUTOR,
        timeout_ms=30_000,
        expires_us=1 << 60,
        issuer=NO_ISSUER,
        nonce=secrets.token_bytes(12),
    )
    return ExecuteRequest(grant=mint(KEY, grant), arguments=ARGUMENTS)


def dispatcher(*, in_threads: bool = True) -> Dispatcher:
    """Return what an executor has of its tools."""
    return Dispatcher(
        LANES.values(), seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: time.time_ns() // 1000, in_threads=in_threads
    )


async def called(made: Dispatcher, found: Tool) -> None:
    """Have a call carried out."""
    result = (await made.execute(request(found))).result
    assert result.ok, result.error


async def run_bare(*outside: str) -> None:
    """Start this Python for one call."""
    process = await asyncio.create_subprocess_exec(
        *outside,
        *(python_there(), "-I", "-S", "-c", PROGRAM),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={},
    )
    output, _ = await process.communicate(ARGUMENTS)
    assert (process.returncode, output) == (0, b'"x"')


def in_bwrap() -> list[str]:
    """Return bubblewrap's part of a sandbox's command."""
    line = sandboxed_command([])
    return line[line.index(find_bwrap()) : line.index("--") + 1]


async def measure(rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each, in turns."""
    made, inline = dispatcher(), dispatcher(in_threads=False)
    runner = made._runner_of["sandbox"]
    assert isinstance(runner, SandboxRunner)
    outside = in_bwrap()
    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "inline": lambda: called(inline, LANES["thread"]),
        "thread": lambda: called(made, LANES["thread"]),
        "process": lambda: called(made, LANES["process"]),
        "bare_subprocess": run_bare,
        "sandbox": lambda: called(made, LANES["sandbox"]),
        "bwrap": lambda: run_bare(*outside),
    }
    for each in ways.values():
        await each()
    samples: dict[str, list[float]] = {name: [] for name in [*ways, "sandbox_cold", "sandbox_back_to_back"]}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else reversed(ways):
            await asyncio.gather(*runner._spare.values())
            samples[name].append(await _milliseconds(ways[name]))
        for spare in [runner._spare.pop(key) for key in list(runner._spare)]:
            runner._discard(spare)
        await asyncio.gather(*runner._ending)
        for name in ("sandbox_cold", "sandbox_back_to_back"):
            samples[name].append(await _milliseconds(ways["sandbox"]))
    made.close()
    inline.close()
    return samples


async def _milliseconds(way: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await way()
    return (time.perf_counter() - began) * 1000


def figures(samples: dict[str, list[float]]) -> dict[str, Any]:
    """Return the medians, and how a sandbox compares."""
    p50 = {f"{name}_p50_ms": round(median(values), 2) for name, values in samples.items()}
    ratio = round(p50["sandbox_p50_ms"] / p50["bwrap_p50_ms"], 2)
    p99 = {"sandbox_p99_ms": round(percentile(samples["sandbox"], 0.99), 2)}
    return {**p50, **p99, "sandbox_vs_bwrap": ratio, "rounds": len(samples["sandbox"])}


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(main)))
    parser.add_argument("--rounds", type=int, default=40)
    samples = asyncio.run(measure(parser.parse_args().rounds))
    last_line({**figures(samples), **code_mode(CODE_CALLS, rounds=3), "machine": machine()})


if __name__ == "__main__":
    main()
