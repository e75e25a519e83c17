"""Who may speak to the gateway over HTTP, from where, and how much."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

import airside.actors.gateway.http as http
from airside.actors.gateway.calls import Caller
from airside.actors.gateway.http import MAX_BODY_BYTES, http_app
from airside.stack.errors import AuthRefused, LayerUnavailable
from airside.stack.operations.messages import ServedTool

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
USUAL = {
    "authorization": "Bearer good",
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "host": "127.0.0.1:8400",
}


class Calls:
    """A stack that knows one credential; notes which it is asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def identify(self, credential: str) -> Caller:
        self.asked.append(credential)
        if credential == "down":
            raise LayerUnavailable("ingress is away")
        if credential != "good":
            raise AuthRefused("no such token", reason="auth_unknown_key")
        return Caller("acme", "ann", credential)

    async def tools(self, _: Caller) -> tuple[ServedTool, ...]:
        return (
            ServedTool(name="look", description="", parameters=b'{"type":"object"}', effect="read", repeatable=False),
        )


async def post(calls: Calls, body: bytes = json.dumps(LIST).encode(), **headers: str) -> httpx2.Response:
    """Send one request."""
    app = http_app(calls, b"k" * 32, "stack", ["mcp.example.com"])  # type: ignore[arg-type]
    given = {name: value for name, value in (USUAL | headers).items() if value}
    inner = app._app  # type: ignore[attr-defined]
    async with (
        inner.router.lifespan_context(inner),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1:8400") as client,
    ):
        return await client.post("/mcp", content=body, headers=given)


async def test_who_has_a_credential_is_answered() -> None:
    """By the names of loopback, and by the one that it was told of."""
    for host in ("127.0.0.1:8400", "localhost", "[::1]:9", "mcp.example.com", "mcp.example.com:443"):
        answer = await post(Calls(), host=host)
        assert answer.status_code == 200 and '"look"' in answer.text, host


@pytest.mark.parametrize("authorization", ["", "good", "Basic good", "Bearer", "Bearer bad"])
async def test_who_has_none_is_refused_before_a_byte_is_read(authorization: str) -> None:
    """The refusal says how to come, and nothing of tools."""
    answer = await post(Calls(), b"no JSON at all", authorization=authorization)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"].startswith("auth_")


async def test_a_stack_that_does_not_answer_lets_nobody_in() -> None:
    assert (await post(Calls(), authorization="Bearer down")).status_code == 503


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com", "mcp.example.com.evil.org:80"])
async def test_a_name_that_it_was_not_told_of_is_refused(host: str) -> None:
    """A page whose name was made to lead here is not let in with a credential that a browser might hold."""
    assert (await post(Calls(), host=host)).status_code == 421


@pytest.mark.parametrize("origin", ["https://evil.example.com", "http://localhost:3000", "null"])
async def test_no_browser_is_a_client(origin: str) -> None:
    answer = await post(Calls(), origin=origin)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PUT", "HEAD"])
async def test_there_is_nothing_but_messages(method: str) -> None:
    """No stream that its client holds open, no session to end, no word to a browser; nobody is asked whose it is."""
    calls = Calls()
    app = http_app(calls, b"k" * 32, "stack")  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1") as client:
        answer = await client.request(method, "/mcp", headers=USUAL | {"mcp-session-id": "a"})
    assert answer.status_code == 405 and answer.headers["allow"] == "POST" and calls.asked == []


async def test_a_tenant_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests beyond so many at once are to come again; one that is over makes room."""
    monkeypatch.setattr(http, "MAX_OF_TENANT", 2)
    held, began = asyncio.Event(), asyncio.Semaphore(0)

    class Holding(Calls):
        async def tools(self, caller: Caller) -> tuple[ServedTool, ...]:
            began.release()
            await held.wait()
            return await super().tools(caller)

        async def identify(self, credential: str) -> Caller:
            return Caller(credential, "ann", credential)

    app = http_app(Holding(), b"k" * 32, "stack")  # type: ignore[arg-type]
    inner = app._app  # type: ignore[attr-defined]
    async with (
        inner.router.lifespan_context(inner),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1:8400") as client,
    ):

        async def ask(tenant: str) -> httpx2.Response:
            headers = USUAL | {"authorization": f"Bearer {tenant}"}
            return await client.post("/mcp", content=json.dumps(LIST).encode(), headers=headers)

        waiting = [asyncio.ensure_future(ask("acme")) for _ in range(2)]
        await began.acquire()
        await began.acquire()
        refused = await ask("acme")
        assert refused.status_code == 429 and refused.headers["retry-after"]
        other = asyncio.ensure_future(ask("globex"))
        await began.acquire()
        held.set()
        assert [(await each).status_code for each in (*waiting, other)] == [200] * 3
        assert (await ask("acme")).status_code == 200 and not app._of_tenant  # type: ignore[attr-defined]


async def test_a_message_that_is_too_long_is_refused() -> None:
    answer = await post(Calls(), b'{"x": "' + b"y" * MAX_BODY_BYTES + b'"}')
    assert answer.status_code == 413
