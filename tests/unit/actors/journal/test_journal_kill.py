"""A process that appends to a journal is killed at any moment: what it acknowledged is there, and nothing is torn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from airside.actors.audit import journal_file
from airside.actors.journal.store import JournalStore
from tests.journals import JOINED, KEY

ROOT = Path(__file__).parents[4]


def kill_one(folder: Path, seed: int, rounds: int) -> None:
    """Let a process append to a folder some times over, and kill it each time after it said some lines."""
    random = Random(seed)
    acknowledged: dict[str, int] = {}
    for _ in range(rounds):
        command = [sys.executable, "-m", "tests.journals", str(folder), str(random.randrange(10**6))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for _ in range(random.randint(0, 60)):
                acknowledged = json.loads(process.stdout.readline())
            process.kill()
            for line in process.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    acknowledged = json.loads(line)
        copy = journal_file(folder)
        found = {stream: len(bodies) for stream, bodies in copy.bodies(list(acknowledged)).items()}
        copy.close()
        store = JournalStore(folder, KEY)
        assert store.verify() == []
        for stream, count in acknowledged.items():
            bodies = store.bodies([stream])[stream]
            assert len(bodies) >= count and len(bodies) == found[stream]
            assert [json.loads(body)["n"] for body in bodies[1:]] == list(range(1, len(bodies)))
        assert len({len(bodies) for bodies in store.bodies(JOINED).values()}) == 1  # all, or none
        # What was written and not acknowledged any more may be there, too.
        assert {row[0] for row in store.rows("unfinished")} <= {f"run_{n}" for n in range(5)}
        store.release()


def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path) -> None:
    """Through several kills of one journal."""
    kill_one(tmp_path, seed=1, rounds=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_what_a_killed_process_acknowledged_is_there_whatever_the_moment(tmp_path: Path, seed: int) -> None:
    """At two hundred times two moments."""
    kill_one(tmp_path, seed, rounds=2)
