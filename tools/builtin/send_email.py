"""`send_email`: a tool that sends a mail by SMTP, to whom an operator allows.

A mail is refused whole, before its text is sent, or accepted whole: so that what became of it is one word.  Only where
the connection breaks while its text is on the way does nobody know.
"""

from __future__ import annotations

import hashlib
import re
import smtplib
import socket
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal, get_args

from airside.stack.errors import InvalidConfig, InvalidInput, text_of
from airside.tools.builtin.credentials import Credential
from airside.tools.builtin.interruption import interrupted_after
from airside.tools.builtin.texts import CONTROLS
from airside.tools.builtin.urls import parse_host
from airside.tools.secrets.redaction import Redactor
from airside.tools.tool import InDoubt, Tool, ToolContext, ToolError

TlsMode = Literal["starttls", "implicit", "none"]

MAX_RECIPIENTS = 10
MAX_BODY_CHARACTERS = 100_000
_MAX_SUBJECT = 300
_IMPLICIT_PORT = 465
_MARGIN_S = 5.0
"""By how much the tool's own timeout is longer, so that what is said of it is the tool's."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LOCAL = re.compile(r"[A-Za-z0-9#$&'*+=^_`{}~-]+(?:\.[A-Za-z0-9#$&'*+=^_`{}~-]+)*")
"""Of what a local part may have, not what old servers route by (`user%host`, `host!user`), nor what begins an encoded
word (`=?`), which is another address once it is decoded."""

_TENANT = "{tenant}"
_ANYBODY = "*"
_MAX_REPLY = 300
_READY = 220


def parse_address(text: str) -> str:
    """Return an address in one form, its domain as A-labels; raise `InvalidInput` for what is not plainly one."""
    local, _, domain = text.rpartition("@")
    if not _LOCAL.fullmatch(local) or len(local) > 64:
        raise InvalidInput(f"{text!a:.200} is no plain address, as kim@example.com")
    try:
        host = parse_host(domain)
    except InvalidInput:
        host = ""
    if "." not in host or host.replace(".", "").isdigit():
        raise InvalidInput(f"{text!a:.200}: its domain is none")
    return f"{local}@{host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSender:
    """Sends mails for a tool, through one server."""

    host: str
    port: int
    tls: TlsMode
    ca_file: str
    sender: str
    recipients: tuple[str, ...]
    username: str
    password: Credential
    timeout_s: float

    def send(self, context: ToolContext, to: Sequence[str], subject: str, body: str) -> dict[str, Any]:
        """Send a mail, or say that none was sent; raise `InDoubt` if nobody knows."""
        message, addresses = self._message(context, to, subject, body)
        password = self.password.read(context) if self.username else ""
        redactor = Redactor([password])
        seconds = min(self.timeout_s, context.deadline_s)
        client = smtplib.SMTP(local_hostname=addresses[0].rpartition("@")[2], timeout=seconds)
        is_sending = False
        try:
            with interrupted_after(seconds, lambda: _cut(client)):
                self._connect(client, password, seconds)
                _offer(client, addresses)
                is_sending = True
                code, reply = client.data(message)
        except smtplib.SMTPDataError as error:  # the server did not take the text
            code, reply = error.smtp_code, _bytes(error.smtp_error)
        except (OSError, smtplib.SMTPException) as error:
            text = redactor.text(_said(error))
            if is_sending:
                raise InDoubt(f"the mail was on its way when the connection broke: {text}") from None
            raise ToolError(f"no mail was sent: {text}") from None
        finally:
            _cut(client)
            client.close()
        if not 200 <= code < 300:
            raise ToolError(f"no mail was sent: {redactor.text(_shown(code, reply))}")
        return {"message_id": _message_id(context, addresses[0]), "to": addresses[1:]}

    def _message(self, context: ToolContext, to: Sequence[str], subject: str, body: str) -> tuple[bytes, list[str]]:
        """Return a mail as it is sent, and its addresses, the sender's first."""
        try:
            sender = parse_address(self.sender.replace(_TENANT, context.tenant))
            recipients = list(dict.fromkeys(parse_address(each) for each in to))
        except InvalidInput as error:
            raise ToolError(f"to: {error.message}") from None
        if not 1 <= len(recipients) <= MAX_RECIPIENTS:
            raise ToolError(f"to: 1 to {MAX_RECIPIENTS} addresses")
        for address in recipients:
            if not any(_allows(pattern, address) for pattern in self.recipients):
                raise ToolError(f"to: {address} is none of those this tool may write to")
        if not subject.isprintable() or len(subject) > _MAX_SUBJECT:
            raise ToolError(f"subject: one line of up to {_MAX_SUBJECT} characters that can be seen")
        if "=?" in subject:  # an encoded word: what it says when it is decoded was not looked at
            raise ToolError("subject: a text without '=?'")
        text = body.replace("\r\n", "\n").replace("\r", "\n")
        if CONTROLS.search(text) or len(text) > MAX_BODY_CHARACTERS:
            raise ToolError(f"body: a text without control characters, of up to {MAX_BODY_CHARACTERS:,}")
        message = EmailMessage(policy=SMTP)
        try:
            message["From"], message["To"], message["Subject"] = sender, ", ".join(recipients), subject
            message["Date"] = formatdate()
            message["Message-ID"] = _message_id(context, sender)
            message["Auto-Submitted"] = "auto-generated"  # no holiday notice answers it (RFC 3834)
            message.set_content(text, cte="quoted-printable")
            return message.as_bytes(), [sender, *recipients]
        except (ValueError, MessageError) as error:  # nothing was sent
            raise ToolError(f"the mail cannot be written: {text_of(error)}") from None

    def _connect(self, client: smtplib.SMTP, password: str, seconds: float) -> None:
        """Connect, and log in; by TLS for the host's name, or not at all, but to this machine."""
        client.sock = socket.create_connection((self.host, self.port), timeout=seconds)
        if self.tls == "implicit":
            client.sock = self._with_tls(client.sock)
        code, reply = client.getreply()
        if code != _READY:
            raise smtplib.SMTPConnectError(code, reply)
        client.ehlo()
        if self.tls == "starttls":
            code, reply = client.docmd("STARTTLS")
            if code != _READY:
                raise smtplib.SMTPResponseException(code, reply)
            client.sock = self._with_tls(client.sock)
            client.file = None  # and with it what was sent before, which anybody may have
            client.ehlo()
        if self.username:
            client.login(self.username, password)

    def _with_tls(self, plain: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca_file or None)
        return context.wrap_socket(plain, server_hostname=self.host)


