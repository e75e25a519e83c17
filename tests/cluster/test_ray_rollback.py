"""What a run did is taken back latest first, each call once, whoever dies meanwhile; and nothing else is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ray

import airside
from airside import RunHandle, RunStatus
from airside.actors.client.client import Stack
from airside.actors.rpc.layer import now_us
from airside.actors.rpc.methods import INCARNATION, ORDER, ROLL_BACK, UNDO
from airside.actors.rpc.names import NAMESPACE
from airside.stack.errors import Misuse
from airside.stack.ids import ExecutorId, RunId
from airside.stack.operations.messages import ORDER_PURPOSE, Order
from airside.stack.recovery.rollback import RollbackReport
from airside.stack.recovery.undo_gate import UndoRequest
from airside.stack.security.seals import wrap
from tests.apps.shelf import Shelf, create_app
from tests.on_ray import AIRSIDE, BOUND_S, ROOT, airside_cli, call, events_of, sigkill, submit, told, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of the shelf app, with two executors."""
    folder = tmp_path_factory.mktemp("shelf")
    with airside.start(create_app(folder), stack="shelf", state_dir=folder) as started:
        yield started
        started.shutdown()


@pytest.fixture
def shelf(stack: Stack) -> Iterator[Shelf]:
    """What the tools did; the shelf's log is of this test alone."""
    made = Shelf(stack.state_dir)
    made.clear()
    yield made
    until(lambda: not any("down" in layer for layer in stack.status().values()), "every layer to be up")
    assert stack.verify() == []


def done(stack: Stack, *actions: dict[str, Any], **fields: Any) -> RunHandle:
    """Run these calls to the end."""
    handle = submit(stack, *actions, **fields)
    handle.result(timeout=BOUND_S)
    return handle


def outcomes(report: RollbackReport) -> list[tuple[str, str]]:
    """Return how each step stands."""
    return [(line.key.partition(".")[2] or line.key.rpartition(":")[2], line.outcome) for line in report.calls]


def entries(stack: Stack, handle: RunHandle, kind: str) -> int:
    """Return how many entries of a kind a run's rollback has."""
    return events_of(stack, f"rollback/{handle.run_id}", kind)


