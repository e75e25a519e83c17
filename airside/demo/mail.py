"""Sending mail by SMTP, and the demo's own mail server on loopback, which counts what arrives."""

from __future__ import annotations

import smtplib
import socket
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from aiosmtpd.controller import Controller

from airside import Tool, ToolContext, tool


class Mailbox:
    """A mail server on 127.0.0.1 that keeps what it receives."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.port = _free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a message in."""
        self.messages.append(BytesParser(EmailMessage).parsebytes(envelope.content))
        return "250 OK"

    def __enter__(self) -> Mailbox:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


def _free_port() -> int:
    """Return a port nobody listens on; the server cannot choose its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mail_tool(port: int) -> Tool:
    """Return the tool that sends mail through the server on `port`."""

    @tool(effect="external", timeout=10)
    def mail_send(to: str, subject: str, body: str, context: ToolContext) -> str:
        """Send a mail to a customer; returns its message id."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = f"sales@{context.tenant}.example", to, subject
        message["Message-ID"] = f"<{context.idempotency_key.replace(':', '.')}@airside.example>"
        message.set_content(body)
        with smtplib.SMTP("127.0.0.1", port, timeout=5) as server:
            server.send_message(message)
        return str(message["Message-ID"])

    return mail_send
