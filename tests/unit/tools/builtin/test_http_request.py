"""`http_request`: what it reaches, what it refuses, and what of an answer it gives back; without a network."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ipaddress
import ssl
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import InvalidConfig, InvalidInput
from airside.tools import AllowedUrl, InDoubt, http_request
from airside.tools.builtin.addresses import Address, embedded, refused_address
from airside.tools.builtin.http_exchange import BoundedBody
from airside.tools.builtin.http_request import HttpSender
from airside.tools.builtin.urls import parse_url
from airside.tools.tool import Tool, ToolError
from tests.unit.tools.builtin.contexts import certificate, context

PUBLIC = "93.184.216.34"
NAMES = {
    "api.example.com": [PUBLIC],
    "www.example.org": ["2606:2800:220:1::1"],
    "deep.www.example.org": [PUBLIC],
    "files.example.com": [PUBLIC],
    "xn--bcher-kva.example": [PUBLIC],
    "evil.com": ["198.50.100.7"],
    "rebind.example.org": ["127.0.0.1"],
    "mixed.example.org": [PUBLIC, "10.0.0.1"],
    "metadata.example.org": ["169.254.169.254"],
    "azure.example.org": ["168.63.129.16"],
    "mapped.example.org": ["::ffff:10.0.0.1"],
    "translated.example.org": ["64:ff9b::7f00:1"],
    "teredo.example.org": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "sixtofour.example.org": ["2002:7f00:1::1"],
    "zero.example.org": ["0.0.0.0"],
    "cgnat.example.org": ["100.64.1.1"],
    "nowhere.example.org": [],
    "inner.example.net": ["10.1.2.3"],
    "link-local.example.net": ["169.254.1.1"],
}
ALLOW = [
    "https://api.example.com/v1",
    "https://*.example.org",
    "https://files.example.com:8443",
    "http://files.example.com",
    "https://bücher.example",
    "https://8.8.8.8",
    "https://[2606:4700::1111]",
    AllowedUrl("http://inner.example.net:8080", private=True),
    AllowedUrl("https://link-local.example.net", private=True),
]
ALLOWED_HOSTS = {
    "api.example.com",
    "files.example.com",
    "xn--bcher-kva.example",
    "8.8.8.8",
    "2606:4700::1111",
    "inner.example.net",
}


class _Transport:
    def abort(self) -> None:
        """Nothing is held."""


@dataclass
class Network:
    """Stands for resolver and servers: `answer(request)` gives the bytes that come back; None is no answer at all."""

    answer: Callable[[bytes], bytes | None] = lambda request: ok(b"hello")
    names: dict[str, list[str]] = field(default_factory=lambda: dict(NAMES))
    asked: list[str] = field(default_factory=list)
    connected: list[tuple[str, int, str]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    down: bool = False

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Answer from the table."""
        self.asked.append(host)
        if host not in self.names:
            raise OSError("no such name")
        return [ip_address(each) for each in self.names[host]]

    async def connect(self, address: str, port: int, tls_host: str, ca_file: str) -> Any:
        """Hand out a connection whose answer is there as soon as the request is written."""
        self.connected.append((address, port, tls_host))
        if self.down:
            raise ConnectionRefusedError("refused")
        reader = asyncio.StreamReader()
        return reader, _Writer(self, reader)

    def tool(self, **options: Any) -> Tool:
        """Return a tool on this network."""
        made = http_request(**({"allow": ALLOW} | options))
        sender = made.function.__self__  # type: ignore[attr-defined]
        assert isinstance(sender, HttpSender)
        return replace(made, function=replace(sender, resolve=self.resolve, connect=self.connect).request)

    def call(self, url: str, tool_options: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Call a tool on this network."""
        return asyncio.run(self.tool(**(tool_options or {}))(context(), url, **arguments))


class _Writer:
    transport = _Transport()

    def __init__(self, network: Network, reader: asyncio.StreamReader) -> None:
        self.network, self.reader = network, reader

    def write(self, data: bytes) -> None:
        self.network.requests.append(data)
        answer = self.network.answer(data)
        if answer is not None:
            self.reader.feed_data(answer)
            self.reader.feed_eof()

    async def drain(self) -> None:
        """All is written."""


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer as it is sent."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def moved(to: str, status: int = 302) -> bytes:
    """Return a redirect."""
    return ok(b"", f"location: {to}", status=f"{status} Moved")


REFUSED = """
https://evil.com/
http://api.example.com/v1
ftp://api.example.com/v1
file:///etc/passwd
//api.example.com/v1
api.example.com/v1
https:api.example.com/v1
https:/api.example.com/v1
https://
https:///v1
https://api.example.com:443@evil.com/v1
https://user:pass@api.example.com/v1
https://evil.com@api.example.com/v1
https://api.example.com@evil.com/v1
https://evil.com\\@api.example.com/v1
https://api.example.com\\.evil.com/v1
https:\\\\api.example.com/v1
https://api.example.com.evil.com/v1
https://evilapi.example.com/v1
https://example.org/
https://evilexample.org/
https://www.example.org.evil.com/
https://evil.com/.example.org
https://evil.com?.example.org
https://evil.com#.example.org
https://evil.com#@api.example.com/v1
https://api%2eexample%2ecom/v1
https://evil.com%2f.example.org/
https://evil.com%00.example.org/
https://evil.com\uff0f.example.org/
https://www..example.org/
https://www.example.org../
https://-www.example.org/
https://api.example.com:8443/v1
https://api.example.com:0443/v1
https://api.example.com:99999/v1
https://api.example.com:4 43/v1
https://api.example.com:/v1
https://api.example.com/v10
https://api.example.com/v2
https://api.example.com/v1/../admin
https://api.example.com/v1/%2e%2e/admin
https://api.example.com/v1/%252e%252e/admin
https://api.example.com/v1/..;/admin
https://api.example.com/v1/..%2fadmin
https://api.example.com/v1%2f..%2fadmin
https://api.example.com/v1/..%5cadmin
https://api.example.com/v1/x%2fadmin
https://api.example.com//v1
https://api.example.com/v1//x
https://api.example.com/v1/%00
https://api.example.com/v1/%zz
https://api.example.com/v1/ü
https://\u0430pi.example.com/v1
https://api.ex\u0430mple.com/v1
https://xn--pi-7kc.example.com/v1
https://bucher.example/
https://bu\u0308cher.example.evil.com/
https://2130706433/
https://0x7f000001/
https://0x7f.1/
https://0177.0.0.1/
https://127.1/
https://127.0.0.1/
https://127.0.0.1./
https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/
https://0.0.0.0/
https://134744072/
https://010.8.8.8/
https://8.8.8.8.example.com/
https://169.254.169.254/latest/meta-data/
https://[::1]/
https://[::]/
https://[::ffff:127.0.0.1]/
https://[::ffff:8.8.8.8]/
https://[::8.8.8.8]/
https://[64:ff9b::808:808]/
https://[2002:808:808::1]/
https://[fe80::1%25eth0]/
https://[fe80::1%eth0]/
https://[2606:4700::1111%251]/
https://[2606:4700::1112]/
https://[2606:4700::1111/
https://rebind.example.org/
https://mixed.example.org/
https://metadata.example.org/
https://azure.example.org/
https://mapped.example.org/
https://translated.example.org/
https://teredo.example.org/
https://sixtofour.example.org/
https://zero.example.org/
https://cgnat.example.org/
https://nowhere.example.org/
https://unknown.example.org/
https://link-local.example.net/
http://inner.example.net/
https://inner.example.net:8080/
javascript:alert(1)
data:text/plain,x
gopher://api.example.com/v1
""".strip().splitlines()

UNSEEN = [f"https://api.{c}example.com/v1" for c in "\t\n\r\0 \x7f\u200b\u00ad\u2060\ufeff\ud800"] + [
    " https://api.example.com/v1",
    "https://api.example.com/v1\r\nHost: evil.com",
    "https://api.example.com/v1/a b",
    "https://api.example.com/v1/%c0%ae%c0%ae/admin",
    "https://api.example.com/v1/..%c0%af..%c0%afadmin",
    "https://api.example.com/v1/..%20/admin",
    "https://api.example.com/v1/%ef%bc%8e%ef%bc%8e/admin",
    "https://api.example.com/v1?" + "x" * 5000,
    "ht\ttps://api.example.com/v1",
]

GOOD = {
    "https://api.example.com/v1": (PUBLIC, 443, "api.example.com"),
    "HTTPS://API.Example.COM/v1": (PUBLIC, 443, "api.example.com"),
    "https://api.example.com./v1/x?q=%2F..%2F&b=[1]": (PUBLIC, 443, "api.example.com"),
    "https://api.example.com:443/v1/x#https://evil.com": (PUBLIC, 443, "api.example.com"),
    "https://www.example.org": ("2606:2800:220:1::1", 443, "www.example.org"),
    "https://deep.www.example.org/a%20b/%C3%BC": (PUBLIC, 443, "deep.www.example.org"),
    "https://www。example。org/": ("2606:2800:220:1::1", 443, "www.example.org"),
    "https://files.example.com:8443/x//y%2fz": (PUBLIC, 8443, "files.example.com"),
    "http://files.example.com/x": (PUBLIC, 80, ""),
    "https://bücher.example/": (PUBLIC, 443, "xn--bcher-kva.example"),
    "https://BÜCHER.example/": (PUBLIC, 443, "xn--bcher-kva.example"),
    "https://bu\u0308cher.example/": (PUBLIC, 443, "xn--bcher-kva.example"),
    "https://xn--bcher-kva.example/": (PUBLIC, 443, "xn--bcher-kva.example"),
    "https://8.8.8.8/dns-query": ("8.8.8.8", 443, "8.8.8.8"),
    "https://[2606:4700:0:0::1111]/": ("2606:4700::1111", 443, "2606:4700::1111"),
    "http://inner.example.net:8080/": ("10.1.2.3", 8080, ""),
}


@pytest.mark.parametrize("url", [*REFUSED, *UNSEEN], ids=ascii)
def test_a_url_that_no_entry_allows_connects_to_nothing(url: str) -> None:
    """Whatever a parser could take it for, and whatever its host's name is resolved to."""
    network = Network()
    with pytest.raises(ToolError):
        network.call(url)
    assert network.connected == []


@pytest.mark.parametrize("url", GOOD, ids=ascii)
def test_a_url_that_an_entry_allows_is_asked_of_the_address_that_was_checked(url: str) -> None:
    """By one look-up, and with TLS for the host's name."""
    network = Network()
    assert network.call(url)["text"] == "hello"
    assert network.connected == [GOOD[url]]
    assert len(network.asked) <= 1


def test_the_fragment_is_not_sent_and_the_host_is_the_one_that_was_compared() -> None:
    """What is sent is made of what was compared, not of the text."""
    network = Network()
    assert network.call("https://API.example.com.:443/v1/x?y#frag")["url"] == "https://api.example.com/v1/x?y"
    first, *headers = network.requests[0].split(b"\r\n")
    assert first == b"GET /v1/x?y HTTP/1.1" and b"host: api.example.com" in [line.lower() for line in headers]


def test_a_second_look_up_that_answers_otherwise_is_never_made() -> None:
    """A name that is rebound between the check and the connection changes nothing."""
    network = Network()
    answers = iter([[PUBLIC], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address(each) for each in next(answers)]

    network.resolve = resolve  # type: ignore[method-assign]
    network.call("https://www.example.org/")
    assert network.connected == [(PUBLIC, 443, "www.example.org")]
    with pytest.raises(ToolError, match="private address"):
        network.call("https://www.example.org/")


SERVERS = ["https://api.example.com/v1/a", "https://www.example.org/b", "http://files.example.com/c"]


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.com/",
        "//evil.com/",
        "https://rebind.example.org/",
        "https://mixed.example.org/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://api.example.com/v1",
        "https://api.example.com/admin",
        "/admin",
        "../admin",
        "/v1/%2e%2e/admin",
        "https://api.example.com@evil.com/",
        "\\\\evil.com",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://[::1",
    ],
)
def test_a_redirect_to_what_is_not_allowed_is_not_followed(location: str) -> None:
    """The answer says where it led, and why nobody went there."""
    network = Network(lambda request: moved(location))
    result = network.call(SERVERS[0])
    assert result["status"] == 302 and result["redirect_not_followed"] and result["headers"]["location"] == location
    assert network.connected == [(PUBLIC, 443, "api.example.com")]


