"""A batch submitted to a Ray cluster as one of its jobs: its results, and what a stop leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from airside.batches.part_store import TEMPORARY
from examples.retail.__main__ import states_ok
from examples.retail.app import OWN_DATA
from tests.on_ray import AIRSIDE, BOUND_S, ROOT, airside_cli, until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")
JOBS = OWN_DATA / "jobs.jsonl"
LINES = [json.loads(text) for text in JOBS.read_text().splitlines()]
RAY_RUN_S = 3 * BOUND_S
"""Longest a job of the cluster may take: the commands that follow it start Python twice."""


class Cluster(NamedTuple):
    """A head node on ports of its own, with a stack of the retail example on it."""

    dashboard: str
    env: dict[str, str]
    state: Path
    work: Path

    def ray(self, *args: str) -> str:
        """Run Ray's command line, and return what it says."""
        done = subprocess.run(
            [str(RAY), *args], env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=RAY_RUN_S, check=False
        )
        return done.stdout + done.stderr

    def submit(self, name: str, out: Path, *options: str, wait: bool = True) -> str:
        """Submit a batch as a job; return what the command says, with the job's log if it waits for its end."""
        told = ["--address", self.dashboard, "--submission-id", name, *(() if wait else ("--no-wait",))]
        patience = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}})
        entry = [str(AIRSIDE), "run", str(JOBS), "--out", str(out), "--state-dir", str(self.state), *options]
        return self.ray("job", "submit", *told, "--runtime-env-json", patience, "--", *entry)

    def status(self, name: str) -> str:
        """Return how a job ended; what Ray says of it, if it has not."""
        said = self.ray("job", "status", "--address", self.dashboard, name)
        ended = re.search(rf"Job '{name}' (succeeded|was stopped|failed)", said)
        return ended[1] if ended else said


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start it as an operator does, asking for a token; nothing is left of it."""
    home, folder = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp")), tmp_path_factory.mktemp("jobs")
    token = home / "token"
    token.write_text("f" * 64)
    token.chmod(0o600)
    gcs, dashboard, agent, raylet, objects, clients = free_ports(6)
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_worker_niceness": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_TMPDIR": str(home),
    }
    ports = {
        "port": gcs,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "node-manager-port": raylet,
        "object-manager-port": objects,
        "ray-client-server-port": clients,
    }
    start = [str(RAY), "start", "--head", "--block", "--temp-dir", str(home), "--num-cpus", "2"]
    start += [*(f"--{name}={port}" for name, port in ports.items()), "--node-ip-address", "127.0.0.1"]
    with (home / "head.log").open("wb") as log:
        head = subprocess.Popen(start, env=env, cwd=ROOT, stdout=log, stderr=log)
    made = Cluster(f"http://127.0.0.1:{dashboard}", env, folder / "state", folder / "work")
    try:
        until(
            lambda: "No jobs" in (said := made.ray("job", "list", "--address", made.dashboard)) or "[]" in said, "Ray"
        )
        app = ["--app", "examples.retail", "--app-arg", f"work={made.work}", "--state-dir", str(made.state)]
        up = airside_cli("up", *app, "--address", f"127.0.0.1:{gcs}", "--detach", env=env)
        assert up.returncode == 0, up.stderr + (home / "head.log").read_text()[-2000:]
        yield made
        airside_cli("down", "--state-dir", str(made.state), env=env)
    finally:
        head.terminate()
        head.wait(BOUND_S)
        shutil.rmtree(home, ignore_errors=True)


def rows_of(parts: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the results in parts."""
    return sorted((row for part in parts for row in pq.read_table(part).to_pylist()), key=lambda row: row["row"])


def processes_with(text: str) -> list[int]:
    """Return the processes whose command line has a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if text in command:
                found.append(int(entry.name))
    return found


def test_a_submitted_batch_runs_to_its_end_and_leaves_its_results(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    said = cluster.submit("whole", out, "--batch", "whole")
    assert cluster.status("whole") == "succeeded", said
    rows = pq.read_table(out).to_pylist()
    assert [row["job_id"] for row in rows] == [job["job_id"] for job in LINES]
    assert states_ok(LINES, {row["job_id"]: row["run_id"] for row in rows}, OWN_DATA, cluster.work) == len(LINES)
    assert '"state":"finished"' in said.replace(" ", ""), said


def test_a_stopped_batch_leaves_no_process_and_no_half_written_part_and_is_taken_up(
    cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "parts"
    cluster.submit("stopped", out, "--batch", "stopped", "--rate", "0.2", wait=False)
    until(lambda: list(out.glob("part-*.parquet")), "the first part", RAY_RUN_S)
    assert processes_with(str(out))
    said = cluster.ray("job", "stop", "--address", cluster.dashboard, "stopped")
    assert cluster.status("stopped") == "was stopped", said
    until(lambda: not processes_with(str(out)), "the job's processes to end")
    log = cluster.ray("job", "logs", "--address", cluster.dashboard, "stopped")
    assert "interrupted: " in log and "--resume takes batch stopped up" in log, log
    before = rows_of(list(out.glob("part-*.parquet")))
    assert 0 < len(before) < len(LINES)
    assert not [name for name in os.listdir(out) if name.endswith(TEMPORARY)]

    said = cluster.submit("resumed", out, "--resume")
    assert cluster.status("resumed") == "succeeded", said
    rows = rows_of(list(out.glob("part-*.parquet")))
    assert [row["row"] for row in rows] == list(range(len(LINES))), "each once"
    assert {row["run_id"] for row in before} < {row["run_id"] for row in rows}
    assert states_ok(LINES, {row["job_id"]: row["run_id"] for row in rows}, OWN_DATA, cluster.work) == len(LINES)
