"""What is killed ends, whatever it does and in whatever state it is met, and no process of a tool is left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import airside
from airside import ReasonCode, RunHandle, RunStatus
from airside.actors.client.client import Stack
from airside.stack.errors import AirsideError, Misuse
from tests.apps.killing import create_app
from tests.on_ray import BOUND_S, alive, events_of, sigkill, until

pytestmark = pytest.mark.ray

CALLS = 20


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of the app."""
    folder = tmp_path_factory.mktemp("killing")
    with airside.start(create_app(folder), stack="killing", state_dir=folder, executors=1, stall_s=1) as started:
        yield started
        started.shutdown()


def submit(stack: Stack, route: str, *, tenant: str = "acme", tool: str = "", place: Path | str = "") -> RunHandle:
    """Submit a run."""
    inputs = {"tool": tool, "place": str(place)}
    return stack.submit("do it", tenant=tenant, principal="ana", route=route, inputs=inputs)


def processes(place: Path) -> list[int]:
    """Return the processes that left their number."""
    return [int(path.name.rpartition("-")[2]) for path in place.iterdir()]


def innermost(place: Path) -> list[Path]:
    """Return what the process that left everything behind wrote, one a call."""
    return [*place.glob("daemon-*"), *place.glob("disguised-*")]


def calling(stack: Stack, place: Path, calls: int, *, tenant: str = "acme") -> list[RunHandle]:
    """Start runs each of which calls a tool that does not end; return them when all calls are at work."""
    tools = ["daemon", "disguised"]
    handles = [submit(stack, "caller", tenant=tenant, tool=tools[i % 2], place=place) for i in range(calls)]
    until(lambda: len(innermost(place)) == calls, "the calls to begin")
    return handles


@pytest.mark.parametrize("route", ["stubborn", "disarming"])
def test_an_agent_that_resists_is_ended_by_its_deadline_and_by_an_order(stack: Stack, route: str) -> None:
    assert submit(stack, route).result(timeout=BOUND_S).reason_code is ReasonCode.KILLED_RUNAWAY
    guilty = submit(stack, route)
    until(lambda: events_of(stack, guilty.run_id, "RunActivated"), "it to be placed")
    stack.kill(run=guilty.run_id, why="by hand")
    assert guilty.result(timeout=BOUND_S).status is RunStatus.KILLED


def test_no_process_of_a_tool_outlives_the_executor(stack: Stack, tmp_path: Path) -> None:
    handles = calling(stack, tmp_path, CALLS)
    sigkill(stack, "executor")
    began = time.monotonic()
    until(lambda: not any(map(alive, processes(tmp_path))), "their processes to end")
    assert time.monotonic() - began < 2
    results = [handle.result(timeout=BOUND_S) for handle in handles]
    assert {result.reason_code for result in results} == {ReasonCode.TOOL_IN_DOUBT}
    assert len(innermost(tmp_path)) == CALLS  # none was sent again


@pytest.mark.parametrize(("route", "layer"), [("caller", "executor"), ("leaver", "runtime")])
def test_a_program_that_a_tool_or_an_agent_left_running_ends_with_its_process(
    stack: Stack, tmp_path: Path, route: str, layer: str
) -> None:
    assert submit(stack, route, tool="leave", place=tmp_path).result(timeout=BOUND_S).ok
    (left,) = until(lambda: processes(tmp_path), "it to begin")
    assert alive(left)
    sigkill(stack, layer)
    until(lambda: not alive(left), "it to end")


def test_an_executor_that_has_only_begun_leaves_no_program_either(stack: Stack, tmp_path: Path) -> None:
    for number in range(5):
        place = tmp_path / str(number)
        place.mkdir()
        sigkill(stack, "executor")
        assert submit(stack, "caller", tool="leave", place=place).result(timeout=BOUND_S).ok
        (left,) = until(lambda place=place: processes(place), "it to begin")  # type: ignore[misc]
        sigkill(stack, "executor")
        until(lambda left=left: not alive(left), "it to end", 10)  # type: ignore[misc]


def test_a_program_that_was_left_running_ends_with_the_stack(local_ray: None, tmp_path: Path) -> None:
    state, place = tmp_path / "state", tmp_path / "place"
    place.mkdir()
    with airside.start(create_app(tmp_path), stack="leaving", state_dir=state, executors=1) as stack:
        assert submit(stack, "caller", tool="leave", place=place).result(timeout=BOUND_S).ok
        (left,) = until(lambda: processes(place), "it to begin")
        stack.shutdown()
    assert not alive(left)


def test_a_kill_after_the_drivers_death_leaves_no_process(stack: Stack, tmp_path: Path) -> None:
    handles = calling(stack, tmp_path, 2)
    sigkill(stack, "driver")
    assert stack.kill(tenant="acme", why="after a restart") == 2
    assert not any(map(alive, processes(tmp_path)))
    assert all(handle.result(timeout=BOUND_S).status is RunStatus.KILLED for handle in handles)


def test_a_kill_that_is_ordered_by_several_at_once_is_one(stack: Stack, tmp_path: Path) -> None:
    (handle,) = calling(stack, tmp_path, 1)

    def order(number: int) -> str:
        try:
            stack.kill(run=handle.run_id, why=f"order {number}")
        except AirsideError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as orders:
        said = list(orders.map(order, range(4)))
    assert "" in said and all("no live run" in text for text in said if text), said
    assert not any(map(alive, processes(tmp_path)))
    assert events_of(stack, handle.run_id, "RunEnded") == 1 and stack.verify() == []
    with pytest.raises(Misuse, match="no live run"):
        stack.kill(run=handle.run_id)


def test_a_run_that_waits_in_the_queue_is_killed_there(stack: Stack, tmp_path: Path) -> None:
    (first,) = calling(stack, tmp_path, 1, tenant="narrow")
    queued = submit(stack, "caller", tenant="narrow", tool="daemon", place=tmp_path)
    assert stack.kill(run=queued.run_id) == 1
    assert queued.result(timeout=BOUND_S).status is RunStatus.KILLED
    assert stack.kill(run=first.run_id) == 1 and not any(map(alive, processes(tmp_path)))
    (after,) = calling(stack, _fresh(tmp_path), 1, tenant="narrow")  # the place is free
    assert stack.kill(run=after.run_id) == 1


def test_runs_that_are_killed_while_they_are_placed_all_end_and_leave_no_process(stack: Stack, tmp_path: Path) -> None:
    handles = [submit(stack, "caller", tool="daemon", place=tmp_path) for _ in range(CALLS)]
    stack.kill(tenant="acme", why="at once")
    results = [handle.result(timeout=BOUND_S) for handle in handles]
    assert {result.status for result in results} == {RunStatus.KILLED}
    assert not any(map(alive, processes(tmp_path))) and stack.verify() == []


def _fresh(place: Path) -> Path:
    made = place / "fresh"
    made.mkdir()
    for path in place.glob("*-*"):
        path.unlink()
    return made
