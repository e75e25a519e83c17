"""Runs on Ray: how they go, end, wait for people, are stopped, and what is remembered of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import airside
from airside import Job, ReasonCode, RunStatus
from airside.actors.client.client import Stack
from airside.stack.errors import InvalidInput, Misuse, Refused
from airside.stack.values import Limits
from tests.on_ray import BOUND_S, a_stack, call, events_of, in_doubt, ledger_of, submit, until, waiting

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def stack(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack in which every tenant has a process of its own, with memory."""
    with a_stack(tmp_path_factory.mktemp("runs"), "runs", memory=True, executors=1) as started:
        yield started


# How runs go.


def test_a_run_goes_through_every_phase_and_says_what_it_used(stack: Stack) -> None:
    handle = stack.submit("go", tenant="acme", principal="ana", route="stages", job_id="j1")
    result = handle.result(timeout=BOUND_S)
    assert result.ok and result.answer == {"seen": ["topic 0", "topic 1"]}
    assert (result.status, result.reason_code, result.job_id) == (RunStatus.COMPLETED, ReasonCode.COMPLETED, "j1")
    assert (result.steps, result.tool_calls, result.tokens, result.cost_microusd) == (4, 2, 400, 8_000)
    assert 0 < result.seconds < BOUND_S and result.in_doubt == () and result.run_id == handle.run_id
    story = result.story()
    for said in ("submitted by ana@acme", "gate: allow by rule reads of notes-1", "ended: completed"):
        assert said in story
    row = result.row()
    assert row["answer"] == '{"seen":["topic 0","topic 1"]}' and row["status"] == "completed"


@pytest.mark.parametrize("count", [1, 5, 50])
def test_reads_of_one_decision_are_made_at_once_and_all_told(stack: Stack, count: int) -> None:
    """They are one step of the agent's, and a call each."""
    reads = [call("look", topic=f"t{n}") for n in range(count)]
    result = submit(stack, inputs={"together": [reads]}, route="together").result(timeout=BOUND_S)
    assert result.answer == {"calls": count, "failed": []} and (result.steps, result.tool_calls) == (2, count)


def test_calls_of_one_decision_are_each_governed_by_themselves(stack: Stack) -> None:
    """One fails, one waits for a person, and those after them happen all the same."""
    calls = [call("note", text="of several"), call("fail", text="no"), call("pay", to="several", amount=4)]
    inputs = {"together": [[*calls, call("look", topic="t")]]}
    handle = submit(stack, inputs=inputs, route="together")
    assert stack.approve(waiting(stack, handle.run_id).approval_id, principal="lea") == "approved"
    result = handle.result(timeout=BOUND_S)
    assert result.answer == {"calls": 4, "failed": [1]} and (result.steps, result.tool_calls) == (2, 4)
    assert ledger_of(stack).amounts("several") == [4] and "of several" in ledger_of(stack).texts()


def test_control_is_handed_from_one_agent_to_another(stack: Stack) -> None:
    result = submit(stack, route="desk").result(timeout=BOUND_S)
    assert result.answer == {"from": "front_desk"}


def test_branches_run_side_by_side_and_are_joined(stack: Stack) -> None:
    result = submit(stack, call("look", topic="b"), route="fan").result(timeout=BOUND_S)
    assert result.answer == [
        ["one", True, ["topic 0", "topic 1"]],
        ["default", True, {"calls": 1, "failed": []}],
    ]
    assert result.tool_calls == 3 and result.cost_microusd == 6_000


def test_a_branch_that_fails_fails_the_run_unless_an_agent_joins(stack: Stack) -> None:
    denied = call("forbidden", text="x")
    alone = submit(stack, denied, route="plain_fan").result(timeout=BOUND_S)
    assert alone.reason_code is ReasonCode.CHILD_FAILED and "policy_denied" in alone.detail
    joined = submit(stack, denied, route="fan").result(timeout=BOUND_S)
    assert joined.ok and joined.answer[1] == ["default", False, None]


def test_an_approval_inside_a_branch_is_decided_as_anywhere_else(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="branch", amount=2), route="fan")
    approval = until(lambda: [a for a in stack.approvals() if a.run_id.startswith(handle.run_id)], "the branch's")[0]
    assert stack.approve(approval.approval_id, principal="lea") == "approved"
    try:
        assert handle.result(timeout=20).ok
    finally:
        if not stack.ended([handle.run_id]):
            handle.cancel()
    assert ledger_of(stack).amounts("branch") == [2]


