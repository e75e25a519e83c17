"""Tokens of OIDC issuers: each way to pass for somebody, and what a good token gives."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.directory import load_directory
from airside.stack.errors import AuthRefused
from airside.stack.security.authenticator import Authenticator, issue_token
from airside.stack.security.issuer_keys import keys_of
from airside.stack.security.key_sets import read_key_set
from airside.stack.security.tokens import MAX_TOKEN_BYTES
from tests.oidc_issuer import AUDIENCE, Signer, part, private_key, signed
from tests.unit.stack.security.test_authenticator import NOW, SIGNER, pem_of, public_of

CORP_URL, MALL_URL = "https://sso.example/realms/shop", "https://login.example/v2.0"
DIRECTORY = f"""
oidc:
  corp:
    issuer: {CORP_URL}
    audience: {AUDIENCE}
    algorithms: [RS256, ES256, EdDSA]
    tenant: acme
  mall:
    issuer: {MALL_URL}
    audience: {AUDIENCE}
    other_audiences: [account]
    algorithms: [RS256]
    tenant_claim: org
    tenants: [beta, open]
    roles_claim: [realm_access, roles]
    role_names: {{mall-guest: guest, mall-root: root}}
    scopes_claim: scope
    required: {{typ: Bearer, azp: [web, cli], scope: airside, groups: staff, ver: 2, gold: true}}
tenants:
  acme:
    principals:
      ana: {{roles: [clerk], scopes: [pay], issuers: [corp]}}
      bot: {{roles: [lead]}}
  beta: {{principals: {{ana: {{roles: [boss], issuers: [mall]}}}}}}
  open:
    open: true
    open_roles: [guest]
    open_scopes: [look, pay]
    open_issuers: [mall]
    principals: {{ana: {{roles: [lead]}}}}
"""
CORP, CORP_EC, CORP_ED = Signer(CORP_URL), Signer(CORP_URL, "ec", "ES256"), Signer(CORP_URL, "ed", "EdDSA")
MALL = Signer(MALL_URL, "k1", "RS256", 1)
MALL_SAYS: dict[str, Any] = {
    "org": "open",
    "sub": "zoe",
    "typ": "Bearer",
    "azp": "cli",
    "scope": "openid airside pay root",
    "groups": ["staff", "all"],
    "ver": 2,
    "gold": True,
    "realm_access": {"roles": ["mall-guest", "mall-root", "guest", "lead"]},
}


class World:
    """An authenticator that has both issuers' keys, and the clock they go by."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self.now_s = 0.0
        issuers = keys_of(load_directory(directory).oidc, lambda: self.now_s)
        self.issuers = {each.name: each for each in issuers}
        self.auth = Authenticator(load_directory(directory), public_of(SIGNER), issuers)

    def publish(self, name: str, *signers: Signer) -> None:
        """Have an issuer's keys fetched: these, and no others."""
        data = json.dumps({"keys": [each.jwk() for each in signers]}).encode()
        self.issuers[name].begin()
        self.issuers[name].take(read_key_set(data, self.issuers[name].entry.algorithms))

    def refused(self, credential: Any, now_s: int = NOW) -> str:
        """Return the reason a credential is refused for."""
        with pytest.raises(AuthRefused) as caught:
            self.auth.identify(credential, now_s)
        assert str(credential) not in caught.value.message
        return caught.value.reason

    def says(self, credential: Any) -> str:
        """Return what is said of a credential that is refused."""
        with pytest.raises(AuthRefused) as caught:
            self.auth.identify(credential, NOW)
        return caught.value.message


def a_world(directory: str = DIRECTORY) -> World:
    """Return one in which both issuers have published their keys."""
    world = World(directory)
    world.publish("corp", CORP, CORP_EC, CORP_ED)
    if "mall" in world.issuers:
        world.publish("mall", MALL)
    return world


WORLD = a_world()


def of_mall(**changed: Any) -> str:
    """Return a token of the second issuer, with all that it requires."""
    return MALL.token(NOW, **{**MALL_SAYS, **changed})


# Who it is.


