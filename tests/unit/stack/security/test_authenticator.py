"""Who is asking: every way a token is refused, API keys, open tenants, the directory file, and the key ring."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airside.stack.directory import load_directory, lower
from airside.stack.errors import AuthRefused, InvalidConfig, InvalidId, InvalidInput
from airside.stack.security.authenticator import Authenticator, hash_api_key, issue_token, new_api_key
from airside.stack.security.identity import IdentityChecker, seal_identity
from airside.stack.security.keyring import KeyRing
from airside.stack.security.tokens import MAX_TOKEN_BYTES
from airside.stack.values import Limits
from tests.helpers import KEY

NOW = 1_700_000_000
API_KEY = "ask_test"
DIRECTORY = f"""
tenants:
  acme:
    clearance: confidential
    limits: {{max_steps: 10, max_tokens: 500}}
    principals:
      ann:
        roles: [clerk]
        scopes: [pay]
        clearance: restricted
        attributes: {{orders: [o1, o2]}}
        limits: {{max_steps: 99, max_tokens: 50, max_tool_calls: 3}}
        api_keys: ["{hash_api_key(API_KEY)}"]
  open:
    open: true
    open_roles: [guest]
    open_scopes: [look, pay]
"""


def pem_of(key: Any) -> bytes:
    """Return a private key's PEM."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    data: bytes = key.private_bytes(encoding, form, serialization.NoEncryption())
    return data


def public_of(key: Any) -> bytes:
    """Return the public half's PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    data: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return data


SIGNER = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
AUTH = Authenticator(load_directory(DIRECTORY), public_of(SIGNER))
CLAIMS: dict[str, Any] = {
    "iss": "airside-local",
    "aud": "airside",
    "sub": "ann",
    "tenant": "acme",
    "nbf": NOW - 10,
    "exp": NOW + 100,
}


def part(value: Any) -> str:
    """Encode one part of a token; bytes and text go in as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: Any = None, header: Any = None, *, key: Ed25519PrivateKey = SIGNER, **changed: Any) -> str:
    """Return a token with a good signature over whatever is given; None removes a claim."""
    body = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    head = part({"alg": "EdDSA", "kid": "local", "typ": "JWT"} if header is None else header)
    signed = f"{head}.{part(body if claims is None else claims)}"
    return f"{signed}.{part(key.sign(signed.encode()))}"


def refused(credential: Any, now_s: int = NOW) -> str:
    """Return the reason `credential` is refused for."""
    with pytest.raises(AuthRefused) as caught:
        AUTH.identify(credential, now_s)
    return caught.value.reason


# Tokens.


def test_a_good_token_gives_what_the_directory_says_of_its_principal() -> None:
    who = AUTH.identify(token(roles=["admin"], scopes=["everything"], clearance="restricted"), NOW)
    assert (who.principal, who.tenant, who.roles, who.scopes) == ("ann", "acme", ("clerk",), ("pay",))
    assert who.attributes == {"orders": ("o1", "o2")} and who.expires_us == (NOW + 100) * 1_000_000


def test_a_principal_has_no_more_than_its_tenant() -> None:
    who = AUTH.identify(token(), NOW)
    assert who.clearance == "confidential"
    assert (who.limits.max_steps, who.limits.max_tokens, who.limits.max_tool_calls) == (10, 50, 3)
    assert lower("public", "restricted") == "public"


def test_the_stacks_own_tokens_are_good_and_claims_do_not_override_the_fixed_ones() -> None:
    text = issue_token(pem_of(SIGNER), tenant="acme", principal="ann", now_s=NOW, claims={"sub": "eve", "exp": 1})
    assert AUTH.identify(text, NOW).principal == "ann"
    with pytest.raises(InvalidId):
        issue_token(pem_of(SIGNER), tenant="Not/One", principal="ann", now_s=NOW)
    with pytest.raises(InvalidConfig, match="Ed25519"):
        issue_token(pem_of(generate_private_key(SECP256R1())), tenant="acme", principal="ann", now_s=NOW)


def test_a_token_that_ends_before_it_begins_is_never_valid() -> None:
    for claims in ({"iat": NOW + 3, "exp": NOW + 2}, {"iat": NOW, "exp": NOW}, {"nbf": NOW + 2, "exp": NOW + 1}):
        assert refused(token(**claims)) == "auth_claim_missing", claims
    AUTH.identify(token(iat=NOW, exp=NOW + 1, jti="one"), NOW)


