"""Submitting by a key, results that are waited for, and runs as streams."""

from __future__ import annotations

import json
from typing import Any

import pytest

import airside.actors.api.events as events
from airside.actors.rpc.methods import QuestionReply
from airside.stack.contracts.streams import StreamPart
from airside.stack.ids import RunId
from airside.stack.operations.messages import Ticket
from airside.stack.reasons import ReasonCode
from tests.unit.actors.api.double import StackDouble, client_of


@pytest.fixture
def stack() -> StackDouble:
    """A stack."""
    return StackDouble()


async def test_a_key_and_body_are_one_run_whenever_they_come(stack: StackDouble) -> None:
    """Whatever way the body is written; of another principal they are another."""
    bodies = (b'{"request":"pay it","labels":["a","b"],"inputs":{"x":1,"y":2}}',)
    bodies += (b'{ "inputs": {"y": 2, "x": 1}, "labels": ["a", "b"], "request": "pay\\u0020it" }',)
    headers = {"idempotency-key": "order-7", "content-type": "application/json"}
    async with client_of(stack) as client:
        first, again = [await client.post("/v1/runs", content=body, headers=headers) for body in bodies]
        other = await client.post("/v1/runs", content=bodies[0], headers=headers | {"authorization": "Bearer bob"})
        without = [await client.post("/v1/runs", json={"request": "pay it"}) for _ in range(2)]
    assert first.status_code == again.status_code == 202 and first.json() == again.json()
    assert first.headers["location"] == f"/v1/runs/{first.json()['run_id']}"
    assert len({each.json()["run_id"] for each in (first, other, *without)}) == len(stack.runs) == 4


@pytest.mark.parametrize(
    "other", [{"request": "pay it twice"}, {"route": "b"}, {"inputs": {"x": 2}}, {"limits": {"max_steps": 1}}]
)
async def test_a_key_is_of_one_body(stack: StackDouble, other: dict[str, Any]) -> None:
    """Nothing is run for another, and the first one stays."""
    headers = {"idempotency-key": "order-7"}
    async with client_of(stack) as client:
        first = await client.post("/v1/runs", json={"request": "pay it"}, headers=headers)
        answer = await client.post("/v1/runs", json={"request": "pay it"} | other, headers=headers)
    assert first.status_code == 202 and len(stack.runs) == 1
    assert answer.status_code == 409 and answer.json()["reason_code"] == "idempotency_conflict"


@pytest.mark.parametrize("key", ["", "x" * 257, "a\tb"])
async def test_what_is_no_key_is_refused(stack: StackDouble, key: str) -> None:
    async with client_of(stack) as client:
        answer = await client.post("/v1/runs", json={"request": "pay"}, headers={"idempotency-key": key})
    assert answer.status_code == 400 and not stack.runs


async def test_a_key_is_said_once(stack: StackDouble) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b"), ("authorization", "Bearer ann")]
    async with client_of(stack, "") as client:
        answer = await client.post("/v1/runs", json={"request": "pay"}, headers=headers)
    assert answer.status_code == 400 and not stack.runs


async def test_a_token_that_may_only_submit_does_so_by_a_key(stack: StackDouble) -> None:
    """And is told of a key that is another request's, as of what it sent before."""
    headers = {"idempotency-key": "k"}
    async with client_of(stack, "writer") as client:
        first, again = [await client.post("/v1/runs", json={"request": "pay"}, headers=headers) for _ in range(2)]
        other = await client.post("/v1/runs", json={"request": "more"}, headers=headers)
        read = await client.get(first.headers["location"])
    assert first.status_code == again.status_code == 202 and first.json() == again.json()
    assert other.json()["reason_code"] == "idempotency_conflict" and read.status_code == 403


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (ReasonCode.ADMISSION_REJECTED, 429),
        (ReasonCode.SWITCHED_OFF, 409),
        (ReasonCode.UNKNOWN_ROUTE_MODE, 422),
        (ReasonCode.REQUEST_INVALID, 422),
        (ReasonCode.INTERNAL_ERROR, 503),
    ],
)
async def test_what_is_not_admitted_says_why(stack: StackDouble, reason: ReasonCode, status: int) -> None:
    """And when to try again, where that may help."""
    stack.ticket = Ticket(reason_code=reason, message="no room", retry_after_s=6.2)
    async with client_of(stack) as client:
        answer = await client.post("/v1/runs", json={"request": "pay"})
    assert answer.status_code == status and "no room" in answer.json()["detail"]
    assert answer.headers.get("retry-after") == {429: "7", 503: "1"}.get(status)


@pytest.mark.parametrize(
    "body",
    [
        {"request": 1},
        {"request": "x", "limits": {"max_fun": 1}},
        {"request": "x", "limits": {"max_steps": -1}},
        {"request": "x", "labels": ["l" * 500]},
        {"request": "x", "lane": "fast"},
        {"request": "x", "inputs": {"bad": 1}},
        {"request": "x", "inputs": []},
        {},
    ],
)
async def test_what_is_no_job_is_refused(stack: StackDouble, body: dict[str, Any]) -> None:
    async with client_of(stack) as client:
        answer = await client.post("/v1/runs", json=body)
    assert answer.status_code == 422 and answer.json()["reason_code"] == "invalid" and not stack.runs


