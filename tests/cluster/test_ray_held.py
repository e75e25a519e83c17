"""An agent that holds its runtime's loop is ended and named, in whatever way it does, and its neighbours finish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray

import airside
from airside import ReasonCode, RunHandle, RunStatus
from airside.actors.client.client import Stack
from airside.actors.rpc.names import NAMESPACE
from airside.tools.runners import tool_loops
from tests.apps.held import create_app
from tests.on_ray import BOUND_S, alive, events_of, ledger_of, pids, sigkill, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of the app."""
    folder = tmp_path_factory.mktemp("held")
    with airside.start(
        create_app(folder), stack="held", state_dir=folder, executors=1, stall_s=1, idle_runtime_s=2
    ) as started:
        yield started
        started.shutdown()


def submit(stack: Stack, route: str, text: str = "do it") -> RunHandle:
    """Submit a run."""
    return stack.submit(text, tenant="acme", principal="ana", route=route)


@pytest.mark.parametrize(("route", "place"), [("spin", "in spin"), ("backtrack", "in backtrack"), ("spin_later", "in")])
def test_a_run_that_holds_the_loop_is_named_with_its_line_and_its_neighbours_finish(
    stack: Stack, route: str, place: str
) -> None:
    neighbours = [submit(stack, "worker", f"beside {route} {i}") for i in range(4)]
    guilty = submit(stack, route)
    result = guilty.result(timeout=BOUND_S)
    assert (result.status, result.reason_code) == (RunStatus.KILLED, ReasonCode.KILLED_RUNAWAY)
    assert "tests/apps/held.py:" in result.detail and place in result.detail
    assert all(neighbour.result(timeout=BOUND_S).ok for neighbour in neighbours)
    assert len(ledger_of(stack).texts(f"beside {route}")) == 20
    # One activation worked; the driver ended it under another.
    assert events_of(stack, guilty.run_id, "RunActivated") == 2 and stack.verify() == []


def test_a_run_that_sleeps_in_the_loop_is_named_too(stack: Stack) -> None:
    result = submit(stack, "doze").result(timeout=BOUND_S)
    assert result.reason_code is ReasonCode.KILLED_RUNAWAY and "threading.py" in result.detail


def test_nobody_is_blamed_for_a_thread_that_somebody_else_left_in_the_way(stack: Stack) -> None:
    neighbours = [submit(stack, "worker", f"beside a thread {i}") for i in range(2)]
    guilty = submit(stack, "lock_from_a_thread")
    assert guilty.result(timeout=2 * BOUND_S).reason_code is ReasonCode.KILLED_RUNAWAY
    assert all(neighbour.result(timeout=BOUND_S).ok for neighbour in neighbours)


def test_a_tool_that_holds_its_event_loop_is_named_and_takes_nobody_along(stack: Stack) -> None:
    executors = pids(stack, "executor")
    guilty = submit(stack, "holder")
    until(lambda: events_of(stack, guilty.run_id, "ActionGated"), "its call")
    others = [stack.submit(f"beside a tool {i}", tenant="globex", principal="ana", route="worker") for i in range(3)]
    assert all(other.result(timeout=BOUND_S).ok for other in others)
    assert len(ledger_of(stack).texts("beside a tool")) == 15
    result = guilty.result(timeout=BOUND_S)
    (doubt,) = stack.in_doubt("acme")
    for told in (result.detail, doubt.cause):
        assert "hold held its event loop at" in told and "tests/apps/held.py:" in told and "in hold" in told
    assert result.reason_code is ReasonCode.TOOL_IN_DOUBT
    assert events_of(stack, guilty.run_id, "ActionGated") == 1 and pids(stack, "executor") == executors


def test_an_executor_whose_loops_are_all_held_is_replaced_and_everybodys_coroutines_go_on(stack: Stack) -> None:
    executor = ray.get_actor(stack.cell.actor_name("executor", "0"), NAMESPACE)
    held = pids(stack, "executor")
    # One more than tools hold already: what was held before in this process never comes back.
    bound = ray.get(executor.stats.remote())["held_loops"] + 1
    ray.get(executor.__ray_call__.remote(lambda self: setattr(tool_loops, "MAX_LOOPS", bound)))
    guilty = submit(stack, "holder")
    until(lambda: (now := pids(stack, "executor")) and now != held, "another executor in its place")
    other = stack.submit("beside the new one", tenant="globex", principal="ana", route="worker")
    assert other.result(timeout=BOUND_S).ok
    assert guilty.result(timeout=BOUND_S).reason_code is ReasonCode.TOOL_IN_DOUBT and stack.verify() == []


def test_an_operators_kill_reaches_a_run_that_holds_its_loop(stack: Stack) -> None:
    guilty = submit(stack, "spin")
    until(lambda: events_of(stack, guilty.run_id, "RunActivated"), "it to be placed")
    assert stack.kill(run=guilty.run_id, why="by hand") == 1
    assert guilty.result(timeout=BOUND_S).status is RunStatus.KILLED


def test_a_held_runtime_does_not_outlive_the_driver_that_watched_it(stack: Stack) -> None:
    before = set(pids(stack, "runtime"))
    guilty = submit(stack, "spin")
    # Its process is there before it is placed, and may be gone a second later.
    runtimes: set[Any] = until(lambda: set(pids(stack, "runtime")) - before, "its runtime")
    until(lambda: events_of(stack, guilty.run_id, "RunActivated"), "it to be placed")
    sigkill(stack, "driver")
    assert guilty.result(timeout=2 * BOUND_S).reason_code is ReasonCode.KILLED_RUNAWAY
    until(lambda: not any(map(alive, runtimes)), "the held runtime to be gone")
