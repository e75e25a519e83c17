"""A webhook's signature is that of Standard Webhooks, holds for exactly what was sent, and goes only where it may."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airside.actors.settings import Settings
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.webhooks import secret_text, sign, verify_webhook, webhook_target

# The example of the Standard Webhooks libraries, which their own tests check.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SENT_S = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(**changed: str) -> dict[str, str]:
    """Return the headers of the example, changed."""
    given = sign(SECRET, MESSAGE_ID, SENT_S, BODY)
    return given | {name.replace("_", "-"): value for name, value in changed.items()}


def test_the_signature_is_the_one_other_libraries_make() -> None:
    assert sign(SECRET, MESSAGE_ID, SENT_S, BODY)["webhook-signature"] == SIGNATURE


def test_what_was_sent_verifies_whatever_the_headers_case_and_beside_other_signatures() -> None:
    assert verify_webhook(SECRET, headers(), BODY, SENT_S) == {"test": 2432232314}
    loud = {name.upper(): value for name, value in headers().items()}
    assert verify_webhook(SECRET + "\n", loud, BODY, SENT_S + 300)
    assert verify_webhook(SECRET, headers(webhook_signature=f"v1,b2xk v2,xyz {SIGNATURE}"), BODY, SENT_S)


@pytest.mark.parametrize(
    ("given", "body", "now_s", "said"),
    [
        (headers(), BODY + b" ", SENT_S, "no signature holds"),
        (headers(webhook_id="msg_other"), BODY, SENT_S, "no signature holds"),
        (headers(webhook_timestamp=str(SENT_S + 1)), BODY, SENT_S, "no signature holds"),
        (headers(webhook_signature=SIGNATURE.replace("v1", "v2")), BODY, SENT_S, "no signature holds"),
        (headers(webhook_signature=""), BODY, SENT_S, "no signature holds"),
        (headers(webhook_signature="v1,\u00e9"), BODY, SENT_S, "no signature holds"),
        (headers(), BODY, SENT_S + 301, "more than 300 s"),
        (headers(), BODY, SENT_S - 301, "more than 300 s"),
        (headers(webhook_timestamp="soon"), BODY, SENT_S, "no webhook-id, or"),
        (headers(webhook_timestamp="\u00b2"), BODY, SENT_S, "no webhook-id, or"),
        (headers(webhook_timestamp="9" * 400), BODY, SENT_S, "no webhook-id, or"),
        (headers(webhook_timestamp="9" * 5000), BODY, SENT_S, "no webhook-id, or"),
        (headers(webhook_id=""), BODY, SENT_S, "no webhook-id, or"),
        ({}, BODY, SENT_S, "no webhook-id, or"),
        (sign(secret_text(b"x" * 32), MESSAGE_ID, SENT_S, BODY), BODY, SENT_S, "another secret"),
        (sign(SECRET, MESSAGE_ID, SENT_S, b"[1]"), b"[1]", SENT_S, "not an object"),
        (sign(SECRET, MESSAGE_ID, SENT_S, b"{"), b"{", SENT_S, "webhook"),
    ],
)
def test_what_was_not_sent_so_does_not(given: dict[str, str], body: bytes, now_s: int, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        verify_webhook(SECRET, given, body, now_s)


def test_a_secret_that_is_none_is_said() -> None:
    with pytest.raises(InvalidConfig, match="base64"):
        verify_webhook("whsec_???", headers(), BODY, SENT_S)
    with pytest.raises(InvalidConfig, match="base64"):
        verify_webhook("whsec_\u00e9", headers(), BODY, SENT_S)


@pytest.mark.parametrize("secret", ["", "\n", "whsec_", "whsec_c2hvcnQ="])
def test_a_secret_that_is_missing_or_short_lets_nobody_in(secret: str) -> None:
    with pytest.raises(InvalidConfig, match=r"keys/webhook\.key"):
        sign(secret, MESSAGE_ID, SENT_S, BODY)
    with pytest.raises(InvalidConfig, match=r"keys/webhook\.key"):
        verify_webhook(secret, headers(), BODY, SENT_S)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "https://example.com:8443",
        "http://localhost:9/x",
        "http://127.3.2.1/",
        "http://[::1]:80/a?b=c",
    ],
)
def test_a_webhook_may_go_to_https_or_to_this_machine(url: str) -> None:
    assert webhook_target(url, insecure=False).geturl() == url
    assert Settings(approval_webhook=url).webhook_target() is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/hook", "https only"),
        ("http://127.0.0.1.example.com/", "https only"),
        ("http://10.0.0.1/", "https only"),
        ("http://localhost.example.com", "https only"),
        ("ftp://localhost/", "give an https"),
        ("file:///etc/passwd", "give an https"),
        ("example.com/hook", "give an https"),
        ("https://", "give an https"),
        ("https://ann:secret@example.com/", "credentials"),
        ("https://example.com:port/", "ort"),
        ("", "give an https"),
    ],
)
def test_and_nowhere_else(url: str, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        webhook_target(url, insecure=False)
    with pytest.raises(ValueError, match=said):
        Settings(approval_webhook=url)


@pytest.mark.parametrize(
    "url", ["https://ann:secret@example.com/", "ftp://ann:secret@x/", "https://ann:secret@x:port/", "//ann:secret@"]
)
def test_what_is_wrong_with_a_url_is_said_without_the_password_in_it(url: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        webhook_target(url, insecure=False)
    assert "secret" not in str(caught.value)


def test_plain_http_to_elsewhere_has_to_be_asked_for() -> None:
    assert Settings(approval_webhook="http://example.com/", approval_webhook_insecure=True).webhook_target() is not None
    assert Settings().webhook_target() is None


def test_a_message_may_be_any_object() -> None:
    body: Any = json.dumps({"text": "\u00e4\n", "deep": [[1]]}).encode()
    assert verify_webhook(SECRET, sign(SECRET, "msg_1", 5, body), body, 5)["text"] == "\u00e4\n"
