"""Any process may die at any moment: nothing is lost, nothing is done twice, and the journal stays whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from airside import ReasonCode, RunHandle, RunStatus
from airside.actors.client.client import Stack
from airside.stack.errors import LayerUnavailable, Refused
from tests.on_ray import (
    BOUND_S,
    a_stack,
    call,
    events_of,
    in_doubt,
    ledger_of,
    parked,
    pids,
    sigkill,
    submit,
    until,
    waiting,
)

pytestmark = pytest.mark.ray

RUNS = 30


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose processes the tests kill."""
    with a_stack(tmp_path_factory.mktemp("recovery"), "recovery", executors=1) as started:
        yield started


def start_batch(stack: Stack, name: str, runs: int = RUNS) -> tuple[list[RunHandle], list[str]]:
    """Submit runs that write slowly, three notes each; return them and what they will have written."""
    texts = [[f"{name} {i:02}-{j}" for j in range(3)] for i in range(runs)]
    handles = [submit(stack, *(call("note", text=t, pace_ms=60) for t in three)) for three in texts]
    return handles, sorted(text for three in texts for text in three)


def half_done(stack: Stack, handles: list[RunHandle]) -> None:
    """Wait until some of the runs have ended; fail if none is left to be disturbed."""
    ids = [handle.run_id for handle in handles]
    ended = until(lambda: stack.ended(ids), "the first run to end")
    assert len(ended) < len(ids), "the batch was over before anything was killed"


def all_up(stack: Stack) -> bool:
    """Whether every layer answers; a restarted one is ready from its first call on."""
    return not any("down" in layer for layer in stack.status().values())


@pytest.mark.parametrize("layer", ["journal", "policy", "approvals", "executor", "driver", "runtime", "ingress"])
def test_a_batch_survives_the_death_of(stack: Stack, layer: str) -> None:
    handles, texts = start_batch(stack, layer)
    half_done(stack, handles)
    killed = sigkill(stack, layer)
    assert killed, f"there is no {layer} to kill"
    results = stack.results(handles, timeout=BOUND_S)
    assert [r.reason_code for r in results] == [ReasonCode.COMPLETED] * RUNS
    assert ledger_of(stack).texts(f"{layer} ") == texts
    until(lambda: all_up(stack), "every layer to be up again")
    assert set(killed).isdisjoint(pids(stack)) and stack.verify() == []


def test_submitting_works_again_after_ingress_died(stack: Stack) -> None:
    sigkill(stack, "ingress")

    def look() -> RunHandle | None:
        with contextlib.suppress(LayerUnavailable):
            return submit(stack, call("note", text="after ingress"))
        return None

    assert until(look, "ingress to be back").result(timeout=BOUND_S).ok
    assert ledger_of(stack).texts("after ingress") == ["after ingress"]


def test_an_approval_outlives_every_process_and_is_decided_once(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="survivor", amount=4))
    before = waiting(stack, handle.run_id)
    parked(stack, handle.run_id)
    sigkill(stack)
    after = waiting(stack, handle.run_id)
    assert after == before and [a.run_id for a in stack.approvals()].count(handle.run_id) == 1
    assert stack.approve(after.approval_id, principal="lea") == "approved"
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("survivor") == [4]
    with pytest.raises(Refused):
        stack.approve(after.approval_id, token=stack.token("acme", "leo"))
    assert stack.verify() == []


def test_a_decision_just_made_is_not_lost_with_the_processes(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="decided", amount=5))
    approval = waiting(stack, handle.run_id)
    assert stack.approve(approval.approval_id, principal="lea") == "approved"
    sigkill(stack, "driver")
    sigkill(stack, "approvals")
    sigkill(stack, "runtime")
    result = handle.result(timeout=BOUND_S)
    # The payment may have been under way in an executor that lived on: then it is in doubt, never twice.
    assert result.ok or result.status is RunStatus.IN_DOUBT or result.in_doubt
    assert ledger_of(stack).amounts("decided") in ([5], [])
    assert not result.ok or ledger_of(stack).amounts("decided") == [5]


def test_an_approval_expires_though_approvals_died_and_nobody_calls_it(stack: Stack) -> None:
    handle = submit(stack, call("offer", to="lapsed", amount=1))
    waiting(stack, handle.run_id)
    sigkill(stack, "approvals")
    try:
        assert handle.result(timeout=15).reason_code is ReasonCode.APPROVAL_EXPIRED
    finally:
        stack.approvals()
        assert handle.result(timeout=BOUND_S).reason_code is ReasonCode.APPROVAL_EXPIRED
    assert ledger_of(stack).amounts("lapsed") == []


