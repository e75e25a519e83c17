"""What comes over a socket, whoever sends it: odd bytes, too much of them, too slowly; and many streams at once."""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import airside.actors.api.server as server
import airside.actors.web.listening as listening
from airside.actors.api.server import MAX_BODY_BYTES, MAX_OF_CREDENTIAL, http_api
from airside.actors.console.server import Console, with_console
from airside.actors.rpc.methods import WATCH_RUN
from airside.actors.web.listening import listen, serve_http
from tests.unit.actors.api import double
from tests.unit.actors.api.double import PEOPLE, StackDouble, caller

STREAMS = 1_000
SEEDS = 300
"""Of odd requests in every run of the tests; the thorough run has a hundred times as many."""

Address = tuple[str, int]


@pytest.fixture
def stack() -> StackDouble:
    """A stack."""
    return StackDouble()


@asynccontextmanager
async def served(stack: StackDouble) -> AsyncIterator[Address]:
    """Serve the API and the console as the command does, on a port of this machine."""
    listener = listen("127.0.0.1:0", (), option="--host", name_option="--allowed-host")
    serving = asyncio.ensure_future(serve_http(with_console(http_api(stack), Console(stack)), listener))
    try:
        yield listener.socket.getsockname()
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def said(address: Address, *parts: bytes) -> bytes:
    """Send bytes, end, and return all that is answered."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(20.0):
            for part in parts:
                writer.write(part)
                await writer.drain()
            writer.write_eof()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def request(path: str = "/v1/runs", *headers: str, method: str = "GET", who: str = "ann", body: bytes = b"") -> bytes:
    """Return a request as it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {who}", "Connection: close"]
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, *length, *headers, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    """Return the status of an answer; 0 if there was none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


# Odd bytes.

ODD = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"GET /v1/runs HTTP/9.9\r\nHost: localhost\r\n\r\n", 401),
    (b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421),
    (b"GET http://evil.example.com/v1/runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    (b"GET /v1/runs HTTP/1.0\r\n\r\n", 421),
    (b"GET /v1/runs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example.com\r\n\r\n", 400),
    (request("/v1/runs", "X-Long: " + "x" * 300_000), 0),
    (request("/v1/runs?" + "a" * 9_000), 400),
    (request("/v1/runs", "X-Null: a\x00b"), 400),
    (request("/v1/runs", "X Space: a"), 400),
    (request("/v1/runs", *[f"X-{number}: 1" for number in range(4_000)]), 200),
    (request("/v1/runs", "Upgrade: websocket", "Connection: Upgrade"), 200),
    (request("/v1/runs", "Expect: 200-maybe"), 200),
    (request("/v1/runs", "Range: bytes=0-1"), 200),
    (request("/v1/runs", who="é"), 401),
    (request("/v1/runs", "Authorization: Bearer bob"), 401),
    (request("/v1/runs", method="GET" * 200), 405),
]


@pytest.mark.parametrize(("sent", "status"), ODD, ids=range(len(ODD)))
async def test_what_is_odd_is_refused_and_no_error_of_ours(stack: StackDouble, sent: bytes, status: int) -> None:
    async with served(stack) as address:
        assert status_of(await said(address, sent)) == status
        assert status_of(await said(address, request())) == 200


SMUGGLED = (
    b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ann\r\nContent-Type: application/json\r\n"
)
HIDDEN = SMUGGLED + b'Content-Length: 17\r\n\r\n{"request":"pay"}'


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n",
        b"Content-Length: 0, %d\r\n\r\n",
        b"Content-Length: +%d\r\n\r\n",
        b"Content-Length: 0x%x\r\n\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: %d\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n%d",
        b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n%d",
    ],
)
async def test_nothing_is_smuggled_behind_a_length_that_is_not_plain(stack: StackDouble, framing: bytes) -> None:
    """Whoever stands before may read it otherwise: what follows is no request of ours."""
    sent = SMUGGLED + (framing % len(HIDDEN)) + HIDDEN
    async with served(stack) as address:
        answer = await said(address, sent)
    assert not stack.runs and b" 202 " not in answer, answer[:200]


def odd_request(seed: int) -> bytes:
    """Return a request that something was done to."""
    chance = random.Random(seed)
    names = ("Host", "Authorization", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Cookie")
    names += ("Last-Event-ID", "Idempotency-Key", "Origin", "X-Forwarded-For", "X-Forwarded-Host", "Sec-Fetch-Site")
    values = ("localhost", "Bearer ann", "application/json", "5", "chunked", "keep-alive", "airside_session=x", "")
    values += ("\x7f", "\xff" * 3, " ", "null", "-1", "9" * 30, "a" * 3_000, "a, b", '"', "%0d%0a", "http://[", ";=;")
    paths = ("/v1/runs", "/v1/health/live", "/console/now", "/console/login", "/", "*", "/v1/runs/run_" + "a" * 24)
    paths += (
        "/v1/runs/%00/events",
        "/console/static/..%2f..%2fx",
        "/v1/approvals/votes",
        "/v1//runs",
        "/v1/runs?limit=%ff",
    )
    method = chance.choice(("GET", "POST", "HEAD", "PUT", "OPTIONS", "get", "G\x00T"))
    lines = [f"{method} {chance.choice(paths)} HTTP/1.{chance.choice('0112')}"]
    lines += ["Host: localhost", "Connection: close", "Authorization: Bearer ann"][: chance.randrange(4)]
    lines += [f"{chance.choice(names)}:{chance.choice(values)}" for _ in range(chance.randrange(6))]
    body = bytes(chance.randrange(256) for _ in range(chance.choice((0, 0, 5, 200))))
    sent = bytearray("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    for _ in range(chance.choice((0, 0, 1, 4))):
        sent[chance.randrange(len(sent))] = chance.randrange(256)
    return bytes(sent)


async def fuzz(stack: StackDouble, seeds: range) -> None:
    """Send odd requests, some at a time; each is answered below 500 or not at all, and so is what comes after them."""
    async with served(stack) as address:
        for first in range(seeds.start, seeds.stop, 50):
            sent = [odd_request(seed) for seed in range(first, min(first + 50, seeds.stop))]
            for each, answer in zip(sent, await asyncio.gather(*(said(address, one) for one in sent)), strict=True):
                assert status_of(answer) < 500, (each, answer[:300])
        assert status_of(await said(address, request())) == 200


async def test_odd_headers_are_no_error_of_ours(stack: StackDouble) -> None:
    await fuzz(stack, range(SEEDS))


@pytest.mark.slow
async def test_odd_headers_are_never_an_error_of_ours(stack: StackDouble) -> None:
    await fuzz(stack, range(SEEDS, 100 * SEEDS))


# Too much, too slowly.


async def test_a_body_in_tiny_pieces_is_bounded_as_any(stack: StackDouble) -> None:
    """And while it comes others are answered."""
    head = request("/v1/runs", "Transfer-Encoding: chunked", "Content-Type: application/json", method="POST")
    pieces = b"1\r\n \r\n" * 20_000
    async with served(stack) as address:
        slow = asyncio.ensure_future(said(address, head, *[pieces] * 3, b'11\r\n{"request":"pay"}\r\n0\r\n\r\n'))
        assert status_of(await said(address, request())) == 200
        assert status_of(await slow) == 202
        large = b"%x\r\n%s\r\n" % (65_536, b" " * 65_536)
        assert status_of(await said(address, head, *[large] * (MAX_BODY_BYTES // 65_536 + 2))) in (413, 0)


BOMBS = {
    "deep": b'{"request":"x","inputs":{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}}",
    "many": b'{"request":"x","inputs":{"a":[' + b"0," * 1_000_000 + b"0]}}",
    "number": b'{"request":"x","inputs":{"a":' + b"9" * 1_000_000 + b"}}",
    "exponent": b'{"request":"x","inputs":{"a":1e999999999}}',
    "twice": b'{"request":"x","request":"y"}',
    "hidden": b'{"request":"x","inputs":{"\\u0061":1,"a":2}}',
    "surrogate": b'{"request":"\\ud800"}',
    "null": b'{"request":"\\u0000"}',
    "bytes": b'{"request":"\xc0\xaf"}',
    "mark": b'\xef\xbb\xbf{"request":"x"}',
    "utf-16": '{"request":"x"}'.encode("utf-16"),
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
async def test_json_that_is_a_bomb_is_refused_soon(stack: StackDouble, body: bytes) -> None:
    """Nothing is submitted, and others are answered meanwhile."""
    sent = request("/v1/runs", "Content-Type: application/json", method="POST", body=body)
    async with served(stack) as address:
        bomb = asyncio.ensure_future(said(address, sent))
        async with asyncio.timeout(5.0):
            assert status_of(await said(address, request())) == 200
        assert status_of(await bomb) in (400, 413, 422) and not stack.runs


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """Return what is sent before a connection ends; one that is shut with something unread in it is reset."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_who_sends_slowly_is_not_waited_for(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of them, each somewhere else in a request; others are answered beside them."""
    monkeypatch.setattr(listening, "BODY_S", 0.3)
    whole = request()
    async with served(stack) as address:
        slow = [await asyncio.open_connection(*address) for _ in range(100)]
        for place, (_, writer) in enumerate(slow):
            writer.write(whole[: place % (len(whole) - 1)])
        assert status_of(await said(address, request())) == 200
        async with asyncio.timeout(20.0):
            ends = await asyncio.gather(*(end_of(reader) for reader, _ in slow))
        assert not any(ends)
        for _, writer in slow:
            writer.close()


