"""Webhooks: a signed message that says that something happened, and the check of whoever receives one.

The form is that of Standard Webhooks 1.0 (https://www.standardwebhooks.com, its `spec/standard-webhooks.md`): the
headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is `v1,` and the base64 of an HMAC-SHA256 over
`id.timestamp.body`, under a secret written as `whsec_` and base64.  So any library for it checks what a stack sends.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airside.stack.canonical import parse_bounded
from airside.stack.errors import InvalidConfig, InvalidInput

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, not one
TOLERANCE_S = 300
"""How old a message may be, or how far ahead its sender's clock: what libraries for Standard Webhooks take."""

MAX_BODY_BYTES = 1024 * 1024

_MIN_SECRET_BYTES = 24
"""What Standard Webhooks asks for; an empty one, as where a setting is missing, would let anybody sign."""

_MAX_TIME_DIGITS = 12
"""Enough for thirty thousand years; whoever sends more wants to see what a huge number breaks."""


def secret_text(random: bytes) -> str:
    """Return random bytes as the text of a secret."""
    return SECRET_PREFIX + base64.b64encode(random).decode()


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message; each attempt to deliver it has its own time and the same id."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{_mark(secret, message_id, str(timestamp_s), body)}",
    }


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, now_s: float, *, tolerance_s: float = TOLERANCE_S
) -> dict[str, Any]:
    """Return the message of a request if a stack that holds `secret` sent it lately; raise `InvalidInput` if not.

    `secret` is the text in the stack's `keys/webhook.key`; header names may be in any case.  A message can come more
    than once, always with the same `webhook-id`: keep the ids for as long as a repeat would matter.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, sent = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message_id or not (sent.isascii() and sent.isdigit() and len(sent) <= _MAX_TIME_DIGITS):
        raise InvalidInput("webhook: no webhook-id, or no webhook-timestamp that is a whole number of seconds")
    if abs(now_s - int(sent)) > tolerance_s:
        raise InvalidInput(f"webhook: it was sent at {sent}, more than {tolerance_s:.0f} s from now")
    expected = f"v1,{_mark(secret, message_id, sent, body)}".encode()
    # Of several signatures, as while a secret is replaced, one must hold.
    marks = [mark.encode() for mark in given.get("webhook-signature", "").split()]
    if not any(hmac.compare_digest(expected, mark) for mark in marks):
        raise InvalidInput("webhook: no signature holds: another secret, or an altered message")
    message = parse_bounded(body, max_bytes=MAX_BODY_BYTES, where="webhook")
    if not isinstance(message, dict):
        raise InvalidInput("webhook: the body is not an object")
    return message


def _mark(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    try:
        key = base64.b64decode(secret.strip().removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise InvalidConfig(f"the webhook's secret is not {SECRET_PREFIX} and base64") from None
    if len(key) < _MIN_SECRET_BYTES:
        raise InvalidConfig(f"the webhook's secret has {len(key)} bytes: give the text of the stack's keys/webhook.key")
    signed = message_id.encode() + b"." + timestamp.encode() + b"." + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def webhook_target(url: str, *, insecure: bool) -> SplitResult:
    """Return where a webhook goes; raise `InvalidConfig` for what is no `https` URL, nor `http` to this very machine.

    `insecure` also allows `http` to elsewhere: the signature holds there too, but whoever is on the way reads along.
    """
    return sending_target(
        url,
        what="webhook",
        credentials="the receiver checks the signature",
        insecure=insecure,
        exception="approval_webhook_insecure",
    )


def sending_target(url: str, *, what: str, credentials: str, insecure: bool, exception: str) -> SplitResult:
    """Return where something is sent; raise `InvalidConfig` for a URL that is neither `https` nor loopback.

    For the error: `what` is sent there, what stands for `credentials` in the URL, and which setting makes an
    `exception` for plain `http`.
    """
    shown = f"{what} {url!r:.200}" if "@" not in url else what
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidConfig(f"{shown}: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise InvalidConfig(f"{what}: credentials in the URL are not sent; {credentials}")
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidConfig(f"{shown}: give an https:// URL")
    if parts.scheme == "http" and not insecure and not _is_loopback(host):
        raise InvalidConfig(f"{shown}: https only, but to loopback; see {exception}")
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