def test_a_chain_of_redirects_is_followed_while_each_hop_is_allowed() -> None:
    """Relative ones too; each hop is resolved and checked, and the last one's URL is told."""
    hops = {
        b"/v1/a": moved("b/c"),
        b"/v1/b/c": moved(SERVERS[1], 307),
        b"/b": moved(SERVERS[2], 308),
        b"/c": ok(b"end"),
    }
    network = Network(lambda request: hops[request.split(b" ")[1]])
    result = network.call(SERVERS[0])
    assert (result["status"], result["text"], result["url"]) == (200, "end", SERVERS[2])
    assert [host for _, _, host in network.connected] == ["api.example.com", "api.example.com", "www.example.org", ""]
    hops[b"/c"] = moved("https://evil.com")
    assert network.call(SERVERS[0])["url"] == SERVERS[2]


def test_redirects_without_end_end() -> None:
    """After as many as are allowed."""
    network = Network(lambda request: moved("/v1/a"))
    assert "more than 2 redirects" in network.call(SERVERS[0], {"max_redirects": 2})["redirect_not_followed"]
    assert len(network.connected) == 3


POSTS = {"methods": ("GET", "POST", "HEAD"), "request_headers": ("authorization", "content-type", "x-mine")}


@pytest.mark.parametrize(
    ("status", "location", "sent"),
    [
        (302, "/v1/b", ["GET", ["authorization", "x-mine"], b""]),
        (303, "/v1/b", ["GET", ["authorization", "x-mine"], b""]),
        (307, "/v1/b", ["POST", ["authorization", "content-type", "x-mine"], b"body"]),
        (302, SERVERS[1], ["GET", [], b""]),
        (307, SERVERS[1], ["POST", ["content-type"], b"body"]),
    ],
)
def test_a_redirect_drops_what_browsers_drop(status: int, location: str, sent: list[Any]) -> None:
    """A POST becomes a GET, but of 307 and 308; what speaks for the sender stays at its origin."""
    network = Network(lambda request: moved(location, status) if b"/v1/a" in request else ok(b""))
    headers = {"Authorization": "Bearer of-the-agent", "X-Mine": "1", "content-type": "text/plain"}
    network.call(SERVERS[0], POSTS, method="POST", headers=headers, body="body")
    head, _, body = network.requests[1].partition(b"\r\n\r\n")
    names = {line.split(b":")[0].decode().lower() for line in head.split(b"\r\n")[1:]}
    assert [head.split()[0].decode(), sorted(names & {"authorization", "x-mine", "content-type"}), body] == sent