# Streams.


async def streamed(stack: StackDouble, most: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Open streams, of as many credentials as that takes, and end their runs; return how long others waited, in s."""
    names = [f"p{number}" for number in range(-(-most // MAX_OF_CREDENTIAL))]
    monkeypatch.setattr(double, "PEOPLE", PEOPLE | {name: caller(name, "agent") for name in names})
    runs = {name: stack.submitted(name, nonce=name.encode()) for name in names}
    whose = [names[number % len(names)] for number in range(most)]
    over, ask = asyncio.Event(), stack.ask
    waits = [0.0]

    async def news(method: Any, asked: Any) -> Any:
        """Wait for news, as the stack does."""
        if method is WATCH_RUN and asked.timeout_s:
            await over.wait()
        return await ask(method, asked)

    monkeypatch.setattr(stack, "ask", news)
    async with served(stack) as address, asyncio.timeout(60.0):
        held = [await asyncio.open_connection(*address) for _ in whose]
        for (_, writer), who in zip(held, whose, strict=True):
            writer.write(request(f"/v1/runs/{runs[who]}/events", who=who))
        for reader, _ in held:
            await reader.readuntil(b"event: event")
        for _ in range(20):
            began = time.monotonic()
            assert status_of(await said(address, request())) == 200
            waits.append(time.monotonic() - began)
        for run in runs.values():
            stack.end(run)
        over.set()
        told = await asyncio.gather(*(reader.read() for reader, _ in held))
        for _, writer in held:
            writer.close()
        assert all(b"RunEnded" in each for each in told)
        assert status_of(await said(address, request())) == 200
    return max(waits)


async def test_streams_leave_room_for_others(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each hears of its run's end."""
    assert await streamed(stack, 150, monkeypatch) < 5.0


@pytest.mark.slow
async def test_a_thousand_streams_leave_room_for_others(stack: StackDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """And take no memory to speak of, their clients included."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    waited_s = await streamed(stack, STREAMS, monkeypatch)
    used_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    print({"streams": STREAMS, "others_waited_ms": round(1000 * waited_s), "used_mb": round(used_mb)})
    assert waited_s < 5.0 and used_mb < 300


async def test_a_reader_that_never_reads_its_stream_loses_it(
    stack: StackDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is somebody's again, soon; it may come back with the last id that it has."""
    monkeypatch.setattr(listening, "SEND_S", 0.05)
    monkeypatch.setattr(server, "MAX_OF_CREDENTIAL", 1)
    run, ask = stack.submitted(text="x" * 60_000), stack.ask
    stack.runs[run] *= 300

    async def silent(method: Any, asked: Any) -> Any:
        """Wait for news, of which there are none."""
        if method is WATCH_RUN and asked.timeout_s:
            await asyncio.Event().wait()
        return await ask(method, asked)

    monkeypatch.setattr(stack, "ask", silent)
    async with served(stack) as address:
        client = socket.socket()
        with client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, address)
            await loop.sock_sendall(client, request(f"/v1/runs/{run}/events"))
            assert await loop.sock_recv(client, 8) == b"HTTP/1.1"
            assert status_of(await said(address, request())) == 429
            async with asyncio.timeout(20.0):
                while status_of(await said(address, request())) == 429:
                    pass
            assert status_of(await said(address, request())) == 200
