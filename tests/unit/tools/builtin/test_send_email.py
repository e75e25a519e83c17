"""`send_email`: what is sent, to whom, and what is said of a mail that was not; with a mail server on loopback."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from airside.stack.errors import InvalidConfig, InvalidInput
from airside.tools import send_email
from airside.tools.builtin.send_email import parse_address
from airside.tools.tool import InDoubt, Tool, ToolError
from tests.unit.tools.builtin.contexts import certificate, context

PASSWORD = "correct-horse-battery"


class Server:
    """A mail server that keeps what it receives, and can misbehave."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.answer = "250 OK"
        self.unknown: set[str] = set()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        """Take a recipient, or not."""
        if address in self.unknown:
            return f"550 no such mailbox; you are {PASSWORD}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a mail in, refuse it, or vanish with it."""
        if self.answer == "vanish":
            server.transport.abort()
        if self.answer.startswith("250"):
            self.received.append(envelope)
        return self.answer


def mail_of(server: Server) -> EmailMessage:
    """Return the only mail."""
    (envelope,) = server.received
    return message_from_bytes(envelope.content, policy=default)  # type: ignore[return-value]


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    """Let one user in."""
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"shop", PASSWORD.encode())
    return AuthResult(success=right, handled=False)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of `localhost`."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Server, int]]:
    """A server and its port."""
    server, port = Server(), free_port()
    controller = Controller(server, hostname="127.0.0.1", port=port)
    controller.start()
    yield server, port
    controller.stop()


@pytest.fixture
def served(shared: tuple[Server, int]) -> tuple[Server, int]:
    """The server, as if it were new, and its port."""
    shared[0].__init__()  # type: ignore[misc]
    return shared


def mailer(port: int, **options: Any) -> Tool:
    """Return the tool for a server."""
    given: dict[str, Any] = {"sender": "shop@corp.example", "recipients": ["*@corp.example", "Kim@b\u00fccher.example"]}
    return send_email("127.0.0.1", **({"port": port, "tls": "none"} | given | options))


def test_a_mail_arrives_as_it_was_written(served: tuple[Server, int]) -> None:
    """With a dot at the start of a line, a line that looks like a header, and letters of all kinds."""
    server, port = served
    body = "Gr\u00fc\u00dfe\n.\nBcc: eve@evil.example\n..\n\n" + "x" * 2000
    to = ["ann@corp.example", "kim@b\u00fccher.example", "ann@corp.example"]
    result = mailer(port)(context(), to, "Gr\u00fc\u00dfe: heute", body)
    assert server.received[0].rcpt_tos == ["ann@corp.example", "kim@xn--bcher-kva.example"] == result["to"]
    mail = mail_of(server)
    assert (mail["From"], mail["Subject"], mail["Bcc"]) == ("shop@corp.example", "Gr\u00fc\u00dfe: heute", None)
    assert mail.get_content().replace("\r\n", "\n").rstrip("\n") == body
    assert mail["Message-ID"] == result["message_id"] and mail["Date"] and "run_1" not in result["message_id"]


def test_every_attempt_of_a_call_has_the_same_message_id(served: tuple[Server, int]) -> None:
    """So that who receives two can tell; another call has another."""
    ids = [
        mailer(served[1])(context(key, attempt=attempt), ["ann@corp.example"], "s", "b")["message_id"]
        for key, attempt in (("k1", 1), ("k1", 2), ("k2", 1))
    ]
    assert ids[0] == ids[1] != ids[2]