def test_a_token_may_be_used_until_it_expires() -> None:
    """As a batch does: its id is not remembered."""
    text = token(jti="once")
    assert AUTH.identify(text, NOW) == AUTH.identify(text, NOW + 1)


def test_the_clock_may_differ_by_five_seconds_and_no_more() -> None:
    AUTH.identify(token(iat=NOW + 5), NOW)
    AUTH.identify(token(exp=NOW - 4), NOW)
    assert refused(token(exp=NOW - 5)) == "auth_expired"
    AUTH.identify(token(nbf=NOW + 5), NOW)
    assert refused(token(nbf=NOW + 6)) == "auth_not_yet_valid"


@pytest.mark.parametrize(
    ("claim", "value", "reason"),
    [
        ("iss", "evil", "auth_untrusted"),
        ("aud", "other", "auth_untrusted"),
        ("aud", ["airside"], "auth_claim_missing"),
        ("aud", ["airside", "other"], "auth_claim_missing"),
        *[(name, None, "auth_claim_missing") for name in CLAIMS],
        ("exp", str(NOW + 100), "auth_claim_missing"),
        ("exp", float(NOW + 100), "auth_claim_missing"),
        ("exp", True, "auth_claim_missing"),
        ("nbf", "0", "auth_claim_missing"),
        ("nbf", 0.5, "auth_claim_missing"),
        ("nbf", False, "auth_claim_missing"),
        ("iat", str(NOW), "auth_claim_missing"),
        ("iat", NOW + 0.5, "auth_claim_missing"),
        ("iat", True, "auth_claim_missing"),
        ("iat", -1, "auth_claim_missing"),
        ("iat", 2**40, "auth_claim_missing"),
        ("iat", NOW + 6, "auth_not_yet_valid"),
        ("iat", NOW + 1000, "auth_not_yet_valid"),
        ("jti", 5, "auth_claim_missing"),
        ("sub", 5, "auth_claim_missing"),
        ("sub", "a b", "auth_claim_missing"),
        ("sub", "", "auth_claim_missing"),
        ("tenant", ["acme"], "auth_claim_missing"),
        ("tenant", "../acme", "auth_claim_missing"),
        ("tenant", "ACME", "auth_claim_missing"),
        ("tenant", "globex", "tenant_unknown"),
        ("sub", "eve", "principal_unknown"),
    ],
)
def test_each_wrong_claim_has_its_reason(claim: str, value: Any, reason: str) -> None:
    assert refused(token(**{claim: value})) == reason


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "kid": "local"},
        {"alg": "None", "kid": "local"},
        {"alg": "HS256", "kid": "local"},
        {"alg": "eddsa", "kid": "local"},
        {"alg": ["EdDSA"], "kid": "local"},
        {"kid": "local"},
        {"alg": "EdDSA"},
        {"alg": "EdDSA", "kid": "other"},
        {"alg": "EdDSA", "kid": ["local"]},
        {"alg": "EdDSA", "kid": None},
        {"alg": "EdDSA", "kid": "local", "crit": ["x"]},
    ],
)
def test_the_header_chooses_neither_algorithm_nor_key(header: dict[str, Any]) -> None:
    assert refused(token(header=header)) == "auth_untrusted"


def test_a_token_with_its_own_key_in_the_header_is_checked_with_the_pinned_one() -> None:
    header = {"alg": "EdDSA", "kid": "local", "jwk": {"kty": "OKP"}, "jku": "https://evil.example"}
    assert refused(token(header=header, key=OTHER)) == "auth_bad_signature"


def test_an_unsigned_token_is_refused() -> None:
    assert refused(jwt.encode(CLAIMS, None, algorithm="none", headers={"kid": "local"})) == "auth_untrusted"
    signed = token()
    assert refused(signed.rsplit(".", 1)[0] + ".") in ("auth_bad_signature", "auth_failed")


def test_the_public_key_does_not_pass_for_a_shared_secret() -> None:
    import hashlib
    import hmac

    signed = f"{part({'alg': 'HS256', 'kid': 'local'})}.{part(CLAIMS)}"
    mark = hmac.digest(public_of(SIGNER), signed.encode(), hashlib.sha256)
    assert refused(f"{signed}.{part(mark)}") == "auth_untrusted"


