"""OIDC issuers in the directory: what is wrong with an entry is said with its line, and what is unsafe is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from airside.directory import Directory, OidcIssuer, Tenant, load_directory
from airside.stack.errors import InvalidConfig, WrongCall

ENTRY = """
oidc:
  corp:
    issuer: https://sso.example/realms/shop
    audience: airside
    algorithms: [RS256]
    tenant: acme
"""
TENANTS = """
tenants:
  acme: {principals: {ana: {issuers: [corp]}, bot: {}}}
  beta: {open: true}
"""


def written(*lines: str, rest: str = TENANTS, **changed: str) -> str:
    """Return a directory whose entry has further lines, and fields that are changed; "" leaves one out."""
    kept = [line for line in ENTRY.splitlines() if line.strip().partition(":")[0] not in changed or line == "oidc:"]
    more = [*(f"{name}: {value}" for name, value in changed.items() if value), *lines]
    return "\n".join([*kept, *(f"    {line}" for line in more)]) + rest


def loaded(*lines: str, **changed: str) -> Directory:
    """Load it."""
    return load_directory(written(*lines, **changed))


def test_an_entry_has_what_was_decided_where_it_says_nothing() -> None:
    entry = loaded().oidc["corp"]
    assert (entry.principal_claim, entry.leeway_s, entry.refresh_s, entry.keys_max_age_s) == ("sub", 30, 300, 3600)
    assert entry.speaks_for == ("acme",) and not entry.other_audiences and not entry.roles_claim
    assert loaded("tenants: [acme, beta]", tenant="", tenant_claim="org").oidc["corp"].speaks_for == ("acme", "beta")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/realms/shop",
        "http://localhost/x",
        "http://[::1]:80",
        "https://127.0.0.1",
        "https://sso.example:8443/",
    ],
)
def test_urls_that_an_issuer_may_have(url: str) -> None:
    assert loaded(issuer=url).oidc["corp"].issuer == url


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("issuer", "http://sso.example/realms/shop", "https:// is needed"),
        ("issuer", "http://127.0.0.1.evil.example/", "https:// is needed"),
        ("issuer", "http://localhost.evil.example/", "https:// is needed"),
        ("issuer", "http://10.0.0.1/", "https:// is needed"),
        ("issuer", "https://user:pw@sso.example/", "leave them out"),
        ("issuer", "https://sso.example/?x=1", "no query"),
        ("issuer", "'https://sso.example/#x'", "no fragment"),
        ("issuer", "ftp://sso.example/", "absolute URL"),
        ("issuer", "sso.example", "absolute URL"),
        ("issuer", "airside-local", "absolute URL"),
        ("issuer", "'https://sso.example/a b'", "without spaces"),
        ("issuer", "'https://sso.example\\evil.example/'", "no URL"),
        ("issuer", "https://sso.éxample/", "ASCII"),
        ("issuer", "https://sso.example:99999/", "no URL"),
        ("issuer", "https://[::1/", "no URL"),
        ("issuer", "5", "write it in quotes"),
        ("issuer", "", "required"),
        ("audience", "", "required"),
        ("audience", "''", "at least 1 character"),
        ("audience", "[a, b]", "text is needed"),
        ("algorithms", "", "required"),
        ("algorithms", "[]", "at least 1"),
        ("algorithms", "[HS256]", "it must be 'RS256'"),
        ("algorithms", "[none]", "it must be 'RS256'"),
        ("algorithms", "[rs256]", "it must be 'RS256'"),
        ("algorithms", "[ES256K]", "it must be 'RS256'"),
        ("algorithms", "[RS256, RS256]", "there already"),
        ("jwks_uri", "http://sso.example/certs", "https:// is needed"),
        ("jwks_uri", "'https://sso.example/certs#x'", "no fragment"),
        ("jwks_file", "keys.json", "absolute path"),
        ("ca_file", "ca.pem", "absolute path"),
        ("tenant", "", "say for whom it speaks"),
        ("tenant", "acne", "do you mean acme?"),
        ("tenants", "[acme]", "tenants go with tenant_claim"),
        ("tenant_claim", "org", "say for whom it speaks"),
        ("principal_claim", "''", "at least 1 character"),
        ("roles_claim", "5", "the path to it"),
        ("roles_claim", "[realm_access, 5]", "the path to it"),
        ("role_names", "{a: b}", "say roles_claim"),
        ("scope_names", "{a: b}", "say scopes_claim"),
        ("required", "{azp: 1.5}", "a text, a whole number"),
        ("required", "{azp: []}", "a text, a whole number"),
        ("required", "{azp: null}", "a text, a whole number"),
        ("leeway_s", "121", "at most 120"),
        ("leeway_s", "-1", "at least 0"),
        ("refresh_s", "29", "at least 30"),
        ("refresh_s", "3601", "at most keys_max_age_s"),
        ("keys_max_age_s", "604801", "at most 604,800"),
        ("colour", "red", "unknown field"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_with_its_line(field: str, value: str, says: str) -> None:
    text = written(**{field: value})
    with pytest.raises(InvalidConfig) as caught:
        load_directory(text)
    line = next((n for n, each in enumerate(text.splitlines(), 1) if each.startswith(f"    {field}:")), 3)
    place, _, said = caught.value.message.partition(": ")
    assert place in (f"directory:{line}", "directory:3") and said.startswith("oidc.corp") and says in said


def test_keys_come_from_one_place() -> None:
    with pytest.raises(InvalidConfig, match="leave one out"):
        loaded("jwks_uri: https://sso.example/certs", "jwks_file: /etc/keys.json")


def test_a_token_names_only_tenants_that_are_listed() -> None:
    with pytest.raises(InvalidConfig, match=r"write tenants: \[NAME"):
        loaded(tenant="", tenant_claim="org")
    with pytest.raises(InvalidConfig, match=r"oidc\.corp\.tenants\.1: there is no tenant 'gamma'"):
        loaded("tenants: [acme, gamma]", tenant="", tenant_claim="org")
    with pytest.raises(InvalidConfig, match="there already"):
        loaded("tenants: [acme, acme]", tenant="", tenant_claim="org")


def test_an_issuer_has_one_entry() -> None:
    other = ENTRY.replace("oidc:\n", "").replace("corp:", "other:")
    with pytest.raises(InvalidConfig, match=r"directory:9: oidc\.other\.issuer: that is the issuer of corp already"):
        load_directory(ENTRY + other.lstrip("\n") + TENANTS)
    with pytest.raises(InvalidConfig, match="the issuer of the directory itself already"):
        load_directory("issuer: https://sso.example/realms/shop" + ENTRY + TENANTS)


@pytest.mark.parametrize("name", ["a b", "é", "-x", "x" * 64, "''"])
def test_an_issuers_name_is_plain(name: str) -> None:
    with pytest.raises(InvalidConfig, match="an issuer's name"):
        load_directory(ENTRY.replace("corp:", f"{name}:" if name == "''" else f"'{name}':") + TENANTS)


@pytest.mark.parametrize(
    ("tenants", "says"),
    [
        ("tenants: {acme: {principals: {ana: {issuers: [korp]}}}}", "ana.issuers.0: there is no issuer 'korp' (do you"),
        ("tenants: {acme: {}, beta: {principals: {ana: {issuers: [corp]}}}}", "corp does not speak for beta"),
        ("tenants: {acme: {}, beta: {open: true, open_issuers: [corp]}}", "corp does not speak for beta"),
        ("tenants: {acme: {open: true, open_issuers: [other]}}", "acme.open_issuers.0: there is no issuer"),
        ("tenants: {acme: {open_issuers: [corp]}}", "open: true"),
    ],
)
def test_who_is_named_by_a_tenant_speaks_for_it(tenants: str, says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_directory(ENTRY + tenants)
    assert says in caught.value.message and caught.value.message.startswith("directory:8: tenants.")


def test_an_issuer_that_no_entry_has_is_named_nowhere() -> None:
    with pytest.raises(InvalidConfig, match="name it under oidc"):
        load_directory("tenants: {acme: {principals: {ana: {issuers: [corp]}}}}")


def test_a_directory_is_built_in_code_as_it_is_written() -> None:
    fields: dict[str, Any] = {"issuer": "https://sso.example/realms/shop", "audience": "airside", "tenant": "acme"}
    entry = OidcIssuer(algorithms=["RS256"], **fields)
    made = Directory(oidc={"corp": entry}, tenants={"acme": Tenant(), "beta": Tenant()})
    assert made.oidc == load_directory(ENTRY + "tenants: {acme: {}, beta: {}}").oidc
    with pytest.raises(WrongCall, match="algorithms"):
        OidcIssuer(algorithms=["HS256"], **fields)  # type: ignore[list-item]
