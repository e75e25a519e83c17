"""Who is asking: Ed25519 JWTs and API keys, checked against what the server pinned.

Nothing in a token chooses how it is checked: algorithm, issuer, audience and key ids are the directory's.  The size
is capped before anything is parsed, repeated claims are refused, and `exp` and `nbf` must be there as whole numbers;
`iat`, if it is there, is not in the future.  A token may be used until it expires, as often as its holder likes: `jti`
is not remembered.
PyJWT checks the signature; what it leaves open (a repeated claim, an audience list, `exp` as text) is closed here.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airside.stack.canonical import parse_bounded, write_bounded
from airside.stack.directory import LOCAL_KEY_ID, Directory, Principal, Tenant, lower
from airside.stack.errors import AuthRefused, InvalidConfig, InvalidId, InvalidInput
from airside.stack.ids import parse_principal, parse_tenant
from airside.stack.input.public_keys import public_key
from airside.stack.reasons import ReasonCode
from airside.stack.values import CLEARANCES, Identity

MAX_TOKEN_BYTES = 8 * 1024
"""Larger than any honest token, small enough to parse without thought."""

LOCAL_ISSUER, LOCAL_AUDIENCE = "airside-local", "airside"

_REQUIRED: tuple[tuple[str, type], ...] = (
    ("iss", str),
    ("aud", str),
    ("sub", str),
    ("tenant", str),
    ("exp", int),
    ("nbf", int),
)
_OPTIONAL: tuple[tuple[str, type], ...] = (("iat", int), ("jti", str))
_LEEWAY_S = 5
_LAST_SECOND = 2**40
_REMEMBERED = 4096
"""Tokens that verified and are not checked again until they expire: a batch uses one many times."""

_KEY_PREFIX = "ask_"


def refuse(reason: ReasonCode, detail: str) -> AuthRefused:
    """Return the refusal to raise."""
    return AuthRefused(f"{reason.sentence} ({detail})", reason=reason.value)


class Authenticator:
    """Turns a token or an API key into an `Identity`, or raises `AuthRefused` with one of the auth reason codes."""

    def __init__(self, directory: Directory, local_public_pem: bytes) -> None:
        self._directory = directory
        local = public_key(local_public_pem)
        self._keys = {kid: public_key(key.public_pem) for kid, key in directory.keys.items()}
        for kid, key in self._keys.items():
            if key == local:
                raise InvalidConfig(f"directory: keys.{kid}: this is the stack's own key: leave it out, it is pinned")
        self._keys[LOCAL_KEY_ID] = local
        self._api_keys = {
            digest: (tenant, principal)
            for tenant, entry in directory.tenants.items()
            for principal, who in entry.principals.items()
            for digest in who.api_keys
        }
        self._known: OrderedDict[str, tuple[Identity, int]] = OrderedDict()

    def identify(self, credential: Any, now_s: int) -> Identity:
        """Return who holds `credential` (a JWT, or an API key beginning with `ask_`) at `now_s` (UTC seconds)."""
        if not isinstance(credential, str) or not credential:
            raise refuse(ReasonCode.AUTH_MALFORMED, "no token was given")
        if not credential.isascii():
            raise refuse(ReasonCode.AUTH_MALFORMED, "a credential is ASCII")
        if len(credential) > MAX_TOKEN_BYTES:
            raise refuse(ReasonCode.AUTH_MALFORMED, f"{len(credential):,} bytes, over {MAX_TOKEN_BYTES:,}")
        if credential.startswith(_KEY_PREFIX):
            return self._by_api_key(credential)
        known = self._known.get(credential)
        if known is not None and known[1] > now_s:
            return known[0]
        claims = self._claims(credential, now_s)
        identity = self._by_claims(claims)
        self._known[credential] = (identity, claims["exp"])
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return identity

    def _by_api_key(self, key: str) -> Identity:
        holder = self._api_keys.get(hash_api_key(key))
        if holder is None:
            raise refuse(ReasonCode.AUTH_UNKNOWN_KEY, "the key's hash is not in the directory")
        tenant, principal = holder
        entry = self._directory.tenants[tenant]
        return _identity(tenant, principal, entry, entry.principals[principal], expires_us=0)

    def _claims(self, token: str, now_s: int) -> dict[str, Any]:
        parts = token.split(".")
        if len(parts) != 3:
            raise refuse(ReasonCode.AUTH_MALFORMED, "a token has three parts")
        header, claims = _part(parts[0], "header"), _part(parts[1], "claims")
        if header.get("alg") != "EdDSA" or "crit" in header:
            raise refuse(ReasonCode.AUTH_UNTRUSTED, f"algorithm {header.get('alg')!r:.40}; EdDSA is pinned")
        kid = header.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise refuse(ReasonCode.AUTH_UNTRUSTED, f"key id {kid!r:.40} is not pinned")
        try:
            jwt.api_jws.decode(token, key, algorithms=["EdDSA"])
        except jwt.InvalidSignatureError:
            raise refuse(ReasonCode.AUTH_BAD_SIGNATURE, "checked with the pinned key") from None
        except jwt.InvalidTokenError as error:
            raise refuse(ReasonCode.AUTH_FAILED, str(error)) from None
        self._check_claims(claims, now_s, local=kid == LOCAL_KEY_ID)
        return claims

    def _check_claims(self, claims: dict[str, Any], now_s: int, *, local: bool) -> None:
        for name, kind in _REQUIRED:
            if type(claims.get(name)) is not kind:
                raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{name} must be {kind.__name__}")
        for name, kind in _OPTIONAL:
            if name in claims and type(claims[name]) is not kind:
                raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{name} must be {kind.__name__}, or left out")
        times = [claims[name] for name in ("exp", "nbf", "iat") if name in claims]
        if max(times) >= _LAST_SECOND or min(times) < 0:
            raise refuse(ReasonCode.AUTH_CLAIM_MISSING, "exp, nbf and iat must be seconds since 1970")
        begins = max(claims["nbf"], claims.get("iat", 0))
        pinned = (LOCAL_ISSUER, LOCAL_AUDIENCE) if local else (self._directory.issuer, self._directory.audience)
        if (claims["iss"], claims["aud"]) != pinned:
            raise refuse(ReasonCode.AUTH_UNTRUSTED, "issuer or audience is not the pinned one")
        if claims["exp"] + _LEEWAY_S <= now_s:
            raise refuse(ReasonCode.AUTH_EXPIRED, f"{now_s - claims['exp']} s ago")
        if begins - _LEEWAY_S > now_s:
            raise refuse(ReasonCode.AUTH_NOT_YET_VALID, f"for another {begins - now_s} s")
        if claims["exp"] <= begins:
            raise refuse(ReasonCode.AUTH_CLAIM_MISSING, "exp must be after nbf and iat, or the token is never valid")

    def _by_claims(self, claims: dict[str, Any]) -> Identity:
        try:
            tenant, principal = parse_tenant(claims["tenant"]), parse_principal(claims["sub"])
        except InvalidId as error:
            raise refuse(ReasonCode.AUTH_CLAIM_MISSING, error.message) from None
        entry = self._directory.tenants.get(tenant)
        if entry is None:
            raise refuse(ReasonCode.TENANT_UNKNOWN, tenant)
        listed = entry.principals.get(principal)
        if listed is None and not entry.open:
            raise refuse(ReasonCode.PRINCIPAL_UNKNOWN, f"{principal} of {tenant}")
        who = listed or _unlisted(entry, claims)
        return _identity(tenant, principal, entry, who, expires_us=claims["exp"] * 1_000_000)


def _unlisted(entry: Tenant, claims: dict[str, Any]) -> Principal:
    def within(name: str, allowed: Sequence[str]) -> list[str]:
        given = claims.get(name, [])
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"{name} must be a list of text")
        return sorted(set(given) & set(allowed))

    clearance = claims.get("clearance", "internal")
    if clearance not in CLEARANCES:
        raise refuse(ReasonCode.AUTH_CLAIM_MISSING, f"clearance must be one of {list(CLEARANCES)}")
    return Principal(
        roles=within("roles", entry.open_roles), scopes=within("scopes", entry.open_scopes), clearance=clearance
    )


def _identity(tenant: str, principal: str, entry: Tenant, who: Principal, *, expires_us: int) -> Identity:
    return Identity(
        principal=parse_principal(principal),
        tenant=parse_tenant(tenant),
        roles=tuple(who.roles),
        scopes=tuple(who.scopes),
        clearance=lower(who.clearance, entry.clearance),
        attributes={name: tuple(values) for name, values in who.attributes.items()},
        limits=entry.limits_of(who),
        expires_us=expires_us,
    )


def _part(text: str, name: str) -> dict[str, Any]:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value = parse_bounded(raw, max_bytes=MAX_TOKEN_BYTES, where=f"token {name}")
    except (ValueError, InvalidInput) as error:
        raise refuse(ReasonCode.AUTH_MALFORMED, str(error)[:200]) from None
    if not isinstance(value, dict):
        raise refuse(ReasonCode.AUTH_MALFORMED, f"the {name} is not an object")
    return value


def hash_api_key(key: str) -> str:
    """Return what the directory keeps of an API key; it has 256 random bits, so a plain hash is enough."""
    return "sha256:" + hashlib.sha256(key.encode(errors="replace")).hexdigest()


def new_api_key() -> str:
    """Return a new API key: show it once, keep its hash."""
    return _KEY_PREFIX + secrets.token_urlsafe(32)


def issue_token(
    private_pem: bytes,
    *,
    tenant: str,
    principal: str,
    now_s: int,
    ttl_s: int = 3600,
    issuer: str = LOCAL_ISSUER,
    audience: str = LOCAL_AUDIENCE,
    kid: str = LOCAL_KEY_ID,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Sign a token with the stack's local key, for use on the machine that has it.

    Raises `InvalidInput` for a life that is no whole number of seconds from 1 on, and for claims that are no JSON;
    they do not override what the token says by itself.
    """
    if type(ttl_s) is not int or not 1 <= ttl_s < _LAST_SECOND - now_s:
        raise InvalidInput(f"token: a life of {ttl_s!r:.40} s: give a whole number of seconds, at least 1")
    key = serialization.load_pem_private_key(private_pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidConfig("the issuer's key is not an Ed25519 key")
    said = {
        "iss": issuer,
        "aud": audience,
        "sub": parse_principal(principal),
        "tenant": parse_tenant(tenant),
        "nbf": now_s,
        "exp": now_s + ttl_s,
    }
    write_bounded(dict(claims or {}), max_bytes=MAX_TOKEN_BYTES, where="token claims")
    return jwt.encode({**(claims or {}), **said}, key, algorithm="EdDSA", headers={"kid": kid})
