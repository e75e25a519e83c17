"""Who may speak to the API, from where, and how much; and that nothing a client sends is an error of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

import airside.actors.api.server as server
from airside.actors.api.problems import MEDIA_TYPE, REFUSALS, problem_of, refusal_of
from airside.actors.api.server import MAX_BODY_BYTES, http_api
from airside.stack.errors import Fenced, LayerUnavailable, Misuse
from airside.stack.reasons import ReasonCode
from tests.unit.actors.api.double import HOST, StackDouble, client_of


@pytest.fixture
def stack() -> StackDouble:
    """A stack."""
    return StackDouble()


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:9", "api.example.com", "API.example.com:443"])
async def test_it_answers_by_the_names_it_was_given(stack: StackDouble, host: str) -> None:
    async with client_of(stack, "", host=host) as client:
        assert (await client.get("/v1/health/live")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com", "api.example.com.evil.org:80", ""])
async def test_by_another_name_it_answers_nothing(stack: StackDouble, host: str) -> None:
    """A page whose name was made to lead here is not let in, whatever it has."""
    async with client_of(stack, "ann", host=host) as client:
        answer = await client.get("/v1/runs")
    assert answer.status_code == 421 and answer.json()["reason_code"] == "host" and not stack.questions


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", "file:///x", "http://localhost/x", "http://[::1"]
)
async def test_a_page_of_another_site_is_no_client(stack: StackDouble, origin: str) -> None:
    """And a browser that asks beforehand is given no leave."""
    async with client_of(stack, "ann", origin=origin) as client:
        answer = await client.get("/v1/runs")
        asked = await client.options("/v1/runs", headers={"access-control-request-method": "POST"})
    assert answer.status_code == asked.status_code == 403 and answer.json()["reason_code"] == "origin"
    assert not [name for name in (*answer.headers, *asked.headers) if name.startswith("access-control")]


async def test_a_page_of_its_own_is_one(stack: StackDouble) -> None:
    async with client_of(stack, "ann", origin="https://api.example.com") as client:
        assert (await client.get("/v1/runs")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v2/runs", "/v1/runs/", "/v1/metrics/x", "//v1/runs", "/%00"])
async def test_a_path_that_is_none_is_said_to_be(stack: StackDouble, path: str) -> None:
    async with client_of(stack, "ann") as client:
        answer = await client.get(httpx2.URL(f"{HOST}{path}"))
    assert answer.status_code == 404 and answer.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"])
async def test_a_method_that_a_path_has_not_is_said_to_be(stack: StackDouble, method: str) -> None:
    async with client_of(stack, "ann") as client:
        answer = await client.request(method, "/v1/runs")
        one = await client.request(method, "/v1/health/live")
    assert answer.status_code == one.status_code == 405
    assert answer.headers["allow"] == "GET, POST" and one.headers["allow"] == "GET"


async def test_a_stack_that_is_away_is_said_to_be(stack: StackDouble) -> None:
    """With when to try again; the server itself is alive."""
    stack.is_up = False
    async with client_of(stack, "ann") as client:
        answer = await client.get("/v1/runs")
        ready = await client.get("/v1/health/ready")
        assert (await client.get("/v1/health/live")).json() == {"status": "live"}
    assert answer.status_code == ready.status_code == 503 and answer.headers["retry-after"] == "1"
    assert answer.json()["reason_code"] == "unavailable"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Misuse("why: say it"), 422, "say it"),
        (TimeoutError("SECRET"), 503, "does not answer now"),
        (LayerUnavailable("SECRET"), 503, "does not answer now"),
        (Fenced("SECRET"), 500, "The server's log says"),
        (ZeroDivisionError("SECRET"), 500, "The server's log says"),
    ],
)
async def test_what_goes_wrong_is_said_but_not_what_of_ours(
    stack: StackDouble, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, said: str
) -> None:
    async def ask(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(stack, "ask", ask)
    async with client_of(stack, "ann") as client:
        answer = await client.get("/v1/runs")
    assert answer.status_code == status and said in answer.text and "SECRET" not in answer.text


async def test_a_body_without_a_length_is_counted(stack: StackDouble) -> None:
    """It is not read to its end."""
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10 * MAX_BODY_BYTES:
            sent += 65_536
            yield b" " * 65_536

    async with client_of(stack, "ann") as client:
        answer = await client.post("/v1/runs", content=parts(), headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["reason_code"] == "too_large"


async def test_a_body_that_says_it_is_too_long_is_not_read(stack: StackDouble) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("a byte was asked for")

    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer ann"), (b"content-length", b"9" * 30)]
    scope = {"type": "http", "method": "POST", "path": "/v1/runs", "query_string": b"", "headers": headers}
    await http_api(stack)(scope, receive, send)
    assert answered[0]["status"] == 413


async def test_who_has_no_credential_fills_no_memory(stack: StackDouble) -> None:
    """Of a body that is large no more is read than shows it; somebody's is read to its end."""
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"request":"pay"'
        while sent < 1_000_000:
            sent += 16_384
            yield b" " * 16_384
        yield b"}"

    headers = {"content-type": "application/json"}
    async with client_of(stack, "mallory") as client:
        answer = await client.post("/v1/runs", content=parts(), headers=headers)
        assert answer.status_code == 401 and sent < 100_000
        sent = 0
        answer = await client.post("/v1/runs", content=parts(), headers=headers | {"authorization": "Bearer ann"})
        assert answer.status_code == 202


async def test_a_body_that_does_not_come_is_not_waited_for(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.0)
    answered: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        answered.append(message)

    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer ann")]
    scope = {"type": "http", "method": "POST", "path": "/v1/runs", "query_string": b"", "headers": headers}
    await http_api(stack)(scope, receive, send)
    assert answered[0]["status"] == 408


async def test_a_credential_leaves_room_for_others(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests beyond so many at once are to come again; one that is over makes room."""
    monkeypatch.setattr(server, "MAX_OF_CREDENTIAL", 2)
    held, began = asyncio.Event(), asyncio.Semaphore(0)
    ask = stack.ask

    async def slow(method: Any, request: Any) -> Any:
        began.release()
        await held.wait()
        return await ask(method, request)

    monkeypatch.setattr(stack, "ask", slow)
    async with client_of(stack, "ann") as client:
        waiting = [asyncio.ensure_future(client.get("/v1/runs")) for _ in range(2)]
        await began.acquire()
        await began.acquire()
        refused = await client.get("/v1/runs")
        assert refused.status_code == 429 and refused.headers["retry-after"]
        other = asyncio.ensure_future(client.get("/v1/runs", headers={"authorization": "Bearer bob"}))
        await began.acquire()
        held.set()
        assert [(await each).status_code for each in (*waiting, other)] == [200] * 3
        assert (await client.get("/v1/runs")).status_code == 200


def test_every_code_has_a_sentence_and_a_status_of_a_refusal() -> None:
    """A reason of the stack's has its own, and what nobody knows is still a problem."""
    for code in (*REFUSALS, *ReasonCode, "nobody_knows"):
        refusal = refusal_of(code)
        assert refusal.title.endswith(".") and 400 <= refusal.status < 600
        ours = ("unavailable", "internal_error", "memory_unavailable", "auth_keys_unavailable")
        assert refusal.status < 500 or code in ours
    assert problem_of("wrong_role", "x" * 10_000).detail == "x" * 4_000


async def test_a_server_that_begins_and_ends_needs_nothing_else(stack: StackDouble) -> None:
    messages = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
    said: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        said.append(message["type"])

    await http_api(stack)({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
