"""Four times what the machine carries, beside processes that take its CPUs, ends nothing but what is really stuck."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.on_ray import ROOT

BOUND_S = 1_200.0

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_an_overloaded_machine_ends_nothing_that_only_waits_for_its_turn() -> None:
    command = [sys.executable, "-m", "benchmarks.overload", "--seconds", "3"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert played.returncode == 0, played.stderr[-4000:]
    found = json.loads(played.stdout.splitlines()[-1])
    assert found["completed"] == found["runs"] and found["wrongly_killed"] == 0 and found["audit"] == [], found
    assert found["stuck"] == "killed_runaway" and found["extra_processes"] == 0, found