def _offer(client: smtplib.SMTP, addresses: Sequence[str]) -> None:
    """Say from whom and to whom a mail is; a server that takes not all of it takes none."""
    sender, *recipients = addresses
    code, reply = client.mail(sender)
    if code != 250:
        raise smtplib.SMTPSenderRefused(code, reply, sender)
    for address in recipients:
        code, reply = client.rcpt(address)
        if code not in (250, 251):
            raise smtplib.SMTPRecipientsRefused({address: (code, reply)})


def _cut(client: smtplib.SMTP) -> None:
    if client.sock is not None:
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)


def _said(error: Exception) -> str:
    match error:
        case smtplib.SMTPRecipientsRefused():
            return "; ".join(f"{address}: {_shown(*reply)}" for address, reply in error.recipients.items())
        case smtplib.SMTPResponseException():
            return _shown(error.smtp_code, _bytes(error.smtp_error))
        case _:
            return str(error)[:_MAX_REPLY] or type(error).__name__


def _shown(code: int, reply: bytes) -> str:
    text = "".join(each if each.isprintable() else " " for each in reply.decode("utf-8", "replace"))
    return f"{code} {text}"[:_MAX_REPLY]


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _message_id(context: ToolContext, sender: str) -> str:
    """Return the same for every attempt of a call, so that who receives it can tell; it names no run."""
    digest = hashlib.sha256(context.idempotency_key.encode()).hexdigest()[:32]
    return f"<{digest}@{sender.rpartition('@')[2]}>"