def test_runs_go_on_after_the_driver_and_their_runtime_died_though_nobody_asks(stack: Stack) -> None:
    handles, texts = start_batch(stack, "unasked", runs=6)
    until(lambda: ledger_of(stack).texts("unasked "), "the first note")
    sigkill(stack, "driver")
    sigkill(stack, "runtime")
    try:
        until(lambda: ledger_of(stack).texts("unasked ") == texts, "all notes, with nobody asking", bound_s=15)
    finally:
        results = stack.results(handles, timeout=BOUND_S)
        assert all(result.ok for result in results) and len(results) == 6
    assert ledger_of(stack).texts("unasked ") == texts


def hang(stack: Stack, to: str, who: str) -> RunHandle:
    """Submit a run whose tool has its effect and does not answer; return once the effect is there."""
    handle = submit(stack, call("wire", to=to, amount=1, hang=True), who=who)
    until(lambda: ledger_of(stack).amounts(to), "the effect")
    return handle


def test_a_tool_that_was_killed_in_the_middle_is_in_doubt_until_somebody_says(stack: Stack) -> None:
    handle = hang(stack, "halfway", "ana@acme")
    sigkill(stack, "executor")
    in_doubt(stack, handle.run_id)
    assert stack.ended([handle.run_id]) == set()
    assert stack.resolve(handle.run_id, happened=True, output={"found": "in the bank's list"}) == 1
    result = handle.result(timeout=BOUND_S)
    assert result.ok and ledger_of(stack).amounts("halfway") == [1]


def test_a_doubt_outlives_the_driver_and_the_runtime(stack: Stack) -> None:
    handle = hang(stack, "doubted", "ana@acme")
    sigkill(stack, "executor")
    in_doubt(stack, handle.run_id)
    sigkill(stack, "driver")
    sigkill(stack, "runtime")
    assert stack.resolve(handle.run_id, happened=False) == 1
    result = handle.result(timeout=BOUND_S)
    assert result.answer == {"calls": 1, "failed": [0]} and ledger_of(stack).amounts("doubted") == [1]


def test_a_tool_that_was_killed_in_the_middle_is_named_where_nobody_waits(stack: Stack) -> None:
    handle = hang(stack, "nobody waits", "bob@acme")
    sigkill(stack, "executor")
    result = handle.result(timeout=BOUND_S)
    assert (result.status, result.reason_code) == (RunStatus.IN_DOUBT, ReasonCode.TOOL_IN_DOUBT)
    assert result.in_doubt == (f"{handle.run_id}:1",) and ledger_of(stack).amounts("nobody waits") == [1]
    listed = stack.query("SELECT reason_code FROM outcomes WHERE run_id = ?", [handle.run_id]).to_pylist()
    assert listed == [{"reason_code": "tool_in_doubt"}] and stack.verify() == []


def test_a_run_that_waits_for_people_holds_no_process(local_ray: None, tmp_path: Path) -> None:
    with a_stack(tmp_path, "idle", executors=1, idle_runtime_s=1) as stack:
        handle = submit(stack, call("pay", to="parked", amount=6))
        approval = waiting(stack, handle.run_id)
        before = pids(stack, "runtime")
        until(lambda: not pids(stack, "runtime"), "the idle runtime to be put down")
        assert events_of(stack, handle.run_id, "RunSuspended") == 1
        assert stack.approve(approval.approval_id, principal="lea") == "approved"
        assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("parked") == [6]
        assert set(before).isdisjoint(pids(stack, "runtime"))
        assert events_of(stack, handle.run_id, "RunActivated") == 2 and stack.verify() == []


def test_what_is_unfinished_goes_on_when_the_stack_is_started_again(local_ray: None, tmp_path: Path) -> None:
    with a_stack(tmp_path, "again", executors=1) as stack:
        paying = submit(stack, call("pay", to="later", amount=8))
        approval = waiting(stack, paying.run_id)
        handles, texts = start_batch(stack, "again", runs=16)
        half_done(stack, handles)
    with a_stack(tmp_path, "again", executors=1) as stack:
        results = stack.results([stack.handle(handle.run_id) for handle in handles], timeout=BOUND_S)
        assert [r.reason_code for r in results] == [ReasonCode.COMPLETED] * len(handles)
        assert ledger_of(stack).texts("again ") == texts
        assert waiting(stack, paying.run_id).approval_id == approval.approval_id
        assert stack.approve(approval.approval_id, principal="lea") == "approved"
        assert stack.handle(paying.run_id).result(timeout=BOUND_S).ok
        assert ledger_of(stack).amounts("later") == [8] and stack.verify() == []
