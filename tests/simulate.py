"""`python -m tests.simulate --seeds 1000`: play seeds and report every promise that was broken.

The last line printed is one JSON object: seeds, violations, runs that never ended, crashes, effects.  The exit code is
1 if there are violations.  `--seed N --verbose` plays one seed and tells the story of each of its runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from random import Random

import msgspec

from airside.stack.run.events import decode_event
from airside.stack.run.story import story_lines
from tests.simulation.checks import check_all
from tests.simulation.plan import Plan, make_plan
from tests.simulation.world import World

AT_ONCE = 25
"""Seeds a process is given at a time; fewer in all are played here."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """What one seed came to."""

    seed: int
    violations: tuple[str, ...]
    stuck: int
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
        stuck=sum(not world.journal.ended(run_id) for run_id in world.driver.submitted),
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
        lines += ["", _told(world.journal.local.bodies_of(run_id)), f"{world.driver.submitted[run_id].limits}"]
    return "\n".join([*lines, "", f"fingerprint {played.fingerprint}"])


def _told(bodies: list[bytes]) -> str:
    try:
        return story_lines([decode_event(body) for body in bodies])
    except msgspec.ValidationError:
        return "\n".join(body.decode() for body in bodies)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a part of the seeds came to, with what there is to say about it."""

    violations: int = 0
    stuck: int = 0
    crashes: int = 0
    effects: int = 0
    lines: tuple[str, ...] = ()


def tally(seed: int, *, verbose: bool, brief: bool) -> Tally:
    """Play one seed."""
    played = play(seed)
    lines = [f"seed {seed}: {text}" for text in played.violations]
    if verbose or (played.violations and not brief):
        lines.append(story(played))
    return Tally(
        violations=len(played.violations),
        stuck=played.stuck,
        crashes=played.crashes,
        effects=played.effects,
        lines=tuple(lines),
    )


def tallies(seeds: range, jobs: int, one: Callable[[int], Tally]) -> Iterator[Tally]:
    """Play seeds, in so many processes; in order, whoever is ready first."""
    if jobs <= 1 or len(seeds) <= AT_ONCE:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, seeds, chunksize=AT_ONCE)


def main(arguments: list[str] | None = None) -> int:
    """Play the seeds asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="play this one only")
    parser.add_argument("--verbose", action="store_true", help="tell the story of every run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to play in")
    parser.add_argument("--brief", action="store_true", help="of a violation, print the line and no story")
    options = parser.parse_args(arguments)
    first, count = (options.first, options.seeds) if options.seed is None else (options.seed, 1)
    total: Counter[str] = Counter(violations=0, stuck=0, crashes=0, effects=0)
    one = partial(tally, verbose=options.verbose, brief=options.brief)
    for part in tallies(range(first, first + count), options.jobs, one):
        for line in part.lines:
            print(line)
        total.update(violations=part.violations, stuck=part.stuck, crashes=part.crashes, effects=part.effects)
    print(json.dumps({"seeds": count, **total}))
    return 1 if total["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
