"""The retail example with its own data: as a program, as a batch of the command line, and under the stricter policy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import airside
from airside import Job, ReasonCode
from examples.retail.__main__ import states_ok
from examples.retail.app import OWN_DATA, create_app
from tests.on_ray import BOUND_S, ROOT, airside_cli, alive, call, pids, serving, until

pytestmark = pytest.mark.ray

LINES = [json.loads(text) for text in (OWN_DATA / "jobs.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_program_runs_every_job_to_its_final_state(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.retail", "--state", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * BOUND_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    seconds = figures.pop("seconds")
    assert figures == {
        "jobs": len(LINES),
        "state_ok": len(LINES),
        "calls": sum(len(job["actions"]) for job in LINES),
        "business_errors": sum(len(job["business_errors"]) for job in LINES),
        "audit_ok": True,
        "ungoverned_effects": 0,
    }
    assert 0 < seconds < 2 * BOUND_S


@pytest.mark.slow
def test_the_command_line_runs_the_same_file(tmp_path: Path) -> None:
    work = tmp_path / "work"
    options = ["--app", "examples.retail", "--app-arg", f"work={work}", "--state-dir", str(tmp_path / "state")]
    done = airside_cli("run", str(OWN_DATA / "jobs.jsonl"), "--out", str(tmp_path / "out.parquet"), *options)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["job_id"] for row in rows] == [job["job_id"] for job in LINES]
    answers = [json.loads(row["answer"]) for row in rows]
    assert answers == [{"calls": len(job["actions"]), "failed": job["business_errors"]} for job in LINES]
    assert states_ok(LINES, {row["job_id"]: row["run_id"] for row in rows}, OWN_DATA, work) == len(LINES)


_WITHOUT_RAY = (
    "import runpy, sys; sys.modules['ray'] = None; runpy.run_module('examples.retail.over_http', run_name='__main__')"
)
"""A process in which nothing can import Ray."""


@pytest.mark.slow
def test_a_process_without_ray_runs_the_same_file_over_http(local_ray: None, tmp_path: Path) -> None:
    work, state = tmp_path / "work", tmp_path / "state"
    with airside.start(create_app(work=work), stack="retail-http", state_dir=state, executors=1) as stack:
        people = sorted({(job["tenant"], job["principal"]) for job in LINES})
        tokens = {f"{tenant}/{who}": stack.token(tenant, who) for tenant, who in people}
        (tmp_path / "tokens.json").write_text(json.dumps(tokens))
        with serving(state) as url:
            command = [sys.executable, "-c", _WITHOUT_RAY, url, str(tmp_path / "tokens.json")]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * BOUND_S, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        told = [json.loads(text) for text in done.stdout.splitlines()]
        assert [row["job_id"] for row in told] == [job["job_id"] for job in LINES]
        assert states_ok(LINES, {row["job_id"]: row["run_id"] for row in told}, OWN_DATA, work) == len(LINES)
        assert stack.verify() == []


def address_of(order_id: str) -> dict[str, Any]:
    """Return the call that sends an order elsewhere."""
    place = {"address1": "1 A St", "address2": "", "city": "X", "state": "OR", "country": "USA", "zip": "1"}
    return call("modify_pending_order_address", order_id=order_id, **place)


def test_only_ones_own_orders_and_account_may_be_seen_and_changed(local_ray: None, tmp_path: Path) -> None:
    users = json.loads((OWN_DATA / "users.json").read_text())
    orders = json.loads((OWN_DATA / "orders.json").read_text())
    open_orders = {order["user_id"]: name for name, order in sorted(orders.items()) if order["status"] == "pending"}
    (ann, mine), (bob, theirs) = list(open_orders.items())[:2]
    app = create_app(work=tmp_path / "work", policy="own-orders")
    stack = airside.start(app, stack="retail", state_dir=tmp_path / "state", executors=1)
    try:
        jobs = [
            Job(request="r", tenant="store-0", principal=ann, inputs={"actions": [action]})
            for action in (
                address_of(mine),
                call("get_order_details", order_id=mine),
                call("get_user_details", user_id=ann),
                call("list_all_product_types"),
                address_of(theirs),
                call("get_order_details", order_id=theirs),
                call("get_user_details", user_id=bob),
                call("get_order_details", order_id="#W0"),
            )
        ]
        first = stack.map(
            jobs[3:4], progress=False, timeout=BOUND_S
        )  # the layers are up: their start is in nobody's time
        assert first[0].ok
        *own, change, look, account, nothing = stack.map(jobs, progress=False, timeout=BOUND_S)
        told, refused = own[1].story(), look.story()
        counts = stack.status()["policy"]["resources"]
        seen = pids(stack)
    finally:
        stack.shutdown()
    assert mine in users[ann]["orders"] and [each.answer for each in own] == [{"calls": 1, "failed": []}] * 4
    assert {each.reason_code for each in (change, look, account)} == {ReasonCode.POLICY_DENIED}
    assert nothing.reason_code is ReasonCode.RESOURCE_UNKNOWN
    assert f"about order {mine!r} of {ann!r}" in told and f"about order {theirs!r} of {bob!r}" in refused
    assert counts["asked"] >= 7 and counts["late"] == counts["failed"] == 0
    until(lambda: not any(map(alive, seen)), "the stack to end")