BAD_ADDRESSES = [
    *(
        "eve@evil.example",
        "ann@corp.example.evil.example",
        "ann@sub.corp.example",
        "ann@evilcorp.example",
        "corp.example",
    ),
    *("ann@corp.example, eve@evil.example", "ann@corp.example;eve@evil.example", "Ann <ann@corp.example>", "ann"),
    *("ann@corp.example\r\nBcc: eve@evil.example", "ann@corp.example\n", "ann\r\n@corp.example", "ann@corp.example\0"),
    *(
        "eve@evil.example@corp.example",
        '"eve@evil.example"@corp.example',
        "eve%evil.example@corp.example ",
        "ann(c)@corp.example",
    ),
    *(
        "@corp.example",
        "ann@",
        "ann@corp",
        "ann@[127.0.0.1]",
        "ann@127.0.0.1",
        "ann@corp.example>",
        "<ann@corp.example>",
    ),
    *(
        "ann@c\u043erp.example",
        "ann@corp.example/..",
        "ann..b@corp.example",
        ".ann@corp.example",
        "x" * 65 + "@corp.example",
        "=?utf-8?b?dmljdGltQGV2aWwuZXhhbXBsZSwgYQ==?=@corp.example",
        "v%evil.example@corp.example",
        "evil.example!v@corp.example",
        "/tmp/x@corp.example",
        "|sh@corp.example",
    ),
    *(
        "kim@bucher.example",
        "tim@b\u00fccher.example",
        "\u00e4nn@corp.example",
        "ann @corp.example",
        "",
        "*@corp.example\t",
    ),
]


@pytest.mark.parametrize("address", BAD_ADDRESSES, ids=ascii)
def test_nothing_goes_to_whom_the_tool_may_not_write(served: tuple[Server, int], address: str) -> None:
    """Nor to the others of the mail; an address is plainly one."""
    with pytest.raises(ToolError):
        mailer(served[1])(context(), ["ann@corp.example", address], "s", "b")
    assert served[0].received == []


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("s\r\nBcc: eve@evil.example", "b"),
        ("s\nBcc: eve@evil.example", "b"),
        ("s\rBcc: eve@evil.example", "b"),
        ("s\u2028Bcc: eve@evil.example", "b"),
        ("s\x85x", "b"),
        ("s\0", "b"),
        ("s\u202egnp", "b"),
        ("s" * 301, "b"),
        ("=?utf-8?b?SGkNClJlcGx5LVRvOiBldmVAZXZpbC5leGFtcGxl?=", "b"),
        ("hello =?utf-8?q?=0D=0ABcc: eve=40evil.example?=", "b"),
        ("s", "b\0"),
        ("s", "b\x1b[0m"),
        ("s", "b" * 100_001),
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_a_subject_is_one_line_and_a_body_is_text(served: tuple[Server, int], subject: str, body: str) -> None:
    """No header can be put in."""
    with pytest.raises(ToolError):
        mailer(served[1])(context(), ["ann@corp.example"], subject, body)
    assert served[0].received == []


def test_a_body_cannot_end_the_mail_and_begin_another(served: tuple[Server, int]) -> None:
    """However its lines end."""
    for ending in ("\n.\n", "\r.\r", "\r\n.\r\n", "\n.\r\n", "\r\n.\n"):
        body = f"a{ending}MAIL FROM:<eve@evil.example>\r\nRCPT TO:<x@evil.example>\r\nDATA\r\n"
        mailer(served[1])(context(), ["ann@corp.example"], "s", body)
    assert len(served[0].received) == 5
    assert {tuple(each.rcpt_tos) for each in served[0].received} == {("ann@corp.example",)}


def test_a_mail_that_one_recipient_does_not_get_nobody_gets(served: tuple[Server, int]) -> None:
    """What became of it is one word."""
    served[0].unknown = {"bob@corp.example"}
    with pytest.raises(ToolError, match=r"no mail was sent: bob@corp\.example: 550"):
        mailer(served[1])(context(), ["ann@corp.example", "bob@corp.example"], "s", "b")
    assert served[0].received == []


def test_a_mail_that_is_refused_was_not_sent_and_one_that_vanishes_is_in_doubt(served: tuple[Server, int]) -> None:
    """Nobody knows what a server did that broke off."""
    server, port = served
    for server.answer, error in (("554 spam", ToolError), ("451 later", ToolError), ("vanish", InDoubt)):
        with pytest.raises(error):
            mailer(port)(context(), ["ann@corp.example"], "s", "b")
    with pytest.raises(ToolError, match="no mail was sent"):
        mailer(free_port())(context(), ["ann@corp.example"], "s", "b")