@pytest.mark.parametrize(
    "arguments",
    [
        {"headers": {"authorization": "Bearer x"}},
        {"headers": {"Host": "evil.com"}},
        {"headers": {"cookie": "a=b"}},
        {"headers": {"accept": "a\r\nhost: evil.com"}},
        {"headers": {"accept": "ä"}},
        {"body": "a GET has none"},
        {"method": "DELETE"},
    ],
)
def test_what_an_agent_may_not_give_is_refused_before_anything_is_sent(arguments: dict[str, Any]) -> None:
    """Headers that nobody allowed, values that would be further headers, a method that is not the tool's."""
    network = Network()
    with pytest.raises(ToolError):
        network.call(SERVERS[0], **arguments)
    assert network.connected == []


SECRET = "sk-live-0123456789+/secret"


@pytest.fixture
def secret_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The options of a tool with a secret for one host."""
    monkeypatch.setenv("SHOP_KEY", SECRET)
    return {"allow": [AllowedUrl("https://api.example.com/v1", secret_env="SHOP_KEY"), "https://www.example.org"]}


def test_a_secret_is_sent_to_its_host_alone(secret_tool: dict[str, Any]) -> None:
    """No redirect to elsewhere gets it, and none that comes back from there."""
    line = f"authorization: Bearer {SECRET}".encode()
    hops = {b"/v1/a": moved("/v1/b"), b"/v1/b": moved(SERVERS[1]), b"/b": moved("/v1/c"), b"/v1/c": ok(b"")}
    hops[b"/b"] = moved("https://api.example.com/v1/c")
    network = Network(lambda request: hops[request.split(b" ")[1]])
    network.call(SERVERS[0], secret_tool)
    assert [line in request for request in network.requests] == [True, True, False, False]


@pytest.mark.parametrize("as_text", [True, False])
def test_a_secret_that_comes_back_is_redacted(secret_tool: dict[str, Any], as_text: bool) -> None:
    """By its value, as it is and encoded, from text, headers, location, binary, and where the body was cut."""
    encoded = base64.b64encode(SECRET.encode()).decode()
    body = f"you sent {SECRET} or {encoded} ".encode() + (b"" if as_text else b"\0\xff") + b"x" * 50
    kind = "text/plain" if as_text else "application/octet-stream"
    answer = ok(body, f"content-type: {kind}", f"etag: {SECRET}", f"location: /v1?k={SECRET}")
    network = Network(lambda request: answer)
    result = network.call(SERVERS[0], secret_tool)
    shown = str(result) + base64.b64decode(result.get("base64", "")).decode("latin-1")
    assert SECRET not in shown and encoded not in shown and "[redacted]" in shown
    for size in range(40, len(body), 5):
        cut = network.call(SERVERS[0], {**secret_tool, "max_bytes": size})
        shown = cut.get("text", "") + base64.b64decode(cut.get("base64", "")).decode("latin-1")
        assert len(shown) <= size and SECRET[:6] not in shown and encoded[:6] not in shown


def test_a_secret_is_not_in_errors_and_one_that_is_not_there_sends_nothing(
    secret_tool: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the server's repeats nothing."""
    network = Network(lambda request: f"HTTP/1.1 {SECRET}\r\n\r\n".encode())
    with pytest.raises(ToolError) as caught:
        network.call(SERVERS[0], secret_tool)
    assert SECRET not in str(caught.value)
    monkeypatch.delenv("SHOP_KEY")
    network = Network()
    with pytest.raises(ToolError, match="SHOP_KEY is not there"):
        network.call(SERVERS[0], secret_tool)
    assert network.connected == []


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """Which is read at each call, so that it can be replaced."""
    (tmp_path / "key").write_text(SECRET + "\n")
    network = Network()
    entry = AllowedUrl(
        "https://api.example.com", secret_file=str(tmp_path / "key"), secret_header="X-Key", secret_prefix=""
    )
    network.call(SERVERS[0], {"allow": [entry]})
    assert f"x-key: {SECRET}".encode() in network.requests[0]