def test_a_signature_altered_in_any_byte_or_made_by_another_key_is_refused() -> None:
    head, claims, mark = token().split(".")
    good = base64.urlsafe_b64decode(mark + "==")
    for index in range(len(good)):
        bad = good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :]
        assert refused(f"{head}.{claims}.{part(bad)}") == "auth_bad_signature", index
    assert refused(token(key=OTHER)) == "auth_bad_signature"
    assert refused(f"{head}.{part(CLAIMS | {'sub': 'eve'})}.{mark}") == "auth_bad_signature"


@pytest.mark.parametrize("name", ["sub", "tenant", "exp", "aud"])
def test_a_claim_given_twice_is_malformed_even_if_signed(name: str) -> None:
    once = json.dumps(CLAIMS)
    twice = once[:-1] + f", {json.dumps(name)}: {json.dumps(CLAIMS[name])}}}"
    assert refused(token(twice.encode())) == "auth_malformed"
    assert refused(token(header=b'{"alg":"none","alg":"EdDSA","kid":"local"}')) == "auth_malformed"


@pytest.mark.parametrize(
    "credential",
    [
        None,
        "",
        5,
        b"bytes",
        "x",
        "a.b",
        "a.b.c.d",
        "..",
        "é.é.é",
        "%%%.%%%.%%%",
        f"{part([1])}.{part(CLAIMS)}.x",
        f"{part('x')}.{part(CLAIMS)}.x",
        f"{part(b'{')}.{part(CLAIMS)}.x",
        f"{part({'alg': 'EdDSA', 'kid': 'local'})}.{part(b'{}x')}.x",
        "x" * (MAX_TOKEN_BYTES + 1),
        "x" * 5_000_000,
        "a." * 2_000_000 + "a",
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_not_a_token_is_malformed(credential: Any) -> None:
    assert refused(credential) == "auth_malformed"


@pytest.mark.parametrize("claims", [b'{"exp":NaN}', b"[" * 3000 + b"]" * 3000, b'{"a":"\x01"}', b"\xff\xfe"])
def test_claims_that_are_not_bounded_json_are_malformed(claims: bytes) -> None:
    assert refused(token(claims)) == "auth_malformed"


def test_a_refusal_tells_its_sentence_and_not_the_token() -> None:
    text = token(exp=NOW - 100)
    with pytest.raises(AuthRefused) as caught:
        AUTH.identify(text, NOW)
    assert "The token has expired." in caught.value.message and text not in caught.value.message


# Open tenants.


def test_an_open_tenant_takes_unlisted_principals_with_no_more_than_it_allows() -> None:
    who = AUTH.identify(
        token(tenant="open", sub="zoe", roles=["guest", "admin"], scopes=["pay", "root"], clearance="restricted"), NOW
    )
    assert (who.roles, who.scopes, who.clearance) == (("guest",), ("pay",), "internal")
    plain = AUTH.identify(token(tenant="open", sub="zoe"), NOW)
    assert (plain.roles, plain.scopes, plain.attributes) == ((), (), {})


@pytest.mark.parametrize("claims", [{"roles": "guest"}, {"scopes": [1]}, {"roles": {"a": 1}}, {"clearance": "cosmic"}])
def test_an_open_tenants_claims_must_be_lists_of_text(claims: dict[str, Any]) -> None:
    assert refused(token(tenant="open", sub="zoe", **claims)) == "auth_claim_missing"


def test_a_token_that_expires_beyond_all_time_is_refused_or_gives_an_identity_that_can_be_sealed() -> None:
    try:
        who = AUTH.identify(token(exp=10**30), NOW)
    except AuthRefused:
        return
    assert seal_identity(KEY, who, "run:x")


def test_a_claim_of_hundreds_of_digits_is_refused_before_the_signature_is_looked_at() -> None:
    head, _, mark = token().split(".")
    assert refused(f"{head}.{part({'x': 10**400})}.{mark}") == "auth_malformed"


# API keys.


def test_an_api_key_identifies_its_holder_and_the_directory_holds_only_its_hash() -> None:
    who = AUTH.identify(API_KEY, NOW)
    assert (who.principal, who.tenant, who.expires_us) == ("ann", "acme", 0)
    assert API_KEY not in DIRECTORY


@pytest.mark.parametrize("key", ["ask_", "ask_Test", "ask_test ", hash_api_key(API_KEY).replace("sha256:", "ask_")])
def test_an_unknown_api_key_is_refused(key: str) -> None:
    assert refused(key) == "auth_unknown_key"


def test_an_api_key_that_is_not_text_is_refused() -> None:
    assert refused("ask_\ud800") in ("auth_unknown_key", "auth_malformed")


def test_new_api_keys_differ_and_have_256_bits() -> None:
    one, other = new_api_key(), new_api_key()
    assert one != other and one.startswith("ask_") and len(base64.urlsafe_b64decode(one[4:] + "=")) == 32


# The directory.


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("tenants:\n  acme:\n    colour: red\n", 3, "unknown field"),
        ("tenants:\n  acme: {}\n  acme: {}\n", 3, "given twice"),
        ("tenants:\n  acme:\n    principals:\n      ann: {roles: clerk}\n", 4, "a list is needed, not text"),
        ("tenants:\n  acme:\n    concurrency: 0\n", 3, "at least 1 is needed"),
        ("tenants:\n  acme:\n    concurrency: '5'\n", 3, "a whole number is needed, not text: write it without quotes"),
        (
            "tenants:\n  acme:\n    limits: {max_stepz: 5}\n",
            3,
            "max_stepz: there is no such limit (do you mean max_steps?)",
        ),
        ("tenants:\n  acme:\n    limits: {max_steps: -1}\n", 3, "limits.max_steps: at least 0 is needed"),
        ("tenants:\n  acme:\n    limits: {max_steps: 1.5}\n", 3, "limits.max_steps: a whole number is needed"),
        ("tenants:\n  acme:\n    limits: {max_steps: true}\n", 3, "limits.max_steps: a whole number is needed"),
        ("tenants:\n  acme:\n    limits: [1]\n", 3, "a mapping is needed, not a list"),
        (
            "tenants:\n  acme:\n    limits:\n      max_steps: 5\n      colour: 5\n",
            5,
            "limits.colour: there is no such limit; there",
        ),
        ("tenants:\n  acme:\n    clearance: cosmic\n", 3, "clearance"),
        ("tenants:\n  acme:\n    principals:\n      ann: {api_keys: [secret]}\n", 4, "api_keys"),
        ("tenants:\n  AC/ME: {}\n", 2, "AC/ME"),
        ("issuer: x\ntenants:\n  acme:\n    principals: {'a b': {}}\n", 4, "a b"),
        ("tenants: {}\n", 1, "at least 1"),
    ],
)
def test_a_wrong_directory_names_the_line(text: str, line: int, says: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_directory(text)
    assert f"directory:{line}" in caught.value.message and says in caught.value.message


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("max_repeats", "0", "at least 1 is needed"),
        ("max_depth", "9", "at most 8 is needed"),
        ("decide_ms", "0", "at least 1 is needed"),
        ("tool_ms", "86400001", "at most 86,400,000 is needed"),
        ("max_steps", "10000000000000000", "at most 9,007,199,254,740,992 is needed"),
        ("max_steps", "'5'", "a whole number is needed, not text"),
    ],
)
def test_limits_outside_their_bounds_are_refused_at_load(field: str, value: str, bound: str) -> None:
    limits = f"limits: {{{field}: {value}}}"
    principal = f"tenants:\n  acme:\n    principals:\n      ann:\n        {limits}\n"
    for text, line in ((f"tenants:\n  acme:\n    {limits}\n", 3), (principal, 5)):
        with pytest.raises(InvalidConfig) as caught:
            load_directory(text)
        message = caught.value.message
        assert message.startswith(f"directory:{line}: tenants.acme.") and f"limits.{field}: {bound}" in message