def test_a_server_that_says_nothing_is_given_up(served: tuple[Server, int]) -> None:
    """When the call's time is over."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ToolError, match="no mail was sent"):
            mailer(silent.getsockname()[1])(context(deadline_s=0.05), ["ann@corp.example"], "s", "b")


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # which is by TLS from the start
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_password_goes_by_tls_for_the_servers_name_alone(
    mode: str, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is in no error; a server without TLS, or with another's certificate, gets nothing."""
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    server, port = Server(), free_port()
    how: dict[str, Any] = {"ssl_context": tls} if mode == "implicit" else {"tls_context": tls, "require_starttls": True}
    controller = Controller(
        server, hostname="localhost", port=port, authenticator=authenticate, auth_required=True,
        auth_require_tls=mode == "starttls", server_hostname="localhost", **how,
    )  # fmt: skip
    controller.start()
    try:
        options: dict[str, Any] = {"sender": "shop@corp.example", "recipients": ["*"], "port": port, "tls": mode}
        login = {"username": "shop", "password_env": "MAIL_PASSWORD", "ca_file": pem}
        send_email("localhost", **options, **login)(context(), ["ann@any.example"], "s", "b")
        assert len(server.received) == 1
        server.unknown = {"ann@any.example"}
        with pytest.raises(ToolError, match="550") as caught:
            send_email("localhost", **options, **login)(context(), ["ann@any.example"], "s", "b")
        assert PASSWORD not in str(caught.value) and "[redacted]" in str(caught.value)
        for host, more in (("127.0.0.1", login), ("localhost", {**login, "ca_file": ""})):
            with pytest.raises(ToolError, match="certificate"):
                send_email(host, **options, **more)(context(), ["ann@any.example"], "s", "b")
        monkeypatch.setenv("MAIL_PASSWORD", "wrong-password")
        with pytest.raises(ToolError, match="535"):
            send_email("localhost", **options, **login)(context(), ["ann@any.example"], "s", "b")
        monkeypatch.delenv("MAIL_PASSWORD")
        with pytest.raises(ToolError, match="MAIL_PASSWORD is not there"):
            send_email("localhost", **options, **login)(context(), ["ann@any.example"], "s", "b")
        assert len(server.received) == 1
    finally:
        controller.stop()


def test_a_server_without_tls_gets_no_mail_where_tls_is_asked_for(served: tuple[Server, int], pem: Path) -> None:
    """Whoever is on the way cannot take it out."""
    with pytest.raises(ToolError, match="no mail was sent"):
        mailer(served[1], tls="starttls", ca_file=pem)(context(), ["ann@corp.example"], "s", "b")
    assert served[0].received == []


def test_the_sender_may_be_the_tenants(served: tuple[Server, int]) -> None:
    """By its id."""
    mailer(served[1], sender="{tenant}@corp.example")(context(tenant="globex"), ["ann@corp.example"], "s", "b")
    assert mail_of(served[0])["From"] == "globex@corp.example"


def test_what_the_tool_declares() -> None:
    """To whom is authority; it cannot be taken back, and is not sent again by itself."""
    spec = send_email("mail.example", sender="a@corp.example", recipients=["*@corp.example"]).spec
    assert (spec.effect, spec.repeatable, spec.content) == ("irreversible", False, ("body", "subject"))


@pytest.mark.parametrize(
    "options",
    [
        {"recipients": []},
        {"recipients": "*"},
        {"recipients": ["corp.example"]},
        {"recipients": ["*@*.example"]},
        {"recipients": ["a*@corp.example"]},
        {"recipients": ["*@corp"]},
        {"sender": "Shop <a@corp.example>"},
        {"sender": "a@corp.example\r\nBcc: eve@evil.example"},
        {"sender": "{principal}@"},
        {"tls": "none"},
        {"tls": "maybe"},
        {"username": "shop"},
        {"password_env": "X"},
        {"username": "shop", "password_env": "X", "password_file": "y"},
        {"timeout": 0},
        {"port": 70_000},
    ],
)
def test_what_would_reach_nobody_or_is_not_safe_is_refused_when_the_tool_is_made(options: dict[str, Any]) -> None:
    """`a*` is a name like any other of RFC 5321, but hardly what was meant."""
    with pytest.raises(InvalidConfig):
        send_email("mail.example", **({"sender": "a@corp.example", "recipients": ["*@corp.example"]} | options))


def test_an_address_has_one_form() -> None:
    """Its domain as A-labels in lower case."""
    assert parse_address("Kim.B+x@B\u00dcCHER.example.") == "Kim.B+x@xn--bcher-kva.example"
    with pytest.raises(InvalidInput):
        parse_address("kim")
