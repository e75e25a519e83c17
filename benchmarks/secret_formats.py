"""Secrets in thirty forms that services give out, made anew from a seed, and how each may stand in what somebody reads.

None is anybody's.  The forms here are written down apart from those that the redactor looks for: they are its test.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus

LOWER, DIGITS = string.ascii_lowercase, string.digits
ALPHANUMERIC = string.ascii_letters + DIGITS
HEX = "0123456789abcdef"
URL_SAFE = ALPHANUMERIC + "-_"
BASE64 = ALPHANUMERIC + "+/"

Some = Callable[[str, int], str]


def _pem(some: Some, kind: str, lines: int) -> str:
    body = "\n".join([some(BASE64, 64) for _ in range(lines)] + [some(BASE64, 38) + "=="])
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


def _jwt(some: Some) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    claims = base64.urlsafe_b64encode(json.dumps({"sub": some(DIGITS, 10), "role": "admin"}).encode()).decode()
    return f"{head}.{claims.rstrip('=')}.{some(URL_SAFE, 43)}"


def _service_account(some: Some) -> str:
    key = _pem(some, "PRIVATE KEY", 8) + "\n"
    account = {"type": "service_account", "private_key_id": some(HEX, 40), "private_key": key}
    return json.dumps({**account, "client_email": "robot@project.example"}, indent=2)


def known_secrets(seed: int = 1) -> dict[str, str]:
    """Return one secret of each format, by a name that a tool can declare."""
    rng = random.Random(seed)

    def some(of: str, n: int) -> str:
        return "".join(rng.choice(of) for _ in range(n))

    return {
        "aws_access_key_id": "AK" + "IA" + some(string.ascii_uppercase + "234567", 16),
        "aws_secret_access_key": some(BASE64, 40),
        "aws_session_token": "IQoJb3JpZ2lu" + some(BASE64, 300),
        "github_token": "gh" + "p_" + some(ALPHANUMERIC, 36),
        "github_fine_grained": "github" + "_pat_" + some(ALPHANUMERIC, 22) + "_" + some(ALPHANUMERIC, 59),
        "gitlab_token": "gl" + "pat-" + some(URL_SAFE, 20),
        "slack_bot_token": "xox" + "b-" + some(DIGITS, 12) + "-" + some(DIGITS, 12) + "-" + some(ALPHANUMERIC, 24),
        "slack_webhook": "https://hooks.slack.example/services/T" + some(HEX, 8) + "/B1/" + some(ALPHANUMERIC, 24),
        "stripe_live_key": "sk" + "_live_" + some(ALPHANUMERIC, 24),
        "stripe_webhook": "whsec_" + some(ALPHANUMERIC, 32),
        "jwt": _jwt(some),
        "rsa_private_key": _pem(some, "RSA PRIVATE KEY", 24),
        "ec_private_key": _pem(some, "EC PRIVATE KEY", 2),
        "openssh_private_key": _pem(some, "OPENSSH PRIVATE KEY", 6),
        "google_api_key": "AI" + "za" + some(URL_SAFE, 35),
        "google_oauth_secret": "GOCSPX-" + some(URL_SAFE, 28),
        "google_service_account": _service_account(some),
        "openai_key": "sk" + "-proj-" + some(URL_SAFE, 64),
        "anthropic_key": "sk" + "-ant-api03-" + some(URL_SAFE, 93) + "AA",
        "npm_token": "npm" + "_" + some(ALPHANUMERIC, 36),
        "pypi_token": "pypi" + "-AgEIcHlwaS5vcmc" + some(URL_SAFE, 140),
        "twilio_auth_token": some(HEX, 32),
        "sendgrid_key": "SG" + "." + some(URL_SAFE, 22) + "." + some(URL_SAFE, 43),
        "mailgun_key": "key-" + some(HEX, 32),
        "azure_storage": "AccountName=a;AccountKey=" + some(BASE64, 86) + "==;EndpointSuffix=core.example",
        "postgres_url": "postgresql://app:" + some(ALPHANUMERIC, 12) + "%21" + some(LOWER, 4) + "@db.internal:5432/app",
        "mongodb_url": "mongodb+srv://root:" + some(ALPHANUMERIC, 20) + "@cluster0.example/db?retryWrites=true",
        "telegram_bot_token": some(DIGITS, 10) + ":AA" + some(URL_SAFE, 33),
        "discord_token": some(URL_SAFE, 24) + "." + some(URL_SAFE, 6) + "." + some(URL_SAFE, 38),
        "password": 'p"a\\ss/' + some(ALPHANUMERIC, 10) + " <&> é'$%",
    }


def marks_of(secret: str) -> dict[str, str]:
    """Return texts that tell who finds one what the secret is, by how it is written; whitespace is left out of each."""
    data = secret.encode()
    found = {
        "raw": secret,
        "json": json.dumps(secret)[1:-1],
        "json_in_json": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "url": quote(secret, safe=""),
        "url_path": quote(secret),
        "form": quote_plus(secret),
        "repr": repr(secret)[1:-1],
        "hex": data.hex(),
        "hex_upper": data.hex().upper(),
        "base64": base64.b64encode(data).decode().rstrip("=")[:-1],
        "base64_url": base64.urlsafe_b64encode(data).decode().rstrip("=")[:-1],
        "basic": base64.b64encode(b"api:" + data).decode()[6:].rstrip("=")[:-1],
        "basic_longer": base64.b64encode(b"apis:" + data).decode()[8:].rstrip("=")[:-1],
    }
    if "\n" in secret:
        lines = [line for line in secret.splitlines() if len(line) > 30 and "-----" not in line and "://" not in line]
        found |= {f"line_{at}": line for at, line in enumerate(lines)}
    return {how: "".join(text.split()) for how, text in found.items()}


def leaks_in(text: str, secrets: dict[str, str]) -> list[str]:
    """Return which secrets a text has, and how they are written in it, whether or not they are broken over lines."""
    dense = "".join(text.split())
    escaped = dense.replace("\\n", "").replace("\\r", "")
    return [
        f"{name} as {how}"
        for name, secret in secrets.items()
        for how, mark in marks_of(secret).items()
        if mark in dense or mark in escaped
    ]
