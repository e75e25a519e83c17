"""What orders, votes and questions become on their way to the stack."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from airside.actors.rpc.methods import KeeperRequest, PresentedJointVote, PresentedOrder
from airside.stack.operations import questions as q
from airside.stack.operations.batches import BatchChange
from airside.stack.operations.messages import VoteReply
from tests.unit.actors.api.double import APPROVAL, StackDouble, client_of


@pytest.fixture
def stack() -> StackDouble:
    """A stack."""
    return StackDouble()


async def post(stack: StackDouble, who: str, path: str, body: dict[str, Any]) -> Any:
    """Return the answer to a request."""
    async with client_of(stack, who) as client:
        return await client.post(path, json=body)


async def ordered(stack: StackDouble, path: str, body: dict[str, Any], who: str = "olga") -> PresentedOrder:
    """Return the order that a request of the operator's became."""
    answer = await post(stack, who, path, body)
    assert answer.status_code == 200 and answer.json() == {"reached": 1}, answer.text
    return stack.orders.pop()


async def test_orders_carry_the_credential_the_target_and_why(stack: StackDouble) -> None:
    run = stack.submitted()
    assert await ordered(stack, f"/v1/runs/{run}/kill", {"why": "loops"}) == PresentedOrder(
        "olga", "kill", "run", run, "loops"
    )
    assert await ordered(stack, f"/v1/runs/{run}/cancel", {}) == PresentedOrder("olga", "cancel", "run", run)
    assert await ordered(stack, "/v1/kills", {"scope": "all", "why": "x"}) == PresentedOrder(
        "olga", "kill", "all", "", "x"
    )
    resolved = await ordered(stack, "/v1/in-doubt/resolve", {"target": run, "happened": True, "output": {"id": 7}})
    assert resolved == PresentedOrder("olga", "settle", "run", run, happened=True, output=b'{"id":7}')
    spent = await ordered(stack, "/v1/in-doubt/spend/resolve", {"key": f"{run}:1/model@1", "cost_microusd": 5}, "root")
    assert (spent.action, spent.cost_microusd, spent.tokens) == ("resolve_spend", 5, None)


async def test_switches_are_off_for_a_time_or_until_they_are_on(stack: StackDouble) -> None:
    target = {"scope": "tenant", "target": "acme"}
    off = await ordered(stack, "/v1/switches", target | {"off": True})
    on = await ordered(stack, "/v1/switches", target | {"off": False, "for_s": 5})
    timed = await ordered(stack, "/v1/switches", target | {"off": True, "for_s": 60})
    assert (off.action, off.until_us, on.action, on.until_us) == ("switch_off", 0, "switch_on", 0)
    assert timed.until_us > 1_700_000_000_000_000


@pytest.mark.parametrize(
    ("path", "body", "change"),
    [
        ("pause", {}, BatchChange(action="pause")),
        ("resume", {}, BatchChange(action="resume")),
        ("cancel", {}, BatchChange(action="cancel")),
        ("requeue", {"job_ids": ["a", "b"]}, BatchChange(action="requeue", job_ids=("a", "b"))),
    ],
)
async def test_a_batch_is_changed(stack: StackDouble, path: str, body: dict[str, Any], change: BatchChange) -> None:
    order = await ordered(stack, f"/v1/batches/nightly/{path}", body | {"why": "w"})
    assert (order.action, order.scope, order.target, order.why) == ("batch", "all", "nightly", "w")
    assert msgspec.json.decode(order.output, type=BatchChange) == change


async def test_a_batch_is_retuned_in_what_is_given(stack: StackDouble) -> None:
    order = await ordered(stack, "/v1/batches/nightly/retune", {"concurrency": 4, "limits": {"max_steps": 2}})
    settings = msgspec.json.decode(order.output, type=BatchChange).settings
    assert (settings.concurrency, settings.rate_per_s, settings.limits) == (4, None, {"max_steps": 2})


async def test_votes_carry_what_is_said(stack: StackDouble) -> None:
    await post(stack, "lea", f"/v1/approvals/{APPROVAL}/edit", {"arguments": {"amount": 2}, "note": "less"})
    await post(stack, "lea", f"/v1/approvals/{APPROVAL}/answer", {"answer": "yes"})
    edited, answered = stack.votes
    assert (edited.verdict, edited.arguments, edited.note) == ("edit", b'{"amount":2}', "less")
    assert (answered.verdict, answered.arguments) == ("answer", b'"yes"')


@pytest.mark.parametrize(
    ("code", "status"), [("already_decided", 409), ("already_voted", 409), ("self_approval", 403), ("unavailable", 503)]
)
async def test_a_vote_that_does_not_count_says_why(stack: StackDouble, code: str, status: int) -> None:
    stack.vote = VoteReply(ok=False, code=code, message="no")
    answer = await post(stack, "lea", f"/v1/approvals/{APPROVAL}/approve", {})
    assert answer.status_code == status and answer.json()["reason_code"] == code