def test_a_batch_over_three_tenants_is_not_harmed_by_what_is_refused_in_it(stack: Stack) -> None:
    def job(i: int, tenant: str = "acme", **fields: object) -> dict[str, object]:
        inputs = {"actions": [call("look", topic=f"t{i}")]}
        return {"job_id": f"b{i}", "request": "r", "tenant": tenant, "principal": "ana", "inputs": inputs} | fields

    good = [job(i, ("acme", "beta", "gamma")[i % 3]) for i in range(9)]
    bad = [
        job(20, "nobody"),
        job(21, principal="eve"),
        job(22, route="nowhere"),
        job(23, request=7),
        job(24, unheard_of=1),
        job(25, limits={"max_steps": -1}),
        job(26, token="x.y.z"),
        job(27, inputs={"actions": [call("no_such_tool")]}),
        job(28, inputs={"actions": [call("look", topic=5)]}),
    ]
    batch = [item for pair in zip(good, bad, strict=True) for item in pair]
    results = stack.map(batch, progress=False, timeout=BOUND_S)
    assert [r.job_id for r in results] == [item["job_id"] for item in batch]
    assert all(r.ok for r in results[::2])
    R = ReasonCode
    assert [r.reason_code for r in results[1::2]] == [
        R.TENANT_UNKNOWN,
        R.PRINCIPAL_UNKNOWN,
        R.UNKNOWN_ROUTE_MODE,
        R.REQUEST_INVALID,
        R.REQUEST_INVALID,
        R.REQUEST_INVALID,
        R.AUTH_MALFORMED,
        R.TOOL_UNKNOWN,
        R.TOOL_INVALID_ARGUMENTS,
    ]
    assert "look" in results[17].detail and "topic" in results[17].detail


def test_no_process_sees_two_tenants(stack: Stack) -> None:
    for tenant in ("acme", "beta"):
        assert submit(stack, who=f"ana@{tenant}").result(timeout=BOUND_S).ok
    runtimes = stack.status()["driver"]["runtimes"]
    assert {key.partition("/")[0] for key in runtimes} >= {"acme", "beta"}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_steps": 1}, ReasonCode.MAX_STEPS),
        ({"max_tool_calls": 1}, ReasonCode.MAX_TOOL_CALLS),
        ({"max_tokens": 150}, ReasonCode.MAX_TOKENS),
        ({"max_cost_microusd": 3_000}, ReasonCode.MAX_COST),
        ({"max_output_bytes": 20}, ReasonCode.MAX_OUTPUT),
        ({"max_seconds": 0}, ReasonCode.MAX_SECONDS),
    ],
)
def test_a_run_stops_at_its_limits(stack: Stack, limits: dict[str, int], reason: ReasonCode) -> None:
    result = submit(stack, route="stages", limits=limits).result(timeout=BOUND_S)
    assert (result.status, result.reason_code) == (RunStatus.STOPPED, reason)
    assert result.tool_calls <= limits.get("max_tool_calls", 2) and result.steps <= limits.get("max_steps", 4)


def test_nobody_is_given_more_than_the_directory_says(stack: Stack) -> None:
    repeated = [call("look", topic="same")] * 6
    result = submit(stack, *repeated, limits={"max_repeats": 1000, "max_steps": 9999}).result(timeout=BOUND_S)
    assert result.reason_code is ReasonCode.LOOP_DETECTED and result.tool_calls == Limits().max_repeats


def test_a_denied_call_never_reaches_its_tool(stack: Stack) -> None:
    result = submit(stack, call("wire", to="denied", amount=5_000)).result(timeout=BOUND_S)
    assert result.reason_code is ReasonCode.POLICY_DENIED and result.status is RunStatus.REFUSED
    assert ledger_of(stack).amounts("denied") == []


def test_a_failed_call_is_the_agents_to_handle(stack: Stack) -> None:
    result = submit(stack, call("fail", text="no"), call("note", text="after")).result(timeout=BOUND_S)
    assert result.answer == {"calls": 2, "failed": [0]} and "after" in ledger_of(stack).texts()


# People.