@pytest.mark.parametrize("signer", [CORP, CORP_EC, CORP_ED], ids=lambda signer: signer.algorithm)
def test_a_listed_principal_has_what_the_directory_says_whatever_its_token_says(signer: Signer) -> None:
    who = WORLD.auth.identify(signer.token(NOW, roles=["root"], scope="root", clearance="restricted", nbf=NOW), NOW)
    assert (who.tenant, who.principal, who.roles, who.scopes) == ("acme", "ana", ("clerk",), ("pay",))
    assert who.clearance == "internal" and who.expires_us == (NOW + 300) * 1_000_000


def test_an_issuers_scope_narrows_nothing_and_widens_nothing() -> None:
    """Its words are the issuer's: `openid` is no area of this stack's, and neither is `operate`."""
    for scope in (None, "openid profile", "operate", "", 5):
        assert WORLD.auth.caller(CORP.token(NOW, scope=scope), NOW).areas is None


def test_an_open_tenant_takes_unlisted_principals_with_no_more_than_it_allows() -> None:
    who = WORLD.auth.identify(of_mall(clearance="restricted"), NOW)
    assert (who.tenant, who.principal, who.roles, who.scopes) == ("open", "zoe", ("guest",), ("pay",))
    assert who.clearance == "internal" and not who.attributes
    nothing = WORLD.auth.identify(of_mall(realm_access=None), NOW)
    assert (nothing.roles, nothing.scopes) == ((), ("pay",))
    assert WORLD.auth.identify(of_mall(realm_access={"other": []}), NOW).roles == ()


@pytest.mark.parametrize("access", [{"roles": "mall-guest"}, {"roles": [1]}, {"roles": {"mall-guest": 1}}])
def test_roles_must_be_a_list_of_text(access: Any) -> None:
    assert WORLD.refused(of_mall(realm_access=access)) == "auth_claim_missing"


def test_claims_that_no_entry_names_give_no_role() -> None:
    text = DIRECTORY.replace("    roles_claim: [realm_access, roles]\n", "").replace(
        "scopes_claim: scope", "leeway_s: 3"
    )
    text = "\n".join(line for line in text.splitlines() if "role_names" not in line)
    who = a_world(text).auth.identify(of_mall(roles=["guest"], scopes=["look"]), NOW)
    assert (who.roles, who.scopes) == ((), ())


def test_an_issuer_vouches_only_for_principals_that_name_it() -> None:
    assert WORLD.refused(CORP.token(NOW, sub="bot")) == "principal_unknown"
    assert WORLD.refused(of_mall(sub="ana")) == "principal_unknown"  # listed there, and as nobody's of the mall
    assert "its entry may name it in issuers" in WORLD.says(CORP.token(NOW, sub="bot"))
    assert WORLD.refused(CORP.token(NOW, sub="zoe")) == "principal_unknown"
    closed = DIRECTORY.replace("    open_issuers: [mall]\n", "")
    assert a_world(closed).refused(of_mall()) == "principal_unknown"


def test_two_issuers_that_have_one_name_are_two_principals_of_two_tenants() -> None:
    of_corp, of_the_mall = (
        WORLD.auth.identify(CORP.token(NOW), NOW),
        WORLD.auth.identify(of_mall(sub="ana", org="beta"), NOW),
    )
    assert (of_corp.tenant, of_corp.roles) == ("acme", ("clerk",))
    assert (of_the_mall.tenant, of_the_mall.roles) == ("beta", ("boss",))


@pytest.mark.parametrize(
    ("org", "reason"),
    [
        ("acme", "auth_untrusted"),
        ("gamma", "auth_untrusted"),
        ("BETA", "auth_untrusted"),
        ("../beta", "auth_untrusted"),
        (["beta"], "auth_claim_missing"),
        (None, "auth_claim_missing"),
        ("", "auth_untrusted"),
    ],
)
def test_an_issuer_speaks_for_no_tenant_that_it_was_not_given(org: Any, reason: str) -> None:
    assert WORLD.refused(of_mall(org=org)) == reason


