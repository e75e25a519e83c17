"""What an issuer publishes as its keys (a JWK Set, RFC 7517), read into those that its tokens may be signed with.

A key is bound to algorithms here, by its kind, its curve and what it says of itself, within those that the directory
pins: what a token's header says chooses among these, and cannot have a key used in another way.  What cannot be used
is left out, each with why; what is no set of keys at all is refused as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from airside.stack.canonical import digest, parse_bounded
from airside.stack.errors import InvalidInput
from airside.stack.input.public_keys import problem_with_point

MAX_KEY_SET_BYTES = 256 * 1024
"""Issuers publish 2 to 20 kB, certificates included."""

MAX_KEYS = 64
"""An issuer has a handful, some of them for encryption."""

MAX_KEY_ID_CHARS = 256
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
"""Shorter ones are broken by those who try hard; longer ones make work of every token."""

_MAX_MODULUS_CHARS, _MAX_EXPONENT_CHARS = 1_400, 11
"""As base64url: 8,192 bits, and what is small enough to check a signature quickly."""

_ALGORITHMS: dict[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""What a key of a kind and curve may sign with."""

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True, eq=False)
class TokenKey:
    """A public key, and the algorithms it may be used with."""

    key: Any
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The keys of one issuer by their ids, as they were at one time; `unused` says why others are not among them."""

    keys: Mapping[str, TokenKey] = field(repr=False)
    digest: str
    unused: tuple[str, ...] = ()


def read_key_set(data: bytes, algorithms: Sequence[str]) -> KeySet:
    """Return the keys that tokens of these algorithms may be signed with; raise `InvalidInput` for what is no set.

    A set without a usable key is one: its issuer has taken all of them back.
    """
    value = parse_bounded(data, max_bytes=MAX_KEY_SET_BYTES, where="keys")
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise InvalidInput('keys: no JWK Set: an object with a list "keys" is needed')
    if len(listed) > MAX_KEYS:
        raise InvalidInput(f"keys: {len(listed):,} keys, of at most {MAX_KEYS}")
    ids = Counter(jwk["kid"] for jwk in listed if isinstance(jwk, dict) and isinstance(jwk.get("kid"), str))
    keys: dict[str, TokenKey] = {}
    unused: list[str] = []
    for index, jwk in enumerate(listed):
        try:
            kid = _key_id(jwk, ids)
            keys[kid] = _token_key(jwk, frozenset(algorithms))
        except InvalidInput as problem:
            unused.append(f"keys[{index}]: {problem.message}"[:200])
    return KeySet(keys, digest(data), tuple(unused))


def _key_id(jwk: Any, ids: Counter[str]) -> str:
    """Return a key's id; one that several keys have is none of theirs, for it does not say which is meant."""
    if not isinstance(jwk, dict):
        raise InvalidInput("it is no object")
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KEY_ID_CHARS:
        raise InvalidInput("it has no kid that a token could name")
    if ids[kid] > 1:
        raise InvalidInput(f"several keys have the kid {kid!r:.40}")
    return kid


def _token_key(jwk: Mapping[str, Any], pinned: frozenset[str]) -> TokenKey:
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise InvalidInput("it is not for signatures (use, key_ops)")
    if not _PRIVATE.isdisjoint(jwk):
        raise InvalidInput("it has private parts, so that anybody can sign with it")
    kind, curve = jwk.get("kty"), jwk.get("crv", "")
    if not isinstance(kind, str) or not isinstance(curve, str):
        raise InvalidInput("kty and crv must be text")
    usable = pinned.intersection(_ALGORITHMS.get((kind, curve), ()))
    if "alg" in jwk:
        usable = frozenset(each for each in usable if each == jwk["alg"])
    if not usable:
        raise InvalidInput("none of the pinned algorithms is its own (kty, crv, alg)")
    if kind == "RSA":
        _check_lengths(jwk)
    try:
        key = jwt.PyJWK(dict(jwk), algorithm=min(usable)).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise InvalidInput(f"it is broken: {error}") from None
    _check_strength(key)
    return TokenKey(key, usable)


def _check_lengths(jwk: Mapping[str, Any]) -> None:
    """Refuse what would take long to read, before it is read."""
    for name, most in (("n", _MAX_MODULUS_CHARS), ("e", _MAX_EXPONENT_CHARS)):
        if not isinstance(jwk.get(name), str) or len(jwk[name]) > most:
            raise InvalidInput(f"{name} must be text of at most {most:,} characters")


def _check_strength(key: Any) -> None:
    if isinstance(key, RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InvalidInput(f"an RSA key of {key.key_size:,} bits, and not of {MIN_RSA_BITS:,} to {MAX_RSA_BITS:,}")
    problem = problem_with_point(key.public_bytes_raw()) if isinstance(key, Ed25519PublicKey) else ""
    if problem:
        raise InvalidInput(f"an Ed25519 key that cannot be used: {problem}")