def test_an_approved_call_happens_once_with_the_approved_arguments(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="approved", amount=7))
    approval = waiting(stack, handle.run_id)
    assert (approval.tool, approval.arguments["amount"], approval.requester) == ("pay", 7, "ana")
    assert ledger_of(stack).amounts("approved") == [] and stack.ended([handle.run_id]) == set()
    assert stack.approve(approval.approval_id, principal="lea", note="fine") == "approved"
    assert handle.result(timeout=BOUND_S).ok
    assert ledger_of(stack).amounts("approved") == [7]
    with pytest.raises(Refused):
        stack.approve(approval.approval_id, principal="leo")
    assert waiting_ids(stack, handle.run_id) == []


def waiting_ids(stack: Stack, run_id: str) -> list[str]:
    """Return the approvals of a run that still wait."""
    return [a.approval_id for a in stack.approvals() if a.run_id == run_id]


def test_like_calls_of_one_decision_are_one_question_and_each_has_its_own_answer(stack: Stack) -> None:
    """One of them is rejected by its own id, the others are approved by the question's."""
    calls = [call("pay", to="together", amount=amount) for amount in (11, 12, 13)]
    handle = submit(stack, inputs={"together": [calls]}, route="together")
    group = waiting(stack, handle.run_id).group
    question = [a for a in stack.approvals() if a.group == group]
    assert [a.arguments["amount"] for a in question] == [11, 12, 13] and group.startswith("grp_")
    assert stack.reject(question[1].approval_id, principal="lea", note="not this one") == "rejected"
    with pytest.raises(Misuse, match="edit one of them"):
        stack.edit(group, {"to": "together", "amount": 1}, principal="lea")
    assert stack.approve(group, principal="lea") == "approved"
    result = handle.result(timeout=BOUND_S)
    assert result.answer == {"calls": 3, "failed": [1]} and "not this one" in result.story()
    assert ledger_of(stack).amounts("together") == [11, 13]
    with pytest.raises(Refused):
        stack.approve(group, principal="leo")


def test_a_rejected_call_does_not_happen(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="rejected", amount=7), call("pay", to="rejected", amount=8))
    approval = waiting(stack, handle.run_id)
    assert stack.reject(approval.approval_id, principal="lea", note="too dear") == "rejected"
    again = until(lambda: [i for i in waiting_ids(stack, handle.run_id) if i != approval.approval_id], "the next call")
    assert stack.approve(again[0], principal="lea") == "approved"
    assert handle.result(timeout=BOUND_S).answer == {"calls": 2, "failed": [0]}
    assert ledger_of(stack).amounts("rejected") == [8]


def test_a_run_that_may_not_be_rejected_ends_with_what_the_person_said(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="rejected", amount=9), limits={"max_rejections": 0})
    approval = waiting(stack, handle.run_id)
    assert stack.reject(approval.approval_id, principal="lea", note="too dear") == "rejected"
    result = handle.result(timeout=BOUND_S)
    assert result.reason_code is ReasonCode.APPROVAL_REJECTED and "too dear" in result.detail
    assert ledger_of(stack).amounts("rejected") == [8]


def test_edited_arguments_are_what_the_tool_gets(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="edited", amount=900))
    approval = waiting(stack, handle.run_id)
    assert stack.edit(approval.approval_id, {"to": "edited", "amount": 3}, principal="lea") == "edited"
    assert handle.result(timeout=BOUND_S).ok
    assert ledger_of(stack).amounts("edited") == [3]


def test_an_edit_is_gated_again(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="edited up", amount=9))
    approval = waiting(stack, handle.run_id)
    stack.edit(approval.approval_id, {"to": "edited up", "amount": 5_000}, principal="lea")
    assert handle.result(timeout=BOUND_S).reason_code is ReasonCode.POLICY_DENIED
    assert ledger_of(stack).amounts("edited up") == []


def test_an_approval_that_nobody_decides_expires(stack: Stack) -> None:
    handle = submit(stack, call("offer", to="expired", amount=1))
    result = handle.result(timeout=BOUND_S)
    assert result.reason_code is ReasonCode.APPROVAL_EXPIRED and ledger_of(stack).amounts("expired") == []


def test_only_another_person_with_the_role_may_decide(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="mine", amount=1), who="lea@acme")
    approval = waiting(stack, handle.run_id)
    for principal, code in (("lea", "self_approval"), ("ana", "wrong_role")):
        with pytest.raises(Refused) as caught:
            stack.approve(approval.approval_id, principal=principal)
        assert caught.value.reason == code
    with pytest.raises(Refused) as caught:
        stack.approve(approval.approval_id, token=stack.token("beta", "leo"))
    assert caught.value.reason == "unknown"
    assert stack.approve(approval.approval_id, principal="leo") == "approved"
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("mine") == [1]


