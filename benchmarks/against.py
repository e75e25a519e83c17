"""Governed steps a second of this tree beside those of an older commit, in turns, in the same environment.

    python -m benchmarks.governed_steps --against COMMIT [--rounds 3]

Each turn is a process of its own that plays the commit's own benchmark on the commit's own code, so that nothing of one
is in the other.  The ratios are medians over rounds of this tree's figure over the commit's, of the same round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import median

ROOT = Path(__file__).parents[1]
TURN_S = 600
_MARK = "found: "
_PLAYER = f"""
import json, sys
from contextlib import ExitStack
from benchmarks.governed_steps import LARGE, SMALL, run, solo_ms, started
mode = sys.argv[1]
load = LARGE if mode == "pooled" else SMALL
with ExitStack() as at_end:
    stack = started(at_end, mode, load[0], mode=mode)
    samples = [run(stack, *load) for _ in range(2)]
    found = {{**samples[-1], "solo_ms": sorted(solo_ms(stack))[15] if mode == "pooled" else 0.0}}
    print({_MARK!r} + json.dumps(found), flush=True)
"""


def play(tree: Path, mode: str) -> dict[str, Any]:
    """Return one turn's sample of a tree; raise `SystemExit` with what it said if it failed."""
    done = subprocess.run(
        [sys.executable, "-c", _PLAYER, mode],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=TURN_S,
        check=False,
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(_MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return found
    raise SystemExit(f"{tree} {mode}: {done.stderr[-2000:]}")


def against(commit: str, rounds: int) -> dict[str, Any]:
    """Return the samples of a commit and of this tree, by mode."""
    samples: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="airside-base-") as folder:
        base = Path(folder, "tree")
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(base), commit], cwd=ROOT, check=True)
        try:
            for turn in range(rounds):
                for mode in ("pooled", "dedicated"):
                    for name, tree in (("base", base), ("now", ROOT)):
                        sample = play(tree, mode)
                        samples.setdefault(f"{name}/{mode}", []).append(sample)
                        print(f"round {turn + 1} {name} {mode}: {json.dumps(sample)}", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(base)], cwd=ROOT, check=False)
    return samples


def ratios(samples: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return this tree's figures over the commit's."""

    def ratio(mode: str, figure: str) -> float:
        pairs = zip(samples[f"now/{mode}"], samples[f"base/{mode}"], strict=True)
        return round(median([now[figure] / base[figure] for now, base in pairs]), 2)

    return {
        "vs_base_pooled": ratio("pooled", "steps_per_s"),
        "vs_base_dedicated": ratio("dedicated", "steps_per_s"),
        "vs_base_solo": ratio("pooled", "solo_ms"),
        "vs_base_cpu": ratio("pooled", "cpu_s_per_1000"),
        "vs_base_cpu_dedicated": ratio("dedicated", "cpu_s_per_1000"),
    }