def test_a_body_is_bounded_while_it_is_decompressed() -> None:
    """A bomb, one of many members, one within its header, and one that fits."""
    bomb = gzip.compress(b"\0" * 5_000_000, 1)
    many = gzip.compress(b"") * 10_000
    for data in (bomb, many):
        network = Network(lambda request, data=data: ok(data, "content-encoding: gzip"))
        result = network.call(SERVERS[0], {"max_bytes": 10_000})
        assert result["truncated"]
        body = BoundedBody("gzip", 10_000)
        body.add(data)
        assert len(body.data) <= 10_000
    cut = gzip.compress(b"a" * 10_000)[:-12]
    assert Network(lambda request: ok(cut, "content-encoding: gzip")).call(SERVERS[0])["truncated"]
    fits = b"a" * 10_000
    for encoding, data in (
        ("gzip", gzip.compress(fits[:5_000]) + gzip.compress(fits[5_000:])),
        ("deflate", zlib.compress(fits)),
        ("deflate", zlib.compress(fits)[2:-4]),
    ):
        network = Network(lambda request, e=encoding, d=data: ok(d, f"content-encoding: {e}"))
        result = network.call(SERVERS[0], {"max_bytes": 10_000})
        assert (result["text"], result["truncated"]) == (fits.decode(), False)