@pytest.mark.parametrize("limits", ["{5: 1}", "{5: 1, max_steps: 2}"])
def test_limits_whose_names_are_not_text_are_refused_with_their_line(limits: str) -> None:
    with pytest.raises(InvalidConfig, match="directory:3"):
        load_directory(f"tenants:\n  acme:\n    limits: {limits}\n")


def keys_file(**pems: str) -> str:
    """Return a directory with these keys, the first on line 2."""
    lines = "".join(f"  {kid}: {{public_pem: {json.dumps(pem)}}}\n" for kid, pem in pems.items())
    return f"keys:\n{lines}{DIRECTORY}"


def pem_of_point(y: int, sign: int = 0) -> str:
    """Return the PEM of an Ed25519 key whose point is written so."""
    raw = (y | sign << 255).to_bytes(32, "little")
    der = bytes.fromhex("302a300506032b6570032100") + raw
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"


PRIME = 2**255 - 19
PUBLIC, PUBLIC_2 = public_of(SIGNER).decode(), public_of(OTHER).decode()
EIGHTH = 2707385501144840649318225287225658788936804267575313519463743609750303402022
WRONG_KEYS = {
    "another kind": (public_of(generate_private_key(SECP256R1())).decode(), "is not an Ed25519 key"),
    "nonsense": ("nonsense", "not a PEM public key"),
    "nothing": ("", "not a PEM public key"),
    "two": (PUBLIC_2 + PUBLIC, "several PEM blocks"),
    "a text before": ("# of the bank\n" + PUBLIC, "nothing else"),
    "a private key": (pem_of(OTHER).decode(), "this is a private key"),
    "a private key beside": (PUBLIC + pem_of(OTHER).decode(), "this is a private key"),
    "half": (PUBLIC[:60] + "\n-----END PUBLIC KEY-----\n", "not a PEM public key"),
    "no point": (pem_of_point(2), "no point of the curve"),
    **{
        f"small {index}": (pem_of_point(y, sign), "anybody can sign")
        for index, (y, sign) in enumerate(
            (y, sign) for y in (0, 1, PRIME - 1, EIGHTH, PRIME - EIGHTH) for sign in (0, 1)
        )
    },
    **{f"not canonical {n}": (pem_of_point(PRIME + n), "canonical") for n in (0, 1, 3, 18)},
}