async def test_a_vote_on_several_counts_on_all_of_them(stack: StackDouble) -> None:
    body = {"approval_ids": [APPROVAL], "verdict": "reject", "note": "no"}
    answer = await post(stack, "lea", "/v1/approvals/votes", body)
    assert answer.status_code == 200 and answer.json() == {"votes": [{"approval_id": APPROVAL, "outcome": "approved"}]}
    assert stack.joint_votes == [PresentedJointVote("lea", (APPROVAL,), "reject", "no")]


async def test_a_vote_on_several_that_one_refuses_counts_on_none_and_says_on_which_it_would_not(
    stack: StackDouble,
) -> None:
    other = APPROVAL.replace("b", "c")
    body = {"approval_ids": [APPROVAL, other], "verdict": "approve"}
    answer = await post(stack, "lea", "/v1/approvals/votes", body)
    assert answer.status_code == 404 and stack.joint_votes == stack.votes == []
    assert answer.json()["reason_code"] == "unknown"
    assert answer.json()["refused"] == [{"approval_id": other, "reason_code": "unknown", "detail": "no such approval"}]


@pytest.mark.parametrize(
    "body",
    [
        {"approval_ids": []},
        {"approval_ids": [APPROVAL, "x"]},
        {"approval_ids": [APPROVAL] * 101},
        {"approval_ids": [APPROVAL], "verdict": "edit"},
        {"approval_ids": [APPROVAL], "verdict": None},
    ],
)
async def test_votes_that_make_no_sense_are_not_begun(stack: StackDouble, body: dict[str, Any]) -> None:
    answer = await post(stack, "lea", "/v1/approvals/votes", {"verdict": "approve"} | body)
    assert answer.status_code == 422 and not stack.joint_votes


@pytest.mark.parametrize(("pinned", "action"), [(True, "pin"), (False, "unpin")])
async def test_a_record_is_pinned_and_pinned_no_more(stack: StackDouble, pinned: bool, action: str) -> None:
    body = {"tenant": "acme", "record": "rec_1", "pinned": pinned}
    answer = await post(stack, "kim", "/v1/memory/pin", body)
    assert answer.json() == {"record": "rec_1", "pinned": pinned}
    assert stack.pins == [KeeperRequest("kim", action, "acme", target="rec_1")]
    gone = await post(stack, "kim", "/v1/memory/pin", body | {"record": "rec_2"})
    assert gone.status_code == 404 and gone.json()["reason_code"] == "unknown"
    assert (await post(stack, "kim", "/v1/memory/pin", body | {"tenant": "globex"})).status_code == 404


@pytest.mark.parametrize(
    "body", [{}, {"record": "r", "subject": "s"}, {"record": "r", "only": "x"}, {"record": "r\x00"}]
)
async def test_an_erasure_says_one_thing(stack: StackDouble, body: dict[str, Any]) -> None:
    answer = await post(stack, "kim", "/v1/memory/erase", {"tenant": "acme"} | body)
    assert answer.status_code in (400, 422) and not stack.erasures


async def test_another_tenants_memory_is_not_there(stack: StackDouble) -> None:
    answer = await post(stack, "gil", "/v1/memory/erase", {"tenant": "acme", "subject": "ben"})
    assert answer.status_code == 404 and not stack.erasures


async def test_questions_carry_what_is_asked(stack: StackDouble) -> None:
    async with client_of(stack, "audra") as client:
        await client.get("/v1/runs?status=active&limit=5&branches=true&since=2026-11-30T00:00:00Z")
        await client.post("/v1/audit/sql", json={"sql": "select ?", "parameters": [1, "a", None]})
        await client.post("/v1/audit/queries/spend", json={"tenant": "acme"})
        await client.get("/v1/switches")
    assert stack.questions == [
        q.Runs(status="active", limit=5, branches=True, since=datetime(2026, 11, 30, tzinfo=UTC)),
        q.AuditSql(sql="select ?", parameters=(1, "a", None)),
        q.AuditSql(query="spend", tenant="acme"),
        q.Switches(),
    ]


async def test_the_metrics_are_what_layers_say_and_what_was_asked(stack: StackDouble) -> None:
    async with client_of(stack, "olga") as client:
        await client.get("/v1/runs/nothing")
        text = (await client.get("/v1/metrics")).text
    lines = text.splitlines()
    assert 'airside_layer_up{layer="driver"} 1' in lines and 'airside_layer_up{layer="po\\"l"} 0' in lines
    assert 'airside_layer_up_seconds{layer="driver"} 2.5' in lines
    assert 'airside_http_requests_total{route="run",status="400"} 1' in lines
    assert all(line.startswith(("#", "airside_")) for line in lines)