@pytest.mark.parametrize(
    ("body", "header", "text"),
    [
        (b"gr\xc3\xbc\xc3\x9fe", "content-type: text/plain", "grüße"),
        (b"gr\xfc\xdfe", "content-type: text/plain; charset=iso-8859-1", "grüße"),
        (b'{"a": 1}', "content-type: application/problem+json", '{"a": 1}'),
        (b"\x89PNG\0", "content-type: image/png", None),
        (b"a\0b", "content-type: text/plain", None),
        (b"xn--", "content-type: text/plain; charset=punycode", "xn--"),
        (b"compressed", "content-encoding: br", None),
    ],
)
def test_a_body_is_text_where_it_is_text(body: bytes, header: str, text: str | None) -> None:
    """And base64 where not, so that no byte of an answer spoils the result."""
    result = Network(lambda request: ok(body, header)).call(SERVERS[0])
    assert result.get("text") == text
    assert text is not None or base64.b64decode(result["base64"]) == body


def test_a_text_that_is_cut_is_cut_between_characters() -> None:
    """And says so."""
    result = Network(lambda request: ok("ü".encode() * 100)).call(SERVERS[0], {"max_bytes": 101})
    assert (result["text"], result["truncated"]) == ("ü" * 50, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        ok(b"12345")[:-2],
        b"HTTP/1.1 100 C\r\n\r\n" * 50,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000,
    ],
)
def test_an_answer_that_is_none_is_an_error_of_a_read_and_a_doubt_of_a_change(answer: bytes) -> None:
    """Nobody knows what a POST came to; a GET changed nothing."""
    network = Network(lambda request: answer)
    with pytest.raises(ToolError):
        network.call(SERVERS[0])
    with pytest.raises(InDoubt):
        network.call(SERVERS[0], POSTS, method="POST")