def test_a_fixed_tenant_is_not_the_tokens_to_choose() -> None:
    assert WORLD.auth.identify(CORP.token(NOW, tenant="beta", org="beta"), NOW).tenant == "acme"


@pytest.mark.parametrize(
    "sub", ["o'brien@x.example", "ana maria", "auth0|5", "ána", "", "-x", "x" * 129, 5, None, ["ana"]]
)
def test_a_name_that_is_no_principals_is_refused_with_what_one_is(sub: Any) -> None:
    assert WORLD.refused(CORP.token(NOW, sub=sub)) == "auth_claim_missing"
    said = WORLD.says(CORP.token(NOW, sub=sub))
    assert "sub: " in said and "up to 128 ASCII letters, digits and _.@+-" in said


def test_an_address_counts_only_where_the_issuer_has_verified_it() -> None:
    world = a_world(
        DIRECTORY.replace("    tenant: acme\n", "    tenant: acme\n    principal_claim: email\n").replace(
            "ana: {roles: [clerk]", "ana@x.example: {roles: [clerk]"
        )
    )
    assert (
        world.auth.identify(CORP.token(NOW, email="ana@x.example", email_verified=True), NOW).principal
        == "ana@x.example"
    )
    for verified in (False, None, "true", 1):
        assert world.refused(CORP.token(NOW, email="ana@x.example", email_verified=verified)) == "auth_claim_missing"


# How it is signed.


def test_another_issuers_key_signs_nothing_even_under_the_same_id() -> None:
    assert CORP.kid == MALL.kid
    assert WORLD.refused(Signer(CORP_URL, "k1", "RS256", 1).token(NOW)) == "auth_bad_signature"
    assert WORLD.refused(Signer(MALL_URL, "ec", "ES256").token(NOW, **MALL_SAYS)) == "auth_untrusted"
    assert WORLD.refused(Signer("https://other.example").token(NOW)) == "auth_untrusted"


@pytest.mark.parametrize("iss", [CORP_URL + "/", CORP_URL.upper(), CORP_URL + " ", "", 5, None, [CORP_URL]])
def test_an_issuer_is_named_exactly_or_it_is_another(iss: Any) -> None:
    assert WORLD.refused(CORP.token(NOW, iss=iss)) == "auth_untrusted"


def test_the_stacks_own_key_does_not_sign_for_an_issuer_nor_an_issuers_for_the_stack() -> None:
    head = {"alg": "EdDSA", "kid": "local"}
    assert WORLD.refused(signed(head, CORP.claims(NOW), SIGNER, "EdDSA")) == "auth_untrusted"
    local = {"iss": "airside-local", "aud": "airside", "sub": "bot", "tenant": "acme", "nbf": NOW, "exp": NOW + 9}
    assert WORLD.refused(signed({"alg": "EdDSA", "kid": "ed"}, local, CORP_ED.key, "EdDSA")) == "auth_untrusted"
    assert WORLD.refused(signed(head, local, CORP_ED.key, "EdDSA")) == "auth_bad_signature"


def test_the_stacks_own_tokens_are_as_good_as_ever() -> None:
    mine = issue_token(pem_of(SIGNER), tenant="acme", principal="bot", now_s=NOW)
    assert WORLD.auth.identify(mine, NOW).roles == ("lead",)
    assert WORLD.auth.needs_keys(mine) is None and WORLD.auth.needs_keys("ask_x") is None


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "", "HS256", "hs256", "rs256", "RS512", "PS256", "ES384", None, 5, ["RS256"]]
)
def test_a_header_names_no_algorithm_that_is_not_pinned(alg: Any) -> None:
    assert WORLD.refused(CORP.token(NOW, {"alg": alg})) == "auth_untrusted"
    assert WORLD.auth.needs_keys(CORP.token(NOW, {"alg": alg, "kid": "new"})) is None


@pytest.mark.parametrize("signer", [CORP, CORP_EC, CORP_ED], ids=lambda signer: signer.algorithm)
@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_a_key_is_used_with_no_algorithm_of_another_kind(signer: Signer, alg: str) -> None:
    if alg != signer.algorithm:
        assert WORLD.refused(signer.token(NOW, {"alg": alg})) == "auth_untrusted"