def later(stack: Stack, handle: RunHandle) -> Future[RollbackReport]:
    """Order a rollback in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(stack.rollback, handle.run_id)
    pool.shutdown(wait=False)
    return future


def test_what_a_run_did_is_undone_latest_first_each_once_and_a_repeat_does_nothing(stack: Stack, shelf: Shelf) -> None:
    names = [f"book {i}" for i in range(4)]
    handle = done(stack, *(call("put", title=name) for name in names), call("look", topic="x"))
    assert shelf.names() == names
    report = stack.rollback(handle.run_id, why="wrong shelf")
    told = stack.story(handle.run_id)
    assert "rollback ordered by operator-" in told and "wrong shelf" in told and "undone" in told
    assert report.is_complete and outcomes(report) == [(str(step), "undone") for step in (4, 3, 2, 1)]
    assert shelf.names() == [] and shelf.log("unput") == names[::-1] and shelf.log("put") == names
    assert [key for tool, _, key in shelf.ledger.rows() if tool == "unput"] == [
        f"{handle.run_id}:{step}/undo" for step in (4, 3, 2, 1)
    ]
    before = {kind: entries(stack, handle, kind) for kind in ("UndoIntended", "UndoEnded")}
    assert before == {"UndoIntended": 4, "UndoEnded": 4}
    assert stack.rollback(handle.run_id) == report
    assert shelf.log("unput") == names[::-1] and entries(stack, handle, "RollbackOrdered") == 2
    assert before == {kind: entries(stack, handle, kind) for kind in before}
    assert handle.result(timeout=BOUND_S).ok, "the run ended as it ended"
    ordered = stack.query("SELECT body FROM events WHERE type = 'RollbackOrdered' ORDER BY number").to_pylist()[0]
    assert json.loads(ordered["body"])["why"] == "wrong shelf" and json.loads(ordered["body"])["by"]
    tenants = stack.query("SELECT DISTINCT tenant FROM events WHERE starts_with(stream, 'rollback/')").to_pylist()
    assert tenants == [{"tenant": "acme"}]


def test_branches_are_undone_with_their_run_in_the_reverse_order_of_all(stack: Stack, shelf: Shelf) -> None:
    handle = done(stack, route="fan")
    sql = (
        "SELECT stream, step FROM events WHERE type = 'ToolExecuted' AND starts_with(stream, ?) "
        "ORDER BY CAST(json_extract(body, '$.at_us') AS BIGINT)"
    )
    order = [f"{row['stream']}:{row['step']}" for row in stack.query(sql, [handle.run_id]).to_pylist()]
    assert len(order) == 5 and shelf.names() == ["last", "one-0", "one-1", "two-0", "two-1"]
    report = stack.rollback(handle.run_id)
    assert report.is_complete and [line.key for line in report.calls] == order[::-1]
    undone = shelf.log("unput")
    assert undone[0] == "last" and shelf.names() == [] and len(undone) == 5
    for name in ("one", "two"):
        assert undone.index(f"{name}-1") < undone.index(f"{name}-0")
    with pytest.raises(Misuse, match=f"is a branch: roll the whole run {handle.run_id} back"):
        stack.rollback(report.calls[-1].run_id)


def test_what_has_no_undo_or_changed_nothing_is_passed_over(stack: Stack, shelf: Shelf) -> None:
    handle = done(
        stack, call("put", title="a"), call("stamp", text="b"), call("refuse", title="c"), call("put", title="d")
    )
    report = stack.rollback(handle.run_id)
    assert outcomes(report) == [("4", "undone"), ("2", "nothing"), ("1", "undone")] and report.is_complete
    assert "no undo" in report.calls[1].detail and shelf.log("unput") == ["d", "a"]
    assert stack.rollback(handle.run_id) == report and entries(stack, handle, "UndoEnded") == 3


@pytest.mark.parametrize(("how", "outcome"), [("fail", "failed"), ("break", "in_doubt")])
def test_the_first_that_is_not_undone_ends_it_and_says_what_is_left(
    stack: Stack, shelf: Shelf, how: str, outcome: str
) -> None:
    handle = done(stack, *(call("put", title=f"{how} {i}") for i in range(3)))
    obstacle = shelf.obstruct(how, f"{how} 1")
    for _ in range(2):
        report = stack.rollback(handle.run_id)
        assert outcomes(report) == [("3", "undone"), ("2", outcome), ("1", "left")] and not report.is_complete
        assert shelf.names() == [f"{how} 0", f"{how} 1"]
    assert ("is held" if how == "fail" else "the shelf fell") in report.calls[1].detail
    obstacle.unlink()
    if how == "break":
        (doubt,) = stack.in_doubt()
        assert doubt.undo and doubt.key == f"{handle.run_id}:2/undo" and doubt.arguments["title"] == f"{how} 1"
        assert stack.resolve(handle.run_id, happened=False, why="it is still there") == 1
        assert stack.in_doubt() == []
    assert stack.rollback(handle.run_id).is_complete
    assert shelf.log("unput") == [f"{how} 2", f"{how} 1", f"{how} 0"] and shelf.names() == []
    assert len({key for tool, text, key in shelf.ledger.rows() if text == f"{how} 1" and tool == "unput"}) == 1


@pytest.mark.parametrize("happened", [True, False])
def test_an_undo_whose_executor_dies_in_the_middle_is_in_doubt_until_somebody_says(
    stack: Stack, shelf: Shelf, happened: bool
) -> None:
    name = f"mid {happened}"
    handle = done(stack, call("put", title=f"before {name}"), call("put", title=name))
    obstacle = shelf.obstruct("hang", name)
    rollback = later(stack, handle)
    until(lambda: shelf.log("unput"), "the undo's effect")
    sigkill(stack, "executor")
    assert outcomes(rollback.result(BOUND_S)) == [("2", "in_doubt"), ("1", "left")]
    obstacle.unlink()
    report = stack.rollback(handle.run_id)
    assert outcomes(report) == [("2", "in_doubt"), ("1", "left")] and "resolve it first" in report.calls[0].detail
    assert shelf.log("unput") == [name], "it is not sent again"
    (doubt,) = stack.in_doubt("acme")
    assert (doubt.run_id, doubt.tool, doubt.undo, doubt.until_us) == (handle.run_id, "put", True, 0)
    assert stack.resolve(doubt.key, happened=happened) == 1 and stack.in_doubt() == []
    with pytest.raises(Misuse, match="what is on record stays"):
        stack.resolve(doubt.key, happened=not happened)
    assert stack.rollback(handle.run_id).is_complete
    assert shelf.log("unput") == [name] * (1 if happened else 2) + [f"before {name}"]


def test_an_undo_that_may_be_sent_twice_is_and_has_its_effect_once(stack: Stack, shelf: Shelf) -> None:
    handle = done(stack, call("note", text="twice"))
    obstacle = shelf.obstruct("hang", "twice")
    rollback = later(stack, handle)
    until(lambda: shelf.log("unnote"), "the undo's effect")
    obstacle.unlink()
    sigkill(stack, "executor")
    assert outcomes(rollback.result(BOUND_S)) == [("1", "undone")]
    assert shelf.log("unnote") == ["twice"] and entries(stack, handle, "UndoIntended") == 2


def test_a_rollback_whose_driver_dies_goes_on_and_does_nothing_twice(stack: Stack, shelf: Shelf) -> None:
    handle = done(stack, *(call("put", title=f"driver {i}") for i in range(3)))
    obstacle = shelf.obstruct("hang", "driver 1")
    rollback = later(stack, handle)
    until(lambda: len(shelf.log("unput")) == 2, "the second undo's effect")
    sigkill(stack, "driver")
    assert outcomes(rollback.result(BOUND_S)) == [("3", "undone"), ("2", "in_doubt"), ("1", "left")]
    obstacle.unlink()
    assert stack.resolve(handle.run_id, happened=True) == 1
    assert stack.rollback(handle.run_id).is_complete
    assert shelf.log("unput") == ["driver 2", "driver 1", "driver 0"]


@pytest.mark.parametrize("layer", ["policy", "journal", ""])
def test_a_rollback_is_ordered_after_this_died(stack: Stack, shelf: Shelf, layer: str) -> None:
    handle = done(stack, call("put", title=f"after {layer}"), call("note", text="n"))
    sigkill(stack, layer)
    assert stack.rollback(handle.run_id).is_complete
    assert shelf.log("unput") == [f"after {layer}"] and shelf.log("unnote") == ["n"]


def test_two_who_order_it_at_once_undo_each_call_once(stack: Stack, shelf: Shelf) -> None:
    handle = done(stack, *(call("put", title=f"both {i}") for i in range(5)))
    reports = [future.result(BOUND_S) for future in [later(stack, handle) for _ in range(4)]]
    assert all(report.is_complete for report in reports)
    assert shelf.log("unput") == [f"both {i}" for i in (4, 3, 2, 1, 0)]


def test_a_tool_that_is_switched_off_undoes_nothing_until_it_is_on(stack: Stack, shelf: Shelf) -> None:
    handle = done(stack, call("put", title="switched"))
    stack.switch_off(tool="put", why="it misbehaves")
    report = stack.rollback(handle.run_id)
    assert outcomes(report) == [("1", "failed")] and "it misbehaves" in report.calls[0].detail
    assert shelf.log("unput") == []
    stack.switch_on(tool="put")
    assert stack.rollback(handle.run_id).is_complete and shelf.log("unput") == ["switched"]


@pytest.mark.parametrize("happened", [True, False])
def test_a_call_in_doubt_holds_the_rollback_until_somebody_says(stack: Stack, shelf: Shelf, happened: bool) -> None:
    name = f"doubted {happened}"
    handle = submit(
        stack, call("put", title=f"sure {name}"), call("put", title=name, hang=True), limits={"tool_ms": 200}
    )
    assert handle.result(timeout=BOUND_S).status is RunStatus.IN_DOUBT
    report = stack.rollback(handle.run_id)
    assert outcomes(report) == [("2", "in_doubt"), ("1", "left")] and "resolve it first" in report.calls[0].detail
    assert shelf.log("unput") == []
    found = {"put": name, "under": f"{handle.run_id}:2"}
    assert stack.resolve(handle.run_id, happened=happened, output=found) == 1
    report = stack.rollback(handle.run_id)
    assert report.is_complete and len(report.calls) == 1 + happened
    assert shelf.log("unput") == [name] * happened + [f"sure {name}"]


def test_a_run_that_has_not_ended_is_killed_first(stack: Stack, shelf: Shelf) -> None:
    handle = submit(stack, call("put", title="alive"), call("put", title="at work", hang=True))
    until(lambda: "at work" in shelf.log("put"), "it to be at work")
    with pytest.raises(Misuse, match="kill it first"):
        stack.rollback(handle.run_id)
    stack.kill(run=handle.run_id)
    handle.result(timeout=BOUND_S)
    assert outcomes(stack.rollback(handle.run_id)) == [("2", "in_doubt"), ("1", "left")]
    stack.resolve(handle.run_id, happened=True, output={"put": "at work", "under": f"{handle.run_id}:2"})
    assert stack.rollback(handle.run_id).is_complete and shelf.names() == []
    for run, said in (("run_" + "0" * 24, "has no run"), ("r1", "not a run id")):
        with pytest.raises(Misuse, match=said):
            stack.rollback(run)


def actor(stack: Stack, layer: str) -> Any:
    """Return a layer's handle, as any code on the cluster can."""
    return ray.get_actor(stack.cell.actor_name(layer), NAMESPACE)