def test_a_server_that_nothing_connects_to_was_sent_nothing() -> None:
    """So that even a POST is no doubt."""
    with pytest.raises(ToolError, match="no connection"):
        Network(down=True).call(SERVERS[0], POSTS, method="POST")


def test_a_later_attempt_does_not_speak_for_an_earlier_one() -> None:
    """Of a change that was sent before, nothing is known because nothing is sent now."""
    tool = Network(down=True).tool(**POSTS, idempotent=True)
    with pytest.raises(InDoubt, match="an earlier attempt"):
        asyncio.run(tool(context(attempt=2), SERVERS[0], "POST"))


@pytest.mark.parametrize(("method", "error"), [("GET", ToolError), ("POST", InDoubt)])
def test_a_server_that_never_answers_is_given_up(method: str, error: type[Exception]) -> None:
    """When the time of all requests together is over."""
    network = Network(lambda request: None)
    tool = network.tool(**POSTS)
    with pytest.raises(error, match="no answer within"):
        asyncio.run(tool(context(deadline_s=0.0), SERVERS[0], method) if method == "GET" else late(network))


async def late(network: Network) -> Any:
    """Call with a loop whose clock jumps once the request is sent."""
    loop = asyncio.get_running_loop()
    now = loop.time

    def answer(request: bytes) -> None:
        loop.time = lambda: now() + 3600  # type: ignore[method-assign]

    network.answer = answer
    return await network.tool(**POSTS)(context(), SERVERS[0], "POST")


