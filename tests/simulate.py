"""`python -m tests.simulate --seeds 1000`: play seeds and report every promise that was broken.

The last line printed is one JSON object: seeds, violations, crashes, effects.  The exit code is 1 if there are
violations.  `--seed N --verbose` plays one seed and tells the story of each of its runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from airside.stack.run.events import decode_event
from airside.stack.run.story import tell
from tests.simulation.checks import check_all
from tests.simulation.plan import Plan, make_plan
from tests.simulation.world import World


@dataclass(frozen=True, kw_only=True)
class Played:
    """What one seed came to."""

    seed: int
    violations: tuple[str, ...]
    crashes: int
    effects: int
    points: int
    fingerprint: str
    world: World


def play(seed: int, make: Callable[[Random], Plan] = make_plan) -> Played:
    """Play one seed to its end and check it."""
    world = World(seed, make=make)
    world.run()
    check_all(world)
    return Played(
        seed=seed,
        violations=tuple(world.violations),
        crashes=world.crashes,
        effects=sum(world.ledger.counts.values()),
        points=world.points,
        fingerprint=world.fingerprint(),
        world=world,
    )


def story(played: Played) -> str:
    """Return what happened, and each run's own story."""
    world = played.world
    lines = [f"seed {played.seed}: faults {world.plan.faults}, crashes {world.plan.crashes}", *world.log]
    for run_id in world.driver.submitted:
        lines += ["", _told(world.journal.local.bodies(run_id)), f"{world.driver.submitted[run_id].limits}"]
    return "\n".join([*lines, "", f"fingerprint {played.fingerprint}"])


def _told(bodies: list[bytes]) -> str:
    try:
        return tell([decode_event(body) for body in bodies])
    except msgspec.ValidationError:
        return "\n".join(body.decode() for body in bodies)


def main(arguments: list[str] | None = None) -> int:
    """Play the seeds asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--verbose", action="store_true", help="tell the story of every run")
    parser.add_argument("--brief", action="store_true", help="of a violation, print the line and no story")
    options = parser.parse_args(arguments)
    first, count = (options.first, options.seeds) if options.seed is None else (options.seed, 1)
    violations = crashes = effects = 0
    for seed in range(first, first + count):
        played = play(seed)
        violations += len(played.violations)
        crashes += played.crashes
        effects += played.effects
        for text in played.violations:
            print(f"seed {seed}: {text}")
        if options.verbose or (played.violations and not options.brief):
            print(story(played))
    print(json.dumps({"seeds": count, "violations": violations, "crashes": crashes, "effects": effects}))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