def order(run_id: str, *, action: Any = "rollback", age_us: int = 0, key: bytes) -> bytes:
    """Return a sealed order."""
    given = Order(action=action, scope="run", target=run_id, by="op", why="", at_us=now_us() - age_us)
    return wrap(key, ORDER_PURPOSE, msgspec.msgpack.encode(given))


def test_nothing_is_undone_without_an_order_and_an_intent_on_record(stack: Stack, shelf: Shelf) -> None:
    handle = done(stack, call("put", title="kept"))
    key = (stack.state_dir / "keys" / "seal.key").read_bytes()
    for sealed, said in (
        (order(handle.run_id, key=b"k" * 32), "seal does not hold"),
        (order(handle.run_id, key=key, age_us=61_000_000), "too old"),
        (order(handle.run_id, key=key, action="kill"), "no order to roll back"),
    ):
        report, problem = told(stack, "driver", ROLL_BACK, sealed)
        assert report == b"" and said in problem
    assert told(stack, "driver", ORDER, order(handle.run_id, key=key))[0] == 0

    executor = ExecutorId(told(stack, "executor/0", INCARNATION, None))
    for sealed, step, said in (
        (order(handle.run_id, key=b"k" * 32), 1, "seal does not hold"),
        (order("run_" + "0" * 24, key=key), 1, "not to roll"),
        (order(handle.run_id, key=key), 2, "does not say that"),
        (order(handle.run_id, key=key), 1, "on record as intended"),
    ):
        request = UndoRequest(order=sealed, run_id=RunId(handle.run_id), step=step, executor=executor)
        reply = told(stack, "policy", UNDO, request)
        assert reply.grant == b"" and said in reply.error
    assert shelf.log("unput") == [] and shelf.names() == ["kept"]
    assert stack.rollback(handle.run_id).is_complete