def test_an_idempotency_key_is_sent_where_servers_dedupe_by_it() -> None:
    """And only there: it names a run."""
    network = Network()
    for idempotent in (True, False):
        network.call(SERVERS[0], {**POSTS, "idempotent": idempotent}, method="POST")
    assert [b"idempotency-key: run_1:1" in request for request in network.requests] == [True, False]


def test_what_the_tool_declares_follows_from_what_it_may_do() -> None:
    """Fetching carries out what the address contains, so it is external; as a read its risk is medium."""
    spec = http_request(allow=["https://a.example"]).spec
    assert (spec.effect, spec.risk, spec.repeatable, list(spec.parameters["properties"])) == (
        "external",
        "high",
        True,
        ["url", "headers"],
    )
    assert http_request(allow=["https://a.example"], effect="read").spec.risk == "medium"
    post = http_request(allow=["https://a.example"], methods=("POST",), content=("body",)).spec
    assert not post.repeatable and post.content == ("body",)


@pytest.mark.parametrize(
    "options",
    [
        {"allow": []},
        {"allow": "https://a.example"},
        {"allow": ["*"]},
        {"allow": ["https://*"]},
        {"allow": ["https://*.com"]},
        {"allow": ["https://*.1.2.3.4"]},
        {"allow": ["https://a.*.example"]},
        {"allow": ["https://u:p@a.example"]},
        {"allow": ["https://a.example/x?y"]},
        {"allow": ["https://a.example/%61"]},
        {"allow": ["ftp://a.example"]},
        {"allow": ["https://127.0.0.1"]},
        {"allow": [AllowedUrl("https://169.254.169.254", private=True)]},
        {"allow": [AllowedUrl("https://a.example", methods=("POST",))]},
        {"allow": [AllowedUrl("http://a.example", secret_env="X")]},
        {"allow": [AllowedUrl("https://a.example", secret_env="X", secret_file="y")]},
        {"allow": [AllowedUrl("https://a.example", secret_env="X", secret_header="a b")]},
        {"methods": ()},
        {"methods": ("TRACE",)},
        {"methods": ("GET", "POST"), "effect": "read"},
        {"request_headers": ("host",)},
        {"request_headers": ("Cookie",)},
        {"request_headers": ("proxy-authorization",)},
        {"response_headers": ("set-cookie",)},
        {"max_bytes": 0},
        {"timeout": 0},
    ],
)
def test_what_would_allow_nothing_or_all_is_refused_when_the_tool_is_made(options: dict[str, Any]) -> None:
    """So that nobody relies on an entry that means something else."""
    with pytest.raises(InvalidConfig):
        http_request(**({"allow": ["https://a.example"]} | options))


def test_the_tool_reaches_an_executor_as_others_do() -> None:
    """It is pickled by what made it."""
    made = cloudpickle.loads(cloudpickle.dumps(http_request(allow=ALLOW)))
    assert made.spec == http_request(allow=ALLOW).spec


_PARTS = """https:// http:// // / \\ @ : # ? . .. %2e %2f %00 % [ ] /v1 8443 443 80 127.0.0.1 xn-- 0x7f 2130706433 ::1
    api.example.com .example.org www.example.org evil.com ::ffff: 2606:4700::1111 b\u00fccher.example \u0430pi \u3002
    8.8.8.8 files."""