def _allows(pattern: str, address: str) -> bool:
    if pattern.startswith("*@"):
        return address.rpartition("@")[2] == pattern[2:]
    return pattern in (_ANYBODY, address.lower())


def send_email(
    host: str,
    *,
    sender: str,
    recipients: Sequence[str],
    port: int | None = None,
    tls: TlsMode | None = None,
    ca_file: str | Path = "",
    username: str = "",
    password_env: str = "",
    password_file: str = "",
    password_secret: str = "",
    timeout: float = 30.0,
    scopes: Iterable[str] = (),
    name: str = "send_email",
    description: str = "",
) -> Tool:
    """Make a tool that sends mails from `sender` through the SMTP server at `host`, to `recipients` alone.

    A recipient is an address, `*@example.com`, or `*` for anybody; `{tenant}` in `sender` is the tenant's id.  `tls` is
    `starttls`, or `implicit` at port 465; `none` is for a server on this machine.  The password is the tenant's secret
    `password_secret`, or read where the tool runs.  To whom is authority, subject and body are content, the effect is
    irreversible.
    """
    found = port or 587
    mode = tls or ("implicit" if found == _IMPLICIT_PORT else "starttls")
    if isinstance(recipients, str) or not recipients:
        raise InvalidConfig(f"{name}: recipients is a list of one or more: recipients=['*@example.com']")
    if mode not in get_args(TlsMode) or (mode == "none" and host not in _LOOPBACK):
        raise InvalidConfig(f"{name}: tls is 'starttls' or 'implicit', or 'none' to a server on this machine")
    password = Credential(password_secret, password_env, password_file).checked(name)
    if bool(username) != bool(password):
        raise InvalidConfig(f"{name}: a username, and password_secret, password_env or password_file, or none of them")
    if not host or not 0 < found < 65_536 or not 0 < timeout <= 600:
        raise InvalidConfig(f"{name}: give a host, a port and a timeout of up to 600 seconds")
    try:
        parse_address(sender.replace(_TENANT, "tenant"))
        patterns = tuple(_checked_pattern(each) for each in recipients)
    except InvalidInput as error:
        raise InvalidConfig(f"{name}: {error.message}") from None
    made = MailSender(
        host=host,
        port=found,
        tls=mode,
        ca_file=str(ca_file),
        sender=sender,
        recipients=patterns,
        username=username,
        password=password,
        timeout_s=timeout,
    )
    address = {"type": "string", "maxLength": 320}
    return Tool.from_schema(
        name,
        {
            "type": "object",
            "properties": {
                "to": {"type": "array", "items": address, "minItems": 1, "maxItems": MAX_RECIPIENTS},
                "subject": {"type": "string", "maxLength": _MAX_SUBJECT},
                "body": {"type": "string", "maxLength": MAX_BODY_CHARACTERS, "description": "Plain text."},
            },
            "required": ["to", "subject", "body"],
            "additionalProperties": False,
        },
        made.send,
        effect="irreversible",
        timeout=timeout + _MARGIN_S,
        content=("subject", "body"),
        secrets=password.names,
        scopes=scopes,
        description=description or "Send a mail of plain text.",
    )


def _checked_pattern(text: str) -> str:
    if text == _ANYBODY:
        return text
    local, _, domain = text.rpartition("@")
    if local != _ANYBODY and _ANYBODY in text:
        raise InvalidInput(f"recipients: {text!a:.200}: '*' stands alone, or for all before the '@'")
    checked = parse_address(f"{'any' if local == _ANYBODY else local}@{domain}").lower()
    return f"*@{checked.rpartition('@')[2]}" if local == _ANYBODY else checked