def test_a_public_key_does_not_pass_for_a_shared_secret() -> None:
    public = CORP.key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        for alg in ("HS256", "RS256"):
            text = f"{part({'alg': alg, 'kid': 'k1'})}.{part(CORP.claims(NOW))}"
            mark = hmac.digest(public.public_bytes(encoding, form), text.encode(), hashlib.sha256)
            assert WORLD.refused(f"{text}.{part(mark)}") in ("auth_untrusted", "auth_bad_signature")


def test_an_unsigned_token_is_refused() -> None:
    assert (
        WORLD.refused(jwt.encode(CORP.claims(NOW), None, algorithm="none", headers={"kid": "k1"})) == "auth_untrusted"
    )
    head, claims, _ = CORP.token(NOW).split(".")
    assert WORLD.refused(f"{head}.{claims}.") == "auth_bad_signature"


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": CORP.jwk(n="AQAB")},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/x"},
        {"x5c": ["AA"]},
    ],
    ids=lambda header: next(iter(header)),
)
def test_a_header_brings_no_key(header: dict[str, Any]) -> None:
    """It is not read: with the pinned key the token holds, with any other it does not."""
    assert WORLD.auth.identify(CORP.token(NOW, header), NOW).principal == "ana"
    forged = Signer(CORP_URL, "k1", "RS256", 1).token(NOW, {**header, "jwk": MALL.jwk()})
    assert WORLD.refused(forged) == "auth_bad_signature"
    assert WORLD.refused(Signer(CORP_URL, "new", "RS256", 1).token(NOW, header)) == "auth_untrusted"


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"crit": None}])
def test_what_a_header_calls_critical_is_refused(header: dict[str, Any]) -> None:
    assert WORLD.refused(CORP.token(NOW, header)) == "auth_untrusted"


@pytest.mark.parametrize(
    ("typ", "good"),
    [
        *((each, True) for each in ("JWT", "jwt", "at+jwt", "application/at+jwt")),
        *((each, False) for each in ("logout+jwt", "dpop+jwt", "secevent+jwt", "", None, 5)),
    ],
)
def test_only_what_may_be_a_bearer_token_is_taken_for_one(typ: Any, good: bool) -> None:
    token = CORP.token(NOW, {"typ": typ})
    assert WORLD.auth.identify(token, NOW).principal == "ana" if good else WORLD.refused(token) == "auth_untrusted"


def test_a_token_that_is_bound_to_its_holders_key_is_no_bearer_token() -> None:
    assert WORLD.refused(CORP.token(NOW, cnf={"jkt": "x"})) == "auth_failed"


@pytest.mark.parametrize("kid", ["other", "", "ec\0", 5, None, ["k1"], {"k1": 1}])
def test_a_key_that_the_issuer_does_not_have_signs_nothing(kid: Any) -> None:
    reason = WORLD.refused(CORP.token(NOW, {"kid": kid}))
    assert reason == ("auth_malformed" if kid == "ec\0" else "auth_untrusted")


def test_a_token_that_names_no_key_is_refused_even_where_there_is_only_one() -> None:
    world = World()
    world.publish("corp", CORP)
    assert world.refused(signed({"alg": "RS256"}, CORP.claims(NOW), CORP.key, "RS256")) == "auth_untrusted"


# What it says.


def test_the_clocks_may_differ_by_the_entrys_leeway_and_no_more() -> None:
    WORLD.auth.identify(CORP.token(NOW, iat=None, exp=NOW - 29), NOW)
    assert WORLD.refused(CORP.token(NOW, iat=None, exp=NOW - 30)) == "auth_expired"
    WORLD.auth.identify(CORP.token(NOW, nbf=NOW + 30), NOW)
    assert WORLD.refused(CORP.token(NOW, nbf=NOW + 31)) == "auth_not_yet_valid"
    assert WORLD.refused(CORP.token(NOW, iat=NOW + 31)) == "auth_not_yet_valid"
    strict = a_world(DIRECTORY.replace("tenant: acme", "tenant: acme\n    leeway_s: 0"))
    assert strict.refused(CORP.token(NOW, exp=NOW)) == "auth_expired"