PIECES = st.lists(st.sampled_from([*_PARTS.split(), "\t", *NAMES]), max_size=8)


@given(
    start=st.sampled_from(["https://", "http://", "", "https://api.example.com", "https://www.example.org"]),
    pieces=PIECES,
    tail=st.text(max_size=4),
    location=PIECES,
)
def test_whatever_is_accepted_connects_only_to_allowed_hosts_at_public_addresses(
    start: str, pieces: list[str], tail: str, location: list[str]
) -> None:
    """A URL made of anything, redirected to anything; and what was judged is what its own text is read as again."""
    network = Network()
    to = "".join(location).encode("ascii", "ignore").decode().replace("\t", "").replace("\0", "").strip()
    network.answer = lambda request: moved(to) if len(network.requests) == 1 and to else ok(b"")
    with pytest.MonkeyPatch.context():
        try:
            result = network.call(start + "".join(pieces) + tail)
        except ToolError:
            assert network.connected == []
            return
    for address, port, tls_host in network.connected:
        found = ipaddress.ip_address(address)
        inner = (address, port, tls_host) == ("10.1.2.3", 8080, "")
        assert inner or (found.is_global and not refused_address(found, private=False))
        assert inner or port in (80, 443, 8443)
        assert not tls_host or tls_host in ALLOWED_HOSTS or tls_host.endswith(".example.org")
    for request in network.requests:
        host = request.partition(b"\r\nhost: ")[2] or request.partition(b"\r\nHost: ")[2]
        name = host.split(b"\r\n")[0].decode().removesuffix(":8443").removesuffix(":8080").strip("[]")
        assert name in ALLOWED_HOSTS or name.endswith(".example.org")
    assert parse_url(result["url"]) == parse_url(str(parse_url(result["url"])))


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_judged_alike_in_every_form_that_stands_for_it(number: int) -> None:
    """Mapped and translated ones are that address; other forms are refused."""
    plain = ipaddress.IPv4Address(number)
    for prefix in ("::ffff:", "64:ff9b::"):
        form = ipaddress.IPv6Address(f"{prefix}{plain}")
        assert embedded(form) == plain
        assert bool(refused_address(form, private=False)) == bool(refused_address(plain, private=False))
    for form in (f"::{plain}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1", f"2606:4700::5efe:{plain}"):
        assert form == "::0.0.0.1" or refused_address(ipaddress.ip_address(form), private=False)
    if not refused_address(plain, private=False):
        assert plain.is_global and not plain.is_multicast


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_real_server_is_reached_and_its_certificate_must_be_the_hosts(scheme: str, tmp_path: Path) -> None:
    """By the system's resolver and sockets; a certificate of another name, or that nobody vouches for, is refused."""
    pem = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(b"served"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls if scheme == "https" else None)
    async with server:
        port = server.sockets[0].getsockname()[1]
        urls = [f"{scheme}://localhost:{port}", f"{scheme}://127.0.0.1:{port}"]
        entries = [AllowedUrl(url, private=True) for url in urls]
        tool = http_request(allow=entries, ca_file=pem)
        assert (await tool(context(), urls[0]))["text"] == "served"
        with pytest.raises(ToolError, match="private address"):
            await http_request(allow=urls[:1], ca_file=pem)(context(), urls[0])
        if scheme == "https":
            with pytest.raises(ToolError, match="certificate"):
                await tool(context(), urls[1])
            with pytest.raises(ToolError, match="certificate"):
                await http_request(allow=entries)(context(), urls[0])


def test_a_url_over_two_readings_is_said_to_be_one() -> None:
    """The error says what is wrong, for an agent that can mend it."""
    with pytest.raises(InvalidInput, match="four decimal parts"):
        parse_url("https://127.1/")
    with pytest.raises(InvalidInput, match="user information"):
        parse_url("https://a@b.example/")