def test_two_people_are_two_votes_and_a_third_comes_too_late(stack: Stack) -> None:
    handle = submit(stack, call("donate", to="quorum", amount=1))
    approval = waiting(stack, handle.run_id)
    assert stack.approve(approval.approval_id, principal="lea") == ""
    with pytest.raises(Refused) as caught:
        stack.approve(approval.approval_id, principal="lea")
    assert caught.value.reason == "already_voted" and ledger_of(stack).amounts("quorum") == []
    leo = stack.token("acme", "leo")
    assert stack.approve(approval.approval_id, token=leo) == "approved"
    with pytest.raises(Refused) as caught:
        stack.reject(approval.approval_id, token=leo)
    assert caught.value.reason in ("already_decided", "unknown")
    assert handle.result(timeout=BOUND_S).ok and ledger_of(stack).amounts("quorum") == [1]


# Stopping.


def test_one_run_a_tenant_or_all_can_be_killed(stack: Stack) -> None:
    def start(tenant: str) -> airside.RunHandle:
        handle = submit(stack, who=f"ana@{tenant}", route="sleeper")
        until(lambda: events_of(stack, handle.run_id, "RunActivated"), "the sleeper to be at work")
        return handle

    first, second, third, fourth = start("acme"), start("acme"), start("beta"), start("gamma")
    assert stack.kill(run=first.run_id, why="one") == 1
    result = first.result(timeout=BOUND_S)
    assert (result.status, result.reason_code) == (RunStatus.KILLED, ReasonCode.KILLED_BY_OPERATOR)
    assert "one" in result.detail and stack.ended([second.run_id, third.run_id]) == set()
    assert stack.kill(tenant="acme") == 1 and second.result(timeout=BOUND_S).status is RunStatus.KILLED
    assert stack.ended([third.run_id]) == set()
    assert stack.kill(all=True) == 2
    assert [h.result(timeout=BOUND_S).status for h in (third, fourth)] == [RunStatus.KILLED] * 2
    with pytest.raises(Misuse):
        stack.kill(run=first.run_id)
    with pytest.raises(Misuse):
        stack.kill()


def test_a_run_is_withdrawn(stack: Stack) -> None:
    handle = submit(stack, route="sleeper")
    handle.cancel("never mind")
    result = handle.result(timeout=BOUND_S)
    assert result.status is RunStatus.CANCELLED and "never mind" in result.detail


def test_killing_a_run_that_waits_for_people_ends_its_approval_too(stack: Stack) -> None:
    handle = submit(stack, call("pay", to="killed", amount=1))
    waiting(stack, handle.run_id)
    stack.kill(run=handle.run_id)
    assert handle.result(timeout=BOUND_S).status is RunStatus.KILLED
    until(lambda: not waiting_ids(stack, handle.run_id), "the approval of a killed run to go", bound_s=5)
    assert ledger_of(stack).amounts("killed") == []


def test_a_spinning_agent_is_killed_and_its_neighbour_completes(stack: Stack) -> None:
    neighbour = submit(stack, *(call("note", text=f"beside {i}", pace_ms=50) for i in range(20)), who="ana@gamma")
    spinning = submit(stack, who="ana@gamma", route="spinner")
    result = spinning.result(timeout=BOUND_S)
    assert result.reason_code is ReasonCode.KILLED_RUNAWAY and "notes.py" in result.detail
    assert neighbour.result(timeout=BOUND_S).ok
    assert ledger_of(stack).texts("beside") == sorted(f"beside {i}" for i in range(20))


# Doubt.


@pytest.mark.parametrize("happened", [True, False])
def test_a_call_in_doubt_goes_on_as_a_person_says(stack: Stack, happened: bool) -> None:
    handle = submit(stack, call("wire", to=f"doubt {happened}", amount=1, hang=True), limits=quick())
    in_doubt(stack, handle.run_id)
    assert stack.resolve(handle.run_id, happened=happened, output={"ok": 1}, why="asked the bank") == 1
    result = handle.result(timeout=BOUND_S)
    assert result.ok and result.answer == {"calls": 1, "failed": [] if happened else [0]}
    assert ledger_of(stack).amounts(f"doubt {happened}") == [1] and result.in_doubt == ()


