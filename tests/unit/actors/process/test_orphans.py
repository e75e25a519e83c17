"""What a process started is found and ended after its death, wherever it went, and nobody else is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airside.actors.process.orphans import find_orphans, sweep
from airside.actors.process.pulse import Where
from tests.apps.killing import LEFT
from tests.on_ray import alive, until

PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from airside.actors.process.pulse import PulseWriter
from airside.actors.process.orphans import mark_children

pulse = PulseWriter()
mark_children(pulse.where)
place = Path(sys.argv[1])

def leave(name):
    (place / f"{name}-{os.getpid()}").touch()
subprocess.Popen([sys.executable, "-c", sys.argv[2], str(place)])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        leave("copy")
        time.sleep(1e6)
    os._exit(0)
print(*pulse.where, flush=True)
time.sleep(1e6)
"""


@pytest.fixture
def left(tmp_path: Path) -> Iterator[tuple[Where, list[int]]]:
    """Yield where a killed process was, and what it left running."""
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), LEFT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    where = Where(*map(int, parent.stdout.readline().split()))
    until(lambda: len(list(tmp_path.iterdir())) == 2, "both to begin")
    found = [int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir()]
    parent.kill()
    parent.wait()
    yield where, found
    for pid in found:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_program_and_a_copy_that_forked_twice_are_ended(left: tuple[Where, list[int]]) -> None:
    where, found = left
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
    assert all(map(alive, found)) and sorted(find_orphans(where)) == sorted(found)
    assert asyncio.run(sweep(where, 2.0))
    assert not any(map(alive, found)) and bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_what_another_process_left_is_left_alone(left: tuple[Where, list[int]]) -> None:
    where, found = left
    other = where._replace(born=where.born + 1, page_inode=where.page_inode + 1)
    assert find_orphans(other) == [] and asyncio.run(sweep(other, 2.0))
    assert all(map(alive, found))
