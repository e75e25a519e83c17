"""Several processes use one stack: it outlives whoever submits, and anybody of its machine finds it by its state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airside.actors.jobs import parse_lines
from airside.stack.errors import Misuse
from tests.apps.ledger import Ledger
from tests.apps.notes import JobInputs
from tests.on_ray import BOUND_S, ROOT, Owner, until

pytestmark = pytest.mark.ray

CLIENT = """
import json, sys, threading
import airside
from tests.on_ray import call, submit, waiting

with airside.connect(sys.argv[1]) as stack:
    {body}
"""


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """A stack kept up by a process of its own."""
    with Owner(tmp_path_factory.mktemp("attach") / "state") as started:
        yield started


def client(owner: Owner, body: str, *args: str) -> subprocess.Popen[str]:
    """Start a client process that attaches and runs `body`."""
    code = CLIENT.format(body=body.strip().replace("\n", "\n    "))
    command = [sys.executable, "-c", code, str(owner.state), *args]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> Any:
    """Wait for a client and return the JSON it prints last."""
    out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


def test_two_processes_use_one_stack_at_the_same_time(owner: Owner) -> None:
    body = """
handles = [submit(stack, call("note", text=f"{sys.argv[2]} {i}"), who=sys.argv[3]) for i in range(5)]
print(json.dumps([h.result(timeout=60).ok for h in handles]))
"""
    both = [client(owner, body, "left", "ana@acme"), client(owner, body, "right", "bob@beta")]
    assert [answer(process) for process in both] == [[True] * 5] * 2
    assert owner.ledger.texts("left") == [f"left {i}" for i in range(5)]
    assert owner.ledger.texts("right") == [f"right {i}" for i in range(5)]


def test_further_fields_of_jobs_are_read_by_the_apps_model_where_the_stack_runs(owner: Owner) -> None:
    """A client that has not the app comes to the same jobs, and the same words, as one that has."""
    lines = [
        json.dumps({"request": "r", "tenant": "acme", "principal": "ana", **fields}).encode()
        for fields in (
            {},
            {"actions": [{"tool": "look"}]},
            {"actions": [{"args": {}}]},
            {"actions": 5},
            {"inputs": {"actions": [{"tool": "look"}], "more": 1}},
            {"colour": "red"},
        )
    ]
    body = """
from airside.actors.jobs import parse_lines
jobs = parse_lines([line.encode() for line in json.loads(sys.argv[2])], stack.job_inputs)
print(json.dumps([job.model_dump_json() for job in jobs]))
"""
    there = answer(client(owner, body, json.dumps([line.decode() for line in lines])))
    assert there == [job.model_dump_json() for job in parse_lines(lines, JobInputs)]
    assert "an action names its tool" in there[2] and '"args":{}' in there[1]


def test_what_a_program_submits_is_read_by_the_apps_model_too(owner: Owner) -> None:
    """By every way of submitting: what is wrong is said, and nothing of it is submitted."""
    body = """
import asyncio
from airside.stack.errors import Misuse
who = {"tenant": "acme", "principal": "ana"}
wrong = {"actions": [{"args": {}}]}
before = len(stack.runs(limit=1000))
said = []
for submit_one in (stack.submit, lambda *a, **k: asyncio.run(stack.asubmit(*a, **k))):
    try:
        submit_one("r", inputs=wrong, **who)
    except Misuse as error:
        said.append(error.message)
batch = [airside.Job(request="r", inputs=wrong, **who), {"request": "r", "inputs": {"colour": "red"}, **who}]
said += [result.detail for result in stack.map(batch, progress=False)]
right = stack.submit("r", inputs={"actions": [{"tool": "look", "args": {"topic": "t"}}]}, **who).result(timeout=60)
print(json.dumps([said, right.ok, len(stack.runs(limit=1000)) - before]))
"""
    said, right, runs = answer(client(owner, body))
    assert [text.split(": ", 1)[0] for text in said] == ["job", "job", "jobs[0]", "jobs[1]"]
    assert all("an action names its tool" in text for text in said[:3]) and "colour: unknown field" in said[3]
    assert right and runs == 1


def test_what_a_killed_client_submitted_goes_on_and_another_gets_its_results(owner: Owner) -> None:
    body = """
