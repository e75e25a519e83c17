"""`Redactor`: a secret is in nothing that leaves a tool, however it is written there, and everything else is."""

from __future__ import annotations

import base64
import json
import re
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import MAX_TEXT_CHARS
from airside.tools.secrets.redaction import MIN_LENGTH, NO_SECRETS, REDACTED, Redactor, distinct
from benchmarks.secret_formats import known_secrets, leaks_in, marks_of

SECRETS = known_secrets()
ALL = Redactor(SECRETS.values())
TOKEN = "sk_live_51H8xyzABCDEFGHIJKL"

WRITTEN = {
    "as it is": lambda secret: f"token={secret};",
    "JSON": lambda secret: json.dumps({"a": secret}),
    "JSON in JSON": lambda secret: json.dumps(json.dumps({"a": secret})),
    "JSON with escaped slashes": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "an address": lambda secret: f"https://x.example/?q={quote(secret, safe='')}&r=1",
    "an address in lower case": lambda secret: re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
    "a form": lambda secret: quote_plus(secret),
    "repr": lambda secret: repr([secret]),
    "hexadecimal": lambda secret: secret.encode().hex(),
    "Base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "Base64 for addresses": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "Basic auth": lambda secret: "Basic " + base64.b64encode(f"u:{secret}".encode()).decode(),
    "Basic auth of a longer name": lambda secret: "Basic " + base64.b64encode(f"us:{secret}".encode()).decode(),
    "Base64 amid more": lambda secret: base64.b64encode(f"use:{secret}, and more".encode()).decode(),
    "wrapped Base64": lambda secret: base64.encodebytes(secret.encode()).decode(),
    "broken over lines": lambda secret: "\n".join(secret[at : at + 7] for at in range(0, len(secret), 7)),
    "broken over lines, in JSON": lambda secret: json.dumps("\r\n  ".join([secret[:5], secret[5:9], secret[9:]])),
    "in one line": lambda secret: secret.replace("\n", ""),
    "soft breaks": lambda secret: secret[:6] + "=\n" + secret[6:],
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_found_however_it_is_written(name: str, how: str) -> None:
    text = f"before {WRITTEN[how](SECRETS[name])} after"
    redacted = ALL.text(text)
    assert REDACTED in redacted and leaks_in(redacted, {name: SECRETS[name]}) == []
    assert redacted.startswith("before ") and redacted.endswith(" after")
    assert ALL.text(redacted) == redacted


@pytest.mark.parametrize("name", [name for name, secret in SECRETS.items() if "\n" in secret])
def test_each_line_of_a_key_is_found_by_itself(name: str) -> None:
    for line in SECRETS[name].splitlines():
        redacted = Redactor([SECRETS[name]]).text(f"[{line}]")
        assert leaks_in(redacted, {name: SECRETS[name]}) == []


def test_the_password_of_an_address_is_a_secret_by_itself_quoted_or_not() -> None:
    redactor = Redactor(["postgres://app:pa%2Fss-word@db/x"])
    assert redactor.text("login as app with pa/ss-word failed (pa%2Fss-word)") == (
        f"login as app with {REDACTED} failed ({REDACTED})"
    )


def test_the_key_in_a_document_is_a_secret_by_itself() -> None:
    document = json.loads(SECRETS["google_service_account"])
    redacted = ALL.text(f"key: {document['private_key']} of {document['client_email']}")
    assert redacted == f"key: {REDACTED}\n of robot@project.example"


def test_values_of_json_are_redacted_in_keys_and_numbers_too_and_no_key_is_lost() -> None:
    redactor = Redactor([TOKEN, "another-secret-1", "12345678"])
    value = {TOKEN: [1, {"deep": (TOKEN + "!",)[0]}], "another-secret-1": 12345678, "n": 1.5, "b": True, "x": None}
    assert redactor.value(value) == {
        REDACTED: [1, {"deep": f"{REDACTED}!"}],
        f"{REDACTED} (2)": REDACTED,
        "n": 1.5,
        "b": True,
        "x": None,
    }


def test_keys_that_are_alike_without_their_secrets_are_numbered() -> None:
    assert distinct(["a", "b", "a", "a (2)", "a"]) == ["a", "b", "a (3)", "a (2)", "a (4)"]
    assert len(set(distinct(["a"] * 20_000))) == 20_000


def test_bytes_that_are_no_text_are_redacted_and_otherwise_kept() -> None:
    assert Redactor([TOKEN]).data(b"\xff\x00" + TOKEN.encode() + b"\xfe") == b"\xff\x00" + REDACTED.encode() + b"\xfe"
    assert NO_SECRETS.data(b"\xff") == b"\xff" and not NO_SECRETS


@given(st.text(max_size=200), st.text(max_size=200))
def test_what_is_no_secret_stays_as_it_is(before: str, after: str) -> None:
    redactor = Redactor([TOKEN])
    assert redactor.text(before) == before or TOKEN[:MIN_LENGTH] in "".join(before.split())
    assert TOKEN not in redactor.text(before + TOKEN + after)


@given(st.integers(0, len(TOKEN)), st.sampled_from([" ", "\n", "\r\n\t", "\\n", "%0A", "\\\\n"]), st.text(max_size=20))
def test_a_break_anywhere_hides_none(at: int, broken: str, around: str) -> None:
    text = around + TOKEN[:at] + broken + TOKEN[at:] + around
    assert leaks_in(Redactor([TOKEN]).text(text), {"token": TOKEN}) == []


def test_an_error_is_redacted_before_it_is_bounded() -> None:
    redactor = Redactor([TOKEN])
    for before in range(MAX_TEXT_CHARS - 2 * len(TOKEN), MAX_TEXT_CHARS + 10):
        text = redactor.error(ValueError("x" * before + TOKEN + "y" * 9_000))
        assert len(text) <= MAX_TEXT_CHARS and TOKEN[:MIN_LENGTH] not in text
    many = redactor.error(ValueError(f"{TOKEN} " * 1_000))
    assert len(many) <= MAX_TEXT_CHARS and TOKEN[:MIN_LENGTH] not in many


def test_what_may_be_the_beginning_of_a_secret_is_known() -> None:
    redactor = Redactor([TOKEN])
    assert redactor.held_from("all is well: sk_li") == len("all is well: ")
    assert redactor.held_from("all is well: sk_\nli") == len("all is well: ")
    assert redactor.end(f"ends with {TOKEN[:12]}") == f"ends with {REDACTED}"
    assert redactor.end("ends with sk_") == "ends with sk_"


@pytest.mark.parametrize("unit", ["\\", "\\\n", "\\ ", "%0", "=\r", "%0a=", "a"])
def test_what_others_write_cannot_make_redacting_it_slow(unit: str) -> None:
    """Its work grows with a text, not with its square, which would be minutes here."""
    text = unit * 300_000 + "x"
    before = time.process_time()
    assert Redactor([TOKEN]).text(text).endswith("x") and NO_SECRETS.text(text) == text
    assert time.process_time() - before < 20


def test_a_short_text_is_no_secret_and_a_redactor_shows_none() -> None:
    assert not Redactor(["short", ""]) and Redactor(["short"]).text("short") == "short"
    assert TOKEN not in repr(Redactor([TOKEN]))


def test_there_are_thirty_formats_and_each_is_told_in_every_form() -> None:
    assert len(SECRETS) == 30 and len(set(SECRETS.values())) == 30
    for name, secret in SECRETS.items():
        for how, mark in marks_of(secret).items():
            assert f"{name} as {how}" in leaks_in(f"({mark})", SECRETS)