@pytest.mark.parametrize(
    ("claim", "value", "reason"),
    [
        ("exp", None, "auth_claim_missing"),
        ("exp", str(NOW + 100), "auth_claim_missing"),
        ("exp", NOW + 100.5, "auth_claim_missing"),
        ("exp", True, "auth_claim_missing"),
        ("exp", 2**40, "auth_claim_missing"),
        ("exp", -1, "auth_claim_missing"),
        ("exp", NOW - 5, "auth_claim_missing"),
        ("nbf", str(NOW), "auth_claim_missing"),
        ("nbf", NOW + 1000, "auth_not_yet_valid"),
        ("nbf", False, "auth_claim_missing"),
        ("iat", "now", "auth_claim_missing"),
        ("jti", 5, "auth_claim_missing"),
        ("aud", None, "auth_claim_missing"),
        ("aud", 5, "auth_claim_missing"),
        ("aud", [5], "auth_claim_missing"),
        ("aud", "other", "auth_untrusted"),
        ("aud", "Airside", "auth_untrusted"),
        ("aud", [], "auth_untrusted"),
        ("aud", ["other"], "auth_untrusted"),
        ("aud", {AUDIENCE: 1}, "auth_claim_missing"),
    ],
)
def test_each_wrong_claim_has_its_reason(claim: str, value: Any, reason: str) -> None:
    assert WORLD.refused(CORP.token(NOW, **{claim: value})) == reason


def test_a_token_for_others_too_is_taken_only_where_the_entry_names_them() -> None:
    assert WORLD.auth.identify(CORP.token(NOW, aud=[AUDIENCE]), NOW).principal == "ana"
    assert WORLD.refused(CORP.token(NOW, aud=[AUDIENCE, "account"])) == "auth_untrusted"
    assert "'account'" in WORLD.says(CORP.token(NOW, aud=[AUDIENCE, "account"]))
    assert WORLD.auth.identify(of_mall(aud=["account", AUDIENCE]), NOW).principal == "zoe"
    assert WORLD.refused(of_mall(aud=["account", AUDIENCE, "other"])) == "auth_untrusted"
    assert WORLD.refused(of_mall(aud=["account"])) == "auth_untrusted"
    assert WORLD.refused(of_mall(aud=[AUDIENCE] * 17)) == "auth_untrusted"


@pytest.mark.parametrize(
    "changed",
    [
        *[{name: None} for name in ("typ", "azp", "scope", "groups", "ver", "gold")],
        {"typ": "ID"},
        {"azp": "other"},
        {"azp": {"cli": 1}},
        {"scope": "openid airsides"},
        {"scope": "airside,openid"},
        {"groups": ["other"]},
        {"groups": "sta"},
        {"ver": "2"},
        {"ver": 2.0},
        {"ver": True},
        {"gold": 1},
        {"gold": "true"},
    ],
    ids=repr,
)
def test_what_an_entry_requires_must_be_said(changed: dict[str, Any]) -> None:
    assert WORLD.refused(of_mall(**changed)) == "auth_claim_missing"


@pytest.mark.parametrize("name", ["iss", "sub", "exp", "aud"])
def test_a_claim_given_twice_is_malformed_even_if_signed(name: str) -> None:
    once = json.dumps(CORP.claims(NOW))
    twice = (once[:-1] + f', "{name}": {json.dumps(CORP.claims(NOW)[name])}}}').encode()
    assert WORLD.refused(signed({"alg": "RS256", "kid": "k1"}, twice, CORP.key, "RS256")) == "auth_malformed"
    head = b'{"alg":"none","alg":"RS256","kid":"k1"}'
    assert WORLD.refused(signed(head, CORP.claims(NOW), CORP.key, "RS256")) == "auth_malformed"


def test_a_token_that_is_too_large_is_refused_before_it_is_read() -> None:
    large = CORP.token(NOW, more="x" * MAX_TOKEN_BYTES)
    assert WORLD.refused(large) == "auth_malformed" and WORLD.auth.needs_keys(large) is None