async def test_a_result_is_waited_for(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not come in time is not there yet."""
    run = stack.submitted(job_id="r-1")
    async with client_of(stack) as client:
        early = await client.get(f"/v1/runs/{run}/result")
        ask = stack.ask

        async def ended(method: Any, request: Any) -> Any:
            answer = await ask(method, request)
            if len(stack.questions) == 3 and len(stack.runs[run]) == 1:
                stack.end(run)
            return answer

        monkeypatch.setattr(stack, "ask", ended)
        late = await client.get(f"/v1/runs/{run}/result?wait_s=30")
    assert early.status_code == 202 and early.json()["status"] == "active"
    assert late.status_code == 200 and late.json()["answer"] == "paid" and late.json()["cost_microusd"] == 7
    assert late.json()["job_id"] == "r-1"


def messages_of(text: str) -> list[dict[str, str]]:
    """Return a stream's messages by their fields."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith((":", "retry:"))]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def stream(stack: StackDouble, run: RunId, seen: str = "", who: str = "ann") -> Any:
    """Return what a stream of a run has to its end."""
    async with client_of(stack, who, **({"last-event-id": seen} if seen else {})) as client:
        return await client.get(f"/v1/runs/{run}/events")


async def test_a_result_is_waited_for_while_others_are_answered(
    stack: StackDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits stands behind them; who does not wait is told that there are too many."""
    run = stack.submitted()
    stack.end(run)
    ask, refusals = stack.ask, [QuestionReply(code="too_many", problem="others ask")] * 2

    async def crowded(method: Any, request: Any) -> Any:
        return refusals.pop() if refusals else await ask(method, request)

    monkeypatch.setattr(stack, "ask", crowded)
    async with client_of(stack) as client:
        refused = await client.get(f"/v1/runs/{run}/result")
        assert refused.status_code == 429 and refused.json()["reason_code"] == "too_many"
        assert (await client.get(f"/v1/runs/{run}/result?wait_s=30")).json()["answer"] == "paid"


async def test_a_stream_has_each_event_with_its_number_and_ends_with_the_run(stack: StackDouble) -> None:
    """What models say stands between them, without one."""
    run = stack.submitted()
    stack.end(run)
    stack.parts = [StreamPart(number=1, kind="text", run_id=run, step=1, text="pa", model="m")]
    answer = await stream(stack, run)
    assert answer.headers["content-type"].startswith("text/event-stream") and answer.text.startswith("retry: 2000\n\n")
    first, last = messages_of(answer.text)
    assert [first["id"], last["id"]] == ["1", "2"] and {first["event"], last["event"]} == {"event"}
    said = json.loads(last["data"])
    assert said["number"] == 2 and said["type"] == "RunEnded" and said["event"]["outcome"]["status"] == "completed"


async def test_a_stream_goes_on_after_what_a_client_has(stack: StackDouble) -> None:
    """And says so where nothing can follow, so that no client comes again for ever."""
    run = stack.submitted()
    stack.end(run)
    assert [each["id"] for each in messages_of((await stream(stack, run, "1")).text)] == ["2"]
    assert (await stream(stack, run, "2")).status_code == 204
    for wrong in ("9", "-1", "x", "1" * 20):
        assert (await stream(stack, run, wrong)).status_code == 400, wrong


async def test_a_stream_waits_says_that_it_is_there_and_tells_text(
    stack: StackDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In silence too, and while others of the tenant are served first."""
    monkeypatch.setattr(events, "SILENCE_S", 0.0)
    monkeypatch.setattr(events, "_POLL_S", 0.0)
    run, asked = stack.submitted(), 0
    ask = stack.ask

    async def scripted(method: Any, request: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            stack.parts = [StreamPart(number=1, kind="text", run_id=run, step=1, text="pa", model="m")]
        if asked == 4:
            stack.crowded = 1
        if asked == 6:
            stack.end(run)
        return await ask(method, request)

    monkeypatch.setattr(stack, "ask", scripted)
    answer = await stream(stack, run)
    assert ": it goes on\n\n" in answer.text
    assert [each["event"] for each in messages_of(answer.text)] == ["event", "text", "event"]
    assert json.loads(messages_of(answer.text)[1]["data"])["text"] == "pa"


async def test_a_stream_ends_with_its_credential(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why, as any refusal does; and where the stack goes away."""
    monkeypatch.setattr(events, "_POLL_S", 0.0)
    run = stack.submitted()
    stack.expires_after = 2
    answer = await stream(stack, run)
    last = messages_of(answer.text)[-1]
    assert last["event"] == "problem" and json.loads(last["data"])["reason_code"] == "auth_expired"


async def test_a_stream_ends_where_the_stack_goes_away(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is told to come back, and nothing of what is behind."""
    run = stack.submitted()
    ask = stack.ask

    async def once(method: Any, request: Any) -> Any:
        monkeypatch.setattr(stack, "is_up", not request.events)
        return await ask(method, request)

    monkeypatch.setattr(stack, "ask", once)
    last = messages_of((await stream(stack, run)).text)[-1]
    assert last["event"] == "problem" and json.loads(last["data"])["reason_code"] == "unavailable"
    assert "ingress" not in last["data"]
