"""AG-UI clients: a run that they ask for or come to, as a stream that they take; and what is no input is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

import airside.actors.api.events as events
from airside.stack.run.events import RunSubmitted, decode_event
from tests.agui_verifier import verify
from tests.unit.actors.api.double import StackDouble, client_of


@pytest.fixture
def stack() -> StackDouble:
    """A stack in which whatever is submitted ends at once."""
    made = StackDouble()
    made.ends = True
    return made


def asked(text: Any = "pay it", **more: Any) -> dict[str, Any]:
    """Return what a client sends."""
    messages = [
        {"id": "1", "role": "user", "content": "hello"},
        {"id": "2", "role": "assistant", "content": "hi", "toolCalls": []},
        {"id": "3", "role": "user", "content": text},
    ]
    given = {"threadId": "t-1", "runId": "r-1", "messages": messages, "tools": [], "context": [], "state": {}}
    return given | {"forwardedProps": {}, "protocolVersion": "1.0"} | more


def messages_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a stream's messages, each with its id."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields:
            assert set(fields) <= {"id", "data"}, "clients read what it is from the data"
            found.append((fields.get("id", ""), json.loads(fields["data"])))
    return found


async def test_what_is_asked_for_is_submitted_and_streamed(stack: StackDouble) -> None:
    """Under the names that the client has for it; the last text of its user is the request."""
    async with client_of(stack, accept="text/event-stream") as client:
        answer = await client.post("/v1/agui", json=asked())
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    found = [message for _, message in messages_of(answer.text)]
    assert verify(found).over and (found[0]["threadId"], found[0]["runId"]) == ("t-1", "r-1")
    assert found[-1]["result"] == "paid" and "input" not in found[0]
    ((run, bodies),) = stack.runs.items()
    first = decode_event(bodies[0])
    assert isinstance(first, RunSubmitted) and (first.request.text, first.request.job_id) == ("pay it", "r-1")
    assert answer.headers["location"] == f"/v1/runs/{run}" and found[0]["metadata"]["airside"]["run_id"] == run


async def test_a_run_that_is_there_is_streamed(stack: StackDouble) -> None:
    """With what was asked, for who comes to it did not ask; under the name of a conversation, if there is one."""
    run = stack.submitted(text="<script>alert(1)</script>\u2028")
    async with client_of(stack) as client:
        named = await client.get(f"/v1/runs/{run}/agui?thread_id=t-7")
        plain = await client.get(f"/v1/runs/{run}/agui")
    found = [message for _, message in messages_of(named.text)]
    assert verify(found).over and (found[0]["threadId"], found[0]["runId"]) == ("t-7", run)
    assert found[0]["input"]["messages"][0]["content"] == "<script>alert(1)</script>\u2028"
    assert messages_of(plain.text)[0][1]["threadId"] == run


async def test_the_same_input_is_the_same_run(stack: StackDouble) -> None:
    """Of the same principal: of another it is another; and another request under its names is refused."""
    async with client_of(stack) as client:
        first, again = [await client.post("/v1/agui", json=asked()) for _ in range(2)]
        further = await client.post("/v1/agui", json=asked(messages=asked()["messages"] * 2))
        other = await client.post("/v1/agui", json=asked("pay it twice"))
        thread = await client.post("/v1/agui", json=asked("pay it twice", threadId="t-2"))
    async with client_of(stack, "bob") as client:
        bobs = await client.post("/v1/agui", json=asked())
    assert first.text == again.text == further.text and thread.status_code == 200
    assert other.status_code == 409 and other.json()["reason_code"] == "idempotency_conflict"
    assert len({each.headers["location"] for each in (first, thread, bobs)}) == len(stack.runs) == 3


async def test_who_comes_back_goes_on(stack: StackDouble) -> None:
    """By either way, from any id; where nothing can follow it is told so."""
    async with client_of(stack) as client:
        whole = messages_of((await client.post("/v1/agui", json=asked())).text)
        (run,) = stack.runs
        for number, (place, _) in enumerate(whole, 1):
            header = {"last-event-id": place}
            answer = await client.post("/v1/agui", json=asked(), headers=header)
            assert messages_of(answer.text) == whole[number:]
            assert answer.status_code == (200 if number < len(whole) else 204)
        gone = await client.get(f"/v1/runs/{run}/agui", headers={"last-event-id": whole[-1][0]})
        assert gone.status_code == 204
        for wrong in ("x", "7", "9.1.0", "1.1.1.1"):
            for send in (("POST", "/v1/agui"), ("GET", f"/v1/runs/{run}/agui")):
                body = {"json": asked(runId=f"r-{wrong}")} if send[0] == "POST" else {}
                answer = await client.request(*send, headers={"last-event-id": wrong}, **body)
                assert answer.status_code == 400, (send, wrong, answer.text)
    assert len(stack.runs) == 2, "what is no id is refused before anything is submitted"


async def test_what_more_a_client_says_of_a_job_is_taken(stack: StackDouble) -> None:
    """And what it offers that is not, is said."""
    props = {"airside": {"route": "b", "inputs": {"x": 1}, "labels": ["l"], "limits": {"max_steps": 3}}, "mine": 1}
    given = asked([{"type": "text", "text": "pay"}, {"type": "text", "text": "it"}], forwardedProps=props, tools=[{}])
    async with client_of(stack) as client:
        found = messages_of((await client.post("/v1/agui", json=given)).text)
    ((bodies),) = stack.runs.values()
    request = decode_event(bodies[0]).request
    assert (request.text, request.route, bytes(request.inputs), request.limits) == (
        "pay\nit",
        "b",
        b'{"x":1}',
        {"max_steps": 3},
    )
    assert [each["value"] for _, each in found if each.get("name") == "airside.not_taken"] == [{"fields": ["tools"]}]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"id": "1", "role": "assistant", "content": "hi"}]}, "messages"),
        ({"messages": [{"id": "1", "role": "user", "content": [{"type": "image", "source": {}}]}]}, "text"),
        ({"messages": [{"id": "1", "role": "user", "content": [{"type": "text", "text": 1}]}]}, "text"),
        ({"messages": [{"id": "1", "role": "user"}]}, "text"),
        ({"messages": [{"id": "1", "role": "user", "content": "x" * 70_000}]}, "65,536"),
        ({"messages": [{"role": 1}]}, "role"),
        ({"threadId": ""}, "threadId"),
        ({"runId": "r" * 300}, "runId"),
        ({"resume": [{"interruptId": "1", "status": "resolved"}]}, "resume"),
        ({"forwardedProps": {"airside": {"roote": "b"}}}, "roote"),
        ({"forwardedProps": {"airside": {"limits": {"max_steps": -1}}}}, "limits"),
        ({"forwardedProps": {"airside": 1}}, "forwardedProps.airside"),
        ({"forwardedProps": {"airside": {"inputs": {"bad": 1}}}}, "bad"),
    ],
)
async def test_what_is_no_input_is_refused(stack: StackDouble, more: dict[str, Any], said: str) -> None:
    """It says what is wrong, and nothing was submitted."""
    async with client_of(stack) as client:
        answer = await client.post("/v1/agui", json=asked() | more)
    assert answer.status_code == 422 and said in answer.json()["detail"] and not stack.runs


async def test_a_stream_ends_with_its_credential(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error that says that the run goes on; without an id, so that a client goes on from where it was."""
    monkeypatch.setattr(events, "_POLL_S", 0.0)
    stack.ends = False
    run = stack.submitted()
    stack.expires_after = 2
    async with client_of(stack) as client:
        answer = await client.get(f"/v1/runs/{run}/agui")
    place, last = messages_of(answer.text)[-1]
    assert not place and (last["type"], last["code"]) == ("RUN_ERROR", "auth_expired")
    assert last["metadata"]["airside"]["run_goes_on"]


async def test_who_may_not_see_a_run_has_none_submitted(stack: StackDouble) -> None:
    """By a token for submitting alone: by `/v1/runs` it may."""
    async with client_of(stack, "writer") as client:
        answer = await client.post("/v1/agui", json=asked())
        assert answer.status_code == 403 and answer.json()["reason_code"] == "auth_scope_missing" and not stack.runs
        assert (await client.post("/v1/runs", json={"request": "pay it"})).status_code == 202