@pytest.mark.parametrize("wrong", WRONG_KEYS)
def test_a_key_that_binds_nobody_is_refused_at_load_with_its_line(wrong: str) -> None:
    pem, says = WRONG_KEYS[wrong]
    with pytest.raises(InvalidConfig) as caught:
        load_directory(keys_file(good=PUBLIC, k1=pem))
    assert caught.value.message.startswith("directory:3: keys.k1.public_pem: ") and says in caught.value.message


def test_the_points_of_small_order_are_those_of_the_curve() -> None:
    """Eight times each of them is nothing, by the curve's own addition."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME

    def doubled(x: int, y: int) -> tuple[int, int]:
        k = d * x * x * y * y % PRIME
        return 2 * x * y * pow(1 + k, -1, PRIME) % PRIME, (y * y + x * x) * pow(1 - k, -1, PRIME) % PRIME

    for y in (0, 1, PRIME - 1, EIGHTH, PRIME - EIGHTH):
        square = (y * y - 1) * pow(d * y * y + 1, -1, PRIME) % PRIME
        root = pow(square, (PRIME + 3) // 8, PRIME)
        x = root if root * root % PRIME == square else root * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
        assert x * x % PRIME == square
        assert doubled(*doubled(*doubled(x, y))) == (0, 1)


@pytest.mark.parametrize("kid", ["local", "LOCAL", "' local'"])
def test_no_key_of_a_directory_takes_the_place_of_the_stacks_own(kid: str) -> None:
    with pytest.raises(InvalidConfig, match=r"directory:2: keys\..*the stack's own key"):
        load_directory(keys_file(**{kid: PUBLIC_2}))


def test_one_key_under_two_ids_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"directory:3: keys\.b: that is the same key as 'a'"):
        load_directory(keys_file(a=PUBLIC_2, b=PUBLIC_2.replace("\n", "\r\n")))
    with pytest.raises(InvalidConfig, match=r"keys\.mine: this is the stack's own key"):
        Authenticator(load_directory(keys_file(mine=PUBLIC)), public_of(SIGNER))


def test_one_api_key_of_two_principals_is_refused() -> None:
    key = hash_api_key(API_KEY)
    with pytest.raises(InvalidConfig, match="one API key of two principals: ann of a and bob of b"):
        load_directory(
            f"tenants:\n  a: {{principals: {{ann: {{api_keys: ['{key}']}}}}}}\n"
            f"  b: {{principals: {{bob: {{api_keys: ['{key}']}}}}}}\n"
        )


def test_open_roles_of_a_tenant_that_is_not_open_are_refused() -> None:
    for field in ("open_roles", "open_scopes"):
        with pytest.raises(InvalidConfig, match=r"directory:2: tenants.a: .*open: true"):
            load_directory(f"tenants:\n  a: {{{field}: [guest]}}\n")


def test_a_pinned_key_of_another_issuer_signs_under_its_own_id() -> None:
    pem = json.dumps(public_of(OTHER).decode())
    head = f"keys: {{k1: {{public_pem: {pem}}}}}\n"
    auth = Authenticator(load_directory(head + DIRECTORY), public_of(SIGNER))
    assert auth.identify(token(header={"alg": "EdDSA", "kid": "k1"}, key=OTHER), NOW).principal == "ann"
    with pytest.raises(AuthRefused):
        auth.identify(token(header={"alg": "EdDSA", "kid": "k1"}), NOW)


# Seals and keys.


def test_an_identity_is_believed_only_with_its_seal() -> None:
    import msgspec

    who = AUTH.identify(token(), NOW)
    encoded, proof = msgspec.msgpack.encode(who), seal_identity(KEY, who, "run:x")
    checker = IdentityChecker(KEY)
    assert checker.check(encoded, proof, "run:x") == who == checker.check(encoded, proof, "run:x")
    assert checker.check(encoded, proof, "run:y") is None and checker.check(encoded, proof, "vote:x") is None
    raised = msgspec.msgpack.encode(msgspec.structs.replace(who, limits=Limits()))
    assert checker.check(raised, proof, "run:x") is None
    assert IdentityChecker(b"j" * 32).check(encoded, proof, "run:x") is None


def test_a_key_ring_is_made_once_for_its_user_only(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "keys"
    ring = KeyRing.open(folder)
    again = KeyRing.open(folder)
    assert (ring.seal, ring.chain, ring.issuer_pem) == (again.seal, again.chain, again.issuer_pem)
    assert ring.webhook == again.webhook and ring.webhook.startswith(b"whsec_")
    assert {len(key) for key in (ring.seal, ring.chain, ring.blobs)} == {32}
    assert len({ring.seal, ring.chain, ring.blobs}) == 3 and ring.blobs == again.blobs
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == ["blobs.key", "chain.key", "issuer.pem", "seal.key", "webhook.key"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600} and folder.stat().st_mode & 0o777 == 0o700
    auth = Authenticator(load_directory(DIRECTORY), ring.issuer_public_pem)
    mine = issue_token(ring.issuer_pem, tenant="acme", principal="ann", now_s=NOW)
    assert auth.identify(mine, NOW).principal == "ann"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
@pytest.mark.parametrize("name", ["seal.key", "chain.key", "issuer.pem", "webhook.key"])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    KeyRing.open(tmp_path)
    (tmp_path / name).chmod(mode)
    with pytest.raises(InvalidConfig, match=rf"{name}: others can read"):
        KeyRing.open(tmp_path)


def test_half_a_key_is_refused(tmp_path: Path) -> None:
    KeyRing.open(tmp_path)
    (tmp_path / "seal.key").write_bytes(b"x" * 31)
    with pytest.raises(InvalidConfig, match="not a whole key"):
        KeyRing.open(tmp_path)


@pytest.mark.parametrize(("name", "data"), [("issuer.pem", b"-----BEGIN PRIV"), ("seal.key", b"-----BEGIN")])
def test_half_a_pem_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    KeyRing.open(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidConfig):
        KeyRing.open(tmp_path)


def test_a_key_ring_does_not_show_its_keys(tmp_path: Path) -> None:
    assert repr(KeyRing.open(tmp_path)) == "KeyRing()"


@pytest.mark.parametrize("ttl_s", [0, -5, 2.5, True, float("inf"), 2**41, "60"])
def test_a_token_lives_for_a_whole_number_of_seconds(ttl_s: Any, tmp_path: Path) -> None:
    pem = KeyRing.open(tmp_path).issuer_pem
    with pytest.raises(InvalidInput, match="whole number of seconds"):
        issue_token(pem, tenant="acme", principal="ana", now_s=0, ttl_s=ttl_s)


@pytest.mark.parametrize("claims", [{"a": float("nan")}, {"a": {1}}, {1: 2}, {"a": "x" * 10_000}])
def test_a_token_says_json_of_a_bounded_size(claims: Any, tmp_path: Path) -> None:
    pem = KeyRing.open(tmp_path).issuer_pem
    with pytest.raises(InvalidInput, match="token claims"):
        issue_token(pem, tenant="acme", principal="ana", now_s=0, claims=claims)
