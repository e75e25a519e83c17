"""A node that dies, stands still or is cut off, and Ray's control service away: all runs end, nothing happens twice.

Each case is a process of its own (`benchmarks.node_loss`), for its Ray has settings of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.on_ray import ROOT

BOUND_S = 400.0

pytestmark = pytest.mark.ray


def play(case: str) -> dict[str, Any]:
    """Play a case and return what was found."""
    command = [sys.executable, "-m", "benchmarks.node_loss", "--case", case]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert played.returncode == 0, played.stderr[-4000:]
    found: dict[str, Any] = json.loads(played.stdout.splitlines()[-1])
    return found


def holds(found: dict[str, Any]) -> bool:
    """Whether all runs ended, each call happened as often as is on record, and no old activation acted."""
    ended = sum(found["ended"].values()) == found["runs"] and found["ended"].keys() <= {"completed", "tool_in_doubt"}
    return ended and found["doubled"] == found["lost"] == found["overlaps"] == 0 and found["audit_ok"]


@pytest.mark.slow
def test_a_node_whose_raylet_is_killed() -> None:
    found = play("killed")
    assert holds(found), found
    assert found["affected"] and found["recovery_s"] is not None, found


@pytest.mark.slow
def test_a_kill_that_is_ordered_while_rays_control_service_stands_still_is_confirmed_within_the_lease() -> None:
    found = play("gcs_down")
    assert holds(found) and found["confirmed_dead"] and found["within_lease"], found


@pytest.mark.slow
def test_a_node_whose_raylet_stands_still() -> None:
    found = play("frozen")
    assert holds(found), found
    assert found["affected"] and found["recovery_s"] is not None, found


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2")
def test_a_node_whose_link_is_cut() -> None:
    found = play("partition")
    assert holds(found), found
    assert found["affected"] and found["recovery_s"] is not None and found["survivors"] == 0, found


@pytest.mark.slow
def test_a_restart_of_rays_control_service_with_stored_state_is_survived_by_everything() -> None:
    found = play("gcs_restart")
    assert holds(found) and found["ended"] == {"completed": found["runs"]} and found["submitted_after"] > 1, found


@pytest.mark.slow
def test_calls_that_ray_drops() -> None:
    found = play("rpc_faults")
    assert holds(found), found
