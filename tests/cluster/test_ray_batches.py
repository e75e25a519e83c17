"""Batches on real Ray: killed and taken up again, paused and cancelled by others, one disposition for every row."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import airside
from airside.actors.client.client import Stack
from airside.batches.parts import read_parts
from airside.batches.run import BatchReport, run_batch
from benchmarks.batch_app import batch_app, tenant_names
from tests.on_ray import AIRSIDE, ROOT, airside_cli, until

pytestmark = pytest.mark.ray

STEPS = 2


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("batches")
    with airside.start(batch_app(3), stack="batches", state_dir=folder, mode="pooled", executors=1) as stack:
        yield stack


def write(path: Path, jobs: list[dict[str, Any]]) -> Path:
    """Write a jobs file."""
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
    return path


def jobs(count: int, **inputs: Any) -> list[dict[str, Any]]:
    """Return jobs of three tenants."""
    names = tenant_names(3)
    return [
        {"job_id": f"j{i}", "request": "r", "tenant": names[i % 3], "principal": "clerk", "inputs": inputs}
        for i in range(count)
    ]


def ended(stack: Stack, batch: str) -> int:
    """Return how many runs of a batch have ended."""
    return sum(each.runs for each in stack.batch(batch).show().outcomes if each.status != "active")


def dispositions(out: Path) -> list[tuple[int, int, str]]:
    """Return row, attempt and reason of every result."""
    columns = ("row", "attempt", "reason_code")
    return sorted(
        row
        for batch in read_parts(out, columns)
        for row in zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    )


def test_a_batch_whose_process_is_killed_is_taken_up_again_and_pays_for_nothing_twice(
    stack: Stack, tmp_path: Path
) -> None:
    count = 240
    path, out = write(tmp_path / "jobs.jsonl", jobs(count, steps=STEPS)), tmp_path / "out"
    command = ["run", str(path), "--out", str(out), "--state-dir", str(stack.state_dir), "--concurrency", "30"]
    first = subprocess.Popen(
        [str(AIRSIDE), *command, "--batch", "killed"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: stack.batch("killed").state().length >= 2, "the batch to begin")
    until(lambda: ended(stack, "killed") >= count // 4, "a quarter to end")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = airside_cli(*command)
    assert (
        "there is batch killed already, of the same: --resume (resume=True) takes it up" in again.stderr
        and again.returncode == 2
    )
    resumed = airside_cli(*command, "--resume")
    report = json.loads(resumed.stdout.splitlines()[-1])
    assert (report["jobs"], report["completed"], report["state"]) == (count, count, "finished"), resumed.stderr
    assert dispositions(out) == [(row, 1, "completed") for row in range(count)]
    decided = (
        "SELECT count(*) FROM events e JOIN runs r ON e.stream = r.run_id WHERE r.batch = ? AND e.type = 'StepDecided'"
    )
    assert stack.query(decided, ["killed"]).column(0)[0].as_py() == count * (STEPS + 1), "each is paid for once"
    shown = airside_cli("batch", "show", "killed", "--state-dir", str(stack.state_dir))
    assert "killed: finished" in shown.stdout and "240" in shown.stdout


def test_what_hangs_is_withdrawn_what_failed_is_run_again_and_orders_are_followed(stack: Stack, tmp_path: Path) -> None:
    rows = [*jobs(30, steps=1), *jobs(33, steps=1, flaky=True)[30:], *jobs(35, hang=True)[33:], {"request": 7}]
    path, out = write(tmp_path / "jobs.jsonl", rows), tmp_path / "out"
    reports = list[BatchReport]()

    def work() -> None:
        reports.append(run_batch(stack, path, out=out, batch="mixed", item_deadline_s=15.0, rate_per_s=15.0))

    worker = threading.Thread(target=work)
    worker.start()
    until(lambda: stack.batch("mixed").state().length >= 2 and ended(stack, "mixed") >= 5, "some to end")
    stack.batch("mixed").pause(why="to look")
    until(lambda: stack.batch("mixed").show().phase == "paused", "it to be paused")
    stack.batch("mixed").retune(concurrency=5, why="fewer at once")
    stack.batch("mixed").resume(why="looked")
    worker.join()
    (report,) = reports
    assert (report.rows, report.completed, report.failed, report.state) == (36, 30, 6, "finished")
    counted = Counter(reason for _, _, reason in dispositions(out))
    assert counted == {"completed": 30, "agent_error": 3, "cancelled": 2, "request_invalid": 1}
    again = run_batch(stack, path, out=out, retry_failed=True)
    assert (again.completed, again.failed) == (33, 3), "what hung and what is no job stays as it is"
    events = stack.query("SELECT body FROM events WHERE stream = 'batch:mixed' ORDER BY seq").column(0).to_pylist()
    said = [(json.loads(each)["change"]["action"], json.loads(each).get("why", "")) for each in events]
    assert ("pause", "to look") in said and ("retune", "fewer at once") in said


def test_a_job_of_a_batch_that_asks_for_something_else_is_refused(stack: Stack) -> None:
    one = airside.Job(request="a", tenant="tenant-0", principal="clerk", job_id="x", inputs={"steps": 0})
    other = airside.Job(request="b", tenant="tenant-0", principal="clerk", job_id="x", inputs={"steps": 0})
    (first,) = stack.stream([one.in_batch("same")])
    (again,) = stack.stream([one.in_batch("same")])
    assert first.ok and again.run_id == first.run_id
    (refused,) = stack.stream([other.in_batch("same")])
    assert not refused.run_id and "has a job 'x' already, which asks for something else" in refused.detail


def test_a_stream_takes_jobs_as_there_is_room(stack: Stack) -> None:
    found = stack.stream(iter(jobs(40, steps=0)), window=8)
    assert sorted(result.place for result in found if result.ok) == list(range(40))
