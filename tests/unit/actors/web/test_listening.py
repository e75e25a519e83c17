"""Where it is listened, for whom, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

import airside.actors.web.listening as listening
from airside.actors.web.listening import Listener, Tls, listen, serve_http
from airside.stack.errors import Failed, Misuse

APP = PlainTextResponse("here")


def listened(address: str, hosts: tuple[str, ...] = ()) -> Listener:
    """Listen as a command does."""
    return listen(address, hosts, option="--http", name_option="--host")


@pytest.mark.parametrize("said", [b"", b"POST /mcp HTTP/1.1\r\nHost: "])
async def test_a_connection_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """And so is one whose headers do not come to an end."""
    monkeypatch.setattr(listening, "BODY_S", 0.05)
    listener = listened("127.0.0.1:0")
    serving = asyncio.ensure_future(serve_http(APP, listener))
    try:
        reader, writer = await asyncio.open_connection(*listener.socket.getsockname())
        writer.write(said)
        assert await reader.read() == b""
        writer.close()
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def test_an_answer_is_sent_at_once() -> None:
    """What follows its head does not wait for the client's acknowledgement of that."""
    delays: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        (connection,) = server.server_state.connections
        delays.append(connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))  # type: ignore[union-attr]
        await APP(scope, receive, send)

    listener, server = listened("127.0.0.1:0"), listening.server_of(app, tls=None, trusted_proxies=())
    serving = asyncio.ensure_future(server.serve(sockets=[listener.socket]))
    try:
        async with httpx2.AsyncClient() as client:
            assert (await client.get(listener.url)).text == "here" and delays[0] != 0
    finally:
        server.should_exit = True
        await serving


def test_it_listens_where_others_reach_it_only_under_names_it_was_given() -> None:
    """An address that it says is open already."""
    for address in ("0.0.0.0:0", "[::]:0", "example.com:0"):
        with pytest.raises(Misuse, match="--host"):
            listened(address)
    for address in ("8400", "127.0.0.1", "127.0.0.1:no", "127.0.0.1:70000", "127.0.0.1:²", ":1"):
        with pytest.raises(Misuse, match="HOST:PORT"):
            listened(address)
    made = listened("127.0.0.1:0")
    with made.socket:
        port = made.socket.getsockname()[1]
        assert made.url == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            pass
        with pytest.raises(Failed, match="--http"):
            listened(f"127.0.0.1:{port}")


async def test_a_certificate_that_is_none_is_said_to_be(tmp_path: Path) -> None:
    """Before anything is served."""
    (tmp_path / "cert.pem").write_text("no certificate")
    listener = listened("127.0.0.1:0")
    with listener.socket:
        for name in ("cert.pem", "gone.pem"):
            tls = Tls(certificate=tmp_path / name, key=tmp_path / "cert.pem")
            with pytest.raises(Misuse, match=name):
                await serve_http(APP, listener, tls=tls)


async def test_a_certificate_is_served_with(tmp_path: Path) -> None:
    """Whoever trusts it reaches what is served, and nobody does in clear."""
    tls = self_signed(tmp_path)
    listener = listened("127.0.0.1:0")
    serving = asyncio.ensure_future(serve_http(APP, listener, tls=tls))
    try:
        host, port = listener.socket.getsockname()
        async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=str(tls.certificate))) as client:
            assert (await client.get(f"https://{host}:{port}/")).text == "here"
            with pytest.raises(httpx2.TransportError):
                await client.get(f"http://{host}:{port}/")
    finally:
        serving.cancel()
        await asyncio.wait({serving})


def self_signed(folder: Path) -> Tls:
    """Make a certificate of this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    tls = Tls(certificate=folder / "cert.pem", key=folder / "key.pem")
    tls.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    tls.key.write_bytes(key.private_bytes(*plain))
    return tls


async def connected(address: tuple[str, int], said: bytes = b"") -> socket.socket:
    """Connect as a client that takes little at a time, and say something."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, address)
    await loop.sock_sendall(made, said)
    return made


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
async def test_a_client_that_reads_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    """Whether its answer is still written, or its connection is to close; whoever reads has time."""
    monkeypatch.setattr(listening, "SEND_S", 0.02)
    began = asyncio.Event()

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        await PlainTextResponse("x" * 20_000_000)(scope, receive, send)

    listener = listened("127.0.0.1:0")
    serving = asyncio.ensure_future(serve_http(large, listener))
    try:
        client = await connected(listener.socket.getsockname(), REQUEST + more + b"\r\n")
        with client:
            await began.wait()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await until_it_is_gone(client)
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def until_it_is_gone(client: socket.socket) -> None:
    """Send, and read nothing, until there is nobody to send to."""
    async with asyncio.timeout(20.0):
        while True:
            await asyncio.get_running_loop().sock_sendall(client, b"\r\n")
            await asyncio.sleep(0.01)


async def test_an_address_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever is one too many is let go at once, before anything is read."""
    monkeypatch.setattr(listening, "MAX_OF_ADDRESS", 3)
    listener = listened("127.0.0.1:0")
    serving = asyncio.ensure_future(serve_http(APP, listener))
    try:
        address = listener.socket.getsockname()
        held = [await asyncio.open_connection(*address) for _ in range(3)]
        reader, writer = await asyncio.open_connection(*address)
        writer.write(REQUEST + b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        other, its = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
        its.write(REQUEST + b"Connection: close\r\n\r\n")
        assert (await other.read()).endswith(b"here")
        for _, each in (*held, (reader, writer), (other, its)):
            each.close()
    finally:
        serving.cancel()
        await asyncio.wait({serving})
