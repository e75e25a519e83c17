"""Servers that are reached by a URL: where is connected to, what is sent, and what a cut connection means."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest
import uvicorn

from airside.stack.errors import InvalidConfig
from airside.tools.builtin.http_exchange import resolve
from airside.tools.builtin.urls import parse_url
from airside.tools.mcp.http import MAX_READS_A_MINUTE, CheckedNetwork, CheckedTransport
from airside.tools.mcp.server import McpServer
from airside.tools.tool import ToolError
from tests.apps.mcp_server import Served
from tests.tool_servers import MAPPING, TOKEN, Behind, approve, declared, offer_of


class Middle:
    """A connection to the server with somebody in the middle, who may cut it once an answer comes."""

    def __init__(self, to_port: int) -> None:
        self.seen = b""
        self.cuts = False
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> int:
        """Listen, and return the port."""
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and cut what there is."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._writers += [writer, other_writer]
        await asyncio.gather(self._pass(reader, other_writer, False), self._pass(other_reader, writer, True))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                self.seen += b"" if is_answer else data
                if is_answer and self.cuts and b"tools/call" in self.seen:
                    break
                writer.write(data)
        writer.transport.abort()


@pytest.fixture
async def middle(tmp_path: Path) -> AsyncIterator[tuple[Middle, int]]:
    """Serve over HTTP, behind a middle; yield it with its port."""
    app = Served(tmp_path, 1).server.streamable_http_app(streamable_http_path="/mcp")
    serving = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="on"))
    task = asyncio.ensure_future(serving.serve())
    while not serving.started:  # noqa: ASYNC110 - the library has no other way to say it
        await asyncio.sleep(0)
    made = Middle(serving.servers[0].sockets[0].getsockname()[1])
    yield made, await made.open()
    await made.close()
    serving.should_exit = serving.force_exit = True
    await task


def reached(folder: Path, port: int, **fields: Any) -> McpServer:
    """Return the server by its URL, as a folder's pin file has it."""
    mapping = {"private": True, "tools": MAPPING}
    given = {"command": (), "url": f"http://127.0.0.1:{port}/mcp", "mapping": mapping, "env": {}}
    return declared(folder, **(given | fields))


async def approved(folder: Path, port: int, **fields: Any) -> Behind:
    """Return an executor with the server, approved as it is."""
    server = reached(folder, port, **fields)
    approve(server, await offer_of(server, {"token": "the-token-of-the-server"}))
    return Behind(server, folder, secrets=TOKEN)


