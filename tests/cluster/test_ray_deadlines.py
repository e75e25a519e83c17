"""A tenant's deadline and that of all end whatever is late, wherever it is, and outlive the driver."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import airside
from airside import ReasonCode, RunHandle, RunResult, RunStatus
from airside.actors.client.client import Stack
from airside.stack.directory import Directory, Tenant
from tests.apps.notes import PEOPLE, create_app
from tests.on_ray import BOUND_S, alive, call, events_of, ledger_of, parked, pids, sigkill, submit, until, waiting

pytestmark = pytest.mark.ray

SHORT_S, ALL_S = 2, 7
LIMITS = {"doubt_wait_s": 60, "max_seconds": 120}
TENANTS = {
    "acme": Tenant(principals=PEOPLE, limits=LIMITS, deadline_s=SHORT_S),
    "beta": Tenant(principals=PEOPLE, limits=LIMITS, deadline_s=3600),
    "one": Tenant(principals=PEOPLE, limits=LIMITS, deadline_s=SHORT_S, concurrency=1),
}


@contextlib.contextmanager
def limited(folder: Path, name: str, **options: Any) -> Iterator[Stack]:
    """Start a stack whose tenants have deadlines."""
    app = dataclasses.replace(create_app(folder), directory=Directory(tenants=TENANTS, deadline_s=ALL_S))
    with airside.start(app, stack=name, state_dir=folder, executors=1, **options) as started:
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that finds no held loop within any of the tests, so that only a deadline ends what holds one."""
    with limited(tmp_path_factory.mktemp("deadlines"), "deadlines", stall_s=60) as started:
        yield started


def is_late(result: RunResult, whose: str) -> bool:
    """Whether a run was ended by the deadline of `whose`, and says so."""
    assert (result.status, result.reason_code) == (RunStatus.STOPPED, ReasonCode.DEADLINE_EXCEEDED), result
    return f"the deadline of {whose} s from the admission" in result.detail


def warm(stack: Stack, who: str = "ana@acme") -> None:
    """Have a tenant's runtime up, which may take longer to start than its runs may take in all."""
    until(lambda: submit(stack, call("look", topic="t"), who=who).result(timeout=BOUND_S).ok, "a run in time")


def took_s(stack: Stack, handle: RunHandle) -> float:
    """Return the seconds from a run's admission to its end, as journaled."""
    sql = "SELECT (ended_us - submitted_us) / 1e6 AS s FROM outcomes JOIN runs USING (run_id) WHERE run_id = ?"
    return float(stack.query(sql, [handle.run_id]).to_pylist()[0]["s"])


@pytest.mark.parametrize("route", ["sleeper", "spinner"])
def test_an_agent_that_never_decides_is_ended_also_where_it_holds_its_process(stack: Stack, route: str) -> None:
    handle = submit(stack, route=route)
    assert is_late(handle.result(timeout=BOUND_S), f"tenant acme, {SHORT_S}")
    assert took_s(stack, handle) >= SHORT_S and stack.verify() == []


def test_a_run_whose_process_stands_still_is_ended(local_ray: None, tmp_path: Path) -> None:
    with limited(tmp_path, "still") as stack:
        warm(stack)
        handle = submit(stack, route="sleeper")
        runtimes = until(lambda: pids(stack, "runtime"), "its runtime")
        until(lambda: events_of(stack, handle.run_id, "RoutePlanned"), "its agent to be asked")
        for pid in runtimes:
            os.kill(pid, signal.SIGSTOP)
        assert is_late(handle.result(timeout=BOUND_S), f"tenant acme, {SHORT_S}")
        until(lambda: not any(map(alive, runtimes)), "the process to be gone")


def test_a_tool_that_never_answers_is_ended_and_its_call_is_in_doubt(stack: Stack) -> None:
    warm(stack)
    handle = submit(stack, call("wire", to="late", amount=1, hang=True))
    result = handle.result(timeout=BOUND_S)
    assert is_late(result, f"tenant acme, {SHORT_S}") and result.in_doubt == (f"{handle.run_id}:1",)
    assert ledger_of(stack).amounts("late") == [1]


def test_branches_end_with_their_run(stack: Stack) -> None:
    warm(stack)
    actions = [call("wire", to="late branch", amount=1, hang=True)]
    handle = submit(stack, route="plain_fan", inputs={"actions": actions})
    until(lambda: ledger_of(stack).amounts("late branch"), "the branch's call")
    assert is_late(handle.result(timeout=BOUND_S), f"tenant acme, {SHORT_S}")
    sql = "SELECT run_id FROM runs WHERE parent = ? AND run_id NOT IN (SELECT run_id FROM outcomes)"
    until(lambda: stack.query(sql, [handle.run_id]).num_rows == 0, "the branches' ends")


def test_what_waits_in_the_queue_is_ended_without_having_begun(stack: Stack) -> None:
    handles = [submit(stack, route="sleeper", who="ana@one") for _ in range(20)]
    results = stack.results(handles, timeout=BOUND_S)
    assert all(is_late(result, f"tenant one, {SHORT_S}") for result in results)
    sql = "SELECT DISTINCT tenant, stream FROM events WHERE type = 'RoutePlanned' AND tenant = 'one'"
    assert stack.query(sql).num_rows < len(handles) and stack.verify() == []


def test_a_run_that_waits_for_people_is_ended_by_the_deadline_of_all_though_the_driver_died(stack: Stack) -> None:
    warm(stack, "ana@beta")
    begun_s = time.time()
    handle = submit(stack, call("pay", to="too late", amount=1), who="ana@beta")
    approval = waiting(stack, handle.run_id)
    parked(stack, handle.run_id)
    until(lambda: time.time() > begun_s + ALL_S / 2, "half of its time, by which one that began anew would be late")
    killed_s = time.time()
    sigkill(stack, "driver")
    assert is_late(handle.result(timeout=BOUND_S), f"all tenants, {ALL_S}")
    sql = "SELECT ended_us / 1e6 AS s FROM outcomes WHERE run_id = ?"
    ended_s = stack.query(sql, [handle.run_id]).to_pylist()[0]["s"]
    assert took_s(stack, handle) >= ALL_S and ended_s < killed_s + ALL_S, "the restart began it anew"
    until(lambda: approval not in stack.approvals(), "the approval to be off the list")
    assert ledger_of(stack).amounts("too late") == []


def test_a_run_in_time_is_left_alone(stack: Stack) -> None:
    assert submit(stack, call("note", text="in time")).result(timeout=BOUND_S).ok