calls = [[call("note", text=f"orphan {i}-{j}", pace_ms=100) for j in range(3)] for i in range(4)]
ids = [submit(stack, *each, job_id=f"orphan-{i}").run_id for i, each in enumerate(calls)]
paying = submit(stack, call("pay", to="orphan", amount=2)).run_id
print(json.dumps([*ids, paying]), flush=True)
threading.Event().wait(60)
"""
    first = client(owner, body)
    assert first.stdout is not None
    ids = json.loads(first.stdout.readline())
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=BOUND_S)
    body = """
*ids, paying = json.loads(sys.argv[2])
done = [result.ok for result in stack.iter_results((stack.handle(run_id) for run_id in ids), timeout=60, window=2)]
outcome = stack.approve(waiting(stack, paying).approval_id, principal="lea")
paid = stack.handle(paying).result(timeout=60).ok
mine = [run for run in stack.runs(tenant="acme", limit=100) if run.job_id.startswith("orphan-")]
jobs = [[result.job_id, result.status] for result in stack.results(mine, timeout=0)]
seen = list(stack.subscribe(token=stack.token("acme", "max"), timeout=0))
last = submit(stack, call("look", topic="seen")).run_id
news = stack.subscribe(tenant="acme", after=seen[-1].cursor, timeout=60)
come = next(entry.number for entry in news if entry.stream == last and entry.type == "RunEnded")
ended = sum(entry.type == "RunEnded" and entry.stream in ids for entry in seen)
of_others = [entry.tenant for entry in seen if entry.tenant != "acme"]
whole = come > seen[-1].number == len(seen) - 1
print(json.dumps([done, outcome, paid, stack.verify(), jobs, ended, of_others, whole]))
"""
    jobs = [[f"orphan-{i}", "completed"] for i in (3, 2, 1, 0)]
    assert answer(client(owner, body, json.dumps(ids))) == [[True] * 4, "approved", True, [], jobs, 4, [], True]
    assert owner.ledger.texts("orphan ") == sorted(f"orphan {i}-{j}" for i in range(4) for j in range(3))
    assert owner.ledger.amounts("orphan") == [2]


def test_leaving_a_client_leaves_the_stack_running(owner: Owner) -> None:
    body = "print(json.dumps(sorted(name.partition('/')[0] for name in stack.status())))"
    for _ in range(2):
        assert set(answer(client(owner, body))) >= {"driver", "journal", "policy", "approvals", "ingress", "executor"}


def test_a_second_stack_on_a_state_that_is_in_use_is_refused_and_harms_nothing(owner: Owner) -> None:
    second = Owner(owner.state, wait=False)
    out, err = second.process.communicate(timeout=BOUND_S)
    assert second.process.returncode == 2, (out, err)
    assert err.startswith("airside: ") and len(err.splitlines()) == 1
    body = "print(json.dumps(submit(stack, call('look', topic='still')).result(timeout=60).ok))"
    assert answer(client(owner, body)) is True


def test_where_nothing_runs_it_says_so(tmp_path: Path) -> None:
    import airside

    with pytest.raises(Misuse, match="no stack is up"):
        airside.connect(tmp_path)


def test_the_owner_ends_in_good_order_and_leaves_no_process(owner: Owner) -> None:
    body = "print(json.dumps([layer['pid'] for layer in stack.status().values()]))"
    pids = answer(client(owner, body))
    owner.stop()
    assert owner.process.returncode == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the layers to end")
    assert not (owner.state / "stack.json").exists() and isinstance(owner.ledger, Ledger)
