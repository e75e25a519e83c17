"""Keys as issuers publish them: which are used with what, which are left out, and what is no set of keys."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import InvalidInput
from airside.stack.issuers import Algorithm
from airside.stack.security.key_sets import MAX_KEY_SET_BYTES, MAX_KEYS, KeySet, read_key_set
from tests.oidc_issuer import jwk_of, private_key

ALL: list[str] = list(get_args(Algorithm))
RSA, EC, ED = (jwk_of(private_key(each), each.lower(), each) for each in ("RS256", "ES256", "EdDSA"))


def read(*jwks: Any, algorithms: list[str] = ALL) -> KeySet:
    """Return what is made of these keys."""
    return read_key_set(json.dumps({"keys": jwks}).encode(), algorithms)


def why(jwk: Any, algorithms: list[str] = ALL) -> str:
    """Return why a key is left out, beside one that is used all the same."""
    found = read(jwk, {**ED, "kid": "beside"}, algorithms=algorithms)
    assert list(found.keys) == ["beside"]
    return found.unused[0]


def test_each_kind_of_key_is_used_with_its_own_algorithms_alone() -> None:
    found = read(*({name: value for name, value in each.items() if name != "alg"} for each in (RSA, EC, ED)))
    rsa_algorithms = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert {kid: set(key.algorithms) for kid, key in found.keys.items()} == {
        "rs256": rsa_algorithms,
        "es256": {"ES256"},
        "eddsa": {"EdDSA"},
    }
    for algorithm in ("ES384", "ES512"):
        jwk = jwk_of(private_key(algorithm), "k", algorithm, alg=None)
        assert set(read(jwk).keys["k"].algorithms) == {algorithm}


def test_a_key_that_names_its_algorithm_is_used_with_no_other_and_none_that_is_not_pinned() -> None:
    assert set(read({**RSA, "alg": "PS256"}).keys["rs256"].algorithms) == {"PS256"}
    assert set(read({**RSA, "alg": "RS256"}, algorithms=["RS256", "PS256"]).keys["rs256"].algorithms) == {"RS256"}
    assert "none of the pinned algorithms" in why(RSA, ["EdDSA"])
    for wrong in ("HS256", "RSA-OAEP", "ES256", "rs256", "none", ["RS256"], {"a": 1}, None, 5):
        assert "none of the pinned algorithms" in why({**RSA, "alg": wrong})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"use": "enc"}, "not for signatures"),
        ({"use": ["sig"]}, "not for signatures"),
        ({"use": None}, "not for signatures"),
        ({"key_ops": ["sign"]}, "not for signatures"),
        ({"key_ops": []}, "not for signatures"),
        ({"key_ops": "verify"}, "not for signatures"),
        ({"key_ops": {"verify": 1}}, "not for signatures"),
        ({"kid": ""}, "no kid"),
        ({"kid": 5}, "no kid"),
        ({"kid": None}, "no kid"),
        ({"kid": "x" * 257}, "no kid"),
        ({"kty": "oct", "k": "c2VjcmV0"}, "private parts"),
        ({"kty": "oct"}, "none of the pinned"),
        ({"kty": "EC"}, "none of the pinned"),
        ({"kty": "rsa"}, "none of the pinned"),
        ({"kty": ["RSA"]}, "must be text"),
        ({"crv": ["P-256"]}, "must be text"),
        ({"crv": "P-256"}, "none of the pinned"),
        ({"d": "AQAB"}, "private parts"),
        ({"n": 5}, "n must be text"),
        ({"n": "A" * 1401}, "n must be text of at most"),
        ({"n": "!!!"}, "broken"),
        ({"n": ""}, "broken"),
        ({"e": "AQ"}, "broken"),
        ({"e": "A" * 12}, "e must be text"),
        ({"e": None}, "e must be text"),
    ],
)
def test_a_key_that_cannot_be_used_is_left_out_alone(changed: dict[str, Any], says: str) -> None:
    assert says in why({**RSA, **changed})


def test_what_is_no_key_at_all_is_left_out_alone() -> None:
    for each in (None, 5, "x", [], {}, [RSA]):
        assert why(each).startswith("keys[0]: ")


@pytest.mark.parametrize("bits", [1024, 2047])
def test_a_short_rsa_key_is_left_out(bits: int) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits) if bits == 1024 else None
    modulus = key.public_key().public_numbers().n if key else 2**2046 + 1
    n = base64.urlsafe_b64encode(modulus.to_bytes(256, "big").lstrip(b"\0")).rstrip(b"=").decode()
    assert f"an RSA key of {bits:,} bits" in why({**RSA, "n": n})


@pytest.mark.parametrize(
    "changed",
    [
        {"crv": "P-384"},
        {"crv": "P-521"},
        {"crv": "secp256k1"},
        {"crv": ""},
        {"x": EC["y"]},
        {"x": EC["x"][:-4]},
        {"x": 5},
        {"y": None},
        {"y": "AA"},
    ],
)
def test_a_key_on_another_curve_or_on_none_is_left_out(changed: dict[str, Any]) -> None:
    for alg in ("ES256", "ES384"):
        assert why({**EC, "alg": alg, **changed})
    assert why({name: value for name, value in {**EC, **changed}.items() if name != "alg"})


@pytest.mark.parametrize(
    "x", ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AA"]
)
def test_an_ed25519_key_with_which_anybody_signs_is_left_out(x: str) -> None:
    assert why({**ED, "x": x})
    assert "none of the pinned" in why({**ED, "crv": "Ed448"})


def test_an_id_that_two_keys_have_is_neithers() -> None:
    found = read(RSA, {**EC, "kid": "rs256"}, ED)
    assert list(found.keys) == ["eddsa"] and len(found.unused) == 2
    assert not read(RSA, {**RSA, "use": "enc"}).keys


def test_a_set_without_a_key_is_one_and_its_issuer_has_taken_all_back() -> None:
    assert dict(read().keys) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [NaN]}',
        b'{"keys": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff\xfe",
        b" " * (MAX_KEY_SET_BYTES + 1),
    ],
    ids=lambda data: repr(data)[:24],
)
def test_what_is_no_set_of_keys_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_key_set(data, ALL)


def test_a_thousand_keys_are_refused_as_a_whole() -> None:
    with pytest.raises(InvalidInput, match=r"1,000 keys, of at most 64"):
        read(*({"kid": str(index)} for index in range(1000)))
    assert len(read(*({**ED, "kid": str(index)} for index in range(MAX_KEYS))).keys) == MAX_KEYS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.sampled_from(["kid", "kty", "crv", "alg", "use", "key_ops", "n", "e", "x", "y", "d", "k"])


@given(base=st.sampled_from([RSA, EC, ED]), changed=st.dictionaries(MEMBERS, JSON, max_size=4))
def test_no_key_set_however_odd_breaks_reading_or_gives_a_key_a_further_use(
    base: dict[str, Any], changed: dict[str, Any]
) -> None:
    try:
        found = read({**base, **changed}, algorithms=["RS256", "ES256"])
    except InvalidInput:
        return
    for key in found.keys.values():
        assert key.algorithms and key.algorithms <= {"RS256", "ES256"}
        assert changed.get("use", "sig") == "sig" and not {"d", "k"} & changed.keys()