# For how long it is believed.


def test_without_keys_or_with_keys_that_are_too_old_nothing_is_believed() -> None:
    world = World()
    assert world.refused(CORP.token(NOW)) == "auth_keys_unavailable"
    world.publish("corp", CORP)
    token = CORP.token(NOW)
    world.auth.identify(token, NOW)
    world.issuers["corp"].fail("corp is away")
    world.now_s = 3_599
    assert world.auth.identify(token, NOW).principal == "ana"
    world.now_s = 3_600
    assert world.refused(token) == "auth_keys_unavailable"
    assert "corp" in world.says(token) and "is away" not in world.says(token)  # which may name hosts and files


def test_a_token_that_was_checked_before_ends_with_its_key() -> None:
    world = a_world()
    token, other = CORP.token(NOW), CORP_EC.token(NOW)
    for each in (token, other):
        world.auth.identify(each, NOW)
    world.publish("corp", CORP_EC)
    assert world.refused(token) == "auth_untrusted" and world.auth.identify(other, NOW).principal == "ana"
    world.publish("corp", Signer(CORP_URL, "k1", "RS256", 2), CORP_EC)  # another key of the same id
    assert world.refused(token) == "auth_bad_signature"
    world.publish("corp")
    assert world.refused(other) == "auth_untrusted"


def test_a_checked_token_is_not_checked_again_while_the_keys_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    token = CORP.token(NOW)
    who = world.auth.identify(token, NOW)
    world.publish("corp", CORP, CORP_EC, CORP_ED)
    monkeypatch.setattr("airside.stack.security.authenticator.read_parts", None)
    assert world.auth.identify(token, NOW + 200) is who


def test_a_token_that_was_checked_before_expires() -> None:
    token = CORP.token(NOW)
    WORLD.auth.identify(token, NOW)
    assert WORLD.refused(token, NOW + 330) == "auth_expired"


# Whatever it is.

HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "ES256", "EdDSA", "HS256", "none", None, 1]),
        "kid": st.sampled_from(["k1", "ec", "ed", "local", "x", None, 1]),
        "typ": st.sampled_from(["JWT", "x", None]),
        "crit": st.just(["exp"]),
        "b64": st.booleans(),
        "jku": st.just("https://evil.example"),
    },
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from([CORP_URL, MALL_URL, "airside-local", "x", None, 1]),
        "aud": st.sampled_from([AUDIENCE, [AUDIENCE], "x", None]),
        "sub": st.sampled_from(["ana", "bot", "zoe", None, 1]),
        "tenant": st.sampled_from(["acme", "beta", "open"]),
        "org": st.sampled_from(["acme", "beta", "open", None]),
        "exp": st.sampled_from([NOW + 60, NOW - 60, None, "x", 1e9]),
        "nbf": st.sampled_from([NOW, NOW + 60, None]),
    },
)


@given(header=HEADERS, claims=CLAIMS, at=st.integers(0, 2))
def test_a_key_of_nobody_makes_nobody_of_any_token(header: dict[str, Any], claims: dict[str, Any], at: int) -> None:
    """Whatever a token says and names: signed by somebody else, it is refused, and nothing else is raised."""
    algorithm = ("RS256", "ES256", "EdDSA")[at]
    token = signed({**CORP.claims(NOW), **header}, {**CORP.claims(NOW), **claims}, private_key(algorithm, 9), algorithm)
    assert WORLD.refused(token).startswith("auth_")
    WORLD.auth.needs_keys(token)


@given(claims=CLAIMS)
def test_a_token_that_its_issuer_signed_is_of_whom_it_says_or_of_nobody(claims: dict[str, Any]) -> None:
    said = {**CORP.claims(NOW), **claims}
    try:
        who = WORLD.auth.identify(signed({"alg": "RS256", "kid": "k1"}, said, CORP.key, "RS256"), NOW)
    except AuthRefused:
        return
    assert (who.tenant, who.principal) == ("acme", "ana") and said["iss"] == CORP_URL