@pytest.mark.slow
def test_the_command_line_rolls_back(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    actions = [call("put", title="cli"), call("stamp", text="cli")]
    job = {"job_id": "cli", "request": "r", "tenant": "acme", "principal": "ana", "inputs": {"actions": actions}}
    jobs.write_text(json.dumps(job), encoding="utf-8")
    app = ["--app", "tests.apps.shelf", "--app-arg", f"work={tmp_path}"]
    here = ["--state-dir", str(tmp_path)]
    owner = subprocess.Popen([str(AIRSIDE), "up", *app, *here], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None and owner.stdout.readline().startswith("up; ")
        ran = airside_cli("run", str(jobs), "--out", str(tmp_path / "out.parquet"), *here)
        assert ran.returncode == 0, ran.stderr
        rows = airside_cli("audit", "query", "SELECT run_id FROM runs", *here)
        run_id = json.loads(rows.stdout)["run_id"]
        blocked = Shelf(tmp_path).obstruct("fail", "cli")
        failed = airside_cli("rollback", run_id, "--why", "by hand", *here)
        lines = [json.loads(line) for line in failed.stdout.splitlines()]
        assert failed.returncode == 1 and [line["outcome"] for line in lines] == ["nothing", "failed"]
        blocked.unlink()
        undone = airside_cli("rollback", run_id, *here)
        assert undone.returncode == 0 and json.loads(undone.stdout.splitlines()[1])["outcome"] == "undone"
        assert Shelf(tmp_path).names() == []
        assert airside_cli("rollback", "run_" + "0" * 24, *here).returncode == 2
    finally:
        owner.terminate()
        owner.communicate(timeout=BOUND_S)