def quick() -> dict[str, int]:
    """Return limits under which a hanging tool is in doubt after a fifth of a second, for a minute."""
    return {"tool_ms": 200, "doubt_wait_s": 60}


def test_a_call_that_nobody_settles_ends_in_doubt_and_is_named(stack: Stack) -> None:
    handle = submit(
        stack, call("wire", to="unsettled", amount=1, hang=True), limits={"tool_ms": 200, "doubt_wait_s": 0}
    )
    result = handle.result(timeout=BOUND_S)
    assert (result.status, result.reason_code) == (RunStatus.IN_DOUBT, ReasonCode.TOOL_IN_DOUBT)
    assert result.in_doubt == (f"{handle.run_id}:1",) and ledger_of(stack).amounts("unsettled") == [1]


# Asking.


def test_the_journal_answers_questions_and_nothing_else(stack: Stack, tmp_path: Path) -> None:
    assert stack.query("SELECT count(*) AS n FROM runs").to_pylist()[0]["n"] > 0
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    for sql in (
        "DELETE FROM events",
        "UPDATE outcomes SET status = 'completed'",
        "DROP TABLE events",
        "SELECT 1; DELETE FROM events",
        f"COPY events TO '{tmp_path / 'stolen.csv'}'",
        f"ATTACH '{tmp_path / 'other.duckdb'}'",
        "PRAGMA database_list",
        "SET enable_external_access = true",
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        "SELECT * FROM nowhere",
        "not sql",
    ):
        with pytest.raises(InvalidInput):
            stack.query(sql)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert stack.verify() == []


def test_what_is_not_known_is_said_plainly(stack: Stack) -> None:
    for wrong in ("run_" + "0" * 24, "nonsense"):
        with pytest.raises(InvalidInput if wrong.startswith("run_") else Misuse):
            stack.story(wrong)
    with pytest.raises(Refused) as caught:
        submit(stack, who="eve@acme")
    assert caught.value.reason == "principal_unknown"
    with pytest.raises(TimeoutError):
        stack.handle("run_" + "0" * 24).result(timeout=0.2)


async def test_handles_and_batches_can_be_awaited(stack: Stack) -> None:
    handle = await stack.asubmit("go", tenant="acme", principal="ana")
    async with asyncio.timeout(BOUND_S):
        assert (await handle).ok
        jobs = [{"request": "r", "tenant": "acme", "principal": "ana"}] * 3
        assert [r.ok for r in await stack.amap(jobs, progress=False)] == [True] * 3
        handles = [await stack.asubmit(job) for job in map(Job.model_validate, jobs)]
        assert [r.ok async for r in stack.aiter_results(handles, timeout=BOUND_S, window=2)] == [True] * 3


# Memory.


def test_an_answer_is_remembered_within_its_tenant_and_recalled(stack: Stack) -> None:
    fact = "the harbour crane lifts forty tonnes"
    first = submit(stack, request="note this", route="memory", inputs={"answer": fact})
    assert first.result(timeout=BOUND_S).ok
    again = submit(stack, request="how much does the harbour crane lift", route="memory", inputs={})
    assert fact in again.result(timeout=BOUND_S).answer
    other = submit(stack, request="how much does the harbour crane lift", route="memory", inputs={}, who="ana@beta")
    assert fact not in other.result(timeout=BOUND_S).answer
    assert events_of(stack, first.run_id, "MemoryLearned") == 1
    assert stack.status()["memory"]["records"] >= 1


# The pool.


def test_in_a_pool_tenants_share_processes_and_nothing_else(local_ray: None, tmp_path: Path) -> None:
    with a_stack(tmp_path, "pool", mode="pooled", pool_size=1, executors=1) as pool:
        jobs = [
            Job(request="r", tenant=tenant, principal="ana", inputs={"actions": [call("note", text=f"{tenant}{i}")]})
            for tenant in ("acme", "beta", "gamma")
            for i in range(5)
        ]
        assert all(result.ok for result in pool.map(jobs, progress=False, timeout=BOUND_S))
        assert len(pool.status()["driver"]["runtimes"]) == 1
        assert len(set(ledger_of(pool).texts())) == len(ledger_of(pool).texts()) == 15
        handle = submit(pool, call("pay", to="pooled", amount=1))
        assert pool.approve(waiting(pool, handle.run_id).approval_id, principal="lea") == "approved"
        assert handle.result(timeout=BOUND_S).ok and ledger_of(pool).amounts("pooled") == [1]
        assert pool.verify() == []