async def test_calls_are_made_with_headers_that_are_given_and_secrets(
    tmp_path: Path, middle: tuple[Middle, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_TOKEN", "the-token-of-the-server")
    secrets, headers = {"authorization": "token"}, {"x-team": "shop"}
    behind = await approved(tmp_path, middle[1], secrets=secrets, headers=headers)
    assert (await behind.run("add", {"number": 1})).value() == {"text": "added 1"}
    assert b"authorization: Bearer the-token-of-the-server\r\n" in middle[0].seen.replace(
        b"Authorization", b"authorization"
    )
    assert b"x-team: shop\r\n" in middle[0].seen and b"io.airside/idempotencyKey" in middle[0].seen
    await behind.close()


async def test_a_call_whose_answer_is_cut_is_in_doubt_and_is_not_sent_again(
    tmp_path: Path, middle: tuple[Middle, int]
) -> None:
    behind = await approved(tmp_path, middle[1])
    assert (await behind.run("total")).value() == {"text": "0"}
    middle[0].cuts = True
    result = await behind.run("add", {"number": 5})
    assert result.reason_code == "tool_in_doubt" and "it was sent, and may have been carried out" in result.error
    assert behind.effects() == ["add 5"] and middle[0].seen.count(b'"name":"add"') == 1
    middle[0].cuts = False
    assert (await behind.run("total")).reason_code == "tool_unavailable", "another session is opened"
    await behind.settled()
    assert (await behind.run("total")).value() == {"text": "1"}
    await behind.close()


async def test_a_call_that_finds_no_connection_has_done_nothing(tmp_path: Path, middle: tuple[Middle, int]) -> None:
    """But on a later attempt nobody knows what the earlier one did."""
    behind = await approved(tmp_path, middle[1])
    assert (await behind.run("total")).ok
    await middle[0].close()
    result = await behind.run("add", {"number": 5})
    assert result.reason_code == "tool_failed" and "nothing was sent: no connection" in result.error
    assert (await behind.run("add", {"number": 5}, attempt=2)).reason_code == "tool_in_doubt"
    assert behind.effects() == []
    await behind.close()


async def test_a_server_in_quarantine_over_http(tmp_path: Path, middle: tuple[Middle, int]) -> None:
    behind = await approved(tmp_path, middle[1])
    await behind.run("change", {"text": "describe"})
    source = behind.states()[0].value.source
    async with asyncio.timeout(30):
        while not source.quarantined:  # noqa: ASYNC110 - the server says so in its own time
            await asyncio.sleep(0.01)
    assert (await behind.run("total")).reason_code == "tool_quarantined"
    await behind.close()


async def test_a_name_of_a_private_address_is_not_connected_to(tmp_path: Path) -> None:
    server = reached(tmp_path, 1, url="https://localhost/mcp", mapping={"tools": {}})
    with pytest.raises(ToolError, match=r"localhost: .* is a private address.*private: true"):
        await offer_of(server)


async def test_a_server_that_ends_its_stream_again_and_again_is_not_asked_for_it_any_more() -> None:
    """Nor is it logged each time."""
    network = CheckedNetwork(parse_url("https://example.com/"), private=False, resolve=resolve)
    transport = CheckedTransport(network, ssl.create_default_context(), "word")
    asked: list[bytes] = []

    async def answer(request: httpcore2.Request) -> httpcore2.Response:
        asked.append(request.method)
        return httpcore2.Response(200, content=b"")

    transport._pool.handle_async_request = answer  # type: ignore[method-assign]
    for method in ["GET"] * (MAX_READS_A_MINUTE + 5) + ["POST"]:
        said = await transport.handle_async_request(httpx2.Request(method, "https://example.com/", content=b""))
    assert said.status_code == 200 and len(asked) == MAX_READS_A_MINUTE + 1
    for library in ("mcp.client.streamable_http", "httpx2"):
        assert not logging.getLogger(library).isEnabledFor(logging.ERROR)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 307 X\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", "not followed"),
        (b"HTTP/1.1 307 X\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n", "a redirect of what was sent is not"),
        (b"HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n", "compressed"),
        (
            b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 5000000\r\n\r\n" + b" " * 5_000_000,
            "over 4,194,304 bytes",
        ),
        (b"no HTTP at all\r\n\r\n", "the connection was lost"),
    ],
)
async def test_what_is_no_answer_of_a_server_is_said(tmp_path: Path, answer: bytes, said: str) -> None:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as listening:
        with pytest.raises(ToolError, match=said):
            await offer_of(reached(tmp_path, listening.sockets[0].getsockname()[1]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "http://example.com/mcp", "mapping": {}}, "is not https"),
        ({"url": "https://10.0.0.1/mcp", "mapping": {}}, "10.0.0.1 is a private address"),
        ({"url": "https://169.254.169.254/", "mapping": {"private": True}}, "where a cloud gives out credentials"),
        ({"url": "https://user@example.com/", "mapping": {}}, "user information"),
        ({"url": "https://example.com/", "mapping": {"network": True}}, "are those of a command"),
        ({"url": "https://example.com/", "headers": {"Host": "x"}}, "'Host' is no header"),
        ({"url": "https://example.com/", "secrets": {"Mcp-Session-Id": "X"}}, "'Mcp-Session-Id' is no header"),
        ({"url": ""}, "give either command="),
    ],
)
async def test_a_url_that_cannot_be_meant_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        reached(tmp_path, 1, **fields).read_toolset()
